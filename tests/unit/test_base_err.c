#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

static void test_set(void **state)
{
	struct error error;

	(void)state;
	errno = EXDEV;
	assert_int_equal(error_set(&error, ERR_FENCED, 5, "%s: %d", "log", 7), ERR_FENCED);
	assert_int_equal(errno, EXDEV);
	assert_int_equal(error.code, ERR_FENCED);
	assert_int_equal(error.sys_errno, 5);
	assert_string_equal(error.message, "log: 7");
	assert_int_equal(error_set(NULL, ERR_KEY, 0, "x"), ERR_KEY);
	assert_int_equal(error_errno(NULL, ENOENT, "x"), ERR_ABSENT);
	/* A message wrapped in another. */
	assert_int_equal(error_set(&error, ERR_FAILED, 0, "outer: %s", error.message), ERR_FAILED);
	assert_string_equal(error.message, "outer: log: 7");
}

static void test_escapes(void **state)
{
	struct error error;

	(void)state;
	error_set(&error, ERR_FAILED, 0, "file %s", "a\n\x1b]0;\xff\xc3\xa9");
	assert_string_equal(error.message, "file a\\x0a\\x1b]0;\\xff\xc3\xa9");
}

static void test_errno(void **state)
{
	struct error error;
	char path[5000];

	(void)state;
	assert_int_equal(error_errno(&error, EACCES, "cannot open %s", "/x"), ERR_DENIED);
	assert_string_equal(error.message, "cannot open /x: Permission denied");
	assert_int_equal(error.sys_errno, EACCES);
	/* However long the path, the reason is still there. */
	memset(path, 'p', sizeof path);
	path[sizeof path - 1] = '\0';
	assert_int_equal(error_errno(&error, ENOSPC, "cannot write %s", path), ERR_NOSPACE);
	assert_int_equal(strlen(error.message), sizeof error.message - 1);
	assert_non_null(strstr(error.message, "pp: No space left on device"));
	error_set(&error, ERR_FAILED, 0, "%s", path);
	assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

static void test_codes(void **state)
{
	(void)state;
	assert_int_equal(error_code_of_errno(EEXIST), ERR_EXISTS);
	assert_int_equal(error_code_of_errno(EDQUOT), ERR_NOSPACE);
	assert_int_equal(error_code_of_errno(ENOMEM), ERR_NOMEM);
	assert_int_equal(error_code_of_errno(EPERM), ERR_DENIED);
	assert_int_equal(error_code_of_errno(EBUSY), ERR_BUSY);
	assert_int_equal(error_code_of_errno(EAGAIN), ERR_BUSY);
	assert_int_equal(error_code_of_errno(EIO), ERR_FAILED);
	for (int code = ERR_ABANDONED; code <= ERR_OK; code++)
		for (int other = ERR_ABANDONED; other < code; other++)
			assert_string_not_equal(error_word(code), error_word(other));
	assert_string_equal(error_word(ERR_ABSENT), "absent");
	assert_string_equal(error_word(-999), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct buf text;

static void expect(struct json *json, const char *expected)
{
	assert_int_equal(json_finish(json), 0);
	assert_int_equal(buf_append_u8(&text, 0), 0);
	assert_string_equal((char *)text.data, expected);
	buf_free(&text);
}

static void test_nesting(void **state)
{
	struct json json = { .out = &text };

	(void)state;
	json_begin_object(&json, NULL);
	json_string(&json, "a", "b");
	json_begin_array(&json, "list");
	json_int(&json, NULL, 1);
	json_begin_object(&json, NULL);
	json_end_object(&json);
	json_begin_array(&json, NULL);
	json_end_array(&json);
	json_null(&json, NULL);
	json_end_array(&json);
	json_begin_object(&json, "inner");
	json_bool(&json, "yes", true);
	json_bool(&json, "no", false);
	json_end_object(&json);
	json_string(&json, "none", NULL);
	json_end_object(&json);
	expect(&json, "{\"a\":\"b\",\"list\":[1,{},[],null],\"inner\":{\"yes\":true,\"no\":false},\"none\":null}");
}

static void test_numbers(void **state)
{
	struct json json = { .out = &text };

	(void)state;
	json_begin_array(&json, NULL);
	json_int(&json, NULL, INT64_MIN);
	json_int(&json, NULL, INT64_MAX);
	json_int(&json, NULL, 0);
	json_uint(&json, NULL, UINT64_MAX);
	json_end_array(&json);
	expect(&json, "[-9223372036854775808,9223372036854775807,0,18446744073709551615]");
}

static void test_strings(void **state)
{
	struct json json = { .out = &text };

	(void)state;
	json_begin_array(&json, NULL);
	json_string(&json, NULL, "");
	json_string(&json, NULL, "\"\\/");
	json_string(&json, NULL, "\n\t\r\x01\x1f\x7f");
	json_string(&json, NULL, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	json_string(&json, NULL, "a\xff\xc3z\xed\xa0\x80");
	json_string(&json, NULL, "\xc2\x9b");
	json_string_n(&json, NULL, "a\0b\xe2\x82", 5);
	json_end_array(&json);
	expect(&json, "[\"\",\"\\\"\\\\/\",\"\\n\\t\\u000d\\u0001\\u001f\\u007f\",\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\","
		      "\"a\\u00ff\\u00c3z\\u00ed\\u00a0\\u0080\",\"\\u009b\",\"a\\u0000b\\u00e2\\u0082\"]");
}

static void test_scalar(void **state)
{
	struct json json = { .out = &text };

	(void)state;
	json_string(&json, NULL, "x");
	expect(&json, "\"x\"");
}

static void key_in_array(struct json *json)
{
	json_begin_array(json, NULL);
	json_int(json, "k", 1);
}

static void no_key_in_object(struct json *json)
{
	json_begin_object(json, NULL);
	json_int(json, NULL, 1);
}

static void wrong_end(struct json *json)
{
	json_begin_object(json, NULL);
	json_end_array(json);
}

static void left_open(struct json *json)
{
	json_begin_object(json, NULL);
	json_finish(json);
}

static void two_values(struct json *json)
{
	json_null(json, NULL);
	json_null(json, NULL);
}

static void too_deep(struct json *json)
{
	for (unsigned i = 0; i <= JSON_DEEPEST; i++)
		json_begin_array(json, NULL);
}

/* Mistakes in our own code end at once rather than in JSON that nobody can parse. */
static void test_misuse(void **state)
{
	void (*const mistakes[])(struct json *) = { key_in_array, no_key_in_object, wrong_end, left_open, two_values, too_deep };

	(void)state;
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
		int status = -1;
		pid_t pid = fork();

		if (pid == 0) {
			struct json json = { .out = &text };

			dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
			signal(SIGABRT, SIG_DFL);
			mistakes[i](&json);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nesting), cmocka_unit_test(test_numbers), cmocka_unit_test(test_strings),
		cmocka_unit_test(test_scalar),  cmocka_unit_test(test_misuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "mount_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_ours_and_kernel(void **state)
{
	struct mount_options options = {0};
	struct error error;
	(void)state;

	assert_int_equal(mount_options_parse("take_over,noatime,exclusive,snapdir=visible,ro,nosuid,dirsync", &options, &error), 0);
	assert_true(options.take_over && options.exclusive && options.snapdir_visible && options.read_only && options.nosuid);
	assert_false(options.suid || options.dev || options.accept_loss || options.allow_other);
	assert_string_equal((char *)options.kernel.data, ",noatime,dirsync");
	buf_free(&options.kernel);
}

static void test_fstab_words_are_ignored(void **state)
{
	struct mount_options options = {0};
	struct error error;
	(void)state;

	assert_int_equal(mount_options_parse("rw,defaults,nofail,_netdev,user=x,users,x-systemd.automount,X-a.b=c,"
					     "comment=hi there,,relatime,snapdir=hidden,auto",
					     &options, &error),
			 0);
	assert_int_equal(options.kernel.length, 0);
	assert_false(options.snapdir_visible);
}

static void test_unknown_is_named(void **state)
{
	static const char *const bad[] = {"take-over", "fsname=x", "subtype=y", "snapdir=maybe", "ro,fd=3", "rootmode=0"};
	(void)state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct mount_options options = {0};
		struct error error;
		const char *word = strrchr(bad[i], ',') ? strrchr(bad[i], ',') + 1 : bad[i];
		assert_int_equal(mount_options_parse(bad[i], &options, &error), ERR_USAGE);
		assert_non_null(strstr(error.message, word));
		buf_free(&options.kernel);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours_and_kernel),
		cmocka_unit_test(test_fstab_words_are_ignored),
		cmocka_unit_test(test_unknown_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

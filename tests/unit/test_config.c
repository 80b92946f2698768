#include "config.h"

#include "clock.h"
#include "io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE "directory = /data/docs\nremote = s3://my-bucket/laptop\n"

static char *scratch; /* fresh directory of the running test; YESTER_CONFIG_DIR is scratch/etc */

static int make_scratch(void **state)
{
	char template[] = "/tmp/test_config.XXXXXX";
	char *etc;

	(void)state;
	if (!mkdtemp(template))
		return -1;
	scratch = realpath(template, NULL);
	etc = io_printf("%s/etc", scratch);
	if (!scratch || !etc)
		return -1;
	setenv("YESTER_CONFIG_DIR", etc, 1);
	free(etc);
	return 0;
}

static int remove_scratch(void **state)
{
	char *command = io_printf("rm -rf '%s'", scratch);
	int rc = command ? system(command) : -1;

	(void)state;
	free(command);
	free(scratch);
	return rc;
}

static struct volume_config *parse(const char *text)
{
	struct volume_config *config = NULL;
	struct error error;

	if (config_parse("/etc/yester/docs.conf", text, &config, &error) < 0)
		fail_msg("%s", error.message);
	return config;
}

static void refuse(const char *text, const char *part)
{
	struct volume_config *config = NULL;
	struct error error;

	assert_int_equal(config_parse("/etc/yester/docs.conf", text, &config, &error), ERR_USAGE);
	assert_null(config);
	assert_int_equal(error.code, ERR_USAGE);
	if (!strstr(error.message, part))
		fail_msg("\"%s\" is not in: %s", part, error.message);
}

static void test_defaults(void **state)
{
	struct volume_config *config = parse(BASE);

	(void)state;
	assert_string_equal(config->name, "docs");
	assert_string_equal(config->file, "/etc/yester/docs.conf");
	assert_string_equal(config->directory, "/data/docs");
	assert_string_equal(config->remote, "s3://my-bucket/laptop");
	assert_true(config->encryption);
	assert_false(config->unsafe_single_writer);
	assert_true(config->interval_ns == 15 * NS_PER_S);
	assert_int_equal(config->spool_limit_bytes, 0);
	assert_int_equal(config->cache_limit_bytes, 1 << 30);
	assert_int_equal(config->pack_size_bytes, 16 << 20);
	assert_int_equal(config->compression_level, 3);
	assert_int_equal(config->uploads, 4);
	assert_null(config->endpoint);
	assert_string_equal(config->addressing, "auto");
	assert_null(config->key_file);
	config_free(config);
	config_free(NULL);
}

static void test_every_key(void **state)
{
	struct volume_config *config = parse("# a comment\n\n  directory=//data/./a  b//\r\n\tremote = file:///mnt/x#y \n"
					     "key_file = /k\nencryption = yes\nunsafe_single_writer = yes\ninterval = 2m\n"
					     "spool_limit = 3G\ncache_limit = 0\npack_size = 1M\ncompression_level = 19\n"
					     "uploads = 64\nendpoint = http://127.0.0.1:80\nregion = r\nprofile = p\n"
					     "addressing = path\nallow_http = yes\nca_file = /ca\nstorage_class = S\n"
					     "server_side_encryption = aws:kms\nproxy = http://p:1");

	(void)state;
	assert_string_equal(config->directory, "/data/a  b");
	assert_string_equal(config->remote, "file:///mnt/x#y");
	assert_string_equal(config->key_file, "/k");
	assert_true(config->unsafe_single_writer);
	assert_true(config->interval_ns == 120 * NS_PER_S);
	assert_true(config->spool_limit_bytes == UINT64_C(3) << 30);
	assert_int_equal(config->cache_limit_bytes, 0);
	assert_int_equal(config->pack_size_bytes, 1 << 20);
	assert_int_equal(config->compression_level, 19);
	assert_int_equal(config->uploads, 64);
	assert_string_equal(config->endpoint, "http://127.0.0.1:80");
	assert_string_equal(config->region, "r");
	assert_string_equal(config->profile, "p");
	assert_string_equal(config->addressing, "path");
	assert_true(config->allow_http);
	assert_string_equal(config->ca_file, "/ca");
	assert_string_equal(config->storage_class, "S");
	assert_string_equal(config->server_side_encryption, "aws:kms");
	assert_string_equal(config->proxy, "http://p:1");
	config_free(config);
}

static void test_refused(void **state)
{
	(void)state;
	refuse("", "directory is missing");
	refuse("directory = /a\n", "remote is missing");
	refuse(BASE "intervall = 3s\n", "/etc/yester/docs.conf:3: there is no key \"intervall\"; the nearest is interval");
	refuse(BASE "endpiont = x\n", "the nearest is endpoint");
	refuse(BASE "= x\n", "there is no key");
	refuse(BASE "interval\n", "not of the form key = value");
	refuse(BASE "uploads = 4\nuploads = 4\n", ":4: the key uploads stands here for the second time");
	refuse(BASE "interval = 15\n", "a time such as");
	refuse(BASE "interval = 0s\n", "between 1s and 365d");
	refuse(BASE "interval = 99999999999999999999d\n", "a time such as");
	refuse(BASE "pack_size = 1\n", "between 1M and 128M");
	refuse(BASE "pack_size = 129M\n", "between 1M and 128M");
	refuse(BASE "uploads = 65\n", "between 1 and 64");
	refuse(BASE "uploads = 1K\n", "a whole number");
	refuse(BASE "uploads = -1\n", "a whole number");
	refuse(BASE "compression_level =\n", "a whole number");
	refuse(BASE "encryption = true\n", "yes or no");
	refuse(BASE "addressing = pat\n", "one of: auto path virtual");
	refuse(BASE "server_side_encryption = aws\n", "one of: AES256 aws:kms");
	refuse(BASE "endpoint = ftp://x\n", "https://");
	refuse(BASE "region =\n", "missing");
	refuse(BASE "region = a\x01z\n", "control character");
	refuse(BASE "ca_file = ca.pem\n", "absolute");
	refuse(BASE "key_file = /a\npassphrase_file = /b\n", "exclude each other");
	refuse(BASE "encryption = no\nkey_file = /b\n", "exclude each other");
	refuse("directory = data\nremote = s3://abc/d\n", "absolute");
	refuse("directory = /data/../etc\nremote = s3://abc/d\n", "..");
	refuse("directory = /data\nremote = ftp://abc/d\n", "docs.conf:2: remote ftp://abc/d");
}

static void test_names(void **state)
{
	struct volume_config *config = NULL;

	(void)state;
	assert_int_equal(config_parse("Docs.conf", BASE, &config, NULL), ERR_USAGE);
	assert_int_equal(config_parse("docs", BASE, &config, NULL), ERR_USAGE);
	assert_int_equal(config_parse("/x/.conf", BASE, &config, NULL), ERR_USAGE);
	assert_true(config_name_is_valid("a-b_9"));
	assert_true(config_name_is_valid("0123456789012345678901234567890123456789012345678901234567890123"));
	assert_false(config_name_is_valid("01234567890123456789012345678901234567890123456789012345678901234"));
	assert_false(config_name_is_valid(""));
	assert_false(config_name_is_valid("a/b"));
	assert_false(config_name_is_valid("a.b"));
}

static void test_remotes(void **state)
{
	static const char *const good[] = { "s3://my-bucket/laptop", "s3://abc/a/b/c", "s3://a.b_c/x!-_.*'()", "file:///x", "file:///x/y z" };
	static const char *const bad[] = {
		"", "s3:", "s3://", "s3://ab/x", "s3://abc", "s3://abc/", "s3://abc//x", "s3://abc/x/", "s3://abc/./x", "s3://abc/../x",
		"s3://-bc/x", "s3://abc/a b", "s3://abc/a?b", "S3://abc/x", "file://x", "file:///", "file:///x/../y", "file:///x/",
		"file:/x", "/x", "http://x/y", "file:///a\nb",
	};
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (config_check_remote(good[i], &error) != 0)
			fail_msg("%s", error.message);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (config_check_remote(bad[i], &error) != ERR_USAGE)
			fail_msg("accepted: %s", bad[i]);
	assert_non_null(strstr(error.message, "for example s3://"));
	assert_null(strchr(error.message, '\n'));
}

static void test_numbers(void **state)
{
	int64_t ns;
	uint64_t bytes;

	(void)state;
	assert_true(config_parse_duration("15s", &ns) && ns == 15 * NS_PER_S);
	assert_true(config_parse_duration("2h", &ns) && ns == 7200 * NS_PER_S);
	assert_true(config_parse_duration("106751d", &ns));
	assert_false(config_parse_duration("106752d", &ns));
	assert_false(config_parse_duration("", &ns));
	assert_false(config_parse_duration("s", &ns));
	assert_false(config_parse_duration("1ss", &ns));
	assert_false(config_parse_duration("-1s", &ns));
	assert_false(config_parse_duration("1.5s", &ns));
	assert_false(config_parse_duration(" 1s", &ns));
	assert_true(config_parse_size("512M", &bytes) && bytes == 512 << 20);
	assert_true(config_parse_size("0", &bytes) && bytes == 0);
	assert_true(config_parse_size("18446744073709551615", &bytes) && bytes == UINT64_MAX);
	assert_false(config_parse_size("18446744073709551616", &bytes));
	assert_true(config_parse_size("16777215T", &bytes));
	assert_false(config_parse_size("16777216T", &bytes));
	assert_false(config_parse_size("1KB", &bytes));
	assert_false(config_parse_size("1k", &bytes));
	assert_false(config_parse_size("", &bytes));
}

static void test_write_and_read(void **state)
{
	struct volume_config *config = config_new("docs"), *again = NULL;
	struct error error;
	struct stat st;
	struct buf text = { 0 };

	(void)state;
	assert_non_null(config);
	config->directory = strdup("/data/docs \xff");
	config->remote = strdup("file:///mnt/x");
	config->interval_ns = 90 * NS_PER_S;
	config->pack_size_bytes = 8 << 20;
	config->encryption = false;
	assert_int_equal(config_write(config, true, &error), 0);
	assert_int_equal(stat(config->file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(config_write(config, true, &error), ERR_EXISTS);
	config->uploads = 9;
	assert_int_equal(config_write(config, false, &error), 0);

	assert_int_equal(io_read_file(AT_FDCWD, config->file, 4096, &text, &error), 0);
	assert_int_equal(buf_append_u8(&text, 0), 0);
	assert_non_null(strstr((char *)text.data, "\ninterval = 90s\n"));
	assert_non_null(strstr((char *)text.data, "\npack_size = 8M\n"));
	assert_non_null(strstr((char *)text.data, "\nencryption = no\n"));
	assert_null(strstr((char *)text.data, "addressing"));
	buf_free(&text);

	assert_int_equal(config_read(config->file, &again, &error), 0);
	assert_string_equal(again->directory, config->directory);
	assert_true(again->interval_ns == config->interval_ns);
	assert_int_equal(again->uploads, 9);
	assert_false(again->encryption);
	config_free(again);

	/* What would be refused when read is not written. */
	free(config->directory);
	config->directory = strdup("/data/a\nuploads = 1");
	assert_int_equal(config_write(config, false, &error), ERR_USAGE);
	config->directory[0] = '\0';
	assert_int_equal(config_write(config, false, &error), ERR_USAGE);
	free(config->directory);
	config->directory = strdup("/ok");
	config->uploads = 0;
	assert_int_equal(config_write(config, false, &error), ERR_USAGE);
	config_free(config);
}

static void test_read_refuses(void **state)
{
	struct volume_config *config = NULL;
	struct error error;
	char *path = io_printf("%s/a.conf", scratch);

	(void)state;
	assert_int_equal(config_read(path, &config, &error), ERR_ABSENT);
	assert_int_equal(io_replace_file(AT_FDCWD, path, BASE "\0", sizeof BASE, 0600, &error), 0);
	assert_int_equal(config_read(path, &config, &error), ERR_USAGE);
	assert_null(config);
	free(path);
}

static void write_volume(const char *name, const char *directory)
{
	struct volume_config *config = config_new(name);
	struct error error;

	config->directory = strdup(directory);
	config->remote = strdup("s3://abc/d");
	if (config_write(config, true, &error) < 0)
		fail_msg("%s", error.message);
	config_free(config);
}

static int collect(void *context, struct volume_config *config)
{
	strcat(context, config->name);
	strcat(context, " ");
	return strcmp(config->name, "stop") == 0 ? 7 : 0;
}

static void test_each(void **state)
{
	char names[64] = "";
	struct error error;
	char *bad = io_printf("%s/etc/n.conf", scratch);

	(void)state;
	assert_int_equal(config_each(collect, names, &error), 0);
	assert_string_equal(names, "");
	write_volume("b", "/b");
	write_volume("a", "/a");
	write_volume("c", "/c");
	assert_int_equal(config_each(collect, names, &error), 0);
	assert_string_equal(names, "a b c ");
	assert_int_equal(io_replace_file(AT_FDCWD, bad, "x", 1, 0600, &error), 0);
	names[0] = '\0';
	assert_int_equal(config_each(collect, names, &error), ERR_USAGE);
	assert_non_null(strstr(error.message, "n.conf:1"));
	assert_int_equal(unlink(bad), 0);
	write_volume("stop", "/s");
	write_volume("t", "/t");
	names[0] = '\0';
	assert_int_equal(config_each(collect, names, &error), 7);
	assert_string_equal(names, "a b c stop ");
	free(bad);
}

static void expect_found(const char *path, const char *name, const char *expected_rest)
{
	struct volume_config *config = NULL;
	struct error error;
	char *rest = NULL;
	int rc = config_find(path, &config, &rest, &error);

	if (!name) {
		assert_int_equal(rc, ERR_ABSENT);
		assert_non_null(strstr(error.message, "yester init"));
		return;
	}
	if (rc != 0)
		fail_msg("%s: %s", path, error.message);
	assert_string_equal(config->name, name);
	assert_string_equal(rest, expected_rest);
	config_free(config);
	free(rest);
}

static void test_find(void **state)
{
	char *outer = io_printf("%s/outer", scratch), *inner = io_printf("%s/outer/in/ner", scratch);
	char *link = io_printf("%s/link", scratch), *path, *cwd = getcwd(NULL, 0);

	(void)state;
	assert_int_equal(io_mkdirs(inner, NULL), 0);
	assert_int_equal(symlink("outer/in", link), 0);
	write_volume("a-inner", inner);
	write_volume("b-outer", outer);
	expect_found(outer, "b-outer", "");
	expect_found(inner, "a-inner", "");
#define AT(form, name, rest) path = io_printf(form, scratch); expect_found(path, name, rest); free(path)
	AT("%s/outer/", "b-outer", "");
	AT("%s/outer/in", "b-outer", "in");
	AT("%s/outer/in/nerd", "b-outer", "in/nerd");
	AT("%s/outer/in/ner/x/y", "a-inner", "x/y");
	AT("%s/outer/gone/./z/../y", "b-outer", "gone/y");
	AT("%s/outer/gone/../../outer2", NULL, NULL);
	AT("%s/link/ner/new", "a-inner", "new");
	AT("%s/link/..", "b-outer", "");
	AT("%s/outerx", NULL, NULL);
	AT("%s", NULL, NULL);
#undef AT
	assert_int_equal(chdir(outer), 0);
	expect_found("in/ner/f", "a-inner", "f");
	expect_found(".", "b-outer", "");
	expect_found("not/there", "b-outer", "not/there");
	assert_int_equal(chdir(cwd), 0);

	/* A config that names its directory through a link. */
	path = io_printf("%s/link2", scratch);
	assert_int_equal(symlink("elsewhere", path), 0);
	write_volume("linked", path);
	free(path);
	path = io_printf("%s/elsewhere/d", scratch);
	assert_int_equal(io_mkdirs(path, NULL), 0);
	expect_found(path, "linked", "d");
	free(path);
	free(cwd);
	free(link);
	free(inner);
	free(outer);
}

static void test_directories(void **state)
{
	char *dir, *cwd = getcwd(NULL, 0), *expected = io_printf("%s/rel", cwd);

	(void)state;
	setenv("YESTER_STATE_DIR", "/s", 1);
	dir = state_dir();
	assert_string_equal(dir, "/s");
	free(dir);
	setenv("YESTER_STATE_DIR", "rel", 1);
	dir = state_dir();
	assert_string_equal(dir, expected);
	free(dir);
	unsetenv("YESTER_STATE_DIR");
	setenv("XDG_STATE_HOME", "/home/x/state", 1);
	dir = state_dir();
	assert_string_equal(dir, geteuid() == 0 ? "/var/lib/yester" : "/home/x/state/yester");
	free(dir);
	unsetenv("XDG_STATE_HOME");
	free(expected);
	free(cwd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_remotes),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test_setup_teardown(test_write_and_read, make_scratch, remove_scratch),
		cmocka_unit_test_setup_teardown(test_read_refuses, make_scratch, remove_scratch),
		cmocka_unit_test_setup_teardown(test_each, make_scratch, remove_scratch),
		cmocka_unit_test_setup_teardown(test_find, make_scratch, remove_scratch),
		cmocka_unit_test(test_directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

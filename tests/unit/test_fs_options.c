/* options, mount_helper, new_config's names, human, json_field: what stands between a person's words and a verb. */
#include "clock.h"
#include "human.h"
#include "json_field.h"
#include "mount_helper.h"
#include "nearest.h"
#include "new_config.h"
#include "options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct words {
	bool json, read_data;
	const char *name, *percent, *options, *operands[2];
	struct error error;
};

#define PARSE(words, least, ...) parse((words), (least), (char *[]){ (char *)"verb", __VA_ARGS__, NULL })

static int parse(struct words *words, size_t least, char **argv)
{
	const struct option_spec specs[] = {
		{ "json", 0, &words->json, NULL },
		{ "name", 0, NULL, &words->name },
		{ "read-data", 0, &words->read_data, &words->percent },
		{ "options", 'o', NULL, &words->options },
	};
	int argc = 0;

	memset(words, 0, sizeof *words);
	while (argv[argc])
		argc++;
	return options_parse(argc, argv, specs, 4, words->operands, least, 2, "DIR REMOTE", &words->error);
}

static void test_options_in_any_order(void **state)
{
	struct words words;

	(void)state;
	assert_int_equal(PARSE(&words, 2, (char *)"--json", (char *)"a", (char *)"--name", (char *)"n", (char *)"b"), 0);
	assert_true(words.json);
	assert_string_equal(words.name, "n");
	assert_string_equal(words.operands[0], "a");
	assert_string_equal(words.operands[1], "b");
	assert_int_equal(PARSE(&words, 1, (char *)"--name=x=y", (char *)"a"), 0);
	assert_string_equal(words.name, "x=y");
	assert_null(words.operands[1]);
	assert_int_equal(PARSE(&words, 0, (char *)"--name="), 0);
	assert_string_equal(words.name, "");
}

static void test_options_end_and_lone_dash(void **state)
{
	struct words words;

	(void)state;
	assert_int_equal(PARSE(&words, 2, (char *)"-", (char *)"--", (char *)"--json"), 0);
	assert_string_equal(words.operands[0], "-");
	assert_string_equal(words.operands[1], "--json");
	assert_false(words.json);
}

static void test_options_with_optional_value(void **state)
{
	struct words words;

	(void)state;
	assert_int_equal(PARSE(&words, 1, (char *)"--read-data", (char *)"dir"), 0);
	assert_true(words.read_data);
	assert_null(words.percent);
	assert_string_equal(words.operands[0], "dir");
	assert_int_equal(PARSE(&words, 1, (char *)"--read-data=10", (char *)"dir"), 0);
	assert_string_equal(words.percent, "10");
}

static void test_short_options(void **state)
{
	struct words words;

	(void)state;
	assert_int_equal(PARSE(&words, 0, (char *)"-oro,nodev"), 0);
	assert_string_equal(words.options, "ro,nodev");
	assert_int_equal(PARSE(&words, 0, (char *)"-o", (char *)"ro"), 0);
	assert_string_equal(words.options, "ro");
	assert_int_equal(PARSE(&words, 0, (char *)"-x"), ERR_USAGE);
}

static void expect_usage(struct words *words, int rc, const char *message)
{
	assert_int_equal(rc, ERR_USAGE);
	assert_int_equal(words->error.code, ERR_USAGE);
	if (!strstr(words->error.message, message))
		fail_msg("\"%s\" does not hold \"%s\"", words->error.message, message);
}

static void test_bad_words(void **state)
{
	struct words words;

	(void)state;
	expect_usage(&words, PARSE(&words, 0, (char *)"--jsn"), "--jsn: there is no such option; the nearest is --json");
	expect_usage(&words, PARSE(&words, 0, (char *)"--quite-other"), "see yester verb --help");
	expect_usage(&words, PARSE(&words, 0, (char *)"--name"), "value is missing");
	expect_usage(&words, PARSE(&words, 0, (char *)"--json=1"), "takes no value");
	expect_usage(&words, PARSE(&words, 0, (char *)"--json", (char *)"--json"), "given twice");
	expect_usage(&words, PARSE(&words, 2, (char *)"a"), "it wants DIR REMOTE");
	expect_usage(&words, PARSE(&words, 0, (char *)"a", (char *)"b", (char *)"c"), "c: one word too many");
	expect_usage(&words, PARSE(&words, 0, (char *)""), "empty");
}

static void test_duration(void **state)
{
	struct error error;
	int64_t ns;

	(void)state;
	assert_int_equal(options_duration("--timeout", "90s", &ns, &error), 0);
	assert_int_equal(ns, 90 * NS_PER_S);
	assert_int_equal(options_duration("--timeout", "5", &ns, &error), 0);
	assert_int_equal(ns, 5 * NS_PER_S);
	assert_int_equal(options_duration("--timeout", "0", &ns, &error), 0);
	assert_int_equal(ns, 0);
	assert_int_equal(options_duration("--timeout", "soon", &ns, &error), ERR_USAGE);
	assert_int_equal(options_duration("--timeout", "-1", &ns, &error), ERR_USAGE);
	assert_int_equal(options_duration("--timeout", "99999999999999999999999999999999999999", &ns, &error), ERR_USAGE);
}

static void test_nearest(void **state)
{
	(void)state;
	assert_int_equal(edit_distance("", ""), 0);
	assert_int_equal(edit_distance("abc", ""), 3);
	assert_int_equal(edit_distance("kitten", "sitting"), 3);
	assert_int_equal(edit_distance("mont", "mount"), 1);
	assert_true(edit_distance("a", "0123456789012345678901234567890123456789012345678901234567890123") == SIZE_MAX);
}

static bool is_mount(const char *program, const char *first, const char *second)
{
	char *argv[] = { (char *)program, (char *)first, (char *)second, NULL };

	return mount_helper_is_meant(second ? 3 : first ? 2 : 1, argv);
}

static void test_mount_convention(void **state)
{
	(void)state;
	assert_true(is_mount("yester", "/data/docs", "/mnt"));
	assert_true(is_mount("yester", "./docs", "/mnt"));
	assert_true(is_mount("/sbin/mount.yester", "x", "y"));
	assert_true(is_mount("mount.fuse.yester", NULL, NULL));
	assert_false(is_mount("yester", "mount", "/mnt"));
	assert_false(is_mount("yester", "--help", NULL));
	assert_false(is_mount("yester", "/data/docs", NULL));
	assert_false(is_mount("yester", NULL, NULL));
}

static void test_names(void **state)
{
	char name[NEW_CONFIG_NAME_BYTES];

	(void)state;
	new_config_name(name, "/data/docs");
	assert_string_equal(name, "docs");
	new_config_name(name, "/data/My Docs (2)");
	assert_string_equal(name, "my-docs-2");
	new_config_name(name, "/");
	assert_string_equal(name, "volume");
	new_config_name(name, "/data/\xc3\xa4\xc3\xb6");
	assert_string_equal(name, "volume");
	new_config_name(name, "/data/0123456789012345678901234567890123456789012345678901234567890123456789");
	assert_int_equal(strlen(name), 64);
	assert_true(config_name_is_valid(name));
}

static void test_human(void **state)
{
	char text[HUMAN_BYTES];

	(void)state;
	human_size(text, 0);
	assert_string_equal(text, "0 B");
	human_size(text, 1023);
	assert_string_equal(text, "1023 B");
	human_size(text, 1024);
	assert_string_equal(text, "1.0 KiB");
	human_size(text, 1024 * 1024 - 1);
	assert_string_equal(text, "1.0 MiB");
	human_size(text, UINT64_MAX);
	assert_string_equal(text, "16 EiB");
	human_count(text, 1234567);
	assert_string_equal(text, "1,234,567");
	human_count(text, 999);
	assert_string_equal(text, "999");
	human_plural(text, 1, "file");
	assert_string_equal(text, "1 file");
	human_plural(text, UINT64_MAX, "directory!!");
	assert_true(strlen(text) < HUMAN_BYTES);
	human_duration(text, 0.4);
	assert_string_equal(text, "0 s");
	human_duration(text, 125);
	assert_string_equal(text, "2 min 5 s");
	human_duration(text, 1e300);
	assert_true(strlen(text) < HUMAN_BYTES);
	human_time(text, 1763626447);
	assert_string_equal(text, "2025-11-20 08:14:07 UTC");
	human_time(text, INT64_MAX);
	assert_true(text[0] != '\0');
}

static void quoted_is(const char *text, const char *wanted)
{
	char *quoted = human_quoted(text);

	assert_string_equal(quoted, wanted);
	free(quoted);
}

static void test_quoted(void **state)
{
	(void)state;
	quoted_is("/data/docs-1.0", "/data/docs-1.0");
	quoted_is("", "''");
	quoted_is("My Docs", "'My Docs'");
	quoted_is("it's", "'it'\\''s'");
	quoted_is("\xc3\xa4", "'\xc3\xa4'");
	/* What a terminal would obey is not printed. */
	quoted_is("a\nb\x1b[31m'\\", "$'a\\012b\\033[31m\\'\\\\'");
	quoted_is("\xff\xc2\x9b", "$'\\377\\302\\233'");
}

static void test_json_field(void **state)
{
	static const char json[] = "{\"a\":{\"n\":-5,\"x\":[1,{\"n\":2}]},\"t\":\"q\\\"\\u00e4\\\\\\u000a\",\"b\":true,\"z\":null, \"n\" : 7}";
	char text[64];
	int64_t number;

	(void)state;
	assert_true(json_field_int(json, "n", &number));
	assert_int_equal(number, 7);
	assert_true(json_field_int(json, "a.n", &number));
	assert_int_equal(number, -5);
	assert_false(json_field_int(json, "a.y", &number));
	assert_false(json_field_int(json, "t", &number));
	assert_true(json_field_text(json, "t", text, sizeof text));
	assert_string_equal(text, "q\"\xc3\xa4\\\\x0a");
	assert_false(json_field_text(json, "z", text, sizeof text));
	assert_string_equal(text, "");
	assert_true(json_field_true(json, "b"));
	assert_false(json_field_true(json, "z"));
	assert_false(json_field_true(json, "absent"));
	/* Cut off anywhere: nothing is read beyond. */
	for (size_t length = 0; length < sizeof json; length++) {
		char part[sizeof json];

		memcpy(part, json, length);
		part[length] = '\0';
		json_field_int(part, "n", &number);
		json_field_text(part, "t", text, sizeof text);
		json_field_true(part, "absent");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_in_any_order), cmocka_unit_test(test_options_end_and_lone_dash),
		cmocka_unit_test(test_options_with_optional_value), cmocka_unit_test(test_short_options),
		cmocka_unit_test(test_bad_words), cmocka_unit_test(test_duration),
		cmocka_unit_test(test_nearest), cmocka_unit_test(test_mount_convention),
		cmocka_unit_test(test_names), cmocka_unit_test(test_human),
		cmocka_unit_test(test_quoted), cmocka_unit_test(test_json_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

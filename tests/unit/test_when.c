#include "when.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>

#define NOW INT64_C(1763626447)

static void expect(const char *text, enum when_kind kind, int64_t seconds)
{
	int64_t got = -77;

	if (when_parse(text, NOW, &got) != kind)
		fail_msg("%s: wrong kind", text);
	if (got != (kind == WHEN_TIME || kind == WHEN_RELATIVE ? seconds : -77))
		fail_msg("%s: %lld, not %lld", text, (long long)got, (long long)seconds);
}

static void test_forms(void **state)
{
	(void)state;
	/* date -u -d '2026-11-20 08:14:07' +%s */
	expect("2026-11-20T08-14-07Z", WHEN_TIME, 1795162447);
	expect("2026-11-20T08:14:07Z", WHEN_TIME, 1795162447);
	expect("2026-11-20T08:14:07", WHEN_TIME, 1795162447);
	expect("2026-11-20 08:14:07", WHEN_TIME, 1795162447);
	expect("2026-11-20T08:14", WHEN_TIME, 1795162447 - 7 + 59);
	expect("2026-11-20 08:14Z", WHEN_TIME, 1795162447 - 7 + 59);
	expect("2026-11-20", WHEN_TIME, 1795132800 + 86399);
	expect("@GMT-2026.11.20-08.14.07", WHEN_TIME, 1795162447);
	expect("@1763626447", WHEN_TIME, 1763626447);
	expect("@0", WHEN_TIME, 0);
	expect("1970-01-01T00-00-00Z", WHEN_TIME, 0);
	expect("2024-02-29T00-00-00Z", WHEN_TIME, 1709164800);
	expect("9999-12-31T23-59-59Z", WHEN_TIME, 253402300799);
}

static void test_relative(void **state)
{
	(void)state;
	expect("now", WHEN_RELATIVE, NOW);
	expect("latest", WHEN_LATEST, 0);
	expect("10s-ago", WHEN_RELATIVE, NOW - 10);
	expect("10m-ago", WHEN_RELATIVE, NOW - 600);
	expect("2h-ago", WHEN_RELATIVE, NOW - 7200);
	expect("3d-ago", WHEN_RELATIVE, NOW - 3 * 86400);
	expect("1w-ago", WHEN_RELATIVE, NOW - 7 * 86400);
	expect("0s-ago", WHEN_RELATIVE, NOW);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"", " ", "x", "2026", "2026-11", "2026-13-01", "2026-00-01", "2026-01-00", "2026-02-30", "2025-02-29",
		"2100-02-29", "1969-12-31", "2026-04-31", "2026-11-20T24-00-00Z", "2026-11-20T08-60-00Z",
		"2026-11-20T08-14-60Z", "2026-11-20T08-14-07", "2026-11-20T08-14-07ZZ", "2026-11-20T8-14-07Z",
		"2026-11-2", "+026-11-20", "2026-11-20t08:14", "@", "@-1", "@12x", "@99999999999999999999",
		"@253402300800", "@GMT-2026.11.20-08.14", "@GMT-2026.02.30-08.14.07", "10m", "m-ago", "10x-ago", "-10m-ago",
		"10 m-ago", "10m-agox", "99999999999999999999s-ago", "9223372036854775807w-ago", "Latest", "NOW",
		"YYYY-MM-DD",
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		expect(bad[i], WHEN_BAD, 0);
}

static void test_canonical(void **state)
{
	int64_t seconds = 0;
	char name[WHEN_NAME_BYTES];

	(void)state;
	assert_true(when_is_canonical("2026-11-20T08-14-07Z", &seconds));
	assert_int_equal(seconds, 1795162447);
	assert_false(when_is_canonical("2026-11-20T08:14:07Z", &seconds));
	assert_false(when_is_canonical("2026-11-20", &seconds));
	assert_false(when_is_canonical("latest", &seconds));
	when_name(name, 1795162447);
	assert_string_equal(name, "2026-11-20T08-14-07Z");
	when_name(name, -5);
	assert_string_equal(name, "1970-01-01T00-00-00Z");
	when_name(name, INT64_MAX);
	assert_string_equal(name, "9999-12-31T23-59-59Z");
}

/* Every day of 230 years, and a walk to the end, agree with the C library and survive the way back. */
static void test_against_libc(void **state)
{
	(void)state;
	for (int64_t t = 0; t < INT64_C(253402300799); t += t < INT64_C(7258118400) ? 86400 + 17 : 86400 * 101 + 13) {
		char name[WHEN_NAME_BYTES], libc[WHEN_NAME_BYTES];
		time_t libc_time = t;
		struct tm tm;
		int64_t back = -1;

		gmtime_r(&libc_time, &tm);
		strftime(libc, sizeof libc, "%Y-%m-%dT%H-%M-%SZ", &tm);
		when_name(name, t);
		assert_string_equal(name, libc);
		assert_true(when_is_canonical(name, &back));
		assert_true(back == t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),     cmocka_unit_test(test_relative),      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_canonical), cmocka_unit_test(test_against_libc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

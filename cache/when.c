#include "when.h"

#include <stdio.h>
#include <string.h>

#define MINUTE_S 60
#define HOUR_S 3600
#define DAY_S 86400
#define WEEK_S (7 * DAY_S)
#define YEAR_FIRST 1970
#define YEAR_LAST 9999
#define LAST_SECOND INT64_C(253402300799) /* 9999-12-31T23-59-59Z */

static bool is_leap(int year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in_month(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days from 1970-01-01, proleptic Gregorian: a March-based year makes the leap day the last one
 * (Howard Hinnant, chrono-compatible low-level date algorithms). */
static int64_t days_of_date(int year, int month, int day)
{
	int y = month <= 2 ? year - 1 : year;
	int era = y / 400;
	int year_of_era = y - era * 400;
	int day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return (int64_t)era * 146097 + day_of_era - 719468;
}

static void date_of_days(int64_t days, int *year, int *month, int *day)
{
	int64_t z = days + 719468;
	int64_t era = z / 146097;
	int day_of_era = (int)(z - era * 146097);
	int year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int mp = (5 * day_of_year + 2) / 153;

	*day = day_of_year - (153 * mp + 2) / 5 + 1;
	*month = mp < 10 ? mp + 3 : mp - 9;
	*year = (int)(era * 400) + year_of_era + (*month <= 2);
}

/* Matches text against a form in which 0 to 5 each stand for one digit of the year, month, day, hour, minute and second, and
 * everything else for itself. A field that the form lacks gets its last value, so that "2026-11-20" is the end of that day. */
static bool match_form(const char *text, const char *form, int64_t *seconds)
{
	int field[6] = { 0, 0, 0, 0, 0, 0 };
	bool given[6] = { false, false, false, false, false, false };

	if (strlen(text) != strlen(form))
		return false;
	for (; *form; form++, text++) {
		int index = *form - '0';

		if (index < 0 || index > 5) {
			if (*text != *form)
				return false;
			continue;
		}
		if (*text < '0' || *text > '9')
			return false;
		field[index] = field[index] * 10 + (*text - '0');
		given[index] = true;
	}
	if (!given[3])
		field[3] = 23;
	if (!given[4])
		field[4] = 59;
	if (!given[5])
		field[5] = 59;
	if (field[0] < YEAR_FIRST || field[0] > YEAR_LAST || field[1] < 1 || field[1] > 12 || field[2] < 1 ||
	    field[2] > days_in_month(field[0], field[1]) || field[3] > 23 || field[4] > 59 || field[5] > 59)
		return false;
	*seconds = days_of_date(field[0], field[1], field[2]) * DAY_S + field[3] * HOUR_S + field[4] * MINUTE_S + field[5];
	return true;
}

/* Decimal digits; returns what follows them, NULL when there are none or the value overflows. */
static const char *parse_number(const char *text, int64_t *value)
{
	const char *at = text;

	*value = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *at - '0', value))
			return NULL;
	return at == text ? NULL : at;
}

static bool parse_epoch(const char *text, int64_t *seconds)
{
	const char *end = *text == '@' ? parse_number(text + 1, seconds) : NULL;

	return end && *end == '\0' && *seconds <= LAST_SECOND;
}

static bool parse_ago(const char *text, int64_t now_s, int64_t *seconds)
{
	int64_t count, unit;
	const char *end = parse_number(text, &count);

	if (!end || *end == '\0' || strcmp(end + 1, "-ago") != 0)
		return false;
	switch (*end) {
	case 's':
		unit = 1;
		break;
	case 'm':
		unit = MINUTE_S;
		break;
	case 'h':
		unit = HOUR_S;
		break;
	case 'd':
		unit = DAY_S;
		break;
	case 'w':
		unit = WEEK_S;
		break;
	default:
		return false;
	}
	return !__builtin_mul_overflow(count, unit, &count) && !__builtin_sub_overflow(now_s, count, seconds);
}

enum when_kind when_parse(const char *text, int64_t now_s, int64_t *seconds)
{
	static const char *const forms[] = {
		"0000-11-22T33-44-55Z", "0000-11-22T33:44:55Z", "0000-11-22T33:44:55", "0000-11-22 33:44:55Z",
		"0000-11-22 33:44:55", "0000-11-22T33:44Z", "0000-11-22T33:44", "0000-11-22 33:44Z",
		"0000-11-22 33:44", "0000-11-22", "@GMT-0000.11.22-33.44.55",
	};
	int64_t value;

	if (strcmp(text, "latest") == 0)
		return WHEN_LATEST;
	if (strcmp(text, "now") == 0) {
		*seconds = now_s;
		return WHEN_RELATIVE;
	}
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		if (match_form(text, forms[i], &value)) {
			*seconds = value;
			return WHEN_TIME;
		}
	}
	if (parse_epoch(text, &value)) {
		*seconds = value;
		return WHEN_TIME;
	}
	if (parse_ago(text, now_s, &value)) {
		*seconds = value;
		return WHEN_RELATIVE;
	}
	return WHEN_BAD;
}

bool when_is_canonical(const char *text, int64_t *seconds)
{
	int64_t value;

	if (!match_form(text, "0000-11-22T33-44-55Z", &value))
		return false;
	*seconds = value;
	return true;
}

void when_name(char out[WHEN_NAME_BYTES], int64_t seconds)
{
	int year, month, day, rest;

	if (seconds < 0)
		seconds = 0;
	if (seconds > LAST_SECOND)
		seconds = LAST_SECOND;
	date_of_days(seconds / DAY_S, &year, &month, &day);
	rest = (int)(seconds % DAY_S);
	snprintf(out, WHEN_NAME_BYTES, "%04d-%02d-%02dT%02d-%02d-%02dZ", year, month, day, rest / HOUR_S,
		 rest / MINUTE_S % 60, rest % MINUTE_S);
}

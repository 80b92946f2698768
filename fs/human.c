#include "human.h"

#include "bytes.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void human_size(char out[HUMAN_BYTES], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	/* 1023.6 KiB would be shown as 1024 KiB. */
	while (value >= 1023.5 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1024;
		unit++;
	}
	if (unit == 0)
		snprintf(out, HUMAN_BYTES, "%" PRIu64 " B", bytes);
	else
		snprintf(out, HUMAN_BYTES, value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void human_count(char out[HUMAN_BYTES], uint64_t count)
{
	char digits[24];
	size_t length = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, count), used = 0;

	for (size_t i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			out[used++] = ',';
		out[used++] = digits[i];
	}
	out[used] = '\0';
}

void human_duration(char out[HUMAN_BYTES], double seconds)
{
	uint64_t s = seconds < 1 ? 0 : seconds > 1e15 ? UINT64_C(1000000000000000) : (uint64_t)seconds;

	if (s < 60)
		snprintf(out, HUMAN_BYTES, "%" PRIu64 " s", s);
	else if (s < 3600)
		snprintf(out, HUMAN_BYTES, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, HUMAN_BYTES, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(out, HUMAN_BYTES, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}

void human_time(char out[HUMAN_BYTES], int64_t seconds)
{
	time_t at = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&at, &tm) || strftime(out, HUMAN_BYTES, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		snprintf(out, HUMAN_BYTES, "@%" PRId64, seconds);
}

void human_plural(char out[HUMAN_BYTES], uint64_t count, const char *noun)
{
	char number[HUMAN_BYTES];

	human_count(number, count);
	snprintf(out, HUMAN_BYTES, "%.26s %.10s%s", number, noun, count == 1 ? "" : "s");
}

static bool is_plain(const char *text)
{
	for (const char *at = text; *at; at++)
		if (!(*at >= 'a' && *at <= 'z') && !(*at >= 'A' && *at <= 'Z') && !(*at >= '0' && *at <= '9') && !strchr("/._-+:@%,=", *at))
			return false;
	return text[0] != '\0';
}

/* $'...' of bash, zsh and ksh, and of POSIX.1-2024: the only quotes in which every byte has a form that can be shown. */
static void quote_bytes(char *to, const char *text)
{
	to = stpcpy(to, "$'");
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;

		if (byte < 0x20 || byte >= 0x7f)
			to += sprintf(to, "\\%03o", byte);
		else if (byte == '\'' || byte == '\\')
			to += sprintf(to, "\\%c", byte);
		else
			*to++ = *text;
	}
	strcpy(to, "'");
}

char *human_quoted(const char *text)
{
	/* The most that a character takes is four: \ooo; or end, escaped quotation mark, begin again. */
	size_t room = 4 * strlen(text) + 4;
	char *out = malloc(room), *to = out;

	if (!out)
		return NULL;
	if (is_plain(text))
		return strcpy(out, text);
	escape_text(out, room, text);
	if (strcmp(out, text) != 0) {
		quote_bytes(out, text);
		return out;
	}
	*to++ = '\'';
	for (; *text; text++) {
		if (*text == '\'') {
			memcpy(to, "'\\''", 4);
			to += 4;
		} else {
			*to++ = *text;
		}
	}
	*to++ = '\'';
	*to = '\0';
	return out;
}

/* progress: lines for any width, rates, and when something is shown; status_text, which is drawn from the same numbers. */
#include "buf.h"
#include "clock.h"
#include "patience.h"
#include "progress.h"
#include "status_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

static void test_line(void **state)
{
	char line[512];

	(void)state;
	progress_line(line, sizeof line, 79, false, "uploading", 30 * MIB, 120 * MIB, "bytes", 3.0 * MIB);
	assert_string_equal(line, "uploading [====>                ]  25%  30 MiB of 120 MiB, 3.0 MiB/s, 30 s left");
	progress_line(line, sizeof line, 0, false, "uploading", 30 * MIB, 120 * MIB, "bytes", 3.0 * MIB);
	assert_string_equal(line, "uploading  25%  30 MiB of 120 MiB, 3.0 MiB/s, 30 s left");
	progress_line(line, sizeof line, 200, false, "looking", 12345, 0, "files", 0);
	assert_string_equal(line, "looking  12,345 files");
	progress_line(line, sizeof line, 200, false, "looking", 12345, 0, "files", 1000);
	assert_string_equal(line, "looking  12,345 files, 1,000/s");
}

static void test_line_fits(void **state)
{
	static const struct { uint64_t done, total; double rate; } cases[] = {
		{ 0, 0, 0 }, { 5, 0, 1 }, { 0, 100, 0 }, { 50, 100, 0.1 }, { 100, 100, 1e12 }, { 200, 100, 5 }, { UINT64_MAX, UINT64_MAX, 1e19 },
	};
	char line[512];

	(void)state;
	for (unsigned width = 1; width < 200; width++)
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
			progress_line(line, sizeof line, width, false, "verifying packs", cases[i].done, cases[i].total, "files", cases[i].rate);
			assert_true(strlen(line) <= width);
		}
}

static void test_color(void **state)
{
	char line[512];

	(void)state;
	progress_line(line, sizeof line, 79, true, "x", 1, 2, "files", 0);
	assert_non_null(strstr(line, "\033[32m["));
	assert_non_null(strstr(line, "]\033[0m"));
	progress_line(line, sizeof line, 79, false, "x", 1, 2, "files", 0);
	assert_null(strchr(line, '\033'));
}

static void test_rate(void **state)
{
	struct progress_rate rate = { 0 };
	int64_t now_ns = 5 * NS_PER_S;

	(void)state;
	progress_rate_add(&rate, now_ns, 1000);
	assert_true(rate.per_second == 0);
	for (int i = 1; i <= 100; i++)
		progress_rate_add(&rate, now_ns + i * NS_PER_S / 10, 1000 + (uint64_t)i * 50);
	assert_true(rate.per_second > 499 && rate.per_second < 501);
	/* It forgets: the speed of the last seconds counts. */
	now_ns += 10 * NS_PER_S;
	for (int i = 1; i <= 150; i++)
		progress_rate_add(&rate, now_ns + i * NS_PER_S / 10, 6000 + (uint64_t)i * 5);
	assert_true(rate.per_second > 49 && rate.per_second < 60);
	/* Backwards: something else has begun. */
	progress_rate_add(&rate, now_ns + 20 * NS_PER_S, 0);
	assert_true(rate.per_second == 0);
}

struct shown { char *text; size_t length; FILE *stream; };

static void shown_open(struct shown *shown)
{
	shown->stream = open_memstream(&shown->text, &shown->length);
	assert_non_null(shown->stream);
}

static void shown_close(struct shown *shown)
{
	fclose(shown->stream);
	free(shown->text);
}

static void test_nothing_below_a_second(void **state)
{
	struct terminal terminal = { .is_tty = true, .width = 80 };
	struct progress *progress;
	struct shown shown;

	(void)state;
	shown_open(&shown);
	progress = progress_new_at(shown.stream, &terminal, NS_PER_S);
	for (int i = 0; i < 10; i++)
		progress_report_at(progress, NS_PER_S + i * NS_PER_S / 10, "x", (uint64_t)i, 10, "files");
	progress_free(progress);
	fflush(shown.stream);
	assert_int_equal(shown.length, 0);
	shown_close(&shown);
}

static void test_terminal_redraws_and_clears(void **state)
{
	struct terminal terminal = { .is_tty = true, .width = 80 };
	struct progress *progress;
	struct shown shown;

	(void)state;
	shown_open(&shown);
	progress = progress_new_at(shown.stream, &terminal, 0);
	for (int i = 0; i < 30; i++)
		progress_report_at(progress, i * NS_PER_S / 10, "a\nb", (uint64_t)i, 30, "files");
	progress_free(progress);
	fflush(shown.stream);
	assert_null(strchr(shown.text, '\n'));
	assert_non_null(strstr(shown.text, "a\\x0ab"));
	assert_true(shown.length > 4 && strcmp(shown.text + shown.length - 4, "\r\033[K") == 0);
	shown_close(&shown);
}

static void test_plain_lines_when_piped(void **state)
{
	struct terminal terminal = { .width = 80 };
	struct progress *progress;
	struct shown shown;
	int lines = 0;

	(void)state;
	shown_open(&shown);
	progress = progress_new_at(shown.stream, &terminal, 0);
	for (int i = 0; i <= 350; i++)
		progress_report_at(progress, i * NS_PER_S / 10, "uploading", (uint64_t)i, 400, "files");
	progress_free(progress);
	fflush(shown.stream);
	for (const char *at = shown.text; (at = strchr(at, '\n')); at++)
		lines++;
	assert_int_equal(lines, 3);
	assert_null(strpbrk(shown.text, "\r\033"));
	shown_close(&shown);
}

/* A store that keeps silent takes the place of what is reported, until it answers. */
static void test_waiting(void **state)
{
	struct terminal terminal = { .is_tty = true, .width = 80 };
	struct patience patience = { .waited_ns = 2 * NS_PER_S, .whom = "s3://b/p", .why = "no\nroute" };
	struct progress *progress;
	struct shown shown;

	(void)state;
	shown_open(&shown);
	progress = progress_new_at(shown.stream, &terminal, 0);
	progress_wait_at(progress, 2 * NS_PER_S, &patience);
	fflush(shown.stream);
	assert_int_equal(shown.length, 0);
	patience.waited_ns = 12 * NS_PER_S;
	progress_wait_at(progress, 12 * NS_PER_S, &patience);
	progress_report_at(progress, 13 * NS_PER_S, "restoring", 1, 2, "files");
	fflush(shown.stream);
	assert_string_equal(shown.text, "\r\033[Kwaiting for s3://b/p, 12 s (no\\x0aroute)");
	progress_wait_at(progress, 14 * NS_PER_S, NULL);
	progress_report_at(progress, 15 * NS_PER_S, "restoring", 1, 2, "files");
	fflush(shown.stream);
	assert_non_null(strstr(shown.text, "\r\033[Krestoring"));
	progress_free(progress);
	shown_close(&shown);

	terminal.is_tty = false;
	shown_open(&shown);
	progress = progress_new_at(shown.stream, &terminal, 0);
	for (int64_t s = 1; s < 30; s++) {
		patience.waited_ns = s * NS_PER_S;
		progress_wait_at(progress, s * NS_PER_S, &patience);
	}
	progress_free(progress);
	fflush(shown.stream);
	assert_string_equal(shown.text, "waiting for s3://b/p, 10 s (no\\x0aroute)\nwaiting for s3://b/p, 20 s (no\\x0aroute)\n");
	shown_close(&shown);
}

static void test_patience(void **state)
{
	struct patience patience;

	(void)state;
	assert_false(patience_look(clock_mono_ns(), &patience));
	patience_begin("s3://a/b");
	assert_true(patience_look(clock_mono_ns() + 60 * NS_PER_S, &patience));
	assert_true(patience.waited_ns >= 60 * NS_PER_S);
	assert_string_equal(patience.whom, "s3://a/b");
	patience_failed("it is down");
	patience_begin("s3://a/b"); /* another call does not make the first one's wait shorter */
	assert_true(patience_look(clock_mono_ns() + 60 * NS_PER_S, &patience));
	assert_true(patience.waited_ns >= 60 * NS_PER_S);
	assert_string_equal(patience.why, "it is down");
	patience_heard();
	int64_t heard_ns = clock_mono_ns();
	assert_true(patience_look(heard_ns, &patience));
	assert_true(patience.waited_ns < 60 * NS_PER_S);
	assert_string_equal(patience.why, "");
	patience_end();
	patience_end();
	assert_false(patience_look(clock_mono_ns(), &patience));
}

static void status_has(const char *json, const char *part)
{
	struct buf out = { 0 };

	assert_int_equal(status_text(json, 1763626450, false, &out), 0);
	if (!strstr((const char *)out.data, part))
		fail_msg("\"%s\" does not hold \"%s\"", (const char *)out.data, part);
	buf_free(&out);
}

static void test_status_text(void **state)
{
	static const char synced[] = "{\"directory\":\"/d\",\"mountpoint\":\"/d\",\"state\":\"synced\",\"version\":7,"
				     "\"safe_until\":\"2025-11-20T08:14:07Z\",\"remote\":\"file:///s\"}";
	static const char importing[] = "{\"directory\":\"/d\",\"mountpoint\":\"/m\",\"state\":\"syncing\",\"safe_until\":null,"
					"\"importing\":true,\"backlog_files\":1200,\"backlog_bytes\":2048,\"pending_files\":2,"
					"\"pending_bytes\":5,\"oldest_pending_seconds\":61,\"last_error\":\"it failed\"}";
	static const char cloned[] = "{\"directory\":\"/d\",\"state\":\"scanning\",\"version\":23,\"safe_until\":null}";
	static const char left[] = "{\"directory\":\"/d\",\"state\":\"unmounted\",\"pending_files\":0,\"pending_bytes\":2048}";
	static const char changed[] = "{\"directory\":\"/d\",\"state\":\"unmounted\",\"pending_files\":10,\"pending_bytes\":0}";
	static const char fenced[] = "{\"directory\":\"/d\",\"state\":\"fenced\"}";

	(void)state;
	status_has(synced, "/d: synced\n");
	status_has(synced, "all changes up to 2025-11-20 08:14:07 UTC (3 s ago), version 7\n");
	status_has(synced, "waiting    nothing\n");
	status_has(importing, "/d on /m: syncing\n");
	status_has(importing, "1,200 files, 2.0 KiB to go\n");
	status_has(importing, "nothing yet: the first upload is not complete\n");
	status_has(cloned, "nothing yet: no version of this machine is in the remote\n");
	status_has(left, "waiting    2.0 KiB to go up\n");
	status_has(changed, "waiting    10 files\n");
	status_has(importing, "2 files, 5 B, the oldest since 1 min 1 s\n");
	status_has(importing, "last error it failed\n");
	status_has(fenced, "yester mount -o take_over /d");
	status_has("", ": \n"); /* not even JSON: no crash */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line), cmocka_unit_test(test_line_fits),
		cmocka_unit_test(test_color), cmocka_unit_test(test_rate),
		cmocka_unit_test(test_nothing_below_a_second), cmocka_unit_test(test_terminal_redraws_and_clears),
		cmocka_unit_test(test_plain_lines_when_piped), cmocka_unit_test(test_waiting), cmocka_unit_test(test_patience), cmocka_unit_test(test_status_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

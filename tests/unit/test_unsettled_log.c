/* unsettled_log: what was synced comes back, whatever was torn after it, and nothing of an earlier turn. */
#include "unsettled_log.h"

#include "bytes.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define RECORD_BYTES 88
#define HALF_BYTES (128 << 10)
#define HALF_RECORDS (HALF_BYTES / RECORD_BYTES)

static char directory[64];
static int state_fd;
static struct error error;

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/yester-unsettled-log-XXXXXX");
	assert_non_null(mkdtemp(directory));
	state_fd = open(directory, O_RDONLY | O_DIRECTORY);
	return state_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	unlinkat(state_fd, "unsettled.log", 0);
	close(state_fd);
	return rmdir(directory);
}

static struct node_key key_of(uint64_t number)
{
	struct node_key key = {.length = 10};

	put_u16(key.bytes, 1);
	put_u64(key.bytes + 2, number);
	return key;
}

/* As many as there is room for: how many. Numbers from `first` on, each with its number as epoch. */
static size_t append(struct unsettled_log *log, uint64_t first, size_t count)
{
	struct unsettled_place place;

	if (!unsettled_log_reserve(log, count, &place))
		return 0;
	for (size_t i = 0; i < count; i++) {
		struct node_key key = key_of(first + i);
		assert_int_equal(unsettled_log_put(log, &place, &key, (int64_t)(first + i)), 0);
	}
	assert_int_equal(unsettled_log_sync(log), 0);
	return count;
}

struct seen { uint64_t first, count, sum; };

static int see(void *context, const struct node_key *key, int64_t epoch)
{
	struct seen *seen = context;

	assert_int_equal(key->length, 10);
	assert_int_equal(get_u64(key->bytes + 2), epoch);
	seen->first = seen->count++ ? seen->first : (uint64_t)epoch;
	seen->sum += (uint64_t)epoch;
	return 0;
}

static struct seen seen_now(void)
{
	struct seen seen = {0};

	assert_int_equal(unsettled_log_each(state_fd, see, &seen), 0);
	return seen;
}

static struct unsettled_log *open_log(void)
{
	struct unsettled_log *log;

	assert_int_equal(unsettled_log_open(state_fd, &log, &error), 0);
	return log;
}

static void test_comes_back(void **state)
{
	struct unsettled_log *log;

	(void)state;
	assert_int_equal(seen_now().count, 0); /* no file */
	log = open_log();
	assert_int_equal(seen_now().count, 0);
	assert_int_equal(append(log, 100, 3), 3);
	assert_int_equal(append(log, 103, 1), 1);
	assert_int_equal(seen_now().count, 4);
	assert_int_equal(seen_now().sum, 100 + 101 + 102 + 103);
	unsettled_log_close(log);
	/* The next session uses the other half: what this one left stays until the one after it. */
	log = open_log();
	assert_int_equal(seen_now().count, 4);
	assert_int_equal(append(log, 200, 1), 1);
	assert_int_equal(seen_now().count, 5);
	unsettled_log_close(log);
	log = open_log();
	assert_int_equal(append(log, 300, 1), 1);
	assert_int_equal(seen_now().count, 2);
	assert_int_equal(seen_now().sum, 500);
	unsettled_log_close(log);
}

static void test_turns(void **state)
{
	struct unsettled_log *log = open_log();
	size_t first = HALF_RECORDS / 2 + 10;

	(void)state;
	assert_false(unsettled_log_is_filling(log));
	assert_false(unsettled_log_turn(log));
	assert_int_equal(append(log, 1, first), first);
	assert_true(unsettled_log_is_filling(log));
	assert_int_equal(append(log, 0, HALF_RECORDS - first + 1), 0); /* not in parts */
	assert_true(unsettled_log_turn(log));
	assert_int_equal(append(log, 10000, HALF_RECORDS), HALF_RECORDS);
	assert_int_equal(seen_now().count, first + HALF_RECORDS);
	/* The first half may still be needed. */
	assert_false(unsettled_log_is_filling(log));
	assert_true(unsettled_log_turn(log));
	assert_int_equal(append(log, 1, 1), 0);
	unsettled_log_forget(log);
	assert_true(unsettled_log_turn(log));
	assert_int_equal(append(log, 20000, 2), 2);
	assert_int_equal(seen_now().count, HALF_RECORDS + 2); /* what lies behind the two is of an earlier turn */
	unsettled_log_give_up(log);
	assert_int_equal(append(log, 1, 1), 0);
	unsettled_log_close(log);
}

static void damage(int64_t offset)
{
	int fd = openat(state_fd, "unsettled.log", O_RDWR);
	char byte;

	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

static void test_torn(void **state)
{
	struct unsettled_log *log = open_log();

	(void)state;
	append(log, 1, 10);
	unsettled_log_close(log);
	for (int at = 0; at < RECORD_BYTES; at++) {
		damage(7 * RECORD_BYTES + at);
		assert_int_equal(seen_now().count, 7);
		damage(7 * RECORD_BYTES + at);
		assert_int_equal(seen_now().count, 10);
	}
	damage(0);
	assert_int_equal(seen_now().count, 0);
	damage(0);
	/* Neither a shorter file nor none is in the way. */
	assert_int_equal(truncate((snprintf(directory + strlen(directory), 20, "/unsettled.log"), directory), 5 * RECORD_BYTES + 3), 0);
	*strrchr(directory, '/') = '\0';
	assert_int_equal(seen_now().count, 5);
	log = open_log();
	append(log, 50, 1);
	assert_int_equal(seen_now().count, 1);
	unsettled_log_close(log);
}

static void test_no_place(void **state)
{
	struct unsettled_log *log;

	(void)state;
	assert_int_equal(mkdirat(state_fd, "unsettled.log", 0700), 0);
	assert_int_not_equal(unsettled_log_open(state_fd, &log, &error), 0);
	assert_null(log);
	assert_non_null(strstr(error.message, "unsettled.log"));
	assert_int_equal(unlinkat(state_fd, "unsettled.log", AT_REMOVEDIR), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_place, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

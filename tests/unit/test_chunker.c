#include "chunker.h"

#include "bytes.h"
#include "clock.h"
#include "digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIN 4096u
#define AVERAGE 16384u
#define MAX 65536u
#define DATA_BYTES (32u << 20)

static const uint8_t key[32] = "the gear table grows out of this";
static uint8_t *data; /* DATA_BYTES + 64, random */

static int setup(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	data = malloc(DATA_BYTES + 64);
	for (size_t i = 0; i < DATA_BYTES + 64; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		put_u64(data + i, x);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(data);
	return 0;
}

/* Cuts data; ends[i] is where chunk i ends. */
static size_t cut(const struct chunker *chunker, const uint8_t *bytes, size_t length, size_t window, size_t *ends)
{
	size_t at = 0, count = 0;

	while (at < length) {
		size_t give = length - at < window ? length - at : window;
		uint32_t size = chunker_next(chunker, bytes + at, give);

		assert_true(size >= 1 && size <= chunker_max(chunker));
		at += size;
		assert_true(at == length || size >= MIN);
		ends[count++] = at;
	}
	return count;
}

static void test_sizes(void **state)
{
	struct chunker *chunker = chunker_new(key, MIN, AVERAGE, MAX);
	size_t *ends = malloc(sizeof(*ends) * (DATA_BYTES / MIN + 1));
	size_t count = cut(chunker, data, DATA_BYTES, DATA_BYTES, ends), near = 0;
	double average = (double)DATA_BYTES / (double)count;

	(void)state;
	/* Normalised: the mean is a little above `average`, and most chunks are within a factor of two of it. */
	assert_true(average > AVERAGE * 0.9 && average < AVERAGE * 1.5);
	for (size_t i = 1; i < count; i++)
		near += ends[i] - ends[i - 1] >= AVERAGE / 2 && ends[i] - ends[i - 1] <= AVERAGE * 2;
	assert_true(near > count * 3 / 4);
	free(ends);
	chunker_free(chunker);
}

static void test_small_and_uniform(void **state)
{
	struct chunker *chunker = chunker_new(key, MIN, AVERAGE, MAX);
	uint8_t *zeros = calloc(1, 2 * MAX);

	(void)state;
	assert_int_equal(chunker_next(chunker, data, 0), 0);
	assert_int_equal(chunker_next(chunker, data, 1), 1);
	assert_int_equal(chunker_next(chunker, data, MIN), MIN);
	assert_true(chunker_next(chunker, data, MIN + 1) == MIN + 1);
	/* Bytes without variety give the hash no chance: the maximum ends the chunk. */
	assert_int_equal(chunker_next(chunker, zeros, 2 * MAX), MAX);
	assert_int_equal(chunker_next(chunker, zeros, MAX - 1), MAX - 1);
	free(zeros);
	chunker_free(chunker);
	chunker_free(NULL);
}

/* Inserting, overwriting or deleting something leaves the chunks after it as they were. */
static void test_shift(void **state)
{
	struct chunker *chunker = chunker_new(key, MIN, AVERAGE, MAX);
	size_t length = DATA_BYTES / 4, most = length / MIN + 2;
	size_t *before = malloc(sizeof(*before) * most), *after = malloc(sizeof(*after) * most), count, changed;
	uint8_t *shifted = malloc(length + 1);

	(void)state;
	count = cut(chunker, data, length, length, before);
	for (size_t insert = 0; insert < length; insert += length / 7) {
		size_t reused = 0, j = 0;

		memcpy(shifted, data, insert);
		shifted[insert] = 0x55;
		memcpy(shifted + insert + 1, data + insert, length - insert);
		changed = cut(chunker, shifted, length + 1, length + 1, after);
		for (size_t i = 0; i < count; i++) {
			size_t wanted = before[i] + (before[i] > insert);

			while (j < changed && after[j] < wanted)
				j++;
			reused += j < changed && after[j] == wanted;
		}
		assert_true(reused + 5 > count);
	}
	free(before);
	free(after);
	free(shifted);
	chunker_free(chunker);
}

static void test_deterministic(void **state)
{
	struct chunker *a = chunker_new(key, MIN, AVERAGE, MAX), *b = chunker_new(key, MIN, AVERAGE, MAX);
	size_t most = DATA_BYTES / MIN + 1, count;
	size_t *first = malloc(sizeof(*first) * most), *second = malloc(sizeof(*second) * most);
	static const size_t windows[] = {MAX, MAX + 1, MAX + 4095, 1u << 20};
	uint8_t other_key[32] = "another";

	(void)state;
	count = cut(a, data, DATA_BYTES, DATA_BYTES, first);
	for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
		assert_int_equal(cut(b, data, DATA_BYTES, windows[i], second), count);
		assert_memory_equal(first, second, count * sizeof(*first));
	}
	chunker_free(b);
	/* Another key cuts elsewhere: sizes tell nothing to who doesn't have it. */
	b = chunker_new(other_key, MIN, AVERAGE, MAX);
	assert_true(cut(b, data, DATA_BYTES, DATA_BYTES, second) != count ||
		    memcmp(first, second, count * sizeof(*first)) != 0);
	free(first);
	free(second);
	chunker_free(a);
	chunker_free(b);
}

/* The definition, one byte at a time, as in yester-format(5). */
static uint32_t reference(const uint64_t *gear, const uint8_t *bytes, size_t length)
{
	unsigned bits = (unsigned)__builtin_ctz(AVERAGE);
	uint64_t hash = 0;

	for (size_t at = 0; at < length && at < MAX; at++) {
		if (at < MIN - 64)
			continue;
		hash = (hash << 1) + gear[bytes[at]];
		if (at >= MIN && hash >> (64 - (at < AVERAGE ? bits + 2 : bits - 2)) == 0)
			return (uint32_t)at + 1;
	}
	return length < MAX ? (uint32_t)length : MAX;
}

static void test_reference(void **state)
{
	struct chunker *chunker = chunker_new(key, MIN, AVERAGE, MAX);
	uint64_t gear[256];
	uint8_t block[32], counter[4];

	(void)state;
	for (uint32_t i = 0; i < 64; i++) {
		put_u32(counter, i);
		hmac_sha256(block, key, 32, counter, 4);
		for (int j = 0; j < 4; j++)
			gear[4 * i + (uint32_t)j] = get_u64(block + 8 * j);
	}
	for (size_t at = 0; at + MAX < DATA_BYTES / 4;) {
		uint32_t size = chunker_next(chunker, data + at, MAX);

		assert_int_equal(size, reference(gear, data + at, MAX));
		/* The end of the content in every place relative to the cut: odd and even. */
		assert_int_equal(chunker_next(chunker, data + at, size - 1), size - 1);
		assert_int_equal(chunker_next(chunker, data + at, size), size);
		at += size;
	}
	chunker_free(chunker);
}

static void test_all_zero(void **state)
{
	uint8_t bytes[300] = {0};

	(void)state;
	for (size_t start = 0; start < 9; start++) {
		for (size_t length = 0; length <= 200; length++) {
			assert_true(bytes_all_zero(bytes + start, length));
			for (size_t i = 0; i < length; i++) {
				bytes[start + i] = 0x80;
				assert_false(bytes_all_zero(bytes + start, length));
				bytes[start + i] = 0;
			}
			bytes[start + length] = 1;
			assert_true(bytes_all_zero(bytes + start, length));
			bytes[start + length] = 0;
		}
	}
}

/* Prints rather than asserts: the machine may be busy. */
static void test_speed(void **state)
{
	struct chunker *chunker = chunker_new(key, 128u << 10, 512u << 10, 2u << 20);
	int64_t start = clock_mono_ns();
	size_t at = 0;

	(void)state;
	while (at < DATA_BYTES)
		at += chunker_next(chunker, data + at, DATA_BYTES - at);
	print_message("chunker: %.2f GB/s\n", (double)DATA_BYTES / (double)(clock_mono_ns() - start));
	memset(data, 0, DATA_BYTES);
	start = clock_mono_ns();
	assert_true(bytes_all_zero(data, DATA_BYTES));
	print_message("bytes_all_zero: %.2f GB/s\n", (double)DATA_BYTES / (double)(clock_mono_ns() - start));
	chunker_free(chunker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),	 cmocka_unit_test(test_small_and_uniform),
		cmocka_unit_test(test_shift),	 cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_reference), cmocka_unit_test(test_all_zero),
		cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

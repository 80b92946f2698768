#include "compress.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include <cmocka.h>

static void fill(uint8_t *data, size_t length, uint64_t seed, unsigned values)
{
	for (size_t i = 0; i < length; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		data[i] = (uint8_t)((seed >> 33) % values);
	}
}

static void test_one_shot(void **state)
{
	struct compressor *compressor = compressor_new(3);
	static const size_t lengths[] = {1, 2, 100, 4096, 100000, 2u << 20};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		size_t length = lengths[i], bound = ZSTD_compressBound(length), size;
		uint8_t *data = malloc(length), *packed = malloc(bound), *out = malloc(length + 1);

		fill(data, length, i, 4);
		size = compress_bytes(compressor, data, length, packed, bound);
		assert_true(size > 0);
		assert_int_equal(decompress_exact(packed, size, out, length), 0);
		assert_memory_equal(out, data, length);
		/* Not a byte less or more than recorded, and nothing beside the frame. */
		assert_int_equal(decompress_exact(packed, size, out, length - 1), ERR_CORRUPT);
		assert_int_equal(decompress_exact(packed, size, out, length + 1), ERR_CORRUPT);
		assert_int_equal(decompress_exact(packed, size - 1, out, length), ERR_CORRUPT);
		assert_int_equal(compress_bytes(compressor, data, length, packed, size - 1), 0);
		free(data);
		free(packed);
		free(out);
	}
	compressor_free(compressor);
	compressor_free(NULL);
}

static void test_trailing_refused(void **state)
{
	struct compressor *compressor = compressor_new(3);
	uint8_t packed[400], out[100] = {0};
	static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0};
	size_t size = compress_bytes(compressor, out, 50, packed, sizeof(packed)), twice;

	(void)state;
	packed[size] = 0;
	assert_int_equal(decompress_exact(packed, size + 1, out, 50), ERR_CORRUPT);
	memcpy(packed + size, skippable, sizeof(skippable));
	assert_int_equal(decompress_exact(packed, size + sizeof(skippable), out, 50), ERR_CORRUPT);
	twice = compress_bytes(compressor, out, 50, packed + size, sizeof(packed) - size);
	assert_int_equal(decompress_exact(packed, size + twice, out, 100), ERR_CORRUPT);
	assert_int_equal(decompress_exact("", 0, out, 0), ERR_CORRUPT);
	compressor_free(compressor);
}

/* Compresses with `in_step` bytes a call into pieces of `out_step`. */
static size_t stream_all(const uint8_t *data, size_t length, size_t in_step, size_t out_step, uint8_t *out)
{
	struct compress_stream *stream = compress_stream_new(3, length);
	size_t at = 0, size = 0, produced;
	bool done = false;

	while (!done) {
		size_t take = length - at < in_step ? length - at : in_step;
		struct compress_input input = {data + at, take};
		bool end = at + take == length;

		do {
			assert_int_equal(compress_stream_step(stream, &input, end, out + size, out_step, &produced, &done), 0);
			size += produced;
		} while (end ? !done : input.length > 0);
		at += take;
	}
	compress_stream_free(stream);
	return size;
}

static int unstream(const uint8_t *packed, size_t size, size_t in_step, uint8_t *out, size_t capacity, size_t *length,
		    bool *done)
{
	struct decompress_stream *stream = decompress_stream_new();
	size_t produced;
	int status = 0;

	*length = 0;
	*done = false;
	for (size_t at = 0; at < size && !status; at += in_step) {
		struct compress_input input = {packed + at, size - at < in_step ? size - at : in_step};

		do {
			status = decompress_stream_step(stream, &input, out + *length, capacity - *length, &produced, done);
			*length += produced;
		} while (!status && input.length > 0);
	}
	decompress_stream_free(stream);
	return status;
}

static void test_streams(void **state)
{
	size_t length = 300000, size, got;
	uint8_t *data = malloc(length), *packed = malloc(length + 1000), *out = malloc(length + 1);
	bool done;

	(void)state;
	fill(data, length, 7, 20);
	for (size_t step = 1; step <= 1000000; step *= 10) {
		size = stream_all(data, length, step < 100 ? 100 : step, step < 100 ? 100 : 1000, packed);
		assert_true(size < length);
		assert_int_equal(unstream(packed, size, step, out, length + 1, &got, &done), 0);
		assert_true(done);
		assert_int_equal(got, length);
		assert_memory_equal(out, data, length);
	}
	/* Cut short: no error yet, but not done. */
	assert_int_equal(unstream(packed, size - 1, 1000, out, length + 1, &got, &done), 0);
	assert_false(done);
	packed[size] = 0x28;
	assert_int_equal(unstream(packed, size + 1, 1000, out, length + 1, &got, &done), ERR_CORRUPT);
	packed[0] ^= 1;
	assert_int_equal(unstream(packed, size, 1000, out, length + 1, &got, &done), ERR_CORRUPT);
	size = stream_all(data, 0, 1, 100, packed);
	assert_int_equal(unstream(packed, size, 1, out, 1, &got, &done), 0);
	assert_true(done);
	assert_int_equal(got, 0);
	free(data);
	free(packed);
	free(out);
}

static void test_stream_total(void **state)
{
	struct compress_stream *stream = compress_stream_new(3, 10);
	struct compress_input input = {(const uint8_t *)"12345", 5};
	uint8_t out[100];
	size_t produced;
	bool done;

	(void)state;
	assert_int_equal(compress_stream_step(stream, &input, true, out, sizeof(out), &produced, &done), ERR_FAILED);
	compress_stream_free(stream);
	compress_stream_free(NULL);
	decompress_stream_free(NULL);
}

/* Fault 42: a frame that asks for a window of more than 128 MiB is refused. */
static void test_window_cap(void **state)
{
	/* Magic, descriptor without content size, window descriptor (exponent << 3), one empty last block. */
	uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0, 0x01, 0x00, 0x00};
	uint8_t out[16];
	size_t length;
	bool done;

	(void)state;
	frame[5] = (27 - 10) << 3;
	assert_int_equal(unstream(frame, sizeof(frame), sizeof(frame), out, sizeof(out), &length, &done), 0);
	assert_true(done);
	frame[5] = (28 - 10) << 3;
	assert_int_equal(unstream(frame, sizeof(frame), sizeof(frame), out, sizeof(out), &length, &done), ERR_CORRUPT);
}

static void *thread_main(void *argument)
{
	struct compressor *compressor = compressor_new(1);
	uint8_t data[10000], packed[20000], out[10000];
	size_t *failures = argument;

	for (uint64_t i = 0; i < 50; i++) {
		size_t size;

		fill(data, sizeof(data), i, 8);
		size = compress_bytes(compressor, data, sizeof(data), packed, sizeof(packed));
		if (!size || decompress_exact(packed, size, out, sizeof(out)) || memcmp(out, data, sizeof(data)) != 0)
			(*failures)++;
	}
	compressor_free(compressor);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[4];
	size_t failures[4] = {0};

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &failures[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(failures[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_shot), cmocka_unit_test(test_trailing_refused), cmocka_unit_test(test_streams),
		cmocka_unit_test(test_stream_total), cmocka_unit_test(test_window_cap), cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

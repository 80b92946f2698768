#include "seal.h"

#include "bytes.h"
#include "io.h"
#include "record_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

#define SEALED_SEGMENT (RECORD_SEGMENT_BYTES + CRYPT_TAG_BYTES)

static const uint8_t volume_id[CRYPT_ID_BYTES] = "the test volume";
static const uint8_t key[CRYPT_KEY_BYTES] = "a key that is thirty-two bytes.";
static const uint8_t object_id[CRYPT_ID_BYTES] = "the test object";
static const uint8_t salt[CRYPT_SALT_BYTES] = "a salt of thirty-two bytes, yes";
static uint8_t header[RECORD_HEADER_BYTES] = "the clear header of a record";

static int new_file(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static struct master *new_master(enum suite suite)
{
	return master_new(volume_id, suite == SUITE_NONE ? NULL : key);
}

static int seal_fd(const struct master *master, int in_fd, uint64_t length, int out_fd, uint64_t *sealed)
{
	return stream_seal(master, OBJECT_RECORD, object_id, salt, header, sizeof(header), in_fd, length, out_fd, sealed,
			   NULL);
}

static int open_fd(const struct master *master, int in_fd, uint64_t length, int out_fd, uint64_t limit, uint64_t *got)
{
	return stream_open(master, OBJECT_RECORD, object_id, salt, header, sizeof(header), in_fd, 0, length, out_fd, limit,
			   got, NULL);
}

/* Seals bytes; returns the descriptor of the sealed stream. */
static int sealed_file(const struct master *master, const void *data, size_t length, uint64_t *sealed)
{
	int in = new_file(), out = new_file();
	struct stat st;

	assert_int_equal(io_pwrite(in, data, length, 0), 0);
	assert_int_equal(seal_fd(master, in, length, out, sealed), 0);
	assert_int_equal(fstat(out, &st), 0);
	assert_int_equal(st.st_size, *sealed);
	close(in);
	return out;
}

static void assert_opens(const struct master *master, int fd, uint64_t length, const void *data, size_t data_length)
{
	int out = new_file();
	uint8_t *back = malloc(data_length + 1);
	uint64_t got;

	assert_int_equal(open_fd(master, fd, length, out, data_length, &got), 0);
	assert_int_equal(got, data_length);
	assert_int_equal(io_pread(out, back, data_length + 1, 0), data_length);
	assert_memory_equal(back, data, data_length);
	free(back);
	close(out);
}

static void assert_refused(const struct master *master, int fd, uint64_t length)
{
	int out = new_file();
	uint64_t got;

	assert_int_equal(open_fd(master, fd, length, out, 1u << 30, &got), ERR_CORRUPT);
	close(out);
}

static void test_round_trip(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	static const size_t lengths[] = {0, 1, 5000, RECORD_SEGMENT_BYTES - 1, RECORD_SEGMENT_BYTES,
					 3 * RECORD_SEGMENT_BYTES + 7};
	uint8_t *data = malloc(lengths[5]);
	uint64_t sealed;

	for (int kind = 0; kind < 2; kind++) {
		memset(data, 'a', lengths[5]);
		if (kind == 1)
			io_random(data, lengths[5]);
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			int fd = sealed_file(master, data, lengths[i], &sealed);

			assert_opens(master, fd, sealed, data, lengths[i]);
			close(fd);
		}
	}
	free(data);
	master_free(master);
}

/* The compressed stream ends near a border of segments: the last is never empty. */
static void test_borders(void **state)
{
	struct master *master = new_master(SUITE_NONE);
	uint8_t *data = malloc(RECORD_SEGMENT_BYTES);
	uint64_t sealed, seen = 0;

	(void)state;
	io_random(data, RECORD_SEGMENT_BYTES);
	/* zstd adds a few bytes to what it can't compress. */
	for (size_t less = 0; less < 64; less++) {
		size_t length = RECORD_SEGMENT_BYTES - less;
		int fd = sealed_file(master, data, length, &sealed);

		assert_true(sealed % SEALED_SEGMENT == 0 || sealed % SEALED_SEGMENT > CRYPT_TAG_BYTES);
		seen |= sealed == SEALED_SEGMENT ? 1 : sealed < SEALED_SEGMENT ? 2 : 4;
		assert_opens(master, fd, sealed, data, length);
		close(fd);
	}
	assert_int_equal(seen, 7);
	free(data);
	master_free(master);
}

static void test_offset(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	uint64_t sealed, got;
	int fd = sealed_file(master, "some text", 9, &sealed), moved = new_file(), out = new_file();
	uint8_t bytes[200];

	assert_int_equal(io_pread(fd, bytes, sizeof(bytes), 0), sealed);
	assert_int_equal(io_pwrite(moved, bytes, sealed, 256), 0);
	assert_int_equal(io_pwrite(moved, "more", 4, 256 + (int64_t)sealed), 0);
	assert_int_equal(stream_open(master, OBJECT_RECORD, object_id, salt, header, sizeof(header), moved, 256, sealed, out,
				     100, &got, NULL), 0);
	assert_int_equal(got, 9);
	assert_int_equal(stream_open(master, OBJECT_RECORD, object_id, salt, header, sizeof(header), moved, -1, sealed, out,
				     100, &got, NULL), ERR_CORRUPT);
	assert_int_equal(stream_open(master, OBJECT_RECORD, object_id, salt, header, sizeof(header), moved, 256, UINT64_MAX,
				     out, 100, &got, NULL), ERR_CORRUPT);
	close(fd);
	close(moved);
	close(out);
	master_free(master);
}

static void flip(int fd, uint64_t at, uint8_t bits)
{
	uint8_t byte;

	assert_int_equal(io_pread(fd, &byte, 1, (int64_t)at), 1);
	byte ^= bits;
	assert_int_equal(io_pwrite(fd, &byte, 1, (int64_t)at), 0);
}

static void test_tamper_small(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	uint64_t sealed, got;
	int fd = sealed_file(master, "some text that is sealed", 24, &sealed), out = new_file();

	for (uint64_t i = 0; i < sealed * 8; i++) {
		flip(fd, i / 8, (uint8_t)(1 << i % 8));
		assert_refused(master, fd, sealed);
		flip(fd, i / 8, (uint8_t)(1 << i % 8));
	}
	for (uint64_t length = 0; length < sealed; length++)
		assert_refused(master, fd, length);
	/* Says to be longer than the file, and is longer. */
	assert_refused(master, fd, sealed + 1);
	assert_int_equal(io_pwrite(fd, "", 1, (int64_t)sealed), 0);
	assert_refused(master, fd, sealed + 1);
	/* The header is part of what is authenticated. */
	for (size_t i = 0; i < sizeof(header); i++) {
		header[i] ^= 1;
		assert_refused(master, fd, sealed);
		header[i] ^= 1;
	}
	assert_int_equal(stream_open(master, OBJECT_CHECKPOINT, object_id, salt, header, sizeof(header), fd, 0, sealed, out,
				     1000, &got, NULL), ERR_CORRUPT);
	assert_int_equal(stream_open(master, OBJECT_RECORD, volume_id, salt, header, sizeof(header), fd, 0, sealed, out, 1000,
				     &got, NULL), ERR_CORRUPT);
	assert_opens(master, fd, sealed, "some text that is sealed", 24);
	close(fd);
	close(out);
	master_free(master);
}

/* Segments swapped, repeated, dropped, appended; cut at a border, where everything left is authentic. */
static void test_segments(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	size_t length = 2 * RECORD_SEGMENT_BYTES + 1000;
	uint8_t *data = malloc(length), *a = malloc(SEALED_SEGMENT), *b = malloc(SEALED_SEGMENT);
	uint64_t sealed;
	int fd;

	io_random(data, length);
	fd = sealed_file(master, data, length, &sealed);
	assert_true(sealed > 2 * SEALED_SEGMENT && sealed < 3 * SEALED_SEGMENT);
	assert_refused(master, fd, SEALED_SEGMENT);
	assert_refused(master, fd, 2 * SEALED_SEGMENT);
	assert_refused(master, fd, 2 * SEALED_SEGMENT + CRYPT_TAG_BYTES);
	assert_int_equal(io_pread(fd, a, SEALED_SEGMENT, 0), SEALED_SEGMENT);
	assert_int_equal(io_pread(fd, b, SEALED_SEGMENT, SEALED_SEGMENT), SEALED_SEGMENT);
	assert_int_equal(io_pwrite(fd, b, SEALED_SEGMENT, 0), 0);
	assert_refused(master, fd, sealed);
	assert_int_equal(io_pwrite(fd, a, SEALED_SEGMENT, SEALED_SEGMENT), 0);
	assert_refused(master, fd, sealed);
	assert_int_equal(io_pwrite(fd, a, SEALED_SEGMENT, 0), 0);
	assert_refused(master, fd, sealed);
	assert_int_equal(io_pwrite(fd, b, SEALED_SEGMENT, SEALED_SEGMENT), 0);
	assert_opens(master, fd, sealed, data, length);
	/* A segment more after the last one. */
	assert_int_equal(io_pwrite(fd, a, 1000, (int64_t)sealed), 0);
	assert_refused(master, fd, sealed + 1000);
	close(fd);
	free(data);
	free(a);
	free(b);
	master_free(master);
}

/* Seals bytes that are no zstd frame of ours, as a hostile holder of the key (or anybody, without encryption) can. */
static int forged(const struct master *master, const void *data, size_t length, bool final, uint64_t *sealed)
{
	struct sealer *sealer = sealer_new(master, OBJECT_RECORD, object_id, salt);
	uint8_t *out = malloc(length + CRYPT_TAG_BYTES);
	int fd = new_file();

	assert_int_equal(sealer_seal(sealer, 0, final, header, sizeof(header), data, length, out), 0);
	*sealed = length + CRYPT_TAG_BYTES;
	assert_int_equal(io_pwrite(fd, out, *sealed, 0), 0);
	free(out);
	sealer_free(sealer);
	return fd;
}

static void test_forged(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	uint8_t frame[300];
	size_t size = ZSTD_compress(frame, sizeof(frame), "hello", 5, 3);
	uint64_t sealed, got;
	int fd, out = new_file();

	fd = forged(master, frame, size, true, &sealed);
	assert_opens(master, fd, sealed, "hello", 5);
	close(fd);
	fd = forged(master, frame, size, false, &sealed); /* not marked as the last */
	assert_refused(master, fd, sealed);
	close(fd);
	fd = forged(master, frame, size - 1, true, &sealed); /* frame cut short */
	assert_refused(master, fd, sealed);
	close(fd);
	memcpy(frame + size, frame, size); /* two frames */
	fd = forged(master, frame, 2 * size, true, &sealed);
	assert_refused(master, fd, sealed);
	close(fd);
	fd = forged(master, frame, 0, true, &sealed); /* no frame */
	assert_refused(master, fd, sealed);
	close(fd);
	fd = forged(master, "not zstd", 8, true, &sealed);
	assert_refused(master, fd, sealed);
	assert_int_equal(open_fd(master, fd, sealed, out, 100, &got), ERR_CORRUPT);
	close(fd);
	close(out);
	master_free(master);
}

/* Fault 42: what is written never exceeds the limit, whatever the frame says. */
static void test_bomb(void **state)
{
	struct master *master = new_master(*(enum suite *)*state);
	int in = new_file(), packed = new_file(), out = new_file();
	uint64_t length = UINT64_C(64) << 20, sealed, got;
	struct stat st;

	assert_int_equal(ftruncate(in, (off_t)length), 0);
	assert_int_equal(seal_fd(master, in, length, packed, &sealed), 0);
	assert_true(sealed < 100000);
	assert_int_equal(open_fd(master, packed, sealed, out, length - 1, &got), ERR_CORRUPT);
	assert_int_equal(ftruncate(out, 0), 0);
	assert_int_equal(open_fd(master, packed, sealed, out, 5000000, &got), ERR_CORRUPT);
	assert_int_equal(fstat(out, &st), 0);
	assert_true(st.st_size <= 5000000);
	assert_int_equal(open_fd(master, packed, sealed, out, length, &got), 0);
	assert_int_equal(got, length);
	close(in);
	close(packed);
	close(out);
	master_free(master);
}

static void test_shorter_file(void **state)
{
	struct master *master = new_master(SUITE_AES256_GCM);
	int in = new_file(), out = new_file();
	uint64_t sealed;

	(void)state;
	assert_int_equal(io_pwrite(in, "12345", 5, 0), 0);
	assert_int_equal(seal_fd(master, in, 6, out, &sealed), ERR_FAILED);
	assert_int_equal(seal_fd(master, -1, 6, out, &sealed), ERR_FAILED);
	assert_int_equal(seal_fd(master, in, 5, -1, &sealed), ERR_FAILED);
	close(in);
	close(out);
	master_free(master);
}

/* 200 MiB pass through memory that does not grow with them (memfd pages count as shared, not as ours). */
static void test_constant_memory(void **state)
{
	struct master *master = new_master(SUITE_AES256_GCM);
	uint64_t length = UINT64_C(200) << 20, sealed, got;
	int in = new_file(), packed = new_file(), out = new_file();
	struct rlimit old, limit;

	(void)state;
	assert_int_equal(ftruncate(in, (off_t)length), 0);
	assert_int_equal(getrlimit(RLIMIT_DATA, &old), 0);
	limit = old;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their shadow memory counts */
	limit.rlim_cur = 64u << 20;
#endif
	assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
	assert_int_equal(seal_fd(master, in, length, packed, &sealed), 0);
	assert_int_equal(open_fd(master, packed, sealed, out, length, &got), 0);
	assert_int_equal(got, length);
	assert_int_equal(setrlimit(RLIMIT_DATA, &old), 0);
	close(in);
	close(packed);
	close(out);
	master_free(master);
}

int main(void)
{
	static enum suite suites[] = {SUITE_NONE, SUITE_AES256_GCM};
#define BOTH(test) cmocka_unit_test_prestate(test, &suites[0]), cmocka_unit_test_prestate(test, &suites[1])
	const struct CMUnitTest tests[] = {
		BOTH(test_round_trip), cmocka_unit_test(test_borders), BOTH(test_offset), BOTH(test_tamper_small),
		BOTH(test_segments), BOTH(test_forged), BOTH(test_bomb), cmocka_unit_test(test_shorter_file),
		cmocka_unit_test(test_constant_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

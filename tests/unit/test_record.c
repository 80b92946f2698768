#include "record.h"

#include "bytes.h"
#include "catalogue_schema.h"
#include "io.h"
#include "sample_log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_keys(void **state)
{
	char key[RECORD_KEY_BYTES];
	uint8_t id[16] = {0xab, 1};
	int64_t seq;
	uint64_t rand;

	(void)state;
	record_key(key, 255);
	assert_string_equal(key, "log/00000000000000ff");
	assert_int_equal(record_key_parse(key), 255);
	pack_key(key, id);
	assert_string_equal(key, "pack/ab/ab010000000000000000000000000000");
	checkpoint_key(key, 16, 0xdeadbeef);
	assert_string_equal(key, "checkpoint/0000000000000010-00000000deadbeef");
	assert_int_equal(checkpoint_key_parse(key, &seq, &rand), 0);
	assert_int_equal(seq, 16);
	assert_int_equal(rand, 0xdeadbeef);

	static const char *const bad[] = {"", "log/", "log/1", "log/00000000000000FF", "log/0000000000000000",
					  "log/ffffffffffffffff", "log/00000000000000ff0", "log/00000000000000f-",
					  "LOG/00000000000000ff", "pack/00000000000000ff"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(record_key_parse(bad[i]), -1);
	assert_int_equal(checkpoint_key_parse("checkpoint/0000000000000010", &seq, &rand), ERR_CORRUPT);
	assert_int_equal(checkpoint_key_parse("checkpoint/0000000000000000-00000000deadbeef", &seq, &rand), ERR_CORRUPT);
	assert_int_equal(checkpoint_key_parse("checkpoint/0000000000000010-00000000deadbee", &seq, &rand), ERR_CORRUPT);
	assert_int_equal(checkpoint_key_parse("checkpoint/0000000000000010-00000000deadbeef0", &seq, &rand), ERR_CORRUPT);
}

/* The object as bytes, and back into a file. */
static void load(const struct sample *sample, const char *key, struct buf *out)
{
	char *path = sample_object(sample, key);
	struct error error = {0};

	if (io_read_file(AT_FDCWD, path, 1 << 24, out, &error))
		fail_msg("%s", error.message);
	free(path);
}

static int file_of(const struct sample *sample, const void *data, size_t length)
{
	int fd = open(sample->tmp, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(io_pwrite(fd, data, length, 0), 0);
	return fd;
}

static int read_bytes(const struct sample *sample, const void *data, size_t length, int64_t seq,
		      struct record_header *header, struct delta **delta)
{
	struct error error = {0};
	int fd = file_of(sample, data, length);
	int rc = record_read(sample->master, fd, length, seq, sample->tmp, header, delta, &error);

	assert_int_equal(rc, error.code);
	if (rc)
		assert_null(*delta);
	close(fd);
	return rc;
}

static void build(struct sample *sample, bool encrypted)
{
	sample_open(sample, encrypted);
	struct delta *delta = sample_delta(sample, VERSION_TAKE_OVER);
	sample_add_dir(delta, CATALOGUE_ROOT_INO, "docs", 2);
	sample_add_file(sample, delta, 2, "a.txt", 3, "hello", 5, true);
	sample_commit(sample, delta, RECORD_TAKE_OVER);
}

static void round_trip(bool encrypted)
{
	struct sample sample;
	struct record_header header;
	struct version_row row;
	struct delta *delta;
	struct buf bytes = {0};
	uint8_t hash[SHA256_BYTES];

	build(&sample, encrypted);
	load(&sample, "log/0000000000000001", &bytes);
	sha256(hash, bytes.data, bytes.length);
	assert_memory_equal(hash, sample.hash, SHA256_BYTES);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), 0);
	assert_int_equal(header.seq, 1);
	assert_int_equal(header.flags, RECORD_TAKE_OVER);
	assert_int_equal(header.suite, encrypted ? SUITE_AES256_GCM : SUITE_NONE);
	assert_memory_equal(header.writer_id, sample.writer_id, sizeof(header.writer_id));
	assert_int_equal(delta_get_version(delta, &row, NULL), 0);
	assert_int_equal(row.time_s, 10);
	delta_free(delta);
	buf_free(&bytes);
	sample_close(&sample);
}

static void test_round_trip(void **state)
{
	(void)state;
	round_trip(true);
	round_trip(false);
}

/* I16: no byte of the header, and none of the delta, can be changed. */
static void tamper(bool encrypted)
{
	struct sample sample;
	struct record_header header;
	struct delta *delta;
	struct buf bytes = {0};

	build(&sample, encrypted);
	load(&sample, "log/0000000000000001", &bytes);
	for (size_t i = 0; i < RECORD_HEADER_BYTES; i++) {
		for (int bit = 0; bit < 8; bit += 7) {
			bytes.data[i] ^= (uint8_t)(1 << bit);
			if (read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta) == 0)
				fail_msg("header byte %zu can be changed", i);
			if (read_bytes(&sample, bytes.data, bytes.length, -1, &header, &delta) == 0)
				fail_msg("header byte %zu can be changed", i);
			bytes.data[i] ^= (uint8_t)(1 << bit);
		}
	}
	size_t delta_at = bytes.length - (size_t)get_u64(bytes.data + 216);
	for (size_t i = delta_at; i < bytes.length; i += 7) {
		bytes.data[i] ^= 0x10;
		assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), ERR_CORRUPT);
		bytes.data[i] ^= 0x10;
	}
	for (size_t length = 0; length < bytes.length; length += length < 250 ? 50 : 3)
		assert_int_equal(read_bytes(&sample, bytes.data, length, 1, &header, &delta), ERR_CORRUPT);
	assert_int_equal(buf_append_u8(&bytes, 0), 0);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), ERR_CORRUPT);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length - 1, 1, &header, &delta), 0);
	delta_free(delta);
	buf_free(&bytes);
	sample_close(&sample);
}

static void test_tampering(void **state)
{
	(void)state;
	tamper(true);
	tamper(false);
}

static void test_wrong_place(void **state)
{
	struct sample sample;
	struct record_header header;
	struct delta *delta;
	struct buf bytes = {0};
	struct master *other;

	(void)state;
	build(&sample, true);
	load(&sample, "log/0000000000000001", &bytes);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 2, &header, &delta), ERR_CORRUPT);
	/* The same id with another key, and without encryption. */
	uint8_t key[CRYPT_KEY_BYTES] = {1};
	other = sample.master;
	sample.master = master_new(master_volume_id(other), key);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), ERR_CORRUPT);
	master_free(sample.master);
	sample.master = master_new(master_volume_id(other), NULL);
	assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), ERR_CORRUPT);
	master_free(sample.master);
	sample.master = other;
	buf_free(&bytes);
	sample_close(&sample);
}

static void test_newer(void **state)
{
	struct sample sample;
	struct record_header header;
	struct delta *delta;
	struct buf bytes = {0};
	static const size_t offsets[] = {8, 12, 240}; /* format, schema, incompatible */

	(void)state;
	build(&sample, true);
	load(&sample, "log/0000000000000001", &bytes);
	for (size_t i = 0; i < 3; i++) {
		bytes.data[offsets[i]] += 2;
		assert_int_equal(read_bytes(&sample, bytes.data, bytes.length, 1, &header, &delta), ERR_UNSUPPORTED);
		bytes.data[offsets[i]] -= 2;
	}
	buf_free(&bytes);
	sample_close(&sample);
}

/* What a writer must not write is refused before it is written. */
static void test_inconsistent(void **state)
{
	struct sample sample;
	struct record_header header = {.seq = 1};
	uint8_t hash[SHA256_BYTES];
	struct error error;
	uint64_t length;

	(void)state;
	sample_open(&sample, true);
	struct delta *delta = sample_delta(&sample, 0);
	int fd = file_of(&sample, "", 0);
	header.previous_hash[3] = 1; /* nothing is before the first */
	assert_int_equal(record_write(sample.master, &header, NULL, delta, fd, &length, hash, &error), ERR_FAILED);
	header.previous_hash[3] = 0;
	header.base.seq = 1;
	assert_int_equal(record_write(sample.master, &header, NULL, delta, fd, &length, hash, &error), ERR_FAILED);
	header.base.seq = 0;
	header.seq = 2;
	assert_int_equal(record_write(sample.master, &header, NULL, delta, fd, &length, hash, &error), ERR_FAILED);
	close(fd);
	delta_free(delta);
	sample_close(&sample);
}

static void test_checkpoint(void **state)
{
	static const char image[] = "this is not looked at here";
	struct sample sample;
	uint8_t log_hash[SHA256_BYTES] = {9}, hash[SHA256_BYTES], other[SHA256_BYTES];
	uint64_t rand, length, image_length;
	struct error error = {0};
	struct buf bytes = {0};
	char back[sizeof(image)];
	int image_fd, fd, out;

	(void)state;
	sample_open(&sample, true);
	image_fd = file_of(&sample, image, sizeof(image));
	fd = file_of(&sample, "", 0);
	assert_int_equal(checkpoint_write(sample.master, 7, log_hash, image_fd, sizeof(image), fd, &rand, &length, hash,
					  &error), 0);
	close(image_fd);
	assert_int_equal(object_hash(fd, length, other, &error), 0);
	assert_memory_equal(hash, other, SHA256_BYTES);
	assert_int_equal(checkpoint_read(sample.master, fd, length, 7, rand, sample.tmp, &out, &image_length, &error), 0);
	assert_int_equal(image_length, sizeof(image));
	assert_int_equal(io_pread(out, back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(back, image, sizeof(image));
	close(out);
	assert_int_equal(checkpoint_read(sample.master, fd, length, 8, rand, sample.tmp, &out, &image_length, &error), ERR_CORRUPT);
	assert_int_equal(checkpoint_read(sample.master, fd, length, 7, rand + 1, sample.tmp, &out, &image_length, &error), ERR_CORRUPT);
	assert_int_equal(checkpoint_read(sample.master, fd, length - 1, 7, rand, sample.tmp, &out, &image_length, &error), ERR_CORRUPT);
	assert_int_equal(buf_reserve(&bytes, length), 0);
	assert_int_equal(io_pread(fd, bytes.data, length, 0), (ssize_t)length);
	close(fd);
	for (size_t i = 0; i < length; i++) {
		bytes.data[i] ^= 1;
		fd = file_of(&sample, bytes.data, length);
		if (checkpoint_read(sample.master, fd, length, 7, rand, sample.tmp, &out, &image_length, &error) == 0)
			fail_msg("byte %zu can be changed", i);
		assert_int_equal(out, -1);
		close(fd);
		bytes.data[i] ^= 1;
	}
	buf_free(&bytes);
	sample_close(&sample);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_tampering),
		cmocka_unit_test(test_wrong_place), cmocka_unit_test(test_newer), cmocka_unit_test(test_inconsistent),
		cmocka_unit_test(test_checkpoint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "sample_log.h"

#include "catalogue_schema.h"
#include "io.h"
#include "key.h"
#include "seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSPHRASE "correct horse"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

void sample_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd >= 0);
	assert_int_equal(io_write(fd, text, strlen(text)), 0);
	close(fd);
}

static void put(struct sample *sample, const char *key, const struct buf *bytes)
{
	struct store_body body = {.data = bytes->data, .fd = -1, .length = bytes->length};
	struct error error = {0};

	if (store_put_new(sample->store, key, &body, NULL, &error))
		fail_msg("%s", error.message);
}

static void put_volume(struct sample *sample, bool encrypted)
{
	struct volume_descriptor descriptor;
	struct buf text = {0};

	descriptor_init(&descriptor, encrypted ? SUITE_AES256_GCM : SUITE_NONE);
	sample->master = key_new_master(&descriptor);
	assert_non_null(sample->master);
	if (encrypted) {
		assert_int_equal(key_slot_write(sample->master, KEY_PASSPHRASE, PASSPHRASE, strlen(PASSPHRASE), &text, NULL), 0);
		put(sample, "key/00000001", &text);
		buf_clear(&text);
	}
	assert_int_equal(descriptor_write(&descriptor, sample->master, &text), 0);
	put(sample, "volume", &text);
	buf_free(&text);
}

void sample_open(struct sample *sample, bool encrypted)
{
	struct error error = {0};

	memset(sample, 0, sizeof(*sample));
	sample->dir = io_printf("%s/yester-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(sample->dir));
	sample->remote = io_printf("%s/remote", sample->dir);
	sample->tmp = io_printf("%s/tmp", sample->dir);
	sample->passphrase_file = io_printf("%s/passphrase", sample->dir);
	assert_int_equal(mkdir(sample->tmp, 0700), 0);
	write_file(sample->passphrase_file, PASSPHRASE "\n", 0600);
	sample->config = config_new("sample");
	assert_non_null(sample->config);
	sample->config->remote = io_printf("file://%s", sample->remote);
	sample->config->encryption = encrypted;
	if (store_open(sample->config, true, 1, &sample->store, &error))
		fail_msg("%s", error.message);
	put_volume(sample, encrypted);
	io_random(sample->writer_id, sizeof(sample->writer_id));
}

void sample_close(struct sample *sample)
{
	store_close(sample->store);
	master_free(sample->master);
	config_free(sample->config);
	buf_free(&sample->inline_pack);
	sample_remove_tree(sample->dir);
	free(sample->dir);
	free(sample->remote);
	free(sample->tmp);
	free(sample->passphrase_file);
}

/* ---------------------------------------------------------------- deltas */

static void add_inode(struct delta *delta, int64_t ino, mode_t mode, int64_t size)
{
	struct inode_row row = {.ino = ino, .mode = mode, .uid = getuid(), .gid = getgid(), .nlink = 1, .size = size,
				.atime_ns = 5, .mtime_ns = 1000000007, .ctime_ns = 6};
	struct error error = {0};

	if (delta_add_inode(delta, &row, &error))
		fail_msg("%s", error.message);
}

struct delta *sample_delta(struct sample *sample, int64_t flags)
{
	int64_t seq = sample->seq + 1;
	struct version_row row = {.seq = seq, .time_s = seq * 10, .cut_ns = seq * INT64_C(10000000000), .flags = flags};
	struct error error = {0};
	struct delta *delta;

	if (delta_new(sample->tmp, seq, &delta, &error) || delta_set_version(delta, &row, &error))
		fail_msg("%s", error.message);
	if (seq == 1)
		add_inode(delta, CATALOGUE_ROOT_INO, S_IFDIR | 0755, 0);
	return delta;
}

void sample_add_dir(struct delta *delta, int64_t parent, const char *name, int64_t ino)
{
	add_inode(delta, ino, S_IFDIR | 0755, 0);
	assert_int_equal(delta_add_name(delta, parent, name, strlen(name), ino, NULL), 0);
}

static void add_rows(struct sample *sample, struct delta *delta, struct pack_builder *builder,
		     const struct chunk_place *place, int64_t ino, bool in_record)
{
	struct pack_row pack = {.num = ++sample->pack, .record = in_record ? delta_seq(delta) : 0};
	struct chunk_row chunk = {.num = ++sample->chunk, .pack = pack.num, .idx = place->index,
				  .offset = (int64_t)place->offset, .stored = place->stored_bytes,
				  .length = place->length, .codec = place->codec, .dictionary = place->dictionary};
	struct extent_row extent = {ino, 0, place->length, chunk.num, 0};
	const struct buf *bytes;
	char key[RECORD_KEY_BYTES];

	memcpy(chunk.id, place->id, sizeof(chunk.id));
	memcpy(pack.id, pack_builder_id(builder), sizeof(pack.id));
	memcpy(pack.salt, pack_builder_salt(builder), sizeof(pack.salt));
	assert_int_equal(pack_builder_finish(builder, &bytes, pack.hash), 0);
	pack.size = (int64_t)bytes->length;
	if (in_record) {
		assert_int_equal(sample->inline_pack.length, 0);
		assert_int_equal(buf_append(&sample->inline_pack, bytes->data, bytes->length), 0);
	} else {
		pack_key(key, pack.id);
		put(sample, key, bytes);
	}
	assert_int_equal(delta_add_pack(delta, &pack, NULL), 0);
	assert_int_equal(delta_add_chunk(delta, &chunk, NULL), 0);
	assert_int_equal(delta_add_extent(delta, &extent, NULL), 0);
}

void sample_add_file(struct sample *sample, struct delta *delta, int64_t parent, const char *name, int64_t ino,
		     const void *data, size_t length, bool in_record)
{
	struct pack_builder *builder = pack_builder_new(sample->master, 3);
	uint8_t id[CRYPT_ID_BYTES];
	struct chunk_place place;

	assert_non_null(builder);
	master_chunk_id(sample->master, data, length, id);
	assert_int_equal(pack_builder_add(builder, id, data, (uint32_t)length, &place), 0);
	add_inode(delta, ino, S_IFREG | 0640, (int64_t)length);
	assert_int_equal(delta_add_name(delta, parent, name, strlen(name), ino, NULL), 0);
	add_rows(sample, delta, builder, &place, ino, in_record);
	pack_builder_free(builder);
}

/* ---------------------------------------------------------------- objects */

static int temporary(const struct sample *sample)
{
	int fd = open(sample->tmp, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void put_file(struct sample *sample, const char *key, int fd, uint64_t length)
{
	struct store_body body = {.fd = fd, .length = length};
	struct error error = {0};

	if (store_put_new(sample->store, key, &body, NULL, &error))
		fail_msg("%s", error.message);
	close(fd);
}

void sample_commit(struct sample *sample, struct delta *delta, uint32_t flags)
{
	struct record_header header = {.seq = delta_seq(delta), .flags = flags, .base = sample->base};
	char key[RECORD_KEY_BYTES];
	struct error error = {0};
	uint64_t length;
	int fd = temporary(sample);

	header.cut_ns = header.seq * INT64_C(10000000000);
	memcpy(header.writer_id, sample->writer_id, sizeof(header.writer_id));
	memcpy(header.previous_hash, sample->hash, SHA256_BYTES);
	if (record_write(sample->master, &header, sample->inline_pack.length ? &sample->inline_pack : NULL, delta, fd,
			 &length, sample->hash, &error))
		fail_msg("%s", error.message);
	record_key(key, header.seq);
	put_file(sample, key, fd, length);
	buf_clear(&sample->inline_pack);
	sample->seq = header.seq;
	delta_free(delta);
}

void sample_checkpoint(struct sample *sample, struct db *db)
{
	struct error error = {0};
	uint64_t image_length, length;
	char key[RECORD_KEY_BYTES];
	int image_fd, fd = temporary(sample);

	if (catalogue_export(db, sample->seq, sample->tmp, &image_fd, &image_length, &error))
		fail_msg("%s", error.message);
	if (checkpoint_write(sample->master, sample->seq, sample->hash, image_fd, image_length, fd, &sample->base.rand,
			     &length, sample->base.hash, &error))
		fail_msg("%s", error.message);
	close(image_fd);
	sample->base.seq = sample->seq;
	memcpy(sample->base.log_hash, sample->hash, SHA256_BYTES);
	checkpoint_key(key, sample->base.seq, sample->base.rand);
	put_file(sample, key, fd, length);
}

char *sample_object(const struct sample *sample, const char *key)
{
	return io_printf("%s/%s", sample->remote, key);
}

void sample_flip(const struct sample *sample, const char *key, int64_t offset)
{
	char *path = sample_object(sample, key);
	uint8_t byte;

	chmod(path, 0600);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(io_pread(fd, &byte, 1, offset), 1);
	byte ^= 1;
	assert_int_equal(io_pwrite(fd, &byte, 1, offset), 0);
	close(fd);
	free(path);
}

void sample_remove(const struct sample *sample, const char *key)
{
	char *path = sample_object(sample, key);

	assert_int_equal(unlink(path), 0);
	free(path);
}

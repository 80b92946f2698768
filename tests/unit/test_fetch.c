#include "fetch.h"

#include "io.h"
#include "pack_format.h"
#include "sample_log.h"
#include "seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH 100000
#define READERS 8

/* One pack with one chunk, somewhere. */
struct packed {
	struct chunk_row chunk;
	struct pack_row pack;
	struct buf bytes;
	uint8_t data[LENGTH];
};

static void make_pack(const struct sample *sample, struct packed *packed)
{
	struct pack_builder *builder = pack_builder_new(sample->master, 3);
	const struct buf *bytes;
	struct chunk_place place;
	uint8_t id[CRYPT_ID_BYTES];

	memset(packed, 0, sizeof(*packed));
	io_random(packed->data, LENGTH / 2); /* the rest compresses */
	master_chunk_id(sample->master, packed->data, LENGTH, id);
	assert_int_equal(pack_builder_add(builder, id, packed->data, LENGTH, &place), 0);
	memcpy(packed->chunk.id, id, sizeof(id));
	memcpy(packed->pack.id, pack_builder_id(builder), sizeof(packed->pack.id));
	memcpy(packed->pack.salt, pack_builder_salt(builder), sizeof(packed->pack.salt));
	assert_int_equal(pack_builder_finish(builder, &bytes, packed->pack.hash), 0);
	assert_int_equal(buf_append(&packed->bytes, bytes->data, bytes->length), 0);
	packed->pack.num = packed->chunk.pack = packed->chunk.num = 1;
	packed->pack.size = (int64_t)bytes->length;
	packed->chunk.idx = place.index;
	packed->chunk.offset = (int64_t)place.offset;
	packed->chunk.stored = place.stored_bytes;
	packed->chunk.length = place.length;
	packed->chunk.codec = place.codec;
	pack_builder_free(builder);
}

static void put(const struct sample *sample, const char *key, const void *data, size_t length)
{
	struct store_body body = {.data = data, .fd = -1, .length = length};

	assert_int_equal(store_put_new(sample->store, key, &body, NULL, NULL), 0);
}

static void spool_put(int spool_fd, const char *key, const void *data, size_t length)
{
	char name[SPOOL_NAME_BYTES];

	spool_file_name(name, key);
	assert_int_equal(io_replace_file(spool_fd, name, data, length, 0600, NULL), 0);
}

struct fixture {
	struct sample sample;
	struct packed packed;
	struct remote *remote;
	int spool_fd;
	char key[RECORD_KEY_BYTES];
};

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	sample_open(&fixture->sample, true);
	make_pack(&fixture->sample, &fixture->packed);
	pack_key(fixture->key, fixture->packed.pack.id);
	fixture->spool_fd = open(fixture->sample.tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fixture->spool_fd >= 0);
	assert_int_equal(fetch_new(fixture->sample.master, fixture->sample.store, fixture->spool_fd, &fixture->remote), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	fetch_free(fixture->remote);
	close(fixture->spool_fd);
	buf_free(&fixture->packed.bytes);
	sample_close(&fixture->sample);
	free(fixture);
	return 0;
}

/* What fetch_chunk gives; the bytes, if any, are the right ones. */
static int fetch(struct fixture *fixture, struct error *error)
{
	struct buf out = {0};
	struct error ignored;
	int rc = fixture->remote->ops->fetch_chunk(fixture->remote, &fixture->packed.chunk, &fixture->packed.pack, &out,
						   error ? error : &ignored);

	if (!rc) {
		assert_int_equal(out.length, LENGTH);
		assert_memory_equal(out.data, fixture->packed.data, LENGTH);
	} else {
		assert_int_equal(out.length, 0);
	}
	buf_free(&out);
	return rc;
}

static uint64_t gets(const struct fixture *fixture)
{
	struct store_counts counts;

	store_get_counts(fixture->sample.store, &counts);
	return counts.get;
}

static void test_from_store(void **state)
{
	struct fixture *fixture = *state;

	put(&fixture->sample, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
	assert_int_equal(fetch(fixture, NULL), 0);
	assert_int_equal(gets(fixture), 1);
}

static void test_from_spool(void **state)
{
	struct fixture *fixture = *state;

	spool_put(fixture->spool_fd, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
	assert_int_equal(fetch(fixture, NULL), 0);
	assert_int_equal(gets(fixture), 0);
	/* A damaged spool file: the store has it. */
	put(&fixture->sample, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
	fixture->packed.bytes.data[fixture->packed.chunk.offset + 3] ^= 1;
	spool_put(fixture->spool_fd, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
	assert_int_equal(fetch(fixture, NULL), 0);
	assert_int_equal(gets(fixture), 1);
	spool_put(fixture->spool_fd, fixture->key, "", 0);
	assert_int_equal(fetch(fixture, NULL), 0);
}

static void test_inline(void **state)
{
	struct fixture *fixture = *state;
	struct buf record = {0};
	char key[RECORD_KEY_BYTES];
	uint8_t header[RECORD_HEADER_BYTES] = {0};

	fixture->packed.pack.record = 17;
	record_key(key, 17);
	assert_int_equal(buf_append(&record, header, sizeof(header)), 0);
	assert_int_equal(buf_append(&record, fixture->packed.bytes.data, fixture->packed.bytes.length), 0);
	put(&fixture->sample, key, record.data, record.length);
	assert_int_equal(fetch(fixture, NULL), 0);
	sample_remove(&fixture->sample, key);
	assert_int_equal(fetch(fixture, NULL), ERR_CORRUPT);
	spool_put(fixture->spool_fd, key, record.data, record.length);
	assert_int_equal(fetch(fixture, NULL), 0);
	buf_free(&record);
}

/* Faults 3, 4, 5: an error that names the object, never other bytes. */
static void test_damage(void **state)
{
	struct fixture *fixture = *state;
	struct packed *packed = &fixture->packed;
	struct error error = {0};

	assert_int_equal(fetch(fixture, &error), ERR_CORRUPT);
	assert_non_null(strstr(error.message, fixture->key));
	assert_int_equal(gets(fixture), 2);
	put(&fixture->sample, fixture->key, packed->bytes.data, packed->bytes.length);
	for (int64_t at = 0; at < packed->chunk.stored; at += packed->chunk.stored / 50) {
		sample_flip(&fixture->sample, fixture->key, packed->chunk.offset + at);
		assert_int_equal(fetch(fixture, &error), ERR_CORRUPT);
		assert_non_null(strstr(error.message, fixture->key));
		sample_flip(&fixture->sample, fixture->key, packed->chunk.offset + at);
	}
	assert_int_equal(fetch(fixture, NULL), 0);
	sample_remove(&fixture->sample, fixture->key);
	put(&fixture->sample, fixture->key, packed->bytes.data, (size_t)packed->chunk.offset + 10);
	assert_int_equal(fetch(fixture, &error), ERR_CORRUPT);
	assert_non_null(strstr(error.message, fixture->key));
}

/* Fault 43: what a hostile catalogue says is not believed. */
static void test_absurd(void **state)
{
	struct fixture *fixture = *state;
	struct chunk_row *chunk = &fixture->packed.chunk, good = *chunk;

	put(&fixture->sample, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
#define ABSURD(field, value)                                                                                           \
	do {                                                                                                           \
		chunk->field = (value);                                                                                \
		assert_int_equal(fetch(fixture, NULL), ERR_CORRUPT);                                                   \
		*chunk = good;                                                                                         \
	} while (0)
	ABSURD(length, 0);
	ABSURD(length, -1);
	ABSURD(length, INT64_MAX);
	ABSURD(length, good.length - 1);
	ABSURD(length, good.length + 1);
	ABSURD(stored, 0);
	ABSURD(stored, CRYPT_TAG_BYTES);
	ABSURD(stored, INT64_MAX);
	ABSURD(stored, good.stored - 1);
	ABSURD(offset, -1);
	ABSURD(offset, 0);
	ABSURD(offset, INT64_MAX);
	ABSURD(offset, fixture->packed.pack.size - 5);
	ABSURD(idx, -1);
	ABSURD(idx, 1);
	ABSURD(codec, 7);
	ABSURD(codec, -1);
	ABSURD(dictionary, 5);
	ABSURD(id[3], (uint8_t)~good.id[3]);
#undef ABSURD
	assert_int_equal(gets(fixture) > 0, 1);
	assert_int_equal(fetch(fixture, NULL), 0);
}

static void test_verify(void **state)
{
	struct fixture *fixture = *state;
	struct packed *packed = &fixture->packed;
	const struct remote_ops *ops = fixture->remote->ops;

	assert_int_equal(ops->verify_chunk(fixture->remote, packed->chunk.id, packed->data, LENGTH), 0);
	assert_int_equal(ops->verify_chunk(fixture->remote, packed->chunk.id, packed->data, LENGTH - 1), ERR_CORRUPT);
	packed->data[7] ^= 1;
	assert_int_equal(ops->verify_chunk(fixture->remote, packed->chunk.id, packed->data, LENGTH), ERR_CORRUPT);
}

/* ---------------------------------------------------------------- single flight */

/* A store whose GET waits until all the others are waiting for it: they are in the one flight. */
struct gate {
	struct store store;
	struct store *real;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned started; /* lock: readers that have begun */
	unsigned calls;   /* lock */
	int fail;         /* constant: what GET gives instead */
};

static int gate_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
		    struct error *error)
{
	struct gate *gate = (struct gate *)store;

	pthread_mutex_lock(&gate->lock);
	gate->calls++;
	while (gate->started < READERS)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
	/* Those that have begun get the time to join; one that does not makes a call of its own, which is allowed, and right. */
	for (int i = 0; i < 1000; i++)
		sched_yield();
	if (gate->fail)
		return error_set(error, gate->fail, EIO, "%s: as told", key);
	return gate->real->ops->get(gate->real, key, offset, length, out, error);
}

struct reader {
	struct fixture *fixture;
	struct gate *gate;
	int rc;
	bool right; /* the bytes, or the message */
};

static void *run_reader(void *context)
{
	struct reader *reader = context;
	const struct packed *packed = &reader->fixture->packed;
	struct remote *remote = reader->fixture->remote;
	struct error error = {0};
	struct buf out = {0};

	pthread_mutex_lock(&reader->gate->lock);
	reader->gate->started++;
	pthread_cond_broadcast(&reader->gate->changed);
	pthread_mutex_unlock(&reader->gate->lock);
	reader->rc = remote->ops->fetch_chunk(remote, &packed->chunk, &packed->pack, &out, &error);
	if (reader->rc)
		reader->right = out.length == 0 && strstr(error.message, "as told");
	else
		reader->right = out.length == LENGTH && memcmp(out.data, packed->data, LENGTH) == 0;
	buf_free(&out);
	return NULL;
}

static void race(struct fixture *fixture, int fail)
{
	static const struct store_ops gate_ops = {.get = gate_get};
	struct gate gate = {.store = {.ops = &gate_ops}, .real = fixture->sample.store, .fail = fail};
	struct reader readers[READERS];
	struct remote *before = fixture->remote;
	pthread_t threads[READERS];

	pthread_mutex_init(&gate.lock, NULL);
	pthread_cond_init(&gate.changed, NULL);
	assert_int_equal(fetch_new(fixture->sample.master, &gate.store, -1, &fixture->remote), 0);
	for (int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.fixture = fixture, .gate = &gate};
		assert_int_equal(pthread_create(&threads[i], NULL, run_reader, &readers[i]), 0);
	}
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < READERS; i++) {
		assert_int_equal(readers[i].rc, fail);
		assert_true(readers[i].right);
	}
	assert_true(gate.calls >= 1 && gate.calls < READERS);
	fetch_free(fixture->remote);
	fixture->remote = before;
	pthread_cond_destroy(&gate.changed);
	pthread_mutex_destroy(&gate.lock);
}

static void test_single_flight(void **state)
{
	struct fixture *fixture = *state;

	put(&fixture->sample, fixture->key, fixture->packed.bytes.data, fixture->packed.bytes.length);
	race(fixture, 0);
	race(fixture, ERR_RETRY);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_from_store), TEST(test_from_spool), TEST(test_inline), TEST(test_damage), TEST(test_absurd),
		TEST(test_verify), TEST(test_single_flight),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

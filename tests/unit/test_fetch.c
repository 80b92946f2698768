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

/* What was fetched and is in memory. */
static void forget(struct fixture *fixture)
{
	fetch_free(fixture->remote);
	assert_int_equal(fetch_new(fixture->sample.master, fixture->sample.store, fixture->spool_fd, &fixture->remote), 0);
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
	forget(fixture);
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

/* ---------------------------------------------------------------- ranges */

#define CHUNKS 6000
#define SMALL 3000 /* bytes of a chunk at the most */

/* A pack of many small chunks that can't be compressed. */
struct many {
	struct chunk_row chunks[CHUNKS];
	uint8_t *data[CHUNKS];
	struct pack_row pack;
	struct buf bytes;
};

static struct many *make_many(const struct sample *sample)
{
	struct pack_builder *builder = pack_builder_new(sample->master, 1);
	struct many *many = calloc(1, sizeof(*many));
	const struct buf *bytes;

	for (int i = 0; i < CHUNKS; i++) {
		uint32_t length = 1 + (uint32_t)(i * 7919) % SMALL;
		struct chunk_place place;
		struct chunk_row *row = &many->chunks[i];
		many->data[i] = malloc(length);
		io_random(many->data[i], length);
		master_chunk_id(sample->master, many->data[i], length, row->id);
		assert_int_equal(pack_builder_add(builder, row->id, many->data[i], length, &place), 0);
		row->num = i + 1;
		row->idx = place.index;
		row->offset = (int64_t)place.offset;
		row->stored = place.stored_bytes;
		row->length = place.length;
		row->codec = place.codec;
	}
	memcpy(many->pack.id, pack_builder_id(builder), sizeof(many->pack.id));
	memcpy(many->pack.salt, pack_builder_salt(builder), sizeof(many->pack.salt));
	assert_int_equal(pack_builder_finish(builder, &bytes, many->pack.hash), 0);
	assert_int_equal(buf_append(&many->bytes, bytes->data, bytes->length), 0);
	many->pack.size = (int64_t)bytes->length;
	pack_builder_free(builder);
	return many;
}

static void free_many(struct many *many)
{
	for (int i = 0; i < CHUNKS; i++)
		free(many->data[i]);
	buf_free(&many->bytes);
	free(many);
}

static struct many *put_many(struct fixture *fixture, size_t length)
{
	struct many *many = make_many(&fixture->sample);
	char key[RECORD_KEY_BYTES];

	pack_key(key, many->pack.id);
	put(&fixture->sample, key, many->bytes.data, length < many->bytes.length ? length : many->bytes.length);
	return many;
}

/* Any thread. */
static int read_one(struct remote *remote, const struct many *many, int i)
{
	struct buf out = {0};
	struct error error = {0};
	int rc = remote->ops->fetch_chunk(remote, &many->chunks[i], &many->pack, &out, &error);
	bool right = rc ? out.length == 0 : (int64_t)out.length == many->chunks[i].length && memcmp(out.data, many->data[i], out.length) == 0;

	buf_free(&out);
	return right ? rc : 1;
}

static uint64_t bytes_down(const struct fixture *fixture)
{
	struct store_counts counts;

	store_get_counts(fixture->sample.store, &counts);
	return counts.bytes_down;
}

static void test_in_order(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);

	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(read_one(fixture->remote, many, i), 0);
	assert_true(gets(fixture) <= 10);
	assert_true(bytes_down(fixture) <= (uint64_t)many->pack.size);
	free_many(many);
}

/* Nothing but what is wanted, when that lies here and there. */
static void test_here_and_there(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);
	uint64_t wanted = 0;
	int count = 0;

	for (int i = 0; i < CHUNKS; i += 400, count++) {
		int at = (i * 7) % CHUNKS;
		assert_int_equal(read_one(fixture->remote, many, at), 0);
		wanted += (uint64_t)many->chunks[at].stored;
	}
	assert_int_equal(gets(fixture), count);
	assert_int_equal(bytes_down(fixture), wanted);
	assert_int_equal(read_one(fixture->remote, many, 0), 0); /* again */
	assert_int_equal(gets(fixture), count);
	free_many(many);
}

/* Each tenth chunk is wanted: a request for each of them costs less than all that lies between. */
static void test_sparse(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);

	for (int i = 0; i < CHUNKS; i += 10)
		assert_int_equal(read_one(fixture->remote, many, i), 0);
	assert_true(bytes_down(fixture) < (uint64_t)many->pack.size / 2);
	free_many(many);
}

/* An object that ends too early: all that is there is read, and what is not is damage (faults 3 and 4). */
static void test_truncated(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, 2000000);

	for (int i = 0; i < CHUNKS; i++) {
		bool there = many->chunks[i].offset + many->chunks[i].stored <= 2000000;
		assert_int_equal(read_one(fixture->remote, many, i), there ? 0 : ERR_CORRUPT);
	}
	free_many(many);
}

static void test_flipped(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);
	char key[RECORD_KEY_BYTES];

	pack_key(key, many->pack.id);
	sample_flip(&fixture->sample, key, many->chunks[3000].offset + 1);
	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(read_one(fixture->remote, many, i), i == 3000 ? ERR_CORRUPT : 0);
	assert_true(gets(fixture) <= 11); /* once more for that one */
	free_many(many);
}

/* A store that gives a long range only when another long one has been asked for. */
struct pair {
	struct store store;
	struct store *real;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int asked; /* lock: long ranges */
};

static int pair_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out, struct error *error)
{
	struct pair *pair = (struct pair *)store;

	pthread_mutex_lock(&pair->lock);
	if (length >= 1 << 20) {
		pair->asked++;
		pthread_cond_broadcast(&pair->changed);
		while (pair->asked < 2)
			pthread_cond_wait(&pair->changed, &pair->lock);
	}
	pthread_mutex_unlock(&pair->lock);
	return pair->real->ops->get(pair->real, key, offset, length, out, error);
}

/* One reader has several ranges asked for at a time. */
static void test_ahead(void **state)
{
	static const struct store_ops pair_ops = {.get = pair_get};
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);
	struct pair pair = {.store = {.ops = &pair_ops}, .real = fixture->sample.store};
	struct remote *remote;

	pthread_mutex_init(&pair.lock, NULL);
	pthread_cond_init(&pair.changed, NULL);
	assert_int_equal(fetch_new(fixture->sample.master, &pair.store, -1, &remote), 0);
	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(read_one(remote, many, i), 0);
	assert_true(pair.asked >= 2);
	fetch_free(remote);
	pthread_cond_destroy(&pair.changed);
	pthread_mutex_destroy(&pair.lock);
	free_many(many);
}

struct crowd {
	struct fixture *fixture;
	const struct many *many;
	unsigned seed;
	int rc;
};

/* Now in order, now anywhere. */
static void *run_crowd(void *context)
{
	struct crowd *crowd = context;
	unsigned at = 0;

	for (int i = 0; i < 3000 && !crowd->rc; i++) {
		crowd->seed = crowd->seed * 1103515245 + 12345;
		at = (crowd->seed >> 16) % 20 ? (at + 1) % CHUNKS : (crowd->seed >> 8) % CHUNKS;
		crowd->rc = read_one(crowd->fixture->remote, crowd->many, (int)at);
	}
	return NULL;
}

static void test_crowd(void **state)
{
	struct fixture *fixture = *state;
	struct many *many = put_many(fixture, SIZE_MAX);
	struct crowd crowds[READERS];
	pthread_t threads[READERS];

	for (unsigned i = 0; i < READERS; i++) {
		crowds[i] = (struct crowd){.fixture = fixture, .many = many, .seed = i};
		assert_int_equal(pthread_create(&threads[i], NULL, run_crowd, &crowds[i]), 0);
	}
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(crowds[i].rc, 0);
	free_many(many);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_from_store), TEST(test_from_spool), TEST(test_inline), TEST(test_damage), TEST(test_absurd),
		TEST(test_verify), TEST(test_single_flight), TEST(test_in_order), TEST(test_here_and_there), TEST(test_sparse),
		TEST(test_truncated), TEST(test_flipped), TEST(test_ahead), TEST(test_crowd),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Reading a file of a version: right bytes from the right place, once; the volume and the remote are fakes. */
#include "bytes.h"
#include "chunk_cache.h"
#include "clock.h"
#include "history.h"
#include "volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB 1024
#define INO 2
#define CHUNKS 64
#define CHUNK (64 * KIB)

/* --- Fakes --- */

static char top[64];
static struct db *db;
static struct chunk_cache *cache;
static int live = -1;
static struct error error;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static int fetches[CHUNKS + 1], flying, flown, fail_code;
static int wait_for_flying; /* a fetch returns only after so many were under way at once */
static bool gate;           /* fetches wait while it is closed */

static uint8_t byte_of(int64_t num, int64_t at) { return (uint8_t)((num * 2654435761u + (uint64_t)at * 40503u) >> 7); }

static void fill(uint8_t *out, int64_t num, int64_t length)
{
	for (int64_t i = 0; i < length; i++)
		out[i] = byte_of(num, i);
}

static int fetch_chunk(struct remote *remote, const struct chunk_row *chunk, const struct pack_row *pack, struct buf *out,
		       struct error *e)
{
	(void)remote;
	pthread_mutex_lock(&lock);
	fetches[chunk->num]++;
	if (++flying > flown)
		flown = flying;
	pthread_cond_broadcast(&changed);
	struct timespec deadline = clock_deadline(20 * NS_PER_S);
	while ((gate || flown < wait_for_flying) && pthread_cond_timedwait(&changed, &lock, &deadline) != ETIMEDOUT)
		;
	flying--;
	int code = fail_code;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	if (code)
		return error_set(e, code, 0, "pack/00/abc: made to fail");
	if (chunk->pack != pack->num || buf_reserve(out, (size_t)chunk->length))
		return error_set(e, ERR_FAILED, 0, "wrong pack");
	fill(out->data + out->length, chunk->num, chunk->length);
	out->length += (size_t)chunk->length;
	return 0;
}

static int verify_chunk(struct remote *remote, const uint8_t id[16], const void *data, size_t length)
{
	(void)remote;
	for (size_t i = 0; i < length; i++)
		if (((const uint8_t *)data)[i] != byte_of(get_u32(id), (int64_t)i))
			return ERR_CORRUPT;
	return 0;
}

static const struct remote_ops ops = {fetch_chunk, verify_chunk};
static struct remote fake = {&ops};

struct db *volume_db(struct volume *volume) { (void)volume; return db; }
struct remote *volume_remote(struct volume *volume) { (void)volume; return &fake; }
struct chunk_cache *volume_chunk_cache(struct volume *volume) { (void)volume; return cache; }
int volume_open_live(struct volume *volume, int64_t ino)
{
	(void)volume;
	return live >= 0 && ino == INO ? fcntl(live, F_DUPFD_CLOEXEC, 0) : -1;
}

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		if ((call) != 0)                                                                                       \
			fail_msg("%s: %s", #call, error.message);                                                      \
	} while (0)

/* The file: chunk n at (n - 1) * CHUNK, but every eighth is a hole, and the fifth is two extents of one chunk swapped. */
static uint8_t expected[CHUNKS * CHUNK];
static const int64_t file_size = CHUNKS * CHUNK - 777;

static void add_file(struct delta *delta)
{
	struct pack_row pack = {.num = 1, .size = 1 << 20};
	OK(delta_add_pack(delta, &pack, &error));
	for (int n = 1; n <= CHUNKS; n++) {
		struct chunk_row chunk = {.num = n, .pack = 1, .idx = n, .length = CHUNK, .stored = CHUNK};
		int64_t at = (n - 1) * CHUNK, half = CHUNK / 2;
		put_u32(chunk.id, (uint32_t)n);
		OK(delta_add_chunk(delta, &chunk, &error));
		memset(expected + at, 0, CHUNK);
		if (n % 8 == 0)
			continue;
		fill(expected + at, n, CHUNK);
		if (n != 5) {
			OK(delta_add_extent(delta, &(struct extent_row){INO, at, CHUNK, n, 0}, &error));
			continue;
		}
		for (int64_t i = 0; i < half; i++) {
			expected[at + i] = byte_of(n, half + i);
			expected[at + half + i] = byte_of(n, i);
		}
		OK(delta_add_extent(delta, &(struct extent_row){INO, at, half, n, half}, &error));
		OK(delta_add_extent(delta, &(struct extent_row){INO, at + half, half, n, 0}, &error));
	}
}

static int setup(void **state)
{
	(void)state;
	struct delta *delta;
	struct db_conn *conn;
	char path[96];
	struct inode_row root = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2};
	struct inode_row file = {.ino = INO, .mode = S_IFREG | 0644, .nlink = 1, .size = file_size};
	struct inode_row sparse = {.ino = 3, .mode = S_IFREG | 0644, .nlink = 1, .size = INT64_C(1) << 40};
	strcpy(top, "/tmp/test_history-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(path, sizeof(path), "%s/cache", top);
	OK(db_open(top, true, &db, &error));
	OK(chunk_cache_open(path, 64 << 20, &cache, &error));
	OK(delta_new(top, 1, &delta, &error));
	OK(delta_set_version(delta, &(struct version_row){.time_s = 5}, &error));
	OK(delta_add_inode(delta, &root, &error));
	OK(delta_add_inode(delta, &file, &error));
	OK(delta_add_inode(delta, &sparse, &error));
	add_file(delta);
	/* 1 TiB with three extents; the second lies across the end of the first 4 GiB */
	OK(delta_add_extent(delta, &(struct extent_row){3, 4096, 100, 1, 10}, &error));
	OK(delta_add_extent(delta, &(struct extent_row){3, (INT64_C(4) << 30) - 1000, 3000, 2, 0}, &error));
	OK(delta_add_extent(delta, &(struct extent_row){3, (INT64_C(1) << 40) - 500, 500, 3, 0}, &error));
	OK(db_begin(db, false, &conn, &error));
	OK(delta_apply(delta, conn, &error));
	OK(db_commit(db, &error));
	delta_free(delta);
	memset(fetches, 0, sizeof(fetches));
	flying = flown = fail_code = wait_for_flying = 0;
	gate = false;
	clock_cond_init(&changed);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char command[128];
	history_stop();
	chunk_cache_close(cache);
	db_close(db);
	if (live >= 0)
		close(live);
	live = -1;
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command);
}

static struct history_file *open_file(void)
{
	struct history_file *file;
	OK(history_open(NULL, 1, INO, &file, &error));
	return file;
}

static void check_read(struct history_file *file, int64_t offset, size_t length)
{
	uint8_t *data = malloc(length + 1);
	int64_t want = offset >= file_size ? 0 : offset + (int64_t)length > file_size ? file_size - offset : (int64_t)length;
	data[want] = 0xab;
	int64_t got = history_read(file, data, length, offset, &error);
	if (got < 0)
		fail_msg("%s", error.message);
	assert_int_equal(got, want);
	assert_memory_equal(data, expected + offset, (size_t)want);
	assert_int_equal(data[want], 0xab);
	free(data);
}

static int total_fetches(void)
{
	int total = 0;
	pthread_mutex_lock(&lock);
	for (int i = 0; i <= CHUNKS; i++)
		total += fetches[i];
	pthread_mutex_unlock(&lock);
	return total;
}

/* --- Tests --- */

static void test_any_range(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	unsigned seed = 7;
	assert_int_equal(history_size(file), file_size);
	for (int i = 0; i < 300; i++)
		check_read(file, rand_r(&seed) % (file_size + 10), (size_t)rand_r(&seed) % (i % 10 ? 3 * CHUNK : 20 * CHUNK));
	check_read(file, 0, CHUNKS * CHUNK);
	check_read(file, file_size, 10);
	check_read(file, file_size - 1, 10);
	uint8_t byte;
	assert_true(history_read(file, &byte, 1, -1, &error) < 0);
	history_close(file);
	for (int n = 1; n <= CHUNKS; n++)
		assert_int_equal(fetches[n], n % 8 != 0); /* what was evicted from memory came back from the chunk cache */
}

static void test_refused(void **state)
{
	(void)state;
	struct history_file *file;
	assert_int_equal(history_open(NULL, 1, 99, &file, &error), ERR_ABSENT);
	assert_int_equal(history_open(NULL, 1, 1, &file, &error), ERR_FAILED);
	assert_null(file);
	history_close(NULL);
}

static void test_small_sequential_reads(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	chunk_cache_close(cache);
	cache = NULL;
	for (int64_t at = 0; at < file_size; at += 4096)
		check_read(file, at, 4096);
	history_close(file);
	for (int n = 1; n <= CHUNKS; n++)
		assert_int_equal(fetches[n], n % 8 != 0); /* decoded once */
	OK(chunk_cache_open(top, 1 << 20, &cache, &error));
}

static void test_large_reads_in_parallel(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	wait_for_flying = 4; /* else nothing arrives */
	check_read(file, 0, 16 * CHUNK);
	assert_true(flown >= 4);
	history_close(file);
}

static void test_reads_ahead(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	check_read(file, 0, 4096);
	assert_int_equal(total_fetches(), 1); /* one read says nothing of the next */
	wait_for_flying = 3;
	check_read(file, 4096, CHUNK);
	assert_true(flown >= 3);
	history_close(file);
}

static void put_live(const uint8_t *data, int64_t length)
{
	char path[96];
	snprintf(path, sizeof(path), "%s/live", top);
	live = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(live >= 0);
	assert_int_equal(pwrite(live, data, (size_t)length, 0), length);
}

static void test_live_file(void **state) /* I25 */
{
	(void)state;
	uint8_t *now = malloc(sizeof(expected));
	memcpy(now, expected, sizeof(expected));
	now[2 * CHUNK + 17] ^= 1; /* chunk 3 has changed since */
	put_live(now, 20 * CHUNK + 5); /* and it ends within chunk 21 */
	struct history_file *file = open_file();
	check_read(file, 0, 22 * CHUNK);
	history_close(file);
	for (int n = 1; n <= 22; n++)
		assert_int_equal(fetches[n], n == 3 || n == 5 || n >= 21); /* 5: no extent is the whole of it */
	free(now);
}

static void test_other_live_file(void **state)
{
	(void)state;
	uint8_t *now = calloc(1, sizeof(expected));
	put_live(now, sizeof(expected));
	struct history_file *file = open_file();
	check_read(file, 0, CHUNKS * CHUNK);
	history_close(file);
	free(now);
}

static void test_damaged_cache(void **state)
{
	(void)state;
	uint8_t junk[CHUNK] = {1};
	uint8_t id[16] = {0};
	struct buf buf = {0};
	put_u32(id, 2);
	chunk_cache_put(cache, id, junk, sizeof(junk));
	struct history_file *file = open_file();
	check_read(file, CHUNK, 100);
	assert_int_equal(fetches[2], 1);
	history_close(file);
	OK(chunk_cache_get(cache, id, CHUNK, &buf)); /* replaced by the right bytes */
	assert_memory_equal(buf.data, expected + CHUNK, CHUNK);
	buf_free(&buf);
	file = open_file();
	check_read(file, CHUNK, CHUNK);
	assert_int_equal(fetches[2], 1);
	history_close(file);
}

static void set_failure(int code)
{
	pthread_mutex_lock(&lock);
	fail_code = code;
	pthread_mutex_unlock(&lock);
}

static void test_failure_then_success(void **state)
{
	(void)state;
	static const int codes[] = {ERR_RETRY, ERR_CORRUPT, ERR_DENIED};
	struct history_file *file = open_file();
	uint8_t *data = malloc(4 * CHUNK);
	for (size_t i = 0; i < 3; i++) {
		set_failure(codes[i]);
		assert_int_equal(history_read(file, data, 4 * CHUNK, (int64_t)i * 24 * CHUNK, &error), codes[i]); /* never short */
		assert_string_equal(error.message, "pack/00/abc: made to fail");
		history_stop(); /* what was read ahead has ended too */
		set_failure(0);
		check_read(file, (int64_t)i * 24 * CHUNK, 4 * CHUNK);
	}
	free(data);
	history_close(file);
}

static void test_relocated(void **state)
{
	(void)state;
	struct db_conn *conn;
	struct history_file *file = open_file();
	struct extent_place *places;
	size_t count;
	OK(db_begin(db, false, &conn, &error));
	OK(db_exec(conn, "UPDATE pack SET num=9; UPDATE chunk SET pack=9", &error));
	OK(db_commit(db, &error));
	check_read(file, 0, CHUNK); /* looked up when it is needed, not when the file was opened */
	OK(db_begin(db, false, &conn, &error));
	OK(db_exec(conn, "DELETE FROM pack", &error));
	OK(db_commit(db, &error));
	uint8_t byte;
	assert_int_equal(history_read(file, &byte, 1, CHUNK, &error), ERR_CORRUPT);
	OK(db_read_begin(db, &conn, &error));
	OK(catalogue_extents(conn, 1, INO, 0, 1, &places, &count));
	free(places);
	db_read_end(db, conn);
	history_close(file);
}

struct job { struct history_file *file; unsigned seed; bool good; };

static void *read_some(void *arg)
{
	struct job *reader = arg;
	uint8_t *data = malloc(3 * CHUNK);
	reader->good = true;
	for (int i = 0; i < 100; i++) {
		int64_t offset = rand_r(&reader->seed) % (file_size - 3 * CHUNK);
		size_t length = 1 + (size_t)rand_r(&reader->seed) % (3 * CHUNK - 1);
		if (i % 3)
			offset = (int64_t)i * CHUNK / 2; /* many at one place */
		if (history_read(reader->file, data, length, offset, NULL) != (int64_t)length ||
		    memcmp(data, expected + offset, length) != 0)
			reader->good = false;
	}
	free(data);
	return NULL;
}

static void test_many_readers(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	struct job readers[6];
	pthread_t threads[6];
	for (unsigned i = 0; i < 6; i++) {
		readers[i] = (struct job){file, i + 1, false};
		assert_int_equal(pthread_create(&threads[i], NULL, read_some, &readers[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_true(readers[i].good);
	}
	history_close(file);
	history_stop();
	for (int n = 1; n <= CHUNKS; n++)
		assert_true(fetches[n] <= 1);
}

static void test_close_does_not_wait(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	check_read(file, 0, 2 * CHUNK);
	check_read(file, CHUNKS / 2 * CHUNK, 100);
	pthread_mutex_lock(&lock);
	gate = true;
	pthread_mutex_unlock(&lock);
	/* Sequential, all in memory, but its followers hang. */
	check_read(file, CHUNKS / 2 * CHUNK + 100, 100);
	pthread_mutex_lock(&lock);
	while (!flying)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	history_close(file); /* returns with the gate closed */
	pthread_mutex_lock(&lock);
	assert_true(flying > 0);
	gate = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	history_stop();
	assert_int_equal(flying, 0);
}

static void test_seek(void **state)
{
	(void)state;
	struct history_file *file = open_file();
	assert_int_equal(history_seek(file, 0, SEEK_DATA), 0);
	assert_int_equal(history_seek(file, 0, SEEK_HOLE), 7 * CHUNK);
	assert_int_equal(history_seek(file, 7 * CHUNK, SEEK_DATA), 8 * CHUNK);
	assert_int_equal(history_seek(file, 7 * CHUNK + 5, SEEK_HOLE), 7 * CHUNK + 5);
	assert_int_equal(history_seek(file, 63 * CHUNK, SEEK_DATA), -ENXIO); /* the last is a hole */
	assert_int_equal(history_seek(file, file_size - 1, SEEK_HOLE), file_size - 1);
	assert_int_equal(history_seek(file, file_size, SEEK_HOLE), -ENXIO);
	assert_int_equal(history_seek(file, -1, SEEK_DATA), -ENXIO);
	assert_int_equal(history_seek(file, 0, SEEK_SET), -EINVAL);
	history_close(file);
}

static void test_sparse_terabyte(void **state) /* fault 35 */
{
	(void)state;
	struct history_file *file;
	uint8_t data[4000];
	const int64_t window = INT64_C(4) << 30, size = INT64_C(1) << 40;
	OK(history_open(NULL, 1, 3, &file, &error));
	assert_true(history_seek(file, 0, SEEK_DATA) == 4096);
	assert_true(history_seek(file, 4096, SEEK_HOLE) == 4196);
	assert_true(history_seek(file, 5000, SEEK_DATA) == window - 1000);
	assert_true(history_seek(file, window - 1000, SEEK_HOLE) == window + 2000);
	assert_true(history_seek(file, window + 5, SEEK_HOLE) == window + 2000);
	assert_true(history_seek(file, window + 2000, SEEK_DATA) == size - 500);
	assert_true(history_seek(file, size - 500, SEEK_HOLE) == size);
	assert_int_equal(history_read(file, data, sizeof(data), window - 1500, &error), sizeof(data));
	for (int i = 0; i < 4000; i++)
		assert_int_equal(data[i], i < 500 || i >= 3500 ? 0 : byte_of(2, i - 500));
	assert_int_equal(history_read(file, data, sizeof(data), size - 1000, &error), 1000);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(data[i], i < 500 ? 0 : byte_of(3, i - 500));
	assert_int_equal(history_read(file, data, 300, 4000, &error), 300);
	for (int i = 0; i < 300; i++)
		assert_int_equal(data[i], i < 96 || i >= 196 ? 0 : byte_of(1, 10 + i - 96));
	history_close(file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_any_range), TEST(test_refused), TEST(test_small_sequential_reads), TEST(test_large_reads_in_parallel),
		TEST(test_reads_ahead), TEST(test_live_file), TEST(test_other_live_file), TEST(test_damaged_cache),
		TEST(test_failure_then_success), TEST(test_relocated), TEST(test_many_readers), TEST(test_close_does_not_wait),
		TEST(test_seek), TEST(test_sparse_terabyte),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

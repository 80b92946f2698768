/* The chunk cache: bounded, private, whole or absent. */
#include "bytes.h"
#include "chunk_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[64], dir[80];
static struct error error;

static int setup(void **state)
{
	(void)state;
	strcpy(top, "/tmp/test_chunk_cache-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/cache", top);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command);
}

static const uint8_t *id_of(unsigned n)
{
	static _Thread_local uint8_t id[CHUNK_ID_BYTES];
	memset(id, 0, sizeof(id));
	put_u32(id, n * 2654435761u);
	put_u32(id + 8, n);
	return id;
}

static char *path_of(unsigned n)
{
	static char path[160];
	char hex[40];
	hex_encode(hex, id_of(n), CHUNK_ID_BYTES);
	snprintf(path, sizeof(path), "%s/%.2s/%s", dir, hex, hex);
	return path;
}

static void put(struct chunk_cache *cache, unsigned n, size_t length)
{
	char *data = malloc(length);
	memset(data, (int)n, length);
	chunk_cache_put(cache, id_of(n), data, length);
	free(data);
}

static bool has(struct chunk_cache *cache, unsigned n, size_t length)
{
	struct buf buf = {0};
	assert_int_equal(buf_append(&buf, "before", 6), 0);
	int rc = chunk_cache_get(cache, id_of(n), length, &buf);
	if (rc) {
		assert_int_equal(rc, ERR_ABSENT);
		assert_int_equal(buf.length, 6);
	} else {
		assert_int_equal(buf.length, 6 + length);
		for (size_t i = 0; i < length; i++)
			assert_int_equal(buf.data[6 + i], n & 255);
	}
	buf_free(&buf);
	return rc == 0;
}

static void test_put_get(void **state)
{
	(void)state;
	struct chunk_cache *cache;
	struct stat st;
	mode_t mask = umask(0);
	assert_int_equal(chunk_cache_open(dir, 1 << 20, &cache, &error), 0);
	assert_false(has(cache, 1, 5000));
	put(cache, 1, 5000);
	assert_true(has(cache, 1, 5000));
	assert_false(has(cache, 2, 5000));
	assert_int_equal(chunk_cache_bytes(cache), 8192);
	put(cache, 1, 5000);
	assert_int_equal(chunk_cache_bytes(cache), 8192);
	umask(mask);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(path_of(1), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	put(cache, 3, (1 << 20) / 8 + 1); /* too large to be worth it */
	assert_false(has(cache, 3, (1 << 20) / 8 + 1));
	put(cache, 4, 0);
	chunk_cache_drop(cache, id_of(1));
	chunk_cache_drop(cache, id_of(9));
	assert_false(has(cache, 1, 5000));
	assert_int_equal(stat(path_of(1), &st), -1);
	assert_int_equal(chunk_cache_bytes(cache), 0);
	chunk_cache_close(cache);
	chunk_cache_close(NULL);
	assert_int_equal(chunk_cache_open("/nonexistent/cache", 1, &cache, &error), ERR_ABSENT);
}

static void test_limit(void **state)
{
	(void)state;
	struct chunk_cache *cache;
	assert_int_equal(chunk_cache_open(dir, 10 * 4096, &cache, &error), 0);
	for (unsigned n = 0; n < 10; n++)
		put(cache, n, 4000);
	assert_true(has(cache, 0, 4000)); /* used: now the newest */
	put(cache, 10, 4000);
	assert_true(has(cache, 0, 4000));
	assert_false(has(cache, 1, 4000));
	for (unsigned n = 100; n < 200; n++) {
		put(cache, n, 100 + n);
		assert_true(chunk_cache_bytes(cache) <= 10 * 4096);
	}
	assert_false(has(cache, 10, 4000));
	assert_int_equal(access(path_of(10), F_OK), -1);
	for (unsigned n = 190; n < 200; n++)
		assert_true(has(cache, n, 100 + n));
	chunk_cache_close(cache);
}

static void test_yield(void **state)
{
	(void)state;
	struct chunk_cache *cache;
	assert_int_equal(chunk_cache_open(dir, 1 << 20, &cache, &error), 0);
	for (unsigned n = 0; n < 10; n++)
		put(cache, n, 10000);
	assert_int_equal(chunk_cache_yield(cache, 13000), 2 * 12288); /* the oldest */
	assert_false(has(cache, 0, 10000));
	assert_int_equal(access(path_of(1), F_OK), -1);
	assert_true(has(cache, 2, 10000));
	assert_int_equal(chunk_cache_yield(cache, UINT64_MAX), 8 * 12288);
	assert_int_equal(chunk_cache_yield(cache, 1), 0);
	assert_int_equal(chunk_cache_bytes(cache), 0);
	chunk_cache_close(cache);
}

static void test_order_survives(void **state)
{
	(void)state;
	struct chunk_cache *cache;
	char path[160];
	assert_int_equal(chunk_cache_open(dir, 1 << 20, &cache, &error), 0);
	for (unsigned n = 0; n < 20; n++)
		put(cache, n, 4096);
	chunk_cache_close(cache);
	/* 5 was used last, 6 long ago; strangers are left alone, half a file of a killed process is not */
	for (unsigned n = 0; n < 20; n++) {
		struct timespec times[2] = {{1000 + n, 0}, {n == 5 ? 9000 : n == 6 ? 10 : 1000 + n, 0}};
		assert_int_equal(utimensat(AT_FDCWD, path_of(n), times, 0), 0);
	}
	snprintf(path, sizeof(path), "%s/tmp-0011223344556677", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(path, sizeof(path), "%s/00", dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/00/stranger", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(chunk_cache_open(dir, 10 * 4096, &cache, &error), 0);
	assert_int_equal(chunk_cache_bytes(cache), 10 * 4096);
	assert_int_equal(access(path, F_OK), 0);
	snprintf(path, sizeof(path), "%s/tmp-0011223344556677", dir);
	assert_int_equal(access(path, F_OK), -1);
	assert_true(has(cache, 5, 4096));
	assert_false(has(cache, 6, 4096));
	assert_false(has(cache, 10, 4096));
	assert_true(has(cache, 11, 4096));
	/* a get renews the file's time */
	struct stat st;
	assert_int_equal(stat(path_of(11), &st), 0);
	assert_true(st.st_mtime > 100000);
	chunk_cache_close(cache);
}

static void test_damaged_files(void **state)
{
	(void)state;
	struct chunk_cache *cache;
	assert_int_equal(chunk_cache_open(dir, 1 << 20, &cache, &error), 0);
	put(cache, 1, 5000);
	put(cache, 2, 5000);
	put(cache, 3, 5000);
	assert_int_equal(truncate(path_of(1), 4999), 0);
	assert_int_equal(unlink(path_of(2)), 0);
	assert_int_equal(unlink(path_of(3)), 0);
	assert_int_equal(symlink("/etc/passwd", path_of(3)), 0);
	assert_false(has(cache, 1, 5000));
	assert_false(has(cache, 2, 5000));
	struct buf buf = {0};
	assert_true(chunk_cache_get(cache, id_of(3), 5000, &buf) < 0);
	chunk_cache_drop(cache, id_of(3));
	put(cache, 1, 5000);
	assert_true(has(cache, 1, 5000));
	put(cache, 3, 5000);
	assert_true(has(cache, 3, 5000));
	buf_free(&buf);
	chunk_cache_close(cache);
}

static struct chunk_cache *shared;

static void *hammer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int i = 0; i < 1500; i++) {
		unsigned n = (unsigned)rand_r(&seed) % 60;
		size_t length = 1000 + n * 50;
		switch (rand_r(&seed) % 5) {
		case 0: put(shared, n, length); break;
		case 1: chunk_cache_drop(shared, id_of(n)); break;
		default: if (!has(shared, n, length)) put(shared, n, length);
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	pthread_t threads[6];
	assert_int_equal(chunk_cache_open(dir, 30 * 4096, &shared, &error), 0);
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	assert_true(chunk_cache_bytes(shared) <= 30 * 4096);
	chunk_cache_close(shared);
	/* Whatever the races left on disk is found and bounded again. */
	assert_int_equal(chunk_cache_open(dir, 30 * 4096, &shared, &error), 0);
	assert_true(chunk_cache_bytes(shared) <= 30 * 4096);
	chunk_cache_close(shared);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_put_get), TEST(test_limit), TEST(test_yield), TEST(test_order_survives), TEST(test_damaged_files), TEST(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

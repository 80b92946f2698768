/* store_file, and through it store.c: objects appear whole or not at all, a vanished root is never made again, listings are
 * complete and in byte order. */
#include "clock.h"
#include "config.h"
#include "io.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char directory[64];
	char root[96];
	char remote[128];
	struct volume_config config;
	struct store *store;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct error error;

	strcpy(f->directory, "/tmp/yester-store-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->root, sizeof f->root, "%s/store", f->directory);
	snprintf(f->remote, sizeof f->remote, "file://%s/", f->root);
	f->config.remote = f->remote;
	assert_int_equal(store_open(&f->config, true, 1, &f->store, &error), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_close(f->store);
	remove_tree(f->directory);
	free(f);
	return 0;
}

static int put_text(struct fixture *f, const char *key, const char *text, bool only_new)
{
	struct store_body body = { .data = text, .length = strlen(text) };
	struct error error;

	return (only_new ? store_put_new : store_put)(f->store, key, &body, NULL, &error);
}

static void assert_object(struct fixture *f, const char *key, const char *text)
{
	struct buf out = { 0 };
	struct error error;

	assert_int_equal(store_get(f->store, key, 0, STORE_WHOLE, &out, &error), 0);
	assert_int_equal(out.length, strlen(text));
	assert_memory_equal(out.data, text, out.length);
	buf_free(&out);
}

static void puts_gets_deletes(void **state)
{
	struct fixture *f = *state;
	struct store_body empty = { .data = "", .length = 0 };
	struct error error;
	struct stat st;
	struct buf out = { 0 };
	int64_t server_ns = 0, now = clock_wall_ns();
	char path[128];

	assert_int_equal(put_text(f, "pack/ab/0123", "hello", false), 0);
	assert_object(f, "pack/ab/0123", "hello");
	assert_int_equal(put_text(f, "pack/ab/0123", "other", false), 0);
	assert_object(f, "pack/ab/0123", "other");
	snprintf(path, sizeof path, "%s/pack/ab/0123", f->root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(st.st_nlink, 1);
	snprintf(path, sizeof path, "%s/pack/ab", f->root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);

	assert_int_equal(put_text(f, "log/0001", "one", true), 0);
	assert_int_equal(put_text(f, "log/0001", "two", true), ERR_EXISTS);
	assert_object(f, "log/0001", "one");

	assert_int_equal(store_put(f->store, "volume", &empty, &server_ns, &error), 0);
	assert_true(server_ns >= now);
	assert_object(f, "volume", "");

	assert_int_equal(store_get(f->store, "pack/ab/none", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	assert_int_equal(store_get(f->store, "none/ab/none", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	assert_int_equal(store_get(f->store, "log/0001/more", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	assert_int_equal(store_get(f->store, "pack", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	assert_int_equal(store_delete(f->store, "log/0001", &error), 0);
	assert_int_equal(store_delete(f->store, "log/0001", &error), 0);
	assert_int_equal(store_delete(f->store, "none/0001", &error), 0);
	assert_int_equal(store_get(f->store, "log/0001", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	buf_free(&out);
}

static void ranges(void **state)
{
	struct fixture *f = *state;
	struct buf out = { 0 };
	struct error error;

	assert_int_equal(put_text(f, "a", "0123456789", false), 0);
	buf_append(&out, "x", 1);
	assert_int_equal(store_get(f->store, "a", 2, 3, &out, &error), 0);
	assert_int_equal(store_get(f->store, "a", 8, STORE_WHOLE, &out, &error), 0);
	assert_int_equal(store_get(f->store, "a", 0, 10, &out, &error), 0);
	assert_int_equal(store_get(f->store, "a", 4, 0, &out, &error), 0);
	assert_int_equal(store_get(f->store, "a", 8, 3, &out, &error), ERR_CORRUPT);
	assert_int_equal(store_get(f->store, "a", 10, STORE_WHOLE, &out, &error), ERR_CORRUPT);
	assert_int_equal(store_get(f->store, "a", 11, 1, &out, &error), ERR_CORRUPT);
	assert_int_equal(store_get(f->store, "a", INT64_MAX, 5, &out, &error), ERR_FAILED);
	assert_int_equal(out.length, 16);
	assert_memory_equal(out.data, "x234890123456789", 16);
	buf_free(&out);
}

static void bodies_from_files(void **state)
{
	struct fixture *f = *state;
	struct store_body body = { .offset = 3, .length = 3 << 20 };
	struct error error;
	struct buf out = { 0 };
	uint8_t *bytes = malloc((3 << 20) + 3);
	char path[128];

	for (size_t i = 0; i < (3 << 20) + 3; i++)
		bytes[i] = (uint8_t)(i * 2654435761U >> 13);
	snprintf(path, sizeof path, "%s/body", f->directory);
	assert_int_equal(io_replace_file(AT_FDCWD, path, bytes, (3 << 20) + 3, 0600, &error), 0);
	body.fd = open(path, O_RDONLY | O_CLOEXEC);
	body.has_sha256 = true;
	sha256(body.sha256, bytes + 3, body.length);
	assert_int_equal(store_put_new(f->store, "pack/00/a", &body, NULL, &error), 0);
	assert_int_equal(store_get(f->store, "pack/00/a", 0, STORE_WHOLE, &out, &error), 0);
	assert_int_equal(out.length, body.length);
	assert_memory_equal(out.data, bytes + 3, body.length);
	body.sha256[0] ^= 1;
	assert_int_equal(store_put_new(f->store, "pack/00/b", &body, NULL, &error), ERR_CORRUPT);
	body.offset = 4;
	body.has_sha256 = false;
	assert_int_equal(store_put_new(f->store, "pack/00/b", &body, NULL, &error), ERR_FAILED);
	assert_non_null(strstr(error.message, "shorter"));
	assert_int_equal(store_get(f->store, "pack/00/b", 0, STORE_WHOLE, &out, &error), ERR_ABSENT);
	close(body.fd);
	buf_free(&out);
	free(bytes);
}

static int collect(void *context, const struct store_object *object)
{
	struct buf *out = context;

	buf_printf(out, "%s:%llu ", object->key, (unsigned long long)object->size);
	assert_true(object->modified_s > 1000000000);
	return strcmp(object->key, "stop/here") == 0 ? 42 : 0;
}

static void assert_listing(struct fixture *f, const char *prefix, const char *start_after, int rc, const char *expected)
{
	struct buf out = { 0 };
	struct error error;

	buf_printf(&out, "%s", "");
	assert_int_equal(store_list(f->store, prefix, start_after, collect, &out, &error), rc);
	assert_string_equal((char *)out.data, expected);
	buf_free(&out);
}

static void listings(void **state)
{
	static const char *const keys[] = { "a/c", "a-b", "a0", "a/b/c", "log/0001", "log/0002", "log/0010", "stop/here", "stop/not" };
	struct fixture *f = *state;
	char path[128];

	assert_listing(f, "", NULL, 0, "");
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		assert_int_equal(put_text(f, keys[i], "12", false), 0);
	/* What is not a key is not listed. */
	snprintf(path, sizeof path, "%s/lost+found", f->root);
	assert_int_equal(mkdir(path, 0), 0);
	snprintf(path, sizeof path, "%s/.put-0000", f->root);
	assert_int_equal(mkdir(path, 0), 0);
	snprintf(path, sizeof path, "%s/log/link", f->root);
	assert_int_equal(symlink("0001", path), 0);
	snprintf(path, sizeof path, "%s/loop", f->root);
	assert_int_equal(symlink(".", path), 0);

	assert_listing(f, "a", NULL, 0, "a-b:2 a/b/c:2 a/c:2 a0:2 ");
	assert_listing(f, "a/", NULL, 0, "a/b/c:2 a/c:2 ");
	assert_listing(f, "a/b", NULL, 0, "a/b/c:2 ");
	assert_listing(f, "log/", NULL, 0, "log/0001:2 log/0002:2 log/0010:2 ");
	assert_listing(f, "log/000", NULL, 0, "log/0001:2 log/0002:2 ");
	assert_listing(f, "log/", "log/0001", 0, "log/0002:2 log/0010:2 ");
	assert_listing(f, "log/", "log/00015", 0, "log/0002:2 log/0010:2 ");
	assert_listing(f, "", "a/b/c", 42, "a/c:2 a0:2 log/0001:2 log/0002:2 log/0010:2 stop/here:2 ");
	assert_listing(f, "log/1", NULL, 0, "");
	assert_listing(f, "none/", NULL, 0, "");
	assert_listing(f, "stop", NULL, 42, "stop/here:2 ");
}

static void bad_keys(void **state)
{
	static const char *const bad[] = { "", "/a", "a/", "a//b", "A", "a.b", "..", "a/../b", "a b", "a\n", "\xc3\xa4" };
	struct fixture *f = *state;
	struct buf out = { 0 };
	struct error error;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(put_text(f, bad[i], "x", false), ERR_FAILED);
		assert_int_equal(put_text(f, bad[i], "x", true), ERR_FAILED);
		assert_int_equal(store_get(f->store, bad[i], 0, STORE_WHOLE, &out, &error), ERR_FAILED);
		assert_int_equal(store_delete(f->store, bad[i], &error), ERR_FAILED);
	}
	assert_int_equal(store_list(f->store, "../", NULL, collect, &out, &error), ERR_FAILED);
}

static void vanished_root(void **state)
{
	struct fixture *f = *state;
	struct buf out = { 0 };
	struct error error;
	struct stat st;
	char moved[128];

	assert_int_equal(put_text(f, "log/0001", "one", true), 0);
	snprintf(moved, sizeof moved, "%s/moved", f->directory);
	assert_int_equal(rename(f->root, moved), 0);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(store_get(f->store, "log/0001", 0, STORE_WHOLE, &out, &error), ERR_FAILED);
		assert_non_null(strstr(error.message, "the store directory is gone"));
		assert_int_equal(put_text(f, "log/0002", "two", true), ERR_FAILED);
		assert_int_equal(put_text(f, "log/0002", "two", false), ERR_FAILED);
		assert_int_equal(store_list(f->store, "", NULL, collect, &out, &error), ERR_FAILED);
		assert_int_equal(store_delete(f->store, "log/0001", &error), ERR_FAILED);
		if (again == 0) {
			assert_int_equal(stat(f->root, &st), -1);
			assert_int_equal(mkdir(f->root, 0700), 0); /* as an empty mount point would look */
		}
	}
	assert_int_equal(rmdir(f->root), 0); /* still empty */
	assert_int_equal(rename(moved, f->root), 0);
	assert_object(f, "log/0001", "one");
	assert_int_equal(put_text(f, "log/0002", "two", true), 0);
	buf_free(&out);
}

static void opening(void **state)
{
	struct fixture *f = *state;
	struct store *store;
	struct error error;
	char remote[200], path[160];

	snprintf(remote, sizeof remote, "file://%s/none", f->directory);
	f->config.remote = remote;
	assert_int_equal(store_open(&f->config, false, 1, &store, &error), ERR_ABSENT);
	assert_null(store);
	snprintf(remote, sizeof remote, "file://%s/none/below", f->directory);
	assert_int_equal(store_open(&f->config, true, 1, &store, &error), ERR_ABSENT);
	assert_non_null(strstr(error.message, "create it"));
	snprintf(remote, sizeof remote, "file://relative");
	assert_int_equal(store_open(&f->config, true, 1, &store, &error), ERR_USAGE);
	snprintf(remote, sizeof remote, "ftp://host/");
	assert_int_equal(store_open(&f->config, true, 1, &store, &error), ERR_USAGE);
	snprintf(path, sizeof path, "%s/file", f->directory);
	assert_int_equal(io_replace_file(AT_FDCWD, path, "", 0, 0600, &error), 0);
	snprintf(remote, sizeof remote, "file://%s", path);
	assert_int_equal(store_open(&f->config, true, 1, &store, &error), ERR_FAILED);
	f->config.remote = f->remote;
	assert_int_equal(store_open(&f->config, false, 1, &store, &error), 0);
	store_close(store);
}

static void make_temporary(struct fixture *f, const char *name, bool old)
{
	const struct timespec times[2] = { { .tv_sec = 1000000 }, { .tv_sec = 1000000 } };
	char path[160];
	struct error error;

	snprintf(path, sizeof path, "%s/%s", f->root, name);
	assert_int_equal(io_replace_file(AT_FDCWD, path, "part", 4, 0600, &error), 0);
	if (old)
		assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool exists(struct fixture *f, const char *name)
{
	char path[160];

	snprintf(path, sizeof path, "%s/%s", f->root, name);
	return access(path, F_OK) == 0;
}

static void stale_temporaries(void **state)
{
	struct fixture *f = *state;
	struct store *store;
	struct error error;
	char path[160];
	int fd;

	make_temporary(f, ".put-old", true);
	make_temporary(f, ".put-young", false);
	make_temporary(f, ".put-locked", true);
	make_temporary(f, ".foreign", true);
	snprintf(path, sizeof path, "%s/.put-locked", f->root);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(store_open(&f->config, false, 1, &store, &error), 0);
	store_close(store);
	assert_false(exists(f, ".put-old"));
	assert_true(exists(f, ".put-young"));
	assert_true(exists(f, ".put-locked"));
	assert_true(exists(f, ".foreign"));
	assert_listing(f, "", NULL, 0, "");
	close(fd);
}

static void probe_and_counts(void **state)
{
	struct fixture *f = *state;
	struct store_counts counts;
	struct error error;

	for (int i = 0; i < 20; i++)
		assert_int_equal(store_probe_conditional_put(f->store, &error), 0);
	assert_listing(f, "", NULL, 0, "");
	store_get_counts(f->store, &counts);
	assert_int_equal(counts.put, 20 * 8);
	assert_int_equal(counts.delete_, 20);
	assert_int_equal(counts.list, 1);
	assert_int_equal(counts.bytes_up, 20 * 32);
	assert_int_equal(counts.bytes_down, 20 * 32);
}

/* A store that ignores the condition, and one whose PUTs all seem to be taken. */
static int careless_rc;
static int careless_put(struct store *store, const char *key, const struct store_body *body, bool only_new,
			int64_t *server_ns, struct error *error)
{
	(void)store;
	(void)key;
	(void)body;
	(void)only_new;
	*server_ns = 0;
	return careless_rc ? error_set(error, careless_rc, 0, "as told") : 0;
}

static int careless_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
			struct error *error)
{
	(void)store;
	(void)key;
	(void)offset;
	(void)length;
	(void)out;
	return error_set(error, ERR_ABSENT, 0, "absent");
}

static int careless_delete(struct store *store, const char *key, struct error *error)
{
	(void)store;
	(void)key;
	(void)error;
	return 0;
}

static void probe_refuses(void **state)
{
	static const struct store_ops ops = { .put = careless_put, .get = careless_get, .delete_ = careless_delete };
	static const int answers[][2] = { { 0, ERR_UNSUPPORTED },
					  { ERR_EXISTS, ERR_RETRY },
					  { ERR_UNSUPPORTED, ERR_UNSUPPORTED },
					  { ERR_DENIED, ERR_DENIED },
					  { ERR_RETRY, ERR_RETRY } };
	struct store store = { .ops = &ops, .url = "careless" };
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		careless_rc = answers[i][0];
		assert_int_equal(store_probe_conditional_put(&store, &error), answers[i][1]);
		assert_int_equal(error.code, answers[i][1]);
	}
}

static void cancelled(void **state)
{
	struct fixture *f = *state;
	struct buf out = { 0 };
	struct error error;

	assert_int_equal(put_text(f, "a", "x", false), 0);
	store_cancel(f->store);
	assert_int_equal(put_text(f, "b", "x", false), ERR_ABANDONED);
	assert_int_equal(store_get(f->store, "a", 0, STORE_WHOLE, &out, &error), ERR_ABANDONED);
	assert_int_equal(store_list(f->store, "", NULL, collect, &out, &error), ERR_ABANDONED);
	assert_int_equal(store_delete(f->store, "a", &error), ERR_ABANDONED);
	store_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(puts_gets_deletes), TEST(ranges),		  TEST(bodies_from_files), TEST(listings),
		TEST(bad_keys),		 TEST(vanished_root),	  TEST(opening),	   TEST(stale_temporaries),
		TEST(probe_and_counts),	 TEST(cancelled),	  cmocka_unit_test(probe_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

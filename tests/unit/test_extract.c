/* extract: a version made of rows, whose chunks come from a remote that makes them up. */
#include "catalogue.h"
#include "clock.h"
#include "extract.h"
#include "rescan.h"
#include "tree_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHUNK 100000

static int64_t next_chunk, damaged_chunk;
static int dirfd;

/* ---------------------------------------------------------------- a remote */

static uint8_t byte_of(int64_t chunk, size_t at)
{
	return (uint8_t)(chunk * 31 + (int64_t)(at % 251) + 1);
}

static int fetch_chunk(struct remote *remote, const struct chunk_row *chunk, const struct pack_row *pack, struct buf *out,
		       struct error *why)
{
	(void)remote, (void)pack;
	if (chunk->num == damaged_chunk)
		return error_set(why, ERR_CORRUPT, 0, "pack/00/11 is damaged");
	for (int64_t i = 0; i < chunk->length; i++)
		if (buf_append_u8(out, byte_of(chunk->num, (size_t)i)) < 0)
			return ERR_NOMEM;
	return 0;
}

static int verify_chunk(struct remote *remote, const uint8_t id[16], const void *data, size_t length)
{
	(void)remote;
	for (size_t i = 0; i < length; i++)
		if (((const uint8_t *)data)[i] != byte_of(id[0], i))
			return ERR_CORRUPT;
	return 0;
}

static const struct remote_ops ops = { .fetch_chunk = fetch_chunk, .verify_chunk = verify_chunk };
static struct remote remote = { .ops = &ops };

/* ---------------------------------------------------------------- a catalogue */

static int setup(void **state)
{
	next_chunk = 1;
	damaged_chunk = 0;
	return tree_volume_setup(state);
}

static int teardown(void **state)
{
	history_stop();
	return tree_volume_teardown(state);
}

static struct db_conn *begin(void)
{
	struct db_conn *conn;

	OK(db_begin(volume_db(volume), false, &conn, &error));
	return conn;
}

static void create_volume(void)
{
	struct db_conn *conn;
	uint8_t zero[32] = { 0 };

	tree_volume_create();
	volume_set_remote(volume, &remote);
	dirfd = backing_root_fd(volume_backing(volume));
	conn = begin();
	OK(db_exec(conn, "INSERT INTO version VALUES(1, 1000, 1000000000000, 0, 0)", &error));
	OK(db_step(conn, &error, "INSERT INTO pack(num, id, salt, hash, size, record, vfrom) VALUES(1, ?, ?, ?, 1000000000, 0, 1)", "bbb", zero, (size_t)16, zero, (size_t)32,
		   zero, (size_t)32));
	OK(db_meta_set_int(conn, "head", 1, &error));
	OK(db_commit(volume_db(volume), &error));
}

/* mtime: ino * 1000 s + 5 ns; atime one more. */
static void put_inode(int64_t ino, mode_t mode, int64_t nlink, int64_t size, const char *target, const void *xattrs,
		      size_t xattrs_length)
{
	struct db_conn *conn = begin();
	int64_t time = ino * 1000 * NS_PER_S + 5, uid = geteuid() ? geteuid() : 1000 + ino, gid = geteuid() ? getegid() : 2000;

	OK(db_step(conn, &error, "INSERT INTO inode VALUES(?, 1, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)", "iiiiiiiiinn", ino,
		   (int64_t)mode, uid, gid, nlink, size, (int64_t)makedev(1, 3), time + 1, time, target,
		   target ? strlen(target) : 0, xattrs, xattrs_length));
	OK(db_commit(volume_db(volume), &error));
}

static void put_name_raw(int64_t dir, const void *name, size_t length, int64_t ino)
{
	struct db_conn *conn = begin();

	OK(db_step(conn, &error, "INSERT INTO name VALUES(?, ?, 1, ?)", "ibi", dir, name, length, ino));
	OK(db_commit(volume_db(volume), &error));
}

static void put_name(int64_t dir, const char *name, int64_t ino)
{
	put_name_raw(dir, name, strlen(name), ino);
}

/* One chunk's worth of bytes. Returns its number. */
static int64_t put_extent(int64_t ino, int64_t start, int64_t length)
{
	struct db_conn *conn = begin();
	int64_t num = next_chunk++;
	uint8_t id[16] = { (uint8_t)num };

	OK(db_step(conn, &error, "INSERT INTO chunk VALUES(?, ?, 1, ?, ?, 200, ?, 0, 0)", "ibiii", num, id, sizeof id, num,
		   num * 1000, length));
	OK(db_step(conn, &error, "INSERT INTO extent VALUES(?, ?, 1, ?, ?, 0)", "iiii", ino, start, length, num));
	OK(db_commit(volume_db(volume), &error));
	return num;
}

static void put_file(int64_t dir, const char *name, int64_t ino, int64_t size)
{
	put_inode(ino, S_IFREG | 0640, 1, size, NULL, NULL, 0);
	put_name(dir, name, ino);
	for (int64_t at = 0; at < size; at += CHUNK)
		put_extent(ino, at, size - at < CHUNK ? size - at : CHUNK);
}

static void put_root(void)
{
	put_inode(1, S_IFDIR | 0751, 3, 0, NULL, NULL, 0);
}

/* ---------------------------------------------------------------- looking at the result */

static int extract(int64_t ino, const char *name, bool record, struct extract_result *result)
{
	struct extract_options options = { .record_local = record, .jobs = 3 };

	return extract_tree(volume, 1, ino, dirfd, name, &options, result, &error);
}

static void assert_bytes(const char *name, int64_t offset, int64_t chunk, size_t length)
{
	int fd = openat(dirfd, name, O_RDONLY);
	uint8_t *data = malloc(length);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, data, length, offset), length);
	for (size_t i = 0; i < length; i++)
		if (data[i] != (chunk ? byte_of(chunk, i) : 0))
			fail_msg("%s: byte %zu", name, i);
	free(data);
	close(fd);
}

static struct stat stat_of(const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static void assert_attrs(const char *name, int64_t ino, mode_t mode)
{
	struct stat st = stat_of(name);

	assert_int_equal(st.st_mode, mode);
	assert_int_equal(timespec_ns(st.st_mtim), ino * 1000 * NS_PER_S + 5);
	if (geteuid() == 0) {
		assert_int_equal(st.st_uid, 1000 + ino);
		assert_int_equal(st.st_gid, 2000);
	}
}

static bool absent(const char *name)
{
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* ---------------------------------------------------------------- tests */

static void test_tree(void **state)
{
	static const char xattrs[] = "\6\0user.a\3\0\0\0xyz";
	struct extract_result result;
	char value[8], target[32] = "";
	bool special = geteuid() == 0;

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFDIR | 0500, 2, 0, NULL, xattrs, sizeof xattrs - 1);
	put_name(1, "dir", 2);
	put_inode(3, S_IFDIR | 02775, 2, 0, NULL, NULL, 0);
	put_name(2, "deep", 3);
	put_file(3, "big", 10, 3 * CHUNK + 17);
	put_file(1, "empty", 11, 0);
	put_file(1, "small", 12, 5);
	put_inode(13, S_IFLNK | 0777, 1, 6, "../../", NULL, 0);
	put_name(2, "link", 13);
	put_inode(14, S_IFIFO | 0604, 1, 0, NULL, NULL, 0);
	put_name(1, "pipe", 14);
	put_inode(15, S_IFCHR | 0666, 1, 0, NULL, NULL, 0);
	put_name(1, "null", 15);
	put_inode(16, S_IFREG | 04755, 1, 3, NULL, xattrs, sizeof xattrs - 1);
	put_name(1, "suid", 16);
	put_extent(16, 0, 3);
	OK(extract(1, "", false, &result));
	assert_int_equal(result.inodes, special ? 10 : 9);
	assert_int_equal(result.bytes, 3 * CHUNK + 17 + 5 + 3);
	assert_int_equal(result.damaged, 0);
	assert_attrs(".", 1, S_IFDIR | 0751);
	assert_attrs("dir", 2, S_IFDIR | 0500);
	assert_attrs("dir/deep", 3, S_IFDIR | 02775);
	assert_attrs("dir/deep/big", 10, S_IFREG | 0640);
	assert_int_equal(stat_of("dir/deep/big").st_size, 3 * CHUNK + 17);
	for (int i = 0; i < 3; i++)
		assert_bytes("dir/deep/big", i * CHUNK, i + 1, CHUNK);
	assert_bytes("dir/deep/big", 3 * CHUNK, 4, 17);
	assert_attrs("empty", 11, S_IFREG | 0640);
	assert_int_equal(stat_of("empty").st_size, 0);
	assert_attrs("dir/link", 13, S_IFLNK | 0777);
	assert_int_equal(readlinkat(dirfd, "dir/link", target, sizeof target), 6);
	assert_string_equal(target, "../../");
	assert_attrs("pipe", 14, S_IFIFO | 0604);
	if (special) {
		assert_attrs("null", 15, S_IFCHR | 0666);
		assert_int_equal(stat_of("null").st_rdev, makedev(1, 3));
		assert_attrs("suid", 16, S_IFREG | 04755);
	}
	if (result.skipped == 0) { /* the filesystem has xattrs */
		char path[200];

		snprintf(path, sizeof path, "%s/suid", tree_path);
		assert_int_equal(getxattr(path, "user.a", value, sizeof value), 3);
		assert_memory_equal(value, "xyz", 3);
	}
}

static void told(void *context, const char *what, uint64_t done, uint64_t total, const char *unit)
{
	(void)what, (void)unit;
	assert_true(total == 0 || done <= total);
	((uint64_t *)context)[0] = done;
	((uint64_t *)context)[1] = total;
}

static void test_holes(void **state)
{
	uint64_t told_bytes[2] = {0};
	struct extract_options options = { .jobs = 3, .progress = told, .context = told_bytes };
	struct extract_result result;
	int64_t tail;
	int fd;

	(void)state;
	create_volume();
	put_root();
	put_inode(5, S_IFREG | 0600, 1, INT64_C(1) << 40, NULL, NULL, 0);
	put_name(1, "sparse", 5);
	tail = put_extent(5, (INT64_C(1) << 39) + 4096, 8192);
	put_inode(6, S_IFREG | 0600, 1, 1 << 20, NULL, NULL, 0);
	put_name(1, "hole", 6);
	OK(extract_tree(volume, 1, 1, dirfd, "", &options, &result, &error));
	assert_int_equal(result.bytes, 8192);
	assert_int_equal(told_bytes[0], 8192); /* holes are no work */
	assert_int_equal(told_bytes[1], 8192);
	assert_int_equal(stat_of("sparse").st_size, INT64_C(1) << 40);
	assert_in_range(stat_of("sparse").st_blocks, 1, 64);
	assert_bytes("sparse", (INT64_C(1) << 39) + 4096, tail, 8192);
	assert_bytes("sparse", INT64_C(1) << 39, 0, 4096);
	fd = openat(dirfd, "sparse", O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), (INT64_C(1) << 39) + 4096);
	close(fd);
	assert_int_equal(stat_of("hole").st_size, 1 << 20);
	assert_int_equal(stat_of("hole").st_blocks, 0);
}

static void test_hard_links(void **state)
{
	struct extract_result result;

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFDIR | 0555, 2, 0, NULL, NULL, 0);
	put_name(1, "d", 2);
	put_inode(7, S_IFREG | 0600, 3, 4, NULL, NULL, 0);
	put_extent(7, 0, 4);
	put_name(1, "a", 7);
	put_name(1, "b", 7);
	put_name(2, "c", 7);
	put_inode(8, S_IFLNK | 0777, 2, 1, "x", NULL, 0);
	put_name(1, "s", 8);
	put_name(2, "s", 8);
	OK(extract(1, "", false, &result));
	assert_int_equal(result.inodes, 4);
	assert_int_equal(stat_of("a").st_ino, stat_of("b").st_ino);
	assert_int_equal(stat_of("a").st_ino, stat_of("d/c").st_ino);
	assert_int_equal(stat_of("a").st_nlink, 3);
	assert_int_equal(stat_of("s").st_ino, stat_of("d/s").st_ino);
	assert_attrs("d/c", 7, S_IFREG | 0600);
	assert_attrs("d", 2, S_IFDIR | 0555);
	/* Another name of the same lies outside: an ordinary file. */
	OK(extract(2, "again", false, &result));
	assert_int_equal(stat_of("again/c").st_nlink, 1);
	assert_attrs("again", 2, S_IFDIR | 0555);
}

static void test_where(void **state)
{
	struct extract_result result;

	(void)state;
	create_volume();
	put_root();
	put_file(1, "file", 3, 7);
	OK(extract(3, "copy", false, &result));
	assert_int_equal(result.inodes, 1);
	assert_attrs("copy", 3, S_IFREG | 0640);
	assert_bytes("copy", 0, 1, 7);
	assert_int_equal(extract(3, "copy", false, &result), ERR_EXISTS);
	assert_non_null(strstr(error.message, "copy"));
	assert_int_equal(extract(3, "", false, &result), ERR_FAILED);
	assert_int_equal(extract(1, "", false, &result), ERR_EXISTS);
	assert_int_equal(extract(1, "copy", false, &result), ERR_EXISTS);
	assert_int_equal(extract(99, "new", false, &result), ERR_ABSENT);
	assert_int_equal(extract(1, "..", false, &result), ERR_USAGE);
	assert_int_equal(extract(3, "a/b", false, &result), ERR_USAGE);
	OK(extract(1, "sub", false, &result));
	assert_int_equal(result.inodes, 2);
	assert_bytes("sub/file", 0, 1, 7);
	/* A trap in the place of what is written. */
	assert_int_equal(symlinkat("/tmp", dirfd, "trap"), 0);
	assert_int_equal(extract(3, "trap", false, &result), ERR_EXISTS);
	assert_int_equal(extract(1, "trap", false, &result), ERR_EXISTS);
}

/* Faults 39 and 40. */
static void test_fault_39_hostile_names(void **state)
{
	static const struct { const char *name; size_t length; } names[] = {
		{ "..", 2 }, { ".", 1 }, { "", 0 }, { "a/b", 3 }, { "/", 1 }, { "x\0y", 3 },
	};
	struct extract_result result;
	char long_name[300];

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFREG | 0600, 1, 0, NULL, NULL, 0);
	memset(long_name, 'n', sizeof long_name);
	for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
		bool last = i == sizeof names / sizeof *names;

		put_name_raw(1, last ? long_name : names[i].name, last ? 256 : names[i].length, 2);
		assert_int_equal(extract(1, "out", false, &result), ERR_CORRUPT);
		assert_int_equal(unlinkat(dirfd, "out", AT_REMOVEDIR), 0);
		tree_volume_sql("DELETE FROM name");
	}
}

static void test_fault_39_cycle(void **state)
{
	struct extract_result result;

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFDIR | 0700, 1, 0, NULL, NULL, 0);
	put_name(1, "d", 2);
	put_name(2, "up", 1);
	assert_int_equal(extract(1, "out", false, &result), ERR_CORRUPT);
	assert_non_null(strstr(error.message, "two places"));
	put_name(1, "dangling", 77);
	assert_int_equal(extract(1, "out2", false, &result), ERR_CORRUPT);
}

static char damaged_path[64];

static void damaged(void *context, const char *path, const struct error *why)
{
	assert_ptr_equal(context, &remote);
	assert_int_equal(why->code, ERR_CORRUPT);
	snprintf(damaged_path, sizeof damaged_path, "%s", path);
}

static void test_damaged(void **state)
{
	struct extract_options options = { .jobs = 2, .damaged = damaged, .context = &remote };
	struct extract_result result;

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFDIR | 0700, 1, 0, NULL, NULL, 0);
	put_name(1, "d", 2);
	put_file(1, "good", 3, 10);
	put_file(2, "bad", 4, 10);
	put_file(1, "fine", 5, 10);
	damaged_chunk = 2;
	assert_int_equal(extract(1, "out", false, &result), ERR_CORRUPT);
	assert_non_null(strstr(error.message, "d/bad"));
	assert_non_null(strstr(error.message, "pack/00/11"));
	OK(extract_tree(volume, 1, 1, dirfd, "rest", &options, &result, &error));
	assert_int_equal(result.damaged, 1);
	assert_string_equal(damaged_path, "d/bad");
	assert_true(absent("rest/d/bad"));
	assert_bytes("rest/good", 0, 1, 10);
	assert_bytes("rest/fine", 0, 3, 10);
}

static void test_stop(void **state)
{
	atomic_bool stop = true;
	struct extract_options options = { .jobs = 2, .stop = &stop };
	struct extract_result result;

	(void)state;
	create_volume();
	put_root();
	put_file(1, "f", 3, 10);
	assert_int_equal(extract_tree(volume, 1, 1, dirfd, "out", &options, &result, &error), ERR_ABANDONED);
}

/* A clone: the rescan that follows finds nothing to do. */
static void test_record(void **state)
{
	uint64_t done[2] = {0};
	struct extract_options options = { .record_local = true, .jobs = 16, .progress = told, .context = done };
	struct extract_result result;
	struct rescan_result scanned;

	(void)state;
	create_volume();
	put_root();
	put_inode(2, S_IFDIR | 0700, 1, 0, NULL, NULL, 0);
	put_name(1, "d", 2);
	for (int64_t i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%d", (int)i);
		put_file(i % 2 + 1, name, 100 + i, i * 10);
	}
	put_inode(7, S_IFREG | 0600, 2, 4, NULL, NULL, 0);
	put_extent(7, 0, 4);
	put_name(1, "a", 7);
	put_name(2, "b", 7);
	put_inode(8, S_IFLNK | 0777, 1, 1, "x", NULL, 0);
	put_name(2, "s", 8);
	OK(extract_tree(volume, 1, 1, dirfd, "", &options, &result, &error));
	assert_int_equal(done[0], result.bytes);
	assert_int_equal(result.inodes, 104);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM local_inode WHERE captured<>1 OR racy"), 0);
	OK(rescan_run(volume, true, true, NULL, NULL, &scanned, &error));
	assert_int_equal(scanned.seen, 104);
	assert_int_equal(scanned.changed, 0);
	assert_int_equal(scanned.names, 0);
}

/* Fault 41, and what a default ACL does not leave behind. */
static int as_user(void)
{
	struct extract_result result;

	create_volume();
	put_root();
	put_inode(2, S_IFCHR | 0666, 1, 0, NULL, NULL, 0);
	put_name(1, "null", 2);
	put_inode(3, S_IFREG | 06755, 1, 0, NULL, NULL, 0);
	put_name(1, "suid", 3);
	put_inode(4, S_IFREG | 0600, 1, 0, NULL, NULL, 0);
	put_name(1, "roots", 4);
	tree_volume_sql("UPDATE inode SET uid=0, gid=0 WHERE ino=4");
	OK(extract(1, "out", false, &result));
	if (result.skipped != 3 || result.inodes != 3)
		return 2;
	if (!absent("out/null"))
		return 3;
	if (stat_of("out/suid").st_mode != (S_IFREG | 0755))
		return 4;
	if (stat_of("out/roots").st_uid != 65534 || stat_of("out/roots").st_mode != (S_IFREG | 0600))
		return 5;
	volume_close(volume, false);
	return 0;
}

static void test_fault_41_user(void **state)
{
	(void)state;
	tree_as_nobody(as_user);
}

static void test_default_acl(void **state)
{
	/* version 2; user::rwx, user:1:rwx, group::rwx, mask::rwx, other::rwx */
	static const unsigned char acl[] = {
		2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 1, 0, 0, 0, 4, 0, 7, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0, 255, 255, 255, 255,
	};
	struct extract_result result;
	char path[200];

	(void)state;
	create_volume();
	put_root();
	put_file(1, "f", 3, 10);
	if (setxattr(tree_path, "system.posix_acl_default", acl, sizeof acl, 0) < 0)
		skip();
	OK(extract(1, "out", false, &result));
	assert_int_equal(result.skipped, 0);
	assert_attrs("out", 1, S_IFDIR | 0751);
	assert_attrs("out/f", 3, S_IFREG | 0640);
	snprintf(path, sizeof path, "%s/out/f", tree_path);
	assert_int_equal(getxattr(path, "system.posix_acl_access", NULL, 0), -1);
	snprintf(path, sizeof path, "%s/out", tree_path);
	assert_int_equal(getxattr(path, "system.posix_acl_default", NULL, 0), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tree), TEST(test_holes), TEST(test_hard_links), TEST(test_where),
		TEST(test_fault_39_hostile_names), TEST(test_fault_39_cycle), TEST(test_damaged), TEST(test_stop),
		TEST(test_record), TEST(test_fault_41_user), TEST(test_default_acl),
	};

	return cmocka_run_group_tests_name("extract", tests, NULL, NULL);
}

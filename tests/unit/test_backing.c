/* backing: keys, handles, descriptors, attributes; as root, as another user, over a mount inside the tree, under an automount trigger. */
#include "backing.h"

#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static const char *in_dir(const char *name)
{
	static char path[4][256];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
	return path[turn];
}

static void write_file(const char *name, const char *text)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(io_write(fd, text, strlen(text)), 0);
	close(fd);
}

static int setup(void **state)
{
	const char *base = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof dir, "%s/backing-XXXXXX", base && strlen(base) < 40 ? base : "/tmp");
	return mkdtemp(dir) && chmod(dir, 0755) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	char command[100];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) == 0 ? 0 : -1;
}

static struct backing *open_dir(void)
{
	struct backing *backing = NULL;
	struct error error;

	if (backing_open(dir, &backing, &error) < 0)
		fail_msg("%s", error.message);
	return backing;
}

static bool root(void)
{
	return geteuid() == 0;
}

static void test_nature(void **state)
{
	struct backing *backing;
	struct error error;
	enum backing_names names;
	bool local;
	int fd;

	(void)state;
	assert_int_equal(backing_open(dir, &backing, &error), 0);
	backing_nature(backing, &local, &names);
	assert_true(local);
	assert_int_not_equal(names, BACKING_UNKNOWN); /* of those that tests run on */
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_false(backing_folds_case(fd));
	close(fd);
	assert_true(backing_folds_case(-1)); /* who can't say may do it */
	backing_close(backing);
	/* Others change it. */
	assert_int_equal(backing_open("/proc/self", &backing, &error), 0);
	backing_nature(backing, &local, &names);
	assert_false(local);
	assert_int_equal(names, BACKING_UNKNOWN);
	backing_close(backing);
}

static void test_identity(void **state)
{
	uint8_t a[BACKING_IDENTITY_BYTES], b[BACKING_IDENTITY_BYTES], boot[16], boot2[16];
	struct backing *backing = open_dir(), *other = open_dir();
	struct error error;
	size_t length;

	(void)state;
	if (root())
		assert_true(backing_has_handles(backing));
	length = backing_identity(backing, a);
	assert_in_range(length, 12, BACKING_IDENTITY_BYTES);
	assert_int_equal(backing_identity(other, b), length);
	assert_memory_equal(a, b, length);
	backing_close(other);
	assert_int_equal(mkdir(in_dir("sub"), 0755), 0);
	assert_int_equal(backing_open(in_dir("sub"), &other, &error), 0);
	assert_false(backing_identity(other, b) == length && memcmp(a, b, length) == 0);
	backing_close(other);
	backing_close(backing);
	backing_close(NULL);
	write_file("plain", "x");
	assert_int_equal(backing_open(in_dir("none"), &backing, &error), ERR_ABSENT);
	assert_int_equal(backing_open(in_dir("plain"), &backing, &error), ERR_FAILED);
	assert_non_null(strstr(error.message, "ot a directory"));
	assert_null(backing);
	backing_boot_id(boot);
	backing_boot_id(boot2);
	assert_memory_equal(boot, boot2, 16);
}

static void test_keys(void **state)
{
	struct backing *backing = open_dir();
	struct node_table *table = node_table_new();
	struct node_key key, again, self;
	struct node *node;
	struct stat st;
	char text[8] = "";
	int fd, path_fd;

	(void)state;
	write_file("a", "hello");
	assert_int_equal(link(in_dir("a"), in_dir("b")), 0);
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "a", &key, &st, &path_fd), 0);
	assert_int_equal(st.st_size, 5);
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "b", &again, &st, NULL), 0);
	assert_true(node_key_equal(&key, &again));
	assert_int_equal(backing_identify(backing, path_fd, "", &self, &st, NULL), 0);
	assert_true(node_key_equal(&key, &self));
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "none", &again, &st, NULL), -ENOENT);
	node = node_get(table, &key, st.st_mode, path_fd);
	close(path_fd);
	fd = backing_reopen(backing, node, O_RDONLY | O_NOATIME);
	assert_true(fd >= 0);
	assert_int_equal(io_pread(fd, text, 8, 0), 5);
	close(fd);
	/* After the last name went, only a held descriptor still finds it. */
	assert_int_equal(unlink(in_dir("b")), 0);
	assert_int_equal(backing_hold(backing, node), 0);
	assert_int_equal(backing_hold(backing, node), 0);
	assert_int_equal(unlink(in_dir("a")), 0);
	fd = backing_reopen(backing, node, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(io_pread(fd, text, 8, 0), 5);
	close(fd);
	fd = backing_fd_get(backing, node);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	/* Let go while it is in use: it goes when it comes back, and the inode with it. */
	backing_fd_drop(backing, node);
	assert_int_equal(fstat(fd, &st), 0);
	backing_fd_put(backing, node, fd);
	assert_int_equal(backing_fd_count(backing), 0);
	assert_int_equal(backing_fd_get(backing, node), -ESTALE);
	node_put(table, node);
	assert_int_equal(backing_reopen_key(backing, &key, O_RDONLY), -ESTALE);
	/* A new file of the same name, perhaps with the same inode number, is another one. */
	write_file("a", "other");
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "a", &again, &st, NULL), 0);
	assert_false(node_key_equal(&key, &again));
	node_table_free(table);
	backing_close(backing);
}

static void test_symlink_and_root(void **state)
{
	struct backing *backing = open_dir();
	struct node_key key;
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(symlink("target", in_dir("link")), 0);
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "link", &key, &st, NULL), 0);
	assert_true(S_ISLNK(st.st_mode));
	if (backing_has_handles(backing)) {
		fd = backing_reopen_key(backing, &key, O_PATH | O_NOFOLLOW);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(S_ISLNK(st.st_mode));
		close(fd);
	}
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "", &key, &st, NULL), 0);
	fd = backing_reopen_key(backing, &key, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(backing_syncfs(backing), 0);
	assert_true(backing_free_above_reserve(backing_root_fd(backing)) > 0);
	assert_int_equal(backing_free_above_reserve(-1), 0);
	backing_close(backing);
}

/* More nodes than descriptors: the cache is bounded, one in use stays open, one in another thread's hands is shared. */
static void test_cache(void **state)
{
	struct rlimit limit, small;
	struct node_table *table = node_table_new();
	struct node *nodes[100];
	struct backing *backing;
	int first, fd;

	(void)state;
	if (!root())
		skip();
	getrlimit(RLIMIT_NOFILE, &limit);
	small = limit;
	small.rlim_cur = 128;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	backing = open_dir();
	node_table_on_free(table, backing_fd_drop_id, backing);
	for (int i = 0; i < 100; i++) {
		char name[16];
		struct node_key key;
		struct stat st;

		snprintf(name, sizeof name, "f%d", i);
		write_file(name, name);
		assert_int_equal(backing_identify(backing, backing_root_fd(backing), name, &key, &st, NULL), 0);
		nodes[i] = node_get(table, &key, st.st_mode, -1);
	}
	first = backing_fd_get(backing, nodes[0]);
	assert_true(first >= 0);
	assert_int_equal(backing_fd_get(backing, nodes[0]), first);
	for (int round = 0; round < 3; round++) {
		for (int i = 1; i < 100; i++) {
			struct stat st;

			fd = backing_fd_get(backing, nodes[i]);
			assert_true(fd >= 0 && fd != first);
			assert_int_equal(fstat(fd, &st), 0);
			assert_int_equal(st.st_size, i < 10 ? 2 : 3);
			backing_fd_put(backing, nodes[i], fd);
			assert_in_range(backing_fd_count(backing), 1, 33);
		}
	}
	assert_int_equal(backing_fd_get(backing, nodes[0]), first);
	for (int i = 0; i < 3; i++)
		backing_fd_put(backing, nodes[0], first);
	/* Dropped while in use: closed when it comes back. */
	fd = backing_fd_get(backing, nodes[7]);
	backing_fd_drop(backing, nodes[7]);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	backing_fd_put(backing, nodes[7], fd);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	/* Out of descriptors: cached ones make room. */
	for (int i = 0; i < 30; i++) {
		fd = backing_fd_get(backing, nodes[i]);
		backing_fd_put(backing, nodes[i], fd);
	}
	small.rlim_cur = (rlim_t)dup(0);
	close((int)small.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	fd = backing_reopen(backing, nodes[50], O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 100; i++)
		node_put(table, nodes[i]);
	assert_int_equal(backing_fd_count(backing), 0);
	node_table_free(table);
	backing_close(backing);
}

static int collect(void *context, const char *name, const void *value, size_t value_length)
{
	char *text = context;

	sprintf(text + strlen(text), "%s=%.*s;", name, (int)value_length, (const char *)value);
	return 0;
}

static void test_attrs(void **state)
{
	struct backing *backing = open_dir();
	char big[3000], text[8000] = "";
	struct attrs attrs;
	int fd;

	(void)state;
	memset(big, 'v', sizeof big);
	write_file("x", "content");
	if (setxattr(in_dir("x"), "user.zeta", "last", 4, 0) < 0)
		skip(); /* a filesystem without user xattrs */
	assert_int_equal(setxattr(in_dir("x"), "user.big", big, sizeof big, 0), 0);
	assert_int_equal(setxattr(in_dir("x"), "user.alpha", "", 0, 0), 0);
	assert_int_equal(setxattr(in_dir("x"), "user.yester.state", "no", 2, 0), 0);
	fd = open(in_dir("x"), O_PATH);
	assert_int_equal(backing_attrs(backing, fd, &attrs), 0);
	assert_int_equal(attrs.st.st_size, 7);
	assert_true(S_ISREG(attrs.st.st_mode));
	assert_null(attrs.target);
	assert_int_equal(attrs_xattr_each(attrs.xattrs, attrs.xattrs_length, collect, text), 0);
	assert_int_equal(strncmp(text, "user.alpha=;user.big=vvv", 24), 0);
	assert_non_null(strstr(text, "v;user.zeta=last;"));
	assert_int_equal(strlen(text), strlen("user.alpha=;user.big=;user.zeta=last;") + sizeof big);
	/* Every truncation is malformed, but where a row ends. */
	for (size_t length = 1; length < attrs.xattrs_length; length++) {
		char scratch[8000] = "";
		int rc = attrs_xattr_each(attrs.xattrs, length, collect, scratch);

		assert_true(rc == -EINVAL || length == 16 || length == 16 + 14 + sizeof big);
	}
	attrs_free(&attrs);
	assert_null(attrs.xattrs);
	attrs_free(&attrs);
	close(fd);
	assert_int_equal(symlink("some/where", in_dir("l")), 0);
	fd = open(in_dir("l"), O_PATH | O_NOFOLLOW);
	assert_int_equal(backing_attrs(backing, fd, &attrs), 0);
	assert_string_equal(attrs.target, "some/where");
	assert_int_equal(attrs.target_length, 10);
	attrs_free(&attrs);
	close(fd);
	assert_int_equal(backing_attrs(backing, -1, &attrs), -EBADF);
	backing_close(backing);
}

static int stop(void *context, const char *name, const void *value, size_t value_length)
{
	(void)context, (void)name, (void)value, (void)value_length;
	return 7;
}

static void test_xattr_decoding(void **state)
{
	const char nul[] = "\3\0a\0b\0\0\0\0", empty[] = "\0\0\0\0\0\0", good[] = "\1\0a\2\0\0\0xy", large[] = "\1\0a\1\0\1\0";
	char text[64] = "";

	(void)state;
	assert_int_equal(attrs_xattr_each(NULL, 0, collect, text), 0);
	assert_int_equal(attrs_xattr_each(NULL, 5, collect, text), -EINVAL);
	assert_int_equal(attrs_xattr_each(nul, 9, collect, text), -EINVAL);
	assert_int_equal(attrs_xattr_each(empty, 6, collect, text), -EINVAL);
	assert_int_equal(attrs_xattr_each(large, 7, collect, text), -EINVAL);
	assert_int_equal(attrs_xattr_each(good, 9, collect, text), 0);
	assert_string_equal(text, "a=xy;");
	assert_int_equal(attrs_xattr_each(good, 9, stop, NULL), 7);
}

static void test_proc_path(void **state)
{
	char path[BACKING_PROC_PATH];

	(void)state;
	backing_proc_path(path, 0);
	assert_string_equal(path, "/proc/self/fd/0");
	backing_proc_path(path, 2147483647);
	assert_string_equal(path, "/proc/self/fd/2147483647");
}

/* Runs fn in a child with its own mount namespace; as another user if asked. Its result is 0 when all is well. 77: can't be tried here. */
static void in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(20);
		_exit(unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? 77 : fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define CHECK(condition) do { if (!(condition)) return fprintf(stderr, "line %d, errno %d\n", __LINE__, errno), 1; } while (0)

static int submount_hidden(void)
{
	struct backing *backing;
	struct node_key key;
	struct stat st;
	int fd, file;

	CHECK(mkdir(in_dir("mnt"), 0755) == 0);
	CHECK(mount("none", in_dir("mnt"), "tmpfs", 0, NULL) == 0);
	write_file("mnt/inside", "x");
	CHECK(backing_open(dir, &backing, NULL) == 0);
	CHECK(backing_identify(backing, backing_root_fd(backing), "mnt", &key, &st, &fd) == 0);
	CHECK(node_key_type(&key) >= 0);
	CHECK(openat(fd, "inside", O_PATH) == -1 && errno == ENOENT);
	close(fd);
	fd = backing_reopen_key(backing, &key, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	file = openat(fd, "beneath", O_WRONLY | O_CREAT, 0644);
	CHECK(file >= 0);
	close(file);
	close(fd);
	backing_close(backing);
	CHECK(umount(in_dir("mnt")) == 0);
	CHECK(access(in_dir("mnt/beneath"), F_OK) == 0);
	return 0;
}

static int resolve_by_name(void *context, const struct node_key *key)
{
	(void)key;
	return open(context, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

static int as_user(void)
{
	struct node_table *table = node_table_new();
	uint8_t before[BACKING_IDENTITY_BYTES], after[BACKING_IDENTITY_BYTES];
	struct backing *backing;
	struct node_key key, bind, mnt;
	struct node *node;
	struct stat st;
	size_t length;
	char path[256];
	int fd;

	write_file("mine", "12345");
	CHECK(mkdir(in_dir("m"), 0755) == 0 && mkdir(in_dir("bound"), 0755) == 0 && mkdir(in_dir("d"), 0755) == 0);
	CHECK(mount("none", in_dir("m"), "tmpfs", 0, NULL) == 0);
	CHECK(mount(in_dir("d"), in_dir("bound"), NULL, MS_BIND, NULL) == 0);
	CHECK(backing_open(dir, &backing, NULL) == 0);
	length = backing_identity(backing, before);
	backing_close(backing);
	CHECK(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	CHECK(backing_open(dir, &backing, NULL) == 0);
	CHECK(!backing_has_handles(backing));
	CHECK(backing_identity(backing, after) == length && memcmp(before, after, length) == 0);
	CHECK(backing_identify(backing, backing_root_fd(backing), "mine", &key, &st, &fd) == 0);
	CHECK(node_key_type(&key) == NODE_KEY_NO_HANDLE && key.length == 26 && get_u64(key.bytes + 10) == st.st_ino);
	node = node_get(table, &key, st.st_mode, fd);
	close(fd);
	fd = backing_fd_get(backing, node);
	CHECK(fd >= 0 && fd == atomic_load(&node->held_fd));
	backing_fd_put(backing, node, fd);
	fd = backing_reopen(backing, node, O_RDONLY | O_NOATIME);
	CHECK(fd >= 0);
	close(fd);
	backing_fd_drop(backing, node); /* nothing else leads there */
	CHECK(atomic_load(&node->held_fd) >= 0);
	node_put(table, node);
	/* From the database: by the resolver, if there is one. */
	node = node_get(table, &key, st.st_mode, -1);
	CHECK(backing_fd_get(backing, node) == -ESTALE);
	snprintf(path, sizeof path, "%s", in_dir("mine"));
	backing_set_resolver(backing, resolve_by_name, path);
	fd = backing_reopen_key(backing, &key, O_RDONLY);
	CHECK(fd >= 0);
	close(fd);
	fd = backing_fd_get(backing, node);
	CHECK(fd >= 0 && fd == atomic_load(&node->held_fd));
	backing_fd_put(backing, node, fd);
	node_put(table, node);
	/* Other mounts, of another filesystem and of this one, show. */
	CHECK(backing_identify(backing, backing_root_fd(backing), "m", &mnt, &st, NULL) == 0);
	CHECK(node_key_type(&mnt) == NODE_KEY_FOREIGN);
	CHECK(backing_identify(backing, backing_root_fd(backing), "bound", &bind, &st, NULL) == 0);
	CHECK(node_key_type(&bind) == NODE_KEY_FOREIGN);
	CHECK(backing_identify(backing, backing_root_fd(backing), "d", &key, &st, NULL) == 0);
	CHECK(node_key_type(&key) == NODE_KEY_NO_HANDLE && !node_key_equal(&key, &bind));
	CHECK(backing_reopen_key(backing, &bind, O_RDONLY) == -EACCES);
	backing_close(backing);
	node_table_free(table);
	return 0;
}

/* Fault 54. The trigger's daemon is this process, which never answers: whoever triggers it hangs until the alarm. */
static int under_automount(void)
{
	struct backing *backing;
	struct node_key key;
	struct stat st;
	char options[128];
	int pipes[2];

	CHECK(mkdir(in_dir("auto"), 0755) == 0);
	write_file("auto/file", "x");
	CHECK(pipe(pipes) == 0);
	/* Another process group than ours, so that we count as a visitor. */
	snprintf(options, sizeof options, "fd=%d,pgrp=%d,minproto=5,maxproto=5,direct", pipes[1], getpgrp());
	if (mount("test", in_dir("auto"), "autofs", 0, options) < 0)
		return 77;
	CHECK(setpgid(0, 0) == 0);
	CHECK(backing_open(in_dir("auto"), &backing, NULL) == 0);
	CHECK(backing_identify(backing, backing_root_fd(backing), "file", &key, &st, NULL) == 0);
	CHECK(backing_has_handles(backing));
	backing_close(backing);
	return 0;
}

static void test_submount(void **state)
{
	(void)state;
	in_child(submount_hidden);
}

static void test_user(void **state)
{
	(void)state;
	in_child(as_user);
}

static void test_automount(void **state)
{
	(void)state;
	in_child(under_automount);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_nature), TEST(test_identity), TEST(test_keys), TEST(test_symlink_and_root), TEST(test_cache),
		TEST(test_attrs), TEST(test_xattr_decoding), TEST(test_proc_path), TEST(test_submount),
		TEST(test_user), TEST(test_automount),
	};

	return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}

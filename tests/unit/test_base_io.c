#include "io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[32]; /* fresh directory of the running test */
static int scratch_fd;

static int make_scratch(void **state)
{
	(void)state;
	strcpy(scratch, "/tmp/test_io.XXXXXX");
	if (!mkdtemp(scratch))
		return -1;
	scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return scratch_fd < 0 ? -1 : 0;
}

static int remove_scratch(void **state)
{
	char *command = io_printf("rm -rf '%s'", scratch);
	int rc = command ? system(command) : -1;

	(void)state;
	free(command);
	close(scratch_fd);
	return rc;
}

static int count_entries(void)
{
	DIR *directory = opendir(scratch);
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count - 2;
}

static void expect_content(const char *name, const char *content)
{
	struct buf buf = { 0 };
	struct error error;

	if (io_read_file(scratch_fd, name, 1 << 20, &buf, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(buf.length, strlen(content));
	assert_memory_equal(buf.data, content, buf.length);
	assert_true(buf.capacity > buf.length);
	buf_free(&buf);
}

static void test_whole_io(void **state)
{
	int fd = openat(scratch_fd, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600), ends[2];
	char back[16];

	(void)state;
	assert_int_equal(io_pwrite(fd, "hello", 5, 3), 0);
	assert_int_equal(io_pread(fd, back, sizeof back, 0), 8);
	assert_memory_equal(back, "\0\0\0hello", 8);
	assert_int_equal(io_pread(fd, back, 2, 3), 2);
	assert_int_equal(io_pread(fd, back, 2, 100), 0);
	close(fd);
	assert_int_equal(io_pread(-1, back, 1, 0), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(io_pwrite(-1, back, 1, 0), -1);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(io_write(ends[1], "ab", 2), 0);
	assert_int_equal(read(ends[0], back, 2), 2);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(io_write(-1, back, 1), -1);
}

static void test_mkdirs(void **state)
{
	char *path = io_printf("%s//a/b/c/", scratch), *below_file = io_printf("%s/f/x", scratch);
	struct error error;
	struct stat st;

	(void)state;
	assert_int_equal(io_mkdirs(path, &error), 0);
	assert_int_equal(io_mkdirs(path, &error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(io_replace_file(scratch_fd, "f", "x", 1, 0600, &error), 0);
	assert_int_equal(io_mkdirs(below_file, &error), ERR_FAILED);
	assert_int_equal(error.sys_errno, ENOTDIR);
	assert_int_equal(io_mkdirs("/", &error), 0);
	free(path);
	free(below_file);
}

static void test_read_file(void **state)
{
	struct buf buf = { 0 };
	struct error error;
	char *big = malloc(100000);

	(void)state;
	assert_int_equal(io_read_file(scratch_fd, "none", 10, &buf, &error), ERR_ABSENT);
	assert_int_equal(io_read_file(scratch_fd, ".", 10, &buf, &error), ERR_FAILED);
	assert_int_equal(mkfifoat(scratch_fd, "fifo", 0600), 0);
	assert_int_equal(io_read_file(scratch_fd, "fifo", 10, &buf, &error), ERR_FAILED);
	assert_int_equal(io_replace_file(scratch_fd, "f", "12345", 5, 0600, &error), 0);
	assert_int_equal(io_read_file(scratch_fd, "f", 4, &buf, &error), ERR_CORRUPT);
	assert_int_equal(io_read_file(scratch_fd, "f", 5, &buf, &error), 0);
	assert_int_equal(buf.length, 5);
	assert_int_equal(io_read_file(scratch_fd, "f", SIZE_MAX, &buf, &error), 0);
	assert_int_equal(buf.length, 5);
	assert_int_equal(io_replace_file(scratch_fd, "f", "", 0, 0600, &error), 0);
	assert_int_equal(io_read_file(scratch_fd, "f", 0, &buf, &error), 0);
	assert_int_equal(buf.length, 0);
	memset(big, 'b', 100000);
	assert_int_equal(io_replace_file(scratch_fd, "big", big, 100000, 0600, &error), 0);
	assert_int_equal(io_read_file(scratch_fd, "big", 100000, &buf, &error), 0);
	assert_int_equal(buf.length, 100000);
	assert_memory_equal(buf.data, big, 100000);
	/* stat says 0 bytes of this one. */
	assert_int_equal(io_read_file(AT_FDCWD, "/proc/self/status", 1 << 20, &buf, &error), 0);
	assert_true(buf.length > 100);
	buf_free(&buf);
	free(big);
}

static void test_replace_file(void **state)
{
	struct error error;
	struct stat st;
	mode_t mask = umask(077);
	char *path = io_printf("%s/abs", scratch);

	(void)state;
	assert_int_equal(io_replace_file(scratch_fd, "f", "one", 3, 0644, &error), 0);
	assert_int_equal(io_replace_file(scratch_fd, "f", "two!", 4, 0644, &error), 0);
	umask(mask);
	expect_content("f", "two!");
	assert_int_equal(fstatat(scratch_fd, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(mkdirat(scratch_fd, "d", 0700), 0);
	assert_int_equal(io_replace_file(scratch_fd, "d/g", "sub", 3, 0600, &error), 0);
	expect_content("d/g", "sub");
	assert_int_equal(io_replace_file(AT_FDCWD, path, "abs", 3, 0600, &error), 0);
	expect_content("abs", "abs");
	assert_int_equal(io_replace_file(scratch_fd, "none/g", "x", 1, 0600, &error), ERR_ABSENT);
	/* Failing leaves nothing behind. */
	assert_int_equal(io_replace_file(scratch_fd, "d", "x", 1, 0600, &error), ERR_FAILED);
	assert_int_equal(count_entries(), 3);
	free(path);
}

static void test_create_file(void **state)
{
	struct error error;

	(void)state;
	assert_int_equal(io_create_file(scratch_fd, "f", "one", 3, 0600, &error), 0);
	assert_int_equal(io_create_file(scratch_fd, "f", "two", 3, 0600, &error), ERR_EXISTS);
	expect_content("f", "one");
	assert_int_equal(count_entries(), 1);
}

static void test_small_things(void **state)
{
	uint8_t a[64] = { 0 }, b[64] = { 0 };
	char *text = io_printf("%s-%d", "x", 7);

	(void)state;
	assert_string_equal(text, "x-7");
	free(text);
	assert_int_equal(io_fsync_dir(scratch_fd), 0);
	assert_int_equal(io_fsync_dir(-1), -1);
	io_random(a, sizeof a);
	io_random(b, sizeof b);
	assert_memory_not_equal(a, b, sizeof a);
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, make_scratch, remove_scratch)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_SCRATCH(test_whole_io),     IN_SCRATCH(test_mkdirs),      IN_SCRATCH(test_read_file),
		IN_SCRATCH(test_replace_file), IN_SCRATCH(test_create_file), IN_SCRATCH(test_small_things),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

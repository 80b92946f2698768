/* io_row: the system calls of one row of `make bench`, without anything around them that would count too. Prints seconds, and the processor seconds of this
 * process, in user and kernel mode.
 *
 *   io_row read  seq|random BLOCK COUNT ro|rw PATH           from a file of at least that size
 *   io_row write seq|random BLOCK COUNT wo|rw PATH SIZE      into a file made before; SIZE 0: a new file, from its start
 *   io_row fsync BLOCK COUNT PATH                            writes at random offsets, fdatasync after each
 *   io_row create|stat|unlink DIR COUNT [SIZE]               DIR/dN/fN, 100 in a directory
 *   io_row create-fsync DIR COUNT SIZE                       fsync of each file
 *   io_row drop PATH...                                      their cached pages (not timed)
 *
 * The time includes open and close. Random offsets are the same in each run. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PER_DIRECTORY 100

static struct timespec begun;
static struct rusage usage_before;

static void stop_with(const char *what)
{
	fprintf(stderr, "io_row: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void begin(void)
{
	getrusage(RUSAGE_SELF, &usage_before);
	clock_gettime(CLOCK_MONOTONIC, &begun);
}

static double seconds_of(struct timeval after, struct timeval before)
{
	return (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_usec - before.tv_usec) / 1e6;
}

static void end(void)
{
	struct timespec now;
	struct rusage usage;

	clock_gettime(CLOCK_MONOTONIC, &now);
	getrusage(RUSAGE_SELF, &usage);
	printf("%.6f %.6f %.6f\n", (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) / 1e9,
	       seconds_of(usage.ru_utime, usage_before.ru_utime), seconds_of(usage.ru_stime, usage_before.ru_stime));
}

/* xorshift64 */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Not compressible, and different in each block. */
static char *make_block(size_t size)
{
	char *block = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
	uint64_t state = 88172645463325252u;

	if (!block)
		stop_with("memory");
	for (size_t i = 0; i + 8 <= size; i += 8) {
		uint64_t word = next_random(&state);
		memcpy(block + i, &word, 8);
	}
	return block;
}

static int open_or_stop(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		stop_with(path);
	return fd;
}

static int mode_of(const char *word)
{
	return strcmp(word, "ro") == 0 ? O_RDONLY : strcmp(word, "wo") == 0 ? O_WRONLY : O_RDWR;
}

static void read_row(char **words)
{
	int random = strcmp(words[0], "random") == 0;
	size_t block = strtoul(words[1], NULL, 10), count = strtoul(words[2], NULL, 10);
	char *data = make_block(block);
	uint64_t state = 1;

	begin();
	int fd = open_or_stop(words[4], mode_of(words[3]));
	size_t blocks = (size_t)lseek(fd, 0, SEEK_END) / block;
	for (size_t i = 0; i < count; i++) {
		size_t at = random ? next_random(&state) % blocks : i % blocks;
		if (pread(fd, data, block, (off_t)(at * block)) != (ssize_t)block)
			stop_with(words[4]);
	}
	close(fd);
	end();
	free(data);
}

static void write_row(char **words)
{
	int random = strcmp(words[0], "random") == 0;
	size_t block = strtoul(words[1], NULL, 10), count = strtoul(words[2], NULL, 10), size = strtoul(words[5], NULL, 10);
	size_t blocks = size ? size / block : count;
	char *data = make_block(block);
	uint64_t state = 1;

	begin();
	int fd = open_or_stop(words[4], mode_of(words[3]) | (size ? 0 : O_CREAT | O_TRUNC));
	for (size_t i = 0; i < count; i++) {
		size_t at = random ? next_random(&state) % blocks : i % blocks;
		memcpy(data, &i, sizeof i);
		if (pwrite(fd, data, block, (off_t)(at * block)) != (ssize_t)block)
			stop_with(words[4]);
	}
	close(fd);
	end();
	free(data);
}

static void fsync_row(char **words)
{
	size_t block = strtoul(words[0], NULL, 10), count = strtoul(words[1], NULL, 10);
	char *data = make_block(block);
	uint64_t state = 1;

	begin();
	int fd = open_or_stop(words[2], O_RDWR);
	size_t blocks = (size_t)lseek(fd, 0, SEEK_END) / block;
	for (size_t i = 0; i < count; i++) {
		memcpy(data, &i, sizeof i);
		if (pwrite(fd, data, block, (off_t)(next_random(&state) % blocks * block)) != (ssize_t)block || fdatasync(fd) != 0)
			stop_with(words[2]);
	}
	close(fd);
	end();
	free(data);
}

static void path_of(char *out, size_t room, const char *top, size_t i)
{
	snprintf(out, room, "%s/d%zu/f%zu", top, i / PER_DIRECTORY, i);
}

static void create_row(char **words, int sync)
{
	size_t count = strtoul(words[1], NULL, 10), size = strtoul(words[2], NULL, 10);
	char *data = make_block(size + 8);
	char path[4096];

	begin();
	for (size_t i = 0; i < count; i++) {
		if (i % PER_DIRECTORY == 0) {
			snprintf(path, sizeof path, "%s/d%zu", words[0], i / PER_DIRECTORY);
			if (mkdir(path, 0755) != 0 && errno != EEXIST)
				stop_with(path);
		}
		path_of(path, sizeof path, words[0], i);
		int fd = open_or_stop(path, O_WRONLY | O_CREAT | O_EXCL);
		memcpy(data, &i, sizeof i);
		if (write(fd, data, size) != (ssize_t)size || (sync && fsync(fd) != 0))
			stop_with(path);
		close(fd);
	}
	end();
	free(data);
}

static void each_row(char **words, int (*act)(const char *path))
{
	size_t count = strtoul(words[1], NULL, 10);
	char path[4096];

	begin();
	for (size_t i = 0; i < count; i++) {
		path_of(path, sizeof path, words[0], i);
		if (act(path) != 0)
			stop_with(path);
	}
	end();
}

static int stat_one(const char *path)
{
	struct stat st;

	return stat(path, &st);
}

static void drop(char **paths, int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open_or_stop(paths[i], O_RDONLY);
		fsync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	const char *row = argc > 1 ? argv[1] : "";
	char **words = argv + 2;
	int count = argc - 2;

	if (strcmp(row, "read") == 0 && count == 5)
		read_row(words);
	else if (strcmp(row, "write") == 0 && count == 6)
		write_row(words);
	else if (strcmp(row, "fsync") == 0 && count == 3)
		fsync_row(words);
	else if (strcmp(row, "create") == 0 && count == 3)
		create_row(words, 0);
	else if (strcmp(row, "create-fsync") == 0 && count == 3)
		create_row(words, 1);
	else if (strcmp(row, "stat") == 0 && count == 2)
		each_row(words, stat_one);
	else if (strcmp(row, "unlink") == 0 && count == 2)
		each_row(words, unlink);
	else if (strcmp(row, "drop") == 0)
		drop(words, count);
	else {
		fprintf(stderr, "io_row: see the comment at its start\n");
		return 2;
	}
	return 0;
}

/* append_stress: processes append records to the same files without any lock of their own, through descriptors of every mode.
 *
 *   append_stress [-s SEED] [-t SECONDS] [-p PROCESSES] [-n] DIR
 *
 *   log       records of any size; each that was acknowledged is there, whole, once, those of one process in their order
 *   direct    the same with direct I/O, in whole pages
 *   emptied   the same, but now and then somebody empties it: what is left has no gaps
 *
 * Readers of `log` look meanwhile: what was acknowledged before they look is there. -n: nothing is appended to `direct`: on XFS itself two such writes may choose the same place. Exit code 0,
 * or 1 with what was wrong. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 16
#define MAX_RECORD 12288
#define MAX_FILE (INT64_C(24) << 20) /* is emptied, or not appended to any more */
#define MAGIC 0x52434552u

enum { LOG, DIRECT, EMPTIED, LOGS };
static const char *const names[LOGS] = {"log", "direct", "emptied"};

struct header { uint32_t magic, worker, length, sum; uint64_t sequence; };

static struct shared {
	_Atomic bool failed;
	_Atomic uint64_t acknowledged[LOGS][MAX_WORKERS];
	_Atomic uint64_t looks;
} *shared;

static uint64_t seed, random_state;
static int me = -1, workers = 4;
static bool no_direct;

static int64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static uint64_t below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state * UINT64_C(0x2545F4914F6CDD1D) >> 16) % limit;
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
	va_list args;

	if (!atomic_exchange(&shared->failed, true)) {
		printf("FAIL seed %llu worker %d: ", (unsigned long long)seed, me);
		va_start(args, format);
		vprintf(format, args);
		va_end(args);
		printf("\n");
		fflush(stdout);
	}
	_exit(1);
}

static uint32_t sum_of(const uint8_t *bytes, size_t length)
{
	uint32_t sum = 2166136261u;

	for (size_t i = 0; i < length; i++)
		sum = (sum ^ bytes[i]) * 16777619u;
	return sum;
}

/* ------------------------------------------------------------------ writing */

static size_t make_record(uint8_t *out, int log, uint64_t sequence)
{
	size_t length = log == DIRECT ? 4096 * (1 + below(3)) : sizeof(struct header) + below(below(4) ? 300 : MAX_RECORD - sizeof(struct header));
	struct header header = {.magic = MAGIC, .worker = (uint32_t)me, .length = (uint32_t)length, .sequence = sequence};
	uint8_t *body = out + sizeof header;

	for (size_t i = 0; i < length - sizeof header; i++)
		body[i] = (uint8_t)(i * 7 + sequence * 13 + (uint64_t)me + 1);
	header.sum = sum_of(body, length - sizeof header);
	memcpy(out, &header, sizeof header);
	return length;
}

struct appender { int fd; bool own_append; }; /* own_append: without O_APPEND, by RWF_APPEND */

static void open_anew(struct appender *appender, int log)
{
	int flags = (below(2) ? O_WRONLY : O_RDWR) | O_CLOEXEC | (log == DIRECT ? O_DIRECT : 0);

	if (appender->fd >= 0 && close(appender->fd) != 0)
		fail("%s: close: %s", names[log], strerror(errno));
	appender->own_append = below(4) == 0;
	flags |= appender->own_append ? 0 : O_APPEND;
	flags |= below(10) ? 0 : below(2) ? O_SYNC : O_DSYNC;
	appender->fd = open(names[log], flags);
	if (appender->fd < 0)
		fail("%s: open with flags %#o: %s", names[log], (unsigned)flags, strerror(errno));
}

static void append(struct appender *appender, int log, uint8_t *buffer)
{
	struct stat st;

	if (appender->fd < 0 || below(6) == 0)
		open_anew(appender, log);
	if (fstat(appender->fd, &st) == 0 && st.st_size > MAX_FILE)
		return;
	uint64_t sequence = shared->acknowledged[log][me];
	struct iovec part = {buffer, make_record(buffer, log, sequence)};
	ssize_t count = appender->own_append ? pwritev2(appender->fd, &part, 1, 0, RWF_APPEND) : pwrite(appender->fd, buffer, part.iov_len, 0);
	if (count != (ssize_t)part.iov_len)
		fail("%s: append of %zu bytes: %zd, %s", names[log], part.iov_len, count, strerror(errno));
	shared->acknowledged[log][me] = sequence + 1;
}

static void make_empty(void)
{
	int fd = -1, rc = 0;

	switch (below(3)) {
	case 0: rc = truncate(names[EMPTIED], 0); break;
	case 1: fd = open(names[EMPTIED], O_WRONLY | O_TRUNC | O_CLOEXEC); break;
	default:
		fd = open(names[EMPTIED], O_RDWR | O_CLOEXEC);
		rc = fd < 0 ? -1 : ftruncate(fd, 0);
	}
	if (rc != 0)
		fail("emptying: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* ------------------------------------------------------------------ reading */

/* The number of the record of each worker that must come next; with `gaps` the first one may be any. */
struct seen { uint64_t next[MAX_WORKERS]; bool any[MAX_WORKERS]; };

/* `whole`: nobody writes any more; else the last record may be there in part. */
static void parse(const char *name, const uint8_t *bytes, size_t size, bool whole, bool from_any, struct seen *seen)
{
	memset(seen, 0, sizeof *seen);
	for (size_t at = 0; at < size;) {
		struct header header;
		size_t left = size - at;
		if (!whole && left < sizeof header)
			return;
		memcpy(&header, bytes + at, left < sizeof header ? left : sizeof header);
		if (left < sizeof header || header.magic != MAGIC || header.worker >= MAX_WORKERS || header.length < sizeof header || header.length > MAX_RECORD)
			fail("%s: no record at %zu of %zu bytes", name, at, size);
		if (!whole && header.length > left)
			return;
		if (header.length > left || sum_of(bytes + at + sizeof header, header.length - sizeof header) != header.sum)
			fail("%s: the record %llu of worker %u at %zu of %zu bytes is torn", name, (unsigned long long)header.sequence, header.worker, at, size);
		if (header.sequence != seen->next[header.worker] && !(from_any && !seen->any[header.worker]))
			fail("%s: at %zu worker %u goes on with record %llu instead of %llu", name, at, header.worker, (unsigned long long)header.sequence,
			     (unsigned long long)seen->next[header.worker]);
		seen->any[header.worker] = true;
		seen->next[header.worker] = header.sequence + 1;
		at += header.length;
	}
}

static void look(int log, bool whole)
{
	uint64_t before[MAX_WORKERS];
	struct seen seen;

	for (int i = 0; i < workers; i++)
		before[i] = shared->acknowledged[log][i];
	int fd = open(names[log], O_RDONLY | O_CLOEXEC);
	/* Not fstat(2): FUSE answers it with the size of the moment, while the end for read(2) and page faults moves when the write is answered. */
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (end < 0)
		fail("%s: open: %s", names[log], strerror(errno));
	size_t size = (size_t)end;
	bool map = size && below(2);
	uint8_t *bytes = map ? mmap(NULL, size, PROT_READ, below(2) ? MAP_SHARED : MAP_PRIVATE, fd, 0) : malloc(size + 1);
	if (!bytes || bytes == MAP_FAILED)
		fail("%s: mmap: %s", names[log], strerror(errno));
	for (size_t done = 0; !map && done < size;) {
		ssize_t count = pread(fd, bytes + done, size - done, (off_t)done);
		if (count <= 0)
			fail("%s: read at %zu of %zu: %zd, %s", names[log], done, size, count, strerror(errno));
		done += (size_t)count;
	}
	parse(names[log], bytes, size, whole, log == EMPTIED, &seen);
	for (int i = 0; i < workers && log != EMPTIED; i++)
		if (seen.next[i] < before[i] || (whole && seen.next[i] != before[i]))
			fail("%s: %zu bytes with %llu records of worker %d, which had %llu acknowledged", names[log], size, (unsigned long long)seen.next[i], i,
			     (unsigned long long)before[i]);
	if (map)
		munmap(bytes, size);
	else
		free(bytes);
	close(fd);
	shared->looks++;
}

/* ------------------------------------------------------------------ */

static void work(int number, int64_t deadline_ns)
{
	static uint8_t buffer[MAX_RECORD] __attribute__((aligned(4096)));
	struct appender appenders[LOGS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};

	me = number;
	random_state = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ ((uint64_t)number + 1) * UINT64_C(0xBF58476D1CE4E5B9);
	while (now_ns() < deadline_ns && !shared->failed) {
		int log = (int)below(LOGS);
		if (log != DIRECT || !no_direct)
			append(&appenders[log], log, buffer);
		if (below(50) == 0)
			make_empty();
		if (below(60) == 0)
			look(LOG, false);
	}
	_exit(shared->failed);
}

int main(int argc, char **argv)
{
	int option, bad = 0, status;
	double seconds = 10;

	seed = (uint64_t)now_ns();
	while ((option = getopt(argc, argv, "s:t:p:n")) != -1) {
		switch (option) {
		case 's': seed = strtoull(optarg, NULL, 10); break;
		case 't': seconds = strtod(optarg, NULL); break;
		case 'p': workers = atoi(optarg); break;
		case 'n': no_direct = true; break;
		default: optind = argc;
		}
	}
	if (optind + 1 != argc || workers < 1 || workers > MAX_WORKERS) {
		fprintf(stderr, "usage: append_stress [-s SEED] [-t SECONDS] [-p PROCESSES] [-n] DIR\n");
		return 2;
	}
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	random_state = seed | 1;
	if (shared == MAP_FAILED || chdir(argv[optind]) != 0) {
		fprintf(stderr, "append_stress: %s: %s\n", argv[optind], strerror(errno));
		return 2;
	}
	printf("seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < LOGS; i++) {
		int fd = open(names[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0)
			fail("%s: %s", names[i], strerror(errno));
		close(fd);
	}
	fflush(stdout);
	int64_t deadline_ns = now_ns() + (int64_t)(seconds * 1e9);
	for (int i = 0; i < workers; i++) {
		pid_t pid = fork();
		if (pid < 0)
			fail("fork: %s", strerror(errno));
		if (pid == 0)
			work(i, deadline_ns);
	}
	while (wait(&status) > 0)
		bad |= status != 0;
	for (int i = 0; i < LOGS && !bad; i++)
		look(i, true);
	uint64_t all[LOGS] = {0};
	for (int i = 0; i < LOGS; i++)
		for (int k = 0; k < workers; k++)
			all[i] += shared->acknowledged[i][k];
	printf("%llu, %llu and %llu records of %d processes, read %llu times\n", (unsigned long long)all[LOG], (unsigned long long)all[DIRECT],
	       (unsigned long long)all[EMPTIED], workers, (unsigned long long)shared->looks);
	return bad;
}

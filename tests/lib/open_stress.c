/* open_stress: processes open, read, write, map and replace a few files in every way there is, side by side, and compare
 * each byte with what it should be (stress_model.h). As fsx, but with many descriptors of random modes on one inode.
 *
 *   open_stress [-s SEED] [-t SECONDS] [-p PROCESSES] [-f FILES] [-x OPERATION,...] [-c] [-r] [-w] DIR
 *
 * Exit code 0: all was as it should be. 1: it was not; seed, worker, step and the steps that led there are printed.
 * What a local filesystem never answers is a failure: EIO, ETXTBSY, a short write, old bytes, SIGBUS. That nothing more is
 * asked for is shown by a run on one. -x leaves operations out, to find the one that matters. -c: the bytes come from XFS,
 * which answers EIO where direct I/O meets stores (stress_data.c). -r: a mount with passthrough, which refuses splice(2) and sendfile(2) from
 * descriptors that can write or were opened with O_DIRECT. -w: a write that makes a file longer begins on a page of its own: Linux >= 6.17
 * loses it otherwise when FUSE keeps the pages and writes back the old last one, stored to through a mapping, meanwhile. The files stay in DIR. */
#include "stress_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 64
#define HANG_SECONDS 60 /* beyond the time that was given */

static struct operation {
	const char *name;
	int weight;
	void (*function)(void);
} operations[] = {
	{"open", 12, do_open},
	{"open and close", 6, do_open_close},
	{"create", 4, do_open_create},
	{"reopen", 4, do_reopen},
	{"close", 10, do_close},
	{"dup", 2, do_dup},
	{"flags", 2, do_flags},
	{"replace", 2, do_replace},
	{"program", 1, do_program},
	{"program open", 1, do_program_open},
	{"read", 16, do_read},
	{"splice read", 3, do_splice_read},
	{"seek", 3, do_seek},
	{"stat", 4, do_stat},
	{"write", 18, do_write},
	{"splice write", 3, do_splice_write},
	{"append", 4, do_append},
	{"truncate", 4, do_truncate},
	{"allocate", 3, do_allocate},
	{"zero", 4, do_zero},
	{"copy", 4, do_copy},
	{"sendfile", 3, do_sendfile},
	{"sync", 4, do_sync},
	{"attributes", 2, do_attributes},
	{"map", 8, do_map},
	{"load", 14, do_load},
	{"store", 14, do_store},
	{"child store", 1, do_child_store},
	{"msync", 4, do_msync},
	{"unmap", 4, do_unmap},
};
#define OPERATIONS (sizeof operations / sizeof *operations)

static int64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	fail("signal %d at %p", number, info->si_addr);
}

/* ------------------------------------------------------------------ before and after */

static bool allocates(int fd, int mode)
{
	if (fallocate(fd, mode, 0, STRESS_PAGE) == 0)
		return true;
	if (errno != EOPNOTSUPP)
		fail("fallocate of mode %d: %s", mode, strerror(errno));
	return false;
}

static void probe(void)
{
	int fd = open("probe", O_RDWR | O_CREAT, 0600), other = open(".", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0 || ftruncate(fd, STRESS_SIZE) != 0)
		fail("probe: %s", strerror(errno));
	if (other < 0 && errno != EOPNOTSUPP)
		fail("O_TMPFILE: %s", strerror(errno));
	w.can_tmpfile = other >= 0;
	w.can_keep = allocates(fd, FALLOC_FL_KEEP_SIZE);
	w.can_punch = allocates(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	w.can_zero = allocates(fd, FALLOC_FL_ZERO_RANGE);
	printf("can:%s%s%s%s\n", w.can_tmpfile ? " tmpfile" : "", w.can_keep ? " keep" : "", w.can_punch ? " punch" : "", w.can_zero ? " zero" : "");
	fflush(stdout);
	close(fd);
	if (other >= 0)
		close(other);
	unlink("probe");
}

static void make_files(void)
{
	for (int slot = 0; slot < w.model->slots; slot++) {
		int fd = open(slot_name(slot), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		struct stress_image *image = image_of(slot, 0);
		stress_fill(image->bytes, STRESS_SIZE / 2, 0, 1);
		image->size = STRESS_SIZE / 2;
		if (fd < 0 || write(fd, image->bytes, STRESS_SIZE / 2) != STRESS_SIZE / 2 || close(fd) != 0)
			fail("%s: %s", slot_name(slot), strerror(errno));
	}
}

/* Each file once more, when all have ended. */
static void check_files(void)
{
	static uint8_t bytes[STRESS_SIZE + 1];

	for (int slot = 0; slot < w.model->slots; slot++) {
		uint32_t generation = w.model->slot[slot].generation;
		int64_t size = image_of(slot, generation)->size;
		int fd = open(slot_name(slot), O_RDONLY | O_CLOEXEC);
		ssize_t count = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
		if (count != size)
			fail_at(slot, 0, STRESS_SIZE, "at the end it has %zd bytes, not %lld: %s", count, (long long)size, strerror(errno));
		compare("at the end", bytes, slot, generation, 0, size);
		close(fd);
	}
}

/* ------------------------------------------------------------------ workers */

static struct operation *choose(void)
{
	int64_t sum = 0;

	for (size_t i = 0; i < OPERATIONS; i++)
		sum += operations[i].weight;
	int64_t left = below(sum);
	struct operation *operation = operations;
	while ((left -= operation->weight) >= 0)
		operation++;
	return operation;
}

static void prepare_worker(int number)
{
	static const int signals[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE};
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	w.number = number;
	w.random = (w.seed + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ ((uint64_t)number + 1) * UINT64_C(0xBF58476D1CE4E5B9);
	for (int i = 0; i < 10; i++)
		random_next();
	w.locks = stress_locks_open(w.model);
	for (int i = 0; i < MAX_FILES; i++)
		w.files[i].fd = -1;
	if (posix_memalign((void **)&w.buffer, STRESS_PAGE, STRESS_SIZE) != 0)
		fail("memory");
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &action, NULL);
}

static void work(int number, int64_t deadline_ns, _Atomic uint64_t *counts)
{
	prepare_worker(number);
	while (now_ns() < deadline_ns && !w.model->failed) {
		struct operation *operation = choose();
		w.step++;
		w.doing = operation->name;
		operation->function();
		atomic_fetch_add_explicit(&counts[operation - operations], 1, memory_order_relaxed);
	}
	w.doing = "the end";
	unmap_all();
	for (int i = 0; i < MAX_FILES; i++)
		close_file(&w.files[i]);
	_exit(w.model->failed);
}

/* What hangs is a failure too. */
static int wait_for(pid_t *workers, int count, int64_t until_ns)
{
	int bad = 0, left = count;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (left > 0) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0) {
			left--;
			bad |= status != 0;
			continue;
		}
		int64_t rest = until_ns - now_ns();
		if (rest <= 0) {
			printf("FAIL seed %llu: %d workers have not ended\n", (unsigned long long)w.seed, left);
			fflush(stdout);
			for (int i = 0; i < count; i++)
				kill(workers[i], SIGKILL);
			return 1;
		}
		sigtimedwait(&set, NULL, &(struct timespec){.tv_sec = rest / 1000000000, .tv_nsec = rest % 1000000000});
	}
	return bad;
}

static void leave_out(char *names)
{
	for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
		bool found = false;
		for (size_t i = 0; i < OPERATIONS; i++) {
			if (strcmp(operations[i].name, name) != 0)
				continue;
			operations[i].weight = 0;
			found = true;
		}
		if (!found) {
			fprintf(stderr, "open_stress: -x %s: there is no such operation\n", name);
			exit(2);
		}
	}
}

static void usage(void)
{
	fprintf(stderr, "usage: open_stress [-s SEED] [-t SECONDS] [-p PROCESSES] [-f FILES] [-x OPERATION,...] [-c] [-r] [-w] DIR\n");
	exit(2);
}

int main(int argc, char **argv)
{
	int option, workers = 4, files = 3;
	pid_t pids[MAX_WORKERS];
	double seconds = 10;
	sigset_t set;

	if (argc == 2 && strcmp(argv[1], "--program") == 0) /* stress_open.c */
		return PROGRAM_CODE;
	w.seed = (uint64_t)now_ns();
	while ((option = getopt(argc, argv, "s:t:p:f:x:crw")) != -1) {
		switch (option) {
		case 's': w.seed = strtoull(optarg, NULL, 10); break;
		case 't': seconds = strtod(optarg, NULL); break;
		case 'p': workers = atoi(optarg); break;
		case 'f': files = atoi(optarg); break;
		case 'c': w.may_collide = true; break;
		case 'r': w.may_refuse = true; break;
		case 'w': w.whole_pages = true; break;
		case 'x': leave_out(optarg); break;
		default: usage();
		}
	}
	if (optind + 1 != argc || workers < 1 || workers > MAX_WORKERS || files < 1)
		usage();
	if (chdir(argv[optind]) != 0) {
		fprintf(stderr, "open_stress: %s: %s\n", argv[optind], strerror(errno));
		return 2;
	}
	w.model = stress_model_new(files);
	w.doing = "preparation";
	_Atomic uint64_t *counts = mmap(NULL, sizeof *counts * OPERATIONS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	printf("seed %llu\n", (unsigned long long)w.seed);
	probe();
	make_files();
	fflush(stdout);

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int64_t deadline_ns = now_ns() + (int64_t)(seconds * 1e9);
	for (int i = 0; i < workers; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			fail("fork: %s", strerror(errno));
		if (pids[i] == 0)
			work(i, deadline_ns, counts);
	}
	int bad = wait_for(pids, workers, deadline_ns + HANG_SECONDS * INT64_C(1000000000));
	if (!bad)
		check_files();
	uint64_t all = 0;
	for (size_t i = 0; i < OPERATIONS; i++)
		all += counts[i];
	printf("%llu steps of %d processes:", (unsigned long long)all, workers);
	for (size_t i = 0; i < OPERATIONS; i++)
		printf("%s %s %llu", i ? "," : "", operations[i].name, (unsigned long long)counts[i]);
	printf("\n");
	return bad;
}

#include "extract_internal.h"

#include "clock.h"
#include "io.h"
#include "pool.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (1 << 20)
#define PROGRESS_NS (NS_PER_S / 10)

/* One of the parallel writers. */
struct worker {
	struct extract *x;
	uint8_t *buffer;
	uint32_t place; /* of dirfd; EXTRACT_NONE: none */
	int dirfd;
};

/* Files that lie together in a pack mostly come from one directory. */
static int go_to(struct worker *worker, uint32_t place)
{
	if (worker->place == place)
		return worker->dirfd;
	if (worker->dirfd >= 0)
		close(worker->dirfd);
	worker->dirfd = extract_open_place(worker->x, place);
	worker->place = worker->dirfd >= 0 ? place : EXTRACT_NONE;
	return worker->dirfd;
}

static int copy_range(struct worker *worker, struct history_file *file, int fd, int64_t from, int64_t to, struct error *error)
{
	while (from < to) {
		size_t want = to - from < PIECE_BYTES ? (size_t)(to - from) : PIECE_BYTES;
		int64_t got = history_read(file, worker->buffer, want, from, error);

		if (got < 0)
			return (int)got;
		if (got == 0)
			return error_set(error, ERR_CORRUPT, 0, "a file ends before its size");
		if (io_pwrite(fd, worker->buffer, (size_t)got, from) < 0)
			return error_errno(error, errno, "cannot write");
		from += got;
		atomic_fetch_add(&worker->x->written, (uint64_t)got);
		if (extract_stopping(worker->x))
			return ERR_ABANDONED;
	}
	return 0;
}

/* Holes stay holes. */
static int copy_bytes(struct worker *worker, struct history_file *file, int fd, struct error *error)
{
	int64_t size = history_size(file), at = 0;
	int rc;

	while (at < size) {
		int64_t data = history_seek(file, at, SEEK_DATA), hole;

		if (data == -ENXIO)
			data = size;
		if (data < 0)
			return error_errno(error, (int)-data, "cannot read the catalogue");
		if (data >= size)
			break;
		hole = history_seek(file, data, SEEK_HOLE);
		if (hole <= data)
			return error_errno(error, hole < 0 ? (int)-hole : EIO, "cannot read the catalogue");
		rc = copy_range(worker, file, fd, data, hole < size ? hole : size, error);
		if (rc < 0)
			return rc;
		at = hole;
	}
	/* A hole at the end. */
	if (ftruncate(fd, size) < 0)
		return error_errno(error, errno, "cannot write");
	return 0;
}

static int write_attrs(struct extract *x, const struct entry *entry, int fd, struct error *error)
{
	struct inode_hold hold;
	struct db_conn *conn;
	bool lacking = false;
	int rc = db_read_begin(volume_db(x->volume), &conn, error);

	if (rc < 0)
		return rc;
	rc = catalogue_inode(conn, x->seq, entry->ino, &hold);
	db_read_end(volume_db(x->volume), conn);
	if (rc < 0)
		return error_set(error, rc, 0, "cannot read the catalogue: %s", error_word(rc));
	rc = extract_attrs(x, fd, &hold.row, &lacking);
	inode_hold_free(&hold);
	if (rc < 0)
		return error_errno(error, -rc, "cannot set mode, owner, times or attributes");
	if (lacking)
		atomic_fetch_add(&x->skipped, 1);
	return 0;
}

static int write_file(struct worker *worker, const struct entry *entry, int fd, struct error *error)
{
	struct history_file *file;
	int rc = history_open(worker->x->volume, worker->x->seq, entry->ino, &file, error);

	if (rc < 0)
		return rc;
	history_copy_once(file);
	rc = copy_bytes(worker, file, fd, error);
	history_close(file);
	return rc < 0 ? rc : write_attrs(worker->x, entry, fd, error);
}

/* Never a file with wrong or missing bytes. True when it may be left out and the rest go on. */
static bool leave_out(struct extract *x, struct entry *entry, int dirfd, int code, const struct error *why)
{
	char path[1024];

	if ((code != ERR_CORRUPT && code != ERR_ABSENT) || !x->options->damaged)
		return false;
	unlinkat(dirfd, extract_name(x, entry->name), 0);
	entry->left_out = true;
	atomic_fetch_add(&x->damaged, 1);
	extract_path(x, entry, path, sizeof path);
	pthread_mutex_lock(&x->lock);
	x->options->damaged(x->options->context, path, why);
	pthread_mutex_unlock(&x->lock);
	return true;
}

static void one_file(struct worker *worker, struct entry *entry)
{
	struct extract *x = worker->x;
	struct error error = { 0 }, told;
	char path[1024];
	int rc, fd, dirfd = go_to(worker, entry->dir);

	fd = dirfd < 0 ? -1
		       : openat(dirfd, extract_name(x, entry->name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		extract_fail_errno(x, entry, errno);
		return;
	}
	rc = write_file(worker, entry, fd, &error);
	/* Some network filesystems tell of a full disk only now. */
	if (close(fd) < 0 && rc == 0)
		rc = error_errno(&error, errno, "cannot write");
	if (rc == 0) {
		atomic_fetch_add(&x->inodes, 1);
	} else if (!leave_out(x, entry, dirfd, rc, &error) && !atomic_load(&x->failed)) {
		extract_path(x, entry, path, sizeof path);
		error_set(&told, rc, error.sys_errno, "%s: %s", path, error.message);
		extract_fail(x, rc, &told);
	}
}

static void work(void *context)
{
	struct worker *worker = context;
	struct extract *x = worker->x;
	size_t i;

	while (!extract_stopping(x) && (i = atomic_fetch_add(&x->next, 1)) < x->sorted_count)
		one_file(worker, &x->entries[x->sorted[i]]);
	if (worker->dirfd >= 0)
		close(worker->dirfd);
	free(worker->buffer);
	free(worker);
	pthread_mutex_lock(&x->lock);
	x->running--;
	pthread_cond_signal(&x->ended);
	pthread_mutex_unlock(&x->lock);
}

static bool start(struct extract *x, struct pool *pool)
{
	struct worker *worker = calloc(1, sizeof *worker);
	uint8_t *buffer = malloc(PIECE_BYTES);

	if (!worker || !buffer) {
		free(worker);
		free(buffer);
		return false;
	}
	*worker = (struct worker){ .x = x, .buffer = buffer, .place = EXTRACT_NONE, .dirfd = -1 };
	pthread_mutex_lock(&x->lock);
	x->running++;
	pthread_mutex_unlock(&x->lock);
	pool_submit_wait(pool, work, worker);
	return true;
}

/* This thread only tells how far the others are. */
static void watch(struct extract *x)
{
	const struct extract_options *options = x->options;

	pthread_mutex_lock(&x->lock);
	while (x->running > 0) {
		struct timespec deadline = clock_deadline(PROGRESS_NS);

		if (pthread_cond_timedwait(&x->ended, &x->lock, &deadline) != ETIMEDOUT || !options->progress)
			continue;
		pthread_mutex_unlock(&x->lock);
		options->progress(options->context, "restoring", atomic_load(&x->written), x->total_bytes, "bytes");
		pthread_mutex_lock(&x->lock);
	}
	pthread_mutex_unlock(&x->lock);
	if (options->progress)
		options->progress(options->context, "restoring", atomic_load(&x->written), x->total_bytes, "bytes");
}

static int compare_order(const void *a, const void *b, void *context)
{
	const struct entry *entries = context;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

	if (entries[i].order != entries[j].order)
		return entries[i].order < entries[j].order ? -1 : 1;
	return i < j ? -1 : i > j;
}

int extract_bodies(struct extract *x)
{
	size_t jobs = x->options->jobs < 1 ? 1 : x->options->jobs > 16 ? 16 : (size_t)x->options->jobs;
	struct pool *pool;
	bool enough = false;

	if (x->sorted_count == 0)
		return 0;
	qsort_r(x->sorted, x->sorted_count, sizeof *x->sorted, compare_order, x->entries);
	if (jobs > x->sorted_count)
		jobs = x->sorted_count;
	pool = pool_new((unsigned)jobs, "extract", jobs);
	for (size_t i = 0; pool && i < jobs; i++)
		enough |= start(x, pool);
	if (enough)
		watch(x);
	pool_free(pool);
	if (!enough) {
		struct error error;

		extract_fail(x, error_errno(&error, ENOMEM, "cannot restore"), &error);
	}
	return x->result;
}

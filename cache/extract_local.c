/* What this machine knows of the tree after a clone: local_inode, so that the first rescan finds nothing (I8). */
#include "extract_internal.h"

#include "clock.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GRANULARITY_NS (NS_PER_S / 50) /* kernels stamp inodes with a clock that ticks 100 times a second, at the least */
#define ROWS_MAX 2000                  /* in a transaction */

struct recording {
	struct extract *x;
	struct db_conn *conn;
	int rows;
};

/* Later changes must get another ctime than the one that we write down. Twice as long as need be: the wall clock may be set back a little meanwhile. */
static void let_clock_tick(void)
{
	struct timespec time = { .tv_nsec = 2 * GRANULARITY_NS };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) == EINTR)
		;
}

static int transaction(struct recording *recording)
{
	struct db *db = volume_db(recording->x->volume);
	struct error error;
	int rc = 0;

	if (recording->conn && recording->rows >= ROWS_MAX) {
		recording->conn = NULL;
		rc = db_commit(db, &error);
		db_tidy(db);
	}
	if (rc == 0 && !recording->conn) {
		recording->rows = 0;
		rc = db_begin(db, false, &recording->conn, &error);
	}
	return rc < 0 ? extract_fail(recording->x, rc, &error) : 0;
}

static int record_one(struct recording *recording, int dirfd, const char *name, int64_t ino)
{
	struct local_row row = { .ino = ino, .captured = recording->x->seq };
	struct timespec now;
	struct node_key key;
	struct error error;
	struct stat st;
	int rc = transaction(recording);

	if (rc < 0)
		return rc;
	rc = backing_identify(volume_backing(recording->x->volume), dirfd, name, &key, &st, NULL);
	/* Of a directory that its own modes hide from us; the rescan can't look either. */
	if (rc == -EACCES || rc == -ENOENT)
		return 0;
	if (rc < 0)
		return extract_fail(recording->x, error_errno(&error, -rc, "cannot look at %s", name), &error);
	/* The clock that stamps inodes, not ours, which tests may shift. */
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	row.size = st.st_size;
	row.mtime_ns = timespec_ns(st.st_mtim);
	row.ctime_ns = timespec_ns(st.st_ctim);
	row.racy = row.ctime_ns > timespec_ns(now) - GRANULARITY_NS;
	recording->rows++;
	rc = catalogue_local_set(recording->conn, key.bytes, key.length, &row, &error);
	return rc < 0 ? extract_fail(recording->x, rc, &error) : 0;
}

static int record_place(struct recording *recording, const struct place *place)
{
	struct extract *x = recording->x;
	int rc, fd = extract_open_place(x, (uint32_t)(place - x->places));
	struct error error;

	if (fd < 0)
		return errno == EACCES ? 0 : extract_fail(x, error_errno(&error, errno, "cannot look at a directory"), &error);
	rc = record_one(recording, fd, "", place->ino);
	for (uint32_t i = place->first; i < place->first + place->count && rc == 0; i++)
		if (!x->entries[i].left_out)
			rc = record_one(recording, fd, extract_name(x, x->entries[i].name), x->entries[i].ino);
	close(fd);
	return rc;
}

int extract_record(struct extract *x)
{
	struct recording recording = { .x = x };
	struct error error;
	int rc = 0;

	/* Captured says that the bytes are ours for good: they must not be lost in a power cut that leaves the stat (I8, I10). */
	if (syncfs(x->base_fd) < 0)
		return extract_fail(x, error_errno(&error, errno, "cannot bring the files to the disk"), &error);
	let_clock_tick();
	for (size_t i = 0; i < x->place_count && rc == 0; i++)
		if (i > 0 || x->base_is_new)
			rc = extract_stopping(x) ? x->result : record_place(&recording, &x->places[i]);
	if (!recording.conn)
		return rc;
	if (rc < 0)
		db_rollback(volume_db(x->volume));
	else if ((rc = db_commit(volume_db(x->volume), &error)) < 0)
		extract_fail(x, rc, &error);
	return rc;
}

#include "import.h"

#include "behind.h"
#include "by_name.h"
#include "clock.h"
#include "failpoint.h"
#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH_INODES 20000
#define BATCH_BYTES (UINT64_C(256) << 20)
#define ROWS_AT_ONCE 256

/* ---------------------------------------------------------------- one inode: a sealer's work */

struct source { /* an open file, not frozen */
	int fd;
	struct stat before;
	bool failed; /* its bytes could not be read */
};

static int read_live(void *context, void *data, size_t length, int64_t offset, struct error *error)
{
	struct source *source = context;
	ssize_t got = io_pread(source->fd, data, length, offset);

	if (got < 0) {
		source->failed = !backing_is_shortage(errno);
		return error_errno(error, errno, "reading a file of the tree");
	}
	memset((uint8_t *)data + got, 0, length - (size_t)got); /* shrunk: source_finish sees it */
	return 0;
}

static int64_t next_live(void *context, int64_t offset, int64_t end)
{
	const struct source *source = context;
	off_t at = lseek(source->fd, offset, SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? end : offset;
	return at < end ? at : end;
}

static int64_t hole_live(void *context, int64_t offset, int64_t end)
{
	const struct source *source = context;
	off_t at = lseek(source->fd, offset, SEEK_HOLE);

	return at < 0 || at > end ? end : at;
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static int source_finish(void *context, struct error *error)
{
	const struct source *source = context;
	const struct stat *before = &source->before;
	struct stat after;

	FAILPOINT("import/file-read");
	if (fstat(source->fd, &after) < 0)
		return error_errno(error, errno, "a file of the tree");
	if (after.st_size == before->st_size && same_time(after.st_mtim, before->st_mtim) && same_time(after.st_ctim, before->st_ctim))
		return 0;
	return error_set(error, ERR_BUSY, 0, "a file changed while it was read");
}

static int open_inode(struct backing *backing, const struct seal_ino *ino)
{
	if (!S_ISREG(ino->type))
		return backing_reopen_key(backing, &ino->key, O_PATH | O_NOFOLLOW);
	int fd = backing_reopen_key(backing, &ino->key, O_RDONLY | O_NOATIME);
	return fd == -EPERM ? backing_reopen_key(backing, &ino->key, O_RDONLY) : fd;
}

static int seal_open_inode(struct seal_worker *worker, struct seal_ino *ino, int fd, const struct attrs *attrs, int64_t now_ns,
			   struct error *error)
{
	struct source source = {.fd = fd, .before = attrs->st};
	struct seal_content content = {.read = read_live, .next_data = next_live, .next_hole = hole_live, .finish = source_finish, .context = &source,
				       .size = attrs->st.st_size};
	bool any = false;
	int rc = 0;

	if (S_ISREG(attrs->st.st_mode))
		rc = seal_file(worker, ino->ino, &content, NULL, &any, error);
	if (rc == ERR_BUSY) {
		ino->deferred = true;
		return 0;
	}
	if (rc && source.failed)
		return seal_put_off_unreadable(worker, ino, error);
	if (!rc)
		rc = seal_inode_row(worker, ino, attrs, !any, error); /* other rows of an inode never change without this one */
	if (rc)
		return rc;
	ino->whole = true;
	seal_captured(worker, ino, attrs, now_ns);
	return 0;
}

static int refused(struct seal_worker *worker, struct seal_ino *ino, int number, struct error *error)
{
	int rc = error_errno(error, number, "a file of the tree");

	return seal_is_unreadable(rc, error) ? seal_put_off_unreadable(worker, ino, error) : rc;
}

static int capture(struct seal_worker *worker, struct seal_ino *ino, struct error *error)
{
	struct backing *backing = volume_backing(worker->sealing->env->volume);
	int fd = open_inode(backing, ino);
	int64_t now_ns = clock_wall_ns();
	struct attrs attrs = {0};
	int rc;

	if (fd == -ESTALE || fd == -ENOENT)
		return seal_put_off_stale(worker, ino, error);
	if (fd < 0)
		return refused(worker, ino, -fd, error);
	rc = backing_attrs(backing, fd, &attrs);
	if (rc) {
		rc = refused(worker, ino, -rc, error);
	} else if (attrs.st.st_nlink == 0) {
		ino->vanished = true;
	} else {
		ino->row.size = attrs.st.st_size;
		rc = seal_open_inode(worker, ino, fd, &attrs, now_ns, error);
	}
	attrs_free(&attrs);
	close(fd);
	return rc;
}

/* ---------------------------------------------------------------- the rows of a batch */

struct batch {
	struct sealing *sealing;
	struct import *import;
	struct error *error;
	struct node_key dir_key; /* of dir_fd */
	int dir_fd;              /* of the directory of the last name; -ENOENT: it is gone; or another -errno */
};

static bool is_full(const struct batch *batch)
{
	return batch->sealing->work_count >= BATCH_INODES || batch->sealing->name_count >= 2 * BATCH_INODES ||
	       batch->sealing->work_bytes >= BATCH_BYTES;
}

static bool is_nothing(int rc) { return rc == -ENOENT || rc == -ESTALE || rc == -ENOTDIR; }

/* The directory's handle opens nothing. */
static int ask_names(struct batch *batch)
{
	struct sealing *sealing = batch->sealing;
	int fd, rc = by_name_index(sealing->env->volume, batch->error);
	struct db_conn *conn = rc ? NULL : seal_reader_conn(&sealing->reader, batch->error);

	if (!conn)
		return rc ? rc : ERR_FAILED;
	rc = by_name_find(sealing->env->volume, conn, &batch->dir_key, true, NULL, &fd, batch->error);
	if (rc)
		return rc;
	if (fd >= 0)
		close(fd);
	batch->dir_fd = fd >= 0 ? -ESTALE : fd == -ESTALE ? -ENOENT : fd;
	return 0;
}

static int open_directory(struct batch *batch, const struct node_key *key)
{
	struct backing *backing = volume_backing(batch->sealing->env->volume);
	int rc = 0;

	if (node_key_equal(&batch->dir_key, key))
		return 0;
	if (batch->dir_fd >= 0)
		close(batch->dir_fd);
	batch->dir_key = *key;
	batch->dir_fd = backing_reopen_key(backing, key, O_PATH | O_DIRECTORY);
	if (is_nothing(batch->dir_fd))
		rc = ask_names(batch);
	return rc;
}

static int want(struct batch *batch, struct seal_ino *ino, int64_t bytes)
{
	if (ino->captured)
		return 0;
	return seal_want(batch->sealing, ino, S_ISREG(ino->type) && bytes > 0 ? (uint64_t)bytes : 0, batch->error);
}

/* The row waits for the next try; what it is about stays as it was in the version before, or absent. */
static int refuse_row(struct batch *batch, int (*refuse)(struct db_conn *, int64_t, struct error *), int64_t num, int number)
{
	struct sealing *sealing = batch->sealing;
	struct db *db = volume_db(sealing->env->volume);
	struct db_conn *conn;
	int rc = error_errno(batch->error, number, "looking at the tree");

	if (!seal_is_unreadable(rc, batch->error))
		return rc;
	if (!sealing->unreadable_path[0])
		sealing->unreadable_why = *batch->error;
	sealing->env->unreadable_rows++;
	sealing->lacking = true;
	rc = db_begin(db, false, &conn, batch->error);
	if (rc)
		return rc;
	rc = refuse(conn, num, batch->error);
	if (!rc)
		return db_commit(db, batch->error);
	db_rollback(db);
	return rc;
}

static int refuse_inode(struct batch *batch, const struct backlog_inode *row, int number)
{
	struct sealing *sealing = batch->sealing;
	struct db_conn *conn = seal_reader_conn(&sealing->reader, NULL);
	struct local_row local;
	int rc = refuse_row(batch, backlog_refuse_inode, row->num, number);

	if (!rc && !sealing->unreadable_path[0] && conn && catalogue_local_by_key(conn, row->key.bytes, row->key.length, &local) == 0)
		catalogue_live_path(conn, local.ino, sealing->unreadable_path, sizeof(sealing->unreadable_path));
	return rc;
}

static int refuse_name(struct batch *batch, const struct seal_ino *dir, const struct backlog_name *row, int number)
{
	struct sealing *sealing = batch->sealing;
	struct db_conn *conn = seal_reader_conn(&sealing->reader, NULL);
	char path[256];
	int rc = refuse_row(batch, backlog_refuse_name, row->num, number);

	if (rc || sealing->unreadable_path[0])
		return rc;
	path[0] = '\0';
	if (conn && dir->known)
		catalogue_live_path(conn, dir->ino, path, sizeof(path));
	snprintf(sealing->unreadable_path, sizeof(sealing->unreadable_path), "%s%s%s", path, *path ? "/" : "", row->name);
	return 0;
}

/* The name as it is now: what the rescan saw may be old. What happens to it from now on is in the journal. */
static int add_name(struct batch *batch, const struct backlog_name *row)
{
	struct sealing *sealing = batch->sealing;
	struct seal_ino *dir, *child = NULL;
	struct node_key key;
	struct stat st;
	int rc = open_directory(batch, &row->dir), fd = batch->dir_fd;
	int found = rc || fd < 0 ? fd : backing_identify(volume_backing(sealing->env->volume), fd, row->name, &key, &st, NULL);

	behind_name(sealing->env->volume, &row->dir, row->name);
	if (!rc)
		rc = seal_ino_by_key(sealing, &row->dir, S_IFDIR, &dir, batch->error);
	if (rc)
		return rc;
	seal_ino_number(sealing, dir);
	if (found && found != -ENOENT)
		return refuse_name(batch, dir, row, -found);
	if (fd >= 0 && !dir->known)
		rc = want(batch, dir, 0);
	if (!rc && !found)
		rc = seal_ino_by_key(sealing, &key, st.st_mode, &child, batch->error);
	if (!rc)
		rc = seal_name_add(sealing, dir, row->name, child, row->num, batch->error);
	if (!rc && child)
		rc = want(batch, child, st.st_size);
	return rc;
}

/* An inode of which only attributes or bytes differ; or one whose names were put off, which then is not wanted yet. */
static int add_inode(struct batch *batch, const struct backlog_inode *row)
{
	struct sealing *sealing = batch->sealing;
	int fd = backing_reopen_key(volume_backing(sealing->env->volume), &row->key, O_PATH | O_NOFOLLOW);
	struct seal_ino *ino;
	struct stat st = {0};
	int rc;

	int failed = fd < 0 ? -fd : fstat(fd, &st) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (failed && !is_nothing(-failed))
		return refuse_inode(batch, row, failed);
	rc = seal_ino_by_key(sealing, &row->key, st.st_mode, &ino, batch->error);
	if (rc)
		return rc;
	if (failed && !ino->known && !ino->added) {
		ino->vanished = true; /* no name of this batch leads there; what has one yet brings it again: this drops the row */
		return 0;
	}
	return ino->known || ino->added || ino->ino == CATALOGUE_ROOT_INO ? want(batch, ino, st.st_size) : 0;
}

static int add_names(struct batch *batch, bool *end)
{
	struct backlog_name *rows = calloc(ROWS_AT_ONCE, sizeof(*rows));
	int rc = rows ? 0 : error_errno(batch->error, ENOMEM, "import");

	*end = false;
	while (!rc && !*end && !is_full(batch)) {
		struct db_conn *conn = seal_reader_conn(&batch->sealing->reader, batch->error);
		int count = conn ? backlog_names_next(conn, batch->import->after_name, rows, ROWS_AT_ONCE) : ERR_FAILED;
		if (count < 0)
			rc = error_set(batch->error, count, 0, "can't read the backlog");
		*end = count == 0;
		for (int i = 0; i < count && !rc && !is_full(batch); i++) {
			rc = add_name(batch, &rows[i]);
			batch->import->after_name = rows[i].num;
		}
	}
	free(rows);
	return rc;
}

static int add_inodes(struct batch *batch, bool *end)
{
	struct backlog_inode *rows = calloc(ROWS_AT_ONCE, sizeof(*rows));
	int rc = rows ? 0 : error_errno(batch->error, ENOMEM, "import");

	*end = false;
	while (!rc && !*end && !is_full(batch)) {
		struct db_conn *conn = seal_reader_conn(&batch->sealing->reader, batch->error);
		int count = conn ? backlog_inodes_next(conn, batch->import->after_inode, rows, ROWS_AT_ONCE) : ERR_FAILED;
		if (count < 0)
			rc = error_set(batch->error, count, 0, "can't read the backlog");
		*end = count == 0;
		for (int i = 0; i < count && !rc && !is_full(batch); i++) {
			rc = add_inode(batch, &rows[i]);
			batch->import->after_inode = rows[i].num;
		}
	}
	free(rows);
	return rc;
}

static int build(struct batch *batch, bool *more)
{
	struct sealing *sealing = batch->sealing;
	bool end;
	int rc = add_names(batch, &end);

	if (!rc && end)
		rc = add_inodes(batch, &end);
	*more = !end;
	if (!rc)
		rc = seal_names_settle(sealing, batch->error);
	FAILPOINT("import/batch");
	if (!rc)
		rc = seal_run(sealing, batch->error);
	if (!rc)
		rc = seal_names_emit(sealing, batch->error);
	return rc;
}

int import_batch(struct seal_env *env, struct import *import, bool *more, struct error *error)
{
	struct batch batch = {.import = import, .error = error, .dir_fd = -1};
	struct import before = *import;
	bool committed;
	int rc = sealing_new(env, NULL, &batch.sealing, error);

	LATCH("import/begin");
	*more = false;
	if (rc)
		return rc;
	batch.sealing->partial = true;
	batch.sealing->capture = capture;
	rc = build(&batch, more);
	if (!rc)
		rc = sealing_commit(batch.sealing, false, &committed, error);
	FAILPOINT("import/committed");
	if (rc) {
		*import = before;
		seal_note_unreadable(batch.sealing); /* rows are marked for good already, and the version that goes without them is to say so */
		sealing_give_up(batch.sealing, rc);
	}
	if (batch.dir_fd >= 0)
		close(batch.dir_fd);
	sealing_free(batch.sealing);
	return rc;
}

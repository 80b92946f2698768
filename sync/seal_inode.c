/* Rows of an inode but for its bytes (sealing.h). */
#include "sealing.h"

#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct inode_row row_of(const struct seal_ino *ino, const struct attrs *attrs)
{
	const struct stat *st = &attrs->st;
	bool link = S_ISLNK(st->st_mode), device = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode);

	return (struct inode_row){
		.ino = ino->ino, .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .nlink = (int64_t)st->st_nlink,
		.size = st->st_size, .rdev = device ? (int64_t)st->st_rdev : 0, .atime_ns = timespec_ns(st->st_atim),
		.mtime_ns = timespec_ns(st->st_mtim), .ctime_ns = timespec_ns(st->st_ctim), .btime_ns = attrs->btime_ns,
		.target = link ? attrs->target : NULL, .target_length = link ? attrs->target_length : 0,
		.xattrs = attrs->xattrs_length ? attrs->xattrs : NULL, .xattrs_length = attrs->xattrs_length,
	};
}

static bool same_bytes(const void *a, size_t a_length, const void *b, size_t b_length)
{
	return a_length == b_length && (a_length == 0 || memcmp(a, b, a_length) == 0);
}

static bool same_row(const struct inode_row *a, const struct inode_row *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->nlink == b->nlink && a->size == b->size &&
	       a->rdev == b->rdev && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns && a->btime_ns == b->btime_ns &&
	       same_bytes(a->target, a->target_length, b->target, b->target_length) &&
	       same_bytes(a->xattrs, a->xattrs_length, b->xattrs, b->xattrs_length);
}

static bool is_live(struct seal_worker *worker, const struct inode_row *row)
{
	struct db_conn *conn = seal_reader_conn(&worker->reader, NULL);
	struct inode_hold hold;

	if (!conn || catalogue_inode(conn, CATALOGUE_LIVE, row->ino, &hold))
		return false;
	bool same = same_row(row, &hold.row);
	inode_hold_free(&hold);
	return same;
}

int seal_inode_row(struct seal_worker *worker, struct seal_ino *ino, const struct attrs *attrs, bool only_changed,
		   struct error *error)
{
	struct inode_row row = row_of(ino, attrs);

	if (only_changed && is_live(worker, &row))
		return 0;
	atomic_fetch_add(&worker->sealing->changes, 1);
	return delta_add_inode(worker->sealing->delta, &row, error);
}

void seal_captured(struct seal_worker *worker, struct seal_ino *ino, const struct attrs *attrs, int64_t captured_ns)
{
	int64_t ctime_ns = timespec_ns(attrs->st.st_ctim);

	ino->row = (struct local_row){
		.ino = ino->ino, .captured = worker->sealing->seq, .size = attrs->st.st_size,
		.mtime_ns = timespec_ns(attrs->st.st_mtim), .ctime_ns = ctime_ns, .racy = ctime_ns > captured_ns - RACY_NS,
	};
	ino->sealed = true;
}

int seal_inode_end(struct sealing *sealing, struct seal_ino *ino, struct error *error)
{
	struct db_conn *conn = seal_reader_conn(&sealing->reader, error);
	struct extent_place *places = NULL;
	size_t count = 0;
	int rc = conn ? delta_add_inode_end(sealing->delta, ino->ino, error) : ERR_FAILED;

	atomic_fetch_add(&sealing->changes, 1);
	if (!rc && ino->sealed)
		rc = delta_drop_extents(sealing->delta, ino->ino, error);
	if (!rc && S_ISREG(ino->type)) {
		rc = catalogue_extents(conn, CATALOGUE_LIVE, ino->ino, 0, INT64_MAX, &places, &count);
		if (rc)
			error_set(error, rc, 0, "catalogue: can't read the extents of inode %lld", (long long)ino->ino);
	}
	for (size_t i = 0; i < count && !rc; i++)
		rc = delta_add_extent_end(sealing->delta, ino->ino, places[i].start, error);
	free(places);
	return rc;
}

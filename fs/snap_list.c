#include "snapdir.h"

#include "inode.h"
#include "reply.h"
#include "when.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* An open directory below `.snapshots`. A version's directory is read once, whole, at the first readdir: it can't change. The list of versions is read piece by
 * piece, by number. Offsets: 1 behind ".", 2 behind ".."; then 2 + the count of entries so far, or 2 + the version's number. */
#define OFFSET_DOTS 2

struct snap_dir {
	struct snap_node *node; /* referenced; constant */
	pthread_mutex_t lock;   /* all below */
	bool loaded;
	char *bytes;            /* entries: ino, then the name with its NUL */
	size_t used, room;
	size_t *starts;         /* of each entry in bytes */
	size_t count, starts_room;
};

struct listing {
	fuse_req_t req;
	struct fs *fs;
	struct snap_dir *dir;
	struct db_conn *conn;
	char *buffer;
	size_t used, size;
	bool plus;
	int64_t ino; /* list of versions: the directory's number */
};

static struct snap_dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct snap_dir *)(uintptr_t)fi->fh;
}

static void dir_free(struct fs *fs, struct snap_dir *dir)
{
	snap_node_put(fs->snaps, dir->node, 1);
	pthread_mutex_destroy(&dir->lock);
	free(dir->bytes);
	free(dir->starts);
	free(dir);
}

void snapdir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	struct snap_dir *dir = node ? calloc(1, sizeof(*dir)) : NULL;
	if (!dir) {
		snap_node_put(fs->snaps, node, 1);
		fuse_reply_err(req, node ? ENOMEM : ESTALE);
		return;
	}
	dir->node = node;
	pthread_mutex_init(&dir->lock, NULL);
	fi->fh = (uintptr_t)dir;
	if (node->kind == SNAP_INODE) {
		fi->keep_cache = 1;
		fi->cache_readdir = 1;
	}
	if (fuse_reply_open(req, fi) != 0)
		dir_free(fs, dir);
}

void snapdir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_free(fs_of(req), dir_of(fi));
	fuse_reply_err(req, 0);
}

/* ---------------------------------------------------------------- loading */

static int grow(void **data, size_t *room, size_t need, size_t size)
{
	if (need <= *room)
		return 0;
	size_t more = *room ? *room : 256;
	while (more < need)
		more *= 2;
	void *grown = realloc(*data, more * size);
	if (!grown)
		return ERR_NOMEM;
	*data = grown;
	*room = more;
	return 0;
}

static int load_entry(void *context, const void *name, size_t length, int64_t ino)
{
	struct snap_dir *dir = context;
	if (grow((void **)&dir->bytes, &dir->room, dir->used + sizeof(ino) + length + 1, 1) < 0 ||
	    grow((void **)&dir->starts, &dir->starts_room, dir->count + 1, sizeof(*dir->starts)) < 0)
		return ERR_NOMEM;
	char *at = dir->bytes + dir->used;
	dir->starts[dir->count++] = dir->used;
	memcpy(at, &ino, sizeof(ino));
	memcpy(at + sizeof(ino), name, length);
	at[sizeof(ino) + length] = '\0';
	dir->used += sizeof(ino) + length + 1;
	return 0;
}

static int load(struct listing *listing)
{
	struct snap_dir *dir = listing->dir;
	dir->used = dir->count = 0;
	int rc = catalogue_list(listing->conn, dir->node->seq, dir->node->ino, load_entry, dir);
	dir->loaded = rc == 0;
	return -reply_errno(rc, 0);
}

/* ---------------------------------------------------------------- entries */

/* False: no room. */
static bool add(struct listing *listing, const char *name, const struct fuse_entry_param *entry, off_t next)
{
	char *at = listing->buffer + listing->used;
	size_t room = listing->size - listing->used;
	size_t need = listing->plus ? fuse_add_direntry_plus(listing->req, at, room, name, entry, next)
				    : fuse_add_direntry(listing->req, at, room, name, &entry->attr, next);
	if (need > room)
		return false;
	listing->used += need;
	return true;
}

static bool add_dots(struct listing *listing, off_t *offset)
{
	static const char *const dots[OFFSET_DOTS] = {".", ".."};
	struct fuse_entry_param entry = {.attr = {.st_ino = snap_root_st_ino(1), .st_mode = S_IFDIR}};
	if (listing->dir->node->kind == SNAP_INODE)
		entry.attr.st_ino = listing->dir->node->st.st_ino;
	for (; *offset < OFFSET_DOTS; ++*offset)
		if (!add(listing, dots[*offset], &entry, *offset + 1))
			return false;
	return true;
}

static int list_version_dir(struct listing *listing, off_t offset)
{
	struct snap_dir *dir = listing->dir;
	struct fs *fs = listing->fs;
	int rc = dir->loaded ? 0 : load(listing);
	bool room = true;

	for (size_t i = (size_t)(offset - OFFSET_DOTS); rc == 0 && room && i < dir->count; i++) {
		const char *name = dir->bytes + dir->starts[i] + sizeof(int64_t);
		struct fuse_entry_param entry = {.ino = 0};
		struct snap_node *node = NULL;
		int64_t ino;
		memcpy(&ino, dir->bytes + dir->starts[i], sizeof(ino));
		entry.attr.st_ino = snap_st_ino(dir->node->seq, ino);
		if (listing->plus) {
			rc = snapdir_child(fs, listing->conn, dir->node, ino, &node);
			if (rc == 0)
				snapdir_entry(node, &entry);
		}
		room = rc == 0 && add(listing, name, &entry, (off_t)i + 1 + OFFSET_DOTS);
		if (!room)
			snap_node_put(fs->snaps, node, 1);
	}
	return rc;
}

/* ---------------------------------------------------------------- versions */

/* First version in which the directory was: it has been there ever since, or else it could not be live (numbers are never used again). So it can be
 * searched by halving. 0, ERR_ABSENT: not even in the newest. */
static int first_with(struct db_conn *conn, int64_t ino, int64_t newest, int64_t *first)
{
	int64_t low = 1, high = newest + 1; /* not below low; in `high` and above, once one was found */

	while (low < high) {
		int64_t middle = high > newest ? newest : low + (high - low) / 2;
		struct inode_hold hold;
		int rc = catalogue_inode(conn, middle, ino, &hold);
		if (rc == 0) {
			high = hold.vfrom;
			inode_hold_free(&hold);
		} else if (rc == ERR_ABSENT && middle < newest)
			low = middle + 1;
		else
			return rc;
	}
	*first = high;
	return 0;
}

static int add_version(void *context, const struct version_row *row)
{
	struct listing *listing = context;
	struct fuse_entry_param entry = {.attr = {.st_mode = S_IFDIR}};
	char name[WHEN_NAME_BYTES];
	when_name(name, row->time_s);
	entry.attr.st_ino = snap_st_ino(row->seq, listing->ino);
	return add(listing, name, &entry, (off_t)row->seq + OFFSET_DOTS) ? 0 : 1;
}

static int list_versions(struct listing *listing, off_t offset)
{
	struct version_row newest;
	int64_t first = 0, after = offset - OFFSET_DOTS;

	int rc = snapdir_live_ino(listing->conn, listing->dir->node, &listing->ino);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc; /* in no version yet */
	rc = catalogue_version_newest(listing->conn, false, &newest);
	if (rc == 0)
		rc = first_with(listing->conn, listing->ino, newest.seq, &first);
	if (rc != 0)
		return rc == ERR_ABSENT ? 0 : -reply_errno(rc, 0);
	rc = catalogue_version_each(listing->conn, after < first - 1 ? first - 1 : after, add_version, listing);
	return rc < 0 ? -reply_errno(rc, 0) : 0;
}

/* dir->lock must be held. */
static int list(struct listing *listing, off_t offset)
{
	struct error error;
	if (offset < 0)
		return -EINVAL;
	if (!add_dots(listing, &offset))
		return 0;
	if (db_read_begin(volume_db(listing->fs->volume), &listing->conn, &error) != 0)
		return -reply_errno(error.code, error.sys_errno);
	int rc = listing->dir->node->kind == SNAP_ROOT ? list_versions(listing, offset)
						       : list_version_dir(listing, offset);
	db_read_end(volume_db(listing->fs->volume), listing->conn);
	return rc;
}

void snapdir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
	(void)ino;
	struct listing listing = {
		.req = req, .fs = fs_of(req), .dir = dir_of(fi), .buffer = malloc(size), .size = size, .plus = plus};
	if (!listing.buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&listing.dir->lock);
	int rc = list(&listing, offset);
	pthread_mutex_unlock(&listing.dir->lock);
	/* What is in the buffer counts lookups already: it must be answered; an error then comes with the next call. */
	if (rc < 0 && listing.used == 0)
		reply_result(req, rc);
	else
		fuse_reply_buf(req, listing.buffer, listing.used);
	free(listing.buffer);
}

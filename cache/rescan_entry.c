#include "rescan_internal.h"

#include "behind.h"
#include "by_name.h"
#include "clock.h"
#include "log.h"
#include "suspect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int rescan_failed(struct rescan *r, int rc)
{
	if (r->error->code < 0)
		return r->error->code; /* the cause, told before */
	return error_errno(r->error, -rc, "cannot scan the directory");
}

/* Database errors of the catalogue's functions come without a message. */
static int catalogue_failed(struct rescan *r, int rc)
{
	return error_set(r->error, rc, 0, "cannot scan the directory: reading the catalogue: %s", error_word(rc));
}

/* ---------------------------------------------------------------- comparing */

int rescan_local(struct rescan *r, const struct node_key *key, struct local_row *out)
{
	int rc = catalogue_local_by_key(r->conn, key->bytes, key->length, out);

	if (rc == ERR_ABSENT) {
		memset(out, 0, sizeof *out);
		rc = 0;
	}
	return rc < 0 ? catalogue_failed(r, rc) : 0;
}

void rescan_met(struct rescan *r, const struct node_key *key, const struct stat *st)
{
	const struct behind_listener *listener = volume_listener(r->volume);

	if (listener)
		listener->inode(listener->context, key, st);
}

static bool same_stat(const struct stat *st, int64_t size, int64_t mtime_ns, int64_t ctime_ns)
{
	return st->st_size == size && timespec_ns(st->st_mtim) == mtime_ns && timespec_ns(st->st_ctim) == ctime_ns;
}

/* The last session stopped cleanly and wrote down this very state of the inode: what it knows of the changes is all. 1, 0, or enum err. */
static int journal_covers(struct rescan *r, const struct node_key *key, const struct stat *st, bool whole_only)
{
	sqlite3_stmt *stmt;
	int rc;

	if (!r->clean)
		return 0;
	/* Rows of a running session carry no stat. */
	rc = db_step(r->conn, r->error,
		     "SELECT whole, size, mtime_ns, ctime_ns FROM journal_inode WHERE key=? AND ctime_ns<>0 "
		     "ORDER BY epoch DESC LIMIT 1",
		     "b", key->bytes, (size_t)key->length);
	if (rc != 1)
		return rc;
	stmt = db_last(r->conn);
	rc = (sqlite3_column_int(stmt, 0) || !whole_only) &&
	     same_stat(st, sqlite3_column_int64(stmt, 1), sqlite3_column_int64(stmt, 2), sqlite3_column_int64(stmt, 3));
	db_reset(stmt);
	return rc;
}

/* I9: after a power cut, timestamps of an unsettled inode prove nothing. */
static int unsettled(struct rescan *r, const struct node_key *key)
{
	int rc;

	if (!r->power_cut)
		return 0;
	rc = db_step(r->conn, r->error, "SELECT 1 FROM unsettled WHERE key=?", "b", key->bytes, (size_t)key->length);
	if (rc == 1)
		db_reset(db_last(r->conn));
	return rc;
}

int rescan_check_inode(struct rescan *r, const struct node_key *key, const struct stat *st, const struct local_row *local)
{
	struct journal *journal = volume_journal(r->volume);
	bool known = local->ino != 0 && local->captured > 0 && !local->racy;
	bool look = S_ISREG(st->st_mode) && suspect_overflowed(journal);
	int64_t bytes = 0;
	int rc = look ? suspect_look(journal, key) : 0;

	if (rc < 0)
		return rescan_failed(r, rc);
	rc = look ? 1 : unsettled(r, key);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		if (known && same_stat(st, local->size, local->mtime_ns, local->ctime_ns))
			return 0;
		rc = journal_covers(r, key, st, !known && S_ISREG(st->st_mode));
		if (rc != 0)
			return rc < 0 ? rc : 0;
	}
	if (S_ISREG(st->st_mode)) {
		bytes = (int64_t)st->st_blocks * 512;
		if (bytes > st->st_size)
			bytes = st->st_size;
	}
	return rescan_put_inode(r, key, st->st_mode, bytes);
}

/* True when the journal's rows, which a clean stop left and the journal has loaded, end with this value. */
static int journal_names(struct rescan *r, const struct node_key *dir, const char *name, const struct node_key *child)
{
	sqlite3_stmt *stmt;
	int rc;

	if (!r->clean)
		return 0;
	rc = db_step(r->conn, r->error, "SELECT child FROM journal_name WHERE dir=? AND name=? ORDER BY epoch DESC LIMIT 1",
		     "bb", dir->bytes, (size_t)dir->length, name, strlen(name));
	if (rc != 1)
		return rc;
	stmt = db_last(r->conn);
	rc = sqlite3_column_bytes(stmt, 0) == child->length && child->length > 0 &&
	     memcmp(sqlite3_column_blob(stmt, 0), child->bytes, child->length) == 0;
	db_reset(stmt);
	return rc;
}

/* No inode of this machine is that one. */
static bool is_nowhere(struct rescan *r, int64_t ino)
{
	uint8_t key[NODE_KEY_MAX];
	size_t length = sizeof key;

	return catalogue_local_key(r->conn, ino, key, &length) == ERR_ABSENT;
}

static int check_name(struct rescan *r, const struct node_key *dir, int64_t dir_ino, const char *name,
		      const struct node_key *child, mode_t type, int64_t child_ino, bool *in_catalogue)
{
	int64_t ino = 0;
	int rc;

	if (dir_ino) {
		rc = catalogue_lookup(r->conn, CATALOGUE_LIVE, dir_ino, name, strlen(name), &ino);
		if (rc < 0 && rc != ERR_ABSENT)
			return catalogue_failed(r, rc);
		*in_catalogue = rc == 0;
		if (rc == 0 && ino == child_ino)
			return 0;
		if (rc == 0 && S_ISDIR(type) && !child_ino && is_nowhere(r, ino))
			r->result->blind++;
	}
	rc = journal_names(r, dir, name, child);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	return rescan_put_name(r, dir, name, child, type);
}

/* The path of a descriptor, below the root, with a slash at its end; "" for the root itself, and when nobody can tell. */
static void path_of(struct rescan *r, int fd, char *out, size_t room)
{
	char link[BACKING_PROC_PATH], top[PATH_MAX], path[PATH_MAX];
	ssize_t top_length, length;

	backing_proc_path(link, backing_root_fd(r->backing));
	top_length = readlink(link, top, sizeof top);
	backing_proc_path(link, fd);
	length = readlink(link, path, sizeof path - 1);
	out[0] = '\0';
	if (top_length < 1 || length <= top_length || memcmp(path, top, (size_t)top_length) != 0)
		return;
	path[length] = '\0';
	top_length += path[top_length] == '/';
	snprintf(out, room, "%s/", path + top_length);
}

/* Likewise; by its names in the catalogue when it does not open. */
static void path_of_directory(struct rescan *r, const struct node_key *dir, char *out, size_t room)
{
	int fd = backing_reopen_key(r->backing, dir, O_PATH | O_DIRECTORY);
	struct local_row local;
	size_t length;

	out[0] = '\0';
	if (fd >= 0) {
		path_of(r, fd, out, room);
		close(fd);
	} else if (r->conn && catalogue_local_by_key(r->conn, dir->bytes, dir->length, &local) == 0) {
		catalogue_live_path(r->conn, local.ino, out, room - 1);
		length = strlen(out);
		snprintf(out + length, room - length, "%s", length ? "/" : "");
	}
}

/* It stays as the catalogue has it, or absent, and the scan goes on (I24: nothing is called safe then). */
static void note_unreadable(struct rescan *r, const char *directory, const char *name, int number)
{
	struct error why;

	error_errno(&why, number, "%.400s%s", directory, name);
	log_warn("%s: it can't be looked at, and stays out of new versions", why.message);
	if (r->result->unreadable++ == 0)
		r->result->unreadable_why = why;
}

int rescan_refused(struct rescan *r, const struct node_key *dir, int rc)
{
	char path[512];

	if (backing_is_shortage(-rc))
		return rescan_failed(r, rc);
	path_of_directory(r, dir, path, sizeof path);
	note_unreadable(r, path, path[0] ? "" : "a directory", -rc);
	return 0;
}

int rescan_refused_name(struct rescan *r, int dirfd, const char *name, int rc)
{
	char path[512];

	if (backing_is_shortage(-rc))
		return rescan_failed(r, rc);
	path_of(r, dirfd, path, sizeof path);
	note_unreadable(r, path, name, -rc);
	return 0;
}

static int identify(struct rescan *r, int dirfd, const char *name, struct node_key *key, struct stat *st, bool *found)
{
	int rc = backing_identify(r->backing, dirfd, name, key, st, NULL);

	*found = rc == 0;
	if (rc == 0 && node_key_type(key) == NODE_KEY_FOREIGN && !S_ISDIR(st->st_mode)) {
		log_warn("%s: it is a mount of a file; it is not recorded", name);
		*found = false;
	}
	/* What an ordinary tree may do while we look: entries vanish. */
	return rc == 0 || rc == -ENOENT ? 0 : rescan_refused_name(r, dirfd, name, rc);
}

/* *in_catalogue: the catalogue has that name, whatever it is there. */
static int entry(struct rescan *r, const struct node_key *dir, int64_t dir_ino, int dirfd, const char *name, bool *found,
		 bool *in_catalogue)
{
	struct local_row local;
	struct node_key key;
	struct stat st;
	int rc;

	*in_catalogue = false;
	if (r->stop && atomic_load(r->stop))
		return error_set(r->error, ERR_ABANDONED, 0, "the scan was stopped");
	rc = identify(r, dirfd, name, &key, &st, found);
	if (rc < 0 || !*found)
		return rc;
	rescan_met(r, &key, &st);
	r->result->seen++;
	if (r->progress)
		atomic_store(r->progress, r->result->seen);
	rc = rescan_local(r, &key, &local);
	if (rc == 0 && local.ino)
		rc = rescan_see(r, local.ino);
	if (rc == 0)
		rc = rescan_check_inode(r, &key, &st, &local);
	if (rc == 0)
		rc = check_name(r, dir, dir_ino, name, &key, st.st_mode, local.ino, in_catalogue);
	if (rc == 0 && S_ISDIR(st.st_mode) && node_key_type(&key) != NODE_KEY_FOREIGN)
		rc = rescan_push(r, &key);
	return rc;
}

int rescan_entry(struct rescan *r, const struct node_key *dir, int64_t dir_ino, int dirfd, const char *name, bool *found)
{
	bool there, in_catalogue;
	int rc = rescan_read(r);

	return rc < 0 ? rc : entry(r, dir, dir_ino, dirfd, name, found ? found : &there, &in_catalogue);
}

/* ---------------------------------------------------------------- a directory */

/* A set of names that takes no memory: their number, and the sum of hashes. An entry that readdir gives twice makes the sums differ, and then
 * each name is looked at. */
struct names { uint64_t count, sum; };

static void names_add(struct names *names, const void *name, size_t length)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ ((const uint8_t *)name)[i]) * UINT64_C(0x100000001b3);
	hash ^= hash >> 33;
	hash *= UINT64_C(0xff51afd7ed558ccd);
	names->count++;
	names->sum += hash ^ hash >> 33;
}

static int count_name(void *context, const void *name, size_t length, int64_t ino)
{
	(void)ino;
	names_add(context, name, length);
	return 0;
}

struct search {
	struct rescan *r;
	int64_t dir;
	int dirfd;
	bool noted; /* something of this directory */
};

/* A name of the catalogue that is not on disk is noted; what it means is decided after the walk. */
static int search_name(void *context, const void *name, size_t length, int64_t ino)
{
	struct search *search = context;
	char text[256];
	struct stat st;

	if (length >= sizeof text)
		return error_set(search->r->error, ERR_CORRUPT, 0, "the catalogue is damaged: a name of %zu bytes", length);
	memcpy(text, name, length);
	text[length] = '\0';
	if (fstatat(search->dirfd, text, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0)
		return 0;
	if (errno != ENOENT) {
		bool noted = search->noted;

		search->noted = true;
		return noted ? 0 : rescan_refused_name(search->r, search->dirfd, text, -errno);
	}
	return rescan_put_absent(search->r, search->dir, ino, name, length);
}

/* 1: the rest of the directory can't be read. */
static int list(struct rescan *r, const struct node_key *key, int64_t ino, DIR *dir, struct names *found)
{
	struct dirent *dirent;

	for (;;) {
		bool there, in_catalogue;
		int rc;

		errno = 0;
		dirent = readdir(dir);
		if (!dirent && errno) {
			rc = rescan_refused(r, key, -errno);
			return rc < 0 ? rc : 1;
		}
		if (!dirent)
			return 0;
		if (strcmp(dirent->d_name, ".") == 0 || strcmp(dirent->d_name, "..") == 0)
			continue;
		rc = rescan_read(r);
		if (rc == 0)
			rc = entry(r, key, ino, dirfd(dir), dirent->d_name, &there, &in_catalogue);
		if (rc < 0)
			return rc;
		if (in_catalogue)
			names_add(found, dirent->d_name, strlen(dirent->d_name));
	}
}

/* Where operations put an inode: their names are not in the backlog. */
static int names_of_journal(void *context, const struct node_key *key, struct by_name_list *list)
{
	struct rescan *r = context;
	int rc = db_step(r->conn, NULL, "SELECT DISTINCT dir, name FROM journal_name WHERE child=?", "b", key->bytes, (size_t)key->length);
	sqlite3_stmt *stmt = db_last(r->conn);

	while (rc == 1) {
		struct node_key dir = { .length = (uint8_t)sqlite3_column_bytes(stmt, 0) };
		int length = sqlite3_column_bytes(stmt, 1);
		char name[256] = "";

		if (sqlite3_column_bytes(stmt, 0) > NODE_KEY_MAX || length <= 0 || length >= (int)sizeof name) {
			rc = ERR_CORRUPT;
		} else {
			memcpy(dir.bytes, sqlite3_column_blob(stmt, 0), dir.length);
			memcpy(name, sqlite3_column_blob(stmt, 1), (size_t)length);
			rc = by_name_add(list, &dir, name);
		}
		if (rc < 0)
			db_reset(stmt);
		else
			rc = db_next(r->conn, stmt, NULL);
	}
	return rc;
}

/* A directory whose handle opens nothing. -ENOENT: it is gone. */
static int ask_names(struct rescan *r, const struct node_key *key)
{
	struct by_name_more journal = { .names = names_of_journal, .context = r };
	int fd, rc = rescan_flush(r);

	rescan_read_end(r); /* the next one sees what the last one does not */
	if (rc == 0)
		rc = by_name_index(r->volume, r->error);
	if (rc == 0)
		rc = rescan_read(r);
	if (rc == 0)
		rc = by_name_find(r->volume, r->conn, key, true, &journal, &fd, r->error);
	if (rc < 0)
		return -ENOMEM;
	if (fd < 0)
		return fd == -ESTALE ? -ENOENT : fd;
	close(fd);
	return -ESTALE;
}

int rescan_open_dir(struct rescan *r, const struct node_key *key)
{
	/* Without handles, the way is found by the names that the backlog has already. */
	int rc = backing_has_handles(r->backing) ? 0 : rescan_flush(r), fd;

	if (rc < 0)
		return -ENOMEM;
	fd = backing_reopen_key(r->backing, key, O_RDONLY | O_DIRECTORY | O_NOATIME);
	return fd == -ESTALE || fd == -ENOENT || fd == -ENOTDIR ? ask_names(r, key) : fd;
}

static int visit(struct rescan *r, const struct node_key *key, DIR *dir)
{
	struct names known = { 0 }, found = { 0 };
	struct search search = { .r = r, .dirfd = dirfd(dir) };
	struct local_row local;
	int rc = rescan_read(r);

	if (rc == 0)
		rc = rescan_local(r, key, &local);
	if (rc < 0)
		return rc;
	search.dir = local.ino;
	if (local.ino) {
		rc = catalogue_list(r->conn, CATALOGUE_LIVE, local.ino, count_name, &known);
		if (rc < 0)
			return catalogue_failed(r, rc);
	}
	uint64_t unreadable = r->result->unreadable;
	rc = list(r, key, local.ino, dir, &found);
	search.noted = r->result->unreadable != unreadable;
	if (rc == 1)
		return 0;
	if (rc < 0 || !local.ino || (known.count == found.count && known.sum == found.sum))
		return rc;
	rc = catalogue_list(r->conn, CATALOGUE_LIVE, local.ino, search_name, &search);
	return rc < 0 && r->error->code == 0 ? catalogue_failed(r, rc) : rc;
}

int rescan_walk(struct rescan *r)
{
	struct node_key key;

	while (rescan_pop(r, &key)) {
		DIR *dir;
		int fd, rc = rescan_visit(r, &key);

		if (rc <= 0) {
			if (rc < 0)
				return rc;
			continue;
		}
		fd = rescan_open_dir(r, &key);
		if (fd == -ENOENT)
			continue;
		if (fd < 0) {
			rc = rescan_refused(r, &key, fd);
			if (rc < 0)
				return rc;
			continue;
		}
		dir = fdopendir(fd);
		if (!dir) {
			rc = rescan_failed(r, -errno);
			close(fd);
			return rc;
		}
		rc = visit(r, &key, dir);
		closedir(dir);
		if (rc < 0)
			return rc;
	}
	return 0;
}

#include "by_name.h"

#include "catalogue.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 4096
#define TRIES_MAX 20000 /* a damaged catalogue may go in circles */

struct candidate {
	struct node_key dir;
	char name[256];
};

struct by_name_list {
	struct db_conn *conn;
	struct candidate *names;
	size_t count, room;
};

struct search {
	struct volume *volume;
	struct db_conn *conn;
	const struct by_name_more *more;
	bool backlog;
	int tries;
	int rc; /* enum err: the database failed, and what was found is worth nothing */
	struct error *error;
};

/* ---------------------------------------------------------------- the names of one inode */

static int add(struct by_name_list *list, const void *key, size_t key_length, const void *name, size_t length)
{
	struct candidate *candidate;

	if (key_length > NODE_KEY_MAX || length == 0 || length >= sizeof candidate->name)
		return ERR_CORRUPT;
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 4;
		struct candidate *names = reallocarray(list->names, room, sizeof *names);

		if (!names)
			return ERR_NOMEM;
		list->names = names;
		list->room = room;
	}
	candidate = &list->names[list->count++];
	memset(candidate, 0, sizeof *candidate);
	candidate->dir.length = (uint8_t)key_length;
	memcpy(candidate->dir.bytes, key, key_length);
	memcpy(candidate->name, name, length);
	return 0;
}

int by_name_add(struct by_name_list *list, const struct node_key *dir, const char *name)
{
	return add(list, dir->bytes, dir->length, name, strlen(name));
}

static int add_live(void *context, int64_t dir, const void *name, size_t length)
{
	struct by_name_list *list = context;
	uint8_t key[NODE_KEY_MAX];
	size_t key_length = sizeof key;
	int rc = catalogue_local_key(list->conn, dir, key, &key_length);

	/* A directory that never had a place on this machine can't hold what has one. */
	return rc == ERR_ABSENT ? 0 : rc ? rc : add(list, key, key_length, name, length);
}

static int add_of_backlog(struct by_name_list *list, const struct node_key *key)
{
	int rc = db_step(list->conn, NULL, "SELECT dir, name FROM backlog_name WHERE child=?", "b", key->bytes, (size_t)key->length);
	sqlite3_stmt *stmt = db_last(list->conn);

	while (rc == 1) {
		rc = add(list, sqlite3_column_blob(stmt, 0), (size_t)sqlite3_column_bytes(stmt, 0), sqlite3_column_blob(stmt, 1),
			 (size_t)sqlite3_column_bytes(stmt, 1));
		if (rc)
			db_reset(stmt);
		else
			rc = db_next(list->conn, stmt, NULL);
	}
	return rc;
}

static int add_of_catalogue(struct by_name_list *list, const struct node_key *key)
{
	struct local_row local;
	int rc = catalogue_local_by_key(list->conn, key->bytes, key->length, &local);

	if (rc == 0)
		rc = catalogue_names_of(list->conn, CATALOGUE_LIVE, local.ino, add_live, list);
	return rc == ERR_ABSENT ? 0 : rc;
}

static int find_names(struct search *search, const struct node_key *key, struct by_name_list *list)
{
	int rc = search->more ? search->more->names(search->more->context, key, list) : 0;

	if (rc == 0 && search->backlog)
		rc = add_of_backlog(list, key);
	return rc == 0 ? add_of_catalogue(list, key) : rc;
}

/* ---------------------------------------------------------------- the way there */

/* A duplicate of the descriptor that a node keeps; checked, because that may be closed meanwhile (backing_fd_drop). */
static int from_node(struct volume *volume, const struct node_key *key)
{
	struct node *node = node_find(volume_nodes(volume), key);
	int held = node ? atomic_load(&node->held_fd) : -1;
	int fd = -1;
	struct node_key found;
	struct stat st;

	if (held >= 0 && backing_identify(volume_backing(volume), held, "", &found, &st, &fd) == 0 &&
	    !node_key_equal(&found, key)) {
		close(fd);
		fd = -1;
	}
	node_put(volume_nodes(volume), node);
	return fd;
}

static bool is_nothing(int fd) { return fd == -ESTALE || fd == -ENOENT || fd == -ENOTDIR; }

static int find(struct search *search, const struct node_key *key, int depth);

static int try_name(struct search *search, const struct candidate *candidate, const struct node_key *key, int depth)
{
	struct node_key found;
	struct stat st;
	int rc, fd, dirfd;

	if (++search->tries > TRIES_MAX)
		return -ELOOP;
	dirfd = find(search, &candidate->dir, depth + 1);
	if (dirfd < 0)
		return dirfd;
	rc = backing_identify(volume_backing(search->volume), dirfd, candidate->name, &found, &st, &fd);
	close(dirfd);
	if (rc == -ESTALE) /* a name that is there, and leads to nothing that could be looked at */
		return -EIO;
	if (rc < 0)
		return rc;
	if (node_key_equal(&found, key))
		return fd;
	close(fd);
	return -ESTALE;
}

static int try_names(struct search *search, const struct node_key *key, int depth)
{
	struct by_name_list list = { .conn = search->conn };
	int fd = -ESTALE, refused = 0;
	int rc = find_names(search, key, &list);

	if (rc < 0)
		search->rc = error_set(search->error, rc, 0, "can't read the names of an inode: %s", error_word(rc));
	for (size_t i = 0; i < list.count && fd < 0 && search->rc == 0; i++) {
		fd = try_name(search, &list.names[i], key, depth);
		if (fd < 0 && !is_nothing(fd))
			refused = fd;
	}
	free(list.names);
	return fd >= 0 ? fd : refused ? refused : -ESTALE;
}

/* -ESTALE: it is not the root. */
static int from_root(struct backing *backing, const struct node_key *key)
{
	struct node_key root;
	struct stat st;
	int fd, rc = backing_identify(backing, backing_root_fd(backing), "", &root, &st, &fd);

	if (rc < 0 || node_key_equal(&root, key))
		return rc < 0 ? rc : fd;
	close(fd);
	return -ESTALE;
}

/* A fresh descriptor of a directory on the way, or -errno. */
static int find(struct search *search, const struct node_key *key, int depth)
{
	struct backing *backing = volume_backing(search->volume);
	bool handle = node_key_type(key) >= 0;
	int fd = from_root(backing, key);

	if (fd != -ESTALE)
		return fd;
	fd = handle ? backing_reopen_key(backing, key, O_PATH | O_NOFOLLOW) : from_node(search->volume, key);
	if (fd >= 0 || (handle && !is_nothing(fd)))
		return fd;
	return depth > DEPTH_MAX ? -ELOOP : try_names(search, key, depth);
}

int by_name_find(struct volume *volume, struct db_conn *conn, const struct node_key *key, bool backlog, const struct by_name_more *more,
		 int *fd, struct error *error)
{
	struct search search = { .volume = volume, .conn = conn, .more = more, .error = error,
				 .backlog = backlog || !backing_has_handles(volume_backing(volume)) };

	*fd = from_root(volume_backing(volume), key);
	if (*fd == -ESTALE)
		*fd = try_names(&search, key, 0); /* no descriptor that is held somewhere: it can outlive the names */
	if (search.rc == 0)
		return 0;
	if (*fd >= 0)
		close(*fd);
	*fd = -ESTALE;
	return search.rc;
}

int by_name_index(struct volume *volume, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(volume), false, &conn, error);

	if (rc < 0)
		return rc;
	rc = db_exec(conn, "CREATE INDEX IF NOT EXISTS backlog_name_child ON backlog_name(child)", error);
	if (rc == 0)
		return db_commit(volume_db(volume), error);
	db_rollback(volume_db(volume));
	return rc;
}

/* For keys without handle. */
static int resolve(void *context, const struct node_key *key)
{
	struct volume *volume = context;
	struct db_conn *conn;
	int rc, fd = from_node(volume, key);

	if (fd >= 0)
		return fd;
	if (db_read_begin(volume_db(volume), &conn, NULL) < 0)
		return -EIO;
	rc = by_name_find(volume, conn, key, true, NULL, &fd, NULL);
	db_read_end(volume_db(volume), conn);
	return rc < 0 ? -EIO : fd;
}

void by_name_attach(struct volume *volume)
{
	backing_set_resolver(volume_backing(volume), resolve, volume);
}

/* Finding an inode whose key holds no file handle, and of which no descriptor is left from before: by its names in the backlog (what is new) and in the catalogue,
 * from the root down. Each candidate is checked against the key, so that a stale name leads nowhere. */
#include "rescan.h"

#include "catalogue.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 4096
#define TRIES_MAX 20000 /* a damaged catalogue may go in circles */
#define CANDIDATES 8 /* hard links beyond that many names are all stale: then it is not found */

struct candidate {
	struct node_key dir;
	char name[256];
};

struct search {
	struct volume *volume;
	struct db_conn *conn;
	int tries;
};

struct candidates {
	struct db_conn *conn;
	int count;
	struct candidate list[CANDIDATES];
};

static void add(struct candidates *found, const void *key, size_t key_length, const void *name, size_t length)
{
	struct candidate *candidate = &found->list[found->count];

	if (found->count == CANDIDATES || key_length > NODE_KEY_MAX || length == 0 || length >= sizeof candidate->name)
		return;
	memset(candidate, 0, sizeof *candidate);
	candidate->dir.length = (uint8_t)key_length;
	memcpy(candidate->dir.bytes, key, key_length);
	memcpy(candidate->name, name, length);
	found->count++;
}

static int add_live(void *context, int64_t dir, const void *name, size_t length)
{
	struct candidates *found = context;
	uint8_t key[NODE_KEY_MAX];
	size_t key_length = sizeof key;

	if (catalogue_local_key(found->conn, dir, key, &key_length) == 0)
		add(found, key, key_length, name, length);
	return 0;
}

static void find_names(struct candidates *found, const struct node_key *key)
{
	struct local_row local;
	int rc = db_step(found->conn, NULL, "SELECT dir, name FROM backlog_name WHERE child=?", "b", key->bytes,
			 (size_t)key->length);
	sqlite3_stmt *stmt = db_last(found->conn);

	while (rc == 1) {
		add(found, sqlite3_column_blob(stmt, 0), (size_t)sqlite3_column_bytes(stmt, 0), sqlite3_column_blob(stmt, 1),
		    (size_t)sqlite3_column_bytes(stmt, 1));
		rc = db_next(found->conn, stmt, NULL);
	}
	if (catalogue_local_by_key(found->conn, key->bytes, key->length, &local) == 0)
		catalogue_names_of(found->conn, CATALOGUE_LIVE, local.ino, add_live, found);
}

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

static int find(struct search *search, const struct node_key *key, int depth);

static int try_name(struct search *search, const struct candidate *candidate, const struct node_key *key, int depth)
{
	struct node_key found;
	struct stat st;
	int rc, fd, dirfd;

	if (++search->tries > TRIES_MAX)
		return -ESTALE;
	dirfd = find(search, &candidate->dir, depth + 1);
	if (dirfd < 0)
		return dirfd;
	rc = backing_identify(volume_backing(search->volume), dirfd, candidate->name, &found, &st, &fd);
	close(dirfd);
	if (rc < 0)
		return rc;
	if (node_key_equal(&found, key))
		return fd;
	close(fd);
	return -ESTALE;
}

static int try_names(struct search *search, const struct node_key *key, int depth)
{
	struct candidates *found = calloc(1, sizeof *found);
	int fd = -ESTALE;

	if (!found)
		return -ENOMEM;
	found->conn = search->conn;
	find_names(found, key);
	for (int i = 0; i < found->count && fd < 0; i++)
		fd = try_name(search, &found->list[i], key, depth);
	free(found);
	return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
}

/* A fresh descriptor, or -errno. */
static int find(struct search *search, const struct node_key *key, int depth)
{
	struct backing *backing = volume_backing(search->volume);
	struct node_key root;
	struct stat st;
	int rc, fd = from_node(search->volume, key);

	if (fd >= 0)
		return fd;
	rc = backing_identify(backing, backing_root_fd(backing), "", &root, &st, &fd);
	if (rc < 0 || node_key_equal(&root, key))
		return rc < 0 ? rc : fd;
	close(fd);
	return depth > DEPTH_MAX ? -ESTALE : try_names(search, key, depth);
}

static int resolve(void *context, const struct node_key *key)
{
	struct search search = { .volume = context };
	int fd = from_node(search.volume, key);

	if (fd >= 0)
		return fd;
	if (db_read_begin(volume_db(search.volume), &search.conn, NULL) < 0)
		return -EIO;
	fd = find(&search, key, 0);
	db_read_end(volume_db(search.volume), search.conn);
	return fd;
}

void backlog_attach(struct volume *volume)
{
	backing_set_resolver(volume_backing(volume), resolve, volume);
}

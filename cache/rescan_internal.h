/* rescan_internal: what the files of the rescan share. One thread. */
#ifndef YESTER_RESCAN_INTERNAL_H
#define YESTER_RESCAN_INTERNAL_H

#include "buf.h"
#include "catalogue.h"
#include "rescan.h"

#include <stdio.h>

struct rescan {
	struct volume *volume;
	struct backing *backing;
	struct db *db;
	bool clean, power_cut;
	atomic_bool *stop;
	_Atomic uint64_t *progress;
	struct rescan_result *result;
	struct error *error;  /* never NULL; zeroed at the start */
	struct db_conn *conn; /* reading; begun anew now and then by rescan_read */
	uint32_t reads;
	struct buf rows; /* backlog rows to be written */
	uint32_t row_count;
	struct buf stack; /* keys of directories to visit, each followed by its length */
	uint8_t *seen;    /* one bit for each ino that was met */
	size_t seen_bytes;
	uint64_t *visited; /* hashes of keys of directories: open addressing, 0 is free */
	size_t visited_room, visited_count;
	FILE *absent; /* names that were not there when their directory was visited: i64 dir, i64 ino, u8 length, name */
};

/* --- rescan_rows.c. 0 or enum err, with r->error set. */
/* Into the backlog, in a transaction with some thousand others. */
int rescan_put_inode(struct rescan *r, const struct node_key *key, mode_t type, int64_t bytes);
int rescan_put_name(struct rescan *r, const struct node_key *dir, const char *name, const struct node_key *child,
		    mode_t child_type); /* child NULL: absent */
int rescan_flush(struct rescan *r);
/* Makes sure that r->conn is a read transaction, not too old a one. Not in the middle of a statement's rows. */
int rescan_read(struct rescan *r);
void rescan_read_end(struct rescan *r);

int rescan_see(struct rescan *r, int64_t ino);
bool rescan_has_seen(const struct rescan *r, int64_t ino);
/* 1: is now marked as visited; 0: was before. */
int rescan_visit(struct rescan *r, const struct node_key *key);
bool rescan_has_visited(const struct rescan *r, const struct node_key *key);
int rescan_push(struct rescan *r, const struct node_key *key);
bool rescan_pop(struct rescan *r, struct node_key *key);

int rescan_put_absent(struct rescan *r, int64_t dir, int64_t ino, const void *name, size_t length);
/* From the first on: 1, 0 at the end. name has room for 256 bytes. */
int rescan_next_absent(struct rescan *r, int64_t *dir, int64_t *ino, char *name);

/* --- rescan_entry.c */
/* Visits everything on the stack, and what lies below. */
int rescan_walk(struct rescan *r);
/* One directory entry: compares, and pushes it if it is a directory. *found: whether it is there (may be NULL). */
int rescan_entry(struct rescan *r, const struct node_key *dir, int64_t dir_ino, int dirfd, const char *name, bool *found);
int rescan_check_inode(struct rescan *r, const struct node_key *key, const struct stat *st, const struct local_row *local);
/* An inode that was met, and what its stat was. */
void rescan_met(struct rescan *r, const struct node_key *key, const struct stat *st);
/* ino of a key; 0 when it is not in local_inode. */
int rescan_local(struct rescan *r, const struct node_key *key, struct local_row *out);
/* A descriptor of a directory to list, or -errno. -ENOENT: it is gone, and its names say so (by_name.h); -ESTALE: its handle opens nothing, but a name leads there; -ENOMEM also when the database fails, and r->error then
 * says why. Not in the middle of a statement's rows; what was read on r->conn may be older than what comes next. */
int rescan_open_dir(struct rescan *r, const struct node_key *key);
/* A directory, or a name in one, that can't be looked at, for that -errno: it is noted, and the scan goes on (0), unless that says nothing of it. */
int rescan_refused(struct rescan *r, const struct node_key *dir, int rc);
int rescan_refused_name(struct rescan *r, int dirfd, const char *name, int rc);
/* Makes an enum err of -errno, unless r->error tells of the cause already. */
int rescan_failed(struct rescan *r, int rc);

/* --- rescan.c */
int rescan_walk_moved(struct rescan *r);
void rescan_free(struct rescan *r);

#endif

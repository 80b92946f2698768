/* catalogue: reading every retained version. All functions read on a connection that the caller got from db_read_begin or db_begin and see the versions
 * that its transaction sees (a version's rows and meta `head` appear in one transaction, I11). `seq` says in which version; CATALOGUE_LIVE means the
 * newest one. Return 0, ERR_ABSENT, ERR_CORRUPT, ERR_NOMEM, ERR_FAILED. Callbacks may call any of these functions on the same connection.
 *
 *   catalogue.c           inodes and names in a version          catalogue_versions.c  versions, the interval tree
 *   catalogue_bytes.c     extents, chunks, packs                 local_inode.c         local_inode
 *   catalogue_rollback.c  taking versions back (delta.h)         delta_*.c             the way in */
#ifndef YESTER_CATALOGUE_H
#define YESTER_CATALOGUE_H

#include "catalogue_schema.h"
#include "db.h"
#include "delta.h"

#include <stdbool.h>

#define CATALOGUE_LIVE INT64_MAX

/* --- Versions. Partial versions are never returned by these unless `any`. */
/* The newest version at or before `time_s` (by name time). */
int catalogue_version_at(struct db_conn *conn, int64_t time_s, struct version_row *out);
int catalogue_version_newest(struct db_conn *conn, bool any, struct version_row *out);
/* The newest version that is neither partial nor lacking: up to its cut everything is in it (I24). */
int catalogue_version_complete(struct db_conn *conn, struct version_row *out);
int catalogue_version_get(struct db_conn *conn, int64_t seq, struct version_row *out);
/* In ascending order after `after_seq`; stops when fn returns non-zero and returns that. */
int catalogue_version_each(struct db_conn *conn, int64_t after_seq,
			   int (*fn)(void *context, const struct version_row *row), void *context);

/* --- One inode in a version. row->target and xattrs point into *hold (db-independent copy); inode_hold_free frees. */
struct inode_hold { struct inode_row row; int64_t vfrom; void *memory; };
int catalogue_inode(struct db_conn *conn, int64_t seq, int64_t ino, struct inode_hold *out);
void inode_hold_free(struct inode_hold *hold);
/* Name to inode number. */
int catalogue_lookup(struct db_conn *conn, int64_t seq, int64_t dir, const void *name, size_t length, int64_t *ino);
/* Walks `path` ("a/b", "" is the root) by names; ERR_ABSENT if a part is missing. */
int catalogue_resolve(struct db_conn *conn, int64_t seq, const char *path, int64_t *ino);
/* Entries of a directory, in no particular order. fn's non-zero result stops. */
int catalogue_list(struct db_conn *conn, int64_t seq, int64_t dir,
		   int (*fn)(void *context, const void *name, size_t length, int64_t ino), void *context);
/* Names under which ino is found in that version (dir and name). */
int catalogue_names_of(struct db_conn *conn, int64_t seq, int64_t ino,
		       int (*fn)(void *context, int64_t dir, const void *name, size_t length), void *context);
/* "a/b": the path of an inode below the root, by its first names in the newest version; what doesn't fit, at the front, is left out. "": nobody can tell. `out` has at least a byte. */
void catalogue_live_path(struct db_conn *conn, int64_t ino, char *out, size_t room);

/* --- Bytes. Extents of a file in a version, ascending by start, joined with chunk and pack: everything that a read needs in one row. */
struct extent_place {
	int64_t start, length, skip; /* file range; offset in the chunk's plaintext */
	struct chunk_row chunk;
};
/* Fresh array sorted by start (free()); only extents that intersect [from, to). Non-overlapping. */
int catalogue_extents(struct db_conn *conn, int64_t seq, int64_t ino, int64_t from, int64_t to,
		      struct extent_place **out, size_t *count);
/* Bytes of a file in a version that are no hole. */
int catalogue_data_bytes(struct db_conn *conn, int64_t seq, int64_t ino, uint64_t *bytes);
int catalogue_pack(struct db_conn *conn, int64_t num, struct pack_row *out);
int catalogue_pack_by_id(struct db_conn *conn, const uint8_t id[16], struct pack_row *out);
/* A chunk that may be the target of dedup (I21: its pack not distrusted). */
int catalogue_chunk_by_id(struct db_conn *conn, const uint8_t id[16], struct chunk_row *out);
int catalogue_chunk(struct db_conn *conn, int64_t num, struct chunk_row *out);
/* Highest numbers in use, 0 when none. */
int catalogue_maxima(struct db_conn *conn, int64_t *ino, int64_t *chunk, int64_t *pack, int64_t *seq, int64_t *time_s);
/* Totals of the newest version: regular files and bytes. */
int catalogue_totals(struct db_conn *conn, int64_t *inodes, int64_t *bytes);

/* `fork` of an interval [vfrom, vto-1]; and the ancestors of seq up to max_seq into out (64 entries are enough): their number. */
int64_t catalogue_fork(int64_t vfrom, int64_t vto);
int catalogue_ancestors(int64_t seq, int64_t max_seq, int64_t out[64]);

/* --- local_inode: what this machine knows of the live tree. */
struct local_row { int64_t ino, captured, size, mtime_ns, ctime_ns; bool racy; };
int catalogue_local_by_key(struct db_conn *conn, const void *key, size_t length, struct local_row *out);
int catalogue_local_set(struct db_conn *conn, const void *key, size_t length, const struct local_row *row, struct error *error);
int catalogue_local_forget(struct db_conn *conn, int64_t ino, struct error *error);
/* For each version above `above`, ascending: how many inodes were captured in it and in none after it. Reads the whole table. fn's first non-zero result stops and is returned. */
int catalogue_local_captured(struct db_conn *conn, int64_t above, int (*fn)(void *context, int64_t seq, int64_t inodes), void *context);
/* What was captured within the timestamp granularity of its change, is known not to have changed since (neither journal nor backlog has it), and changed before `before_ns`: any later change will show in
 * its ctime. before_ns: a moment before that knowledge, less the granularity. */
int catalogue_local_calm(struct db_conn *conn, int64_t before_ns, struct error *error);
/* Key of an ino. ERR_ABSENT. *length in: room, out: used. */
int catalogue_local_key(struct db_conn *conn, int64_t ino, void *key, size_t *length);

#endif

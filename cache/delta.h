/* delta: the rows that one version adds and ends: built by the sealer or read from a log record, and applied to the catalogue by one function, so that what the writer's own
 * catalogue holds and what a clone rebuilds cannot differ.
 *
 * Built in an SQLite database of its own (memory, spilling to an unlinked temporary file in the state directory). All delta_add_* calls are thread-safe
 * (one mutex inside) and fail with ERR_NOMEM, ERR_NOSPACE, ERR_FAILED; after a failure the delta is unusable. The last call for a key counts: a row
 * replaces one added before, an end takes it back.
 *
 * An inode row leaves the extents of that inode as they are. Who ends an inode also ends its extents and names. */
#ifndef YESTER_DELTA_H
#define YESTER_DELTA_H

#include "db.h"

#include <stddef.h>
#include <stdint.h>

struct delta;

struct version_row { int64_t seq, time_s, cut_ns, server_s, flags; };
struct inode_row {
	int64_t ino;
	uint32_t mode, uid, gid;
	int64_t nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, btime_ns;
	const void *target; size_t target_length; /* symlinks; NULL otherwise */
	const void *xattrs; size_t xattrs_length; /* NULL: none */
};
struct extent_row { int64_t ino, start, length, chunk, skip; };
struct chunk_row {
	int64_t num, pack;
	uint8_t id[16];
	int64_t idx, offset, stored, length, codec, dictionary;
};
struct pack_row { int64_t num; uint8_t id[16], salt[32], hash[32]; int64_t size, record; };

/* `tmp_dir`: where it may spill. seq: the version it will become. */
int delta_new(const char *tmp_dir, int64_t seq, struct delta **out, struct error *error);
void delta_free(struct delta *delta);
int64_t delta_seq(const struct delta *delta);

int delta_set_version(struct delta *delta, const struct version_row *row, struct error *error);
int delta_add_version_server(struct delta *delta, int64_t seq, int64_t server_s, struct error *error);
int delta_add_inode(struct delta *delta, const struct inode_row *row, struct error *error);
int delta_add_inode_end(struct delta *delta, int64_t ino, struct error *error);
int delta_add_name(struct delta *delta, int64_t dir, const void *name, size_t length, int64_t ino, struct error *error);
int delta_add_name_end(struct delta *delta, int64_t dir, const void *name, size_t length, struct error *error);
int delta_add_extent(struct delta *delta, const struct extent_row *row, struct error *error);
int delta_add_extent_end(struct delta *delta, int64_t ino, int64_t start, struct error *error);
/* Takes back all that were added of that inode. */
int delta_drop_extents(struct delta *delta, int64_t ino, struct error *error);
int delta_add_chunk(struct delta *delta, const struct chunk_row *row, struct error *error);
int delta_add_pack(struct delta *delta, const struct pack_row *row, struct error *error);
/* Adds to a delta all packs of another one, built for the same version, and the chunks in them; chunks whose pack it has not are left out. *packs: how many. */
int delta_add_packs_of(struct delta *delta, struct delta *other, uint64_t *packs, struct error *error);
int delta_add_pin(struct delta *delta, const char *name, int64_t seq, struct error *error);
int delta_add_pin_end(struct delta *delta, const char *name, struct error *error);

/* The database image: an unlinked temporary file, positioned anywhere; the caller closes it. Ends the building: delta_add_* fail from here on,
 * delta_get_version and delta_apply still work. */
int delta_image(struct delta *delta, int *fd, uint64_t *length, struct error *error);
/* Opens an image read from a record: writes nothing, checks page structure, integrity and the schema text byte for byte, then the rows: names without '/', NUL, ".", "..", 1..255 bytes; lengths and
 * offsets not negative; extents not overlapping per ino, within PACK_MAX_CHUNK_BYTES; vfrom = seq. ERR_CORRUPT. Takes over fd. */
int delta_from_image(int fd, uint64_t length, int64_t seq, const char *tmp_dir, struct delta **out, struct error *error);
/* The version row. ERR_CORRUPT when there is not exactly one. */
int delta_get_version(struct delta *delta, struct version_row *out, struct error *error);

/* Applies to the catalogue, inside the caller's write transaction on conn, in the order that catalogue_schema.h gives. ERR_CORRUPT: not the highest version
 * + 1, not later than it, extents overlap, a number is used twice. On failure the caller rolls back. About 10 us a row. */
int delta_apply(struct delta *delta, struct db_conn *conn, struct error *error);

/* Takes back every version above seq (I14: refused or damaged while spooled, or discarded by a take-over), inside the caller's write
 * transaction: tables as they were at seq, chunk relocations and pins included as long as the versions were above meta `confirmed` when applied.
 * local_inode rows captured above seq get captured 0. Scans all tables. */
int catalogue_rollback(struct db_conn *conn, int64_t seq, struct error *error);

/* A checkpoint image of versions <= seq (which must be the newest version: nothing above it may be in the tables, else ERR_BUSY): an unlinked
 * temporary file in tmp_dir, checked as an importer would. Reads inside one read transaction of its own. The caller closes fd. */
int catalogue_export(struct db *db, int64_t seq, const char *tmp_dir, int *fd, uint64_t *length, struct error *error);
/* Loads an image into an empty catalogue (ERR_EXISTS otherwise), in one write transaction; same checks as delta_from_image, plus `fork`, vto, and that
 * no directory ever has two names. Takes over fd. meta is left alone. */
int catalogue_import(struct db *db, int fd, uint64_t length, int64_t seq, const char *tmp_dir, struct error *error);

#endif

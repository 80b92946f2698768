/* catalogue_schema: the tables. Three parts:
 *   shared  what a checkpoint image holds, no index beyond primary keys
 *   delta   what the sealed image in log record N holds
 *   local   indexes over the shared tables, and what only this machine knows (never leaves it)
 * The schema text of an image is compared byte for byte (sqlite_schema.sql, in rowid order) before any row is read.
 *
 * A row of a live table (inode, name, extent) is valid from version vfrom until now. When version N replaces or ends it, it moves to the table
 * with suffix _past, with vto = N: it was valid in the versions vfrom <= V < vto. Live and past rows are apart, so that a long history does not slow down the present.
 * `fork` of a past row is the number in [vfrom, vto-1] that the highest power of two divides: the node of the relational interval tree (Kriegel, Poetke, Seidl, VLDB 2000)
 * at which the interval hangs. All past rows valid in V hang at an ancestor of V, i.e. at one of
 * { (V >> (k+1) << (k+1)) | 1 << k : k >= ctz(V) }, about log2(newest version) of them; at those <= V they are the rows with vto > V, at those > V the rows with
 * vfrom <= V. That makes a directory listing or a file's extent map at any V cost what it returns, however long the history.
 *
 * ino 1 is the root directory of the volume; it has no name row. Numbers (ino, chunk.num, pack.num) are given by the writer, ascending, never reused.
 * A regular file's bytes that no extent covers are zero (a hole). Times are signed nanoseconds since 1970 UTC.
 * xattrs: rows sorted by name: u16 length of name, name, u32 length of value, value (little-endian); NULL when there is none. */
#ifndef YESTER_CATALOGUE_SCHEMA_H
#define YESTER_CATALOGUE_SCHEMA_H

#define CATALOGUE_SCHEMA 1
#define CATALOGUE_ROOT_INO 1
#define CATALOGUE_MAX_CHUNK_BYTES (16 << 20) /* plaintext of a chunk, hence of an extent (PACK_MAX_CHUNK_BYTES) */
#define CATALOGUE_MAX_XATTRS_BYTES (16 << 20) /* of one inode, as stored */

/* version.flags */
#define VERSION_PARTIAL 1   /* part of an import or of a large rescan: no prefix; hidden, never called safe */
#define VERSION_TAKE_OVER 2 /* first record of a new writer on another writer's head */
#define VERSION_LACKING 4   /* something of the tree could not be read: it has the content of before in it, or is absent; all else is as of the cut. Listed, never called safe (I24) */

#define SCHEMA_VERSION_TABLE                                                                                           \
	"CREATE TABLE version(seq INTEGER PRIMARY KEY, time_s INTEGER NOT NULL, cut_ns INTEGER NOT NULL, "             \
	"server_s INTEGER NOT NULL, flags INTEGER NOT NULL) STRICT"
#define SCHEMA_INODE_COLUMNS                                                                                           \
	"mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, nlink INTEGER NOT NULL, "                  \
	"size INTEGER NOT NULL, rdev INTEGER NOT NULL, atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "         \
	"ctime_ns INTEGER NOT NULL, btime_ns INTEGER NOT NULL, target BLOB, xattrs BLOB"
#define SCHEMA_INODE_TABLE                                                                                             \
	"CREATE TABLE inode(ino INTEGER PRIMARY KEY, vfrom INTEGER NOT NULL, " SCHEMA_INODE_COLUMNS ") STRICT"
#define SCHEMA_INODE_PAST_TABLE                                                                                        \
	"CREATE TABLE inode_past(ino INTEGER NOT NULL, vto INTEGER NOT NULL, vfrom INTEGER NOT NULL, "                 \
	SCHEMA_INODE_COLUMNS ", PRIMARY KEY(ino, vto)) STRICT, WITHOUT ROWID"
#define SCHEMA_NAME_TABLE                                                                                              \
	"CREATE TABLE name(dir INTEGER NOT NULL, name BLOB NOT NULL, vfrom INTEGER NOT NULL, ino INTEGER NOT NULL, "   \
	"PRIMARY KEY(dir, name)) STRICT, WITHOUT ROWID"
#define SCHEMA_NAME_PAST_TABLE                                                                                         \
	"CREATE TABLE name_past(dir INTEGER NOT NULL, name BLOB NOT NULL, vto INTEGER NOT NULL, "                      \
	"vfrom INTEGER NOT NULL, fork INTEGER NOT NULL, ino INTEGER NOT NULL) STRICT"
/* File bytes [start, start + length) are bytes [skip, skip + length) of the chunk. */
#define SCHEMA_EXTENT_TABLE                                                                                            \
	"CREATE TABLE extent(ino INTEGER NOT NULL, start INTEGER NOT NULL, vfrom INTEGER NOT NULL, "                   \
	"length INTEGER NOT NULL, chunk INTEGER NOT NULL, skip INTEGER NOT NULL, PRIMARY KEY(ino, start)) "            \
	"STRICT, WITHOUT ROWID"
#define SCHEMA_EXTENT_PAST_TABLE                                                                                       \
	"CREATE TABLE extent_past(ino INTEGER NOT NULL, fork INTEGER NOT NULL, vto INTEGER NOT NULL, "                 \
	"start INTEGER NOT NULL, vfrom INTEGER NOT NULL, length INTEGER NOT NULL, chunk INTEGER NOT NULL, "            \
	"skip INTEGER NOT NULL, PRIMARY KEY(ino, fork, vto, start)) STRICT, WITHOUT ROWID"
/* Where a sealed chunk lies: see pack_format.h. idx: its piece number. */
#define SCHEMA_CHUNK_TABLE                                                                                             \
	"CREATE TABLE chunk(num INTEGER PRIMARY KEY, id BLOB NOT NULL, pack INTEGER NOT NULL, idx INTEGER NOT NULL, "  \
	"offset INTEGER NOT NULL, stored INTEGER NOT NULL, length INTEGER NOT NULL, codec INTEGER NOT NULL, "          \
	"dictionary INTEGER NOT NULL) STRICT"
/* record: 0 for an object pack/<hh>/<id>, else the log record N that holds it inline, at offset 256. hash: SHA-256 of the pack's bytes.
 * vfrom: the version that brought it. */
#define SCHEMA_PACK_TABLE                                                                                              \
	"CREATE TABLE pack(num INTEGER PRIMARY KEY, id BLOB NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL, "        \
	"size INTEGER NOT NULL, record INTEGER NOT NULL, vfrom INTEGER NOT NULL) STRICT"
#define SCHEMA_PIN_TABLE "CREATE TABLE pin(name TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID"

/* A checkpoint image: these statements in this order. */
#define SCHEMA_SHARED_TABLES                                                                                           \
	{                                                                                                              \
		SCHEMA_VERSION_TABLE, SCHEMA_INODE_TABLE, SCHEMA_INODE_PAST_TABLE, SCHEMA_NAME_TABLE,                  \
			SCHEMA_NAME_PAST_TABLE, SCHEMA_EXTENT_TABLE, SCHEMA_EXTENT_PAST_TABLE, SCHEMA_CHUNK_TABLE,     \
			SCHEMA_PACK_TABLE, SCHEMA_PIN_TABLE                                                            \
	}

/* The delta of version N, in this order. vfrom = N in every row. Applying it, in this order:
 *   1 version: INSERT; version_server: UPDATE version SET server_s of an earlier version;
 *   2 extent_end, name_end, inode_end: the live row with that key moves to _past with vto = N;
 *   3 inode, name, extent: a live row with the same key, if any is left, moves likewise; the new row is inserted; a new name of a directory
 *     ends its other names likewise (one with vfrom = N vanishes), in ascending order of (dir, name) of the new ones;
 *   4 pack, chunk: INSERT; a chunk whose num exists is a relocation: it replaces the row;
 *   5 pin_end: DELETE; pin: INSERT. */
#define SCHEMA_DELTA_TABLES                                                                                            \
	{                                                                                                              \
		SCHEMA_VERSION_TABLE, SCHEMA_INODE_TABLE, SCHEMA_NAME_TABLE, SCHEMA_EXTENT_TABLE, SCHEMA_CHUNK_TABLE,  \
			SCHEMA_PACK_TABLE, SCHEMA_PIN_TABLE,                                                           \
			"CREATE TABLE version_server(seq INTEGER PRIMARY KEY, server_s INTEGER NOT NULL) STRICT",      \
			"CREATE TABLE inode_end(ino INTEGER PRIMARY KEY) STRICT",                                      \
			"CREATE TABLE name_end(dir INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY(dir, name)) "     \
			"STRICT, WITHOUT ROWID",                                                                       \
			"CREATE TABLE extent_end(ino INTEGER NOT NULL, start INTEGER NOT NULL, "                       \
			"PRIMARY KEY(ino, start)) STRICT, WITHOUT ROWID",                                              \
			"CREATE TABLE pin_end(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID"                            \
	}

/* Local indexes over shared tables. */
#define SCHEMA_LOCAL_INDEXES                                                                                           \
	"CREATE UNIQUE INDEX version_time ON version(time_s);"                                                         \
	"CREATE INDEX name_ino ON name(ino);"                                                                          \
	"CREATE UNIQUE INDEX name_past_key ON name_past(dir, name, vto);"                                              \
	"CREATE INDEX name_past_upper ON name_past(dir, fork, vto);"                                                   \
	"CREATE INDEX name_past_lower ON name_past(dir, fork, vfrom);"                                                 \
	"CREATE INDEX name_past_ino ON name_past(ino, vto);"                                                           \
	"CREATE INDEX extent_past_lower ON extent_past(ino, fork, vfrom);"                                             \
	"CREATE INDEX chunk_id ON chunk(id);"                                                                          \
	"CREATE INDEX chunk_pack ON chunk(pack);"                                                                      \
	"CREATE INDEX pack_id ON pack(id);"
#define SCHEMA_LOCAL_INDEXES_DROP                                                                                      \
	"DROP INDEX version_time; DROP INDEX name_ino; DROP INDEX name_past_key; DROP INDEX name_past_upper;"          \
	"DROP INDEX name_past_lower; DROP INDEX name_past_ino; DROP INDEX extent_past_lower; DROP INDEX chunk_id;"     \
	"DROP INDEX chunk_pack; DROP INDEX pack_id;"

/* What only this machine knows.
 *   meta           name -> integer or blob: head, confirmed, head_hash, epoch, clean, boot_id, ... (volume.h lists them)
 *   remote_object  copies of the volume descriptor and the key slots, so that a mount needs no network
 *   local_inode    key (node.h) of each inode of the tree; the stat that the rescan compares with (I8). captured: version, 0 when
 *                  its content is in none yet. racy: ctime was within the timestamp granularity of the capture: compares as different.
 *   journal_*      changed extents and names, by epoch (journal.h); names of epoch 0: removals that an earlier session recorded before it ended uncleanly
 *   unsettled      I9, I10. epoch: the newest in which the inode was recorded.
 *   suspect        keys of inodes that may change through a mapping that nobody sees (suspect.h); since schema 2
 *   backlog_*      what a rescan found, waiting to be imported (rescan.h); types are S_IFMT bits, 0: not known. unreadable: the disk refused it (SCHEMA_UNREADABLE)
 *   spool          objects on their way: state 0 spooled, 1 attempted, 2 acknowledged (packs) / confirmed (records)
 *   distrusted     packs that failed a read (I21)
 *   undo_*         what a version not yet confirmed overwrote, so that catalogue_rollback can take it back. undo_pin.seq: NULL when
 *                  there was no such pin */
#define SCHEMA_LOCAL_TABLES                                                                                            \
	"CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;"                                   \
	"CREATE TABLE remote_object(key TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;"                 \
	"CREATE TABLE local_inode(ino INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, captured INTEGER NOT NULL, "      \
	"size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, racy INTEGER NOT NULL) STRICT;"  \
	"CREATE TABLE journal_inode(key BLOB NOT NULL, epoch INTEGER NOT NULL, type INTEGER NOT NULL, whole INTEGER NOT NULL, "               \
	"size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, extents BLOB NOT NULL, "         \
	"PRIMARY KEY(key, epoch)) STRICT, WITHOUT ROWID;"                                                              \
	"CREATE TABLE journal_name(dir BLOB NOT NULL, name BLOB NOT NULL, epoch INTEGER NOT NULL, child BLOB, child_type INTEGER, "        \
	"PRIMARY KEY(dir, name, epoch)) STRICT, WITHOUT ROWID;"                                                        \
	"CREATE TABLE unsettled(key BLOB PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;"                  \
	"CREATE TABLE backlog_inode(num INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, bytes INTEGER NOT NULL, "       \
	"type INTEGER NOT NULL DEFAULT 0) STRICT;"                                                                     \
	"CREATE TABLE backlog_name(num INTEGER PRIMARY KEY, dir BLOB NOT NULL, name BLOB NOT NULL, child BLOB, "       \
	"child_type INTEGER NOT NULL DEFAULT 0, UNIQUE(dir, name)) STRICT;"                                            \
	"CREATE TABLE spool(object TEXT PRIMARY KEY, seq INTEGER NOT NULL, kind INTEGER NOT NULL, file TEXT NOT NULL, " \
	"size INTEGER NOT NULL, hash BLOB NOT NULL, state INTEGER NOT NULL) STRICT;"                                   \
	"CREATE INDEX spool_seq ON spool(seq);"                                                                        \
	"CREATE TABLE distrusted(pack INTEGER PRIMARY KEY) STRICT;"                                                    \
	"CREATE TABLE undo_chunk(version INTEGER NOT NULL, num INTEGER NOT NULL, id BLOB NOT NULL, "                   \
	"pack INTEGER NOT NULL, idx INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL, "              \
	"length INTEGER NOT NULL, codec INTEGER NOT NULL, dictionary INTEGER NOT NULL, PRIMARY KEY(version, num)) "    \
	"STRICT, WITHOUT ROWID;"                                                                                       \
	"CREATE TABLE undo_pin(version INTEGER NOT NULL, name TEXT NOT NULL, seq INTEGER, "                            \
	"PRIMARY KEY(version, name)) STRICT, WITHOUT ROWID;"
#define SCHEMA_LOCAL_TABLES_2 "CREATE TABLE suspect(key BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;"
/* Since version 3 of the database. */
#define SCHEMA_UNREADABLE                                                                                              \
	"ALTER TABLE backlog_inode ADD COLUMN unreadable INTEGER NOT NULL DEFAULT 0;"                                  \
	"ALTER TABLE backlog_name ADD COLUMN unreadable INTEGER NOT NULL DEFAULT 0;"

#endif

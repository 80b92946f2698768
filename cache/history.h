/* history: a version as a read-only tree, for `.snapshots`, restore and clone: paths, attributes, and verified bytes.
 * Any thread, also several on one file. history_open and history_seek read the database only; history_read may wait for the network (call it from a
 * worker, never from a thread that live operations need). history_close never waits.
 *
 *   history.c         open, map of extents, read, seek
 *   history_chunks.c  the decoded chunks of an open file, where they come from, reading ahead */
#ifndef YESTER_HISTORY_H
#define YESTER_HISTORY_H

#include "catalogue.h"
#include "remote.h"

struct volume;
struct history_file;

/* Opens a regular file of a version. ERR_ABSENT, ERR_CORRUPT, ERR_FAILED (also: not a regular file), ERR_NOMEM. */
int history_open(struct volume *volume, int64_t seq, int64_t ino, struct history_file **out, struct error *error);
/* Before the first read: it is read once, to be written elsewhere. Small chunks are then not kept in the chunk cache, which would be one more file for each file. */
void history_copy_once(struct history_file *file);
/* No call on this file may be under way. NULL is fine. */
void history_close(struct history_file *file);
int64_t history_size(const struct history_file *file);
/* Fills up to `length` bytes at `offset` (holes are zeros); the number of bytes is short only at the end of the file. Every byte comes from a chunk whose id was verified
 * (I25), in this order of places: chunk cache, the live file, spool, the remote. Sequential readers are read ahead for. ERR_CORRUPT names the object, ERR_RETRY the store. */
int64_t history_read(struct history_file *file, void *data, size_t length, int64_t offset, struct error *error);
/* Next data or hole at or after offset, as lseek(2) SEEK_DATA / SEEK_HOLE; -ENXIO beyond the end or when no data follows, -EINVAL, -EIO, -ENOMEM. */
int64_t history_seek(struct history_file *file, int64_t offset, int whence);

/* Waits until no reading ahead is under way in this process; what was queued is dropped. To be called with all files closed, before the remote or the
 * volume goes. */
void history_stop(void);

#endif

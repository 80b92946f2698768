/* history: a version as a read-only tree, for `.snapshots`, restore and clone: paths, attributes, and verified bytes.
 * Any thread. Metadata calls read the database only; history_read may wait for the network (call it from a worker, never
 * from a thread that live operations need). */
#ifndef YESTER_HISTORY_H
#define YESTER_HISTORY_H

#include "catalogue.h"
#include "remote.h"

struct volume;
struct history_file;

/* Opens a regular file of a version: loads its extent map. ERR_ABSENT, ERR_CORRUPT, ERR_FAILED. */
int history_open(struct volume *volume, int64_t seq, int64_t ino, struct history_file **out, struct error *error);
void history_close(struct history_file *file);
int64_t history_size(const struct history_file *file);
/* Fills up to `length` bytes at `offset` (holes are zeros); the number of bytes is short only at the end of the file. Every byte comes from a chunk whose id was verified
 * (I25), in this order of places: spool, chunk cache, the live file, the remote. ERR_CORRUPT names the object, ERR_RETRY the store. */
int64_t history_read(struct history_file *file, void *data, size_t length, int64_t offset, struct error *error);
/* Next data or hole at or after offset, as lseek(2) SEEK_DATA / SEEK_HOLE; -ENXIO beyond the end. */
int64_t history_seek(const struct history_file *file, int64_t offset, int whence);

#endif

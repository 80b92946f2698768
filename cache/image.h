/* image: an SQLite database in an unlinked temporary file: a delta or a checkpoint, being built or read from the remote.
 * SQLite reaches the file by its descriptor only, through a small VFS of our own: no name, no lock, no journal, no sync.
 * An image from elsewhere is hostile: its header, page structure and schema text are checked before any row is read. */
#ifndef YESTER_IMAGE_H
#define YESTER_IMAGE_H

#include "db.h"

#include <stdint.h>

/* An unlinked file in tmp_dir, 0600: descriptor or negative enum err. */
int image_file(const char *tmp_dir, struct error *error);
/* Makes a database with those tables in the empty file fd and leaves a transaction open; the caller commits. fd stays the caller's, and must be
 * open as long as conn. page_bytes: power of two from 512. db_handle(conn) can ATTACH files by URI. */
int image_create(int fd, int page_bytes, const char *const tables[], size_t count, struct db_conn **out,
		 struct error *error);
/* Opens read-only, after all the checks. `what` names it in messages ("log record 17"). ERR_CORRUPT. fd stays the caller's. */
int image_open(int fd, uint64_t length, const char *what, const char *const tables[], size_t count,
	       struct db_conn **out, struct error *error);

#endif

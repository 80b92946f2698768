/* io: whole reads and writes, and files that appear whole or not at all. errno is set on failure. EINTR is retried.
 * In builds with failpoints, each call passes the failpoint named in its comment. Thread-safe (a buf belongs to its caller). */
#ifndef YESTER_IO_H
#define YESTER_IO_H

#include "buf.h"
#include "err.h"

#include <stdint.h>
#include <sys/types.h>

/* Reads until length or end of file; bytes read or -1. Failpoint io/pread. */
ssize_t io_pread(int fd, void *data, size_t length, int64_t offset);
/* Writes all; 0 or -1. Failpoints io/pwrite, io/write. */
int io_pwrite(int fd, const void *data, size_t length, int64_t offset);
int io_write(int fd, const void *data, size_t length);
/* mkdir -p with 0700 for what is missing (not made durable). 0 or enum err. */
int io_mkdirs(const char *path, struct error *error);
/* The whole of a file of at most `limit` bytes. ERR_ABSENT, ERR_CORRUPT (larger than limit), ERR_FAILED (not a regular file), or by errno.
 * `out` is cleared first; it has at least one byte of room behind its length on success. Follows links. */
int io_read_file(int dirfd, const char *name, size_t limit, struct buf *out, struct error *error);
/* Creates or replaces: temporary file in the same directory, write, fsync, rename, fsync of the directory. A failure leaves the old file
 * or, when only the last step failed, the new one; never a part. A crash may leave a ".new-..." beside it. `mode` is exact.
 * Failpoints io/write, io/replace-fsync, io/replace-before-rename, io/replace-rename, io/replace-after-rename, io/fsync-dir. */
int io_replace_file(int dirfd, const char *name, const void *data, size_t length, mode_t mode, struct error *error);
/* The same for a file that must not be there yet, else ERR_EXISTS; one of several racing creators wins. */
int io_create_file(int dirfd, const char *name, const void *data, size_t length, mode_t mode, struct error *error);
/* 0 or -1. `dirfd` is not O_PATH. Failpoint io/fsync-dir. */
int io_fsync_dir(int dirfd);
/* snprintf into a fresh string; NULL when out of memory. */
char *io_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Random bytes from the kernel; aborts if it has none (nothing sane can go on). */
void io_random(void *out, size_t length);

#endif

/* handle: an open file or directory of the live tree; fi->fh points at it. Kept in a list, so that what is still open when the connection breaks off is closed as well. */
#ifndef YESTER_HANDLE_H
#define YESTER_HANDLE_H

#include "fs.h"

#include <dirent.h>
#include <stdint.h>

struct handle {
	struct handle *next, *previous; /* fs->handles_lock */
	struct node *node;              /* referenced; constant */
	int fd;                         /* constant */
	int flags;                      /* constant once it is answered: of its open, if `counted` */
	bool counted;                   /* likewise: fs->io counts it */
	bool append_only;               /* likewise: opened with O_APPEND, as the file takes nothing else (chattr +a): what is written goes to its end, whatever the offset (pwrite(2)) */
	bool uncacheable;               /* likewise: what is read through it must not stay in the kernel's pages (op_read) */
	/* directories: what getdents64(2) gave and readdir has not passed on yet */
	pthread_mutex_t lock;
	char *entries;                  /* lock, as the following */
	size_t at, length;
	off_t offset;                   /* of the entry at `at` */
};

/* Before the first one. */
void handles_init(struct fs *fs);
/* Whether one more may be opened. An application that opens without end gets ENFILE while we still have the descriptors that cuts, uploads and the control socket need. */
bool handles_have_room(struct fs *fs);
/* Takes the caller's reference to the node, and the descriptor; NULL (out of memory): both stay with the caller. */
struct handle *handle_new(struct fs *fs, struct node *node, int fd);
/* Forgets it; node and descriptor stay with the caller. */
void handle_free(struct fs *fs, struct handle *handle);
void handle_close(struct fs *fs, struct handle *handle);
/* After the session: closes all that is left. */
void handle_close_all(struct fs *fs);

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

#endif

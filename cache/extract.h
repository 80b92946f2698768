/* extract: writes a subtree of a version to the local disk: for restore and clone. Data, names, modes, owners (as root),
 * times, xattrs, ACLs, hard links within the subtree, symlinks, holes, special files (as root). Names from the remote are
 * hostile: see DESIGN and facts/storage.md "Restore safety": every step is relative to a directory descriptor, O_NOFOLLOW,
 * O_EXCL; setuid bits only as root and only together with their owner.
 *
 * Order: directories (0700), symlinks and special files in one walk over the catalogue; the bytes of files, several at a time, in the order in which
 * they lie in the packs; hard links; directories' attributes, deepest first; if asked for, local_inode.
 *
 * Memory: about 60 bytes and its name for each entry.
 *
 * Files: extract.c the order of things; extract_walk.c names and directories; extract_body.c the bytes; extract_attrs.c owners, xattrs, modes, times; extract_local.c
 * local_inode. */
#ifndef YESTER_EXTRACT_H
#define YESTER_EXTRACT_H

#include "engine.h"
#include "history.h"

#include <stdatomic.h>

struct extract_options {
	bool record_local; /* clone: fill local_inode with key and captured stat of each inode (volume must have its backing open,
	                    * dirfd lies in it and comes from backing_root_fd, which is made durable first) */
	int jobs;          /* parallel file readers, 1..16 */
	progress_fn *progress;
	void *context;
	atomic_bool *stop; /* NULL or set from outside (Ctrl-C) */
	/* NULL: a file whose bytes are damaged or missing ends all (ERR_CORRUPT, ERR_ABSENT). Else it is left out, told here (one call at a time, any
	 * thread, path relative to what is extracted), and the rest goes on. */
	void (*damaged)(void *context, const char *path, const struct error *why);
};
struct extract_result {
	uint64_t inodes, bytes; /* bytes: written, without holes */
	uint64_t skipped;       /* inodes that lack something: special files, owners, setuid bits or xattrs that need root or another filesystem */
	uint64_t damaged;       /* files left out */
};

/* Writes inode `ino` of version seq as `name` into directory dirfd; name "": the contents of directory `ino` into dirfd itself
 * (which must be empty, and gets the attributes too). An existing name is ERR_EXISTS. ERR_CORRUPT (also: a catalogue with forbidden names or cycles),
 * ERR_ABSENT, ERR_NOSPACE, ERR_RETRY, ERR_ABANDONED (stopped) ... On failure what was written stays for the caller to remove. */
int extract_tree(struct volume *volume, int64_t seq, int64_t ino, int dirfd, const char *name,
		 const struct extract_options *options, struct extract_result *out, struct error *error);

#endif

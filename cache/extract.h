/* extract: writes a subtree of a version to the local disk: for restore and clone. Data, names, modes, owners (as root), times, xattrs, ACLs, hard links within
 * the subtree, symlinks, holes, special files (as root). Names from the remote are hostile: see DESIGN and facts/storage.md "Restore safety": every step is relative to a directory
 * descriptor, O_NOFOLLOW, O_EXCL. */
#ifndef YESTER_EXTRACT_H
#define YESTER_EXTRACT_H

#include "engine.h"
#include "history.h"

struct extract_options {
	bool record_local; /* clone: fill local_inode with key and captured stat of each inode (volume must have its backing open) */
	int jobs;          /* parallel file readers, 1..16 */
	progress_fn *progress;
	void *context;
	atomic_bool *stop; /* NULL or set from outside (Ctrl-C) */
};
struct extract_result { uint64_t inodes, bytes, skipped; }; /* skipped: special files or owners that need root */

/* Writes inode `ino` of version seq as `name` into directory dirfd; name "": the contents of directory `ino` into dirfd itself (which must be
 * empty). An existing name is ERR_EXISTS. On failure what was written stays for the caller to remove. */
int extract_tree(struct volume *volume, int64_t seq, int64_t ino, int dirfd, const char *name,
		 const struct extract_options *options, struct extract_result *out, struct error *error);

#endif

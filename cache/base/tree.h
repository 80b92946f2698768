/* tree: removing directory trees that somebody else may be changing meanwhile. Thread-safe. */
#ifndef YESTER_TREE_H
#define YESTER_TREE_H

/* Removes `name` in directory dirfd, with everything below: follows no links, crosses no mounts (EBUSY). Goes on where something can't be removed.
 * 0, or -1 with errno of the last failure. That there is nothing is ENOENT. */
int tree_remove(int dirfd, const char *name);
/* The same for everything in a directory, which stays. */
int tree_clear(int dirfd);

#endif

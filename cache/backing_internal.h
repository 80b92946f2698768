/* backing_internal: what the files of backing (backing.h) share. */
#ifndef YESTER_BACKING_INTERNAL_H
#define YESTER_BACKING_INTERNAL_H

#include "backing.h"

#include <stddef.h>
#include <stdint.h>

/* Descriptors by node number, least recently used ones closed first; one in use is never closed. Any thread. */
struct fd_cache;
struct fd_cache *fd_cache_new(size_t capacity);
void fd_cache_free(struct fd_cache *cache);
/* The cached descriptor of that number, now in use, or -1. */
int fd_cache_get(struct fd_cache *cache, uint64_t nodeid);
/* Takes over fd; returns the descriptor to use (another thread's, if that was faster), now in use, or -ENOMEM. */
int fd_cache_add(struct fd_cache *cache, uint64_t nodeid, int fd);
void fd_cache_put(struct fd_cache *cache, uint64_t nodeid, int fd);
/* The one that the caller has in use stays until fd_cache_drop, whatever else comes. */
void fd_cache_hold(struct fd_cache *cache, uint64_t nodeid);
void fd_cache_drop(struct fd_cache *cache, uint64_t nodeid);
/* Closes all that are not in use: true if there were any. */
bool fd_cache_shrink(struct fd_cache *cache);
size_t fd_cache_count(struct fd_cache *cache);

struct backing {
	/* All constant after backing_open. */
	int tree_fd;  /* keeps the private clone of the mount attached; -1 when we have none */
	int root_fd;
	bool handles;
	int root_mount_id;
	dev_t root_dev;
	struct node_key root_key;
	uint8_t identity[BACKING_IDENTITY_BYTES];
	size_t identity_length;
	backing_resolve_fn *resolve;
	void *resolve_context;
	struct fd_cache *fds; /* has locks of its own */
};

/* --- backing_key.c */
/* 0, or -errno: -EOPNOTSUPP when the inode has no handle that we can store. */
int handle_of_fd(int fd, struct node_key *key, int *mount_id);
/* A fresh descriptor of the inode with that handle, on the mount of mount_fd; or -errno. */
int open_by_key(int mount_fd, const struct node_key *key, int flags);
/* As backing_identify, of an open descriptor. */
int identify_fd(const struct backing *backing, int fd, struct node_key *key, struct stat *st);
/* `saved`: an errno. Out of descriptors: give up cached ones, then it is worth another try (fault 28). */
bool backing_make_room(struct backing *backing, int saved);

/* --- backing_filesystem.c. Which filesystem this is, the same after a reboot and under a newer kernel. The bytes used. */
size_t filesystem_id(int fd, uint8_t out[17]);

/* --- backing_attrs.c. 0 or -errno. */
int stat_of_fd(int fd, struct stat *st, int64_t *btime_ns, uint64_t *mount_id);

#endif

/* Descriptors of nodes: from a key, from a held one, or from the cache (backing_fd.c). */
#include "backing_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void backing_proc_path(char out[BACKING_PROC_PATH], int fd)
{
	char digits[12];
	int n = 0, length = 14;

	memcpy(out, "/proc/self/fd/", 14);
	do
		digits[n++] = (char)('0' + fd % 10);
	while ((fd /= 10) > 0);
	while (n > 0)
		out[length++] = digits[--n];
	out[length] = '\0';
}

/* A descriptor with other flags of what `fd` (O_PATH) refers to. */
static int reopen_fd(int fd, int flags)
{
	char path[BACKING_PROC_PATH];
	int opened;

	if (flags & O_PATH) {
		opened = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		return opened < 0 ? -errno : opened;
	}
	backing_proc_path(path, fd);
	do
		opened = open(path, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	while (opened < 0 && errno == EINTR);
	return opened < 0 ? -errno : opened;
}

/* A fresh O_PATH descriptor of an inode whose key says nothing of the way to it. */
static int resolve(struct backing *backing, const struct node_key *key)
{
	if (node_key_equal(key, &backing->root_key))
		return reopen_fd(backing->root_fd, O_PATH);
	if (!backing->resolve)
		return -ESTALE;
	return backing->resolve(backing->resolve_context, key);
}

static int reopen_key_once(struct backing *backing, const struct node_key *key, int flags)
{
	int path_fd, fd;

	if (node_key_type(key) >= 0)
		return backing->handles ? open_by_key(backing->root_fd, key, flags) : -ESTALE;
	path_fd = resolve(backing, key);
	if (path_fd < 0)
		return path_fd;
	if (flags & O_PATH)
		return path_fd;
	fd = reopen_fd(path_fd, flags);
	close(path_fd);
	return fd;
}

static int reopen(struct backing *backing, struct node *node, const struct node_key *key, int flags)
{
	int held, fd;

	/* What lies on another mount may be looked at, not read. */
	if (node_key_type(key) == NODE_KEY_FOREIGN && !(flags & O_PATH))
		return -EACCES;
	for (;;) {
		held = node ? atomic_load(&node->held_fd) : -1;
		fd = held >= 0 ? reopen_fd(held, flags) : reopen_key_once(backing, key, flags);
		if (fd == -EPERM && flags & O_NOATIME)
			flags &= ~O_NOATIME; /* only the owner may */
		else if (fd >= 0 || !backing_make_room(backing, -fd))
			return fd;
	}
}

int backing_reopen(struct backing *backing, struct node *node, int flags)
{
	int result = reopen(backing, node, &node->key, flags), fd;

	if (result != -ESTALE || (fd = fd_cache_get(backing->fds, node->nodeid)) < 0)
		return result;
	/* Without a name, but held: not every filesystem opens the handle of such an inode. */
	result = reopen_fd(fd, flags);
	fd_cache_put(backing->fds, node->nodeid, fd);
	return result;
}

int backing_reopen_key(struct backing *backing, const struct node_key *key, int flags)
{
	return reopen(backing, NULL, key, flags);
}

/* For keys without handle. */
static int keep_descriptor(struct backing *backing, struct node *node)
{
	int fd, none = -1;

	if (atomic_load(&node->held_fd) >= 0)
		return 0;
	fd = reopen(backing, NULL, &node->key, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	if (!atomic_compare_exchange_strong(&node->held_fd, &none, fd))
		close(fd);
	return 0;
}

int backing_fd_get(struct backing *backing, struct node *node)
{
	int fd = atomic_load(&node->held_fd);

	if (fd >= 0)
		return fd;
	if (node_key_type(&node->key) < 0) {
		fd = keep_descriptor(backing, node);
		return fd < 0 ? fd : atomic_load(&node->held_fd);
	}
	fd = fd_cache_get(backing->fds, node->nodeid);
	if (fd >= 0)
		return fd;
	fd = reopen(backing, NULL, &node->key, O_PATH | O_NOFOLLOW);
	return fd < 0 ? fd : fd_cache_add(backing->fds, node->nodeid, fd);
}

void backing_fd_put(struct backing *backing, struct node *node, int fd)
{
	if (fd >= 0 && node_key_type(&node->key) >= 0)
		fd_cache_put(backing->fds, node->nodeid, fd);
}

void backing_fd_drop(struct backing *backing, struct node *node)
{
	struct stat st;
	int fd;

	fd_cache_drop(backing->fds, node->nodeid);
	if (atomic_load(&node->held_fd) < 0)
		return;
	/* The only way to the inode, unless nothing leads there any more. */
	small_lock_take(&node->lock);
	fd = atomic_load(&node->held_fd);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0) {
		atomic_store(&node->held_fd, -1);
		close(fd);
	}
	small_lock_leave(&node->lock);
}

void backing_fd_drop_id(void *context, uint64_t nodeid)
{
	fd_cache_drop(((struct backing *)context)->fds, nodeid);
}

size_t backing_fd_count(struct backing *backing)
{
	return fd_cache_count(backing->fds);
}

int backing_hold(struct backing *backing, struct node *node)
{
	int fd;

	if (node_key_type(&node->key) < 0)
		return keep_descriptor(backing, node);
	fd = backing_fd_get(backing, node);
	if (fd < 0)
		return fd;
	fd_cache_hold(backing->fds, node->nodeid);
	backing_fd_put(backing, node, fd);
	return 0;
}

void backing_set_resolver(struct backing *backing, backing_resolve_fn *fn, void *context)
{
	backing->resolve = fn;
	backing->resolve_context = context;
}

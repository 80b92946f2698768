/* Which inode it is: a key of its file handle, or of its numbers where there is none; and back. */
#include "backing_internal.h"

#include "bytes.h"
#include "failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

union handle {
	struct file_handle handle;
	char room[sizeof(struct file_handle) + NODE_KEY_MAX];
};

static void key_of_handle(struct node_key *key, const struct file_handle *handle)
{
	memset(key, 0, sizeof *key);
	put_u16(key->bytes, (uint16_t)handle->handle_type);
	memcpy(key->bytes + 2, handle->f_handle, handle->handle_bytes);
	key->length = (uint8_t)(2 + handle->handle_bytes);
}

static void key_of_numbers(struct node_key *key, int type, uint64_t dev, uint64_t ino, int64_t btime_ns)
{
	memset(key, 0, sizeof *key);
	put_u16(key->bytes, (uint16_t)type);
	put_u64(key->bytes + 2, dev);
	put_u64(key->bytes + 10, ino);
	put_u64(key->bytes + 18, (uint64_t)btime_ns);
	key->length = 26;
}

int handle_of_fd(int fd, struct node_key *key, int *mount_id)
{
	union handle buffer = { .handle.handle_bytes = NODE_KEY_MAX - 2 };

	if (name_to_handle_at(fd, "", &buffer.handle, mount_id, AT_EMPTY_PATH) < 0)
		return errno == EOVERFLOW ? -EOPNOTSUPP : -errno;
	if (buffer.handle.handle_type < 0 || buffer.handle.handle_type > INT16_MAX)
		return -EOPNOTSUPP;
	key_of_handle(key, &buffer.handle);
	return 0;
}

int open_by_key(int mount_fd, const struct node_key *key, int flags)
{
	union handle buffer = { .handle = { .handle_type = node_key_type(key), .handle_bytes = key->length - 2u } };
	int fd;

	memcpy(buffer.handle.f_handle, key->bytes + 2, key->length - 2u);
	do
		fd = open_by_handle_at(mount_fd, &buffer.handle, flags | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	int refused = FAILPOINT_ERRNO_FD("backing/open-handle", fd);
	if (refused)
		close(fd);
	return refused ? -refused : fd;
}

int identify_fd(const struct backing *backing, int fd, struct node_key *key, struct stat *st)
{
	uint64_t mount_id = (uint64_t)backing->root_mount_id, dev;
	int64_t btime_ns;
	int type, rc, id;

	if (backing->handles) {
		rc = handle_of_fd(fd, key, &id);
		if (rc == 0 && id == backing->root_mount_id)
			return fstat(fd, st) < 0 ? -errno : 0;
		if (rc < 0 && rc != -EOPNOTSUPP)
			return rc;
		if (rc == 0)
			mount_id = (uint64_t)id;
	}
	rc = stat_of_fd(fd, st, &btime_ns, &mount_id);
	if (rc < 0)
		return rc;
	type = mount_id == (uint64_t)backing->root_mount_id ? NODE_KEY_NO_HANDLE : NODE_KEY_FOREIGN;
	/* Device numbers change from boot to boot: the root's is left out. */
	dev = st->st_dev == backing->root_dev ? 0 : st->st_dev;
	key_of_numbers(key, type, dev, st->st_ino, btime_ns);
	return 0;
}

bool backing_make_room(struct backing *backing, int saved)
{
	return (saved == EMFILE || saved == ENFILE) && fd_cache_shrink(backing->fds);
}

int backing_identify(struct backing *backing, int dirfd, const char *name, struct node_key *key, struct stat *st,
		     int *fd_out)
{
	int fd, rc;

	/* O_PATH without O_DIRECTORY does not trigger an automount. */
	do
		fd = *name ? openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
	while (fd < 0 && (errno == EINTR || backing_make_room(backing, errno)));
	if (fd < 0)
		return -errno;
	rc = identify_fd(backing, fd, key, st);
	if (rc == 0 && fd_out)
		*fd_out = fd;
	else
		close(fd);
	return rc;
}

#include "backing.h"

#include "backing_internal.h"
#include "bytes.h"
#include "failpoint.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#define FD_CACHE_MAX 4096

/* Linux 6.9 (include/uapi/linux/fs.h); older headers lack them. */
struct fsuuid2_ { uint8_t length, uuid[16]; };
#define FS_IOC_GETFSUUID_ _IOR(0x15, 0, struct fsuuid2_)
/* fs/xfs/libxfs/xfs_fs.h: struct xfs_fsop_geom_v1; the uuid and a flag interest us. */
struct xfs_geometry_ {
	uint32_t a[8];
	uint64_t b[4];
	uint8_t uuid[16];
	uint32_t c[3], flags, d[3];
};
#define XFS_FSOP_GEOM_FLAGS_DIRV2CI_ (1u << 12) /* mkfs.xfs -n version=ci */
#define XFS_IOC_FSGEOMETRY_V1_ _IOR('X', 100, struct xfs_geometry_)

/* ---------------------------------------------------------------- keys */

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

/* 0, or -errno: -EOPNOTSUPP when the inode has no handle that we can store. */
static int handle_of_fd(int fd, struct node_key *key, int *mount_id)
{
	union handle buffer = { .handle.handle_bytes = NODE_KEY_MAX - 2 };

	if (name_to_handle_at(fd, "", &buffer.handle, mount_id, AT_EMPTY_PATH) < 0)
		return errno == EOVERFLOW ? -EOPNOTSUPP : -errno;
	if (buffer.handle.handle_type < 0 || buffer.handle.handle_type > INT16_MAX)
		return -EOPNOTSUPP;
	key_of_handle(key, &buffer.handle);
	return 0;
}

static int open_by_key(int mount_fd, const struct node_key *key, int flags)
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

static int identify_fd(const struct backing *backing, int fd, struct node_key *key, struct stat *st)
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

/* Out of descriptors: give up cached ones, then it is worth another try (fault 28). */
static bool make_room(struct backing *backing, int saved)
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
	while (fd < 0 && (errno == EINTR || make_room(backing, errno)));
	if (fd < 0)
		return -errno;
	rc = identify_fd(backing, fd, key, st);
	if (rc == 0 && fd_out)
		*fd_out = fd;
	else
		close(fd);
	return rc;
}

/* ---------------------------------------------------------------- descriptors of nodes */

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
		else if (fd >= 0 || !make_room(backing, -fd))
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

/* ---------------------------------------------------------------- opening, identity */

int backing_root_fd(const struct backing *backing)
{
	return backing->root_fd;
}

bool backing_has_handles(const struct backing *backing)
{
	return backing->handles;
}

size_t backing_identity(const struct backing *backing, uint8_t out[BACKING_IDENTITY_BYTES])
{
	memcpy(out, backing->identity, backing->identity_length);
	return backing->identity_length;
}

/* Not in every include/uapi/linux/magic.h, or of filesystems outside of the kernel. */
#define BCACHEFS_MAGIC_ 0xca451a4eu
#define EXFAT_MAGIC_ 0x2011bab0u
#define HFSPLUS_MAGIC_ 0x482bu
#define JFS_MAGIC_ 0x3153464au
#define NTFS3_MAGIC_ 0x7366746eu
#define NTFS_MAGIC_ 0x5346544eu
#define ZFS_MAGIC_ 0x2fc12fc1u

static bool xfs_folds_case(int fd)
{
	struct xfs_geometry_ geometry = { 0 };

	return ioctl(fd, XFS_IOC_FSGEOMETRY_V1_, &geometry) != 0 || geometry.flags & XFS_FSOP_GEOM_FLAGS_DIRV2CI_;
}

void backing_nature(const struct backing *backing, bool *local, enum backing_names *names)
{
	struct statfs fs = { 0 };

	*local = true;
	*names = BACKING_UNKNOWN;
	switch (fstatfs(backing->root_fd, &fs) < 0 ? 0 : (uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC: /* ext2 and ext3 too */
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case BCACHEFS_MAGIC_:
	case OVERLAYFS_SUPER_MAGIC:
		*names = BACKING_BY_DIRECTORY;
		break;
	case XFS_SUPER_MAGIC:
		*names = xfs_folds_case(backing->root_fd) ? BACKING_UNKNOWN : BACKING_EXACT;
		break;
	case BTRFS_SUPER_MAGIC:
	case RAMFS_MAGIC:
	case NILFS_SUPER_MAGIC:
		*names = BACKING_EXACT;
		break;
	case JFS_MAGIC_:
	case ZFS_MAGIC_: /* these may fold, and don't say where */
	case MSDOS_SUPER_MAGIC:
	case EXFAT_MAGIC_:
	case NTFS_MAGIC_:
	case NTFS3_MAGIC_:
	case HFSPLUS_MAGIC_:
		break;
	default: /* shared with other machines, or unknown */
		*local = false;
	}
}

bool backing_folds_case(int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0)
		return flags & FS_CASEFOLD_FL;
	return errno != ENOTTY && errno != EOPNOTSUPP; /* it knows no such flags */
}

/* The directory beneath an automount trigger, through a private clone of the mount that it lies on. O_PATH or -1. */
static int open_beneath(struct backing *backing, const char *directory)
{
	char *path = realpath(directory, NULL), *copy = path ? strdup(path) : NULL;
	int fd = -1, saved;

	if (copy)
		backing->tree_fd = open_tree(AT_FDCWD, dirname(copy), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (backing->tree_fd >= 0)
		fd = openat(backing->tree_fd, basename(path), O_PATH | O_NOFOLLOW | O_CLOEXEC);
	saved = errno;
	free(copy);
	free(path);
	errno = saved;
	return fd;
}

static int open_directory(const char *directory, struct backing *backing, struct error *error)
{
	struct statfs fs;
	struct stat st;
	int from, saved, fd = open(directory, O_PATH | O_CLOEXEC);

	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == AUTOFS_SUPER_MAGIC) {
		close(fd);
		fd = open_beneath(backing, directory);
	}
	if (fd < 0)
		return error_errno(error, errno, "cannot open the directory %s", directory);
	/* Only root may clone; without, submounts show. */
	from = fd;
	if (backing->tree_fd < 0) {
		backing->tree_fd = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (backing->tree_fd >= 0)
			from = backing->tree_fd;
	}
	if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
		errno = ENOTDIR;
	else
		backing->root_fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	saved = errno;
	close(fd);
	if (backing->root_fd < 0)
		return error_errno(error, saved, "cannot open the directory %s", directory);
	if (fstat(backing->root_fd, &st) < 0)
		return error_errno(error, errno, "cannot open the directory %s", directory);
	backing->root_dev = st.st_dev;
	return 0;
}

/* Tries what the handles are for. */
static void probe_handles(struct backing *backing)
{
	int fd, mount_id;
	uint64_t id = 0;
	int64_t btime_ns;
	struct stat st, again;

	if (handle_of_fd(backing->root_fd, &backing->root_key, &mount_id) == 0) {
		backing->root_mount_id = mount_id;
		fd = open_by_key(backing->root_fd, &backing->root_key, O_PATH);
		if (fd >= 0) {
			backing->handles = fstat(fd, &again) == 0 && fstat(backing->root_fd, &st) == 0 &&
					   again.st_ino == st.st_ino && again.st_dev == st.st_dev;
			close(fd);
		}
	} else if (stat_of_fd(backing->root_fd, &st, &btime_ns, &id) == 0) {
		backing->root_mount_id = (int)id;
	}
}

/* Which filesystem this is, the same after a reboot and under a newer kernel. f_fsid is folded from the UUID on these; elsewhere
 * it may be made of the device number. */
static size_t filesystem_id(int fd, uint8_t out[17])
{
	struct statfs fs = { 0 };
	struct fsuuid2_ uuid = { 0 };
	struct xfs_geometry_ geometry;
	bool stable;

	if (fstatfs(fd, &fs) < 0)
		memset(&fs, 0, sizeof fs);
	stable = fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == F2FS_SUPER_MAGIC;
	if (!stable && ioctl(fd, FS_IOC_GETFSUUID_, &uuid) == 0 && uuid.length == sizeof uuid.uuid) {
		out[0] = 'u';
		memcpy(out + 1, uuid.uuid, 16);
		return 17;
	}
	if (fs.f_type == XFS_SUPER_MAGIC && ioctl(fd, XFS_IOC_FSGEOMETRY_V1_, &geometry) == 0) {
		out[0] = 'u';
		memcpy(out + 1, geometry.uuid, 16);
		return 17;
	}
	out[0] = 'f';
	memcpy(out + 1, &fs.f_fsid, 8);
	return 9;
}

static int make_identity(struct backing *backing)
{
	struct node_key key;
	struct stat st;
	size_t length = filesystem_id(backing->root_fd, backing->identity);
	int id, rc = 0;

	/* Reading a handle needs no right, so root and user see the same identity. */
	if (handle_of_fd(backing->root_fd, &key, &id) < 0)
		rc = identify_fd(backing, backing->root_fd, &key, &st);
	if (rc < 0)
		return rc;
	memcpy(backing->identity + length, key.bytes, key.length);
	backing->identity_length = length + key.length;
	return identify_fd(backing, backing->root_fd, &backing->root_key, &st);
}

int backing_open(const char *directory, struct backing **out, struct error *error)
{
	struct backing *backing = calloc(1, sizeof *backing);
	struct rlimit limit = { 0 };
	size_t capacity;
	int rc;

	*out = NULL;
	if (!backing)
		return error_errno(error, ENOMEM, "cannot open the directory %s", directory);
	backing->tree_fd = backing->root_fd = -1;
	getrlimit(RLIMIT_NOFILE, &limit);
	capacity = limit.rlim_cur / 4 < FD_CACHE_MAX ? limit.rlim_cur / 4 : FD_CACHE_MAX;
	backing->fds = fd_cache_new(capacity);
	if (!backing->fds) {
		rc = error_errno(error, ENOMEM, "cannot open the directory %s", directory);
		goto fail;
	}
	rc = open_directory(directory, backing, error);
	if (rc < 0)
		goto fail;
	probe_handles(backing);
	rc = make_identity(backing);
	if (rc < 0) {
		rc = error_errno(error, -rc, "cannot identify the directory %s", directory);
		goto fail;
	}
	*out = backing;
	return 0;
fail:
	backing_close(backing);
	return rc;
}

void backing_close(struct backing *backing)
{
	if (!backing)
		return;
	fd_cache_free(backing->fds);
	if (backing->root_fd >= 0)
		close(backing->root_fd);
	if (backing->tree_fd >= 0)
		close(backing->tree_fd);
	free(backing);
}

void backing_boot_id(uint8_t out[16])
{
	struct buf text = { 0 };
	char digits[33];
	size_t n = 0;

	if (io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, NULL) == 0)
		for (size_t i = 0; i < text.length && n < 32; i++)
			if (text.data[i] != '-' && text.data[i] != '\n')
				digits[n++] = (char)text.data[i];
	digits[n] = '\0';
	if (n != 32 || !hex_decode(out, 16, digits))
		io_random(out, 16);
	buf_free(&text);
}

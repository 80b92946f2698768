/* Which filesystem it is: its identity, and what it says of names and of other machines. */
#include "backing_internal.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>

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

/* f_fsid is folded from the UUID on these; elsewhere it may be made of the device number. */
size_t filesystem_id(int fd, uint8_t out[17])
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

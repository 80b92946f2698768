#include "passthrough.h"

#include "backing.h"
#include "inode.h"
#include "io_mode.h"
#include "log.h"
#include "suspect.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux 6.9, include/uapi/linux/fuse.h; older headers lack them. libfuse's fuse_passthrough_open() does the same, but wants a request, and keeps errno for itself. */
struct backing_map { int32_t fd; uint32_t flags; uint64_t padding; };
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

static int backing_open_id(void *context, int fd)
{
	struct fs *fs = context;
	struct backing_map map = {.fd = fd};
	int id = ioctl(fuse_session_fd(fs->session), BACKING_OPEN, &map);

	return id > 0 ? id : id == 0 ? -EIO : -errno;
}

static void backing_close_id(void *context, int id)
{
	struct fs *fs = context;
	uint32_t number = (uint32_t)id;

	if (!fs->session) /* closed: its ids went with it */
		return;
	/* ENOTCONN and its like: the connection is gone, and took the id with it. */
	if (ioctl(fuse_session_fd(fs->session), BACKING_CLOSE, &number) != 0)
		log_debug("backing id %d: can't be closed: %s", id, strerror(errno));
}

/* An open is no operation that holds what this waits for (fuse_reverse_inval_inode, and fuse_lowlevel.h on deadlocks). ENOENT: the kernel has not heard of the inode. */
static void drop_pages(void *context, uint64_t nodeid)
{
	struct fs *fs = context;

	fuse_lowlevel_notify_inval_inode(fs->session, nodeid, 0, 0);
}

static bool is_suspect(void *context, const struct node *node)
{
	struct fs *fs = context;

	return suspect_is(fs->journal, node);
}

static bool is_in_use(void *context, const struct node *node, int fd)
{
	struct node *noted = (struct node *)node; /* only its flags */

	(void)context;
	if (!(atomic_load(&noted->flags) & INODE_MAY_BE_MAPPED))
		return false;
	if (backing_is_in_use(fd))
		return true;
	atomic_fetch_and(&noted->flags, (uint8_t)~INODE_MAY_BE_MAPPED);
	return false;
}

static void look(void *context, const struct node *node)
{
	struct node *noted = (struct node *)node; /* its flags, and its lock */
	struct fs *fs = context;

	/* A suspect one is passed through anyway, and its own check wants no other lease there. */
	if (atomic_load(&noted->flags) & INODE_MAY_BE_MAPPED && !suspect_is(fs->journal, node) && !suspect_in_use(fs->journal, noted))
		atomic_fetch_and(&noted->flags, (uint8_t)~INODE_MAY_BE_MAPPED);
}

const struct io_mode_backing *passthrough_backing(struct fs *fs)
{
	static struct io_mode_backing backing = {.open = backing_open_id, .close = backing_close_id, .drop = drop_pages, .suspect = is_suspect, .look = look, .in_use = is_in_use};

	backing.context = fs;
	return &backing;
}

/* ---------------------------------------------------------------- asking for it */

#if FUSE_KILLS_SUIDGID
/* The kernel wants CAP_SYS_ADMIN in the initial user namespace (fuse_backing_open). */
static bool is_real_root(void)
{
	struct stat st;

	return geteuid() == 0 && stat("/proc/self/ns/user", &st) == 0 && st.st_ino == FS_INITIAL_USER_NAMESPACE;
}

/* What is missing, the cheap questions first. */
static const char *ask(const struct fs *fs, struct fuse_conn_info *conn)
{
	if (fs->no_passthrough)
		return "switched off by -o no_passthrough";
	if (!(conn->capable & FUSE_CAP_PASSTHROUGH))
		return "needs Linux 6.9 with FUSE_PASSTHROUGH";
	/* An open that can write is direct I/O then, and leaves it to us to take set-id bits away. */
	if (!(conn->want & FUSE_CAP_HANDLE_KILLPRIV_V2))
		return "needs FUSE_HANDLE_KILLPRIV_V2";
	if (!is_real_root())
		return "needs root outside of containers";
	if (!backing_has_handles(fs->backing))
		return "the directory's filesystem has no file handles";
	if (!backing_has_direct_io(fs->backing))
		return "the directory's filesystem has no direct I/O";
	if (!backing_leases_tell(fs->backing))
		return "leases on the directory's filesystem don't show what is mapped";
	conn->want |= FUSE_CAP_PASSTHROUGH;
	return NULL;
}
#else
static const char *ask(const struct fs *fs, struct fuse_conn_info *conn)
{
	(void)conn;
	return fs->no_passthrough ? "switched off by -o no_passthrough" : "needs libfuse 3.18.3";
}
#endif

const char *passthrough_init(struct fs *fs, struct fuse_conn_info *conn)
{
	const char *why = ask(fs, conn);

	atomic_store(&fs->passthrough, !why);
	io_table_allow(fs->io, !why);
	return why;
}

/* ---------------------------------------------------------------- the guard */

static bool hold(void *context, const struct node *node)
{
	return io_mode_hold(((struct fs *)context)->io, node->nodeid);
}

static void resume(void *context, const struct node *node)
{
	io_mode_resume(((struct fs *)context)->io, node->nodeid);
}

void passthrough_guard(struct fs *fs, bool on)
{
	struct suspect_guard guard = {.hold = hold, .resume = resume, .context = fs};

	if (fs->journal)
		suspect_set_guard(fs->journal, on ? &guard : NULL);
}

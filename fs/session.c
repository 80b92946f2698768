#include "session.h"

#include "backing.h"
#include "clock.h"
#include "fusectl.h"
#include "handle.h"
#include "identity.h"
#include "inode.h"
#include "io_mode.h"
#include "log.h"
#include "ops_attr.h"
#include "ops_dir.h"
#include "ops_file.h"
#include "ops_name.h"
#include "passthrough.h"
#include "pool.h"
#include "snap_node.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LOOP_THREADS 16
#define SYNC_THREADS 16
#define HISTORY_THREADS 32
#define QUEUED 65536 /* a process waits for each: the kernel's limit on processes comes first */
/* Reads ahead and write-back count as background requests, those below .snapshots too, which may wait for the network: there must be enough for the others. */
#define MAX_BACKGROUND 1024
#define LOOKS 3
#define LOOKS_BLIND 50

static pthread_t loop_thread;
static char last_fuse_message[256];

/* ---------------------------------------------------------------- what libfuse says */

static void fuse_says(enum fuse_log_level level, const char *format, va_list args)
{
	char line[256];
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level <= FUSE_LOG_ERR)
		snprintf(last_fuse_message, sizeof(last_fuse_message), "%s", line);
	if (level <= FUSE_LOG_ERR)
		log_error("libfuse: %s", line);
	else if (level <= FUSE_LOG_INFO)
		log_debug("libfuse: %s", line);
}

/* ---------------------------------------------------------------- what we ask of the kernel */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	static const unsigned int wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL |
					   FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_WRITE |
					   FUSE_CAP_SPLICE_MOVE | FUSE_CAP_CACHE_SYMLINKS;
	struct fs *fs = userdata;
	conn->want = conn->capable & wanted;
	/* Where others may have the directory in view, pages are believed as long as size and mtime are the same. That also drops all pages of a file after each write of our own, and some while another
	 * write is under way: the kernel has filled them, and has not sent WRITE yet (fuse_fill_write_pages); whoever reads them then gets the old bytes, and keeps them. */
	conn->want |= conn->capable & (fs->alone ? FUSE_CAP_EXPLICIT_INVAL_DATA : FUSE_CAP_AUTO_INVAL_DATA);
	if (identity_has_umask())
		conn->want |= conn->capable & FUSE_CAP_DONT_MASK;
	/* Never: FUSE_CAP_ATOMIC_O_TRUNC (fuse_open() then holds neither the inode's lock nor its write-back, and sets the size to 0 once more when the open has been answered for a
	 * while: mapped pages that were on their way come back to life in the empty file, and what was appended meanwhile is written over; as a SETATTR it is right);
	 * FUSE_CAP_WRITEBACK_CACHE (an acknowledged write could die with us, and be reordered against a rename); FUSE_CAP_HANDLE_KILLPRIV (it does not say when set-id bits
	 * are to be taken away); FUSE_CAP_SPLICE_READ (a pipe for each small request). */
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
	conn->want |= conn->capable & FUSE_CAP_DIRECT_IO_ALLOW_MMAP; /* for IO_DIRECT (io_mode.h) */
#endif
#if FUSE_KILLS_SUIDGID
	/* Saves a GETXATTR before the first write to each file. Set-id bits are ours then: who can't act as the caller leaves them to the kernel. */
	if (identity_switches())
		conn->want |= conn->capable & FUSE_CAP_HANDLE_KILLPRIV_V2;
	fs->told_fsetid = conn->want & FUSE_CAP_HANDLE_KILLPRIV_V2;
#endif
	conn->max_write = FS_MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	_Static_assert(3 * SESSION_FEW < MAX_BACKGROUND * 3 / 4, "mount_serve.c, write_back");
	conn->time_gran = 1;
	atomic_store(&fs->can_expire, conn->capable & FUSE_CAP_EXPIRE_ONLY);
	const char *why = passthrough_init(fs, conn);
	log_info("serving with libfuse %s; passthrough: %s; io_uring is not in use", fuse_pkgversion(),
		 why ? why : "in use");
}

/* No flush: nothing waits for a close (the kernel drops its locks and writes mapped pages back by itself). No access: default_permissions. No locks: they are the kernel's. */
static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
	.statx = op_statx,
#endif
	.setattr = op_setattr,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.open = op_open,
	.create = op_create,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	.tmpfile = op_tmpfile,
#endif
	.release = op_release,
	.read = op_read,
	.write_buf = op_write_buf,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
};

/* ---------------------------------------------------------------- options */

/* A comma or backslash in a value is escaped by a backslash (fuse_opt.h). */
static int add_escaped(struct buf *out, const char *text)
{
	int rc = 0;
	for (; *text && rc == 0; text++) {
		if (*text == ',' || *text == '\\')
			rc = buf_append_u8(out, '\\');
		if (rc == 0)
			rc = buf_append_u8(out, (uint8_t)*text);
	}
	return rc;
}

/* The mount is no laxer than the filesystem below, unless somebody says so. */
static int add_flags(struct fs *fs, const struct mount_options *options, struct buf *out)
{
	struct statvfs below = {.f_flag = 0};
	bool root = geteuid() == 0;

	fstatvfs(backing_root_fd(fs->backing), &below);
	bool suid = options->suid || (!options->nosuid && !(below.f_flag & ST_NOSUID));
	bool dev = options->dev || (!options->nodev && !(below.f_flag & ST_NODEV));
	bool exec = options->exec || (!options->noexec && !(below.f_flag & ST_NOEXEC));
	bool read_only = options->read_only || below.f_flag & ST_RDONLY;
	/* For others than root the kernel does not allow the first two at all. */
	int rc = buf_printf(out, ",%s,%s%s%s", root && suid ? "suid" : "nosuid", root && dev ? "dev" : "nodev",
			    exec ? "" : ",noexec", read_only ? ",ro" : "");
	if (rc == 0 && (root || options->allow_other))
		rc = buf_printf(out, ",allow_other");
	if (rc == 0 && options->kernel.length)
		rc = buf_append(out, options->kernel.data, options->kernel.length);
	return rc;
}

static int build_options(struct fs *fs, const char *directory, const struct mount_options *options, struct buf *out)
{
	int rc = buf_printf(out, "-osubtype=yester,default_permissions,fsname=");
	if (rc == 0)
		rc = add_escaped(out, directory);
	if (rc == 0)
		rc = add_flags(fs, options, out);
	if (rc == 0)
		rc = buf_append_u8(out, 0);
	return rc;
}

/* ---------------------------------------------------------------- life */

static int open_parts(struct fs *fs)
{
	handles_init(fs);
	fs->snaps = snap_table_new(fs);
	fs->io = io_table_new(passthrough_backing(fs));
	if (fs->io)
		passthrough_guard(fs, true);
	fs->sync_pool = pool_new(SYNC_THREADS, "fsync", QUEUED);
	fs->history_pool = pool_new(HISTORY_THREADS, "history", QUEUED);
	return fs->snaps && fs->io && fs->sync_pool && fs->history_pool ? 0 : ERR_NOMEM;
}

int session_open(struct fs *fs, const char *directory, const struct mount_options *options, struct error *error)
{
	struct buf text = {0};
	struct stat st;

	fuse_set_log_func(fuse_says);
	if (fstat(backing_root_fd(fs->backing), &st) != 0)
		return error_errno(error, errno, "%s", directory);
	fs->owner = st.st_uid;
	fs->group = st.st_gid;
	fs->snapdir_visible = options->snapdir_visible;
	fs->no_passthrough = options->no_passthrough;
	if (open_parts(fs) < 0 || build_options(fs, directory, options, &text) < 0) {
		buf_free(&text);
		return error_set(error, ERR_NOMEM, ENOMEM, "%s: no memory or threads to mount with", directory);
	}
	char *arguments[] = {"yester", (char *)text.data, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, arguments);
	fs->session = fuse_session_new(&args, &operations, sizeof(operations), fs);
	fuse_opt_free_args(&args);
	buf_free(&text);
	if (!fs->session)
		return error_set(error, ERR_FAILED, 0, "%s: libfuse refuses: %s", directory, last_fuse_message);
	return 0;
}

/* fusermount3 tells its reasons on stderr only, which in the daemon is nobody's. Its first line goes to `message`. */
static int mount_listening(struct fuse_session *session, const char *mountpoint, char *message, size_t room)
{
	int saved = dup(STDERR_FILENO), heard = memfd_create("fusermount3", MFD_CLOEXEC);
	if (saved >= 0 && heard >= 0)
		dup2(heard, STDERR_FILENO);
	int rc = fuse_session_mount(session, mountpoint);
	if (saved >= 0 && heard >= 0) {
		dup2(saved, STDERR_FILENO);
		ssize_t count = pread(heard, message, room - 1, 0);
		message[count > 0 ? count : 0] = '\0';
		message[strcspn(message, "\n")] = '\0';
	}
	if (saved >= 0)
		close(saved);
	if (heard >= 0)
		close(heard);
	return rc;
}

int session_mount(struct fs *fs, const char *mountpoint, struct error *error)
{
	char message[256] = "";
	last_fuse_message[0] = '\0';
	int rc = geteuid() == 0 ? fuse_session_mount(fs->session, mountpoint)
				: mount_listening(fs->session, mountpoint, message, sizeof(message));
	if (rc == 0)
		return 0;
	return error_set(error, ERR_FAILED, 0, "%s: can't be mounted: %s", mountpoint,
			 message[0]		? message
			 : last_fuse_message[0] ? last_fuse_message
						: "the kernel refuses");
}

static void do_nothing(int number)
{
	(void)number;
}

int session_loop(struct fs *fs)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct sigaction action = {.sa_handler = do_nothing}; /* without SA_RESTART: it ends the waiting in libfuse */
	sigset_t set;

	if (!config)
		return ERR_NOMEM;
	loop_thread = pthread_self();
	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);

	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, LOOP_THREADS);
	int rc = fuse_session_loop_mt(fs->session, config);
	fuse_loop_cfg_destroy(config);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return rc < 0 ? ERR_FAILED : 0;
}

void session_exit(struct fs *fs)
{
	fuse_session_exit(fs->session);
	pthread_kill(loop_thread, SIGUSR1);
}

static bool connection_is_dead(struct fuse_session *session, int wait_ms)
{
	struct pollfd one = {.fd = fuse_session_fd(session)};
	return one.fd >= 0 && poll(&one, 1, wait_ms) > 0 && one.revents & POLLERR;
}

bool session_is_broken(struct fs *fs, int64_t wait_ns)
{
	return connection_is_dead(fs->session, (int)(wait_ns / 1000000));
}

/* That nothing is in the queue is not enough. What a thread has read it drops if session_exit comes before it has begun with it (fuse_do_work() asks fuse_session_exited() after the read; libfuse 3.14 to 3.18). And background
 * requests, write-back among them, wait elsewhere in the kernel while max_background others are unanswered (flush_bg_queue(), Linux 6.18), as many reads below .snapshots may be for long. The kernel's own count has all. */
static bool looks_calm(struct fs *fs, int connection, long most, bool *blind)
{
	struct pollfd one = {.fd = fuse_session_fd(fs->session), .events = POLLIN};
	long waiting = connection >= 0 ? fusectl_waiting(connection) : -1;

	*blind = waiting < 0;
	return *blind ? poll(&one, 1, 0) == 0 : waiting <= most;
}

/* More than one look: a page that waits for the end of another request (fuse_release_nowrite()) is not counted before that. */
bool session_wait_calm(struct fs *fs, int connection, long most, int64_t wait_ns)
{
	const struct timespec pause = {.tv_nsec = NS_PER_S / 500};
	int64_t until = clock_mono_ns() + wait_ns;
	bool blind;

	for (int looks = 0; !connection_is_dead(fs->session, 0);) {
		looks = looks_calm(fs, connection, most, &blind) ? looks + 1 : 0;
		if (looks >= (blind ? LOOKS_BLIND : LOOKS))
			return true;
		if (clock_mono_ns() > until)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

void session_close(struct fs *fs)
{
	/* Jobs first: they answer requests of the session, and use open files. */
	pool_free(fs->sync_pool);
	pool_free(fs->history_pool);
	if (fs->session) {
		/* It unmounts by path: were our mount gone from there already (umount -l), it would take what lies beneath, the user's disk perhaps. With a dead connection it only frees. */
		if (connection_is_dead(fs->session, 0))
			fuse_session_unmount(fs->session);
		fuse_session_destroy(fs->session);
		fs->session = NULL;
	}
	handle_close_all(fs);
	passthrough_guard(fs, false);
	io_table_free(fs->io);
	snap_table_free(fs->snaps);
	fs->io = NULL;
	fs->sync_pool = fs->history_pool = NULL;
	fs->snaps = NULL;
}

#include "mount_serve.h"

#include "bdi.h"
#include "breaker.h"
#include "clock.h"
#include "control.h"
#include "fusectl.h"
#include "invalidate.h"
#include "log.h"
#include "mount_point.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define SIGNAL_DRAIN_NS (20 * NS_PER_S)
#define SLICE_NS (NS_PER_S)
/* Uploads that stand still for so long don't progress; less when the engine itself says that the remote is away. */
#define PATIENCE_NS (15 * NS_PER_S)
#define PATIENCE_OFFLINE_NS (3 * NS_PER_S)
/* The kernel breaks the connection in the umount(2) of the last mount. Longer only while somebody still walks through it. */
#define COPIES_NS (2 * NS_PER_S)
#define WRITE_BACK_NS (10 * NS_PER_S)

struct serving {
	const struct mount_request *request;
	struct fs fs;
	struct engine *engine;
	struct control *control;
	struct mount_entry mount; /* what session_mount made; where it is now: locate */
	int connection;           /* of fusectl_open; -1: none */
	int breaker;
	pthread_t signals;
	pthread_mutex_t lock;
	int64_t drain_until_ns; /* lock; monotonic: how long the last uploads may take, once the mount is gone */
	bool ending;            /* lock */
	bool unmounted;         /* lock: by unmount_asked */
	bool signalled;         /* lock: somebody wants us to end */
};

/* ---------------------------------------------------------------- draining, while still mounted */

struct mark { uint64_t uploaded, puts, scanned, backlog; int64_t confirmed; };

static struct mark mark_of(const struct engine_status *status)
{
	return (struct mark){status->uploaded_bytes, status->put, status->scanned, status->backlog_bytes,
			     status->confirmed};
}

/* A second signal, or the mount is gone already. */
static bool hurry(struct serving *serving)
{
	sigset_t pending;
	sigpending(&pending);
	pthread_mutex_lock(&serving->lock);
	bool ending = serving->ending;
	pthread_mutex_unlock(&serving->lock);
	return ending || sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT);
}

/* Until all is in the remote (0), nothing has moved for a while, or the time is over (ERR_TIMEOUT), or `tick` says no (ERR_ABANDONED). timeout_ns < 0: no limit. */
static int drain(struct serving *serving, int64_t timeout_ns, bool (*tick)(void *), void *tick_context,
		 struct error *error)
{
	const struct engine_ops *ops = serving->request->ops;
	struct engine_status status;
	struct mark last = {0};
	int64_t start = clock_mono_ns(), moved = start, version;

	for (;;) {
		int64_t now = clock_mono_ns(), left = timeout_ns < 0 ? SLICE_NS : start + timeout_ns - now;
		int rc = ops->sync(serving->engine, false, left < 0 ? 0 : left < SLICE_NS ? left : SLICE_NS, &version, error);
		if (rc == 0 && left > 0)
			return 0;
		if (rc != 0 && rc != ERR_TIMEOUT && rc != ERR_BUSY)
			return rc;
		now = clock_mono_ns();
		ops->status(serving->engine, &status);
		struct mark mark = mark_of(&status);
		if (memcmp(&mark, &last, sizeof(mark)) != 0)
			moved = now;
		last = mark;
		int64_t patience = status.state == ENGINE_OFFLINE || status.state == ENGINE_DEGRADED ? PATIENCE_OFFLINE_NS
												      : PATIENCE_NS;
		if ((timeout_ns >= 0 && now - start >= timeout_ns) || now - moved >= patience || hurry(serving))
			return error_set(error, ERR_TIMEOUT, 0, "not everything is in the remote in time");
		if (!tick(tick_context))
			return error_set(error, ERR_ABANDONED, 0, "nobody waits for the unmount any more; it stays mounted");
	}
}

static bool no_tick(void *context)
{
	(void)context;
	return true;
}

/* Where the mount is now. As mount_point_follow; `now` is the caller's. */
static int locate(const struct serving *serving, struct mount_entry *now, struct error *error)
{
	*now = serving->mount;
	return mount_point_follow(now, error);
}

/* Since Linux 6.18 syncfs(2) only sets write-back of a FUSE filesystem going (SB_I_NO_DATA_INTEGRITY), and fuse_writepages() leaves out a file while there are many background requests (congestion_threshold). So it is told again
 * until there were few before it and it brought few. Those may be on their way still: see end_session. */
static int write_back_all(struct serving *serving, const char *path, int fd, struct error *error)
{
	struct fs *fs = &serving->fs;
	int64_t until = clock_mono_ns() + WRITE_BACK_NS;

	for (;;) {
		bool calm = session_wait_calm(fs, serving->connection, SESSION_FEW, until - clock_mono_ns());
		unsigned long before = atomic_load(&fs->written_back);

		if (syncfs(fd) != 0)
			return error_errno(error, errno, "%s", path);
		calm = calm && session_wait_calm(fs, serving->connection, SESSION_FEW, until - clock_mono_ns());
		if (calm && atomic_load(&fs->written_back) - before <= SESSION_FEW)
			return 0;
		if (clock_mono_ns() > until)
			return error_set(error, ERR_TIMEOUT, 0, "%s: it did not end in %d seconds", path, (int)(WRITE_BACK_NS / NS_PER_S));
	}
}

/* Before each unmount. What programs have stored through mappings may be with the kernel only. umount(2) has it written back, but not when the mount is in use or has copies; then it would be lost with the
 * connection. */
static void write_back(struct serving *serving)
{
	struct mount_entry now;
	struct error error;

	int rc = locate(serving, &now, &error);
	if (rc == ERR_ABSENT)
		return;
	int fd = rc == 0 ? open(now.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (rc == 0)
		rc = fd < 0 ? error_errno(&error, errno, "%s", now.path) : write_back_all(serving, now.path, fd, &error);
	if (rc < 0)
		log_warn("what programs have stored through mappings may not all have been written back: %s", error.message);
	if (fd >= 0)
		close(fd);
}

/* Although somebody uses the mount, or a copy of it. The signal thread's. */
static void end_session(struct serving *serving)
{
	invalidate_stop(&serving->fs); /* it may wait for operations that would not be answered any more */
	if (!session_wait_calm(&serving->fs, serving->connection, 0, WRITE_BACK_NS))
		log_warn("%s: not all requests have been answered at the end; what programs have stored through mappings may not all have been written back",
			 serving->request->mountpoint);
	session_exit(&serving->fs);
}

/* Whoever makes a mount namespace (a container, a service) has a copy of each mount in it, and most such copies stay when the mount goes (mount_namespaces(7), private propagation); a bind mount stays in any case. They would keep the
 * connection, and so this process and the volume, for as long as the namespace lives. They can't be unmounted from here; without us they are dead. The signal thread's. */
static void end_copies(struct serving *serving)
{
	if (session_is_broken(&serving->fs, COPIES_NS))
		return;
	log_warn("%s: unmounted, but there is a copy of the mount, in another mount namespace (a container?) or a bind mount; that ends too",
		 serving->request->mountpoint);
	end_session(serving);
}

/* Has the signal thread look after them. To the process: that thread may not have begun yet, or be gone already; all others block the signal. */
static void tell_unmounted(void)
{
	kill(getpid(), SIGUSR2);
}

/* For control.h. */
static int unmount_asked(void *context, int64_t timeout_ns, bool (*tick)(void *), void *tick_context,
			 struct error *error)
{
	struct serving *serving = context;
	int64_t start = clock_mono_ns();
	struct mount_entry now;

	/* Not after a minute of uploads. */
	int rc = locate(serving, &now, error);
	if (rc == 0)
		rc = mount_point_check_idle(now.path, error);
	if (rc < 0 && rc != ERR_ABSENT)
		return rc;
	/* What changes until the mount is gone may still use the rest of the time. */
	int drained = drain(serving, timeout_ns, tick, tick_context, error);
	if (drained == ERR_ABANDONED) {
		log_info("%s", error->message);
		return drained;
	}
	if (drained == 0) {
		pthread_mutex_lock(&serving->lock);
		serving->drain_until_ns = timeout_ns < 0 ? INT64_MAX : start + timeout_ns;
		pthread_mutex_unlock(&serving->lock);
	}
	write_back(serving);
	now = serving->mount;
	rc = mount_point_unmount_this(&now, false, error);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&serving->lock);
	serving->unmounted = true;
	pthread_mutex_unlock(&serving->lock);
	tell_unmounted();
	return 0;
}

/* ---------------------------------------------------------------- signals */

static void end_by_signal(struct serving *serving)
{
	struct mount_entry now = serving->mount;
	struct error error;

	log_info("asked to end: uploading what is left, for %d seconds at most", (int)(SIGNAL_DRAIN_NS / NS_PER_S));
	drain(serving, SIGNAL_DRAIN_NS, no_tick, NULL, &error);
	write_back(serving);
	if (mount_point_unmount_this(&now, false, &error) == 0) {
		end_copies(serving);
		return;
	}
	log_warn("%s; unmounting it all the same", error.message);
	if (mount_point_unmount_this(&now, true, &error) < 0)
		log_error("%s", error.message);
	end_session(serving);
}

/* SIGUSR2: anybody may send it. */
static bool is_gone(struct serving *serving)
{
	struct mount_entry now;
	struct error error;

	pthread_mutex_lock(&serving->lock);
	bool gone = serving->unmounted;
	pthread_mutex_unlock(&serving->lock);
	return gone || locate(serving, &now, &error) == ERR_ABSENT;
}

static void *signal_thread(void *arg)
{
	struct serving *serving = arg;
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2); /* our own: the end, or tell_unmounted */
	for (;;) {
		if (sigwait(&set, &number) != 0)
			continue;
		pthread_mutex_lock(&serving->lock);
		bool ending = serving->ending, first = !serving->signalled;
		if (number != SIGUSR2 && (number != SIGHUP || serving->request->foreground))
			serving->signalled = true;
		else
			first = false;
		pthread_mutex_unlock(&serving->lock);
		if (ending)
			return NULL;
		if (number == SIGUSR2 && is_gone(serving))
			end_copies(serving);
		if (first)
			end_by_signal(serving);
	}
}

/* ---------------------------------------------------------------- life */

/* In place the mount hides the directory. Elsewhere it lies open beside the mount, and changes there are expected, unless the user knows better. */
static bool is_exclusive(const struct mount_request *request)
{
	return request->options->exclusive || strcmp(request->mountpoint, request->config->directory) == 0;
}

static int open_volume(struct serving *serving, struct error *error)
{
	const struct mount_request *request = serving->request;
	struct engine_options options = {.take_over = request->options->take_over,
					 .accept_loss = request->options->accept_loss};
	struct fs *fs = &serving->fs;

	int rc = volume_open(request->config, &fs->volume, error);
	if (rc == 0)
		rc = volume_open_backing(fs->volume, request->options->adopt, error);
	if (rc == 0) {
		fs->backing = volume_backing(fs->volume);
		fs->nodes = volume_nodes(fs->volume);
		backing_nature(fs->backing, &fs->alone, &fs->names);
		fs->alone &= is_exclusive(request);
		rc = invalidate_new(fs, error);
	}
	if (rc == 0)
		rc = request->ops->open(fs->volume, &options, &serving->engine, error);
	if (rc == 0)
		rc = request->ops->start(serving->engine, error);
	if (rc == 0)
		fs->journal = volume_journal(fs->volume);
	return rc;
}

/* The loop has not begun, or ended by itself, although the mount is there: something broke. Without us it is dead. */
static void unmount_rest(struct serving *serving)
{
	struct mount_entry now = serving->mount;
	struct error error;

	if (mount_point_unmount_this(&now, true, &error) < 0)
		log_error("%s", error.message);
}

/* What session_mount made has to be known, or to go. */
static int mounted(struct serving *serving, struct error *error)
{
	const struct mount_request *request = serving->request;
	struct error ignored;

	int rc = mount_point_find_volume(request->mountpoint, request->config->directory, &serving->mount, error);
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_FAILED, 0, "%s: was mounted, but is not there; has somebody unmounted it?", request->mountpoint);
	if (rc < 0) {
		mount_point_unmount(request->mountpoint, true, &ignored); /* it is there since this moment */
		return error_set(error, rc, 0, "%s: %s", request->mountpoint, error->message);
	}
	bdi_set_limits(serving->mount.device);
	serving->connection = fusectl_open(serving->mount.device);
	breaker_arm(serving->breaker, serving->mount.device); /* it says so if there is no such thing */
	rc = invalidate_start(&serving->fs, error);
	if (rc < 0)
		unmount_rest(serving);
	return rc;
}

static int open_all(struct serving *serving, struct error *error)
{
	const struct mount_request *request = serving->request;
	struct fs *fs = &serving->fs;

	int rc = open_volume(serving, error);
	if (rc == 0)
		rc = session_open(fs, request->config->directory, request->options, error);
	if (rc == 0)
		rc = control_start(&(struct control_env){fs->volume, request->ops, serving->engine, request->mountpoint, !fs->alone,
							 unmount_asked, serving, fs},
				   &serving->control, error);
	if (rc == 0)
		rc = session_mount(fs, request->mountpoint, error);
	return rc == 0 ? mounted(serving, error) : rc;
}

/* Order: nobody asks the engine for anything more; the session's jobs are done; last cut; then what they all stand on. */
static void close_all(struct serving *serving, struct error *result, int64_t *version)
{
	const struct engine_ops *ops = serving->request->ops;
	struct engine_status status;

	if (serving->control)
		control_refuse(serving->control);
	session_close(&serving->fs);
	if (serving->engine) {
		pthread_mutex_lock(&serving->lock);
		int64_t left = serving->drain_until_ns == INT64_MAX ? INT64_MAX
								     : serving->drain_until_ns - clock_mono_ns();
		pthread_mutex_unlock(&serving->lock);
		ops->stop(serving->engine, left > 0 ? left : 0, result);
		if (serving->control)
			control_wait_idle(serving->control);
		ops->status(serving->engine, &status);
		*version = status.confirmed;
		ops->close(serving->engine);
	}
	invalidate_free(&serving->fs);
	volume_close(serving->fs.volume, true);
}

/* An operation that nobody answers any more keeps our thread in the kernel, and that thread keeps the connection: it has to be broken. */
static void stop_invalidating(struct serving *serving)
{
	struct mount_entry now;
	struct error error;

	if (invalidate_stop(&serving->fs))
		return;
	if (locate(serving, &now, &error) == 0) /* aborts the connection first of all (fuse_umount_begin) */
		umount2(now.path, MNT_FORCE | UMOUNT_NOFOLLOW);
	if (!invalidate_stop(&serving->fs))
		log_error("a thread waits in the kernel for the mount on %s; it can be ended by /sys/fs/fuse/connections",
			  serving->request->mountpoint);
}

static int serve(struct serving *serving, void (*tell)(void *, const struct error *), void *context,
		 struct error *error)
{
	static const struct error fine = {.code = 0};
	int rc = pthread_create(&serving->signals, NULL, signal_thread, serving);
	if (rc != 0) {
		unmount_rest(serving);
		return error_errno(error, rc, "thread for signals");
	}
	log_info("%s: mounted on %s", serving->request->config->directory, serving->request->mountpoint);
	tell(context, &fine);
	rc = session_loop(&serving->fs);
	stop_invalidating(serving);
	pthread_mutex_lock(&serving->lock);
	serving->ending = true;
	pthread_mutex_unlock(&serving->lock);
	pthread_kill(serving->signals, SIGUSR2);
	pthread_join(serving->signals, NULL);
	unmount_rest(serving);
	if (rc < 0)
		return error_set(error, ERR_FAILED, 0, "%s: the connection to the kernel broke",
				 serving->request->mountpoint);
	return 0;
}

int mount_serve(const struct mount_request *request, void (*tell)(void *context, const struct error *error),
		void *context, struct error *error)
{
	struct serving serving = {.request = request, .connection = -1};
	struct error stopped = {.code = 0};
	int64_t version = 0;

	pthread_mutex_init(&serving.lock, NULL);
	serving.breaker = breaker_start(); /* before there are threads, and keys in memory */
	int rc = open_all(&serving, error);
	bool mounted = rc == 0;
	if (mounted)
		rc = serve(&serving, tell, context, error);
	close_all(&serving, &stopped, &version);
	if (mounted)
		log_info("%s: unmounted%s%s", request->mountpoint, stopped.code ? "; " : "", stopped.message);
	control_stop(serving.control, &stopped, version);
	if (serving.connection >= 0)
		close(serving.connection);
	if (serving.breaker >= 0)
		close(serving.breaker);
	pthread_mutex_destroy(&serving.lock);
	if (mounted && rc == 0 && stopped.code == ERR_TIMEOUT)
		rc = error_set(error, ERR_TIMEOUT, 0, "%s", stopped.message);
	return rc;
}

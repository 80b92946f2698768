#include "mount.h"

#include "clock.h"
#include "identity.h"
#include "log.h"
#include "mount_point.h"
#include "mount_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------- what every daemon sets */

static void raise_limits(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* The caller's limit on the size of files is checked by the kernel before a request reaches us; ours must not get in the way. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_FSIZE, &limit);
	}
}

static void prepare_process(void)
{
	sigset_t set;

	raise_limits();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* Signals are for the thread that waits for them (mount_serve.c); threads made from here on inherit this. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* We are in the path of write-back: memory that we allocate must not wait for it. Needs CAP_SYS_RESOURCE. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	identity_init();
	if (!identity_has_umask())
		umask(0); /* the kernel has applied the caller's */
}

/* sd_notify(3), when systemd waits for it. */
static void notify_systemd(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	static const char ready[] = "READY=1";
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (sendto(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		log_warn("systemd can't be told that the mount is ready: %s", strerror(errno));
	close(fd);
}

/* ---------------------------------------------------------------- daemon */

static void leave_terminal(int keep)
{
	int null = open("/dev/null", O_RDWR);
	setsid();
	if (chdir("/") != 0)
		log_warn("chdir /: %s", strerror(errno));
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
	/* What the shell left open would be held until the unmount. */
	if (keep > 3)
		close_range(3, (unsigned)keep - 1, 0);
	close_range((unsigned)keep + 1, ~0U, 0);
	log_open("yester", LOG_LEVEL_INFO, true);
}

struct answer { int fd; };

/* The word on the pipe: a struct error, code 0 when it is mounted. */
static void tell_parent(void *context, const struct error *error)
{
	struct answer *answer = context;
	if (answer->fd < 0)
		return;
	if (write(answer->fd, error, sizeof(*error)) != sizeof(*error))
		log_warn("the mounting process does not listen");
	close(answer->fd);
	answer->fd = -1;
}

static void tell_nobody(void *context, const struct error *error)
{
	(void)context;
	if (error->code == 0)
		notify_systemd();
}

static int daemon_main(const struct mount_request *request, int fd)
{
	struct answer answer = {fd};
	struct error error = {.code = 0};

	leave_terminal(fd);
	prepare_process();
	int rc = mount_serve(request, tell_parent, &answer, &error);
	if (rc < 0) {
		log_error("%s", error.message);
		tell_parent(&answer, &error);
	}
	return rc == 0 ? 0 : rc == ERR_TIMEOUT ? 4 : 1;
}

/* ---------------------------------------------------------------- parent */

/* Asks the mount something: answered only when the kernel and the daemon have come to terms. */
static int check_answer(const char *mountpoint, struct error *error)
{
	struct statfs st;
	int rc;
	while ((rc = statfs(mountpoint, &st)) != 0 && errno == EINTR)
		;
	if (rc != 0)
		return error_errno(error, errno, "%s: was mounted, but does not answer; see the log", mountpoint);
	if (st.f_type != FUSE_SUPER_MAGIC || !mount_point_is_yester(mountpoint))
		return error_set(error, ERR_FAILED, 0, "%s: was mounted, but is not there; see the log", mountpoint);
	return 0;
}

static int parent_main(const struct mount_request *request, int fd, pid_t pid, struct error *error)
{
	struct error word = {.code = 0};
	size_t used = 0;
	while (used < sizeof(word)) {
		ssize_t count = read(fd, (char *)&word + used, sizeof(word) - used);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			break;
		used += (size_t)count;
	}
	if (used < sizeof(word)) {
		int status = 0;
		waitpid(pid, &status, 0);
		return error_set(error, ERR_FAILED, 0, "%s: the daemon died while it mounted (%s %d); see the log",
				 request->mountpoint, WIFSIGNALED(status) ? "signal" : "exit code",
				 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	if (word.code) {
		word.message[sizeof(word.message) - 1] = '\0';
		return error_set(error, word.code, word.sys_errno, "%s", word.message);
	}
	return check_answer(request->mountpoint, error);
}

int mount_run(const struct mount_request *request, struct error *error)
{
	int ends[2];

	if (request->foreground) {
		prepare_process();
		return mount_serve(request, tell_nobody, NULL, error);
	}
	if (pipe2(ends, O_CLOEXEC) != 0)
		return error_errno(error, errno, "pipe");
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		int saved = errno;
		close(ends[0]);
		close(ends[1]);
		return error_errno(error, saved, "fork");
	}
	if (pid == 0) {
		close(ends[0]);
		_exit(daemon_main(request, ends[1]));
	}
	close(ends[1]);
	int rc = parent_main(request, ends[0], pid, error);
	close(ends[0]);
	return rc;
}

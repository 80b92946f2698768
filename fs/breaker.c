#include "breaker.h"

#include "fusectl.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEVICE_BYTES 32
#define READY 'y'
#define DEATH SIGRTMIN /* queued: a second one that somebody else sends does not swallow it */

static pid_t breaker;

/* ---------------------------------------------------------------- in the breaker: nothing but system calls */

static int open_abort(const char *device)
{
	int connection = fusectl_open(device);
	int fd = connection >= 0 ? openat(connection, "abort", O_WRONLY | O_CLOEXEC) : -1;

	if (connection >= 0)
		close(connection);
	return fd;
}

/* Nothing of the daemon's stays open here: the pipe to who waits for the mount, least of all. */
static void let_go(int fd)
{
	int null = open("/dev/null", O_RDWR);

	for (int i = 0; i < 3; i++)
		if (null >= 0 && i != fd)
			dup2(null, i);
	if (fd > 3)
		close_range(3, (unsigned)fd - 1, 0);
	close_range((unsigned)fd + 1, ~0U, 0);
	if (chdir("/") != 0)
		_exit(1);
}

static _Noreturn void breaker_main(int fd, pid_t daemon)
{
	char device[DEVICE_BYTES] = "";
	sigset_t all, death;
	siginfo_t info;
	ssize_t count;

	/* Those that are for the daemon are no business of ours: a terminal's, a service manager's. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	sigemptyset(&death);
	sigaddset(&death, DEATH);
	if (prctl(PR_SET_PDEATHSIG, DEATH) != 0 || getppid() != daemon)
		_exit(1);
	prctl(PR_SET_NAME, "yester-breaker");
	let_go(fd);
	do
		count = recv(fd, device, sizeof(device) - 1, 0);
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		_exit(0);
	int abort_fd = open_abort(device);
	char answer = READY;
	if (abort_fd < 0 || send(fd, &answer, 1, MSG_NOSIGNAL) != 1)
		_exit(0);
	close(fd);
	/* Anybody may send it; the kernel does so on behalf of the thread that ends (forget_original_parent(), SEND_SIG_NOINFO), and only kill(2) could put the same here. Who is our parent now says nothing: while
	 * a thread of the daemon is stuck, it is the daemon still. */
	while (sigwaitinfo(&death, &info) != DEATH || info.si_code != SI_USER || info.si_pid != daemon)
		;
	_exit(write(abort_fd, "1", 1) == 1 ? 0 : 1);
}

/* ---------------------------------------------------------------- in the daemon */

int breaker_start(void)
{
	pid_t daemon = getpid();
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
		log_warn("no process to break the connection when this one dies: %s", strerror(errno));
		return -1;
	}
	breaker = fork();
	if (breaker == 0)
		breaker_main(ends[1], daemon);
	int saved = errno;
	close(ends[1]);
	if (breaker > 0)
		return ends[0];
	close(ends[0]);
	log_warn("no process to break the connection when this one dies: %s", strerror(saved));
	return -1;
}

bool breaker_arm(int fd, const char *device)
{
	ssize_t count = -1;
	char answer = 0;

	if (fd >= 0 && send(fd, device, strlen(device), MSG_NOSIGNAL) == (ssize_t)strlen(device))
		do
			count = recv(fd, &answer, 1, 0);
		while (count < 0 && errno == EINTR);
	if (count == 1 && answer == READY)
		return true;
	if (fd >= 0)
		waitpid(breaker, NULL, 0); /* it has ended, or does so now */
	log_info("the connection can't be broken from outside should this process die: /sys/fs/fuse/connections is not there");
	return false;
}

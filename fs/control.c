#include "control.h"

#include "buf.h"
#include "clock.h"
#include "json.h"
#include "log.h"
#include "fs.h"
#include "status_json.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 16
#define PEER_TIMEOUT_S 10 /* a peer that neither speaks nor listens */

struct control {
	struct control_env env;
	int listening, wake; /* wake: eventfd, readable when it is time to end */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int connections;     /* threads; lock, as all below */
	int using_engine;
	bool refusing;
	const struct error *result; /* of the daemon, at its end; NULL before */
	int64_t version;
};

struct connection { struct control *control; int fd; };

/* ---------------------------------------------------------------- the engine, until it is closed */

static bool engine_enter(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	bool entered = !control->refusing;
	control->using_engine += entered;
	pthread_mutex_unlock(&control->lock);
	return entered;
}

static void engine_leave(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	control->using_engine--;
	pthread_cond_broadcast(&control->changed);
	pthread_mutex_unlock(&control->lock);
}

/* ---------------------------------------------------------------- answers */

/* False: the peer is gone. */
static bool say(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t count = send(fd, data, length, MSG_NOSIGNAL);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return false;
		data += count;
		length -= (size_t)count;
	}
	return true;
}

static bool say_line(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool say_line(int fd, const char *format, ...)
{
	char line[1024];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (length < 0)
		return false;
	if ((size_t)length > sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length] = '\n';
	return say(fd, line, (size_t)length + 1);
}

static void say_error(int fd, const struct error *error)
{
	say_line(fd, "error %s %s", error_word(error->code), error->message);
}

static void say_version(int fd, int64_t version)
{
	say_line(fd, "ok {\"version\":%" PRId64 "}", version);
}

static bool say_progress(struct control *control, int fd)
{
	struct engine_status status;
	control->env.ops->status(control->env.engine, &status);
	return say_line(fd, "+ %" PRIu64 " %" PRIu64 " %" PRIu64, status.pending_bytes, status.pending_files,
			status.uploaded_bytes);
}

/* ---------------------------------------------------------------- verbs */

static void do_ping(struct control *control, int fd, int64_t argument)
{
	(void)control;
	(void)argument;
	say_line(fd, "ok {\"pid\":%d,\"version\":\"%s\"}", (int)getpid(), YESTER_VERSION);
}

static void do_status(struct control *control, int fd, int64_t argument)
{
	struct engine_status status;
	struct buf text = {0};
	int64_t now = clock_wall_ns();

	(void)argument;
	struct status_features features = {.passthrough = control->env.fs && atomic_load(&control->env.fs->passthrough)};
	control->env.ops->status(control->env.engine, &status);
	if (buf_printf(&text, "ok ") == 0 &&
	    status_json(volume_config(control->env.volume), &status, &features, now, control->env.mountpoint, &text) == 0 &&
	    buf_printf(&text, "\n") == 0)
		say(fd, (char *)text.data, text.length);
	buf_free(&text);
}

struct syncing {
	struct control *control;
	int64_t timeout_ns, version;
	bool rescan;
	struct error error;
	int rc;
	bool done; /* control->lock */
};

static void *sync_thread(void *arg)
{
	struct syncing *s = arg;
	const struct control_env *env = &s->control->env;
	s->rc = env->ops->sync(env->engine, s->rescan, s->timeout_ns, &s->version, &s->error);
	pthread_mutex_lock(&s->control->lock);
	s->done = true;
	pthread_cond_broadcast(&s->control->changed);
	pthread_mutex_unlock(&s->control->lock);
	return NULL;
}

/* Says how it goes about every second until the other thread is done. */
static void watch_sync(struct control *control, struct syncing *s, int fd)
{
	struct timespec next = clock_deadline(NS_PER_S);
	pthread_mutex_lock(&control->lock);
	while (!s->done) {
		if (pthread_cond_timedwait(&control->changed, &control->lock, &next) != ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&control->lock);
		say_progress(control, fd);
		next = clock_deadline(NS_PER_S);
		pthread_mutex_lock(&control->lock);
	}
	pthread_mutex_unlock(&control->lock);
}

static int64_t timeout_of(int64_t argument_ms)
{
	if (argument_ms < 0)
		return -1;
	return argument_ms > INT64_MAX / 1000000 ? -1 : argument_ms * 1000000;
}

static void sync_and_say(struct control *control, int fd, int64_t argument, bool rescan)
{
	struct syncing s = {
		.control = control, .timeout_ns = timeout_of(argument), .rescan = rescan, .error = {.code = ERR_FAILED}};
	pthread_t thread;
	if (pthread_create(&thread, NULL, sync_thread, &s) != 0) {
		say_line(fd, "error %s no thread for it", error_word(ERR_NOMEM));
		return;
	}
	watch_sync(control, &s, fd);
	pthread_join(thread, NULL);
	if (s.rc == 0)
		say_version(fd, s.version);
	else
		say_error(fd, &s.error);
}

/* What somebody did in the directory itself is part of what he wants to have in the remote. */
static void do_sync(struct control *control, int fd, int64_t argument)
{
	sync_and_say(control, fd, argument, control->env.rescans);
}

static void do_rescan(struct control *control, int fd, int64_t argument)
{
	sync_and_say(control, fd, argument, true);
}

static bool unmount_tick(void *context)
{
	struct connection *connection = context;
	return say_progress(connection->control, connection->fd);
}

/* Uses the engine while it drains, and must not while it waits for its end. */
static void do_umount(struct control *control, int fd, int64_t argument)
{
	struct connection connection = {control, fd};
	struct error error = {.code = ERR_FAILED};
	if (engine_enter(control)) {
		int rc = control->env.unmount(control->env.context, timeout_of(argument), unmount_tick, &connection,
					      &error);
		engine_leave(control);
		if (rc < 0) {
			say_error(fd, &error);
			return;
		}
	}
	pthread_mutex_lock(&control->lock);
	while (!control->result)
		pthread_cond_wait(&control->changed, &control->lock);
	error = *control->result;
	int64_t version = control->version;
	pthread_mutex_unlock(&control->lock);
	if (error.code)
		say_error(fd, &error);
	else
		say_version(fd, version);
}

static const struct verb {
	const char *name;
	void (*run)(struct control *control, int fd, int64_t argument);
	bool engine; /* runs while the engine is there */
} verbs[] = {
	{"ping", do_ping, false},
	{"status", do_status, true},
	{"sync", do_sync, true},
	{"rescan", do_rescan, true},
	{"umount", do_umount, false},
};

/* ---------------------------------------------------------------- connections */

static bool peer_allowed(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

/* One line without its newline, NUL-terminated; false: too long, too slow, or gone. */
static bool read_request(int fd, char line[CONTROL_LINE_BYTES])
{
	size_t used = 0;
	int64_t end = clock_mono_ns() + PEER_TIMEOUT_S * NS_PER_S;
	while (used < CONTROL_LINE_BYTES) {
		struct pollfd one = {.fd = fd, .events = POLLIN};
		int64_t left = (end - clock_mono_ns()) / 1000000;
		if (left <= 0 || poll(&one, 1, (int)left) <= 0)
			return false;
		ssize_t count = recv(fd, line + used, CONTROL_LINE_BYTES - used, 0);
		if (count <= 0)
			return false;
		char *newline = memchr(line + used, '\n', (size_t)count);
		if (newline) {
			*newline = '\0';
			return true;
		}
		used += (size_t)count;
	}
	return false;
}

/* "yester 1 VERB [ARGUMENT]" */
static const struct verb *parse_request(const char *line, int64_t *argument)
{
	char name[16] = "";
	int protocol = 0, end = 0;

	*argument = -1;
	if (sscanf(line, "yester %d %15s%n", &protocol, name, &end) < 2 || protocol != CONTROL_PROTOCOL)
		return NULL;
	if (line[end] == ' ') {
		char *rest;
		errno = 0;
		*argument = strtoll(line + end + 1, &rest, 10);
		if (errno || *rest || rest == line + end + 1)
			return NULL;
	} else if (line[end])
		return NULL;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static void serve(struct control *control, int fd)
{
	char line[CONTROL_LINE_BYTES];
	int64_t argument;

	if (!read_request(fd, line))
		return;
	const struct verb *verb = parse_request(line, &argument);
	if (!verb)
		say_line(fd, "error %s the daemon does not understand this request; it is yester %s", error_word(ERR_USAGE),
			 YESTER_VERSION);
	else if (!verb->engine)
		verb->run(control, fd, argument);
	else if (engine_enter(control)) {
		verb->run(control, fd, argument);
		engine_leave(control);
	} else
		say_line(fd, "error %s it is being unmounted", error_word(ERR_BUSY));
}

static void *connection_thread(void *arg)
{
	struct connection *connection = arg;
	struct control *control = connection->control;
	struct timeval timeout = {.tv_sec = PEER_TIMEOUT_S};

	setsockopt(connection->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	serve(control, connection->fd);
	/* After `umount` the end of the connection says that this process is gone: exit closes it. */
	pthread_mutex_lock(&control->lock);
	if (!control->result)
		close(connection->fd);
	control->connections--;
	pthread_cond_broadcast(&control->changed);
	pthread_mutex_unlock(&control->lock);
	free(connection);
	return NULL;
}

static void take_connection(struct control *control, int fd)
{
	struct connection *connection = malloc(sizeof(*connection));
	pthread_attr_t attr;
	pthread_t thread;

	pthread_mutex_lock(&control->lock);
	bool room = control->connections < CONNECTIONS;
	control->connections += room;
	pthread_mutex_unlock(&control->lock);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (connection)
		*connection = (struct connection){control, fd};
	if (!room || !connection || !peer_allowed(fd) || pthread_create(&thread, &attr, connection_thread, connection) != 0) {
		pthread_mutex_lock(&control->lock);
		control->connections -= room;
		pthread_cond_broadcast(&control->changed);
		pthread_mutex_unlock(&control->lock);
		free(connection);
		close(fd);
	}
	pthread_attr_destroy(&attr);
}

static void *listen_thread(void *arg)
{
	struct control *control = arg;
	struct pollfd fds[2] = {{.fd = control->listening, .events = POLLIN}, {.fd = control->wake, .events = POLLIN}};
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			return NULL;
		int fd = accept4(control->listening, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			take_connection(control, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			poll(&fds[1], 1, 100); /* it stays readable: don't spin */
	}
}

/* ---------------------------------------------------------------- life */

static int listen_at(int dirfd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* Through the descriptor: the path may be longer than sun_path. Nobody else listens there: we hold the volume's lock. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" CONTROL_SOCKET, dirfd);
	unlinkat(dirfd, CONTROL_SOCKET, 0);
	/* The directory is 0700, so the moment before the chmod is nobody's. */
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || chmod(address.sun_path, 0600) != 0 ||
	    listen(fd, CONNECTIONS) != 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

int control_start(const struct control_env *env, struct control **out, struct error *error)
{
	struct control *control = calloc(1, sizeof(*control));
	if (!control)
		return error_set(error, ERR_NOMEM, ENOMEM, "control socket: out of memory");
	control->env = *env;
	pthread_mutex_init(&control->lock, NULL);
	clock_cond_init(&control->changed);
	control->listening = listen_at(volume_state_fd(env->volume));
	control->wake = eventfd(0, EFD_CLOEXEC);
	if (control->listening < 0 || control->wake < 0 ||
	    (errno = pthread_create(&control->thread, NULL, listen_thread, control)) != 0) {
		int rc = error_errno(error, errno, "%s/" CONTROL_SOCKET, volume_state_path(env->volume));
		if (control->listening >= 0)
			close(control->listening);
		if (control->wake >= 0)
			close(control->wake);
		free(control);
		return rc;
	}
	*out = control;
	return 0;
}

void control_refuse(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	control->refusing = true;
	pthread_mutex_unlock(&control->lock);
}

void control_wait_idle(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	while (control->using_engine > 0)
		pthread_cond_wait(&control->changed, &control->lock);
	pthread_mutex_unlock(&control->lock);
}

void control_stop(struct control *control, const struct error *result, int64_t version)
{
	uint64_t one = 1;
	if (!control)
		return;
	if (write(control->wake, &one, sizeof(one)) != sizeof(one))
		log_error("control socket: its thread can't be woken");
	pthread_join(control->thread, NULL);
	pthread_mutex_lock(&control->lock);
	control->result = result;
	control->version = version;
	pthread_cond_broadcast(&control->changed);
	while (control->connections > 0)
		pthread_cond_wait(&control->changed, &control->lock);
	pthread_mutex_unlock(&control->lock);
	close(control->listening);
	close(control->wake);
	pthread_mutex_destroy(&control->lock);
	pthread_cond_destroy(&control->changed);
	free(control);
}

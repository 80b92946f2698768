#include "control_client.h"

#include "control.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_BYTES (256 * 1024) /* longest line that we take from a daemon */

/* Through the directory's descriptor: the path of a state directory may be longer than sun_path. */
static int connect_at(int dirfd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" CONTROL_SOCKET, dirfd);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static int client_connect(const struct volume_config *config, int *out, struct error *error)
{
	char *directory = state_dir(), *path = directory ? io_printf("%s/%s", directory, config->name) : NULL;
	int rc = 0;

	free(directory);
	if (!path)
		return error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", config->name);
	int dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = dirfd < 0 ? -1 : connect_at(dirfd);
	if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED))
		rc = error_set(error, ERR_ABSENT, errno, "%s: is not mounted", config->directory);
	else if (fd < 0)
		rc = error_errno(error, errno, "%s: can't reach its daemon", config->directory);
	if (dirfd >= 0)
		close(dirfd);
	free(path);
	*out = fd;
	return rc;
}

/* "error WORD MESSAGE" */
static int daemon_error(const char *text, struct error *error)
{
	size_t length = strcspn(text, " ");
	const char *message = text[length] ? text + length + 1 : "the daemon failed";
	for (int code = ERR_FAILED; code >= ERR_ABANDONED; code--)
		if (strlen(error_word(code)) == length && strncmp(text, error_word(code), length) == 0)
			return error_set(error, code, 0, "%s", message);
	return error_set(error, ERR_FAILED, 0, "%s", message);
}

struct answering {
	control_progress_fn *progress;
	void *context;
	struct buf *answer;
	struct error *error;
	bool answered;
	int rc;
};

static void take_line(struct answering *a, const char *line)
{
	if (strncmp(line, "+ ", 2) == 0) {
		if (a->progress)
			a->progress(a->context, line + 2);
	} else if (strncmp(line, "ok ", 3) == 0) {
		a->answered = true;
		a->rc = a->answer ? buf_printf(a->answer, "%s", line + 3) : 0;
		if (a->rc < 0)
			error_set(a->error, ERR_NOMEM, ENOMEM, "out of memory");
	} else if (strncmp(line, "error ", 6) == 0) {
		a->answered = true;
		a->rc = daemon_error(line + 6, a->error);
	} else {
		a->answered = true;
		a->rc = error_set(a->error, ERR_FAILED, 0, "the daemon speaks another protocol; unmount and mount again with this version");
	}
}

/* Until the daemon closes the connection. */
static void take_lines(struct answering *a, int fd, struct buf *input)
{
	for (;;) {
		char *end = input->length ? memchr(input->data, '\n', input->length) : NULL;
		if (end) {
			size_t used = (size_t)(end - (char *)input->data) + 1;
			*end = '\0';
			if (!a->answered)
				take_line(a, (char *)input->data);
			memmove(input->data, input->data + used, input->length - used);
			input->length -= used;
			continue;
		}
		if (input->length > ANSWER_BYTES || buf_reserve(input, 4096) < 0)
			return;
		ssize_t count = read(fd, input->data + input->length, 4096);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return;
		input->length += (size_t)count;
	}
}

int control_call(const struct volume_config *config, const char *verb, int64_t timeout_ms,
		 control_progress_fn *progress, void *context, struct buf *answer, struct error *error)
{
	struct answering answering = {progress, context, answer, error, false, 0};
	struct buf input = {0};
	char request[CONTROL_LINE_BYTES];
	int fd = -1;

	if (answer)
		buf_clear(answer);
	int rc = client_connect(config, &fd, error);
	if (rc < 0)
		return rc;
	int length = snprintf(request, sizeof(request), "yester %d %s %" PRId64 "\n", CONTROL_PROTOCOL, verb, timeout_ms);
	if (send(fd, request, (size_t)length, MSG_NOSIGNAL) == length)
		take_lines(&answering, fd, &input);
	rc = answering.rc;
	if (!answering.answered)
		rc = error_set(error, ERR_ABANDONED, 0, "%s: its daemon ended without an answer; see the log", config->directory);
	buf_free(&input);
	close(fd);
	return rc;
}

bool control_listens(const struct volume_config *config)
{
	struct error error;
	int fd = -1;

	if (client_connect(config, &fd, &error) < 0)
		return false;
	close(fd);
	return true;
}

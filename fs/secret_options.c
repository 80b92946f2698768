#include "secret_options.h"

#include "buf.h"
#include "interrupt.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define SECRET_LONGEST 1100

/* ---- files */

static int take_recovery_key(struct secret_options *secret, const char *text, size_t length, struct error *error)
{
	while (length > 0 && strchr(" \t\r\n", text[length - 1]))
		length--;
	if (length >= sizeof secret->recovery_key)
		return error_set(error, ERR_KEY, 0, "recovery key: that is too long for one; it is 40 letters and digits in groups of 5");
	memcpy(secret->recovery_key, text, length);
	secret->recovery_key[length] = '\0';
	return 0;
}

/* Fault 49: what others can read is no secret. */
static int check_mode(const char *path, struct error *error)
{
	struct stat st;

	if (stat(path, &st) != 0 && errno == ENOENT)
		return error_set(error, ERR_ABSENT, ENOENT, "%s: there is no such file; name the one that holds the recovery key", path);
	if (stat(path, &st) != 0)
		return error_errno(error, errno, "%s", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & 077))
		return error_set(error, ERR_USAGE, 0, "%s: others may read it; chmod 600 %s", path, path);
	return 0;
}

static int read_recovery_file(struct secret_options *secret, struct error *error)
{
	struct buf text = { 0 };
	int rc = check_mode(secret->recovery_key_file, error);

	if (rc == 0)
		rc = io_read_file(AT_FDCWD, secret->recovery_key_file, SECRET_LONGEST, &text, error);
	if (rc == ERR_CORRUPT)
		rc = error_set(error, ERR_KEY, 0, "%s: that is no recovery key: it is too long", secret->recovery_key_file);
	if (rc == 0)
		rc = take_recovery_key(secret, (const char *)text.data, text.length, error);
	buf_wipe(&text);
	return rc;
}

int secret_options_read(struct secret_options *secret, struct unlock *unlock, struct error *error)
{
	const char *environment = getenv("YESTER_PASSPHRASE_FILE");
	int count = !!secret->passphrase_file + !!secret->key_file + !!secret->recovery_key_file, rc = 0;

	if (count > 1)
		return error_set(error, ERR_USAGE, 0, "--passphrase-file, --key-file and --recovery-key-file exclude each other; give one");
	unlock->passphrase_file = secret->passphrase_file;
	unlock->key_file = secret->key_file;
	if (secret->recovery_key_file) {
		rc = read_recovery_file(secret, error);
		unlock->recovery_key = secret->recovery_key;
	} else if (count == 0 && environment && environment[0]) {
		unlock->passphrase_file = environment;
	}
	return rc;
}

/* ---- the terminal */

bool secret_options_can_ask(const struct unlock *unlock)
{
	int fd;

	if (unlock->passphrase_file || unlock->key_file || unlock->recovery_key || !isatty(STDIN_FILENO))
		return false;
	fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* One character of an answer; false when it ends. Ctrl-D gives it up, Ctrl-U begins anew. Ctrl-C interrupts, and so does Ctrl-\, which would write a core with what was typed. */
static bool take_character(char c, char *line, size_t room, size_t *used, bool *interrupts)
{
	if (c == '\n' || c == '\r')
		return false;
	if (c == 3 || c == 4 || c == 28) {
		*interrupts = c != 4;
		*used = 0;
		return false;
	}
	if (c == 21)
		*used = 0;
	else if ((c == 127 || c == '\b') && *used > 0)
		*used -= 1;
	else if (c != 127 && c != '\b' && *used + 1 < room)
		line[(*used)++] = c;
	return true;
}

/* Reads up to the end of the line. Signals come only while it waits. */
static size_t read_mute(int tty, const sigset_t *during, char *line, size_t room, bool *interrupts)
{
	size_t used = 0;
	char c;

	for (;;) {
		struct pollfd wait = { .fd = tty, .events = POLLIN };
		int count = ppoll(&wait, 1, NULL, during);

		if (interrupt_asked())
			return 0;
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 || read(tty, &c, 1) != 1 || !take_character(c, line, room, &used, interrupts))
			return used;
	}
}

/* One line without echo. What would end us is noted (interrupt.h), and Ctrl-C is a character, so that the terminal isn't left mute. Mute before the question, so that a
 * fast answer is neither shown nor thrown away. Its length, or -1. */
static ssize_t ask_mute(int tty, const char *remote, char *line, size_t room)
{
	struct termios before, mute;
	sigset_t block, old;
	bool interrupts = false;
	size_t used;

	if (tcgetattr(tty, &before) != 0)
		return -1;
	mute = before;
	mute.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ISIG | ICANON);
	mute.c_cc[VMIN] = 1;
	mute.c_cc[VTIME] = 0;
	sigemptyset(&block);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	tcsetattr(tty, TCSAFLUSH, &mute);
	dprintf(tty, "Passphrase or recovery key of %s: ", remote);
	used = read_mute(tty, &old, line, room, &interrupts);
	tcsetattr(tty, TCSADRAIN, &before);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	dprintf(tty, "\n");
	line[used] = '\0';
	if (interrupts)
		raise(SIGINT);
	return (ssize_t)used;
}

/* Eight groups of five of base32: nobody's passphrase. */
static bool looks_like_recovery_key(const char *text, size_t length)
{
	if (length != 47)
		return false;
	for (size_t i = 0; i < length; i++)
		if (i % 6 == 5 ? text[i] != '-' : !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz234567", text[i]))
			return false;
	return true;
}

/* Where the engine can read it as a file, and nobody else. */
static int keep_passphrase(struct secret_options *secret, const char *line, size_t length, struct error *error)
{
	secret->typed_fd = memfd_create("yester-passphrase", MFD_CLOEXEC);
	if (secret->typed_fd < 0 || fchmod(secret->typed_fd, 0600) != 0 || io_pwrite(secret->typed_fd, line, length, 0) != 0 ||
	    io_pwrite(secret->typed_fd, "\n", 1, (int64_t)length) != 0)
		return error_errno(error, errno, "passphrase: can't keep it");
	snprintf(secret->typed_path, sizeof secret->typed_path, "/proc/self/fd/%d", secret->typed_fd);
	return 0;
}

int secret_options_ask(struct secret_options *secret, const char *remote, struct unlock *unlock, struct error *error)
{
	char line[SECRET_LONGEST];
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC), rc = 0;
	ssize_t length;

	if (tty < 0)
		return error_errno(error, errno, "/dev/tty: can't ask for the passphrase; use --passphrase-file");
	length = ask_mute(tty, remote, line, sizeof line);
	close(tty);
	if (interrupt_asked()) {
		rc = error_set(error, ERR_FAILED, EINTR, "%s: interrupted", remote);
	} else if (length <= 0) {
		rc = error_set(error, ERR_KEY, 0, "%s: nothing was typed; it takes the passphrase or the recovery key", remote);
	} else if (looks_like_recovery_key(line, (size_t)length)) {
		rc = take_recovery_key(secret, line, (size_t)length, error);
		unlock->recovery_key = secret->recovery_key;
	} else {
		rc = keep_passphrase(secret, line, (size_t)length, error);
		unlock->passphrase_file = secret->typed_path;
	}
	explicit_bzero(line, sizeof line);
	return rc;
}

void secret_options_wipe(struct secret_options *secret)
{
	explicit_bzero(secret->recovery_key, sizeof secret->recovery_key);
	if (secret->typed_fd >= 0)
		close(secret->typed_fd);
	secret->typed_fd = -1;
}

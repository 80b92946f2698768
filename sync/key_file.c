/* Secrets in files: passphrases and key files (key.h). */
#include "key.h"

#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSPHRASE_MAX_BYTES 1024
#define KEY_FILE_TEXT_BYTES (2 * CRYPT_KEY_BYTES + 1)

/* Opens a file that only its owner may read. */
static int open_secret(const char *path, struct error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return error_set(error, ERR_ABSENT, ENOENT,
				 "%s: there is no such file to unlock the volume with; bring it back, or name another", path);
	if (fd < 0)
		return error_errno(error, errno, "%s", path);
	if (fstat(fd, &st) < 0) {
		int status = error_errno(error, errno, "%s", path);

		close(fd);
		return status;
	}
	if (S_ISDIR(st.st_mode)) {
		close(fd);
		return error_set(error, ERR_USAGE, EISDIR, "%s: is a directory; name the file with the secret", path);
	}
	if (S_ISREG(st.st_mode) && (st.st_mode & 077)) {
		close(fd);
		return error_set(error, ERR_USAGE, 0,
				 "%s: holds a secret and is open to others (mode %04o); chmod 600 it", path,
				 (unsigned)(st.st_mode & 07777));
	}
	return fd;
}

/* Reads until `limit` bytes, end of file, or (first_line) a newline. Not by pread: a passphrase may come through a pipe. */
static int read_secret(const char *path, size_t limit, bool first_line, struct buf *out, struct error *error)
{
	int fd = open_secret(path, error), status;
	ssize_t got;

	if (fd < 0)
		return fd;
	buf_wipe(out);
	/* At once: growing would leave copies behind. */
	status = buf_reserve(out, limit);
	if (status)
		status = error_set(error, status, 0, "%s: out of memory", path);
	while (!status && out->length < limit) {
		/* Bytes after the line are not ours: another program may read them. */
		got = read(fd, out->data + out->length, first_line ? 1 : limit - out->length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			status = error_errno(error, errno, "%s", path);
		if (got <= 0)
			break;
		out->length += (size_t)got;
		if (first_line && out->data[out->length - 1] == '\n')
			break;
	}
	close(fd);
	if (status)
		buf_wipe(out);
	return status;
}

int key_read_passphrase(const char *path, struct buf *out, struct error *error)
{
	/* One byte for the newline, and one to notice what is too long. */
	int status = read_secret(path, PASSPHRASE_MAX_BYTES + 1, true, out, error);

	if (status)
		return status;
	if (out->length > 0 && out->data[out->length - 1] == '\n')
		out->length--;
	if (out->length > 0 && out->length <= PASSPHRASE_MAX_BYTES)
		return 0;
	status = error_set(error, ERR_KEY, 0, "%s: the first line must hold a passphrase of 1 to %d bytes", path,
			   PASSPHRASE_MAX_BYTES);
	buf_wipe(out);
	return status;
}

int key_read_file(const char *path, struct buf *out, struct error *error)
{
	struct buf text = {0};
	char digits[KEY_FILE_TEXT_BYTES];
	bool ok;
	int status = read_secret(path, KEY_FILE_TEXT_BYTES + 1, false, &text, error);

	buf_wipe(out);
	if (status)
		return status;
	ok = text.length == KEY_FILE_TEXT_BYTES && text.data[text.length - 1] == '\n';
	if (ok) {
		memcpy(digits, text.data, sizeof(digits) - 1);
		digits[sizeof(digits) - 1] = '\0';
	}
	buf_wipe(&text);
	if (ok && buf_reserve(out, CRYPT_KEY_BYTES)) {
		crypt_wipe(digits, sizeof(digits));
		return error_set(error, ERR_NOMEM, 0, "%s: out of memory", path);
	}
	ok = ok && hex_decode(out->data, CRYPT_KEY_BYTES, digits);
	crypt_wipe(digits, sizeof(digits));
	if (!ok) {
		buf_wipe(out);
		return error_set(error, ERR_KEY, 0, "%s: not a key file; it holds 64 hex digits and a newline", path);
	}
	out->length = CRYPT_KEY_BYTES;
	return 0;
}

static int fsync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *directory;
	int fd, status, saved;

	if (!slash)
		directory = strdup(".");
	else
		directory = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	if (!directory)
		return -1;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(directory);
	if (fd < 0)
		return -1;
	status = io_fsync_dir(fd);
	saved = errno;
	close(fd);
	errno = saved;
	return status;
}

int key_create_file(const char *path, struct buf *out, struct error *error)
{
	char text[KEY_FILE_TEXT_BYTES + 1];
	int fd, status;

	buf_wipe(out);
	status = buf_reserve(out, CRYPT_KEY_BYTES);
	if (status)
		return error_set(error, status, 0, "%s: out of memory", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		status = error_errno(error, errno, "%s: can't create the key file", path);
		buf_wipe(out);
		return status;
	}
	io_random(out->data, CRYPT_KEY_BYTES);
	out->length = CRYPT_KEY_BYTES;
	hex_encode(text, out->data, CRYPT_KEY_BYTES);
	text[KEY_FILE_TEXT_BYTES - 1] = '\n';
	if (fchmod(fd, 0600) < 0 || io_write(fd, text, KEY_FILE_TEXT_BYTES) < 0 || fsync(fd) < 0 ||
	    fsync_parent(path) < 0) {
		status = error_errno(error, errno, "%s: can't write the key file", path);
		unlink(path);
		buf_wipe(out);
	}
	close(fd);
	crypt_wipe(text, sizeof(text));
	return status;
}

#include "store_file_internal.h"

#include "bytes.h"
#include "clock.h"
#include "failpoint.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define COPY_BYTES (1 << 20)
#define TEMPORARY_BYTES 40

/* The next piece of the body: in memory as it is, from a file through `scratch`. NULL with *error set. */
static const uint8_t *body_piece(struct store_file *files, const char *key, const struct store_body *body, uint64_t done,
				 size_t n, uint8_t *scratch, struct error *error)
{
	ssize_t got;

	if (body->data)
		return (const uint8_t *)body->data + done;
	got = io_pread(body->fd, scratch, n, body->offset + (int64_t)done);
	if (got == (ssize_t)n)
		return scratch;
	if (got < 0) /* ERR_FAILED: it is our file that can't be read, and not the store's */
		error_set(error, ERR_FAILED, errno, "%s/%s: cannot read the bytes to store: %s", files->store.url, key,
			  strerror(errno));
	else
		error_set(error, ERR_FAILED, 0, "%s/%s: the file to store is shorter than it should be", files->store.url, key);
	return NULL;
}

static int write_body(struct store_file *files, int fd, const char *key, const struct store_body *body,
		      struct error *error)
{
	struct digest *digest = body->has_sha256 ? digest_new(0) : NULL;
	uint8_t *scratch = body->data ? NULL : malloc(COPY_BYTES);
	uint8_t sum[SHA256_BYTES];
	int rc = 0;

	if (!body->data && !scratch)
		rc = error_set(error, ERR_NOMEM, ENOMEM, "%s/%s: out of memory", files->store.url, key);
	for (uint64_t done = 0; rc == 0 && done < body->length;) {
		size_t n = body->length - done < COPY_BYTES ? (size_t)(body->length - done) : COPY_BYTES;
		const uint8_t *piece = body_piece(files, key, body, done, n, scratch, error);

		if (!piece) {
			rc = ERR_FAILED;
		} else if (store_file_cancelled(files)) {
			rc = error_set(error, ERR_ABANDONED, 0, "%s: cancelled", files->store.url);
		} else if (io_write(fd, piece, n) < 0) {
			rc = store_file_errno(files, errno, key, error);
		} else if (digest) {
			digest_update(digest, piece, n);
		}
		done += n;
	}
	if (digest) {
		digest_finish(digest, sum, NULL);
		if (rc == 0 && memcmp(sum, body->sha256, sizeof sum) != 0)
			rc = error_set(error, ERR_CORRUPT, 0, "%s/%s: the bytes to store are not those that were sealed",
				       files->store.url, key);
	}
	free(scratch);
	if (rc == 0) {
		int fake = FAILPOINT_ERRNO("store-file/fsync");

		if (fake != 0 || fsync(fd) < 0)
			rc = store_file_errno(files, fake ? fake : errno, key, error);
	}
	return rc;
}

/* Creates `base` from the temporary file if it is absent. 0 or -1 with errno; EOPNOTSUPP: this filesystem can't. There is no
 * falling back to open(O_EXCL): a crash would leave part of an object under a key that is never written again. */
static int create_absent(struct store_file *files, const char *temporary, int directory, const char *base)
{
	if (linkat(files->root_fd, temporary, directory, base, 0) == 0) {
		unlinkat(files->root_fd, temporary, 0);
		return 0;
	}
	if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
		return -1;
	/* No hard links (FAT, exFAT, some network filesystems). */
	if (renameat2(files->root_fd, temporary, directory, base, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EINVAL || errno == ENOSYS)
		errno = EOPNOTSUPP;
	return -1;
}

/* Gives the durable temporary file its name, durably. The temporary name is gone after success only. */
static int publish(struct store_file *files, const char *temporary, const char *key, bool only_new, struct error *error)
{
	const char *base;
	int rc = 0, done, directory = store_file_directory(files, key, true, &base);

	if (directory < 0)
		return store_file_errno(files, errno, key, error);
	FAILPOINT("store-file/before-name");
	done = only_new ? create_absent(files, temporary, directory, base)
			: renameat(files->root_fd, temporary, directory, base);
	if (done == 0) {
		FAILPOINT("store-file/after-name");
		if (io_fsync_dir(directory) < 0) {
			rc = store_file_errno(files, errno, key, error);
			/* Not ours to keep when a crash may take it back: the caller must not find it and call it safe. */
			if (only_new)
				unlinkat(directory, base, 0);
		}
	} else if (only_new && errno == EEXIST) {
		/* Its writer may have died before this. "It is there" must hold after a power cut too. */
		if (io_fsync_dir(directory) < 0)
			rc = store_file_errno(files, errno, key, error);
		else
			rc = error_set(error, ERR_EXISTS, EEXIST, "%s/%s: the object exists already", files->store.url, key);
	} else if (only_new && errno == EOPNOTSUPP) {
		rc = error_set(error, ERR_UNSUPPORTED, errno,
			       "%s/%s: this filesystem has neither hard links nor rename without replacing; use another one",
			       files->store.url, key);
	} else {
		rc = store_file_errno(files, errno, key, error);
	}
	close(directory);
	return rc;
}

int store_file_put(struct store *store, const char *key, const struct store_body *body, bool only_new,
		   int64_t *server_ns, struct error *error)
{
	struct store_file *files = (struct store_file *)store;
	char temporary[TEMPORARY_BYTES] = STORE_FILE_TEMPORARY;
	uint8_t random[8];
	int fd, rc = store_file_check(files, error);

	if (rc < 0)
		return rc;
	store_count(&store->counts.put, 1);
	io_random(random, sizeof random);
	hex_encode(temporary + strlen(temporary), random, sizeof random);
	fd = openat(files->root_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return store_file_errno(files, errno, key, error);
	(void)flock(fd, LOCK_EX | LOCK_NB); /* says that we live; where it is unsupported the age alone decides */
	rc = write_body(files, fd, key, body, error);
	/* Again: the root may have been moved away during a long write, and the object with it. */
	if (rc == 0)
		rc = store_file_check(files, error);
	if (rc == 0)
		rc = publish(files, temporary, key, only_new, error);
	if (rc == 0) {
		*server_ns = clock_wall_ns();
		store_count(&store->counts.bytes_up, body->length);
	} else {
		unlinkat(files->root_fd, temporary, 0);
	}
	close(fd);
	return rc;
}

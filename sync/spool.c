#include "spool.h"

#include "failpoint.h"
#include "fetch.h"
#include "io.h"
#include "log.h"
#include "record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LIMIT_MAX (UINT64_C(16) << 30)
#define LIMIT_MIN (UINT64_C(64) << 20)
#define EVICT_AT_ONCE 64

struct spool {
	struct volume *volume;
	int fd; /* the volume's */
	uint64_t limit, cache_limit;
	_Atomic uint64_t pending; /* bytes */
	_Atomic int64_t done;     /* bytes kept as cache, rounded as they lie on disk; at least so many */
};

static int64_t on_disk(int64_t bytes) { return (bytes + 4095) & ~INT64_C(4095); }

/* ---------------------------------------------------------------- open */

/* The object key of a file's name, or false: not ours to judge. */
static bool key_of_file(const char *name, char key[SPOOL_OBJECT_BYTES])
{
	size_t length = strlen(name);

	if (name[0] == '.' || length >= SPOOL_OBJECT_BYTES)
		return false;
	for (size_t i = 0; i <= length; i++)
		key[i] = name[i] == '.' ? '/' : name[i];
	return true;
}

/* What a crash left between the writing of a file and its row. */
static int remove_strays(struct spool *spool, struct db_conn *conn, struct error *error)
{
	int fd = openat(spool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		int rc = error_errno(error, errno, "spool directory");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while ((entry = readdir(dir))) {
		char key[SPOOL_OBJECT_BYTES];
		struct spool_row row;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!key_of_file(entry->d_name, key) || spool_row_get(conn, key, &row) == ERR_ABSENT)
			unlinkat(spool->fd, entry->d_name, 0);
	}
	closedir(dir);
	return 0;
}

static uint64_t default_limit(int fd)
{
	struct statvfs st;
	uint64_t tenth = fstatvfs(fd, &st) == 0 ? (uint64_t)st.f_blocks * st.f_frsize / 10 : LIMIT_MAX;

	if (tenth > LIMIT_MAX)
		return LIMIT_MAX;
	return tenth < LIMIT_MIN ? LIMIT_MIN : tenth;
}

int spool_open(struct volume *volume, struct spool **out, struct error *error)
{
	const struct volume_config *config = volume_config(volume);
	struct spool *spool = calloc(1, sizeof(*spool));
	struct db_conn *conn;
	int64_t done = 0;
	int rc;

	*out = NULL;
	if (!spool)
		return error_errno(error, ENOMEM, "spool");
	spool->volume = volume;
	spool->fd = volume_spool_fd(volume);
	spool->limit = config->spool_limit_bytes ? config->spool_limit_bytes : default_limit(spool->fd);
	spool->cache_limit = config->cache_limit_bytes;
	rc = db_read_begin(volume_db(volume), &conn, error);
	if (!rc) {
		rc = remove_strays(spool, conn, error);
		if (!rc && (rc = spool_rows_done_bytes(conn, &done)))
			error_set(error, rc, 0, "spool: can't read its table");
		db_read_end(volume_db(volume), conn);
	}
	if (rc) {
		free(spool);
		return rc;
	}
	atomic_store(&spool->done, done);
	*out = spool;
	return 0;
}

void spool_free(struct spool *spool) { free(spool); }

/* ---------------------------------------------------------------- the cache */

/* Rows first: a file without a row is garbage, a row without a file would be damage. How many went, or enum err. */
static int evict_some(struct spool *spool, uint64_t limit, struct error *error)
{
	struct spool_row *rows = calloc(EVICT_AT_ONCE, sizeof(*rows));
	struct db_conn *conn;
	int64_t freed = 0;
	int rc = rows ? db_begin(volume_db(spool->volume), false, &conn, error) : error_errno(error, ENOMEM, "spool");
	int count = 0, gone = 0;

	if (rc)
		goto out;
	count = spool_rows_oldest_done(conn, db_meta_int(conn, "confirmed", 0), rows, EVICT_AT_ONCE);
	if (count < 0)
		rc = error_set(error, count, 0, "spool: can't read its table");
	while (!rc && gone < count && atomic_load(&spool->done) - freed > (int64_t)limit) {
		rc = spool_row_delete(conn, rows[gone].object, error);
		freed += on_disk(rows[gone++].size);
	}
	if (rc)
		db_rollback(volume_db(spool->volume));
	else
		rc = db_commit(volume_db(spool->volume), error);
	FAILPOINT("spool/evict-rows");
	for (int i = 0; i < gone && !rc; i++)
		spool_unlink(spool, rows[i].object);
	if (!rc)
		atomic_fetch_sub(&spool->done, freed);
out:
	free(rows);
	return rc ? rc : gone;
}

/* I13. What is only a copy of what the remote has goes first. */
static bool has_space(struct spool *spool, uint64_t bytes)
{
	struct chunk_cache *cache = volume_chunk_cache(spool->volume);
	uint64_t space;

	while ((space = backing_free_above_reserve(spool->fd)) < bytes) {
		if (atomic_load(&spool->done) > 0 && evict_some(spool, 0, NULL) > 0)
			continue;
		if (!cache || chunk_cache_yield(cache, bytes - space) == 0)
			return false;
	}
	return true;
}

/* ---------------------------------------------------------------- writing */

static struct spool_object *object_new(enum spool_kind kind, int64_t seq, const char *key, uint64_t size,
				       const uint8_t hash[SHA256_BYTES])
{
	struct spool_object *object = calloc(1, sizeof(*object));

	if (!object)
		return NULL;
	snprintf(object->row.object, sizeof(object->row.object), "%s", key);
	object->row.seq = seq;
	object->row.kind = kind;
	object->row.size = (int64_t)size;
	memcpy(object->row.hash, hash, SHA256_BYTES);
	object->references = 1;
	return object;
}

/* Nothing of that name has a row: what is there is left over. */
static int create(struct spool *spool, const char *key, struct error *error)
{
	char name[SPOOL_NAME_BYTES];
	int fd;

	spool_file_name(name, key);
	fd = openat(spool->fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && errno == ENOENT) /* not ERR_ABSENT: that is said of files of the tree */
		return error_set(error, ERR_FAILED, ENOENT, "spool: the directory %s/spool is gone", volume_state_path(spool->volume));
	return fd < 0 ? error_errno(error, errno, "spool file %s", name) : fd;
}

int spool_write(struct spool *spool, enum spool_kind kind, int64_t seq, const char *key, const struct buf *bytes,
		const uint8_t hash[SHA256_BYTES], struct spool_object **out, struct error *error)
{
	int fd, rc = 0;

	*out = NULL;
	if (!has_space(spool, bytes->length))
		return error_set(error, ERR_NOSPACE, ENOSPC,
				 "spool: the disk of %s has no room for %llu MiB more above its reserve; versions wait; free some space there, or give "
				 "the state directory a larger disk",
				 volume_state_path(spool->volume), (unsigned long long)(bytes->length >> 20) + 1);
	fd = create(spool, key, error);
	if (fd < 0)
		return fd;
	if (io_write(fd, bytes->data, bytes->length) < 0)
		rc = error_errno(error, errno, "spool: writing %s", key);
	FAILPOINT("spool/pack-written");
	if (!rc && fsync(fd) < 0)
		rc = error_errno(error, errno, "spool: fsync of %s", key);
	FAILPOINT("spool/pack-fsynced");
	close(fd);
	if (!rc && !(*out = object_new(kind, seq, key, bytes->length, hash)))
		rc = error_errno(error, ENOMEM, "spool");
	if (rc)
		spool_unlink(spool, key);
	else
		spool_count_pending(spool, bytes->length);
	return rc;
}

int spool_begin_record(struct spool *spool, const char *key, int *fd, struct error *error)
{
	*fd = create(spool, key, error);
	return *fd < 0 ? *fd : 0;
}

int spool_finish_record(struct spool *spool, int fd, int64_t seq, const char *key, uint64_t length,
			const uint8_t hash[SHA256_BYTES], struct spool_object **out, struct error *error)
{
	int rc = 0;

	*out = NULL;
	FAILPOINT("spool/record-written");
	if (fsync(fd) < 0)
		rc = error_errno(error, errno, "spool: fsync of %s", key);
	FAILPOINT("spool/record-fsynced");
	close(fd);
	if (!rc && !(*out = object_new(SPOOL_RECORD, seq, key, length, hash)))
		rc = error_errno(error, ENOMEM, "spool");
	if (rc)
		spool_unlink(spool, key);
	else
		spool_count_pending(spool, length);
	return rc;
}

int spool_sync(struct spool *spool, struct error *error)
{
	return io_fsync_dir(spool->fd) < 0 ? error_errno(error, errno, "spool: fsync of its directory") : 0;
}

void spool_object_free(struct spool_object *object) { free(object); }

void spool_discard(struct spool *spool, const struct spool_object *object)
{
	if (object->gone)
		return;
	spool_unlink(spool, object->row.object);
	if (object->row.state != SPOOL_DONE)
		spool_count_gone(spool, (uint64_t)object->row.size);
	else
		atomic_fetch_sub(&spool->done, on_disk(object->row.size));
}

/* ---------------------------------------------------------------- reading */

int spool_body(struct spool *spool, const struct spool_row *row, struct store_body *body, struct error *error)
{
	char name[SPOOL_NAME_BYTES];
	struct stat st;

	memset(body, 0, sizeof(*body));
	spool_file_name(name, row->object);
	body->fd = openat(spool->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (body->fd < 0)
		return errno == ENOENT ? error_set(error, ERR_CORRUPT, 0, "spool: %s is gone", row->object)
				       : error_errno(error, errno, "spool: %s", row->object);
	if (fstat(body->fd, &st) < 0 || st.st_size != row->size) {
		close(body->fd);
		body->fd = -1;
		return error_set(error, ERR_CORRUPT, 0, "spool: %s has another length than when it was written", row->object);
	}
	body->length = (uint64_t)row->size;
	body->has_sha256 = true;
	memcpy(body->sha256, row->hash, SHA256_BYTES);
	return 0;
}

int spool_verify(struct spool *spool, const struct spool_row *row, struct error *error)
{
	uint8_t hash[SHA256_BYTES];
	struct store_body body;
	int rc = spool_body(spool, row, &body, error);

	if (rc)
		return rc;
	rc = object_hash(body.fd, body.length, hash, error);
	close(body.fd);
	if (rc || memcmp(hash, row->hash, SHA256_BYTES) == 0)
		return rc;
	return error_set(error, ERR_CORRUPT, 0, "spool: %s is damaged", row->object);
}

int spool_mend(struct spool *spool, const struct spool_row *row, const struct buf *bytes, struct error *error)
{
	char name[SPOOL_NAME_BYTES];

	spool_file_name(name, row->object);
	return io_replace_file(spool->fd, name, bytes->data, bytes->length, 0600, error);
}

void spool_unlink(struct spool *spool, const char *object)
{
	char name[SPOOL_NAME_BYTES];

	spool_file_name(name, object);
	if (unlinkat(spool->fd, name, 0) < 0 && errno != ENOENT)
		log_warn("spool: can't remove %s: %s", name, strerror(errno));
}

/* ---------------------------------------------------------------- room */

uint64_t spool_pending_bytes(struct spool *spool) { return atomic_load(&spool->pending); }

bool spool_has_room(struct spool *spool, struct error *error)
{
	if (atomic_load(&spool->pending) >= spool->limit) {
		error_set(error, ERR_NOSPACE, 0, "the spool is full (%llu MiB wait for upload); versions wait until some of it is in the remote",
			  (unsigned long long)(atomic_load(&spool->pending) >> 20));
		return false;
	}
	if (!has_space(spool, 1)) {
		error_set(error, ERR_NOSPACE, ENOSPC, "spool: the disk of %s is nearly full, and versions wait; free some space there",
			  volume_state_path(spool->volume));
		return false;
	}
	return true;
}

uint64_t spool_capacity(struct spool *spool)
{
	struct chunk_cache *cache = volume_chunk_cache(spool->volume);
	uint64_t ours = (uint64_t)atomic_load(&spool->done) + atomic_load(&spool->pending) + (cache ? chunk_cache_bytes(cache) : 0);
	uint64_t space = backing_free_above_reserve(spool->fd);
	uint64_t capacity = space > UINT64_MAX - ours ? UINT64_MAX : space + ours;

	return capacity < spool->limit ? capacity : spool->limit;
}

void spool_count_pending(struct spool *spool, uint64_t bytes) { atomic_fetch_add(&spool->pending, bytes); }

void spool_count_gone(struct spool *spool, uint64_t bytes) { atomic_fetch_sub(&spool->pending, bytes); }

void spool_count_done(struct spool *spool, uint64_t bytes)
{
	spool_count_gone(spool, bytes);
	atomic_fetch_add(&spool->done, on_disk((int64_t)bytes));
}

int spool_evict(struct spool *spool, struct error *error)
{
	int gone = 1;

	/* The rest may be of versions that are not confirmed yet. */
	while (gone > 0 && atomic_load(&spool->done) > (int64_t)spool->cache_limit)
		gone = evict_some(spool, spool->cache_limit, error);
	return gone < 0 ? gone : 0;
}

#include "unsettled_log.h"

#include "bytes.h"
#include "failpoint.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "unsettled.log"
#define RECORD_BYTES 88
#define HALF_BYTES (128 << 10)
#define HALF_RECORDS (HALF_BYTES / RECORD_BYTES)

struct unsettled_log {
	int fd;
	/* The caller's lock. */
	int active; /* half */
	size_t used; /* records in it */
	uint64_t generation; /* of it */
	bool other_full;
	bool given_up;
};

/* Against tearing, not malice: FNV-1a by words, folded. */
static uint64_t checksum(const uint8_t record[RECORD_BYTES])
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t at = 8; at < RECORD_BYTES; at += 8)
		hash = (hash ^ get_u64(record + at)) * UINT64_C(0x100000001b3);
	hash ^= hash >> 33;
	hash *= UINT64_C(0xff51afd7ed558ccd);
	return hash ^ hash >> 33;
}

static void pack(uint8_t record[RECORD_BYTES], uint64_t generation, const struct node_key *key, int64_t epoch)
{
	memset(record, 0, RECORD_BYTES);
	put_u64(record + 8, generation);
	put_u64(record + 16, (uint64_t)epoch);
	record[24] = key->length;
	memcpy(record + 25, (const uint8_t *)key + offsetof(struct node_key, bytes), key->length);
	put_u64(record, checksum(record));
}

static bool unpack(const uint8_t record[RECORD_BYTES], uint64_t *generation, struct node_key *key, int64_t *epoch)
{
	if (get_u64(record) != checksum(record) || record[24] == 0 || record[24] > NODE_KEY_MAX)
		return false;
	*generation = get_u64(record + 8);
	*epoch = (int64_t)get_u64(record + 16);
	memset(key, 0, sizeof *key);
	key->length = record[24];
	memcpy(key->bytes, record + 25, key->length);
	return true;
}

/* Records of a half up to its end or to those of an earlier turn. *newest: the highest generation, if higher than before. */
static int read_half(int fd, int half, uint64_t *newest, int (*fn)(void *, const struct node_key *, int64_t), void *context)
{
	uint8_t *bytes = malloc(HALF_BYTES);
	uint64_t first = 0, generation;
	struct node_key key;
	int64_t epoch;
	ssize_t got = bytes ? io_pread(fd, bytes, HALF_BYTES, (int64_t)half * HALF_BYTES) : -1;
	int rc = got < 0 ? ERR_FAILED : 0;

	for (ssize_t at = 0; rc == 0 && at + RECORD_BYTES <= got; at += RECORD_BYTES) {
		if (!unpack(bytes + at, &generation, &key, &epoch) || (at > 0 && generation != first))
			break;
		first = generation;
		if (generation > *newest)
			*newest = generation;
		rc = fn ? fn(context, &key, epoch) : 0;
	}
	free(bytes);
	return rc;
}

int unsettled_log_each(int state_fd, int (*fn)(void *context, const struct node_key *key, int64_t epoch), void *context)
{
	int fd = openat(state_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t newest = 0;
	int rc;

	if (fd < 0)
		return errno == ENOENT ? 0 : ERR_FAILED;
	rc = read_half(fd, 0, &newest, fn, context);
	if (rc == 0)
		rc = read_half(fd, 1, &newest, fn, context);
	close(fd);
	return rc;
}

/* Whole from the start: a record that is written over others needs no new block, and its sync no journal of the filesystem. */
static int make_room(int fd)
{
	struct stat st;
	uint8_t *zeros;
	int rc;

	if (fstat(fd, &st) < 0)
		return -1;
	if (st.st_size == 2 * HALF_BYTES)
		return 0;
	zeros = calloc(1, 2 * HALF_BYTES);
	rc = zeros && ftruncate(fd, 0) == 0 ? io_pwrite(fd, zeros, 2 * HALF_BYTES, 0) : -1;
	free(zeros);
	return rc == 0 ? fsync(fd) : -1;
}

int unsettled_log_open(int state_fd, struct unsettled_log **out, struct error *error)
{
	struct unsettled_log *log = calloc(1, sizeof *log);
	uint64_t newest[2] = {0};

	*out = NULL;
	if (!log)
		return error_errno(error, ENOMEM, FILE_NAME);
	log->fd = openat(state_fd, FILE_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (log->fd < 0 || make_room(log->fd) != 0 || io_fsync_dir(state_fd) != 0 || read_half(log->fd, 0, &newest[0], NULL, NULL) != 0 ||
	    read_half(log->fd, 1, &newest[1], NULL, NULL) != 0) {
		int rc = error_errno(error, errno, "cannot make " FILE_NAME " in the state directory");

		unsettled_log_close(log);
		return rc;
	}
	/* The older half: what an unclean start has not yet brought into the database is overwritten last. */
	log->active = newest[0] > newest[1];
	log->generation = (log->active ? newest[0] : newest[1]) + 1;
	*out = log;
	return 0;
}

void unsettled_log_close(struct unsettled_log *log)
{
	if (!log)
		return;
	if (log->fd >= 0)
		close(log->fd);
	free(log);
}

bool unsettled_log_reserve(struct unsettled_log *log, size_t count, struct unsettled_place *place)
{
	if (log->given_up || count > HALF_RECORDS - log->used)
		return false;
	place->offset = (int64_t)log->active * HALF_BYTES + (int64_t)log->used * RECORD_BYTES;
	place->generation = log->generation;
	log->used += count;
	return true;
}

int unsettled_log_put(struct unsettled_log *log, struct unsettled_place *place, const struct node_key *key, int64_t epoch)
{
	uint8_t record[RECORD_BYTES];

	pack(record, place->generation, key, epoch);
	if (io_pwrite(log->fd, record, sizeof record, place->offset) != 0)
		return -1;
	place->offset += RECORD_BYTES;
	return 0;
}

int unsettled_log_sync(struct unsettled_log *log)
{
	FAILPOINT("unsettled/before-sync");
	if (fdatasync(log->fd) != 0)
		return -1;
	FAILPOINT("unsettled/after-sync");
	return 0;
}

void unsettled_log_give_up(struct unsettled_log *log)
{
	log->given_up = true;
}

bool unsettled_log_is_filling(const struct unsettled_log *log)
{
	return log->used > HALF_RECORDS / 2 && !log->other_full && !log->given_up;
}

bool unsettled_log_turn(struct unsettled_log *log)
{
	if (unsettled_log_is_filling(log)) {
		log->active = !log->active;
		log->used = 0;
		log->generation++;
		log->other_full = true;
	}
	return log->other_full;
}

void unsettled_log_forget(struct unsettled_log *log)
{
	log->other_full = false;
}

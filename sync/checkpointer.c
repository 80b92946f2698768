#include "checkpointer.h"

#include "catalogue.h"
#include "clock.h"
#include "failpoint.h"
#include "image.h"
#include "log.h"
#include "record.h"
#include "recover.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORDS_MIN 1000
#define RECORDS_MANY 10000              /* reading them one by one begins to cost a recovery time */
#define FIRST_BYTES (INT64_C(1) << 20)  /* of log before the first checkpoint */
#define SHARE 5                         /* log bytes per checkpoint byte: checkpoints stay below a fifth of what goes up */
#define PIECE_BYTES (UINT64_C(8) << 20)
#define AGAIN_NS (60 * NS_PER_S) /* after a failure */

struct checkpointer {
	struct volume *volume;
	struct store *store;
	const struct master *master;
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t rest;
	bool poked, busy, stopping; /* lock */
	int64_t not_before;   /* the thread's; monotonic */
	pthread_t thread;
};

struct state {
	int64_t seq, log_bytes;
	uint8_t log_hash[SHA256_BYTES];
	bool due;
};

/* How many records are many. Tests can't wait for so many. */
static int64_t records_many(void)
{
#ifdef YESTER_FAILPOINTS
	const char *text = getenv("YESTER_CHECKPOINT_RECORDS");
	if (text && atoll(text) > 0)
		return atoll(text);
#endif
	return RECORDS_MANY;
}

/* A checkpoint saves a recovery requests, not bytes: it is about as large as the log that it stands for. So the first comes once an import is complete, which pays for it; the next
 * when many records have come, and only as often as small changes don't notice; earlier than that only when there are very many. */
static bool is_due(struct db_conn *conn, int64_t seq, int64_t log_bytes)
{
	int64_t base = db_meta_int(conn, "base_seq", 0), base_bytes = db_meta_int(conn, "base_bytes", 0);
	int64_t records = seq - base, many = records_many(), enough = many < RECORDS_MIN ? many : RECORDS_MIN;
	struct version_row version;

	if (catalogue_version_get(conn, seq, &version) != 0 || version.flags & VERSION_PARTIAL)
		return false;
	if (base == 0)
		return records >= enough || log_bytes >= FIRST_BYTES;
	return (records >= enough && log_bytes >= SHARE * base_bytes) ||
	       (records >= many && log_bytes > base_bytes / 2);
}

static int read_state(struct checkpointer *checkpointer, struct state *out, struct error *error)
{
	struct db *db = volume_db(checkpointer->volume);
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	memset(out, 0, sizeof(*out));
	if (rc)
		return rc;
	out->seq = db_meta_int(conn, "confirmed", 0);
	out->log_bytes = db_meta_int(conn, "log_bytes", 0);
	out->due = out->seq > 0 && db_meta_int(conn, "head", 0) == out->seq && is_due(conn, out->seq, out->log_bytes) &&
		   db_meta_blob(conn, "confirmed_hash", out->log_hash, sizeof(out->log_hash)) == 0;
	db_read_end(db, conn);
	return 0;
}

/* What the store gives back is what was sent. */
static int read_back(struct checkpointer *checkpointer, const char *key, uint64_t length, const uint8_t hash[SHA256_BYTES],
		     struct error *error)
{
	struct digest *digest = digest_new(0);
	uint8_t found[SHA256_BYTES];
	struct buf piece = {0};
	int rc = 0;

	for (uint64_t at = 0; at < length && !rc; at += PIECE_BYTES) {
		buf_clear(&piece);
		rc = store_get(checkpointer->store, key, at, length - at < PIECE_BYTES ? length - at : PIECE_BYTES, &piece, error);
		if (!rc)
			digest_update(digest, piece.data, piece.length);
	}
	buf_free(&piece);
	digest_finish(digest, found, NULL);
	if (!rc && memcmp(found, hash, SHA256_BYTES) != 0)
		rc = error_set(error, ERR_RETRY, 0, "%s: %s reads back differently", checkpointer->store->url, key);
	return rc;
}

static int send(struct checkpointer *checkpointer, int fd, uint64_t length, const struct record_base *base, struct error *error)
{
	struct store_body body = {.fd = fd, .length = length, .has_sha256 = true};
	char key[RECORD_KEY_BYTES];
	int rc;

	memcpy(body.sha256, base->hash, SHA256_BYTES);
	checkpoint_key(key, base->seq, base->rand);
	FAILPOINT("checkpoint/written");
	rc = store_put(checkpointer->store, key, &body, NULL, error);
	FAILPOINT("checkpoint/uploaded");
	if (!rc)
		rc = read_back(checkpointer, key, length, base->hash, error);
	FAILPOINT("checkpoint/verified");
	if (rc)
		store_delete(checkpointer->store, key, NULL); /* nothing names it */
	return rc;
}

static int record_base_row(struct checkpointer *checkpointer, const struct state *state, const struct record_base *base,
			   uint64_t length, struct error *error)
{
	struct db *db = volume_db(checkpointer->volume);
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	/* A take-over may have brought a newer base meanwhile. */
	bool newer = db_meta_int(conn, "base_seq", 0) > base->seq;
	if (!newer)
		rc = recover_save_base(conn, base, error);
	if (!rc && !newer)
		rc = db_meta_set_int(conn, "base_bytes", (int64_t)length, error);
	if (!rc && !newer)
		rc = db_meta_set_int(conn, "log_bytes", db_meta_int(conn, "log_bytes", 0) - state->log_bytes, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

static int write_one(struct checkpointer *checkpointer, const struct state *state, struct error *error)
{
	const char *tmp_dir = volume_state_path(checkpointer->volume);
	struct record_base base = {.seq = state->seq};
	uint64_t image_length, length;
	int image = -1, fd = -1;
	int rc = catalogue_export(volume_db(checkpointer->volume), state->seq, tmp_dir, &image, &image_length, error);

	if (rc)
		return rc;
	memcpy(base.log_hash, state->log_hash, SHA256_BYTES);
	fd = image_file(tmp_dir, error);
	if (fd < 0)
		rc = fd;
	if (!rc)
		rc = checkpoint_write(checkpointer->master, state->seq, base.log_hash, image, image_length, fd, &base.rand, &length,
				      base.hash, error);
	if (!rc)
		rc = send(checkpointer, fd, length, &base, error);
	if (!rc)
		rc = record_base_row(checkpointer, state, &base, length, error);
	FAILPOINT("checkpoint/recorded");
	if (!rc)
		log_info("checkpoint of version %lld written, %llu bytes", (long long)state->seq, (unsigned long long)length);
	close(image);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void look(struct checkpointer *checkpointer)
{
	struct error error = {0};
	struct state state;
	int rc;

	if (clock_mono_ns() < checkpointer->not_before)
		return;
	rc = read_state(checkpointer, &state, &error);
	if (!rc && state.due)
		rc = write_one(checkpointer, &state, &error);
	if (!rc || rc == ERR_BUSY || rc == ERR_ABANDONED) /* busy: a newer version is there; that one's confirmation comes */
		return;
	checkpointer->not_before = clock_mono_ns() + AGAIN_NS;
	log_warn("checkpoint of version %lld: %s; tried again after a later version", (long long)state.seq, error.message);
}

static void *run(void *context)
{
	struct checkpointer *checkpointer = context;

	pthread_mutex_lock(&checkpointer->lock);
	while (!checkpointer->stopping) {
		if (!checkpointer->poked) {
			pthread_cond_wait(&checkpointer->work, &checkpointer->lock);
			continue;
		}
		checkpointer->poked = false;
		checkpointer->busy = true;
		pthread_mutex_unlock(&checkpointer->lock);
		look(checkpointer);
		pthread_mutex_lock(&checkpointer->lock);
		checkpointer->busy = false;
		pthread_cond_broadcast(&checkpointer->rest);
	}
	pthread_mutex_unlock(&checkpointer->lock);
	return NULL;
}

int checkpointer_start(struct volume *volume, struct store *store, const struct master *master, struct checkpointer **out,
		       struct error *error)
{
	struct checkpointer *checkpointer = calloc(1, sizeof(*checkpointer));
	int failure;

	*out = NULL;
	if (!checkpointer)
		return error_errno(error, ENOMEM, "checkpoint");
	*checkpointer = (struct checkpointer){.volume = volume, .store = store, .master = master};
	pthread_mutex_init(&checkpointer->lock, NULL);
	pthread_cond_init(&checkpointer->work, NULL);
	clock_cond_init(&checkpointer->rest);
	failure = pthread_create(&checkpointer->thread, NULL, run, checkpointer);
	if (failure) {
		free(checkpointer);
		return error_errno(error, failure, "starting the checkpoint thread");
	}
	*out = checkpointer;
	return 0;
}

void checkpointer_poke(struct checkpointer *checkpointer)
{
	pthread_mutex_lock(&checkpointer->lock);
	checkpointer->poked = true;
	pthread_cond_signal(&checkpointer->work);
	pthread_mutex_unlock(&checkpointer->lock);
}

void checkpointer_wait(struct checkpointer *checkpointer, int64_t wait_ns)
{
	struct timespec deadline = clock_deadline(wait_ns);

	pthread_mutex_lock(&checkpointer->lock);
	while (checkpointer->poked || checkpointer->busy)
		if (pthread_cond_timedwait(&checkpointer->rest, &checkpointer->lock, &deadline) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&checkpointer->lock);
}

void checkpointer_stop(struct checkpointer *checkpointer)
{
	if (!checkpointer)
		return;
	pthread_mutex_lock(&checkpointer->lock);
	checkpointer->stopping = true;
	pthread_cond_signal(&checkpointer->work);
	pthread_mutex_unlock(&checkpointer->lock);
	pthread_join(checkpointer->thread, NULL);
	pthread_cond_destroy(&checkpointer->work);
	pthread_cond_destroy(&checkpointer->rest);
	pthread_mutex_destroy(&checkpointer->lock);
	free(checkpointer);
}

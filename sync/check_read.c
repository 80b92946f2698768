/* Packs read whole: their hash, and every chunk in them. */
#include "check_internal.h"

#include "db_internal.h"
#include "pack_format.h"
#include "pool.h"
#include "seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READERS 4

struct reading {
	struct checking *checking;
	uint64_t total, done; /* bytes; done: checking->lock */
	int rc;               /* checking->lock: first failure, which ends the check */
	struct error error;   /* checking->lock */
};

struct job {
	struct reading *reading;
	const struct pack_row *pack;
};

struct bad_chunks {
	int64_t *nums;
	size_t count, seen;
};

static bool place_of(sqlite3_stmt *row, const struct pack_row *pack, struct chunk_place *out)
{
	int64_t offset = db_int(row, 3), stored = db_int(row, 4), length = db_int(row, 5), idx = db_int(row, 2);
	int64_t codec = db_int(row, 6), dictionary = db_int(row, 7);

	if (offset < 0 || offset > pack->size || stored < CRYPT_TAG_BYTES || stored > pack->size - offset || length <= 0 ||
	    length > PACK_MAX_CHUNK_BYTES || idx < 0 || idx > PACK_MAX_CHUNKS || codec < 0 || codec > UINT8_MAX ||
	    dictionary < 0 || dictionary > UINT32_MAX)
		return false;
	*out = (struct chunk_place){.index = (uint32_t)idx, .offset = (uint64_t)offset, .stored_bytes = (uint32_t)stored,
				    .length = (uint32_t)length, .codec = (uint8_t)codec, .dictionary = (uint32_t)dictionary};
	return db_blob(row, 1, out->id, sizeof(out->id)) == 0;
}

/* 0, ERR_CORRUPT: counted as bad, ERR_NOMEM. */
static int open_row(const struct checking *checking, sqlite3_stmt *row, const struct pack_row *pack,
		    const struct buf *bytes, struct buf *plain)
{
	struct chunk_place place;

	if (!place_of(row, pack, &place))
		return ERR_CORRUPT;
	buf_clear(plain);
	return chunk_open(checking->master, pack->id, pack->salt, &place, bytes->data + place.offset, plain);
}

static int add_bad(struct bad_chunks *bad, int64_t num)
{
	int64_t *grown = reallocarray(bad->nums, bad->count + 1, sizeof(*grown));

	if (!grown)
		return ERR_NOMEM;
	bad->nums = grown;
	grown[bad->count++] = num;
	return 0;
}

static int open_chunks(const struct checking *checking, const struct pack_row *pack, const struct buf *bytes,
		       struct bad_chunks *bad, struct error *error)
{
	struct db_conn *conn;
	struct buf plain = {0};
	int rc = db_read_begin(checking->catalogue, &conn, error);

	if (rc)
		return rc;
	rc = db_step(conn, error, "SELECT num, id, idx, offset, stored, length, codec, dictionary FROM chunk WHERE pack=?",
		     "i", pack->num);
	sqlite3_stmt *stmt = db_last(conn);
	while (rc == 1) {
		rc = open_row(checking, stmt, pack, bytes, &plain);
		if (rc == ERR_CORRUPT)
			rc = add_bad(bad, db_int(stmt, 0));
		if (rc)
			rc = error_set(error, rc, 0, "reading packs: %s", error_word(rc));
		bad->seen++;
		rc = rc ? rc : db_next(conn, stmt, error);
	}
	db_read_end(checking->catalogue, conn);
	buf_free(&plain);
	return rc;
}

/* The pack's bytes, asked for once more when they are not what they must be: an answer may have been hurt on its way. *why: what is wrong with
 * them, NULL: nothing. They are there unless the result is ERR_ABSENT or ERR_CORRUPT. */
static int get_pack(const struct checking *checking, const struct pack_row *pack, const char *key, struct buf *bytes,
		    const char **why, struct error *error)
{
	uint64_t offset = pack->record ? RECORD_HEADER_BYTES : 0;
	uint8_t hash[SHA256_BYTES];
	int rc = 0;

	for (int attempt = 0; attempt < 2; attempt++) {
		buf_clear(bytes);
		rc = store_get(checking->store, key, offset, (uint64_t)pack->size, bytes, error);
		*why = rc == ERR_ABSENT ? "it is not in the remote" : rc == ERR_CORRUPT ? "it is too short" : NULL;
		if (rc && !*why)
			return rc;
		if (!rc) {
			sha256(hash, bytes->data, bytes->length);
			if (memcmp(hash, pack->hash, sizeof(hash)) == 0)
				return 0;
			*why = "its bytes are not what was stored";
		}
	}
	return rc;
}

static int read_pack(struct checking *checking, const struct pack_row *pack, struct error *error)
{
	char key[RECORD_KEY_BYTES];
	struct bad_chunks bad = {0};
	struct buf bytes = {0};
	const char *why;
	int rc;

	if (pack->record)
		record_key(key, pack->record);
	else
		pack_key(key, pack->id);
	rc = get_pack(checking, pack, key, &bytes, &why, error);
	if (rc == ERR_ABSENT || rc == ERR_CORRUPT) {
		rc = damage_add(checking, key, why, pack->num, NULL, 0, error);
	} else if (!rc) {
		rc = open_chunks(checking, pack, &bytes, &bad, error);
		if (!rc && !why && bad.count)
			why = "a chunk in it is not what the catalogue says";
		if (!rc && why)
			rc = damage_add(checking, key, why, 0, bad.nums, bad.count, error);
	}
	pthread_mutex_lock(&checking->lock);
	checking->out->chunks += bad.seen;
	checking->out->bytes += bytes.length;
	pthread_mutex_unlock(&checking->lock);
	buf_free(&bytes);
	free(bad.nums);
	return rc;
}

static void run_job(void *arg)
{
	struct job *job = arg;
	struct reading *reading = job->reading;
	struct checking *checking = reading->checking;
	struct error error = {0};

	pthread_mutex_lock(&checking->lock);
	int rc = reading->rc;
	pthread_mutex_unlock(&checking->lock);
	if (!rc) {
		rc = read_pack(checking, job->pack, &error);
		pthread_mutex_lock(&checking->lock);
		reading->done += (uint64_t)job->pack->size;
		if (rc && !reading->rc) {
			reading->rc = rc;
			reading->error = error;
		}
		if (checking->progress)
			checking->progress(checking->context, "reading packs", reading->done, reading->total, "bytes");
		pthread_mutex_unlock(&checking->lock);
	}
	free(job);
}

int check_read(struct checking *checking, const struct pack_row *packs, size_t count, struct error *error)
{
	struct reading reading = {.checking = checking};
	struct pool *pool = pool_new(READERS, "check", READERS);

	if (!pool)
		return error_errno(error, errno, "reading packs");
	for (size_t i = 0; i < count; i++)
		reading.total += (uint64_t)packs[i].size;
	for (size_t i = 0; i < count; i++) {
		struct job *job = malloc(sizeof(*job));
		if (!job) {
			pthread_mutex_lock(&checking->lock);
			reading.rc = error_errno(&reading.error, ENOMEM, "reading packs");
			pthread_mutex_unlock(&checking->lock);
			break;
		}
		*job = (struct job){&reading, &packs[i]};
		pool_submit_wait(pool, run_job, job);
	}
	pool_free(pool);
	return reading.rc ? error_set(error, reading.rc, reading.error.sys_errno, "%s", reading.error.message) : 0;
}

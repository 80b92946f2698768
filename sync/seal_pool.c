/* The sealers: threads that capture inodes, and the packs that they fill (sealing.h). */
#include "sealing.h"

#include "clock.h"
#include "failpoint.h"
#include "log.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READER_NS NS_PER_S
#define EFFORT_PER_THREAD (UINT64_C(4) << 20) /* so much work makes another sealer worth it */
#define EFFORT_PER_INODE 8192
#define INLINE_BYTES (256u << 10)
#define NICE 10
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE (3 << 13)

/* ---------------------------------------------------------------- reading the catalogue */

struct db_conn *seal_reader_conn(struct seal_reader *reader, struct error *error)
{
	int64_t now = clock_mono_ns();

	if (reader->conn && now - reader->since_ns > READER_NS)
		seal_reader_end(reader);
	if (!reader->conn) {
		if (db_read_begin(reader->db, &reader->conn, error))
			return NULL;
		reader->since_ns = now;
	}
	return reader->conn;
}

void seal_reader_end(struct seal_reader *reader)
{
	db_read_end(reader->db, reader->conn);
	reader->conn = NULL;
}

static int add_worker(struct sealing *sealing);

/* ---------------------------------------------------------------- chunks of this version */

static struct seal_chunk *slot_of(const struct seal_chunks *chunks, const uint8_t id[CRYPT_ID_BYTES])
{
	size_t at;

	memcpy(&at, id, sizeof(at));
	while (chunks->slots[at &= chunks->capacity - 1].num && memcmp(chunks->slots[at].id, id, CRYPT_ID_BYTES) != 0)
		at++;
	return &chunks->slots[at];
}

static int chunks_grow(struct seal_chunks *chunks)
{
	struct seal_chunks grown = {.capacity = chunks->capacity ? 2 * chunks->capacity : 256, .count = chunks->count};

	grown.slots = calloc(grown.capacity, sizeof(*grown.slots));
	if (!grown.slots)
		return ERR_NOMEM;
	for (size_t i = 0; i < chunks->capacity; i++)
		if (chunks->slots[i].num)
			*slot_of(&grown, chunks->slots[i].id) = chunks->slots[i];
	free(chunks->slots);
	*chunks = grown;
	return 0;
}

/* Finds the chunk among those of this version, or gives it a number: then *fresh. */
static int chunk_number(struct sealing *sealing, const uint8_t id[CRYPT_ID_BYTES], uint32_t length, int64_t *num, bool *fresh)
{
	struct seal_chunks *chunks = &sealing->chunks;
	int rc = 0;

	pthread_mutex_lock(&sealing->lock);
	if (2 * chunks->count >= chunks->capacity)
		rc = chunks_grow(chunks);
	if (!rc) {
		struct seal_chunk *slot = slot_of(chunks, id);
		*fresh = slot->num == 0;
		if (*fresh) {
			memcpy(slot->id, id, CRYPT_ID_BYTES);
			slot->num = sealing->env->next_chunk++;
			slot->length = length;
			chunks->count++;
		}
		*num = slot->num;
	}
	pthread_mutex_unlock(&sealing->lock);
	return rc;
}

/* ---------------------------------------------------------------- packs */

bool seal_cancelled(const struct sealing *sealing)
{
	return atomic_load(&sealing->failed) || (!sealing->cut && atomic_load(sealing->env->stop)) ||
	       (sealing->cut && cut_is_abandoned(sealing->cut));
}

static int add_pack_row(struct sealing *sealing, struct pack_builder *builder, int64_t num, const uint8_t hash[SHA256_BYTES],
			uint64_t size, int64_t record, struct error *error)
{
	struct pack_row row = {.num = num, .size = (int64_t)size, .record = record};

	memcpy(row.id, pack_builder_id(builder), sizeof(row.id));
	memcpy(row.salt, pack_builder_salt(builder), sizeof(row.salt));
	memcpy(row.hash, hash, sizeof(row.hash));
	return delta_add_pack(sealing->delta, &row, error);
}

static int pack_to_spool(struct sealing *sealing, struct pack_builder *builder, int64_t num, struct error *error)
{
	uint8_t hash[SHA256_BYTES];
	char key[RECORD_KEY_BYTES];
	const struct buf *bytes;
	int rc = pack_builder_finish(builder, &bytes, hash);

	if (rc)
		return error_set(error, rc, 0, "sealing a pack: %s", error_word(rc));
	pack_key(key, pack_builder_id(builder));
	rc = seal_spool_pack(sealing, key, bytes, hash, error);
	return rc ? rc : add_pack_row(sealing, builder, num, hash, bytes->length, 0, error);
}

static int worker_flush(struct seal_worker *worker, struct error *error)
{
	int rc;

	seal_reader_end(&worker->reader); /* it may take as long as the network does */
	rc = pack_to_spool(worker->sealing, worker->builder, worker->pack, error);
	pack_builder_free(worker->builder);
	worker->builder = NULL;
	return rc;
}

static int worker_builder(struct seal_worker *worker, struct error *error)
{
	struct sealing *sealing = worker->sealing;

	if (worker->builder)
		return 0;
	worker->builder = pack_builder_new(sealing->env->master, volume_config(sealing->env->volume)->compression_level);
	if (!worker->builder)
		return error_errno(error, ENOMEM, "sealing a pack");
	pthread_mutex_lock(&sealing->lock);
	worker->pack = sealing->env->next_pack++;
	pthread_mutex_unlock(&sealing->lock);
	return 0;
}

static int add_to_pack(struct seal_worker *worker, const uint8_t id[CRYPT_ID_BYTES], const void *data, uint32_t length, int64_t num,
		       struct error *error)
{
	struct sealing *sealing = worker->sealing;
	struct chunk_place place;
	int rc = worker_builder(worker, error);

	if (rc)
		return rc;
	rc = pack_builder_add(worker->builder, id, data, length, &place);
	if (rc)
		return error_set(error, rc, 0, "sealing a chunk: %s", error_word(rc));
	struct chunk_row row = {.num = num, .pack = worker->pack, .idx = place.index, .offset = (int64_t)place.offset,
				.stored = place.stored_bytes, .length = place.length, .codec = place.codec,
				.dictionary = place.dictionary};
	memcpy(row.id, id, sizeof(row.id));
	rc = delta_add_chunk(sealing->delta, &row, error);
	if (!rc && pack_builder_size(worker->builder) >= sealing->pack_bytes)
		rc = worker_flush(worker, error);
	return rc;
}

int seal_chunk(struct seal_worker *worker, const void *data, uint32_t length, int64_t *num, struct error *error)
{
	struct sealing *sealing = worker->sealing;
	uint8_t id[CRYPT_ID_BYTES];
	struct chunk_row known;
	struct db_conn *conn;
	bool fresh = false;
	int rc;

	if (seal_cancelled(sealing))
		return error_set(error, ERR_ABANDONED, 0, "version %lld: abandoned", (long long)sealing->seq);
	atomic_fetch_add(&sealing->effort, length);
	if (add_worker(sealing) > 1)
		LATCH("seal/beside");
	master_chunk_id(sealing->env->master, data, length, id);
	conn = seal_reader_conn(&worker->reader, error);
	if (!conn)
		return ERR_FAILED;
	rc = catalogue_chunk_by_id(conn, id, &known); /* I21 */
	if (!rc && known.length == length) {
		*num = known.num;
		return 0;
	}
	if (rc && rc != ERR_ABSENT)
		return error_set(error, rc, 0, "catalogue: can't look for a chunk");
	rc = chunk_number(sealing, id, length, num, &fresh);
	if (rc)
		return error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
	return fresh ? add_to_pack(worker, id, data, length, *num, error) : 0;
}

/* ---------------------------------------------------------------- threads */

/* Other work on this machine comes first; what can't be had is no loss. */
static void lower_priority(void)
{
	struct sched_param param = {0};

	pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
}

static void *worker_run(void *context)
{
	struct seal_worker *worker = context;
	struct sealing *sealing = worker->sealing;

	lower_priority();
	while (!worker->rc && !seal_cancelled(sealing)) {
		size_t at = atomic_fetch_add(&sealing->next_work, 1);
		if (at >= sealing->work_count)
			break;
		atomic_fetch_add(&sealing->effort, EFFORT_PER_INODE);
		add_worker(sealing);
		if (!sealing->work[at]->gone && !sealing->work[at]->deferred)
			worker->rc = sealing->capture(worker, sealing->work[at], &worker->error);
	}
	if (worker->rc)
		atomic_store(&sealing->failed, true);
	seal_reader_end(&worker->reader);
	free(worker->window);
	worker->window = NULL;
	return NULL;
}

/* One more sealer when there has been enough to do for it and there is more; so small versions have one pack, which fits into the record. Sizes are not known beforehand. How many there have been by now. */
static int add_worker(struct sealing *sealing)
{
	pthread_mutex_lock(&sealing->lock);
	int count = sealing->worker_count;
	if (count < sealing->worker_room && atomic_load(&sealing->next_work) < sealing->work_count &&
	    atomic_load(&sealing->effort) >= (uint64_t)count * EFFORT_PER_THREAD) {
		struct seal_worker *worker = &sealing->workers[count];
		*worker = (struct seal_worker){.sealing = sealing, .reader = {.db = volume_db(sealing->env->volume)}};
		if (pthread_create(&worker->thread, NULL, worker_run, worker) == 0)
			sealing->worker_count++;
	}
	count = sealing->worker_count;
	pthread_mutex_unlock(&sealing->lock);
	return count;
}

static int workers_new(struct sealing *sealing)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	/* Two on one core as well: while the one reads, the other computes. */
	sealing->worker_room = cores < 2 ? 2 : cores > SEAL_THREADS_MAX ? SEAL_THREADS_MAX : (int)cores;
	sealing->workers = calloc((size_t)sealing->worker_room, sizeof(*sealing->workers));
	return sealing->workers ? 0 : ERR_NOMEM;
}

/* Joins all, those too that are added meanwhile: only a running sealer adds one. */
static int join_workers(struct sealing *sealing, struct error *error)
{
	int rc = 0;

	for (int i = 0;; i++) {
		pthread_mutex_lock(&sealing->lock);
		int count = sealing->worker_count;
		pthread_mutex_unlock(&sealing->lock);
		if (i >= count)
			return rc;
		struct seal_worker *worker = &sealing->workers[i];
		pthread_join(worker->thread, NULL);
		if (worker->rc && (!rc || rc == ERR_ABANDONED)) {
			rc = worker->rc;
			if (error)
				*error = worker->error;
		}
	}
}

int seal_run(struct sealing *sealing, struct error *error)
{
	int rc;

	if (!sealing->work_count)
		return 0;
	if (workers_new(sealing))
		return error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
	seal_reader_end(&sealing->reader); /* what is read from here on is the sealers' */
	seal_room_begin(sealing);
	add_worker(sealing);
	if (!sealing->worker_count)
		return error_set(error, ERR_NOMEM, EAGAIN, "starting a sealer: no thread for it");
	rc = join_workers(sealing, error);
	if (!rc && seal_cancelled(sealing))
		rc = error_set(error, ERR_ABANDONED, 0, "version %lld: abandoned", (long long)sealing->seq);
	FAILPOINT("seal/sealed");
	return rc;
}

/* ---------------------------------------------------------------- the end of the packs */

int seal_finish_packs(struct sealing *sealing, const struct buf **inline_pack, struct error *error)
{
	struct seal_worker *last = NULL;
	uint8_t hash[SHA256_BYTES];
	int left = 0, rc = 0;

	*inline_pack = NULL;
	seal_reader_end(&sealing->reader);
	for (int i = 0; i < sealing->worker_count; i++) {
		if (sealing->workers[i].builder) {
			last = &sealing->workers[i];
			left++;
		}
	}
	if (left == 1 && pack_builder_size(last->builder) <= INLINE_BYTES) {
		rc = pack_builder_finish(last->builder, inline_pack, hash);
		if (rc)
			return error_set(error, rc, 0, "sealing a pack: %s", error_word(rc));
		return add_pack_row(sealing, last->builder, last->pack, hash, (*inline_pack)->length, sealing->seq, error);
	}
	for (int i = 0; i < sealing->worker_count && !rc; i++)
		if (sealing->workers[i].builder)
			rc = worker_flush(&sealing->workers[i], error);
	return rc;
}

/* Where the packs of a version find room: in the spool, and, when the version is too large for it, in the place that its own packs leave on their way to the remote (sealing.h, spool.h). */
#include "sealing.h"

#include "clock.h"
#include "pack_format.h"

#define EARLY_BYTES (UINT64_C(64) << 20) /* a version with more sends its packs before it is complete */
#define PACK_LEAST_BYTES (UINT64_C(1) << 20)
#define LOOK_NS (NS_PER_S / 10) /* how often a wait looks whether anybody still wants the version */

void seal_room_begin(struct sealing *sealing)
{
	uint64_t capacity = spool_capacity(sealing->env->spool), share = capacity / 4;

	/* Several packs at a time have to fit: on their way, being written, and waiting. */
	sealing->pack_bytes = volume_config(sealing->env->volume)->pack_size_bytes;
	if (share < sealing->pack_bytes)
		sealing->pack_bytes = share > PACK_LEAST_BYTES ? share : PACK_LEAST_BYTES;
	sealing->early_bytes = capacity / 2 < EARLY_BYTES ? capacity / 2 : EARLY_BYTES;
}

/* Those that are there, and those that come. */
static void send_early(struct sealing *sealing)
{
	pthread_mutex_lock(&sealing->lock);
	sealing->early = true;
	struct spool_object *object = sealing->objects;
	pthread_mutex_unlock(&sealing->lock);
	/* A new one comes before the head of the list, and what follows an object never changes. */
	for (; object; object = object->next) {
		pthread_mutex_lock(&sealing->lock);
		bool offered = object->offered;
		object->offered = true;
		pthread_mutex_unlock(&sealing->lock);
		if (!offered)
			upload_offer(sealing->env->upload, object);
	}
}

/* Whether packs may leave before long: not if the spool or the log has to be looked at first, which only the caller's thread can do. */
static bool is_sending(struct sealing *sealing, const struct upload_status *upload)
{
	return !upload->fenced && !upload->lost && !upload->damaged && !atomic_load(sealing->env->stop);
}

struct attempt {
	struct upload_status upload;
	uint64_t pending;
};

/* After a pack that did not fit: waits for something to leave. Not 0: nothing will, or nobody wants the version any more; *error says why there is no room. */
static int wait_for_room(struct sealing *sealing, const struct attempt *before, struct error *error)
{
	struct upload *upload = sealing->env->upload;
	struct upload_status now;

	send_early(sealing);
	upload_get_status(upload, &now);
	if (seal_cancelled(sealing))
		return error_set(error, ERR_ABANDONED, 0, "version %lld: abandoned", (long long)sealing->seq);
	if (!is_sending(sealing, &now))
		return ERR_NOSPACE;
	/* Nothing is on its way, nor was: what takes the space is not ours. */
	if (!before->pending && !spool_pending_bytes(sealing->env->spool) && now.successes == before->upload.successes)
		return ERR_NOSPACE;
	upload_await(upload, before->upload.successes, LOOK_NS);
	return 0;
}

static int try_spool(struct sealing *sealing, const char *key, const struct buf *bytes, const uint8_t hash[SHA256_BYTES],
		     struct spool_object **out, struct error *error)
{
	struct spool *spool = sealing->env->spool;

	if (sealing->early && !spool_has_room(spool, error))
		return ERR_NOSPACE;
	return spool_write(spool, SPOOL_PACK, sealing->seq, key, bytes, hash, out, error);
}

int seal_spool_pack(struct sealing *sealing, const char *key, const struct buf *bytes, const uint8_t hash[SHA256_BYTES],
		    struct error *error)
{
	struct spool_object *object = NULL;
	int rc = 0;

	while (!rc && !object) {
		struct attempt attempt = {.pending = spool_pending_bytes(sealing->env->spool)};
		upload_get_status(sealing->env->upload, &attempt.upload);
		rc = try_spool(sealing, key, bytes, hash, &object, error);
		if (rc == ERR_NOSPACE)
			rc = wait_for_room(sealing, &attempt, error);
	}
	if (rc)
		return rc;
	pthread_mutex_lock(&sealing->lock);
	object->next = sealing->objects;
	sealing->objects = object;
	pthread_mutex_unlock(&sealing->lock);
	if (atomic_fetch_add(&sealing->sealed_bytes, bytes->length) + bytes->length > sealing->early_bytes || sealing->early)
		send_early(sealing);
	return 0;
}

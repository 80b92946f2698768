#include "sealing.h"

#include "clock.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (64u << 10)
#define LARGE_INODES 1000 /* of so many, what they took is given back to the system */

struct seal_block {
	struct seal_block *next;
	size_t used, size;
	_Alignas(max_align_t) uint8_t bytes[];
};

void *seal_alloc(struct sealing *sealing, size_t size)
{
	struct seal_block *block = sealing->blocks;

	size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	if (!block || block->size - block->used < size) {
		size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
		block = calloc(1, sizeof(*block) + room);
		if (!block)
			return NULL;
		block->size = room;
		block->next = sealing->blocks;
		sealing->blocks = block;
	}
	block->used += size;
	return block->bytes + block->used - size;
}

int sealing_new(struct seal_env *env, struct cut *cut, struct sealing **out, struct error *error)
{
	struct sealing *sealing = calloc(1, sizeof(*sealing));
	int rc;

	*out = NULL;
	if (!sealing)
		return error_errno(error, ENOMEM, "version %lld", (long long)env->head + 1);
	sealing->env = env;
	sealing->cut = cut;
	sealing->seq = env->head + 1;
	sealing->cut_ns = cut ? cut_time_ns(cut) : env->idle_ns ? env->idle_ns : clock_wall_ns();
	sealing->epoch = cut ? cut_epoch(cut) : 0;
	sealing->reader.db = volume_db(env->volume);
	pthread_mutex_init(&sealing->lock, NULL);
	rc = delta_new(volume_state_path(env->volume), sealing->seq, &sealing->delta, error);
	if (rc)
		sealing_free(sealing);
	else
		*out = sealing;
	return rc;
}

void sealing_free(struct sealing *sealing)
{
	if (!sealing)
		return;
	if (sealing->objects)
		upload_discard(sealing->env->upload, sealing->objects);
	for (int i = 0; i < sealing->worker_count; i++)
		pack_builder_free(sealing->workers[i].builder);
	free(sealing->workers);
	seal_reader_end(&sealing->reader);
	delta_free(sealing->delta);
	for (struct seal_block *block = sealing->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	free(sealing->by_key);
	free(sealing->by_ino);
	free(sealing->names);
	free(sealing->work);
	free(sealing->chunks.slots);
	pthread_mutex_destroy(&sealing->lock);
	bool large = sealing->ino_count > LARGE_INODES;
	free(sealing);
	if (large)
		memory_give_back();
}

static int load(struct seal_env *env, struct db_conn *conn)
{
	struct version_row newest = {0};
	int64_t ino = 0, chunk = 0, pack = 0, seq = 0, time_s = 0;
	int rc = catalogue_maxima(conn, &ino, &chunk, &pack, &seq, &time_s);

	if (!rc)
		rc = catalogue_version_newest(conn, true, &newest);
	if (rc && rc != ERR_ABSENT)
		return rc;
	env->head = db_meta_int(conn, "head", 0);
	if (env->head != newest.seq)
		return ERR_CORRUPT;
	env->head_time_s = newest.time_s;
	env->head_cut_ns = newest.cut_ns;
	env->head_partial = newest.flags & VERSION_PARTIAL;
	env->head_lacking = newest.flags & VERSION_LACKING;
	memset(env->head_hash, 0, sizeof(env->head_hash));
	if (env->head > 0 && db_meta_blob(conn, "head_hash", env->head_hash, sizeof(env->head_hash)))
		return ERR_CORRUPT;
	env->next_ino = ino > CATALOGUE_ROOT_INO ? ino + 1 : CATALOGUE_ROOT_INO + 1;
	env->next_chunk = chunk + 1;
	env->next_pack = pack + 1;
	if (env->first_seq > env->head)
		env->first_seq = 0;
	return 0;
}

int seal_env_load(struct seal_env *env, struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(env->volume), &conn, error);

	if (rc)
		return rc;
	rc = load(env, conn);
	db_read_end(volume_db(env->volume), conn);
	return rc ? error_set(error, rc, 0, "catalogue: head and versions don't fit together") : 0;
}

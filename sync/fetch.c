#include "fetch.h"

#include "io.h"
#include "pack_format.h"
#include "record.h"
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A fetch in progress or just done; freed by the last who holds it. */
struct flight {
	struct flight *next;  /* lock */
	unsigned holders;     /* lock */
	bool done;            /* lock; from then on the rest is constant */
	uint8_t pack_id[CRYPT_ID_BYTES];
	int64_t index;
	int rc;
	struct buf bytes;
	struct error error;
};

struct fetch {
	struct remote remote; /* first */
	const struct master *master;
	struct store *store;
	int spool_fd;
	pthread_mutex_t lock;
	pthread_cond_t landed; /* lock: some flight is done */
	struct flight *flights; /* lock: those in progress */
};

/* Where a chunk lies among the objects. */
struct location {
	char key[RECORD_KEY_BYTES];
	uint64_t offset;
};

void spool_file_name(char out[SPOOL_NAME_BYTES], const char *key)
{
	snprintf(out, SPOOL_NAME_BYTES, "%s", key);
	for (char *c = out; *c; c++)
		if (*c == '/')
			*c = '.';
}

/* ---------------------------------------------------------------- one chunk */

/* The catalogue comes from elsewhere: nothing is allocated or asked for by numbers that can't be right (fault 43). */
static bool row_plausible(const struct chunk_row *chunk, const struct pack_row *pack)
{
	return chunk->length > 0 && chunk->length <= PACK_MAX_CHUNK_BYTES && chunk->stored > CRYPT_TAG_BYTES &&
	       chunk->stored <= PACK_MAX_CHUNK_BYTES + CRYPT_TAG_BYTES && chunk->offset >= PACK_HEADER_BYTES &&
	       chunk->offset <= pack->size && chunk->stored <= pack->size - chunk->offset && chunk->idx >= 0 &&
	       chunk->idx < PACK_MAX_CHUNKS && chunk->codec >= 0 && chunk->codec <= UINT8_MAX &&
	       chunk->dictionary >= 0 && chunk->dictionary <= UINT32_MAX && pack->record >= 0;
}

static void locate(struct location *out, const struct chunk_row *chunk, const struct pack_row *pack)
{
	out->offset = (uint64_t)chunk->offset;
	if (pack->record) {
		record_key(out->key, pack->record);
		out->offset += RECORD_HEADER_BYTES;
	} else {
		pack_key(out->key, pack->id);
	}
}

static int open_chunk(const struct fetch *fetch, const struct chunk_row *chunk, const struct pack_row *pack,
		      const struct buf *sealed, struct buf *out)
{
	struct chunk_place place = {.index = (uint32_t)chunk->idx, .offset = (uint64_t)chunk->offset,
				    .stored_bytes = (uint32_t)chunk->stored, .length = (uint32_t)chunk->length,
				    .codec = (uint8_t)chunk->codec, .dictionary = (uint32_t)chunk->dictionary};

	memcpy(place.id, chunk->id, CRYPT_ID_BYTES);
	return chunk_open(fetch->master, pack->id, pack->salt, &place, sealed->data, out);
}

/* ERR_ABSENT: not in the spool, or not readable there. */
static int read_spool(const struct fetch *fetch, const struct location *where, size_t length, struct buf *sealed)
{
	char name[SPOOL_NAME_BYTES];
	int fd, rc;

	if (fetch->spool_fd < 0)
		return ERR_ABSENT;
	spool_file_name(name, where->key);
	fd = openat(fetch->spool_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return ERR_ABSENT;
	rc = buf_reserve(sealed, length);
	if (!rc) {
		ssize_t got = io_pread(fd, sealed->data, length, (int64_t)where->offset);
		if (got == (ssize_t)length)
			sealed->length = length;
		else
			rc = ERR_ABSENT;
	}
	close(fd);
	return rc;
}

/* Once more after damage or absence: an answer may have been hurt on its way, and an object may just have been repaired. */
static int read_store(const struct fetch *fetch, const struct location *where, const struct chunk_row *chunk,
		      const struct pack_row *pack, struct buf *sealed, struct buf *out, struct error *error)
{
	bool authentic = true;
	int rc = ERR_CORRUPT;

	for (int attempt = 0; attempt < 2; attempt++) {
		buf_clear(sealed);
		rc = store_get(fetch->store, where->key, where->offset, (uint64_t)chunk->stored, sealed, error);
		if (!rc) {
			rc = open_chunk(fetch, chunk, pack, sealed, out);
			authentic = rc != ERR_CORRUPT;
		}
		if (rc != ERR_ABSENT && rc != ERR_CORRUPT)
			break;
	}
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: it is not in %s", where->key, fetch->store->url);
	if (rc == ERR_CORRUPT)
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: %s", where->key,
				 authentic ? "it is too short" : "a chunk in it is not authentic");
	if (rc == ERR_NOMEM)
		return error_errno(error, ENOMEM, "%s", where->key);
	return rc;
}

static int fetch_now(const struct fetch *fetch, const struct chunk_row *chunk, const struct pack_row *pack,
		     struct buf *out, struct error *error)
{
	struct location where;
	struct buf sealed = {0};
	int rc;

	locate(&where, chunk, pack);
	if (!row_plausible(chunk, pack))
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: the catalogue has an impossible place in it", where.key);
	rc = read_spool(fetch, &where, (size_t)chunk->stored, &sealed);
	if (!rc)
		rc = open_chunk(fetch, chunk, pack, &sealed, out);
	if (rc == ERR_ABSENT || rc == ERR_CORRUPT) /* a damaged spool file may be sound in the store */
		rc = read_store(fetch, &where, chunk, pack, &sealed, out, error);
	else if (rc)
		error_set(error, rc, 0, "%s: %s", where.key, error_word(rc));
	buf_free(&sealed);
	return rc;
}

/* ---------------------------------------------------------------- single flight */

static bool flight_is(const struct flight *flight, const struct chunk_row *chunk, const struct pack_row *pack)
{
	return flight->index == chunk->idx && memcmp(flight->pack_id, pack->id, CRYPT_ID_BYTES) == 0;
}

static void flight_put_locked(struct flight *flight)
{
	if (--flight->holders)
		return;
	buf_free(&flight->bytes);
	free(flight);
}

/* The flight of that chunk; *mine: nobody else's, the caller has to fly it. NULL: out of memory. */
static struct flight *flight_get_locked(struct fetch *fetch, const struct chunk_row *chunk, const struct pack_row *pack,
					bool *mine)
{
	struct flight *flight = fetch->flights;

	while (flight && !flight_is(flight, chunk, pack))
		flight = flight->next;
	*mine = !flight;
	if (!flight) {
		flight = calloc(1, sizeof(*flight));
		if (!flight)
			return NULL;
		memcpy(flight->pack_id, pack->id, CRYPT_ID_BYTES);
		flight->index = chunk->idx;
		flight->next = fetch->flights;
		fetch->flights = flight;
	}
	flight->holders++;
	return flight;
}

static void land_locked(struct fetch *fetch, struct flight *flight)
{
	struct flight **at = &fetch->flights;

	while (*at != flight)
		at = &(*at)->next;
	*at = flight->next;
	flight->done = true;
	pthread_cond_broadcast(&fetch->landed);
}

/* The bytes are constant once landed: copied without the lock. */
static int take(const struct flight *flight, const struct chunk_row *chunk, struct buf *out, struct error *error)
{
	if (flight->rc)
		return error_set(error, flight->rc, flight->error.sys_errno, "%s", flight->error.message);
	if ((int64_t)flight->bytes.length != chunk->length) /* two rows that differ say the same place */
		return error_set(error, ERR_CORRUPT, 0, "the catalogue has two lengths for one chunk");
	if (buf_append(out, flight->bytes.data, flight->bytes.length))
		return error_errno(error, ENOMEM, "a chunk");
	return 0;
}

static int fetch_chunk(struct remote *remote, const struct chunk_row *chunk, const struct pack_row *pack,
		       struct buf *out, struct error *error)
{
	struct fetch *fetch = (struct fetch *)remote;
	struct flight *flight;
	bool mine;

	pthread_mutex_lock(&fetch->lock);
	flight = flight_get_locked(fetch, chunk, pack, &mine);
	if (flight && !mine)
		while (!flight->done)
			pthread_cond_wait(&fetch->landed, &fetch->lock);
	pthread_mutex_unlock(&fetch->lock);
	if (!flight)
		return error_errno(error, ENOMEM, "a chunk");
	if (mine) {
		flight->rc = fetch_now(fetch, chunk, pack, &flight->bytes, &flight->error);
		pthread_mutex_lock(&fetch->lock);
		land_locked(fetch, flight);
		pthread_mutex_unlock(&fetch->lock);
	}
	int rc = take(flight, chunk, out, error);
	pthread_mutex_lock(&fetch->lock);
	flight_put_locked(flight);
	pthread_mutex_unlock(&fetch->lock);
	return rc;
}

static int verify_chunk(struct remote *remote, const uint8_t id[CRYPT_ID_BYTES], const void *data, size_t length)
{
	uint8_t real[CRYPT_ID_BYTES];

	master_chunk_id(((struct fetch *)remote)->master, data, length, real);
	return crypt_equal(real, id, sizeof(real)) ? 0 : ERR_CORRUPT;
}

/* ---------------------------------------------------------------- life */

static const struct remote_ops ops = {.fetch_chunk = fetch_chunk, .verify_chunk = verify_chunk};

int fetch_new(const struct master *master, struct store *store, int spool_fd, struct remote **out)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));

	*out = NULL;
	if (!fetch)
		return ERR_NOMEM;
	fetch->remote.ops = &ops;
	fetch->master = master;
	fetch->store = store;
	fetch->spool_fd = spool_fd;
	pthread_mutex_init(&fetch->lock, NULL);
	pthread_cond_init(&fetch->landed, NULL);
	*out = &fetch->remote;
	return 0;
}

void fetch_free(struct remote *remote)
{
	struct fetch *fetch = (struct fetch *)remote;

	if (!fetch)
		return;
	pthread_cond_destroy(&fetch->landed);
	pthread_mutex_destroy(&fetch->lock);
	free(fetch);
}

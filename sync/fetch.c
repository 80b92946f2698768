#include "fetch.h"

#include "fetch_window.h"
#include "io.h"
#include "pack_format.h"
#include "record.h"
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fetch {
	struct remote remote; /* first */
	const struct master *master;
	struct store *store;
	struct windows *windows;
	int spool_fd;
};

/* Where a chunk lies among the objects. */
struct location {
	char key[RECORD_KEY_BYTES];
	uint64_t from, to; /* the pack */
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
	if (pack->record)
		record_key(out->key, pack->record);
	else
		pack_key(out->key, pack->id);
	out->from = pack->record ? RECORD_HEADER_BYTES : 0;
	out->to = out->from + (uint64_t)pack->size;
	out->offset = out->from + (uint64_t)chunk->offset;
}

static int open_chunk(const struct fetch *fetch, const struct chunk_row *chunk, const struct pack_row *pack,
		      const uint8_t *sealed, struct buf *out)
{
	struct chunk_place place = {.index = (uint32_t)chunk->idx, .offset = (uint64_t)chunk->offset,
				    .stored_bytes = (uint32_t)chunk->stored, .length = (uint32_t)chunk->length,
				    .codec = (uint8_t)chunk->codec, .dictionary = (uint32_t)chunk->dictionary};

	memcpy(place.id, chunk->id, CRYPT_ID_BYTES);
	return chunk_open(fetch->master, pack->id, pack->salt, &place, sealed, out);
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

/* With its neighbours, or from what was asked for with an earlier one. */
static int read_window(const struct fetch *fetch, const struct location *where, const struct chunk_row *chunk, const struct pack_row *pack,
		       struct buf *out, bool *authentic, struct error *error)
{
	struct window_place place = {.pack_id = pack->id, .key = where->key, .from = where->from, .to = where->to};
	struct window_bytes sealed = {0};
	int rc = windows_read(fetch->windows, &place, where->offset, (size_t)chunk->stored, &sealed, error);

	if (!rc) {
		rc = open_chunk(fetch, chunk, pack, sealed.data, out);
		*authentic = rc != ERR_CORRUPT;
	}
	windows_release(fetch->windows, &sealed);
	return rc;
}

/* That chunk, and nothing else. */
static int read_alone(const struct fetch *fetch, const struct location *where, const struct chunk_row *chunk, const struct pack_row *pack,
		      struct buf *out, bool *authentic, struct error *error)
{
	struct buf sealed = {0};
	int rc = store_get(fetch->store, where->key, where->offset, (uint64_t)chunk->stored, &sealed, error);

	if (!rc) {
		rc = open_chunk(fetch, chunk, pack, sealed.data, out);
		*authentic = rc != ERR_CORRUPT;
	}
	buf_free(&sealed);
	return rc;
}

static int read_store(const struct fetch *fetch, const struct location *where, const struct chunk_row *chunk,
		      const struct pack_row *pack, struct buf *out, struct error *error)
{
	bool authentic = true;
	int rc = read_window(fetch, where, chunk, pack, out, &authentic, error);

	/* Once more after damage or absence: an answer may have been hurt on its way, an object may just have been repaired, and what is wrong may be a neighbour's. */
	if (rc == ERR_ABSENT || rc == ERR_CORRUPT)
		rc = read_alone(fetch, where, chunk, pack, out, &authentic, error);
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: it is not in %s", where->key, fetch->store->url);
	if (rc == ERR_CORRUPT)
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: %s", where->key,
				 authentic ? "it is too short" : "a chunk in it is not authentic");
	if (rc == ERR_NOMEM)
		return error_errno(error, ENOMEM, "%s", where->key);
	return rc;
}

static int fetch_chunk(struct remote *remote, const struct chunk_row *chunk, const struct pack_row *pack,
		       struct buf *out, struct error *error)
{
	const struct fetch *fetch = (const struct fetch *)remote;
	struct location where;
	struct buf sealed = {0};
	int rc;

	locate(&where, chunk, pack);
	if (!row_plausible(chunk, pack))
		return error_set(error, ERR_CORRUPT, 0, "%s: damaged: the catalogue has an impossible place in it", where.key);
	rc = read_spool(fetch, &where, (size_t)chunk->stored, &sealed);
	if (!rc)
		rc = open_chunk(fetch, chunk, pack, sealed.data, out);
	if (rc == ERR_ABSENT || rc == ERR_CORRUPT) /* a damaged spool file may be sound in the store */
		rc = read_store(fetch, &where, chunk, pack, out, error);
	else if (rc)
		error_set(error, rc, 0, "%s: %s", where.key, error_word(rc));
	buf_free(&sealed);
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
	fetch->windows = windows_new(store);
	if (!fetch->windows) {
		free(fetch);
		return ERR_NOMEM;
	}
	*out = &fetch->remote;
	return 0;
}

void fetch_free(struct remote *remote)
{
	struct fetch *fetch = (struct fetch *)remote;

	if (!fetch)
		return;
	windows_free(fetch->windows);
	free(fetch);
}

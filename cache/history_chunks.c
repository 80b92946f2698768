#include "chunk_cache.h"
#include "history_internal.h"
#include "io.h"
#include "pool.h"
#include "volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECES_BYTES (8 << 20) /* decoded bytes kept for one open file */
#define PIECES_MAX 256
#define AHEAD_PIECES 16
#define AHEAD_THREADS 8
#define KEPT_BYTES (64 << 10) /* chunks from there on are kept even of what is copied once: the same may be in another file */
#define LIVE_MISMATCHES 8 /* then the live file is taken for another one */

/* --- Where the bytes come from. No lock is held. --- */

static bool verified(struct history_file *file, const struct chunk_row *chunk, const void *data)
{
	struct remote *remote = volume_remote(file->volume);

	return remote->ops->verify_chunk(remote, chunk->id, data, (size_t)chunk->length) == 0;
}

static int from_cache(struct history_file *file, const struct chunk_row *chunk, struct buf *out)
{
	struct chunk_cache *cache = volume_chunk_cache(file->volume);
	int rc = cache ? chunk_cache_get(cache, chunk->id, (size_t)chunk->length, out) : ERR_ABSENT;

	if (rc == 0 && verified(file, chunk, out->data))
		return 0;
	buf_clear(out);
	if (rc == 0 || rc == ERR_FAILED)
		chunk_cache_drop(cache, chunk->id);
	return rc == ERR_NOMEM ? rc : ERR_ABSENT;
}

static int live_fd(struct history_file *file)
{
	pthread_mutex_lock(&file->lock);
	bool first = !file->live_tried;
	file->live_tried = true;
	int fd = file->live_mismatches < LIVE_MISMATCHES ? file->live_fd : -1;
	pthread_mutex_unlock(&file->lock);
	if (!first)
		return fd;
	fd = volume_open_live(file->volume, file->ino);
	pthread_mutex_lock(&file->lock);
	file->live_fd = fd;
	pthread_mutex_unlock(&file->lock);
	return fd;
}

/* I25: a whole chunk, read into a private buffer, and only if it is that chunk. */
static int from_live(struct history_file *file, const struct extent_place *place, struct buf *out)
{
	size_t length = (size_t)place->chunk.length;
	int fd = place->skip == 0 && place->length == place->chunk.length ? live_fd(file) : -1;

	if (fd < 0)
		return ERR_ABSENT;
	if (buf_reserve(out, length))
		return ERR_NOMEM;
	bool same = io_pread(fd, out->data, length, place->start) == (ssize_t)length && verified(file, &place->chunk, out->data);
	pthread_mutex_lock(&file->lock);
	file->live_mismatches = same ? 0 : file->live_mismatches + 1;
	pthread_mutex_unlock(&file->lock);
	if (!same)
		return ERR_ABSENT;
	out->length = length;
	return 0;
}

/* Where the chunk is now: it may have been relocated since the file was opened. */
static int locate(struct history_file *file, const struct chunk_row *was, struct chunk_row *chunk, struct pack_row *pack,
		  struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(file->volume), &conn, error);

	if (rc)
		return rc;
	rc = catalogue_chunk(conn, was->num, chunk);
	if (!rc)
		rc = catalogue_pack(conn, chunk->pack, pack);
	db_read_end(volume_db(file->volume), conn);
	if (!rc && (memcmp(chunk->id, was->id, sizeof(was->id)) != 0 || chunk->length != was->length))
		rc = ERR_CORRUPT;
	if (rc == ERR_ABSENT)
		rc = ERR_CORRUPT;
	return rc ? error_set(error, rc, 0, "catalogue: chunk %lld: %s", (long long)was->num, error_word(rc)) : 0;
}

static int from_remote(struct history_file *file, const struct chunk_row *was, struct buf *out, struct error *error)
{
	struct remote *remote = volume_remote(file->volume);
	struct chunk_cache *cache = volume_chunk_cache(file->volume);
	struct chunk_row chunk;
	struct pack_row pack;
	int rc = locate(file, was, &chunk, &pack, error);

	if (!rc)
		rc = remote->ops->fetch_chunk(remote, &chunk, &pack, out, error);
	if (!rc && (int64_t)out->length != chunk.length)
		rc = error_set(error, ERR_CORRUPT, 0, "chunk %lld: %zu bytes instead of %lld", (long long)chunk.num, out->length,
			       (long long)chunk.length);
	if (!rc && cache && !(file->copy_once && out->length < KEPT_BYTES))
		chunk_cache_put(cache, chunk.id, out->data, out->length);
	return rc;
}

static int load(struct history_file *file, const struct extent_place *place, struct buf *out, struct error *error)
{
	if (!volume_remote(file->volume))
		return error_set(error, ERR_FAILED, 0, "history: the volume's keys are not open");
	int rc = from_cache(file, &place->chunk, out);
	if (rc == ERR_ABSENT)
		rc = from_live(file, place, out);
	if (rc == ERR_NOMEM)
		return error_errno(error, ENOMEM, "a chunk of %lld bytes", (long long)place->chunk.length);
	return rc == ERR_ABSENT ? from_remote(file, &place->chunk, out, error) : rc;
}

/* --- Pieces. Names ending in _locked: the file's lock must be held. --- */

static struct piece *find_locked(struct history_file *file, int64_t num)
{
	struct piece *piece = file->pieces;

	while (piece && piece->place.chunk.num != num)
		piece = piece->next;
	return piece;
}

static void remove_locked(struct piece *piece)
{
	struct history_file *file = piece->file;
	struct piece **at = &file->pieces;

	while (*at != piece)
		at = &(*at)->next;
	*at = piece->next;
	file->piece_count--;
	file->piece_bytes -= (size_t)piece->place.chunk.length;
	buf_free(&piece->bytes);
	free(piece);
}

static void make_room_locked(struct history_file *file, size_t bytes)
{
	while (file->piece_bytes + bytes > PIECES_BYTES || file->piece_count >= PIECES_MAX) {
		struct piece *oldest = NULL;
		for (struct piece *piece = file->pieces; piece; piece = piece->next)
			if (piece->state == PIECE_READY && !piece->holders && (!oldest || piece->used < oldest->used))
				oldest = piece;
		if (!oldest)
			return; /* all are in use: readers may exceed the bound, by what they hold */
		remove_locked(oldest);
	}
}

/* With one holder. NULL: out of memory. */
static struct piece *add_locked(struct history_file *file, const struct extent_place *place, enum piece_state state)
{
	struct piece *piece = calloc(1, sizeof(*piece));

	if (!piece)
		return NULL;
	make_room_locked(file, (size_t)place->chunk.length);
	piece->file = file;
	piece->place = *place;
	piece->state = state;
	piece->holders = 1;
	piece->used = ++file->tick;
	piece->next = file->pieces;
	file->pieces = piece;
	file->piece_count++;
	file->piece_bytes += (size_t)place->chunk.length;
	return piece;
}

static void release_locked(struct piece *piece)
{
	if (--piece->holders == 0 && piece->state == PIECE_FAILED)
		remove_locked(piece);
}

/* QUEUED or new -> LOADING -> READY or FAILED. The lock is given back while it loads. */
static void load_piece_locked(struct piece *piece)
{
	struct history_file *file = piece->file;
	struct buf bytes = {0};
	struct error error = {0};

	piece->state = PIECE_LOADING;
	pthread_mutex_unlock(&file->lock);
	int rc = load(file, &piece->place, &bytes, &error);
	pthread_mutex_lock(&file->lock);
	if (rc) {
		buf_free(&bytes);
		piece->error = error;
		piece->error.code = rc;
	} else {
		piece->bytes = bytes;
	}
	piece->state = rc ? PIECE_FAILED : PIECE_READY;
	pthread_cond_broadcast(&file->loaded);
}

int piece_hold(struct history_file *file, const struct extent_place *place, struct piece **out, struct error *error)
{
	int rc = 0;

	*out = NULL;
	pthread_mutex_lock(&file->lock);
	struct piece *piece = find_locked(file, place->chunk.num);
	if (piece) {
		piece->holders++;
	} else {
		piece = add_locked(file, place, PIECE_QUEUED);
		if (!piece) {
			pthread_mutex_unlock(&file->lock);
			return error_errno(error, ENOMEM, "history");
		}
	}
	if (piece->state == PIECE_QUEUED) /* new, or its job has not begun: no reason to wait for that */
		load_piece_locked(piece);
	while (piece->state == PIECE_LOADING)
		pthread_cond_wait(&file->loaded, &file->lock);
	if (piece->state == PIECE_FAILED) {
		rc = piece->error.code;
		error_set(error, rc, piece->error.sys_errno, "%s", piece->error.message);
		release_locked(piece);
	} else {
		piece->used = ++file->tick;
		*out = piece;
	}
	pthread_mutex_unlock(&file->lock);
	return rc;
}

void piece_release(struct piece *piece)
{
	struct history_file *file = piece->file;

	pthread_mutex_lock(&file->lock);
	release_locked(piece);
	pthread_mutex_unlock(&file->lock);
}

void history_unref_unlock(struct history_file *file)
{
	bool last = --file->references == 0;

	pthread_mutex_unlock(&file->lock);
	if (!last)
		return;
	while (file->pieces)
		remove_locked(file->pieces);
	window_put_locked(file->window);
	if (file->live_fd >= 0)
		close(file->live_fd);
	pthread_cond_destroy(&file->loaded);
	pthread_mutex_destroy(&file->lock);
	free(file);
}

/* --- Reading ahead: one pool for all files, made by the first that wants it. Lock order: a file's lock, then this. --- */

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pool *ahead_pool; /* pool_lock */

static void ahead_run(void *arg)
{
	struct piece *piece = arg;
	struct history_file *file = piece->file;

	pthread_mutex_lock(&file->lock);
	if (piece->state == PIECE_QUEUED && file->closed)
		piece->state = PIECE_FAILED; /* nobody waits any more */
	else if (piece->state == PIECE_QUEUED)
		load_piece_locked(piece);
	release_locked(piece);
	history_unref_unlock(file);
}

static int ahead_submit(struct piece *piece)
{
	pthread_mutex_lock(&pool_lock);
	if (!ahead_pool)
		ahead_pool = pool_new(AHEAD_THREADS, "yester-ahead", 4 * AHEAD_PIECES);
	int rc = ahead_pool ? pool_submit(ahead_pool, ahead_run, piece) : ERR_BUSY;
	pthread_mutex_unlock(&pool_lock);
	return rc;
}

void piece_read_ahead(struct history_file *file, const struct extent_window *window, size_t at, int64_t to)
{
	int64_t bytes = 0;

	pthread_mutex_lock(&file->lock);
	for (size_t i = at; i < window->count && i < at + AHEAD_PIECES && window->places[i].start < to; i++) {
		const struct extent_place *place = &window->places[i];
		bytes += place->chunk.length;
		if (bytes > AHEAD_BYTES)
			break;
		if (find_locked(file, place->chunk.num))
			continue;
		struct piece *piece = add_locked(file, place, PIECE_QUEUED);
		if (!piece)
			break;
		file->references++;
		if (ahead_submit(piece) != 0) {
			file->references--;
			remove_locked(piece);
			break;
		}
	}
	pthread_mutex_unlock(&file->lock);
}

void history_stop(void)
{
	pthread_mutex_lock(&pool_lock);
	struct pool *pool = ahead_pool;
	ahead_pool = NULL;
	pthread_mutex_unlock(&pool_lock);
	pool_free(pool);
}

#include "history.h"
#include "history_internal.h"
#include "volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW_BYTES (INT64_C(4) << 30) /* of a file, whose extents are in memory at once */
#define SEQUENTIAL_SLACK (1 << 20)      /* the kernel's own read-ahead arrives out of order */

static int fail(const struct history_file *file, struct error *error, int code)
{
	return error_set(error, code, 0, "catalogue: file %lld of version %lld: %s", (long long)file->ino, (long long)file->seq,
			 error_word(code));
}

/* --- Extents --- */

void window_put_locked(struct extent_window *window)
{
	if (!window || --window->references)
		return;
	free(window->places);
	free(window);
}

static int window_load(struct history_file *file, struct db_conn *conn, int64_t offset, struct extent_window **out)
{
	struct extent_window *window = calloc(1, sizeof(*window));

	*out = NULL;
	if (!window)
		return ERR_NOMEM;
	window->references = 1;
	window->from = offset / WINDOW_BYTES * WINDOW_BYTES;
	window->to = window->from + (INT64_MAX - window->from < WINDOW_BYTES ? INT64_MAX - window->from : WINDOW_BYTES);
	int rc = catalogue_extents(conn, file->seq, file->ino, window->from, window->to, &window->places, &window->count);
	if (rc) {
		free(window);
		return rc;
	}
	*out = window;
	return 0;
}

/* The window that holds offset, with a reference for the caller. */
static int window_get(struct history_file *file, int64_t offset, struct extent_window **out, struct error *error)
{
	struct db_conn *conn;

	pthread_mutex_lock(&file->lock);
	struct extent_window *window = file->window;
	if (window && window->from <= offset && offset < window->to) {
		window->references++;
		pthread_mutex_unlock(&file->lock);
		*out = window;
		return 0;
	}
	pthread_mutex_unlock(&file->lock);
	int rc = db_read_begin(volume_db(file->volume), &conn, error);
	if (rc)
		return rc;
	rc = window_load(file, conn, offset, &window);
	db_read_end(volume_db(file->volume), conn);
	if (rc)
		return fail(file, error, rc);
	pthread_mutex_lock(&file->lock);
	window_put_locked(file->window);
	file->window = window;
	window->references++;
	pthread_mutex_unlock(&file->lock);
	*out = window;
	return 0;
}

static void window_release(struct history_file *file, struct extent_window *window)
{
	pthread_mutex_lock(&file->lock);
	window_put_locked(window);
	pthread_mutex_unlock(&file->lock);
}

/* The first place that ends after offset. */
static size_t window_find(const struct extent_window *window, int64_t offset)
{
	size_t low = 0, high = window->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (window->places[middle].start + window->places[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* --- Open and close --- */

static int load_file(struct history_file *file, struct error *error)
{
	struct inode_hold hold;
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(file->volume), &conn, error);

	if (rc)
		return rc;
	rc = catalogue_inode(conn, file->seq, file->ino, &hold);
	bool regular = !rc && S_ISREG(hold.row.mode);
	file->size = rc ? 0 : hold.row.size;
	inode_hold_free(&hold);
	if (!rc && regular)
		rc = window_load(file, conn, 0, &file->window);
	db_read_end(volume_db(file->volume), conn);
	if (rc)
		return fail(file, error, rc);
	return regular ? 0 : error_set(error, ERR_FAILED, EINVAL, "history: not a regular file");
}

int history_open(struct volume *volume, int64_t seq, int64_t ino, struct history_file **out, struct error *error)
{
	struct history_file *file = calloc(1, sizeof(*file));

	*out = NULL;
	if (!file)
		return error_errno(error, ENOMEM, "history");
	pthread_mutex_init(&file->lock, NULL);
	pthread_cond_init(&file->loaded, NULL);
	file->volume = volume;
	file->seq = seq;
	file->ino = ino;
	file->references = 1;
	file->live_fd = -1;
	int rc = load_file(file, error);
	if (rc) {
		history_close(file);
		return rc;
	}
	*out = file;
	return 0;
}

void history_copy_once(struct history_file *file) { file->copy_once = true; }

void history_close(struct history_file *file)
{
	if (!file)
		return;
	pthread_mutex_lock(&file->lock);
	file->closed = true;
	history_unref_unlock(file);
}

int64_t history_size(const struct history_file *file) { return file->size; }

/* --- Reading --- */

/* How far to read ahead of a request that ends at `end`. */
static int64_t note_request(struct history_file *file, int64_t offset, int64_t end)
{
	pthread_mutex_lock(&file->lock);
	int64_t distance = offset - file->expected;
	bool follows = offset > 0 && -SEQUENTIAL_SLACK <= distance && distance <= SEQUENTIAL_SLACK;
	file->run = follows ? file->run + 1 : 0;
	file->expected = follows && end < file->expected ? file->expected : end;
	bool sequential = file->run > 0;
	pthread_mutex_unlock(&file->lock);
	return sequential && file->size - end > AHEAD_BYTES ? end + AHEAD_BYTES : sequential ? file->size : end;
}

/* Bytes [offset, end) of places in the window; all of it. */
static int read_window(struct history_file *file, const struct extent_window *window, uint8_t *data, int64_t offset,
		       int64_t end, int64_t ahead_to, struct error *error)
{
	for (size_t at = window_find(window, offset); offset < end;) {
		const struct extent_place *place = at < window->count ? &window->places[at] : NULL;
		if (!place || place->start > offset) {
			int64_t to = place && place->start < end ? place->start : end;
			memset(data, 0, (size_t)(to - offset));
			data += to - offset;
			offset = to;
			continue;
		}
		struct piece *piece;
		int64_t to = place->start + place->length < end ? place->start + place->length : end;
		piece_read_ahead(file, window, at + 1, ahead_to);
		int rc = piece_hold(file, place, &piece, error);
		if (rc)
			return rc;
		memcpy(data, piece->bytes.data + place->skip + (offset - place->start), (size_t)(to - offset));
		piece_release(piece);
		data += to - offset;
		offset = to;
		at++;
	}
	return 0;
}

int64_t history_read(struct history_file *file, void *data, size_t length, int64_t offset, struct error *error)
{
	if (offset < 0)
		return error_set(error, ERR_FAILED, EINVAL, "history: negative offset");
	if (offset >= file->size || !length)
		return 0;
	int64_t end = length > (uint64_t)(file->size - offset) ? file->size : offset + (int64_t)length;
	int64_t ahead_to = note_request(file, offset, end);
	for (int64_t at = offset; at < end;) {
		struct extent_window *window;
		int rc = window_get(file, at, &window, error);
		if (rc)
			return rc;
		int64_t to = window->to < end ? window->to : end;
		rc = read_window(file, window, (uint8_t *)data + (at - offset), at, to, ahead_to, error);
		window_release(file, window);
		if (rc)
			return rc;
		at = to;
	}
	return end - offset;
}

/* The first byte at or after *offset in this window that is data (or not); false when there is none. */
static bool seek_window(const struct extent_window *window, int64_t *offset, bool data)
{
	size_t at = window_find(window, *offset);

	if (data) {
		if (at == window->count)
			return false;
		if (window->places[at].start > *offset)
			*offset = window->places[at].start;
		return *offset < window->to;
	}
	while (at < window->count && window->places[at].start <= *offset) {
		*offset = window->places[at].start + window->places[at].length;
		at++;
	}
	return *offset < window->to;
}

int64_t history_seek(struct history_file *file, int64_t offset, int whence)
{
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (offset < 0 || offset >= file->size)
		return -ENXIO;
	while (offset < file->size) {
		struct extent_window *window;
		int rc = window_get(file, offset, &window, NULL);
		if (rc)
			return rc == ERR_NOMEM ? -ENOMEM : -EIO;
		int64_t to = window->to;
		bool found = seek_window(window, &offset, whence == SEEK_DATA);
		window_release(file, window);
		if (found)
			break;
		if (offset < to)
			offset = to;
	}
	if (offset < file->size)
		return offset;
	return whence == SEEK_HOLE ? file->size : -ENXIO; /* the end of a file counts as a hole */
}

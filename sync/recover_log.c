/* The log as a list and as a stream of objects. */
#include "recover_internal.h"

#include "image.h"
#include "io.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES (UINT64_C(8) << 20)
#define AHEAD 8 /* records fetched and not yet taken */
#define READERS 4

/* ---------------------------------------------------------------- list */

struct listing {
	struct log_list *list;
	size_t room;
	bool failed;
};

static int on_record(void *context, const struct store_object *object)
{
	struct listing *listing = context;
	struct log_list *list = listing->list;
	int64_t seq = record_key_parse(object->key);

	if (seq < 0)
		return 0;
	if (list->count == listing->room) {
		size_t room = listing->room ? 2 * listing->room : 64;
		struct log_entry *grown = reallocarray(list->entries, room, sizeof(*grown));
		if (!grown) {
			listing->failed = true;
			return 1;
		}
		list->entries = grown;
		listing->room = room;
	}
	list->entries[list->count++] = (struct log_entry){seq, object->size};
	return 0;
}

int log_list_fetch(struct store *store, int64_t after_seq, struct log_list *out, struct error *error)
{
	struct listing listing = {.list = out};
	char after[RECORD_KEY_BYTES];

	memset(out, 0, sizeof(*out));
	record_key(after, after_seq);
	int rc = store_list(store, "log/", after_seq > 0 ? after : NULL, on_record, &listing, error);
	if (rc < 0)
		return rc;
	return listing.failed ? error_errno(error, ENOMEM, "%s: log", store->url) : 0;
}

void log_list_free(struct log_list *list)
{
	free(list->entries);
	memset(list, 0, sizeof(*list));
}

ssize_t log_list_run(const struct log_list *list, int64_t first_seq, int64_t *missing)
{
	size_t first = 0;

	while (first < list->count && list->entries[first].seq < first_seq)
		first++;
	for (size_t i = first; i < list->count; i++) {
		*missing = first_seq + (int64_t)(i - first);
		if (list->entries[i].seq != *missing)
			return -1;
	}
	return (ssize_t)first;
}

/* ---------------------------------------------------------------- object */

static int fetch_pieces(struct store *store, const char *key, uint64_t size, int fd, struct error *error)
{
	struct buf piece = {0};
	int rc = 0;

	for (uint64_t at = 0; at < size && !rc; at += PIECE_BYTES) {
		uint64_t length = size - at < PIECE_BYTES ? size - at : PIECE_BYTES;
		buf_clear(&piece);
		rc = store_get(store, key, at, length, &piece, error);
		if (!rc && io_pwrite(fd, piece.data, piece.length, (int64_t)at) < 0)
			rc = error_errno(error, errno, "%s: temporary copy", key);
	}
	buf_free(&piece);
	return rc;
}

int object_fetch(struct store *store, const char *key, uint64_t size, const char *tmp_dir, int *fd_out,
		 struct error *error)
{
	int fd = image_file(tmp_dir, error), rc;

	*fd_out = -1;
	if (fd < 0)
		return fd;
	rc = fetch_pieces(store, key, size, fd, error);
	if (rc)
		close(fd);
	else
		*fd_out = fd;
	return rc;
}

/* ---------------------------------------------------------------- reading ahead */

struct slot {
	bool ready; /* lock; then the rest is the consumer's */
	int fd, rc;
	uint8_t hash[SHA256_BYTES];
	struct error error;
};

struct log_reader {
	struct store *store;
	const struct log_entry *entries;
	size_t count;
	const char *tmp_dir;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct slot slots[AHEAD]; /* entry i is in slot i % AHEAD while taken <= i < taken + AHEAD */
	size_t begun, taken;      /* lock: entries that a thread works or worked on; entries given to the consumer */
	bool stopping;            /* lock */
	pthread_t threads[READERS];
	size_t running;           /* the consumer's */
};

static void read_entry(struct log_reader *reader, const struct log_entry *entry, struct slot *slot)
{
	char key[RECORD_KEY_BYTES];

	record_key(key, entry->seq);
	slot->rc = object_fetch(reader->store, key, entry->size, reader->tmp_dir, &slot->fd, &slot->error);
	if (slot->rc)
		return;
	slot->rc = object_hash(slot->fd, entry->size, slot->hash, &slot->error);
	if (slot->rc) {
		close(slot->fd);
		slot->fd = -1;
	}
}

static void *reader_run(void *context)
{
	struct log_reader *reader = context;

	pthread_mutex_lock(&reader->lock);
	while (!reader->stopping && reader->begun < reader->count) {
		if (reader->begun >= reader->taken + AHEAD) {
			pthread_cond_wait(&reader->changed, &reader->lock);
			continue;
		}
		size_t i = reader->begun++;
		struct slot *slot = &reader->slots[i % AHEAD];
		pthread_mutex_unlock(&reader->lock);
		read_entry(reader, &reader->entries[i], slot);
		pthread_mutex_lock(&reader->lock);
		slot->ready = true;
		pthread_cond_broadcast(&reader->changed);
	}
	pthread_mutex_unlock(&reader->lock);
	return NULL;
}

int log_reader_start(struct store *store, const struct log_entry *entries, size_t count, const char *tmp_dir,
		     struct log_reader **out, struct error *error)
{
	struct log_reader *reader = calloc(1, sizeof(*reader));
	int failed = 0;

	*out = NULL;
	if (!reader)
		return error_errno(error, ENOMEM, "reading the log");
	reader->store = store;
	reader->entries = entries;
	reader->count = count;
	reader->tmp_dir = tmp_dir;
	pthread_mutex_init(&reader->lock, NULL);
	pthread_cond_init(&reader->changed, NULL);
	while (!failed && reader->running < READERS && reader->running < count) {
		failed = pthread_create(&reader->threads[reader->running], NULL, reader_run, reader);
		if (!failed)
			reader->running++;
	}
	if (failed && !reader->running) { /* one thread is enough to get on */
		log_reader_stop(reader);
		return error_errno(error, failed, "reading the log");
	}
	*out = reader;
	return 0;
}

int log_reader_next(struct log_reader *reader, int *fd, uint8_t hash[SHA256_BYTES], struct error *error)
{
	struct slot *slot;
	int rc;

	*fd = -1;
	pthread_mutex_lock(&reader->lock);
	if (reader->taken == reader->count) {
		pthread_mutex_unlock(&reader->lock);
		return error_set(error, ERR_ABSENT, 0, "reading the log: it is at its end");
	}
	slot = &reader->slots[reader->taken % AHEAD];
	while (!slot->ready)
		pthread_cond_wait(&reader->changed, &reader->lock);
	rc = slot->rc;
	if (rc) {
		error_set(error, rc, slot->error.sys_errno, "%s", slot->error.message);
	} else {
		*fd = slot->fd;
		memcpy(hash, slot->hash, SHA256_BYTES);
	}
	memset(slot, 0, sizeof(*slot));
	slot->fd = -1;
	reader->taken++;
	pthread_cond_broadcast(&reader->changed);
	pthread_mutex_unlock(&reader->lock);
	return rc;
}

void log_reader_stop(struct log_reader *reader)
{
	if (!reader)
		return;
	pthread_mutex_lock(&reader->lock);
	reader->stopping = true;
	pthread_cond_broadcast(&reader->changed);
	pthread_mutex_unlock(&reader->lock);
	for (size_t i = 0; i < reader->running; i++)
		pthread_join(reader->threads[i], NULL);
	for (size_t i = 0; i < AHEAD; i++)
		if (reader->slots[i].ready && reader->slots[i].fd >= 0)
			close(reader->slots[i].fd);
	pthread_cond_destroy(&reader->changed);
	pthread_mutex_destroy(&reader->lock);
	free(reader);
}

#include "preimage.h"

#include "backing.h"
#include "io.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct preimage {
	size_t length;
	int64_t file_offset; /* -1: in memory, right behind this struct */
};

struct preimage_store {
	char *state_path;
	pthread_mutex_t mutex; /* all below */
	int64_t in_memory, in_file, file_end;
	int fd; /* -1 until something spills */
};

struct preimage_store *preimage_store_new(const char *state_path)
{
	struct preimage_store *store = calloc(1, sizeof *store);

	if (!store)
		return NULL;
	store->state_path = strdup(state_path);
	store->fd = -1;
	if (!store->state_path || pthread_mutex_init(&store->mutex, NULL) != 0) {
		free(store->state_path);
		free(store);
		return NULL;
	}
	return store;
}

void preimage_store_free(struct preimage_store *store)
{
	if (!store)
		return;
	if (store->fd >= 0)
		close(store->fd);
	pthread_mutex_destroy(&store->mutex);
	free(store->state_path);
	free(store);
}

/* mutex is held. A descriptor of the spill file with room for `length` more bytes, or -1. */
static int spill_fd(struct preimage_store *store, size_t length)
{
	if (store->fd < 0)
		store->fd = open(store->state_path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (store->fd < 0)
		return -1;
	return backing_free_above_reserve(store->fd) >= length ? store->fd : -1;
}

struct preimage *preimage_put(struct preimage_store *store, const void *data, size_t length)
{
	struct preimage *preimage = NULL;
	bool memory;
	int fd = -1;
	int64_t offset = -1;

	pthread_mutex_lock(&store->mutex);
	memory = store->in_memory + (int64_t)length <= PREIMAGE_MEMORY;
	if (memory) {
		store->in_memory += (int64_t)length;
	} else if ((fd = spill_fd(store, length)) >= 0) {
		offset = store->file_end;
		store->file_end += (int64_t)length;
		store->in_file += (int64_t)length;
	}
	pthread_mutex_unlock(&store->mutex);

	if (!memory && fd < 0)
		return NULL;
	preimage = malloc(sizeof *preimage + (memory ? length : 0));
	if (preimage) {
		preimage->length = length;
		preimage->file_offset = offset;
		if (memory)
			memcpy(preimage + 1, data, length);
		else if (io_pwrite(fd, data, length, offset) != 0) {
			preimage_free(store, preimage);
			preimage = NULL;
		}
		return preimage;
	}
	pthread_mutex_lock(&store->mutex);
	if (memory)
		store->in_memory -= (int64_t)length;
	else
		store->in_file -= (int64_t)length;
	pthread_mutex_unlock(&store->mutex);
	return NULL;
}

bool preimage_get(struct preimage_store *store, const struct preimage *preimage, size_t offset, void *out, size_t length)
{
	if (preimage->file_offset < 0) {
		memcpy(out, (const char *)(preimage + 1) + offset, length);
		return true;
	}
	return io_pread(store->fd, out, length, preimage->file_offset + (int64_t)offset) == (ssize_t)length;
}

void preimage_free(struct preimage_store *store, struct preimage *preimage)
{
	if (!preimage)
		return;
	pthread_mutex_lock(&store->mutex);
	if (preimage->file_offset < 0) {
		store->in_memory -= (int64_t)preimage->length;
	} else {
		store->in_file -= (int64_t)preimage->length;
		if (store->in_file == 0 && ftruncate(store->fd, 0) == 0)
			store->file_end = 0;
	}
	pthread_mutex_unlock(&store->mutex);
	free(preimage);
}

uint64_t preimage_bytes(struct preimage_store *store)
{
	uint64_t bytes;

	pthread_mutex_lock(&store->mutex);
	bytes = (uint64_t)(store->in_memory + store->in_file);
	pthread_mutex_unlock(&store->mutex);
	return bytes;
}

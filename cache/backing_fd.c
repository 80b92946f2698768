#include "backing_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS 16
#define BUCKETS 128

struct entry {
	struct entry *next;            /* in its bucket */
	struct entry *newer, *older;   /* in the list of those neither in use nor held */
	uint64_t nodeid;
	int fd;
	uint32_t users;
	bool held;    /* until it is dropped */
	bool dropped; /* closed when the last user gives it back */
};

struct shard {
	pthread_mutex_t lock; /* all of the shard; nothing is taken inside */
	struct entry *buckets[BUCKETS];
	struct entry *newest, *oldest; /* neither in use nor held */
	size_t count, capacity;
};

struct fd_cache { struct shard shards[SHARDS]; };

struct fd_cache *fd_cache_new(size_t capacity)
{
	struct fd_cache *cache = calloc(1, sizeof *cache);

	for (int i = 0; cache && i < SHARDS; i++) {
		pthread_mutex_init(&cache->shards[i].lock, NULL);
		cache->shards[i].capacity = capacity < SHARDS ? 1 : capacity / SHARDS;
	}
	return cache;
}

static struct shard *lock_shard(struct fd_cache *cache, uint64_t nodeid)
{
	struct shard *shard = &cache->shards[nodeid % SHARDS];

	pthread_mutex_lock(&shard->lock);
	return shard;
}

static struct entry **bucket_of(struct shard *shard, uint64_t nodeid)
{
	return &shard->buckets[nodeid / SHARDS % BUCKETS];
}

/* The lock must be held for these. */
static struct entry *find(struct shard *shard, uint64_t nodeid)
{
	struct entry *entry = *bucket_of(shard, nodeid);

	while (entry && entry->nodeid != nodeid)
		entry = entry->next;
	return entry;
}

static void list_remove(struct shard *shard, struct entry *entry)
{
	*(entry->newer ? &entry->newer->older : &shard->newest) = entry->older;
	*(entry->older ? &entry->older->newer : &shard->oldest) = entry->newer;
	entry->newer = entry->older = NULL;
}

static void list_push(struct shard *shard, struct entry *entry)
{
	entry->newer = NULL;
	entry->older = shard->newest;
	*(shard->newest ? &shard->newest->newer : &shard->oldest) = entry;
	shard->newest = entry;
}

static void entry_use(struct shard *shard, struct entry *entry)
{
	if (entry->users++ == 0 && !entry->held)
		list_remove(shard, entry);
}

/* Must not be in use nor in the list. Closing an O_PATH descriptor is quick: it may free an unlinked inode, but that is done later by the kernel or
 * costs no more than the unlink would have. */
static void entry_close(struct shard *shard, struct entry *entry)
{
	struct entry **link = bucket_of(shard, entry->nodeid);

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	shard->count--;
	close(entry->fd);
	free(entry);
}

static void evict_oldest(struct shard *shard)
{
	struct entry *entry = shard->oldest;

	list_remove(shard, entry);
	entry_close(shard, entry);
}

int fd_cache_get(struct fd_cache *cache, uint64_t nodeid)
{
	struct shard *shard = lock_shard(cache, nodeid);
	struct entry *entry = find(shard, nodeid);
	int fd = -1;

	if (entry) {
		entry_use(shard, entry);
		fd = entry->fd;
	}
	pthread_mutex_unlock(&shard->lock);
	return fd;
}

int fd_cache_add(struct fd_cache *cache, uint64_t nodeid, int fd)
{
	struct shard *shard = lock_shard(cache, nodeid);
	struct entry *entry = find(shard, nodeid);
	int unused = -1;

	if (entry) {
		unused = fd;
		entry_use(shard, entry);
		fd = entry->fd;
		goto out;
	}
	entry = calloc(1, sizeof *entry);
	if (!entry) {
		unused = fd;
		fd = -ENOMEM;
		goto out;
	}
	*entry = (struct entry){ .next = *bucket_of(shard, nodeid), .nodeid = nodeid, .fd = fd, .users = 1 };
	*bucket_of(shard, nodeid) = entry;
	shard->count++;
	while (shard->count > shard->capacity && shard->oldest)
		evict_oldest(shard);
out:
	pthread_mutex_unlock(&shard->lock);
	if (unused >= 0)
		close(unused);
	return fd;
}

void fd_cache_put(struct fd_cache *cache, uint64_t nodeid, int fd)
{
	struct shard *shard = lock_shard(cache, nodeid);
	struct entry *entry = find(shard, nodeid);

	assert(entry && entry->fd == fd && entry->users > 0);
	(void)fd;
	if (--entry->users == 0 && !entry->held) {
		/* More are in use than we want to keep: the first to come back goes. */
		if (entry->dropped || shard->count > shard->capacity)
			entry_close(shard, entry);
		else
			list_push(shard, entry);
	}
	pthread_mutex_unlock(&shard->lock);
}

void fd_cache_hold(struct fd_cache *cache, uint64_t nodeid)
{
	struct shard *shard = lock_shard(cache, nodeid);
	struct entry *entry = find(shard, nodeid);

	assert(entry && entry->users > 0);
	entry->held = true;
	entry->dropped = false;
	pthread_mutex_unlock(&shard->lock);
}

/* The shard's lock must be held. */
static void entry_drop(struct shard *shard, struct entry *entry)
{
	bool listed = entry->users == 0 && !entry->held;

	entry->held = false;
	if (entry->users > 0) {
		entry->dropped = true;
		return;
	}
	if (listed)
		list_remove(shard, entry);
	entry_close(shard, entry);
}

void fd_cache_drop(struct fd_cache *cache, uint64_t nodeid)
{
	struct shard *shard = lock_shard(cache, nodeid);
	struct entry *entry = find(shard, nodeid);

	if (entry)
		entry_drop(shard, entry);
	pthread_mutex_unlock(&shard->lock);
}

bool fd_cache_shrink(struct fd_cache *cache)
{
	bool any = false;

	for (int i = 0; i < SHARDS; i++) {
		struct shard *shard = lock_shard(cache, (uint64_t)i);

		while (shard->oldest) {
			evict_oldest(shard);
			any = true;
		}
		pthread_mutex_unlock(&shard->lock);
	}
	return any;
}

size_t fd_cache_count(struct fd_cache *cache)
{
	size_t count = 0;

	for (int i = 0; i < SHARDS; i++) {
		struct shard *shard = lock_shard(cache, (uint64_t)i);

		count += shard->count;
		pthread_mutex_unlock(&shard->lock);
	}
	return count;
}

void fd_cache_free(struct fd_cache *cache)
{
	if (!cache)
		return;
	for (int i = 0; i < SHARDS; i++) {
		struct shard *shard = &cache->shards[i];

		/* Held ones too: the kernel that they were held for is gone. */
		for (int j = 0; j < BUCKETS; j++)
			for (struct entry *entry = shard->buckets[j], *next; entry; entry = next) {
				next = entry->next;
				entry_drop(shard, entry);
			}
		assert(shard->count == 0);
		pthread_mutex_destroy(&shard->lock);
	}
	free(cache);
}

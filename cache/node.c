#include "node.h"

#include "bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two hash tables, each in shards with a lock of their own. A shard's buckets double when it has two nodes a bucket, so that a node
 * costs about a pointer in each table. A node is in the table by key from creation to its last put, which decides under the key
 * shard's lock; so whoever holds that lock finds no node with 0 references. By number it is found a moment
 * longer: node_by_id refuses what has none. Lock order: key shard, id shard. */
#define SHARDS 64
#define FIRST_BUCKETS 16
#define NODEID_MAX ((UINT64_C(1) << 48) - 1)

struct shard {
	pthread_mutex_t lock;
	struct node **buckets;
	uint32_t mask, count;
} __attribute__((aligned(64)));

struct node_table {
	struct shard by_key[SHARDS], by_id[SHARDS];
	_Atomic uint64_t next_id, count;
	void (*on_free)(void *context, uint64_t nodeid);
	void *on_free_context;
};

int node_key_type(const struct node_key *key)
{
	return key->length < 2 ? NODE_KEY_NO_HANDLE : (int16_t)get_u16(key->bytes);
}

bool node_key_equal(const struct node_key *a, const struct node_key *b)
{
	return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

void node_key_copy(struct node_key *to, const struct node_key *from)
{
	memset(to, 0, sizeof *to);
	to->length = from->length;
	memcpy(to->bytes, (const uint8_t *)from + offsetof(struct node_key, bytes), from->length);
}

void node_key_of(const struct node *node, struct node_key *out)
{
	node_key_copy(out, &node->key);
}

/* Handles differ in few bits of their words: multiply and fold each (the finaliser of MurmurHash3). */
static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= UINT64_C(0xff51afd7ed558ccd);
	value ^= value >> 33;
	value *= UINT64_C(0xc4ceb9fe1a85ec53);
	return value ^ value >> 33;
}

static uint64_t hash_key(const struct node_key *key)
{
	uint64_t hash = key->length;
	size_t at = 0;

	for (; at + 8 <= key->length; at += 8)
		hash = mix(hash ^ get_u64(key->bytes + at));
	for (uint64_t tail = 1; at < key->length;) {
		tail = tail << 8 | key->bytes[at++];
		if (at == key->length)
			hash = mix(hash ^ tail);
	}
	return hash;
}

static uint64_t hash_of(const struct node *node, bool by_key)
{
	return by_key ? hash_key(&node->key) : mix(node->nodeid);
}

static struct node **next_of(struct node *node, bool by_key)
{
	return by_key ? &node->next_by_key : &node->next_by_id;
}

/* The lowest bits choose the shard, the following ones the bucket. */
static struct node **bucket_of(struct shard *shard, uint64_t hash)
{
	return &shard->buckets[(hash / SHARDS) & shard->mask];
}

/* Shard's lock must be held. When memory is short the chains only grow longer. */
static void shard_grow(struct shard *shard, bool by_key)
{
	uint32_t old_count = shard->mask + 1, count = old_count * 2;
	struct node **old = shard->buckets, **buckets = calloc(count, sizeof *buckets);

	if (!buckets)
		return;
	shard->buckets = buckets;
	shard->mask = count - 1;
	for (uint32_t i = 0; i < old_count; i++) {
		for (struct node *node = old[i], *next; node; node = next) {
			struct node **bucket = bucket_of(shard, hash_of(node, by_key));

			next = *next_of(node, by_key);
			*next_of(node, by_key) = *bucket;
			*bucket = node;
		}
	}
	free(old);
}

/* Shard's lock must be held. */
static void shard_insert(struct shard *shard, struct node *node, uint64_t hash, bool by_key)
{
	struct node **bucket;

	if (shard->count / 2 > shard->mask && shard->mask < UINT32_MAX / 2)
		shard_grow(shard, by_key);
	bucket = bucket_of(shard, hash);
	*next_of(node, by_key) = *bucket;
	*bucket = node;
	shard->count++;
}

/* Shard's lock must be held. */
static void shard_remove(struct shard *shard, struct node *node, uint64_t hash, bool by_key)
{
	struct node **link = bucket_of(shard, hash);

	while (*link != node)
		link = next_of(*link, by_key);
	*link = *next_of(node, by_key);
	shard->count--;
}

struct node_table *node_table_new(void)
{
	struct node_table *table = aligned_alloc(64, sizeof *table);

	if (!table)
		return NULL;
	memset(table, 0, sizeof *table);
	atomic_init(&table->next_id, 1);
	for (int i = 0; i < 2 * SHARDS; i++) {
		struct shard *shard = i < SHARDS ? &table->by_key[i] : &table->by_id[i - SHARDS];

		pthread_mutex_init(&shard->lock, NULL);
		shard->mask = FIRST_BUCKETS - 1;
		shard->buckets = calloc(FIRST_BUCKETS, sizeof *shard->buckets);
		if (!shard->buckets) {
			node_table_free(table);
			return NULL;
		}
	}
	return table;
}

static void node_destroy(struct node *node)
{
	int fd = atomic_load(&node->held_fd);

	assert(!node->dirt && !node->frozen);
	if (fd >= 0)
		close(fd);
	assert(!small_lock_is_taken(&node->lock));
	free(node);
}

void node_table_free(struct node_table *table)
{
	if (!table)
		return;
	for (int i = 0; i < SHARDS; i++) {
		struct shard *shard = &table->by_key[i];

		for (uint32_t j = 0; shard->buckets && j <= shard->mask; j++) {
			for (struct node *node = shard->buckets[j], *next; node; node = next) {
				next = node->next_by_key;
				assert(atomic_load(&node->references) == (node->lookups > 0 ? 1 : 0));
				node_destroy(node);
			}
		}
	}
	for (int i = 0; i < 2 * SHARDS; i++) {
		struct shard *shard = i < SHARDS ? &table->by_key[i] : &table->by_id[i - SHARDS];

		free(shard->buckets);
		pthread_mutex_destroy(&shard->lock);
	}
	free(table);
}

void node_table_on_free(struct node_table *table, void (*fn)(void *context, uint64_t nodeid), void *context)
{
	table->on_free = fn;
	table->on_free_context = context;
}

/* A node whose key holds no handle is reached only through a descriptor: any that comes along is kept. */
static bool hold(struct node *node, int path_fd)
{
	int fd, none = -1;

	if (path_fd < 0 || node_key_type(&node->key) >= 0 || atomic_load(&node->held_fd) >= 0)
		return true;
	fd = fcntl(path_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (!atomic_compare_exchange_strong(&node->held_fd, &none, fd))
		close(fd);
	return true;
}

static struct node *node_new(struct node_table *table, const struct node_key *key, mode_t type, int path_fd)
{
	size_t size = offsetof(struct node, key.bytes) + key->length;
	struct node *node = calloc(1, size);

	if (!node)
		return NULL;
	node->type = type & S_IFMT;
	atomic_init(&node->references, 1);
	atomic_init(&node->held_fd, -1);
	node->key.length = key->length;
	memcpy((uint8_t *)node + offsetof(struct node, key.bytes), key->bytes, key->length);
	if (!hold(node, path_fd)) {
		node_destroy(node);
		return NULL;
	}
	uint64_t nodeid = atomic_fetch_add(&table->next_id, 1);
	if (nodeid > NODEID_MAX) {
		node_destroy(node);
		errno = ENFILE;
		return NULL;
	}
	node->nodeid = nodeid;
	return node;
}

/* Key shard's lock must be held. */
static struct node *find_locked(struct shard *shard, const struct node_key *key, uint64_t hash)
{
	struct node *node = *bucket_of(shard, hash);

	while (node && !node_key_equal(&node->key, key))
		node = node->next_by_key;
	if (node)
		atomic_fetch_add(&node->references, 1);
	return node;
}

static void insert_id(struct node_table *table, struct node *node)
{
	uint64_t hash = mix(node->nodeid);
	struct shard *shard = &table->by_id[hash % SHARDS];

	pthread_mutex_lock(&shard->lock);
	shard_insert(shard, node, hash, false);
	pthread_mutex_unlock(&shard->lock);
}

struct node *node_get(struct node_table *table, const struct node_key *key, mode_t type, int path_fd)
{
	uint64_t hash = hash_key(key);
	struct shard *shard = &table->by_key[hash % SHARDS];
	struct node *node;

	pthread_mutex_lock(&shard->lock);
	node = find_locked(shard, key, hash);
	if (node) {
		pthread_mutex_unlock(&shard->lock);
		if (hold(node, path_fd))
			return node;
		node_put(table, node);
		return NULL;
	}
	node = node_new(table, key, type, path_fd);
	if (node) {
		/* By number first: another getter of the key may tell the kernel that number as soon as the key's lock is free. */
		insert_id(table, node);
		shard_insert(shard, node, hash, true);
		atomic_fetch_add(&table->count, 1);
	}
	pthread_mutex_unlock(&shard->lock);
	return node;
}

struct node *node_find(struct node_table *table, const struct node_key *key)
{
	uint64_t hash = hash_key(key);
	struct shard *shard = &table->by_key[hash % SHARDS];
	struct node *node;

	pthread_mutex_lock(&shard->lock);
	node = find_locked(shard, key, hash);
	pthread_mutex_unlock(&shard->lock);
	return node;
}

/* False when the last reference is gone and the node is about to be freed. */
static bool ref_unless_zero(struct node *node)
{
	uint32_t count = atomic_load(&node->references);

	while (count > 0)
		if (atomic_compare_exchange_weak(&node->references, &count, count + 1))
			return true;
	return false;
}

struct node *node_by_id(struct node_table *table, uint64_t nodeid)
{
	uint64_t hash = mix(nodeid);
	struct shard *shard = &table->by_id[hash % SHARDS];
	struct node *node;

	pthread_mutex_lock(&shard->lock);
	node = *bucket_of(shard, hash);
	while (node && node->nodeid != nodeid)
		node = node->next_by_id;
	if (node && !ref_unless_zero(node))
		node = NULL;
	pthread_mutex_unlock(&shard->lock);
	return node;
}

void node_ref(struct node_table *table, struct node *node)
{
	(void)table;
	assert(atomic_load(&node->references) > 0);
	atomic_fetch_add(&node->references, 1);
}

/* Drops one reference if it is not the last. */
static bool put_not_last(struct node *node)
{
	uint32_t count = atomic_load(&node->references);

	assert(count > 0);
	while (count > 1)
		if (atomic_compare_exchange_weak(&node->references, &count, count - 1))
			return true;
	return false;
}

void node_put(struct node_table *table, struct node *node)
{
	uint64_t hash, nodeid;
	struct shard *shard;
	bool last;

	if (!node || put_not_last(node))
		return;
	nodeid = node->nodeid;
	hash = hash_key(&node->key);
	shard = &table->by_key[hash % SHARDS];
	pthread_mutex_lock(&shard->lock);
	last = atomic_fetch_sub(&node->references, 1) == 1;
	if (last)
		shard_remove(shard, node, hash, true);
	pthread_mutex_unlock(&shard->lock);
	if (!last)
		return;
	hash = mix(nodeid);
	shard = &table->by_id[hash % SHARDS];
	pthread_mutex_lock(&shard->lock);
	shard_remove(shard, node, hash, false);
	pthread_mutex_unlock(&shard->lock);
	node_destroy(node);
	atomic_fetch_sub(&table->count, 1);
	if (table->on_free)
		table->on_free(table->on_free_context, nodeid);
}

void node_lookup_add(struct node_table *table, struct node *node)
{
	struct shard *shard = &table->by_key[hash_key(&node->key) % SHARDS];
	bool first;

	pthread_mutex_lock(&shard->lock);
	first = node->lookups++ == 0;
	pthread_mutex_unlock(&shard->lock);
	/* All lookups together are one reference. */
	if (!first)
		node_put(table, node);
}

/* Shard's lock must be held. */
static bool is_looked_up(const struct node *node)
{
	return node->lookups > 0 || node->nodeid == 1;
}

bool node_is_looked_up(struct node_table *table, const struct node *node)
{
	struct shard *shard = &table->by_key[hash_key(&node->key) % SHARDS];
	bool known;

	pthread_mutex_lock(&shard->lock);
	known = is_looked_up(node);
	pthread_mutex_unlock(&shard->lock);
	return known;
}

void node_tell(struct node_table *table, struct node *node, uint32_t stamp)
{
	struct shard *shard = &table->by_key[hash_key(&node->key) % SHARDS];

	pthread_mutex_lock(&shard->lock);
	node->told = stamp;
	pthread_mutex_unlock(&shard->lock);
}

bool node_is_told_otherwise(struct node_table *table, const struct node *node, uint32_t stamp)
{
	struct shard *shard = &table->by_key[hash_key(&node->key) % SHARDS];
	bool otherwise;

	pthread_mutex_lock(&shard->lock);
	otherwise = is_looked_up(node) && (node->told == 0 || node->told != stamp);
	pthread_mutex_unlock(&shard->lock);
	return otherwise;
}

bool node_lookup_forget(struct node_table *table, uint64_t nodeid, uint64_t count)
{
	struct node *node = node_by_id(table, nodeid);
	struct shard *shard;
	bool last;

	if (!node)
		return true;
	shard = &table->by_key[hash_key(&node->key) % SHARDS];
	pthread_mutex_lock(&shard->lock);
	last = node->lookups > 0 && count >= node->lookups;
	node->lookups -= count < node->lookups ? count : node->lookups;
	pthread_mutex_unlock(&shard->lock);
	if (last)
		node_put(table, node);
	node_put(table, node);
	return last;
}

uint64_t node_table_count(const struct node_table *table)
{
	return atomic_load(&table->count);
}

#include "snap_node.h"

#include "node.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_NODEID (UINT64_C(1) << 63)
#define FIRST_BUCKETS 256

struct snap_table {
	struct fs *fs;
	pthread_mutex_t lock; /* all below */
	struct snap_node **by_id, **by_key;
	size_t buckets, count; /* buckets: a power of two */
	uint64_t next_nodeid;
};

static uint64_t mix(uint64_t value)
{
	value *= UINT64_C(0x9e3779b97f4a7c15);
	return value ^ value >> 29;
}

static uint64_t hash_key(const struct snap_node *like, const char *name)
{
	uint64_t hash = mix(like->anchor ^ mix((uint64_t)like->seq ^ mix((uint64_t)like->ino ^ like->kind)));
	for (; *name; name++)
		hash = mix(hash ^ (unsigned char)*name);
	return hash;
}

static bool same_key(const struct snap_node *a, const struct snap_node *like, const char *name)
{
	return a->kind == like->kind && a->anchor == like->anchor && a->seq == like->seq && a->ino == like->ino &&
	       strcmp(a->name, name) == 0;
}

struct snap_table *snap_table_new(struct fs *fs)
{
	struct snap_table *table = calloc(1, sizeof(*table));
	if (!table)
		return NULL;
	table->fs = fs;
	table->buckets = FIRST_BUCKETS;
	table->next_nodeid = FIRST_NODEID;
	table->by_id = calloc(FIRST_BUCKETS, sizeof(*table->by_id));
	table->by_key = calloc(FIRST_BUCKETS, sizeof(*table->by_key));
	pthread_mutex_init(&table->lock, NULL);
	if (!table->by_id || !table->by_key) {
		snap_table_free(table);
		return NULL;
	}
	return table;
}

static void destroy(struct snap_table *table, struct snap_node *node)
{
	node_put(table->fs->nodes, node->live);
	free(node);
}

void snap_table_free(struct snap_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; table->by_id && i < table->buckets; i++) {
		for (struct snap_node *node = table->by_id[i], *next; node; node = next) {
			next = node->next_by_id;
			destroy(table, node);
		}
	}
	free(table->by_id);
	free(table->by_key);
	pthread_mutex_destroy(&table->lock);
	free(table);
}

/* Lock must be held. When memory is short the chains only grow longer. */
static void grow(struct snap_table *table)
{
	size_t buckets = table->buckets * 2;
	struct snap_node **by_id = calloc(buckets, sizeof(*by_id)), **by_key = calloc(buckets, sizeof(*by_key));
	if (!by_id || !by_key) {
		free(by_id);
		free(by_key);
		return;
	}
	for (size_t i = 0; i < table->buckets; i++) {
		for (struct snap_node *node = table->by_id[i], *next; node; node = next) {
			next = node->next_by_id;
			struct snap_node **id = &by_id[mix(node->nodeid) & (buckets - 1)];
			struct snap_node **key = &by_key[hash_key(node, node->name) & (buckets - 1)];
			node->next_by_id = *id;
			*id = node;
			node->next_by_key = *key;
			*key = node;
		}
	}
	free(table->by_id);
	free(table->by_key);
	table->by_id = by_id;
	table->by_key = by_key;
	table->buckets = buckets;
}

/* Lock must be held. */
static struct snap_node *make(struct snap_table *table, const struct snap_node *like, const char *name, uint64_t hash)
{
	struct snap_node *node = malloc(sizeof(*node) + strlen(name) + 1);
	if (!node)
		return NULL;
	memcpy(node, like, sizeof(*node));
	strcpy(node->name, name);
	node->references = 1;
	node->nodeid = table->next_nodeid++;
	if (node->live)
		node_ref(table->fs->nodes, node->live);

	struct snap_node **id = &table->by_id[mix(node->nodeid) & (table->buckets - 1)];
	struct snap_node **key = &table->by_key[hash & (table->buckets - 1)];
	node->next_by_id = *id;
	*id = node;
	node->next_by_key = *key;
	*key = node;
	if (++table->count > table->buckets)
		grow(table);
	return node;
}

struct snap_node *snap_node_get(struct snap_table *table, const struct snap_node *like, const char *name)
{
	uint64_t hash = hash_key(like, name);
	pthread_mutex_lock(&table->lock);
	struct snap_node *node = table->by_key[hash & (table->buckets - 1)];
	while (node && !same_key(node, like, name))
		node = node->next_by_key;
	if (node)
		node->references++;
	else
		node = make(table, like, name, hash);
	pthread_mutex_unlock(&table->lock);
	return node;
}

struct snap_node *snap_node_by_id(struct snap_table *table, fuse_ino_t nodeid)
{
	pthread_mutex_lock(&table->lock);
	struct snap_node *node = table->by_id[mix(nodeid) & (table->buckets - 1)];
	while (node && node->nodeid != nodeid)
		node = node->next_by_id;
	if (node)
		node->references++;
	pthread_mutex_unlock(&table->lock);
	return node;
}

void snap_node_put(struct snap_table *table, struct snap_node *node, uint64_t count)
{
	if (!node)
		return;
	pthread_mutex_lock(&table->lock);
	node->references -= count < node->references ? count : node->references;
	bool last = node->references == 0;
	if (last) {
		struct snap_node **id = &table->by_id[mix(node->nodeid) & (table->buckets - 1)];
		struct snap_node **key = &table->by_key[hash_key(node, node->name) & (table->buckets - 1)];
		while (*id != node)
			id = &(*id)->next_by_id;
		while (*key != node)
			key = &(*key)->next_by_key;
		*id = node->next_by_id;
		*key = node->next_by_key;
		table->count--;
	}
	pthread_mutex_unlock(&table->lock);
	if (last)
		destroy(table, node);
}

uint64_t snap_table_count(struct snap_table *table)
{
	pthread_mutex_lock(&table->lock);
	uint64_t count = table->count;
	pthread_mutex_unlock(&table->lock);
	return count;
}

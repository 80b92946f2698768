/* Changes of one inode in one epoch: life, lists, names. State table: journal.h; fields: journal_internal.h. */
#include "journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dirt *dirt_new(struct journal *journal, struct node *node)
{
	struct dirt *dirt = calloc(1, sizeof *dirt);

	if (!dirt)
		return NULL;
	/* Room for one range from the start: a new inode is recorded whole without asking for memory. */
	if (!extent_map_reserve(&dirt->extents, 1)) {
		free(dirt);
		return NULL;
	}
	dirt->journal = journal;
	dirt->references = 1;
	if (node) {
		node_ref(journal->nodes, node);
		dirt->node = node;
	}
	return dirt;
}

static void free_names(struct journal *journal, struct dirt *dirt)
{
	for (uint32_t i = 0; i < dirt->name_buckets; i++) {
		for (struct dirty_name *entry = dirt->names[i], *next; entry; entry = next) {
			next = entry->next;
			if (entry->child)
				node_put(journal->nodes, entry->child);
			free(entry);
		}
	}
	free(dirt->names);
	dirt->names = NULL;
	dirt->name_buckets = dirt->name_count = 0;
}

void dirt_free_frozen(struct journal *journal, struct dirt *dirt)
{
	struct past *past = dirt->past;

	dirt->read_done = false;
	if (!past)
		return;
	for (uint32_t i = 0; i < past->saved_count; i++)
		preimage_free(journal->preimages, past->saved[i].bytes);
	free(past->saved);
	extent_map_free(&past->pending);
	attrs_free(&past->attrs);
	frozen_close_fd(journal, dirt);
	free(past);
	dirt->past = NULL;
}

void dirt_ref(struct journal *journal, struct dirt *dirt)
{
	struct shard *shard = journal_shard(journal, dirt->node);

	pthread_mutex_lock(&shard->mutex);
	dirt->references++;
	pthread_mutex_unlock(&shard->mutex);
}

void dirt_put(struct journal *journal, struct dirt *dirt)
{
	struct shard *shard;
	bool last;

	if (!dirt)
		return;
	if (!dirt->node) { /* a spare that was not used */
		extent_map_free(&dirt->extents);
		free(dirt);
		return;
	}
	shard = journal_shard(journal, dirt->node);
	pthread_mutex_lock(&shard->mutex);
	last = --dirt->references == 0;
	pthread_mutex_unlock(&shard->mutex);
	if (!last)
		return;
	dirt_free_frozen(journal, dirt);
	free_names(journal, dirt);
	extent_map_free(&dirt->extents);
	node_put(journal->nodes, dirt->node);
	free(dirt);
}

void journal_wake(struct journal *journal)
{
	if (journal->wake)
		journal->wake(journal->wake_context);
}

void dirt_list(struct journal *journal, struct dirt *dirt)
{
	struct shard *shard = journal_shard(journal, dirt->node);
	bool large;

	pthread_mutex_lock(&shard->mutex);
	dirt->previous = NULL;
	dirt->next = shard->dirty;
	if (shard->dirty)
		shard->dirty->previous = dirt;
	shard->dirty = dirt;
	shard->inodes++;
	shard->names += dirt->name_count;
	shard->bytes += dirt->bytes;
	large = shard_is_large(shard);
	pthread_mutex_unlock(&shard->mutex);
	if (large)
		journal_wake(journal);
}

void dirt_touch(struct journal *journal, struct dirt *dirt)
{
	struct shard *shard = journal_shard(journal, dirt->node);
	bool added = false;

	pthread_mutex_lock(&shard->mutex);
	if (!dirt->listed_unflushed) {
		dirt->listed_unflushed = added = true;
		dirt->next_unflushed = NULL;
		*(shard->unflushed ? &shard->unflushed_last->next_unflushed : &shard->unflushed) = dirt;
		shard->unflushed_last = dirt;
		shard->unflushed_count++;
		dirt->references++;
	}
	pthread_mutex_unlock(&shard->mutex);
	if (added && !atomic_exchange(&journal->armed, true))
		journal_arm(journal);
}

struct dirt *journal_frozen(struct journal *journal, struct node *node)
{
	if (node->dirt && node->dirt->epoch < atomic_load(&journal->epoch)) {
		assert(!node->frozen); /* one cut at a time */
		node->frozen = node->dirt;
		node->dirt = NULL;
	}
	return node->frozen;
}

/* ------------------------------------------------------------------ names */

static uint32_t name_hash(const char *name, size_t length)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (uint8_t)name[i]) * 16777619u;
	return hash;
}

struct dirty_name *dirt_find_name(const struct dirt *dirt, const char *name, size_t length)
{
	struct dirty_name *entry;

	if (!dirt->name_buckets)
		return NULL;
	entry = dirt->names[name_hash(name, length) & (dirt->name_buckets - 1)];
	while (entry && (entry->length != length || memcmp(entry->text, name, length) != 0))
		entry = entry->next;
	return entry;
}

static void grow_names(struct dirt *dirt)
{
	uint32_t buckets = dirt->name_buckets ? dirt->name_buckets * 2 : 4;
	struct dirty_name **table = calloc(buckets, sizeof *table);

	if (!table)
		return; /* longer chains, nothing worse */
	for (uint32_t i = 0; i < dirt->name_buckets; i++) {
		for (struct dirty_name *entry = dirt->names[i], *next; entry; entry = next) {
			struct dirty_name **head = &table[name_hash(entry->text, entry->length) & (buckets - 1)];

			next = entry->next;
			entry->next = *head;
			*head = entry;
		}
	}
	free(dirt->names);
	dirt->names = table;
	dirt->name_buckets = buckets;
}

bool dirt_insert_name(struct dirt *dirt, struct dirty_name *entry)
{
	struct dirty_name **head;

	if (dirt->name_count >= dirt->name_buckets)
		grow_names(dirt);
	if (!dirt->name_buckets)
		return false;
	head = &dirt->names[name_hash(entry->text, entry->length) & (dirt->name_buckets - 1)];
	entry->next = *head;
	*head = entry;
	dirt->name_count++;
	return true;
}

void dirt_remove_name(struct journal *journal, struct dirt *dirt, struct dirty_name *entry)
{
	struct shard *shard = journal_shard(journal, dirt->node);
	struct dirty_name **at = &dirt->names[name_hash(entry->text, entry->length) & (dirt->name_buckets - 1)];

	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	dirt->name_count--;
	free(entry);
	pthread_mutex_lock(&shard->mutex);
	shard->names--;
	pthread_mutex_unlock(&shard->mutex);
}

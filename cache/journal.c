/* Recording: what an operation does before and after it changes the backing tree. State table and lock order: journal.h. */
#include "journal_internal.h"

#include "clock.h"
#include "failpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void first_change(struct journal *journal)
{
	int64_t none = 0;

	if (atomic_load_explicit(&journal->first_change_ns, memory_order_relaxed) != 0)
		return;
	if (atomic_compare_exchange_strong(&journal->first_change_ns, &none, clock_mono_ns()))
		journal_wake(journal);
}

/* The node's dirt of this epoch, made if need be. node->lock and the cut's read side held. */
static struct dirt *current_dirt(struct journal *journal, struct node *node, struct dirt **spare)
{
	struct dirt *dirt = node->dirt;

	if (dirt)
		return dirt;
	if (spare && *spare) {
		dirt = *spare;
		*spare = NULL;
		node_ref(journal->nodes, node);
		dirt->node = node;
	} else {
		dirt = dirt_new(journal, node);
	}
	if (!dirt)
		return NULL;
	dirt->epoch = atomic_load(&journal->epoch);
	node->dirt = dirt;
	dirt_list(journal, dirt);
	first_change(journal);
	return dirt;
}

/* ------------------------------------------------------------------ mutations */

int mutation_begin(struct mutation *mutation, struct journal *journal)
{
	memset(mutation, 0, sizeof *mutation);
	mutation->journal = journal;
	mutation->spare = dirt_new(journal, NULL);
	if (!mutation->spare)
		return -ENOMEM;
	mutation->stripe = cut_lock_enter(&journal->lock);
	return 0;
}

void mutation_lock(struct mutation *mutation, struct node *a, struct node *b, struct node *c, struct node *d)
{
	struct node *nodes[4] = {a, b, c, d};
	int count = 0;

	assert(mutation->locked_count == 0);
	/* Insertion sort by address, without NULLs and repetitions. */
	for (int i = 0; i < 4; i++) {
		int at = 0;

		if (!nodes[i])
			continue;
		while (at < count && (uintptr_t)mutation->locked[at] < (uintptr_t)nodes[i])
			at++;
		if (at < count && mutation->locked[at] == nodes[i])
			continue;
		memmove(&mutation->locked[at + 1], &mutation->locked[at], (size_t)(count - at) * sizeof *nodes);
		mutation->locked[at] = nodes[i];
		count++;
	}
	mutation->locked_count = count;
	for (int i = 0; i < count; i++)
		small_lock_take(&mutation->locked[i]->lock);
}

static bool is_locked(const struct mutation *mutation, const struct node *node)
{
	for (int i = 0; i < mutation->locked_count; i++)
		if (mutation->locked[i] == node)
			return true;
	return false;
}

/* Saves the attributes if they are frozen, and gives this epoch's dirt. NULL: out of memory. */
static struct dirt *touch(struct mutation *mutation, struct node *node)
{
	struct journal *journal = mutation->journal;
	struct dirt *frozen = journal_frozen(journal, node);
	struct dirt *dirt;

	assert(is_locked(mutation, node));
	if (frozen && !frozen->read_done && !frozen->past)
		frozen_capture(journal, frozen);
	dirt = current_dirt(journal, node, NULL);
	if (dirt)
		dirt_touch(journal, dirt);
	return dirt;
}

int mutation_attrs(struct mutation *mutation, struct node *node)
{
	if (OMIT("omit/attrs"))
		return 0;
	return touch(mutation, node) ? 0 : -ENOMEM;
}

int mutation_data(struct mutation *mutation, struct node *node, int64_t offset, int64_t length)
{
	struct journal *journal = mutation->journal;
	struct dirt *dirt = touch(mutation, node);
	int64_t start = offset - offset % GRANULE;
	int64_t end = EXTENT_END;
	struct shard *shard;

	if (!dirt || !extent_map_reserve(&dirt->extents, 1))
		return -ENOMEM;
	if (length == 0 || OMIT("omit/data"))
		return 0;
	if (length > 0 && offset + length <= EXTENT_END - GRANULE)
		end = (offset + length + GRANULE - 1) / GRANULE * GRANULE;
	if (node->frozen && !node->frozen->read_done && !OMIT("omit/preimages"))
		frozen_save(journal, node->frozen, start, end);
	extent_map_add(&dirt->extents, start, end);
	if (length > 0) {
		dirt->bytes += length;
		shard = journal_shard(journal, node);
		pthread_mutex_lock(&shard->mutex);
		shard->bytes += length;
		pthread_mutex_unlock(&shard->mutex);
	}
	return 0;
}

int mutation_unname(struct mutation *mutation, struct node *node)
{
	struct journal *journal = mutation->journal;
	struct stat st;
	int fd;

	if (!touch(mutation, node))
		return -ENOMEM;
	if (node->frozen && !node->frozen->read_done)
		frozen_keep_fd(journal, node->frozen);
	if (atomic_load(&node->held_fd) >= 0)
		return 0;
	/* The kernel may go on using an inode without a name; its handle will not open any more. */
	fd = backing_fd_get(journal->backing, node);
	if (fd < 0)
		return 0;
	if (fstat(fd, &st) == 0 && (S_ISDIR(st.st_mode) || st.st_nlink <= 1))
		backing_hold(journal->backing, node);
	backing_fd_put(journal->backing, node, fd);
	return 0;
}

int mutation_name(struct mutation *mutation, struct node *dir, const char *name)
{
	size_t length = strlen(name);
	struct dirt *dirt = touch(mutation, dir);
	struct dirty_name *entry;
	struct shard *shard;
	bool large;

	assert(mutation->name_count < 2);
	if (!dirt)
		return -ENOMEM;
	entry = dirt_find_name(dirt, name, length);
	if (!entry) {
		entry = calloc(1, sizeof *entry + length + 1);
		if (!entry)
			return -ENOMEM;
		entry->length = (uint16_t)length;
		memcpy(entry->text, name, length);
		if (!dirt_insert_name(dirt, entry)) {
			free(entry);
			return -ENOMEM;
		}
		shard = journal_shard(mutation->journal, dir);
		pthread_mutex_lock(&shard->mutex);
		shard->names++;
		large = shard_is_large(shard);
		pthread_mutex_unlock(&shard->mutex);
		if (large)
			journal_wake(mutation->journal);
	}
	mutation->name_dir[mutation->name_count] = dir;
	mutation->name[mutation->name_count] = entry;
	mutation->name_count++;
	return 0;
}

void mutation_set_name(struct mutation *mutation, int slot, struct node *child)
{
	struct journal *journal = mutation->journal;
	struct dirty_name *entry = mutation->name[slot];
	struct node *before = entry->child;

	if (OMIT("omit/names"))
		return;
	if (child)
		node_ref(journal->nodes, child);
	entry->child = child;
	entry->set = true;
	entry->unflushed = true;
	dirt_touch(journal, mutation->name_dir[slot]->dirt);
	if (before)
		node_put(journal->nodes, before);
}

void mutation_adopt(struct mutation *mutation, struct node *child)
{
	struct dirt *dirt;

	/* Nobody else can hold this lock and want one of ours: the kernel learns of the inode by our reply only, and the sealer takes one lock at a time. (Tried first, so that a
	 * thread sanitizer, which can't know that, sees no order between the two.) */
	if (!small_lock_try(&child->lock))
		small_lock_take(&child->lock);
	journal_frozen(mutation->journal, child);
	dirt = current_dirt(mutation->journal, child, &mutation->spare);
	assert(dirt);
	dirt->whole = true;
	extent_map_clear(&dirt->extents);
	extent_map_add(&dirt->extents, 0, EXTENT_END);
	dirt_touch(mutation->journal, dirt);
	small_lock_leave(&child->lock);
}

void mutation_end(struct mutation *mutation)
{
	for (int i = 0; i < mutation->name_count; i++) {
		/* Both slots may be one entry (rename of a name onto itself): look it up again. */
		struct dirt *dirt = mutation->name_dir[i]->dirt;
		bool again = i == 1 && mutation->name[0] == mutation->name[1];

		if (!again && !mutation->name[i]->set)
			dirt_remove_name(mutation->journal, dirt, mutation->name[i]);
	}
	int64_t now_ns = clock_wall_ns();
	for (int i = mutation->locked_count - 1; i >= 0; i--) {
		if (mutation->locked[i]->dirt)
			mutation->locked[i]->dirt->touched_ns = now_ns;
		small_lock_leave(&mutation->locked[i]->lock);
	}
	cut_lock_leave(&mutation->journal->lock, mutation->stripe);
	dirt_put(mutation->journal, mutation->spare);
}

bool journal_node_pending(struct journal *journal, struct node *node)
{
	bool pending;

	small_lock_take(&node->lock);
	pending = node->dirt || node->frozen;
	small_lock_leave(&node->lock);
	return pending || suspect_is(journal, node);
}

void journal_get_counts(struct journal *journal, struct journal_counts *out)
{
	memset(out, 0, sizeof *out);
	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		struct shard *shard = &journal->shards[i];

		pthread_mutex_lock(&shard->mutex);
		out->dirty_inodes += shard->inodes;
		out->dirty_names += shard->names;
		out->dirty_bytes += shard->bytes;
		pthread_mutex_unlock(&shard->mutex);
	}
	out->first_change_ns = atomic_load(&journal->first_change_ns);
	out->frozen_bytes = atomic_load(&journal->frozen_bytes);
	if (out->frozen_bytes < 0)
		out->frozen_bytes = 0;
	out->frozen_first_ns = atomic_load(&journal->frozen_first_ns);
	out->preimage_bytes = preimage_bytes(journal->preimages);
	out->abandoned = atomic_load(&journal->abandoned);
	out->suspects = atomic_load(&journal->suspects.count);
	pthread_mutex_lock(&journal->store_mutex);
	out->unsettled = journal->unsettled_rows;
	pthread_mutex_unlock(&journal->store_mutex);
}

/* ------------------------------------------------------------------ found by a rescan */

int journal_note_inode(struct journal *journal, const struct node_key *key, mode_t type, bool whole)
{
	struct node *node = node_get(journal->nodes, key, type, -1);
	struct mutation mutation;
	int result;

	if (!node)
		return -ENOMEM;
	result = mutation_begin(&mutation, journal);
	if (result == 0) {
		mutation_lock(&mutation, node, NULL, NULL, NULL);
		result = whole ? mutation_data(&mutation, node, 0, -1) : mutation_attrs(&mutation, node);
		if (result == 0 && whole)
			node->dirt->whole = true;
		mutation_end(&mutation);
	}
	node_put(journal->nodes, node);
	return result;
}

/* What the name stands for: names on disk beat what somebody saw or wrote down (I12). While the directory is locked no operation is between its change and its record, so the value belongs
 * to this epoch whatever operations and cuts there were since. *child is what was seen, and stays when the disk doesn't tell. 0 or -ENOMEM. */
static int name_on_disk(struct journal *journal, int dir_fd, const char *name, struct node **child)
{
	struct node *seen = *child;
	struct node_key key;
	struct stat st;
	int fd, result;

	result = dir_fd < 0 ? dir_fd : backing_identify(journal->backing, dir_fd, name, &key, &st, &fd);
	if (result == 0) {
		*child = node_get(journal->nodes, &key, st.st_mode, fd);
		close(fd);
	} else if (result == -ENOENT || result == -ESTALE || result == -ENOTDIR) {
		*child = NULL;
	} else {
		return 0;
	}
	node_put(journal->nodes, seen);
	return result == 0 && !*child ? -ENOMEM : 0;
}

/* *child: a reference, which may be exchanged for another. */
static int note_name(struct journal *journal, struct node *dir, const char *name, struct node **child)
{
	/* Before the locks: without a handle the database may have to be asked for the way. */
	int fd = backing_fd_get(journal->backing, dir);
	struct mutation mutation;
	int result = mutation_begin(&mutation, journal);

	if (result == 0) {
		mutation_lock(&mutation, dir, NULL, NULL, NULL);
		result = mutation_name(&mutation, dir, name);
		if (result == 0)
			result = name_on_disk(journal, fd, name, child);
		if (result == 0)
			mutation_set_name(&mutation, 0, *child);
		mutation_end(&mutation);
	}
	if (fd >= 0)
		backing_fd_put(journal->backing, dir, fd);
	return result;
}

int journal_note_name(struct journal *journal, const struct node_key *dir_key, const char *name,
		      const struct node_key *child_key, mode_t child_type)
{
	struct node *dir = node_get(journal->nodes, dir_key, S_IFDIR, -1);
	struct node *child = child_key ? node_get(journal->nodes, child_key, child_type, -1) : NULL;
	int result = dir && (child || !child_key) ? note_name(journal, dir, name, &child) : -ENOMEM;

	node_put(journal->nodes, child);
	node_put(journal->nodes, dir);
	return result;
}

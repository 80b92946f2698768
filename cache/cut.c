/* The cut: the swap that ends a version, what operations save for it (I4), what the sealer reads of it (I5), and its end (I6). */
#include "journal_internal.h"

#include "clock.h"
#include "failpoint.h"
#include "io.h"
#include "log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAVE_SLICE (1 << 20) /* bytes read and saved at a time */
#define SAVE_MAX (INT64_C(256) << 20) /* by one operation (a truncation): for more it would have to wait too long */
#define COPY_MAX (INT64_C(8) << 20) /* of a file that loses its name, when there are no descriptors left: an operation is not kept longer */

/* ------------------------------------------------------------------ saving: operations, node->lock held */

static void abandon(struct journal *journal)
{
	struct cut *cut = atomic_load(&journal->cut);

	if (cut)
		atomic_store(&cut->abandoned, true);
}

/* What the disk does not give of one inode must not keep the others out of every version; what we lack passes. */
static void cannot_save(struct journal *journal, struct dirt *frozen, int number)
{
	if (backing_is_shortage(number))
		abandon(journal);
	else
		frozen->past->unreadable = number;
}

void frozen_capture(struct journal *journal, struct dirt *frozen)
{
	struct past *past = calloc(1, sizeof *past);
	int fd = past ? backing_fd_get(journal->backing, frozen->node) : -ENOMEM;
	int result = fd < 0 ? fd : backing_attrs(journal->backing, fd, &past->attrs);

	if (fd >= 0)
		backing_fd_put(journal->backing, frozen->node, fd);
	if (backing_is_shortage(-result)) {
		free(past);
		abandon(journal);
		return;
	}
	past->fd = -1;
	frozen->past = past;
	if (result != 0 && result != -ESTALE && result != -ENOENT)
		past->unreadable = -result;
	else /* without a name at the cut it is in no version (a directory that was removed has nlink 0 too); what opens nothing, who seals it decides by its names */
		past->gone = result != 0 || past->attrs.st.st_nlink == 0;
}

bool frozen_make_pending(struct dirt *frozen)
{
	struct past *past = frozen->past;

	if (!past->pending_made) {
		if (!extent_map_copy(&past->pending, &frozen->extents))
			return false;
		past->pending_made = true;
	}
	return true;
}

int frozen_reading_fd(struct journal *journal, struct dirt *frozen)
{
	if (frozen->past->fd < 0) {
		int fd = backing_reopen(journal->backing, frozen->node, O_RDONLY | O_NOATIME);

		if (fd == -EPERM)
			fd = backing_reopen(journal->backing, frozen->node, O_RDONLY);
		if (fd < 0)
			return fd;
		frozen->past->fd = fd;
		atomic_fetch_add(&journal->frozen_fds, 1);
	}
	return frozen->past->fd;
}

/* Index of the first saved range that ends after `offset`. */
uint32_t frozen_saved_find(const struct dirt *frozen, int64_t offset)
{
	uint32_t low = 0, high = frozen->past->saved_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (frozen->past->saved[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool all_zero(const char *data, size_t length)
{
	return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

/* Keeps [start, end) with these bytes (NULL: zeros). Takes the range out of pending. */
static bool keep(struct journal *journal, struct dirt *frozen, int64_t start, int64_t end, const char *data)
{
	struct preimage *bytes = NULL;
	uint32_t at;

	if (frozen->past->saved_count == frozen->past->saved_capacity) {
		uint32_t capacity = frozen->past->saved_capacity ? frozen->past->saved_capacity * 2 : 4;
		struct saved_range *grown = realloc(frozen->past->saved, capacity * sizeof *grown);

		if (!grown)
			return false;
		frozen->past->saved = grown;
		frozen->past->saved_capacity = capacity;
	}
	if (!extent_map_reserve(&frozen->past->pending, 1))
		return false;
	if (data && !all_zero(data, (size_t)(end - start))) {
		bytes = preimage_put(journal->preimages, data, (size_t)(end - start));
		if (!bytes)
			return false;
	}
	at = frozen_saved_find(frozen, start);
	memmove(&frozen->past->saved[at + 1], &frozen->past->saved[at], (frozen->past->saved_count - at) * sizeof *frozen->past->saved);
	frozen->past->saved[at] = (struct saved_range){start, end, bytes};
	frozen->past->saved_count++;
	extent_map_remove(&frozen->past->pending, start, end);
	return true;
}

/* Reads [start, end) from disk, slice by slice, and keeps it. Holes are not read. 0; the errno of the read; ENOMEM: no room. */
static int save_range(struct journal *journal, struct dirt *frozen, int fd, int64_t start, int64_t end, char *slice)
{
	while (start < end) {
		int64_t stop = end - start > SAVE_SLICE ? start + SAVE_SLICE : end;
		int64_t data = lseek(fd, start, SEEK_DATA);
		ssize_t got;

		if (data < 0 && errno == ENXIO)
			data = end;
		if (data >= stop) {
			stop = data < end ? data : end;
			if (!keep(journal, frozen, start, stop, NULL))
				return ENOMEM;
			start = stop;
			continue;
		}
		got = io_pread(fd, slice, (size_t)(stop - start), start);
		if (got < 0)
			return errno;
		memset(slice + got, 0, (size_t)(stop - start - got));
		if (!keep(journal, frozen, start, stop, slice))
			return ENOMEM;
		start = stop;
	}
	return 0;
}

/* Bytes of [start, end) that are still on disk only; those of holes count as long as the file has blocks. */
static int64_t bytes_to_save(const struct dirt *frozen, int64_t start, int64_t end)
{
	const int64_t blocks = (int64_t)frozen->past->attrs.st.st_blocks * 512;
	struct extent range;
	int64_t bytes = 0;

	for (int64_t at = start; at < end && extent_map_next(&frozen->past->pending, at, &range) && range.start < end; at = range.end)
		bytes += (range.end < end ? range.end : end) - range.start;
	return bytes < blocks ? bytes : blocks;
}

void frozen_save(struct journal *journal, struct dirt *frozen, int64_t start, int64_t end)
{
	struct cut *cut = atomic_load(&journal->cut);
	struct extent range;
	char *slice = NULL;
	int failure = 0;

	if (!cut || atomic_load(&cut->abandoned) || frozen->past->gone || frozen->past->unreadable)
		return;
	if (!frozen_make_pending(frozen)) {
		abandon(journal);
		return;
	}
	/* Beyond the size at the cut there is nothing to save: the version's bytes end there. */
	if (end > frozen->past->attrs.st.st_size)
		end = frozen->past->attrs.st.st_size;
	if (bytes_to_save(frozen, start, end) > SAVE_MAX) {
		abandon(journal);
		return;
	}
	while (!failure && start < end && extent_map_next(&frozen->past->pending, start, &range) && range.start < end) {
		if (range.end > end)
			range.end = end;
		int fd = frozen_reading_fd(journal, frozen);
		if (!slice)
			slice = malloc(SAVE_SLICE);
		failure = fd < 0 ? -fd : !slice ? ENOMEM : save_range(journal, frozen, fd, range.start, range.end, slice);
		start = range.end;
	}
	free(slice);
	if (failure)
		cannot_save(journal, frozen, failure);
}

void frozen_close_fd(struct journal *journal, struct dirt *frozen)
{
	if (!frozen->past || frozen->past->fd < 0)
		return;
	close(frozen->past->fd);
	frozen->past->fd = -1;
	atomic_fetch_sub(&journal->frozen_fds, 1);
}

void frozen_keep_fd(struct journal *journal, struct dirt *frozen)
{
	struct cut *cut = atomic_load(&journal->cut);

	if (!S_ISREG(frozen->node->type) || !cut || atomic_load(&cut->abandoned) || frozen->past->gone || frozen->past->unreadable ||
	    frozen->past->fd >= 0)
		return;
	if (!frozen_make_pending(frozen)) {
		abandon(journal);
		return;
	}
	if (frozen->past->pending.count == 0)
		return;
	if (atomic_load(&journal->frozen_fds) < journal->frozen_fd_cap) {
		int fd = frozen_reading_fd(journal, frozen);
		if (fd < 0)
			cannot_save(journal, frozen, -fd);
	} else if (extent_map_bytes(&frozen->past->pending, frozen->past->attrs.st.st_size) <= COPY_MAX) {
		frozen_save(journal, frozen, 0, EXTENT_END);
		frozen_close_fd(journal, frozen);
	} else {
		abandon(journal);
	}
}

/* ------------------------------------------------------------------ the swap */

static size_t dirty_count(struct journal *journal)
{
	size_t count = 0;

	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		pthread_mutex_lock(&journal->shards[i].mutex);
		count += journal->shards[i].inodes;
		pthread_mutex_unlock(&journal->shards[i].mutex);
	}
	return count;
}

/* Write side held: moves the shards' lists into the cut and begins the next epoch. */
static void swap(struct journal *journal, struct cut *cut, struct dirt *lists[JOURNAL_SHARDS])
{
	cut->epoch = atomic_load(&journal->epoch);
	cut->time_ns = clock_wall_ns();
	cut->first_change_ns = atomic_exchange(&journal->first_change_ns, 0);
	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		struct shard *shard = &journal->shards[i];

		/* No operation is inside, but the journal thread may look. */
		pthread_mutex_lock(&shard->mutex);
		lists[i] = shard->dirty;
		cut->count += shard->inodes;
		cut->names += shard->names;
		cut->bytes += shard->bytes;
		shard->dirty = NULL;
		shard->inodes = shard->names = 0;
		shard->bytes = 0;
		pthread_mutex_unlock(&shard->mutex);
	}
	atomic_store(&journal->frozen_bytes, cut->bytes);
	atomic_store(&journal->frozen_first_ns, cut->first_change_ns);
	/* From here on whoever touches an inode of the cut freezes it (journal_frozen). */
	atomic_store(&journal->cut, cut);
	atomic_store(&journal->epoch, cut->epoch + 1);
}

int journal_cut(struct journal *journal, int64_t wait_ns, struct cut **out)
{
	struct dirt *lists[JOURNAL_SHARDS];
	struct cut *cut;
	size_t capacity = 0, at = 0;

	assert(!atomic_load(&journal->cut));
	if (atomic_load(&journal->first_change_ns) == 0)
		return ERR_ABSENT;
	cut = calloc(1, sizeof *cut);
	if (!cut)
		return ERR_NOMEM;
	cut->journal = journal;
	for (;;) {
		size_t count = dirty_count(journal);

		/* The array is made before the swap, so that a cut that was taken can't fail. */
		if (count > capacity || !cut->items) {
			free(cut->items);
			capacity = count + count / 4 + 64;
			cut->items = calloc(capacity, sizeof(struct dirt *));
		}
		if (!cut->items || !cut_lock_close(&journal->lock, wait_ns)) {
			int result = cut->items ? ERR_TIMEOUT : ERR_NOMEM;

			free(cut->items);
			free(cut);
			return result;
		}
		if (dirty_count(journal) <= capacity)
			break;
		cut_lock_open(&journal->lock);
	}
	swap(journal, cut, lists);
	cut_lock_open(&journal->lock);
	FAILPOINT("cut/swapped");

	for (int i = 0; i < JOURNAL_SHARDS; i++)
		for (struct dirt *dirt = lists[i]; dirt; dirt = dirt->next)
			cut->items[at++] = dirt;
	assert(at == cut->count);
	*out = cut;
	return ERR_OK;
}

int64_t cut_epoch(const struct cut *cut)
{
	return cut->epoch;
}

int64_t cut_time_ns(const struct cut *cut)
{
	return cut->time_ns;
}

size_t cut_count(const struct cut *cut)
{
	return cut->count;
}

struct frozen *cut_item(struct cut *cut, size_t index)
{
	return frozen_of(cut->items[index]);
}

bool cut_is_abandoned(const struct cut *cut)
{
	return atomic_load(&cut->abandoned);
}

/* ------------------------------------------------------------------ the end of a cut */

static void free_cut(struct cut *cut)
{
	atomic_store(&cut->journal->frozen_bytes, 0);
	atomic_store(&cut->journal->frozen_first_ns, 0);
	free(cut->items);
	free(cut);
}

/* Takes the dirt off its node. node->lock held. */
static void detach(struct dirt *dirt)
{
	if (dirt->node->frozen == dirt)
		dirt->node->frozen = NULL;
	else if (dirt->node->dirt == dirt)
		dirt->node->dirt = NULL;
}

void cut_commit(struct cut *cut)
{
	struct journal *journal = cut->journal;

	for (size_t i = 0; i < cut->count; i++) {
		struct dirt *dirt = cut->items[i];

		small_lock_take(&dirt->node->lock);
		detach(dirt);
		dirt->over = true;
		dirt_free_frozen(journal, dirt);
		small_lock_leave(&dirt->node->lock);
		dirt_put(journal, dirt);
	}
	atomic_store(&journal->cut, NULL);
	suspect_end(journal, cut->epoch, true);
	free_cut(cut);
}

void dirt_mark_names_unflushed(struct dirt *dirt)
{
	for (uint32_t i = 0; i < dirt->name_buckets; i++)
		for (struct dirty_name *entry = dirt->names[i]; entry; entry = entry->next)
			entry->unflushed = true;
}

/* Moves the names of an abandoned part into the newer one, which knows better where both have a value. */
static void merge_names(struct journal *journal, struct dirt *newer, struct dirt *older)
{
	struct shard *shard = journal_shard(journal, newer->node);
	uint32_t before = newer->name_count;

	if (!newer->name_buckets) {
		newer->names = older->names;
		newer->name_buckets = older->name_buckets;
		newer->name_count = older->name_count;
		older->names = NULL;
		older->name_buckets = older->name_count = 0;
	}
	for (uint32_t i = 0; i < older->name_buckets; i++) {
		for (struct dirty_name **at = &older->names[i]; *at;) {
			struct dirty_name *entry = *at;

			if (dirt_find_name(newer, entry->text, entry->length)) {
				at = &entry->next; /* freed with the older part */
				continue;
			}
			*at = entry->next;
			older->name_count--;
			dirt_insert_name(newer, entry); /* there is a table: it can't fail */
		}
	}
	dirt_mark_names_unflushed(newer);
	pthread_mutex_lock(&shard->mutex);
	shard->names += newer->name_count - before;
	pthread_mutex_unlock(&shard->mutex);
}

static void merge_into(struct journal *journal, struct dirt *newer, struct dirt *older)
{
	struct shard *shard = journal_shard(journal, newer->node);

	newer->whole |= older->whole;
	if (newer->touched_ns < older->touched_ns)
		newer->touched_ns = older->touched_ns;
	if (!extent_map_merge(&newer->extents, &older->extents)) {
		/* No memory: the whole file then; a range is always there or reserved at birth. */
		extent_map_clear(&newer->extents);
		extent_map_add(&newer->extents, 0, EXTENT_END);
	}
	merge_names(journal, newer, older);
	newer->bytes += older->bytes;
	pthread_mutex_lock(&shard->mutex);
	shard->bytes += older->bytes;
	pthread_mutex_unlock(&shard->mutex);
	older->over = true;
}

void cut_abandon(struct cut *cut)
{
	struct journal *journal = cut->journal;
	int64_t none = 0;

	atomic_store(&cut->abandoned, true); /* nobody needs to save any more */
	suspect_end(journal, cut->epoch, false);
	for (size_t i = 0; i < cut->count; i++) {
		struct dirt *dirt = cut->items[i];
		struct node *node = dirt->node;
		bool merged;

		small_lock_take(&node->lock);
		journal_frozen(journal, node); /* so that node->dirt is of this epoch, if any */
		detach(dirt);
		dirt_free_frozen(journal, dirt);
		merged = node->dirt != NULL;
		if (merged) {
			merge_into(journal, node->dirt, dirt);
		} else {
			dirt->epoch = atomic_load(&journal->epoch);
			node->dirt = dirt;
			dirt_mark_names_unflushed(dirt);
			dirt_list(journal, dirt);
		}
		dirt_touch(journal, node->dirt);
		small_lock_leave(&node->lock);
		if (merged)
			dirt_put(journal, dirt);
	}
	atomic_fetch_add(&journal->abandoned, 1);
	/* The oldest uncut change is as old as it was. */
	if (cut->first_change_ns && !atomic_compare_exchange_strong(&journal->first_change_ns, &none, cut->first_change_ns))
		atomic_store(&journal->first_change_ns, cut->first_change_ns);
	atomic_store(&journal->cut, NULL);
	free_cut(cut);
}

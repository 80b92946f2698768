/* What the sealer reads of a cut (I5): each frozen byte once, into a private buffer, re-checked under the inode's lock. */
#include "journal_internal.h"

#include "clock.h"
#include "failpoint.h"
#include "io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct dirt *dirt_of(struct frozen *frozen)
{
	return &frozen->dirt;
}

const struct node_key *frozen_key(const struct frozen *frozen)
{
	return &frozen->dirt.node->key;
}

mode_t frozen_type(const struct frozen *frozen)
{
	return frozen->dirt.node->type;
}

int frozen_names(const struct frozen *frozen,
		 int (*fn)(void *context, const char *name, const struct node_key *child, mode_t type), void *context)
{
	const struct dirt *dirt = &frozen->dirt;

	/* After the cut only cut_abandon and cut_commit, of this thread, change the table. */
	for (uint32_t i = 0; i < dirt->name_buckets; i++) {
		for (const struct dirty_name *entry = dirt->names[i]; entry; entry = entry->next) {
			int result;

			if (!entry->set)
				continue;
			result = fn(context, entry->text, entry->child ? &entry->child->key : NULL,
				    entry->child ? entry->child->type : 0);
			if (result != 0)
				return result;
		}
	}
	return 0;
}

bool frozen_whole(const struct frozen *frozen)
{
	return frozen->dirt.whole;
}

bool frozen_changed_behind(const struct frozen *frozen, const struct attrs *attrs)
{
	/* Constant since frozen_attrs: from then on operations have another dirt (journal_frozen). */
	return timespec_ns(attrs->st.st_ctim) > frozen->dirt.touched_ns;
}

const struct extent_map *frozen_extents(const struct frozen *frozen)
{
	return &frozen->dirt.extents;
}

static int copy_attrs(struct attrs *out, const struct attrs *from)
{
	*out = *from;
	out->xattrs = NULL;
	out->target = NULL;
	if (from->xattrs) {
		out->xattrs = malloc(from->xattrs_length ? from->xattrs_length : 1);
		if (!out->xattrs)
			goto nomem;
		memcpy(out->xattrs, from->xattrs, from->xattrs_length);
	}
	if (from->target) {
		out->target = malloc(from->target_length + 1);
		if (!out->target)
			goto nomem;
		memcpy(out->target, from->target, from->target_length);
		out->target[from->target_length] = '\0';
	}
	return ERR_OK;
nomem:
	attrs_free(out);
	return ERR_NOMEM;
}

/* Of past->unreadable, of which nobody has what an operation was to save: removed behind our back, so it seems (ERR_ABSENT), or refused. */
static int refusal(const struct past *past) { return past->unreadable == ESTALE || past->unreadable == ENOENT ? ERR_ABSENT : ERR_DENIED; }

static int tell_refusal(struct frozen *frozen, int refusal, struct error *error)
{
	if (refusal == ERR_ABSENT)
		return error_set(error, ERR_ABSENT, 0, "a changed file disappeared before it was read");
	return error_errno(error, frozen_unreadable(frozen), "cannot read a changed file");
}

int frozen_attrs(struct frozen *frozen, struct attrs *out)
{
	struct dirt *dirt = dirt_of(frozen);
	struct journal *journal = dirt->journal;
	struct cut *cut = atomic_load(&journal->cut);
	int result;

	memset(out, 0, sizeof *out);
	small_lock_take(&dirt->node->lock);
	journal_frozen(journal, dirt->node);
	if (!dirt->past)
		frozen_capture(journal, dirt);
	if (dirt->past)
		dirt->past->reading_ns = clock_mono_ns();
	if (atomic_load(&cut->abandoned))
		result = ERR_ABANDONED;
	else if (dirt->past->unreadable)
		result = refusal(dirt->past);
	else if (dirt->past->gone)
		result = ERR_ABSENT;
	else
		result = copy_attrs(out, &dirt->past->attrs);
	small_lock_leave(&dirt->node->lock);
	return result;
}

int frozen_unreadable(struct frozen *frozen)
{
	struct dirt *dirt = dirt_of(frozen);
	int number;

	small_lock_take(&dirt->node->lock);
	number = dirt->past ? dirt->past->unreadable : 0;
	small_lock_leave(&dirt->node->lock);
	return number;
}

/* node->lock held: the first time the sealer or an operation looks at the bytes. */
static int prepare(struct journal *journal, struct dirt *dirt)
{
	journal_frozen(journal, dirt->node);
	assert(dirt->past && !dirt->past->gone);
	if (dirt->past->unreadable)
		return refusal(dirt->past);
	if (!frozen_make_pending(dirt))
		return ERR_NOMEM;
	return ERR_OK;
}

int64_t frozen_next_data(struct frozen *frozen, int64_t offset, int64_t end)
{
	struct dirt *dirt = dirt_of(frozen);
	struct journal *journal = dirt->journal;
	int64_t at = offset;
	int fd;

	small_lock_take(&dirt->node->lock);
	if (prepare(journal, dirt) != ERR_OK || !extent_map_reserve(&dirt->past->pending, 1))
		goto all; /* frozen_read will meet the same and say so */
	if (end > dirt->past->attrs.st.st_size)
		end = dirt->past->attrs.st.st_size > offset ? dirt->past->attrs.st.st_size : offset;
	while (at < end) {
		uint32_t i = frozen_saved_find(dirt, at);
		int64_t live;

		/* A saved range speaks for the cut, whatever lies on disk now. */
		if (i < dirt->past->saved_count && dirt->past->saved[i].start <= at) {
			if (dirt->past->saved[i].bytes)
				break;
			at = dirt->past->saved[i].end;
			continue;
		}
		fd = frozen_reading_fd(journal, dirt);
		if (fd < 0)
			break; /* likewise */
		live = lseek(fd, at, SEEK_DATA);
		if (live < 0)
			live = errno == ENXIO ? end : at;
		if (live == at)
			break;
		at = live;
		if (i < dirt->past->saved_count && dirt->past->saved[i].start < at)
			at = dirt->past->saved[i].start;
	}
	if (at > end)
		at = end;
	extent_map_remove(&dirt->past->pending, offset, at);
	small_lock_leave(&dirt->node->lock);
	return at;
all:
	small_lock_leave(&dirt->node->lock);
	return offset;
}

int64_t frozen_next_hole(struct frozen *frozen, int64_t offset, int64_t end)
{
	struct dirt *dirt = dirt_of(frozen);
	int fd;

	small_lock_take(&dirt->node->lock);
	fd = prepare(dirt->journal, dirt) == ERR_OK ? frozen_reading_fd(dirt->journal, dirt) : -1;
	small_lock_leave(&dirt->node->lock);
	/* Without the lock: as far as there is data, the kernel looks through all of it. What is on disk by now is good enough for a hint. */
	off_t hole = fd < 0 ? -1 : lseek(fd, offset, SEEK_HOLE);
	return hole >= offset && hole < end ? hole : end;
}

/* Reads what is on disk now; short at the end of the file: zeros. */
static int read_disk(int fd, char *data, size_t length, int64_t offset)
{
	ssize_t got = io_pread(fd, data, length, offset);

	if (got < 0)
		return -errno;
	memset(data + got, 0, length - (size_t)got);
	return 0;
}

/* Lays the saved bytes over what was read. node->lock held. */
static bool overlay(struct journal *journal, struct dirt *dirt, char *data, int64_t offset, int64_t end)
{
	for (uint32_t i = frozen_saved_find(dirt, offset); i < dirt->past->saved_count && dirt->past->saved[i].start < end; i++) {
		const struct saved_range *saved = &dirt->past->saved[i];
		int64_t from = saved->start > offset ? saved->start : offset;
		int64_t to = saved->end < end ? saved->end : end;

		if (!saved->bytes)
			memset(data + (from - offset), 0, (size_t)(to - from));
		else if (!preimage_get(journal->preimages, saved->bytes, (size_t)(from - saved->start),
				       data + (from - offset), (size_t)(to - from)))
			return false;
	}
	return true;
}

/* Nothing of it is needed from disk, which may not hold the file any more. node->lock held. */
static bool all_saved(const struct dirt *dirt, int64_t offset, int64_t end)
{
	for (uint32_t i = frozen_saved_find(dirt, offset); offset < end; i++) {
		if (i == dirt->past->saved_count || dirt->past->saved[i].start > offset)
			return false;
		offset = dirt->past->saved[i].end;
	}
	return true;
}

int frozen_read(struct frozen *frozen, void *data, size_t length, int64_t offset, struct error *error)
{
	struct dirt *dirt = dirt_of(frozen);
	struct journal *journal = dirt->journal;
	struct cut *cut = atomic_load(&journal->cut);
	int64_t end = offset + (int64_t)length;
	int result, fd = -1;
	char *bytes = data;
	bool saved;

	/* 1 what is pending, and from where; 2 read without the lock; 3 whoever saved part of it meanwhile has the bytes of the cut. */
	small_lock_take(&dirt->node->lock);
	result = prepare(journal, dirt);
	if (result == ERR_OK && !extent_map_reserve(&dirt->past->pending, 1))
		result = ERR_NOMEM;
	if (end > dirt->past->attrs.st.st_size)
		end = dirt->past->attrs.st.st_size > offset ? dirt->past->attrs.st.st_size : offset;
	saved = all_saved(dirt, offset, end);
	if (result == ERR_OK && !saved)
		fd = frozen_reading_fd(journal, dirt);
	small_lock_leave(&dirt->node->lock);
	if (result == ERR_DENIED || result == ERR_ABSENT)
		return tell_refusal(frozen, result, error);
	if (result != ERR_OK)
		return error_set(error, result, 0, "reading a changed file: out of memory");
	if (!saved && (fd == -ESTALE || fd == -ENOENT))
		return tell_refusal(frozen, ERR_ABSENT, error);
	if (!saved && fd < 0)
		return error_errno(error, -fd, "cannot open a changed file for reading");
	memset(bytes + (end - offset), 0, length - (size_t)(end - offset));
	LATCH("frozen/read");
	result = saved ? 0 : read_disk(fd, bytes, (size_t)(end - offset), offset);
	if (result < 0)
		return error_errno(error, -result, "cannot read a changed file");

	small_lock_take(&dirt->node->lock);
	if (atomic_load(&cut->abandoned))
		result = ERR_ABANDONED;
	else if (dirt->past->unreadable) /* an operation could not save what we were reading, and has gone on */
		result = refusal(dirt->past);
	else if (!overlay(journal, dirt, bytes, offset, end))
		result = ERR_ABANDONED;
	else
		extent_map_remove(&dirt->past->pending, offset, offset + (int64_t)length);
	small_lock_leave(&dirt->node->lock);
	if (result == ERR_OK)
		atomic_fetch_sub(&journal->frozen_bytes, (int64_t)length);
	if (result == ERR_DENIED || result == ERR_ABSENT)
		return tell_refusal(frozen, result, error);
	return result == ERR_OK ? ERR_OK : error_set(error, result, 0, "the cut was abandoned");
}

int frozen_read_unchanged(struct frozen *frozen, void *data, size_t length, int64_t offset, struct error *error)
{
	struct dirt *dirt = dirt_of(frozen);
	struct journal *journal = dirt->journal;
	bool changed;
	int result, fd;

	small_lock_take(&dirt->node->lock);
	fd = prepare(journal, dirt) == ERR_OK ? frozen_reading_fd(journal, dirt) : dirt->past->unreadable ? -dirt->past->unreadable : -ENOMEM;
	small_lock_leave(&dirt->node->lock);
	if (fd == -ESTALE)
		return error_set(error, ERR_BUSY, 0, "the file was removed since the cut");
	if (fd < 0)
		return error_errno(error, -fd, "cannot open a changed file for reading");
	result = read_disk(fd, data, length, offset);
	if (result < 0)
		return error_errno(error, -result, "cannot read a changed file");
	/* An operation records before it changes, under this lock: no record means that nothing had begun when we read. */
	small_lock_take(&dirt->node->lock);
	changed = dirt->node->dirt && dirt->node->dirt != dirt &&
		  extent_map_overlaps(&dirt->node->dirt->extents, offset, offset + (int64_t)length);
	small_lock_leave(&dirt->node->lock);
	return changed ? error_set(error, ERR_BUSY, 0, "the file changed since the cut") : ERR_OK;
}

void frozen_done(struct frozen *frozen)
{
	struct dirt *dirt = dirt_of(frozen);
	int64_t took_ns;

	small_lock_take(&dirt->node->lock);
	journal_frozen(dirt->journal, dirt->node);
	took_ns = dirt->past ? clock_mono_ns() - dirt->past->reading_ns : 0;
	dirt_free_frozen(dirt->journal, dirt);
	dirt->read_done = true;
	small_lock_leave(&dirt->node->lock);
	suspect_was_read(dirt->journal, dirt->node, took_ns);
}

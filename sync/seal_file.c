/* The content of one regular file: from its bytes, or its changed ranges, to chunks and extent rows.
 *
 * A file that changed throughout goes through the chunker, which begins anew after a hole: that is neither read nor stored. It takes one of 64 KiB, or of any length at either end of the file; and a file that
 * may change while it is read (seal_whole_now) is read through, holes and all. Of others, each changed range is stored exactly as it is, rounded to blocks: in regions of 2 MiB, without its zero blocks. A region
 * that holds too many extents is read as a whole, if nobody has touched the rest of it since the cut, and stored as one chunk.
 *
 * The rows come from one rule: what is live and intersects what was stored anew keeps the parts that are outside; the difference between that layout and the live one is the delta. So unchanged content never
 * makes a row. */
#include "sealing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK INT64_C(4096)
#define REGION (INT64_C(2) << 20)
#define DENSE 256 /* extents in a region */
#define HOLE_MIN (INT64_C(64) << 10) /* a smaller one within data is zeros in a chunk: two chunks would cost more than it saves */

struct ranges { /* growable; sorted where said */
	struct extent *list;
	size_t count, room;
};

struct layout { /* extents of a file, sorted */
	struct extent_row *list;
	size_t count, room;
};

struct file {
	struct seal_worker *worker;
	int64_t ino;
	const struct seal_content *content;
	struct ranges changed; /* stored anew; the last one ends at EXTENT_END */
	struct layout live;    /* rows that intersect it */
	struct layout fresh;   /* what it now holds */
	struct layout next;    /* what is to be live in their place */
	int64_t zeros_to;      /* end of the hole that was found last: who was told of one must not ask within it again, where somebody may have written since the cut */
	int64_t data_to;       /* where the data ends of which that was asked last: the kernel looks through all of it to say so, which must not be done for each piece */
	struct error *error;
};

static int no_memory(struct file *file) { return error_errno(file->error, ENOMEM, "storing a file"); }

static int range_add(struct file *file, struct ranges *ranges, int64_t start, int64_t end)
{
	if (start >= end)
		return 0;
	if (ranges->count == ranges->room) {
		size_t room = ranges->room ? 2 * ranges->room : 16;
		struct extent *list = reallocarray(ranges->list, room, sizeof(*list));
		if (!list)
			return no_memory(file);
		ranges->list = list;
		ranges->room = room;
	}
	ranges->list[ranges->count++] = (struct extent){start, end};
	return 0;
}

static int layout_add(struct file *file, struct layout *layout, int64_t start, int64_t length, int64_t chunk, int64_t skip)
{
	if (layout->count == layout->room) {
		size_t room = layout->room ? 2 * layout->room : 16;
		struct extent_row *list = reallocarray(layout->list, room, sizeof(*list));
		if (!list)
			return no_memory(file);
		layout->list = list;
		layout->room = room;
	}
	layout->list[layout->count++] = (struct extent_row){file->ino, start, length, chunk, skip};
	return 0;
}

static int range_order(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static int row_order(const void *a, const void *b)
{
	const struct extent_row *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* Sorts, and joins what touches. */
static void ranges_normalise(struct ranges *ranges)
{
	size_t kept = 0;

	if (ranges->count)
		qsort(ranges->list, ranges->count, sizeof(*ranges->list), range_order);
	for (size_t i = 0; i < ranges->count; i++) {
		struct extent *range = &ranges->list[i];
		if (kept && ranges->list[kept - 1].end >= range->start) {
			if (range->end > ranges->list[kept - 1].end)
				ranges->list[kept - 1].end = range->end;
		} else {
			ranges->list[kept++] = *range;
		}
	}
	ranges->count = kept;
}

/* ---------------------------------------------------------------- storing */

static int store(struct file *file, const uint8_t *data, int64_t start, int64_t length)
{
	int64_t num;
	int rc = seal_chunk(file->worker, data, (uint32_t)length, &num, file->error);

	return rc ? rc : layout_add(file, &file->fresh, start, length, num, 0);
}

static int64_t next_data(struct file *file, int64_t offset, int64_t end)
{
	int64_t at = file->content->next_data(file->content->context, offset, end);

	return at < 0 ? at : at > end ? end : at < offset ? offset : at;
}

/* How much of [from, from + most) comes next into the window, and whether it is *zeros of a hole. *gap: not so, a hole that no chunk is to span begins there, and data goes on at *gap; else -1. */
static int64_t next_piece(struct file *file, int64_t from, int64_t most, bool *zeros, int64_t *gap)
{
	const struct seal_content *content = file->content;

	*gap = -1;
	if (from >= file->zeros_to) {
		int64_t data = next_data(file, from, content->size);
		if (data < 0)
			return data;
		file->zeros_to = data;
		if (data > from && (from == 0 || data == content->size || data - from >= HOLE_MIN))
			*gap = data;
	}
	*zeros = file->zeros_to > from;
	if (*zeros)
		return file->zeros_to - from < most ? file->zeros_to - from : most;
	if (most > REGION)
		most = REGION; /* look for holes now and then, though nobody says where the next one is */
	if (content->next_hole && from >= file->data_to)
		file->data_to = content->next_hole(content->context, from, content->size);
	return file->data_to > from && file->data_to - from < most ? file->data_to - from : most;
}

/* Fills the window from `at` on until it is full or a hole begins. *length is what it holds; *gap: where data goes on after a hole, else -1. */
static int fill(struct file *file, uint8_t *window, int64_t at, size_t *length, int64_t *gap)
{
	const struct seal_content *content = file->content;

	*gap = -1;
	while (*length < SEAL_WINDOW_BYTES && at + (int64_t)*length < content->size) {
		int64_t from = at + (int64_t)*length, room = (int64_t)(SEAL_WINDOW_BYTES - *length);
		bool zeros = false;
		int64_t piece = next_piece(file, from, content->size - from < room ? content->size - from : room, &zeros, gap);
		int rc = 0;
		if (piece < 0)
			return error_set(file->error, (int)piece, 0, "looking for holes: %s", error_word((int)piece));
		if (*gap >= 0)
			return 0;
		if (zeros)
			memset(window + *length, 0, (size_t)piece);
		else
			rc = content->read(content->context, window + *length, (size_t)piece, from, file->error);
		if (rc)
			return rc;
		*length += (size_t)piece;
	}
	return 0;
}

/* The whole file through the chunker, which begins anew after each hole. */
static int store_all(struct file *file, uint8_t *window)
{
	const struct chunker *chunker = file->worker->sealing->env->chunker;
	int64_t at = 0, gap = -1, size = file->content->size;
	size_t length = 0, used = 0;
	bool ends = false; /* what the window holds ends at a hole or at the end of the file */
	int rc = 0;

	while (!rc) {
		if (!ends && length - used < chunker_max(chunker)) {
			memmove(window, window + used, length - used);
			length -= used;
			used = 0;
			rc = fill(file, window, at, &length, &gap);
			ends = gap >= 0 || at + (int64_t)length >= size;
			if (rc)
				break;
		}
		if (used < length) {
			uint32_t piece = chunker_next(chunker, window + used, length - used);
			if (!bytes_all_zero(window + used, piece))
				rc = store(file, window + used, at, piece);
			used += piece;
			at += piece;
			continue;
		}
		if (gap < 0 || gap >= size)
			break;
		at = gap;
		length = used = 0;
		ends = false;
	}
	return rc;
}

/* Runs of blocks that are not all zero, of data that stands for [start, start + length). */
static int store_blocks(struct file *file, const uint8_t *data, int64_t start, int64_t length)
{
	int64_t at = 0;
	int rc = 0;

	while (at < length && !rc) {
		int64_t run = at;
		while (run < length) {
			int64_t block = length - run < BLOCK ? length - run : BLOCK;
			if (bytes_all_zero(data + run, (size_t)block))
				break;
			run += block;
		}
		if (run > at)
			rc = store(file, data + at, start + at, run - at);
		at = run + BLOCK;
	}
	return rc;
}

/* The parts of [start, end) that did not change, into the region's buffer. ERR_BUSY: somebody has changed them since the cut. */
static int read_rest(struct file *file, const struct ranges *changed, int64_t start, int64_t end, uint8_t *buffer)
{
	const struct seal_content *content = file->content;
	int64_t at = start;
	struct error ignored;

	for (size_t i = 0; i <= changed->count && at < end; i++) {
		int64_t stop = i < changed->count && changed->list[i].start < end ? changed->list[i].start : end;
		if (at < stop) {
			int rc = content->read_unchanged(content->context, buffer + (at - start), (size_t)(stop - at), at, &ignored);
			if (rc)
				return rc;
		}
		if (i < changed->count && changed->list[i].end > at)
			at = changed->list[i].end;
	}
	return 0;
}

static int is_dense(struct file *file, int64_t start, int64_t end, bool *dense)
{
	struct db_conn *conn = seal_reader_conn(&file->worker->reader, file->error);
	struct extent_place *places;
	size_t count;

	if (!conn)
		return ERR_FAILED;
	int rc = catalogue_extents(conn, CATALOGUE_LIVE, file->ino, start, end, &places, &count);
	if (rc)
		return error_set(file->error, rc, 0, "catalogue: can't read the extents of inode %lld", (long long)file->ino);
	free(places);
	*dense = count > DENSE;
	return 0;
}

/* One region, in which data of a changed range begins at `from`. */
static int store_region(struct file *file, const struct ranges *changed, size_t first, int64_t from, int64_t end, uint8_t *buffer)
{
	int64_t start = from / REGION * REGION;
	bool dense = false;
	int rc = 0;

	memset(buffer, 0, (size_t)(end - start));
	for (size_t i = first; i < changed->count && changed->list[i].start < end && !rc; i++) {
		int64_t low = changed->list[i].start > from ? changed->list[i].start : from;
		int64_t high = changed->list[i].end < end ? changed->list[i].end : end;
		if (low < high)
			rc = file->content->read(file->content->context, buffer + (low - start), (size_t)(high - low), low, file->error);
	}
	if (!rc && file->content->read_unchanged)
		rc = is_dense(file, start, end, &dense);
	if (rc)
		return rc;
	if (dense && read_rest(file, changed, start, end, buffer) == 0) {
		rc = range_add(file, &file->changed, start, end);
		return rc ? rc : store_blocks(file, buffer, start, end - start);
	}
	for (size_t i = first; i < changed->count && changed->list[i].start < end && !rc; i++) {
		int64_t low = changed->list[i].start > from ? changed->list[i].start : from;
		int64_t high = changed->list[i].end < end ? changed->list[i].end : end;
		if (low < high)
			rc = store_blocks(file, buffer + (low - start), low, high - low);
	}
	return rc;
}

/* changed: sorted, within the size. file->changed gets what was stored beyond it. */
static int store_changed(struct file *file, const struct ranges *changed, uint8_t *buffer)
{
	int64_t at = 0;
	int rc = 0;

	for (size_t i = 0; i < changed->count && !rc;) {
		int64_t from = changed->list[i].start > at ? changed->list[i].start : at;
		if (from >= changed->list[i].end) {
			i++;
			continue;
		}
		from = next_data(file, from, changed->list[i].end);
		if (from < 0)
			return error_set(file->error, (int)from, 0, "looking for holes: %s", error_word((int)from));
		if (from >= changed->list[i].end) {
			i++;
			continue;
		}
		int64_t end = (from / REGION + 1) * REGION;
		if (end > file->content->size)
			end = file->content->size;
		rc = store_region(file, changed, i, from, end, buffer);
		at = end;
	}
	return rc;
}

/* ---------------------------------------------------------------- rows */

static int load_live(struct file *file)
{
	int64_t loaded = -1; /* start of the last row taken: a row may intersect several ranges */
	int rc = 0;

	for (size_t i = 0; i < file->changed.count && !rc; i++) {
		struct db_conn *conn = seal_reader_conn(&file->worker->reader, file->error);
		struct extent_place *places;
		size_t count;
		if (!conn)
			return ERR_FAILED;
		rc = catalogue_extents(conn, CATALOGUE_LIVE, file->ino, file->changed.list[i].start, file->changed.list[i].end,
				       &places, &count);
		if (rc)
			return error_set(file->error, rc, 0, "catalogue: can't read the extents of inode %lld", (long long)file->ino);
		for (size_t j = 0; j < count && !rc; j++) {
			if (places[j].start <= loaded)
				continue;
			loaded = places[j].start;
			rc = layout_add(file, &file->live, places[j].start, places[j].length, places[j].chunk.num, places[j].skip);
		}
		free(places);
	}
	return rc;
}

/* What stays of the live rows, and the fresh ones. */
static int make_next(struct file *file)
{
	size_t first = 0;
	int rc = 0;

	for (size_t i = 0; i < file->live.count && !rc; i++) {
		const struct extent_row *row = &file->live.list[i];
		int64_t at = row->start, end = row->start + row->length;
		while (first < file->changed.count && file->changed.list[first].end <= at)
			first++;
		for (size_t j = first; j < file->changed.count && at < end && !rc; j++) {
			const struct extent *range = &file->changed.list[j];
			if (range->start >= end)
				break;
			if (range->start > at)
				rc = layout_add(file, &file->next, at, range->start - at, row->chunk, row->skip + (at - row->start));
			at = range->end;
		}
		if (at < end && !rc)
			rc = layout_add(file, &file->next, at, end - at, row->chunk, row->skip + (at - row->start));
	}
	for (size_t i = 0; i < file->fresh.count && !rc; i++)
		rc = layout_add(file, &file->next, file->fresh.list[i].start, file->fresh.list[i].length, file->fresh.list[i].chunk,
				file->fresh.list[i].skip);
	if (file->next.count)
		qsort(file->next.list, file->next.count, sizeof(*file->next.list), row_order);
	return rc;
}

static bool same_row(const struct extent_row *a, const struct extent_row *b)
{
	return a->start == b->start && a->length == b->length && a->chunk == b->chunk && a->skip == b->skip;
}

/* Rows that are only in `live` end; rows that are only in `next` begin. A new row with the key of a live one ends that by itself. */
static int emit_rows(struct file *file, bool *any)
{
	struct delta *delta = file->worker->sealing->delta;
	size_t i = 0, j = 0;
	int rc = 0;

	while ((i < file->live.count || j < file->next.count) && !rc) {
		const struct extent_row *old = i < file->live.count ? &file->live.list[i] : NULL;
		const struct extent_row *row = j < file->next.count ? &file->next.list[j] : NULL;
		if (old && row && same_row(old, row)) {
			i++, j++;
			continue;
		}
		*any = true;
		atomic_fetch_add(&file->worker->sealing->changes, 1);
		if (old && (!row || old->start < row->start)) {
			rc = delta_add_extent_end(delta, file->ino, old->start, file->error);
			i++;
			continue;
		}
		i += old && old->start == row->start;
		/* A row that begins must not meet, while the delta is applied, one that has not ended: all ends are applied first. */
		if (old && old->start == row->start)
			rc = delta_add_extent_end(delta, file->ino, old->start, file->error);
		if (!rc)
			rc = delta_add_extent(delta, row, file->error);
		j++;
	}
	return rc;
}

/* ---------------------------------------------------------------- */

/* Blocks that changed, within the size. True when that is all of it. */
static int round_ranges(struct file *file, const struct extent_map *map, struct ranges *out, bool *all)
{
	int64_t size = file->content->size;
	int rc = 0;

	for (uint32_t i = 0; map && i < map->count && !rc; i++) {
		int64_t start = map->ranges[i].start / BLOCK * BLOCK;
		/* Never more than was recorded: the rest is not as of the cut (I4). */
		int64_t end = map->ranges[i].end >= size ? size : (map->ranges[i].end + BLOCK - 1) / BLOCK * BLOCK;
		rc = range_add(file, out, start, end < size ? end : size);
	}
	ranges_normalise(out);
	*all = !map || (out->count == 1 && out->list[0].start == 0 && out->list[0].end == size);
	return rc;
}

static int run(struct file *file, const struct extent_map *map, bool *any)
{
	struct seal_worker *worker = file->worker;
	struct ranges changed = {0};
	bool all;
	int rc = round_ranges(file, map, &changed, &all);

	if (!rc && file->content->size > 0 && !worker->window && !(worker->window = malloc(SEAL_WINDOW_BYTES)))
		rc = no_memory(file);
	if (!rc && all) {
		rc = range_add(file, &file->changed, 0, EXTENT_END);
		if (!rc && file->content->size > 0)
			rc = store_all(file, worker->window);
	} else if (!rc) {
		rc = store_changed(file, &changed, worker->window);
		for (size_t i = 0; i < changed.count && !rc; i++)
			rc = range_add(file, &file->changed, changed.list[i].start, changed.list[i].end);
		if (!rc)
			rc = range_add(file, &file->changed, file->content->size, EXTENT_END);
		ranges_normalise(&file->changed);
	}
	free(changed.list);
	if (!rc && file->content->finish)
		rc = file->content->finish(file->content->context, file->error);
	if (!rc)
		rc = load_live(file);
	if (!rc)
		rc = make_next(file);
	return rc ? rc : emit_rows(file, any);
}

int seal_file(struct seal_worker *worker, int64_t ino, const struct seal_content *content, const struct extent_map *changed,
	      bool *any, struct error *error)
{
	struct file file = {.worker = worker, .ino = ino, .content = content, .error = error};

	*any = false;
	int rc = run(&file, changed, any);
	free(file.changed.list);
	free(file.live.list);
	free(file.fresh.list);
	free(file.next.list);
	return rc;
}

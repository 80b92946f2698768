#include "extent_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_GRANULE (INT64_C(64) << 10)
#define LAST_GRANULE (INT64_C(1) << 60)

void extent_map_free(struct extent_map *map)
{
	free(map->ranges);
	*map = (struct extent_map){ 0 };
}

void extent_map_clear(struct extent_map *map)
{
	map->count = 0;
}

bool extent_map_reserve(struct extent_map *map, uint32_t more)
{
	uint64_t need = (uint64_t)map->count + more;
	uint64_t capacity = (uint64_t)map->capacity + map->capacity / 2;
	struct extent *ranges;

	if (need <= map->capacity)
		return true;
	if (capacity < need)
		capacity = need;
	if (capacity < 2)
		capacity = 2; /* most changed files have one range: keep those small */
	if (capacity > UINT32_MAX)
		return false;
	ranges = realloc(map->ranges, (size_t)capacity * sizeof *ranges);
	if (!ranges)
		return false;
	map->ranges = ranges;
	map->capacity = (uint32_t)capacity;
	return true;
}

/* Index of the first range that ends at or after `at` (count when none): `at` is the start of what may join it. */
static uint32_t first_ending_from(const struct extent_map *map, int64_t at)
{
	uint32_t low = 0, high = map->count;

	/* Sequential writes extend the last range. */
	if (high > 0 && map->ranges[high - 1].start <= at)
		return map->ranges[high - 1].end >= at ? high - 1 : high;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (map->ranges[middle].end < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Replaces the ranges [from, to) by `with` of number `count` (0 to 2). */
static void splice(struct extent_map *map, uint32_t from, uint32_t to, const struct extent *with, uint32_t count)
{
	assert(map->count - (to - from) + count <= map->capacity);
	if (from + count != to && to < map->count)
		memmove(map->ranges + from + count, map->ranges + to, (map->count - to) * sizeof *map->ranges);
	for (uint32_t i = 0; i < count; i++)
		map->ranges[from + i] = with[i];
	map->count = map->count - (to - from) + count;
}

static int64_t round_up(int64_t value, int64_t granule)
{
	if (value > EXTENT_END - granule)
		return EXTENT_END;
	return (value + granule - 1) & -granule;
}

static void widen(struct extent_map *map, int64_t granule)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < map->count; i++) {
		struct extent wide = { map->ranges[i].start & -granule, round_up(map->ranges[i].end, granule) };

		if (kept > 0 && map->ranges[kept - 1].end >= wide.start)
			map->ranges[kept - 1].end = wide.end;
		else
			map->ranges[kept++] = wide;
	}
	map->count = kept;
}

/* Ends: at the last granule no more than eight ranges exist. */
static void coarsen(struct extent_map *map)
{
	for (int64_t granule = FIRST_GRANULE; granule <= LAST_GRANULE && map->count > EXTENT_MAP_MAX / 2; granule <<= 4)
		widen(map, granule);
}

static void add(struct extent_map *map, int64_t start, int64_t end, bool exact)
{
	struct extent joined;
	uint32_t from, to;

	if (start < 0)
		start = 0;
	if (start >= end)
		return;
	from = first_ending_from(map, start);
	for (to = from; to < map->count && map->ranges[to].start <= end; to++)
		;
	if (from == to && !exact && map->count >= EXTENT_MAP_MAX) {
		coarsen(map);
		add(map, start, end, true);
		return;
	}
	joined = (struct extent){ start, end };
	if (to > from && map->ranges[from].start < start)
		joined.start = map->ranges[from].start;
	if (to > from && map->ranges[to - 1].end > end)
		joined.end = map->ranges[to - 1].end;
	splice(map, from, to, &joined, 1);
}

void extent_map_add(struct extent_map *map, int64_t start, int64_t end)
{
	add(map, start, end, false);
}

void extent_map_add_exact(struct extent_map *map, int64_t start, int64_t end)
{
	add(map, start, end, true);
}

void extent_map_remove(struct extent_map *map, int64_t start, int64_t end)
{
	struct extent left[2];
	uint32_t from, to, count = 0;

	if (start < 0)
		start = 0;
	if (start >= end)
		return;
	from = first_ending_from(map, start);
	if (from < map->count && map->ranges[from].end == start)
		from++; /* only touches */
	for (to = from; to < map->count && map->ranges[to].start < end; to++)
		;
	if (from == to)
		return;
	if (map->ranges[from].start < start)
		left[count++] = (struct extent){ map->ranges[from].start, start };
	if (map->ranges[to - 1].end > end)
		left[count++] = (struct extent){ end, map->ranges[to - 1].end };
	splice(map, from, to, left, count);
}

bool extent_map_next(const struct extent_map *map, int64_t from, struct extent *out)
{
	uint32_t i;

	if (from == EXTENT_END)
		return false;
	i = first_ending_from(map, from + 1);
	if (i == map->count)
		return false;
	*out = map->ranges[i];
	if (out->start < from)
		out->start = from;
	return true;
}

bool extent_map_overlaps(const struct extent_map *map, int64_t start, int64_t end)
{
	struct extent first;

	return start < end && extent_map_next(map, start, &first) && first.start < end;
}

int64_t extent_map_bytes(const struct extent_map *map, int64_t size)
{
	int64_t bytes = 0;

	for (uint32_t i = 0; i < map->count && map->ranges[i].start < size; i++)
		bytes += (map->ranges[i].end < size ? map->ranges[i].end : size) - map->ranges[i].start;
	return bytes;
}

bool extent_map_merge(struct extent_map *into, const struct extent_map *from)
{
	struct extent_map merged = { 0 };
	uint32_t a = 0, b = 0;

	if (from->count == 0)
		return true;
	/* All the capacity of `into`: what was reserved in it stays reserved. */
	if (!extent_map_reserve(&merged, into->capacity + from->count))
		return false;
	/* In ascending order each range joins or follows the last: linear. */
	while (a < into->count || b < from->count) {
		bool first = b == from->count || (a < into->count && into->ranges[a].start <= from->ranges[b].start);
		const struct extent *next = first ? &into->ranges[a++] : &from->ranges[b++];

		add(&merged, next->start, next->end, true);
	}
	if (merged.count > EXTENT_MAP_MAX)
		coarsen(&merged);
	free(into->ranges);
	*into = merged;
	return true;
}

bool extent_map_copy(struct extent_map *into, const struct extent_map *from)
{
	*into = (struct extent_map){ 0 };
	if (from->count == 0)
		return true;
	if (!extent_map_reserve(into, from->count))
		return false;
	memcpy(into->ranges, from->ranges, from->count * sizeof *from->ranges);
	into->count = from->count;
	return true;
}

/* extent_map: an ordered set of byte ranges. Pure arithmetic: no locks, no input or output.
 *
 * Ranges are half-open [start, end), do not touch each other, end may be EXTENT_END ("to the end of the file, whatever
 * that is"). Zero-initialised is empty and valid. A change never needs more than one new range, so that a caller who
 * reserved one beforehand cannot fail (I2).
 *
 * When extent_map_add has to put a range into a map of EXTENT_MAP_MAX, the map is coarsened: all ranges are widened to
 * multiples of a granule (64 KiB, then 1 MiB, then 16 MiB ...) until at most half of them are left. A coarsened map is a superset
 * of what was added: right for "may have changed", wrong for "is saved". Sets of the second kind use
 * extent_map_add_exact, which never widens anything, and extent_map_remove. */
#ifndef YESTER_EXTENT_MAP_H
#define YESTER_EXTENT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENT_END INT64_MAX
#define EXTENT_MAP_MAX 4096

struct extent { int64_t start, end; };
struct extent_map {
	struct extent *ranges; /* sorted, disjoint, not adjacent */
	uint32_t count, capacity;
};

void extent_map_free(struct extent_map *map);
/* Forgets the ranges, keeps the memory. */
void extent_map_clear(struct extent_map *map);
/* Room for `more` additional ranges. false: out of memory, map unchanged. */
bool extent_map_reserve(struct extent_map *map, uint32_t more);
/* Adds [start, end); what lies below 0 is cut off, an empty range adds nothing. Must have been reserved (1).
 * Coarsens when full. */
void extent_map_add(struct extent_map *map, int64_t start, int64_t end);
/* The same without a limit: holds exactly what was added. Must have been reserved (1). */
void extent_map_add_exact(struct extent_map *map, int64_t start, int64_t end);
/* Removes [start, end). Must have been reserved (1): a hole splits a range. Never coarsens (the map may then hold more
 * than EXTENT_MAP_MAX); a later extent_map_add may, and bring removed bytes back. */
void extent_map_remove(struct extent_map *map, int64_t start, int64_t end);
bool extent_map_overlaps(const struct extent_map *map, int64_t start, int64_t end);
/* The first range that ends after `from`, clipped to begin at `from` at the earliest; false when none. */
bool extent_map_next(const struct extent_map *map, int64_t from, struct extent *out);
/* Bytes in the ranges, each clipped to `size`. */
int64_t extent_map_bytes(const struct extent_map *map, int64_t size);
/* Adds all of `from` to `into`, coarsening if need be; false: out of memory (into unchanged). */
bool extent_map_merge(struct extent_map *into, const struct extent_map *from);
/* into is overwritten without being freed; false: out of memory (into is then empty). */
bool extent_map_copy(struct extent_map *into, const struct extent_map *from);

#endif

/* extent_map against a bitmap that holds the same bytes. */
#include "extent_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL 512 /* bytes 0 .. MODEL-2; the last cell stands for everything from there to EXTENT_END */

static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32) % n;
}

static void assert_sound(const struct extent_map *map)
{
	assert_true(map->count <= map->capacity);
	for (uint32_t i = 0; i < map->count; i++) {
		assert_true(map->ranges[i].start >= 0 && map->ranges[i].start < map->ranges[i].end);
		if (i > 0)
			assert_true(map->ranges[i - 1].end < map->ranges[i].start);
	}
}

static int64_t at(uint32_t cell)
{
	return cell >= MODEL ? EXTENT_END : cell;
}

static void assert_equals_model(const struct extent_map *map, const bool *model)
{
	struct extent next;
	int64_t bytes = 0;

	assert_sound(map);
	for (uint32_t i = 0; i < MODEL; i++) {
		int64_t end = at(i + 1);

		assert_int_equal(extent_map_overlaps(map, i, end), model[i]);
		if (i < MODEL - 1)
			bytes += model[i];
	}
	assert_int_equal(extent_map_bytes(map, MODEL - 1), bytes);
	for (uint32_t i = 0; i < MODEL; i++) {
		uint32_t first = i, last;

		while (first < MODEL && !model[first])
			first++;
		assert_int_equal(extent_map_next(map, i, &next), first < MODEL);
		if (first == MODEL)
			continue;
		for (last = first; last < MODEL && model[last]; last++)
			;
		assert_int_equal(next.start, first);
		assert_int_equal(next.end, at(last));
	}
}

/* reserve(1) and then one change must not allocate: the capacity stays. */
static void change(struct extent_map *map, bool *model)
{
	uint32_t a = random_below(MODEL), b = random_below(8) ? a + random_below(20) : random_below(MODEL + 1);
	int64_t start = a, end = at(b > MODEL ? MODEL : b);
	bool set = random_below(3) > 0;
	uint32_t capacity;

	assert_true(extent_map_reserve(map, 1));
	capacity = map->capacity;
	if (!set)
		extent_map_remove(map, start, end);
	else if (random_below(2))
		extent_map_add(map, start, end);
	else
		extent_map_add_exact(map, start, end);
	assert_int_equal(map->capacity, capacity);
	for (uint32_t i = a; i < MODEL && i < b; i++)
		model[i] = set;
}

static void test_random(void **state)
{
	(void)state;
	for (uint32_t round = 1; round <= 60; round++) {
		struct extent_map map = { 0 };
		bool model[MODEL] = { false };

		seed = round * UINT64_C(0x9e3779b97f4a7c15);
		for (uint32_t step = 0; step < 100; step++) {
			change(&map, model);
			assert_equals_model(&map, model);
		}
		extent_map_free(&map);
		assert_null(map.ranges);
	}
}

static void test_merge_and_copy(void **state)
{
	(void)state;
	for (uint32_t round = 1; round <= 60; round++) {
		struct extent_map a = { 0 }, b = { 0 }, copy;
		bool model_a[MODEL] = { false }, model_b[MODEL] = { false };

		seed = round * UINT64_C(0xd1342543de82ef95);
		for (uint32_t step = random_below(40); step > 0; step--)
			change(&a, model_a);
		for (uint32_t step = random_below(40); step > 0; step--)
			change(&b, model_b);
		assert_true(extent_map_copy(&copy, &a));
		assert_equals_model(&copy, model_a);
		assert_true(extent_map_merge(&a, &b));
		assert_equals_model(&b, model_b);
		for (uint32_t i = 0; i < MODEL; i++)
			model_b[i] |= model_a[i];
		assert_equals_model(&a, model_b);
		extent_map_free(&a);
		extent_map_free(&b);
		extent_map_free(&copy);
	}
}

static void test_ends(void **state)
{
	struct extent_map map = { 0 };
	struct extent next;

	(void)state;
	assert_false(extent_map_next(&map, 0, &next));
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add(&map, 5, 5);
	extent_map_add(&map, 7, 6);
	extent_map_remove(&map, 0, EXTENT_END);
	assert_int_equal(map.count, 0);
	extent_map_add(&map, -10, 4);
	assert_int_equal(map.ranges[0].start, 0);
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add(&map, 100, EXTENT_END);
	assert_true(extent_map_overlaps(&map, EXTENT_END - 1, EXTENT_END));
	assert_false(extent_map_next(&map, EXTENT_END, &next));
	assert_false(extent_map_overlaps(&map, 4, 100));
	assert_false(extent_map_overlaps(&map, 0, 0));
	assert_int_equal(extent_map_bytes(&map, 150), 54);
	assert_int_equal(extent_map_bytes(&map, 2), 2);
	assert_true(extent_map_next(&map, 4, &next));
	assert_int_equal(next.start, 100);
	assert_int_equal(next.end, EXTENT_END);
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add(&map, 4, 100);
	assert_int_equal(map.count, 1);
	extent_map_clear(&map);
	assert_int_equal(map.count, 0);
	extent_map_free(&map);
}

static bool covers(const struct extent_map *map, int64_t start, int64_t end)
{
	struct extent next;

	return extent_map_next(map, start, &next) && next.start == start && next.end >= end;
}

/* A full map becomes a superset of at most half as many ranges, whatever lies between; step: distance of the 4 KiB ranges. */
static void coarsen_with(int64_t step, int64_t expected_granule)
{
	struct extent_map map = { 0 };
	int64_t last = EXTENT_MAP_MAX * step;

	for (int64_t i = 0; i < EXTENT_MAP_MAX; i++) {
		assert_true(extent_map_reserve(&map, 1));
		extent_map_add(&map, i * step, i * step + 4096);
	}
	assert_int_equal(map.count, EXTENT_MAP_MAX);
	/* A full map still takes what joins a range. */
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add(&map, 4096, 4097);
	assert_int_equal(map.count, EXTENT_MAP_MAX);
	extent_map_add(&map, last, last + 4096);
	assert_sound(&map);
	assert_true(map.count <= EXTENT_MAP_MAX / 2 + 1);
	for (int64_t i = 0; i <= EXTENT_MAP_MAX; i++)
		assert_true(covers(&map, i * step, i * step + 4096));
	for (uint32_t i = 0; i + 1 < map.count; i++) {
		assert_int_equal(map.ranges[i].start % expected_granule, 0);
		assert_int_equal(map.ranges[i].end % expected_granule, 0);
	}
	extent_map_free(&map);
}

static void test_coarsen(void **state)
{
	(void)state;
	coarsen_with(8192, INT64_C(64) << 10);
	coarsen_with(INT64_C(256) << 10, INT64_C(1) << 20);
	coarsen_with(INT64_C(4) << 20, INT64_C(16) << 20);
	coarsen_with(INT64_C(1) << 40, INT64_C(1) << 44);
}

static void test_coarsen_keeps_end(void **state)
{
	struct extent_map map = { 0 }, other = { 0 };
	struct extent next;

	(void)state;
	for (int64_t i = 0; i < EXTENT_MAP_MAX; i++) {
		assert_true(extent_map_reserve(&map, 1));
		extent_map_add(&map, i << 20, (i << 20) + 1);
	}
	assert_true(extent_map_reserve(&other, 1));
	extent_map_add(&other, EXTENT_END - 5, EXTENT_END);
	assert_true(extent_map_merge(&map, &other));
	assert_sound(&map);
	assert_true(map.count <= EXTENT_MAP_MAX / 2);
	assert_true(extent_map_next(&map, EXTENT_END - 5, &next));
	assert_int_equal(next.end, EXTENT_END);
	for (int64_t i = 0; i < EXTENT_MAP_MAX; i++)
		assert_true(covers(&map, i << 20, (i << 20) + 1));
	extent_map_free(&map);
	extent_map_free(&other);
}

/* Exact maps and removals go beyond the maximum and stay exact. */
static void test_exact(void **state)
{
	struct extent_map map = { 0 };

	(void)state;
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add(&map, 0, EXTENT_END);
	for (int64_t i = 0; i < EXTENT_MAP_MAX + 10; i++) {
		assert_true(extent_map_reserve(&map, 1));
		extent_map_remove(&map, i * 10, i * 10 + 5);
	}
	for (int64_t i = 0; i < EXTENT_MAP_MAX + 10; i++) {
		assert_false(extent_map_overlaps(&map, i * 10, i * 10 + 5));
		assert_true(covers(&map, i * 10 + 5, i * 10 + 10));
	}
	assert_true(map.count > EXTENT_MAP_MAX);
	assert_true(extent_map_reserve(&map, 1));
	extent_map_add_exact(&map, 1, 2);
	assert_int_equal(extent_map_bytes(&map, 5), 1);
	assert_sound(&map);
	extent_map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_merge_and_copy),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_coarsen),
		cmocka_unit_test(test_coarsen_keeps_end),
		cmocka_unit_test(test_exact),
	};

	return cmocka_run_group_tests_name("extent_map", tests, NULL, NULL);
}

/* fetch_window: what is asked of the store, by a store that can say so. Bytes are told by their place. */
#include "fetch_window.h"
#include "record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define PACK_BYTES (UINT64_C(1) << 30)
#define PIECE 65536

struct world {
	struct store store;
	struct windows *windows;
	uint64_t fails_from; /* ranges that long are cut off */
	uint64_t cut;        /* that many bytes are missing, and nobody says so */
	unsigned asked;      /* one thread only, but for ranges that are asked for ahead: atomic */
};

static const uint8_t pack_id[CRYPT_ID_BYTES] = {1};
static const struct window_place place = {.pack_id = pack_id, .key = "pack/01/01000000000000000000000000000000", .from = 0, .to = PACK_BYTES};

static uint8_t byte_at(uint64_t at) { return (uint8_t)(at * 2654435761U >> 13); }

static int world_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out, struct error *error)
{
	struct world *world = (struct world *)store;

	__atomic_fetch_add(&world->asked, 1, __ATOMIC_RELAXED);
	assert_string_equal(key, place.key);
	if (length >= world->fails_from)
		return error_set(error, ERR_RETRY, 0, "cut off");
	assert_int_equal(buf_reserve(out, length), 0);
	for (uint64_t i = 0; i < length - world->cut; i++)
		out->data[out->length++] = byte_at(offset + i);
	return 0;
}

static const struct store_ops world_ops = {.get = world_get};

static int setup(void **state)
{
	static struct world world;

	world = (struct world){.store = {.ops = &world_ops}, .fails_from = UINT64_MAX};
	world.windows = windows_new(&world.store);
	*state = &world;
	return world.windows ? 0 : -1;
}

static int teardown(void **state)
{
	windows_free(((struct world *)*state)->windows);
	return 0;
}

static int read_at(struct world *world, uint64_t offset, size_t length)
{
	struct window_bytes bytes = {0};
	struct error error = {0};
	int rc = windows_read(world->windows, &place, offset, length, &bytes, &error);

	for (size_t i = 0; !rc && i < length; i++)
		if (bytes.data[i] != byte_at(offset + i))
			fail_msg("another byte at %llu", (unsigned long long)(offset + i));
	windows_release(world->windows, &bytes);
	return rc;
}

/* However small what is read here and there: what is remembered is bounded, and found fast. */
static void test_forgets(void **state)
{
	struct world *world = *state;
	const uint64_t step = UINT64_C(300) << 10;
	unsigned count = 0;

	for (uint64_t at = 0; at < PACK_BYTES; at += step, count++)
		assert_int_equal(read_at(world, at, 66), 0);
	assert_int_equal(world->asked, count);
	assert_int_equal(read_at(world, (count - 1) * step, 66), 0);
	assert_int_equal(world->asked, count);
	assert_int_equal(read_at(world, 0, 66), 0);
	assert_int_equal(world->asked, count + 1);
}

/* Where long answers don't arrive, short ones are asked for: a reader that tries once more gets its bytes. */
static void test_long_ranges_fail(void **state)
{
	struct world *world = *state;
	unsigned failed = 0;

	world->fails_from = 1 << 20;
	for (uint64_t at = 0; at < UINT64_C(16) << 20; at += PIECE) {
		int rc = read_at(world, at, PIECE);
		if (rc) {
			failed++;
			assert_int_equal(rc, ERR_RETRY);
			assert_int_equal(read_at(world, at, PIECE), 0);
		}
	}
	assert_in_range(failed, 1, 16);
}

/* A store that keeps its word less than store.h says is not believed. */
static void test_short_answer(void **state)
{
	struct world *world = *state;

	world->cut = 1;
	assert_int_equal(read_at(world, 1000, 66), ERR_RETRY);
	world->cut = 0;
	assert_int_equal(read_at(world, 1000, 66), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {TEST(test_forgets), TEST(test_long_ranges_fail), TEST(test_short_answer)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

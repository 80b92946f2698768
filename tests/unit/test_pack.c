#include "seal.h"

#include "bytes.h"
#include "io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHUNKS 5

struct fixture {
	struct master *master;
	struct pack_builder *builder;
	const struct buf *pack;
	struct chunk_place places[CHUNKS];
	uint8_t *data[CHUNKS];
	uint32_t lengths[CHUNKS];
	uint8_t sha256[SHA256_BYTES];
};

static const uint8_t volume_id[CRYPT_ID_BYTES] = "the test volume";
static const uint8_t key[CRYPT_KEY_BYTES] = "a key that is thirty-two bytes.";

/* Chunks of several kinds; `scale` 1 keeps the pack small enough to flip each of its bytes. */
static struct fixture build(enum suite suite, uint32_t scale)
{
	struct fixture f = {.master = master_new(volume_id, suite == SUITE_NONE ? NULL : key)};
	static const uint32_t lengths[CHUNKS] = {1, 40, 300, 17, 200};

	f.builder = pack_builder_new(f.master, 3);
	assert_int_equal(pack_builder_size(f.builder), 0);
	for (int i = 0; i < CHUNKS; i++) {
		uint8_t id[CRYPT_ID_BYTES];

		f.lengths[i] = lengths[i] * scale;
		f.data[i] = malloc(f.lengths[i]);
		if (i % 2)
			io_random(f.data[i], f.lengths[i]);
		else
			memset(f.data[i], 'a' + i, f.lengths[i]);
		master_chunk_id(f.master, f.data[i], f.lengths[i], id);
		assert_int_equal(pack_builder_add(f.builder, id, f.data[i], f.lengths[i], &f.places[i]), 0);
	}
	assert_int_equal(pack_builder_count(f.builder), CHUNKS);
	return f;
}

static void finish(struct fixture *f)
{
	uint64_t size = pack_builder_size(f->builder);
	uint8_t hash[SHA256_BYTES];

	assert_int_equal(pack_builder_finish(f->builder, &f->pack, f->sha256), 0);
	assert_int_equal(f->pack->length, size);
	sha256(hash, f->pack->data, f->pack->length);
	assert_memory_equal(hash, f->sha256, sizeof(hash));
}

static void done(struct fixture *f)
{
	for (int i = 0; i < CHUNKS; i++)
		free(f->data[i]);
	pack_builder_free(f->builder);
	master_free(f->master);
}

static int open_place(const struct fixture *f, const struct chunk_place *place, struct buf *out)
{
	return chunk_open(f->master, pack_builder_id(f->builder), pack_builder_salt(f->builder), place,
			  f->pack->data + place->offset, out);
}

static void test_round_trip(void **state)
{
	enum suite suite = *(enum suite *)*state;

	for (uint32_t scale = 1; scale <= 1000; scale *= 1000) {
		struct fixture f = build(suite, scale);
		struct chunk_place *places;
		struct buf out = {0};
		uint8_t id[CRYPT_ID_BYTES], salt[CRYPT_SALT_BYTES];
		uint32_t count;

		finish(&f);
		assert_int_equal(pack_read_index(f.master, f.pack->data, f.pack->length, id, salt, &places, &count, NULL), 0);
		assert_int_equal(count, CHUNKS);
		assert_memory_equal(id, pack_builder_id(f.builder), CRYPT_ID_BYTES);
		assert_memory_equal(salt, pack_builder_salt(f.builder), CRYPT_SALT_BYTES);
		for (int i = CHUNKS - 1; i >= 0; i--) {
			size_t before = out.length;

			assert_memory_equal(places[i].id, f.places[i].id, CRYPT_ID_BYTES);
			assert_int_equal(places[i].offset, f.places[i].offset);
			assert_int_equal(places[i].stored_bytes, f.places[i].stored_bytes);
			assert_int_equal(places[i].index, i);
			assert_int_equal(places[i].codec, i % 2 || f.lengths[i] == 1 ? CODEC_RAW : CODEC_ZSTD);
			assert_int_equal(open_place(&f, &places[i], &out), 0);
			assert_int_equal(out.length - before, f.lengths[i]);
			assert_memory_equal(out.data + before, f.data[i], f.lengths[i]);
		}
		assert_int_equal(places[2].codec, CODEC_ZSTD);
		free(places);
		buf_free(&out);
		done(&f);
	}
}

/* Whole reading of a pack as `check` does it; 0 when everything in it is right. */
static int read_all(const struct master *master, const uint8_t *pack, uint64_t length)
{
	uint8_t id[CRYPT_ID_BYTES], salt[CRYPT_SALT_BYTES];
	struct chunk_place *places = NULL;
	uint32_t count = 0;
	int status = pack_read_index(master, pack, length, id, salt, &places, &count, NULL);

	for (uint32_t i = 0; i < count && !status; i++) {
		struct buf out = {0};

		status = chunk_open(master, id, salt, &places[i], pack + places[i].offset, &out);
		if (status)
			assert_int_equal(out.length, 0);
		buf_free(&out);
	}
	free(places);
	return status;
}

/* Fault 4, 44: each bit of a pack is covered. */
static void test_tamper(void **state)
{
	struct fixture f = build(*(enum suite *)*state, 1);
	uint8_t *copy;

	finish(&f);
	for (size_t i = 0; i < f.pack->length * 8; i++) {
		f.pack->data[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_not_equal(read_all(f.master, f.pack->data, f.pack->length), 0);
		f.pack->data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t length = 0; length < f.pack->length; length++) {
		/* Exactly as long as it is said to be, so that the sanitizer sees a read too far. */
		copy = malloc(length ? length : 1);
		memcpy(copy, f.pack->data, length);
		assert_int_not_equal(read_all(f.master, copy, length), 0);
		free(copy);
	}
	copy = calloc(1, f.pack->length + 1);
	memcpy(copy, f.pack->data, f.pack->length);
	assert_int_not_equal(read_all(f.master, copy, f.pack->length + 1), 0);
	free(copy);
	assert_int_equal(read_all(f.master, f.pack->data, f.pack->length), 0);
	done(&f);
}

static void test_swapped(void **state)
{
	struct fixture f = build(*(enum suite *)*state, 1), g = build(*(enum suite *)*state, 1);
	struct chunk_place place;
	struct buf out = {0};

	finish(&f);
	finish(&g);
	/* Chunk 0 is the same in both packs, and sealed under another key. */
	assert_memory_equal(f.places[0].id, g.places[0].id, CRYPT_ID_BYTES);
	assert_int_equal(chunk_open(f.master, pack_builder_id(f.builder), pack_builder_salt(f.builder), &f.places[0],
				    g.pack->data + g.places[0].offset, &out), ERR_CORRUPT);
	assert_int_equal(chunk_open(f.master, pack_builder_id(g.builder), pack_builder_salt(f.builder), &f.places[0],
				    f.pack->data + f.places[0].offset, &out), ERR_CORRUPT);
	/* Another place in the same pack. */
	place = f.places[1];
	place.index = 3;
	assert_int_equal(open_place(&f, &place, &out), ERR_CORRUPT);
	/* Authentic bytes that are not the chunk that was asked for. */
	place = f.places[1];
	place.id[0] ^= 1;
	assert_int_equal(open_place(&f, &place, &out), ERR_CORRUPT);
	assert_int_equal(out.length, 0);
	assert_int_equal(open_place(&f, &f.places[1], &out), 0);
	buf_free(&out);
	done(&f);
	done(&g);
}

/* Fault 42, 43: places that no builder makes. */
static void test_hostile_place(void **state)
{
	struct fixture f = build(*(enum suite *)*state, 1);
	struct chunk_place place;
	struct buf out = {0};

	finish(&f);
#define BAD(index, field, value)                                                                                       \
	do {                                                                                                           \
		place = f.places[index];                                                                               \
		place.field = value;                                                                                   \
		assert_int_equal(open_place(&f, &place, &out), ERR_CORRUPT);                                           \
	} while (0)
	BAD(2, length, 0);
	BAD(2, length, 299);
	BAD(2, length, 301);
	BAD(2, length, PACK_MAX_CHUNK_BYTES);
	BAD(2, length, UINT32_MAX);
	BAD(2, codec, 2);
	BAD(2, codec, CODEC_RAW);
	BAD(1, codec, CODEC_ZSTD);
	BAD(2, dictionary, 1);
	BAD(2, stored_bytes, 0);
	BAD(2, stored_bytes, CRYPT_TAG_BYTES);
	BAD(2, index, UINT32_MAX);
	assert_int_equal(out.length, 0);
	buf_free(&out);
	done(&f);
}

static void test_misuse(void **state)
{
	struct fixture f = build(SUITE_AES256_GCM, 1);
	struct chunk_place place;
	struct pack_builder *empty = pack_builder_new(f.master, 3);
	const struct buf *bytes;
	uint8_t hash[SHA256_BYTES];

	(void)state;
	assert_int_equal(pack_builder_add(f.builder, f.places[0].id, "", 0, &place), ERR_FAILED);
	assert_int_equal(pack_builder_add(f.builder, f.places[0].id, "", PACK_MAX_CHUNK_BYTES + 1, &place), ERR_FAILED);
	finish(&f);
	assert_int_equal(pack_builder_add(f.builder, f.places[0].id, "x", 1, &place), ERR_FAILED);
	assert_int_equal(pack_builder_finish(f.builder, &bytes, hash), ERR_FAILED);
	assert_int_equal(pack_builder_finish(empty, &bytes, hash), ERR_FAILED);
	/* I23: no two packs share id or salt. */
	assert_memory_not_equal(pack_builder_id(empty), pack_builder_id(f.builder), CRYPT_ID_BYTES);
	assert_memory_not_equal(pack_builder_salt(empty), pack_builder_salt(f.builder), CRYPT_SALT_BYTES);
	pack_builder_free(empty);
	pack_builder_free(NULL);
	done(&f);
}

int main(void)
{
	static enum suite suites[] = {SUITE_NONE, SUITE_AES256_GCM};
#define BOTH(test) cmocka_unit_test_prestate(test, &suites[0]), cmocka_unit_test_prestate(test, &suites[1])
	const struct CMUnitTest tests[] = {
		BOTH(test_round_trip), BOTH(test_tamper), BOTH(test_swapped), BOTH(test_hostile_place),
		cmocka_unit_test(test_misuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

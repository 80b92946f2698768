#include "chunker.h"

#include "bytes.h"
#include "digest.h"

#include <stdlib.h>
#include <string.h>

/* A word of hash has seen the last 64 bytes: each step shifts by one bit. */
#define WINDOW_BYTES 64
/* Normalised chunking, level 2: two bits harder before the average, two bits easier after it. */
#define NORMALISATION 2

struct chunker {
	uint64_t gear[256];
	uint64_t gear_shifted[256]; /* gear << 1, for the first of two bytes in a step */
	uint64_t mask_hard, mask_easy;
	uint32_t min, average, max;
};

/* The topmost bits: those of the whole window. */
static uint64_t top_bits(unsigned count)
{
	return count == 0 ? 0 : UINT64_MAX << (64 - count);
}

struct chunker *chunker_new(const uint8_t key[32], uint32_t min, uint32_t average, uint32_t max)
{
	struct chunker *chunker = calloc(1, sizeof(*chunker));
	uint8_t block[SHA256_BYTES], counter[4];
	unsigned bits = (unsigned)__builtin_ctz(average);

	if (!chunker)
		return NULL;
	for (unsigned i = 0; i < 256; i++) {
		if (i % 4 == 0) {
			put_u32(counter, i / 4);
			hmac_sha256(block, key, 32, counter, sizeof(counter));
		}
		chunker->gear[i] = get_u64(block + i % 4 * 8);
		chunker->gear_shifted[i] = chunker->gear[i] << 1;
	}
	chunker->mask_hard = top_bits(bits + NORMALISATION);
	chunker->mask_easy = top_bits(bits > NORMALISATION ? bits - NORMALISATION : 0);
	chunker->min = min;
	chunker->average = average;
	chunker->max = max;
	return chunker;
}

void chunker_free(struct chunker *chunker)
{
	if (!chunker)
		return;
	/* The table is a secret of the volume. */
	explicit_bzero(chunker, sizeof(*chunker));
	free(chunker);
}

uint32_t chunker_max(const struct chunker *chunker)
{
	return chunker->max;
}

/* Looks for a cut at *at + 1 .. to, two bytes a step. True: found, *at is the length of the chunk. False: *at == to. */
static bool scan(const struct chunker *chunker, const uint8_t *data, uint32_t *at, uint32_t to, uint64_t mask,
		 uint64_t *state)
{
	uint64_t hash = *state;
	uint32_t i = *at;
	/* Two bytes a step: ((h << 1) + g1 << 1) + g2 = (h << 2) + (g1 << 1) + g2: the middle is off the critical path. */
	for (; i + 2 <= to; i += 2) {
		uint64_t first = (hash << 1) + chunker->gear[data[i]];

		if (!(first & mask)) {
			*at = i + 1;
			return true;
		}
		hash = (hash << 2) + chunker->gear_shifted[data[i]] + chunker->gear[data[i + 1]];
		if (!(hash & mask)) {
			*at = i + 2;
			return true;
		}
	}
	if (i < to) {
		hash = (hash << 1) + chunker->gear[data[i++]];
		if (!(hash & mask)) {
			*at = i;
			return true;
		}
	}
	*at = i;
	*state = hash;
	return false;
}

uint32_t chunker_next(const struct chunker *chunker, const void *data, size_t length)
{
	const uint8_t *bytes = data;
	uint32_t end = length < chunker->max ? (uint32_t)length : chunker->max;
	uint32_t middle = end < chunker->average ? end : chunker->average;
	uint32_t at = chunker->min;
	uint64_t hash = 0;

	if (end <= chunker->min)
		return end;
	/* The window is full when the first cut is possible, so that where a chunk ends depends on the bytes before that end
	 * and not on where the chunk began. */
	for (uint32_t i = at > WINDOW_BYTES ? at - WINDOW_BYTES : 0; i < at; i++)
		hash = (hash << 1) + chunker->gear[bytes[i]];
	if (scan(chunker, bytes, &at, middle, chunker->mask_hard, &hash))
		return at;
	if (scan(chunker, bytes, &at, end, chunker->mask_easy, &hash))
		return at;
	return end;
}

bool bytes_all_zero(const void *data, size_t length)
{
	const uint8_t *at = data;
	uint64_t words[8];

	for (; length >= sizeof(words); at += sizeof(words), length -= sizeof(words)) {
		memcpy(words, at, sizeof(words));
		if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7])
			return false;
	}
	for (; length > 0; at++, length--)
		if (*at)
			return false;
	return true;
}

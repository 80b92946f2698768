/* Packs: building one in memory, opening a chunk, reading an index (seal.h, pack_format.h). */
#include "seal.h"

#include "bytes.h"
#include "compress.h"
#include "io.h"

#include <stdlib.h>
#include <string.h>

/* Compression has to save one byte in so many, else reading it back costs more than it gives. */
#define WORTH_ONE_IN 64

struct pack_builder {
	const struct master *master; /* borrowed */
	uint8_t id[CRYPT_ID_BYTES];
	uint8_t salt[CRYPT_SALT_BYTES];
	struct sealer *sealer;
	struct compressor *compressor;
	struct buf bytes;   /* the pack so far */
	struct buf rows;    /* clear text of its index */
	struct buf scratch; /* a compressed chunk */
	uint32_t count;
	bool closed; /* finished, or a piece number may be used up: no more sealing with this key (I23) */
};

_Static_assert(PACK_CHUNK_EXTRA_BYTES == 4 + 1 + 4, "length, codec, dictionary");
_Static_assert(PACK_HEADER_BYTES == 8 + 4 + 1 + 1 + 2 + CRYPT_ID_BYTES + CRYPT_SALT_BYTES, "pack header");
_Static_assert(PACK_ROW_BYTES == CRYPT_ID_BYTES + 8 + 4 + 4 + 1 + 3 + 4, "pack row");
_Static_assert(PACK_TRAILER_BYTES == 8 + 4 + 4 + 8, "pack trailer");

static void chunk_extra(const struct chunk_place *place, uint8_t extra[PACK_CHUNK_EXTRA_BYTES])
{
	put_u32(extra, place->length);
	extra[4] = place->codec;
	put_u32(extra + 5, place->dictionary);
}

static void write_header(const struct pack_builder *builder, uint8_t header[PACK_HEADER_BYTES])
{
	memset(header, 0, PACK_HEADER_BYTES);
	memcpy(header, PACK_MAGIC, 8);
	put_u32(header + 8, PACK_FORMAT);
	header[12] = (uint8_t)master_suite(builder->master);
	header[13] = OBJECT_PACK;
	memcpy(header + 16, builder->id, CRYPT_ID_BYTES);
	memcpy(header + 32, builder->salt, CRYPT_SALT_BYTES);
}

struct pack_builder *pack_builder_new(const struct master *master, int compression_level)
{
	struct pack_builder *builder = calloc(1, sizeof(*builder));
	uint8_t header[PACK_HEADER_BYTES];

	if (!builder)
		return NULL;
	builder->master = master;
	io_random(builder->id, sizeof(builder->id));
	io_random(builder->salt, sizeof(builder->salt));
	builder->sealer = sealer_new(master, OBJECT_PACK, builder->id, builder->salt);
	builder->compressor = compressor_new(compression_level);
	write_header(builder, header);
	if (!builder->sealer || !builder->compressor || buf_append(&builder->bytes, header, sizeof(header))) {
		pack_builder_free(builder);
		return NULL;
	}
	return builder;
}

void pack_builder_free(struct pack_builder *builder)
{
	if (!builder)
		return;
	sealer_free(builder->sealer);
	compressor_free(builder->compressor);
	buf_free(&builder->bytes);
	buf_free(&builder->rows);
	buf_free(&builder->scratch);
	free(builder);
}

/* Chooses the bytes to be sealed: compressed in scratch, or as they are. */
static const void *encode(struct pack_builder *builder, const void *data, uint32_t length, uint8_t *codec,
			  size_t *encoded_length)
{
	size_t worth = length - length / WORTH_ONE_IN - 1;
	size_t size = worth ? compress_bytes(builder->compressor, data, length, builder->scratch.data, worth) : 0;

	*codec = size ? CODEC_ZSTD : CODEC_RAW;
	*encoded_length = size ? size : length;
	return size ? builder->scratch.data : data;
}

/* Room was reserved: can't fail. */
static void append_row(struct pack_builder *builder, const struct chunk_place *place)
{
	uint8_t *row = builder->rows.data + builder->rows.length;

	memset(row, 0, PACK_ROW_BYTES);
	memcpy(row, place->id, CRYPT_ID_BYTES);
	put_u64(row + 16, place->offset);
	put_u32(row + 24, place->stored_bytes);
	put_u32(row + 28, place->length);
	row[32] = place->codec;
	put_u32(row + 36, place->dictionary);
	builder->rows.length += PACK_ROW_BYTES;
}

int pack_builder_add(struct pack_builder *builder, const uint8_t id[CRYPT_ID_BYTES], const void *data, uint32_t length,
		     struct chunk_place *place)
{
	uint8_t extra[PACK_CHUNK_EXTRA_BYTES];
	const void *encoded;
	size_t encoded_length;

	if (builder->closed || length == 0 || length > PACK_MAX_CHUNK_BYTES || builder->count >= PACK_MAX_CHUNKS)
		return ERR_FAILED;
	if (buf_reserve(&builder->scratch, length) || buf_reserve(&builder->rows, PACK_ROW_BYTES) ||
	    buf_reserve(&builder->bytes, (size_t)length + CRYPT_TAG_BYTES))
		return ERR_NOMEM;
	memset(place, 0, sizeof(*place));
	memcpy(place->id, id, CRYPT_ID_BYTES);
	place->index = builder->count;
	place->offset = builder->bytes.length;
	place->length = length;
	encoded = encode(builder, data, length, &place->codec, &encoded_length);
	place->stored_bytes = (uint32_t)encoded_length + CRYPT_TAG_BYTES;
	chunk_extra(place, extra);
	if (sealer_seal(builder->sealer, place->index, false, extra, sizeof(extra), encoded, encoded_length,
			builder->bytes.data + builder->bytes.length)) {
		builder->closed = true;
		return ERR_FAILED;
	}
	builder->bytes.length += place->stored_bytes;
	append_row(builder, place);
	builder->count++;
	return 0;
}

uint64_t pack_builder_size(const struct pack_builder *builder)
{
	if (builder->count == 0)
		return 0;
	return builder->bytes.length + builder->rows.length + CRYPT_TAG_BYTES + PACK_TRAILER_BYTES;
}

uint32_t pack_builder_count(const struct pack_builder *builder)
{
	return builder->count;
}

int pack_builder_finish(struct pack_builder *builder, const struct buf **bytes, uint8_t sha256_out[SHA256_BYTES])
{
	size_t index_bytes = builder->rows.length + CRYPT_TAG_BYTES;
	uint8_t *end;

	if (builder->closed || builder->count == 0)
		return ERR_FAILED;
	if (buf_reserve(&builder->bytes, index_bytes + PACK_TRAILER_BYTES))
		return ERR_NOMEM;
	builder->closed = true;
	end = builder->bytes.data + builder->bytes.length;
	if (sealer_seal(builder->sealer, builder->count, true, NULL, 0, builder->rows.data, builder->rows.length, end))
		return ERR_FAILED;
	end += index_bytes;
	put_u64(end, builder->bytes.length);
	put_u32(end + 8, (uint32_t)index_bytes);
	put_u32(end + 12, builder->count);
	memcpy(end + 16, PACK_END_MAGIC, 8);
	builder->bytes.length += index_bytes + PACK_TRAILER_BYTES;
	sha256(sha256_out, builder->bytes.data, builder->bytes.length);
	*bytes = &builder->bytes;
	return 0;
}

const uint8_t *pack_builder_id(const struct pack_builder *builder)
{
	return builder->id;
}

const uint8_t *pack_builder_salt(const struct pack_builder *builder)
{
	return builder->salt;
}

/* ---------------------------------------------------------------- reading */

/* What no pack of ours says of a chunk is refused before anything is allocated for it (fault 43). */
static bool place_sane(const struct chunk_place *place)
{
	if (place->length == 0 || place->length > PACK_MAX_CHUNK_BYTES || place->stored_bytes <= CRYPT_TAG_BYTES ||
	    place->index >= PACK_MAX_CHUNKS || place->dictionary != 0)
		return false;
	switch (place->codec) {
	case CODEC_RAW:
		return place->stored_bytes == place->length + CRYPT_TAG_BYTES;
	case CODEC_ZSTD:
		return place->stored_bytes < place->length + CRYPT_TAG_BYTES;
	default:
		return false;
	}
}

static int open_compressed(struct sealer *sealer, const struct chunk_place *place, const uint8_t *extra,
			   const void *sealed, uint8_t *out)
{
	size_t length = place->stored_bytes - CRYPT_TAG_BYTES;
	uint8_t *compressed = malloc(length);
	int status;

	if (!compressed)
		return ERR_NOMEM;
	status = sealer_open(sealer, place->index, false, extra, PACK_CHUNK_EXTRA_BYTES, sealed, place->stored_bytes,
			     compressed);
	if (!status)
		status = decompress_exact(compressed, length, out, place->length);
	free(compressed);
	return status;
}

int chunk_open(const struct master *master, const uint8_t pack_id[CRYPT_ID_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
	       const struct chunk_place *place, const void *sealed, struct buf *out)
{
	uint8_t extra[PACK_CHUNK_EXTRA_BYTES], id[CRYPT_ID_BYTES], *target;
	struct sealer *sealer;
	int status;

	if (!place_sane(place))
		return ERR_CORRUPT;
	if (buf_reserve(out, place->length))
		return ERR_NOMEM;
	sealer = sealer_new(master, OBJECT_PACK, pack_id, salt);
	if (!sealer)
		return ERR_NOMEM;
	target = out->data + out->length;
	chunk_extra(place, extra);
	if (place->codec == CODEC_ZSTD)
		status = open_compressed(sealer, place, extra, sealed, target);
	else
		status = sealer_open(sealer, place->index, false, extra, sizeof(extra), sealed, place->stored_bytes,
				     target);
	sealer_free(sealer);
	if (status)
		return status;
	master_chunk_id(master, target, place->length, id);
	if (memcmp(id, place->id, CRYPT_ID_BYTES) != 0)
		return ERR_CORRUPT;
	out->length += place->length;
	return 0;
}

struct pack_frame { /* header and trailer of a pack, checked against its length */
	uint8_t id[CRYPT_ID_BYTES];
	uint8_t salt[CRYPT_SALT_BYTES];
	uint64_t index_offset;
	uint32_t index_bytes, count;
};

static int read_frame(const struct master *master, const uint8_t *pack, uint64_t length, struct pack_frame *frame,
		      struct error *error)
{
	const uint8_t *trailer;

	if (length < PACK_HEADER_BYTES + CRYPT_TAG_BYTES + PACK_TRAILER_BYTES || memcmp(pack, PACK_MAGIC, 8) != 0)
		return error_set(error, ERR_CORRUPT, 0, "pack: this is not one");
	if (get_u32(pack + 8) > PACK_FORMAT)
		return error_set(error, ERR_UNSUPPORTED, 0, "pack: format %u; use a newer version of yester",
				 get_u32(pack + 8));
	if (get_u32(pack + 8) != PACK_FORMAT || pack[12] != master_suite(master) || pack[13] != OBJECT_PACK ||
	    pack[14] || pack[15])
		return error_set(error, ERR_CORRUPT, 0, "pack: damaged header, or of another volume");
	memcpy(frame->id, pack + 16, CRYPT_ID_BYTES);
	memcpy(frame->salt, pack + 32, CRYPT_SALT_BYTES);
	trailer = pack + length - PACK_TRAILER_BYTES;
	frame->index_offset = get_u64(trailer);
	frame->index_bytes = get_u32(trailer + 8);
	frame->count = get_u32(trailer + 12);
	if (memcmp(trailer + 16, PACK_END_MAGIC, 8) != 0 || frame->count == 0 || frame->count > PACK_MAX_CHUNKS ||
	    frame->index_bytes != frame->count * PACK_ROW_BYTES + CRYPT_TAG_BYTES ||
	    frame->index_bytes > length - PACK_HEADER_BYTES - PACK_TRAILER_BYTES ||
	    frame->index_offset != length - PACK_TRAILER_BYTES - frame->index_bytes)
		return error_set(error, ERR_CORRUPT, 0, "pack: truncated, or its end is damaged");
	return 0;
}

/* The rows must tile the pack from its header to its index. */
static bool read_rows(const struct pack_frame *frame, const uint8_t *rows, struct chunk_place *places)
{
	uint64_t offset = PACK_HEADER_BYTES;

	for (uint32_t i = 0; i < frame->count; i++, rows += PACK_ROW_BYTES) {
		struct chunk_place *place = &places[i];

		memcpy(place->id, rows, CRYPT_ID_BYTES);
		place->index = i;
		place->offset = get_u64(rows + 16);
		place->stored_bytes = get_u32(rows + 24);
		place->length = get_u32(rows + 28);
		place->codec = rows[32];
		place->dictionary = get_u32(rows + 36);
		if (rows[33] || rows[34] || rows[35] || place->offset != offset || !place_sane(place))
			return false;
		offset += place->stored_bytes;
	}
	return offset == frame->index_offset;
}

int pack_read_index(const struct master *master, const void *pack, uint64_t length, uint8_t id[CRYPT_ID_BYTES],
		    uint8_t salt[CRYPT_SALT_BYTES], struct chunk_place **places, uint32_t *count, struct error *error)
{
	struct pack_frame frame;
	struct sealer *sealer = NULL;
	struct chunk_place *found = NULL;
	uint8_t *rows = NULL;
	int status = read_frame(master, pack, length, &frame, error);

	if (status)
		return status;
	sealer = sealer_new(master, OBJECT_PACK, frame.id, frame.salt);
	rows = malloc(frame.index_bytes);
	found = calloc(frame.count, sizeof(*found));
	if (!sealer || !rows || !found) {
		status = error_set(error, ERR_NOMEM, 0, "pack: out of memory");
		goto out;
	}
	if (sealer_open(sealer, frame.count, true, NULL, 0, (const uint8_t *)pack + frame.index_offset,
			frame.index_bytes, rows) ||
	    !read_rows(&frame, rows, found)) {
		status = error_set(error, ERR_CORRUPT, 0, "pack: its index fails authentication");
		goto out;
	}
	memcpy(id, frame.id, CRYPT_ID_BYTES);
	memcpy(salt, frame.salt, CRYPT_SALT_BYTES);
	*places = found;
	*count = frame.count;
	found = NULL;
out:
	sealer_free(sealer);
	free(rows);
	free(found);
	return status;
}

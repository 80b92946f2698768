/* seal: chunk bytes <-> sealed packs; streams <-> sealed segments. Joins crypt and compress; knows no database and no network. */
#ifndef YESTER_SEAL_H
#define YESTER_SEAL_H

#include "buf.h"
#include "crypt.h"
#include "digest.h"
#include "pack_format.h"

/* Where a sealed chunk lies. */
struct chunk_place {
	uint8_t id[CRYPT_ID_BYTES];
	uint32_t index;        /* piece number in its pack */
	uint64_t offset;       /* in the pack */
	uint32_t stored_bytes; /* tag included */
	uint32_t length;       /* plaintext */
	uint8_t codec;
	uint32_t dictionary;   /* 0: none */
};

/* --- A pack under construction: in memory, one thread, never resumed (I23). */
struct pack_builder;
struct pack_builder *pack_builder_new(const struct master *master, int compression_level);
void pack_builder_free(struct pack_builder *builder);
/* Compresses (raw when that does not help), seals and appends one chunk; `id` as master_chunk_id gave it. *place is filled. 0, ERR_NOMEM, ERR_FAILED. */
int pack_builder_add(struct pack_builder *builder, const uint8_t id[CRYPT_ID_BYTES], const void *data, uint32_t length,
		     struct chunk_place *place);
/* Bytes the pack would have if finished now; 0 when it has no chunk. */
uint64_t pack_builder_size(const struct pack_builder *builder);
uint32_t pack_builder_count(const struct pack_builder *builder);
/* Appends index and trailer; *bytes is valid until free; sha256 of all bytes. Nothing can be added afterwards. */
int pack_builder_finish(struct pack_builder *builder, const struct buf **bytes, uint8_t sha256_out[SHA256_BYTES]);
const uint8_t *pack_builder_id(const struct pack_builder *builder);
const uint8_t *pack_builder_salt(const struct pack_builder *builder);

/* --- Reading. */
/* Opens one sealed chunk: authenticates, then decompresses into exactly place->length bytes appended to out, then compares the chunk id.
 * `sealed` has place->stored_bytes. 0, ERR_CORRUPT, ERR_NOMEM. */
int chunk_open(const struct master *master, const uint8_t pack_id[CRYPT_ID_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
	       const struct chunk_place *place, const void *sealed, struct buf *out);
/* Parses a whole pack in memory and authenticates its index: fresh array in *places (free()), `id` and `salt` of the header. For check and repair. */
int pack_read_index(const struct master *master, const void *pack, uint64_t length, uint8_t id[CRYPT_ID_BYTES],
		    uint8_t salt[CRYPT_SALT_BYTES], struct chunk_place **places, uint32_t *count, struct error *error);

/* --- Streams (record_format.h). Input is read with pread (the offset of in_fd does not matter). Both work in about 4 MiB (opening: plus the window, 128 MiB at most). */
/* zstd-compresses `in_fd` (whole file from offset 0, in_length bytes), cuts into segments, seals, writes to out_fd at its present offset. *out_length: bytes written.
 * After a failure the salt is spent: try again with a fresh one (I23). ERR_NOMEM, ERR_NOSPACE, ERR_FAILED. */
int stream_seal(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
		const uint8_t salt[CRYPT_SALT_BYTES], const void *header, size_t header_length, int in_fd,
		uint64_t in_length, int out_fd, uint64_t *out_length, struct error *error);
/* The reverse: `in_length` sealed bytes at in_offset of in_fd; the database image is written to out_fd from offset 0 with pwrite (an empty
 * file, else older bytes may remain after it); more than `limit` bytes of it is ERR_CORRUPT
 * (zstd bomb). Every segment is authenticated before its bytes reach zstd. ERR_CORRUPT; ERR_NOMEM, ERR_NOSPACE, ERR_FAILED say nothing about
 * the object. After a failure out_fd holds a part of the image that nobody may use. */
int stream_open(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
		const uint8_t salt[CRYPT_SALT_BYTES], const void *header, size_t header_length, int in_fd,
		int64_t in_offset, uint64_t in_length, int out_fd, uint64_t limit, uint64_t *out_length,
		struct error *error);

#endif

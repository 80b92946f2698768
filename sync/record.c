/* Log records. Checkpoints are in checkpoint.c, the keys of both in object_key.c. */
#include "record.h"

#include "bytes.h"
#include "catalogue_schema.h"
#include "image.h"
#include "io.h"
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HASH_PIECE_BYTES (256u << 10)
#define IMAGE_LIMIT_FLOOR (UINT64_C(64) << 20)
#define IMAGE_LIMIT_RATIO 4096
#define IMAGE_LIMIT_MAX (UINT64_C(1) << 40)

enum { /* offsets: record_format.h */
	O_MAGIC = 0, O_FORMAT = 8, O_SCHEMA = 12, O_VOLUME = 16, O_SEQ = 32, O_WRITER = 40, O_CUT = 56, O_PREVIOUS = 64,
	O_BASE_SEQ = 96, O_BASE_RAND = 104, O_BASE_HASH = 112, O_BASE_LOG_HASH = 144, O_SALT = 176, O_PACK_LENGTH = 208,
	O_DELTA_LENGTH = 216, O_FLAGS = 224, O_SUITE = 228, O_ZERO = 229, O_COMPATIBLE = 232, O_READ_ONLY = 236,
	O_INCOMPATIBLE = 240, O_ZERO_END = 244,
};

/* ---------------------------------------------------------------- for both */

int object_hash(int fd, uint64_t length, uint8_t out[SHA256_BYTES], struct error *error)
{
	uint8_t *piece = malloc(HASH_PIECE_BYTES);
	struct digest *digest;
	int rc = 0;

	if (!piece)
		return error_errno(error, ENOMEM, "hashing an object");
	digest = digest_new(0);
	for (uint64_t at = 0; at < length && !rc;) {
		size_t want = length - at < HASH_PIECE_BYTES ? (size_t)(length - at) : HASH_PIECE_BYTES;
		ssize_t got = io_pread(fd, piece, want, (int64_t)at);
		if (got < 0)
			rc = error_errno(error, errno, "reading an object from the local disk");
		else if ((size_t)got != want)
			rc = error_set(error, ERR_FAILED, 0, "reading an object from the local disk: it is too short");
		else
			digest_update(digest, piece, want);
		at += want;
	}
	digest_finish(digest, out, NULL);
	free(piece);
	return rc;
}

uint64_t object_image_limit(uint64_t sealed_length)
{
	if (sealed_length <= IMAGE_LIMIT_FLOOR / IMAGE_LIMIT_RATIO)
		return IMAGE_LIMIT_FLOOR;
	return sealed_length < IMAGE_LIMIT_MAX / IMAGE_LIMIT_RATIO ? sealed_length * IMAGE_LIMIT_RATIO : IMAGE_LIMIT_MAX;
}

int object_sealed_length(const struct master *master, enum object_type type, int image_fd, uint64_t image_length,
			 uint64_t *out, struct error *error)
{
	uint8_t id[CRYPT_ID_BYTES] = {0}, salt[CRYPT_SALT_BYTES];
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(error, errno, "/dev/null");
	io_random(salt, sizeof(salt)); /* a key of its own (I23) */
	int rc = stream_seal(master, type, id, salt, NULL, 0, image_fd, image_length, fd, out, error);
	close(fd);
	return rc;
}

/* ---------------------------------------------------------------- header */

static void record_object_id(uint8_t id[CRYPT_ID_BYTES], int64_t seq)
{
	memset(id, 0, CRYPT_ID_BYTES);
	put_u64(id, (uint64_t)seq);
}

static void header_encode(uint8_t out[RECORD_HEADER_BYTES], const struct record_header *header)
{
	memset(out, 0, RECORD_HEADER_BYTES);
	memcpy(out + O_MAGIC, RECORD_MAGIC, 8);
	put_u32(out + O_FORMAT, RECORD_FORMAT);
	put_u32(out + O_SCHEMA, header->schema);
	memcpy(out + O_VOLUME, header->volume_id, CRYPT_ID_BYTES);
	put_u64(out + O_SEQ, (uint64_t)header->seq);
	memcpy(out + O_WRITER, header->writer_id, CRYPT_ID_BYTES);
	put_u64(out + O_CUT, (uint64_t)header->cut_ns);
	memcpy(out + O_PREVIOUS, header->previous_hash, SHA256_BYTES);
	put_u64(out + O_BASE_SEQ, (uint64_t)header->base.seq);
	put_u64(out + O_BASE_RAND, header->base.rand);
	memcpy(out + O_BASE_HASH, header->base.hash, SHA256_BYTES);
	memcpy(out + O_BASE_LOG_HASH, header->base.log_hash, SHA256_BYTES);
	memcpy(out + O_SALT, header->salt, CRYPT_SALT_BYTES);
	put_u64(out + O_PACK_LENGTH, header->pack_length);
	put_u64(out + O_DELTA_LENGTH, header->delta_length);
	put_u32(out + O_FLAGS, header->flags);
	out[O_SUITE] = (uint8_t)header->suite;
	put_u32(out + O_COMPATIBLE, header->compatible);
	put_u32(out + O_READ_ONLY, header->read_only_compatible);
}

static void header_decode(const uint8_t *bytes, struct record_header *out)
{
	out->schema = get_u32(bytes + O_SCHEMA);
	out->flags = get_u32(bytes + O_FLAGS);
	memcpy(out->volume_id, bytes + O_VOLUME, CRYPT_ID_BYTES);
	memcpy(out->writer_id, bytes + O_WRITER, CRYPT_ID_BYTES);
	memcpy(out->salt, bytes + O_SALT, CRYPT_SALT_BYTES);
	out->seq = (int64_t)get_u64(bytes + O_SEQ);
	out->cut_ns = (int64_t)get_u64(bytes + O_CUT);
	memcpy(out->previous_hash, bytes + O_PREVIOUS, SHA256_BYTES);
	out->base.seq = (int64_t)get_u64(bytes + O_BASE_SEQ);
	out->base.rand = get_u64(bytes + O_BASE_RAND);
	memcpy(out->base.hash, bytes + O_BASE_HASH, SHA256_BYTES);
	memcpy(out->base.log_hash, bytes + O_BASE_LOG_HASH, SHA256_BYTES);
	out->pack_length = get_u64(bytes + O_PACK_LENGTH);
	out->delta_length = get_u64(bytes + O_DELTA_LENGTH);
	out->suite = (enum suite)bytes[O_SUITE];
	out->compatible = get_u32(bytes + O_COMPATIBLE);
	out->read_only_compatible = get_u32(bytes + O_READ_ONLY);
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i])
			return false;
	return true;
}

static int bad_header(struct error *error, const char *why)
{
	return error_set(error, ERR_CORRUPT, 0, "log record: %s", why);
}

/* One meaning has one spelling: what is not used is zero. */
static bool header_consistent(const struct record_header *header)
{
	if (header->seq < 1 || header->base.seq < 0 || header->base.seq >= header->seq)
		return false;
	if (header->seq == 1 && !all_zero(header->previous_hash, SHA256_BYTES))
		return false;
	if (header->base.seq == 0 && (header->base.rand || !all_zero(header->base.hash, SHA256_BYTES) ||
				      !all_zero(header->base.log_hash, SHA256_BYTES)))
		return false;
	return (header->flags & ~(RECORD_TAKE_OVER | RECORD_PARTIAL)) == 0;
}

int record_read_header(const struct master *master, const uint8_t bytes[RECORD_HEADER_BYTES],
		       struct record_header *out, struct error *error)
{
	memset(out, 0, sizeof(*out));
	if (memcmp(bytes + O_MAGIC, RECORD_MAGIC, 8) != 0)
		return bad_header(error, "not a log record");
	if (get_u32(bytes + O_FORMAT) > RECORD_FORMAT || get_u32(bytes + O_INCOMPATIBLE) != 0)
		return error_set(error, ERR_UNSUPPORTED, 0, "log record: written by a newer yester; install that one");
	if (get_u32(bytes + O_FORMAT) != RECORD_FORMAT)
		return bad_header(error, "unknown format");
	header_decode(bytes, out);
	if (memcmp(out->volume_id, master_volume_id(master), CRYPT_ID_BYTES) != 0)
		return bad_header(error, "of another volume");
	if (out->suite != master_suite(master)) /* fault 46: no downgrade */
		return bad_header(error, "not sealed as this volume is");
	if (!all_zero(bytes + O_ZERO, O_COMPATIBLE - O_ZERO) ||
	    !all_zero(bytes + O_ZERO_END, RECORD_HEADER_BYTES - O_ZERO_END) || !header_consistent(out))
		return bad_header(error, "malformed header");
	if (out->schema > CATALOGUE_SCHEMA)
		return error_set(error, ERR_UNSUPPORTED, 0, "log record: written by a newer yester; install that one");
	if (out->schema != CATALOGUE_SCHEMA)
		return bad_header(error, "unknown schema");
	return 0;
}

/* ---------------------------------------------------------------- writing */

static int write_parts(const struct master *master, const struct record_header *header, const struct buf *pack,
		       int image_fd, uint64_t image_length, int out_fd, struct error *error)
{
	uint8_t bytes[RECORD_HEADER_BYTES], id[CRYPT_ID_BYTES];
	uint64_t sealed;

	header_encode(bytes, header);
	record_object_id(id, header->seq);
	if (io_pwrite(out_fd, bytes, sizeof(bytes), 0) < 0 ||
	    (pack && io_pwrite(out_fd, pack->data, pack->length, RECORD_HEADER_BYTES) < 0) ||
	    lseek(out_fd, (off_t)(RECORD_HEADER_BYTES + header->pack_length), SEEK_SET) < 0)
		return error_errno(error, errno, "log record %lld", (long long)header->seq);
	int rc = stream_seal(master, OBJECT_RECORD, id, header->salt, bytes, sizeof(bytes), image_fd, image_length,
			     out_fd, &sealed, error);
	if (!rc && sealed != header->delta_length)
		rc = error_set(error, ERR_FAILED, 0, "log record %lld: its delta changed while it was sealed",
			       (long long)header->seq);
	return rc;
}

int record_write(const struct master *master, struct record_header *header, const struct buf *inline_pack,
		 struct delta *delta, int out_fd, uint64_t *length_out, uint8_t hash_out[SHA256_BYTES],
		 struct error *error)
{
	uint64_t image_length;
	int image_fd, rc = delta_image(delta, &image_fd, &image_length, error);

	if (rc)
		return rc;
	header->schema = CATALOGUE_SCHEMA;
	memcpy(header->volume_id, master_volume_id(master), CRYPT_ID_BYTES);
	io_random(header->salt, sizeof(header->salt));
	header->pack_length = inline_pack ? inline_pack->length : 0;
	header->suite = master_suite(master);
	header->compatible = header->read_only_compatible = 0;
	if (!header_consistent(header) || delta_seq(delta) != header->seq)
		rc = error_set(error, ERR_FAILED, 0, "log record %lld: inconsistent header", (long long)header->seq);
	if (!rc)
		rc = object_sealed_length(master, OBJECT_RECORD, image_fd, image_length, &header->delta_length, error);
	if (!rc)
		rc = write_parts(master, header, inline_pack, image_fd, image_length, out_fd, error);
	if (!rc) {
		*length_out = RECORD_HEADER_BYTES + header->pack_length + header->delta_length;
		rc = object_hash(out_fd, *length_out, hash_out, error);
	}
	close(image_fd);
	return rc;
}

/* ---------------------------------------------------------------- reading */

/* The delta's own idea of its version against the header's. */
static int check_version(struct delta *delta, const struct record_header *header, struct error *error)
{
	struct version_row row;
	int64_t flags = (header->flags & RECORD_PARTIAL ? VERSION_PARTIAL : 0) |
			(header->flags & RECORD_TAKE_OVER ? VERSION_TAKE_OVER : 0);
	int rc = delta_get_version(delta, &row, error);

	if (rc)
		return rc;
	if (row.seq != header->seq || row.cut_ns != header->cut_ns ||
	    (row.flags & (VERSION_PARTIAL | VERSION_TAKE_OVER)) != flags)
		return bad_header(error, "header and delta differ");
	return 0;
}

static int read_delta(const struct master *master, int in_fd, const uint8_t *bytes, const struct record_header *header,
		      const char *tmp_dir, struct delta **delta, struct error *error)
{
	uint8_t id[CRYPT_ID_BYTES];
	uint64_t image_length;
	int image_fd = image_file(tmp_dir, error);

	if (image_fd < 0)
		return image_fd;
	record_object_id(id, header->seq);
	int rc = stream_open(master, OBJECT_RECORD, id, header->salt, bytes, RECORD_HEADER_BYTES, in_fd,
			     (int64_t)(RECORD_HEADER_BYTES + header->pack_length), header->delta_length, image_fd,
			     object_image_limit(header->delta_length), &image_length, error);
	if (rc) {
		close(image_fd);
		return rc;
	}
	return delta_from_image(image_fd, image_length, header->seq, tmp_dir, delta, error);
}

int record_read(const struct master *master, int in_fd, uint64_t length, int64_t seq, const char *tmp_dir,
		struct record_header *header, struct delta **delta, struct error *error)
{
	uint8_t bytes[RECORD_HEADER_BYTES];
	ssize_t got = io_pread(in_fd, bytes, sizeof(bytes), 0);

	*delta = NULL;
	if (got < 0)
		return error_errno(error, errno, "log record");
	if (got != RECORD_HEADER_BYTES || length < RECORD_HEADER_BYTES)
		return bad_header(error, "truncated");
	int rc = record_read_header(master, bytes, header, error);
	if (rc)
		return rc;
	if (seq >= 0 && header->seq != seq)
		return bad_header(error, "it has another number than its key"); /* fault 44 */
	uint64_t body = length - RECORD_HEADER_BYTES;
	if (header->pack_length > body || header->delta_length != body - header->pack_length)
		return bad_header(error, "truncated, or with bytes behind its end");
	rc = read_delta(master, in_fd, bytes, header, tmp_dir, delta, error);
	if (!rc)
		rc = check_version(*delta, header, error);
	if (rc) {
		delta_free(*delta);
		*delta = NULL;
	}
	return rc;
}

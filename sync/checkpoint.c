/* Checkpoints (record.h, record_format.h). */
#include "record.h"

#include "bytes.h"
#include "catalogue_schema.h"
#include "image.h"
#include "io.h"
#include "seal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { /* offsets: record_format.h */
	O_MAGIC = 0, O_FORMAT = 8, O_SCHEMA = 12, O_VOLUME = 16, O_SEQ = 32, O_RAND = 40, O_LOG_HASH = 48, O_SALT = 80,
	O_LENGTH = 112, O_SUITE = 120, O_ZERO = 121, O_INCOMPATIBLE = 124,
};

static void checkpoint_object_id(uint8_t id[CRYPT_ID_BYTES], int64_t seq, uint64_t rand)
{
	put_u64(id, (uint64_t)seq);
	put_u64(id + 8, rand);
}

static void header_encode(uint8_t out[CHECKPOINT_HEADER_BYTES], const struct master *master, int64_t seq, uint64_t rand,
			  const uint8_t *log_hash, const uint8_t *salt, uint64_t sealed_length)
{
	memset(out, 0, CHECKPOINT_HEADER_BYTES);
	memcpy(out + O_MAGIC, CHECKPOINT_MAGIC, 8);
	put_u32(out + O_FORMAT, RECORD_FORMAT);
	put_u32(out + O_SCHEMA, CATALOGUE_SCHEMA);
	memcpy(out + O_VOLUME, master_volume_id(master), CRYPT_ID_BYTES);
	put_u64(out + O_SEQ, (uint64_t)seq);
	put_u64(out + O_RAND, rand);
	memcpy(out + O_LOG_HASH, log_hash, SHA256_BYTES);
	memcpy(out + O_SALT, salt, CRYPT_SALT_BYTES);
	put_u64(out + O_LENGTH, sealed_length);
	out[O_SUITE] = (uint8_t)master_suite(master);
}

int checkpoint_write(const struct master *master, int64_t seq, const uint8_t log_hash[SHA256_BYTES], int image_fd,
		     uint64_t image_length, int out_fd, uint64_t *rand, uint64_t *length_out,
		     uint8_t hash_out[SHA256_BYTES], struct error *error)
{
	uint8_t header[CHECKPOINT_HEADER_BYTES], salt[CRYPT_SALT_BYTES], id[CRYPT_ID_BYTES];
	uint64_t expected, sealed;
	int rc = object_sealed_length(master, OBJECT_CHECKPOINT, image_fd, image_length, &expected, error);

	if (rc)
		return rc;
	io_random(rand, sizeof(*rand));
	io_random(salt, sizeof(salt));
	header_encode(header, master, seq, *rand, log_hash, salt, expected);
	checkpoint_object_id(id, seq, *rand);
	if (io_pwrite(out_fd, header, sizeof(header), 0) < 0 || lseek(out_fd, sizeof(header), SEEK_SET) < 0)
		return error_errno(error, errno, "checkpoint %lld", (long long)seq);
	rc = stream_seal(master, OBJECT_CHECKPOINT, id, salt, header, sizeof(header), image_fd, image_length, out_fd,
			 &sealed, error);
	if (!rc && sealed != expected)
		rc = error_set(error, ERR_FAILED, 0, "checkpoint %lld: its image changed while it was sealed", (long long)seq);
	if (rc)
		return rc;
	*length_out = CHECKPOINT_HEADER_BYTES + sealed;
	return object_hash(out_fd, *length_out, hash_out, error);
}

static int bad(struct error *error, const char *why)
{
	return error_set(error, ERR_CORRUPT, 0, "checkpoint: %s", why);
}

static int check_header(const struct master *master, const uint8_t *header, uint64_t length, int64_t seq, uint64_t rand,
			struct error *error)
{
	if (memcmp(header + O_MAGIC, CHECKPOINT_MAGIC, 8) != 0)
		return bad(error, "not a checkpoint");
	if (get_u32(header + O_FORMAT) > RECORD_FORMAT || get_u32(header + O_SCHEMA) > CATALOGUE_SCHEMA ||
	    get_u32(header + O_INCOMPATIBLE) != 0)
		return error_set(error, ERR_UNSUPPORTED, 0, "checkpoint: written by a newer yester; install that one");
	if (get_u32(header + O_FORMAT) != RECORD_FORMAT || get_u32(header + O_SCHEMA) != CATALOGUE_SCHEMA)
		return bad(error, "unknown format or schema");
	if (memcmp(header + O_VOLUME, master_volume_id(master), CRYPT_ID_BYTES) != 0)
		return bad(error, "of another volume");
	if (header[O_SUITE] != master_suite(master))
		return bad(error, "not sealed as this volume is");
	if (header[O_ZERO] || header[O_ZERO + 1] || header[O_ZERO + 2])
		return bad(error, "malformed header");
	if (get_u64(header + O_SEQ) != (uint64_t)seq || get_u64(header + O_RAND) != rand)
		return bad(error, "it has another number than its key");
	if (get_u64(header + O_LENGTH) != length - CHECKPOINT_HEADER_BYTES)
		return bad(error, "truncated, or with bytes behind its end");
	return 0;
}

int checkpoint_read(const struct master *master, int in_fd, uint64_t length, int64_t seq, uint64_t rand,
		    const char *tmp_dir, int *image_fd, uint64_t *image_length, struct error *error)
{
	uint8_t header[CHECKPOINT_HEADER_BYTES], id[CRYPT_ID_BYTES];
	ssize_t got = io_pread(in_fd, header, sizeof(header), 0);

	*image_fd = -1;
	if (got < 0)
		return error_errno(error, errno, "checkpoint");
	if (got != CHECKPOINT_HEADER_BYTES || length < CHECKPOINT_HEADER_BYTES)
		return bad(error, "truncated");
	int rc = check_header(master, header, length, seq, rand, error);
	if (rc)
		return rc;
	int fd = image_file(tmp_dir, error);
	if (fd < 0)
		return fd;
	checkpoint_object_id(id, seq, rand);
	rc = stream_open(master, OBJECT_CHECKPOINT, id, header + O_SALT, header, sizeof(header), in_fd,
			 CHECKPOINT_HEADER_BYTES, length - CHECKPOINT_HEADER_BYTES, fd,
			 object_image_limit(length - CHECKPOINT_HEADER_BYTES), image_length, error);
	if (rc)
		close(fd);
	else
		*image_fd = fd;
	return rc;
}

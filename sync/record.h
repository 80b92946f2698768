/* record: log records and checkpoints as objects: built from a delta or a catalogue image, opened and verified. Formats: record_format.h.
 * Functions work on file descriptors, so that memory does not grow with the delta; a descriptor that is written to must be
 * open for reading too, and empty. Any thread. */
#ifndef YESTER_RECORD_H
#define YESTER_RECORD_H

#include "buf.h"
#include "crypt.h"
#include "delta.h"
#include "digest.h"
#include "record_format.h"

#include <stdint.h>

struct record_base { /* the checkpoint in force; seq 0: none yet */
	int64_t seq;
	uint64_t rand;
	uint8_t hash[SHA256_BYTES];     /* of the checkpoint object */
	uint8_t log_hash[SHA256_BYTES]; /* of log/seq */
};

struct record_header {
	uint32_t schema, flags; /* RECORD_* */
	uint8_t volume_id[CRYPT_ID_BYTES], writer_id[CRYPT_ID_BYTES], salt[CRYPT_SALT_BYTES];
	int64_t seq, cut_ns;
	uint8_t previous_hash[SHA256_BYTES];
	struct record_base base;
	uint64_t pack_length, delta_length; /* bytes */
	enum suite suite;
	/* Feature flags: compatible and read-only-compatible ones that we don't know; a writer refuses to go on above the latter. */
	uint32_t compatible, read_only_compatible;
};

#define RECORD_KEY_BYTES 64
void record_key(char out[RECORD_KEY_BYTES], int64_t seq);                         /* log/0000000000000001 */
void checkpoint_key(char out[RECORD_KEY_BYTES], int64_t seq, uint64_t rand);      /* checkpoint/...-... */
void pack_key(char out[RECORD_KEY_BYTES], const uint8_t id[CRYPT_ID_BYTES]);      /* pack/ab/ab... */
/* Number of a key of that kind (canonical, from 1), or -1 if it is not one. */
int64_t record_key_parse(const char *key);
int checkpoint_key_parse(const char *key, int64_t *seq, uint64_t *rand); /* 0, or ERR_CORRUPT */

/* Writes the whole record to out_fd from offset 0. header: seq, cut_ns, flags, writer_id, previous_hash, base are the caller's; the rest is filled in. inline_pack may be NULL. hash_out: SHA-256
 * of all bytes. */
int record_write(const struct master *master, struct record_header *header, const struct buf *inline_pack,
		 struct delta *delta, int out_fd, uint64_t *length_out, uint8_t hash_out[SHA256_BYTES],
		 struct error *error);
/* Parses 256 bytes; checks magic, format, zero fields, volume id, suite. ERR_CORRUPT, ERR_UNSUPPORTED (incompatible features, newer format or schema). Not yet
 * authenticated. */
int record_read_header(const struct master *master, const uint8_t bytes[RECORD_HEADER_BYTES],
		       struct record_header *out, struct error *error);
/* Authenticates header and delta, gives both (delta: fresh, delta_free). in_fd holds the whole object of `length` bytes. A `seq` >= 0 is compared. The version row
 * says what the header says. The inline pack is not looked at: its chunks are authenticated when they are read. */
int record_read(const struct master *master, int in_fd, uint64_t length, int64_t seq, const char *tmp_dir,
		struct record_header *header, struct delta **delta, struct error *error);

/* Checkpoint of the catalogue image in image_fd (from offset 0). log_hash: of log/seq. *rand is made; hash_out: SHA-256 of the object. */
int checkpoint_write(const struct master *master, int64_t seq, const uint8_t log_hash[SHA256_BYTES], int image_fd,
		     uint64_t image_length, int out_fd, uint64_t *rand, uint64_t *length_out,
		     uint8_t hash_out[SHA256_BYTES], struct error *error);
/* Authenticates (header, seq and rand as in its key) and writes the image to a fresh unlinked file in tmp_dir. */
int checkpoint_read(const struct master *master, int in_fd, uint64_t length, int64_t seq, uint64_t rand,
		    const char *tmp_dir, int *image_fd, uint64_t *image_length, struct error *error);

/* --- For both. */
/* SHA-256 of the first `length` bytes of a file. ERR_FAILED when it is shorter. */
int object_hash(int fd, uint64_t length, uint8_t out[SHA256_BYTES], struct error *error);
/* Most bytes that the image in a stream of so many sealed bytes may have: nothing that zstd makes of an honest database comes near (fault 42). */
uint64_t object_image_limit(uint64_t sealed_length);
/* Length that stream_seal will give to that file's stream: the header, which each segment is sealed with, has to say it before. */
int object_sealed_length(const struct master *master, enum object_type type, int image_fd, uint64_t image_length,
			 uint64_t *out, struct error *error);

#endif

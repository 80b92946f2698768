/* sample_log: a volume in a file:// store, made by hand: packs, deltas, records, checkpoints. For the unit tests of what reads them. Failures fail the test. */
#ifndef YESTER_SAMPLE_LOG_H
#define YESTER_SAMPLE_LOG_H

#include "crypt.h"
#include "config.h"
#include "delta.h"
#include "record.h"
#include "store.h"

#include <stdbool.h>

struct sample {
	char *dir;    /* temporary: holds remote/, tmp/ and whatever the test makes */
	char *remote; /* dir/remote */
	char *tmp;    /* dir/tmp */
	char *passphrase_file;
	struct volume_config *config;
	struct store *store;
	struct master *master;
	int64_t seq;  /* newest record, 0: none */
	uint8_t hash[SHA256_BYTES];
	struct record_base base;
	uint8_t writer_id[CRYPT_ID_BYTES];
	int64_t chunk, pack; /* newest numbers */
	struct buf inline_pack; /* of the record in the making */
};

/* An empty volume; encrypted with the passphrase "correct horse". */
void sample_open(struct sample *sample, bool encrypted);
/* Removes the directory. */
void sample_close(struct sample *sample);

/* The delta of the next version, with its version row and (in the first) the root directory. */
struct delta *sample_delta(struct sample *sample, int64_t flags);
/* A directory, or a file whose bytes lie in one chunk in a pack of its own: an object, or inline in the record. */
void sample_add_dir(struct delta *delta, int64_t parent, const char *name, int64_t ino);
void sample_add_file(struct sample *sample, struct delta *delta, int64_t parent, const char *name, int64_t ino,
		     const void *data, size_t length, bool in_record);
/* The record of that delta, put as the next one; frees the delta. */
void sample_commit(struct sample *sample, struct delta *delta, uint32_t flags);
/* Writes a checkpoint of db's catalogue, which is at sample->seq; the next records name it. */
void sample_checkpoint(struct sample *sample, struct db *db);

/* The file of an object. Fresh string. */
char *sample_object(const struct sample *sample, const char *key);
/* Flips a bit of it. */
void sample_flip(const struct sample *sample, const char *key, int64_t offset);
void sample_remove(const struct sample *sample, const char *key);

/* rm -rf */
void sample_remove_tree(const char *path);

#endif

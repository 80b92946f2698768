#include "writer.h"

#include "digest.h"
#include "io.h"

#include <fcntl.h>
#include <string.h>

#define HALF (CRYPT_ID_BYTES / 2)
#define MACHINE_ID_MAX 64

/* What the mark is made of: the random half, the directory's identity (filesystem and handle), the machine's. machine-id(5) asks programs to show that to nobody but through a keyed hash; where there
 * is none, the directory's has to do. */
static size_t gather(struct volume *volume, const uint8_t random[HALF], uint8_t out[HALF + BACKING_IDENTITY_BYTES + MACHINE_ID_MAX])
{
	struct buf machine = {0};
	size_t length = HALF;

	memcpy(out, random, HALF);
	length += backing_identity(volume_backing(volume), out + length);
	if (io_read_file(AT_FDCWD, "/etc/machine-id", MACHINE_ID_MAX, &machine, NULL) == 0) {
		memcpy(out + length, machine.data, machine.length);
		length += machine.length;
	}
	buf_free(&machine);
	return length;
}

static void make_mark(const struct master *master, struct volume *volume, const uint8_t random[HALF], uint8_t out[HALF])
{
	uint8_t key[CRYPT_KEY_BYTES], text[HALF + BACKING_IDENTITY_BYTES + MACHINE_ID_MAX], hash[SHA256_BYTES];

	master_derive(master, "yester writer", key);
	hmac_sha256(hash, key, sizeof(key), text, gather(volume, random, text));
	memcpy(out, hash, HALF);
	crypt_wipe(key, sizeof(key));
}

void writer_new(const struct master *master, struct volume *volume, uint8_t out[CRYPT_ID_BYTES])
{
	io_random(out, HALF);
	make_mark(master, volume, out, out + HALF);
}

bool writer_is_ours(const struct master *master, struct volume *volume, const uint8_t id[CRYPT_ID_BYTES])
{
	uint8_t mark[HALF];

	make_mark(master, volume, id, mark);
	return crypt_equal(mark, id + HALF, HALF);
}

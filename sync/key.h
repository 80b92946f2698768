/* key: the volume descriptor and the key slots: two small text objects of `name value` lines.
 *
 * <prefix>/volume:
 *     yester volume
 *     format 1
 *     volume 32 hex digits
 *     suite aes-256-gcm | none
 *     chunk-min 131072
 *     chunk-average 524288
 *     chunk-max 2097152
 *     created 2026-11-20T08-14-07Z
 *     compatible 0
 *     read-only-compatible 0
 *     incompatible 0
 *     mac 64 hex digits      HMAC-SHA256(derive("yester volume descriptor"), all bytes before this line)
 *
 * Both are at most KEY_TEXT_MAX_BYTES of printable ASCII; lines stand in this order and end with one newline; numbers are decimal without leading zeros, hex
 * digits are lower case: one meaning has one spelling.
 *
 * <prefix>/key/SLOT (SLOT: 8 hex digits):
 *     yester key
 *     format 1
 *     kind passphrase | file | recovery
 *     generation 1
 *     scrypt 131072 8 1      (passphrase only; N, r, p; capped when read: N <= 2^20, r <= 16, p <= 4, N a power of two)
 *     salt 64 hex digits
 *     wrapped 96 hex digits  AES-256-GCM(KEK, nonce 0, aad = "yester key" || volume id || u8 kind 1..3), ciphertext || tag
 * KEK: passphrase: scrypt(passphrase, salt); file: HKDF(the file's 32 bytes, salt, "yester key file" || volume id);
 * recovery: HKDF(the 20 bytes, salt, "yester recovery key" || volume id).
 * A key file holds 64 hex digits and a newline. A recovery key is base32 of 20 random bytes || first 5 bytes of SHA-256("yester recovery key" || those 20), 40
 * characters in groups of 5 joined by '-'. A passphrase is the first line of its file, without the newline.
 * Unknown lines in a descriptor are errors unless `compatible` has bits set that we don't know (unknown names are then ignored; the mac is still
 * last). A key slot has no unknown lines. */
#ifndef YESTER_KEY_H
#define YESTER_KEY_H

#include "buf.h"
#include "crypt.h"

#include <stdbool.h>

#define KEY_TEXT_MAX_BYTES 4096

/* Feature bits that this program knows. Unknown bits: compatible: nothing; read-only-compatible: the volume can be read, and whoever wants to write
 * refuses (descriptor_writable); incompatible: descriptor_read refuses. */
#define VOLUME_COMPATIBLE_KNOWN UINT64_C(0)
#define VOLUME_READ_ONLY_COMPATIBLE_KNOWN UINT64_C(0)
#define VOLUME_INCOMPATIBLE_KNOWN UINT64_C(0)

struct volume_descriptor {
	uint8_t volume_id[CRYPT_ID_BYTES];
	enum suite suite;
	uint32_t chunk_min, chunk_average, chunk_max; /* bytes; validated: powers of two, 4 KiB..16 MiB, min < average < max */
	int64_t created_s;
	uint64_t compatible, read_only_compatible, incompatible;
};

enum key_kind { KEY_PASSPHRASE = 1, KEY_FILE = 2, KEY_RECOVERY = 3 };

#define KEY_RECOVERY_TEXT_BYTES 48 /* 40 characters, 7 dashes, NUL */

/* Fresh descriptor with a random id and the default chunk sizes. */
void descriptor_init(struct volume_descriptor *descriptor, enum suite suite);
/* Text with the mac of `master`. */
int descriptor_write(const struct volume_descriptor *descriptor, const struct master *master, struct buf *out);
/* Parses; the mac is checked by descriptor_verify once the master is known. ERR_CORRUPT; ERR_UNSUPPORTED when `incompatible` has unknown bits or format > 1. */
int descriptor_read(const void *text, size_t length, struct volume_descriptor *out, struct error *error);
/* The mac, and that the text tells of the master's volume and suite (fault 46). ERR_CORRUPT. */
int descriptor_verify(const void *text, size_t length, const struct master *master, struct error *error);
/* 0, or ERR_UNSUPPORTED: a newer program has written here, and this one may only read. */
int descriptor_writable(const struct volume_descriptor *descriptor, struct error *error);

/* A new master key for the volume, random, or NULL key for SUITE_NONE. */
struct master *key_new_master(const struct volume_descriptor *descriptor);

/* Wraps. `secret`: passphrase bytes, the 32 bytes of a key file, or the 20 bytes of a recovery key. */
int key_slot_write(const struct master *master, enum key_kind kind, const void *secret, size_t length, struct buf *out,
		   struct error *error);
/* Kind of a slot, without any secret. ERR_CORRUPT, ERR_UNSUPPORTED. */
int key_slot_kind(const void *text, size_t length, enum key_kind *kind, struct error *error);
/* Unwraps. ERR_KEY when the secret does not fit this slot (also when its kind is another), ERR_CORRUPT when the slot is malformed. */
int key_slot_open(const void *text, size_t length, const struct volume_descriptor *descriptor, enum key_kind kind,
		  const void *secret, size_t secret_length, struct master **out, struct error *error);

/* Secrets as people keep them. Regular files open to group or others are refused (fault 49: ERR_USAGE); a pipe is read as it comes. Results replace what
 * is in out and are for buf_wipe. ERR_KEY: the content is not a passphrase or key. */
int key_read_passphrase(const char *path, struct buf *out, struct error *error); /* first line, 1..1024 bytes */
int key_read_file(const char *path, struct buf *out, struct error *error);       /* 32 bytes */
int key_create_file(const char *path, struct buf *out, struct error *error);     /* O_EXCL, 0600, fsynced */
void key_new_recovery(uint8_t secret[20], char text[KEY_RECOVERY_TEXT_BYTES]);
int key_parse_recovery(const char *text, uint8_t secret[20], struct error *error); /* ERR_KEY: not a recovery key (checksum) */

#endif

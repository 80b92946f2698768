/* crypt: sealing of bytes (OpenSSL inside). Formats: man/yester-format.5 section "Sealing".
 *
 * One master key per volume. Each object (pack, record, checkpoint) has a random 32-byte salt and from it a key of its own:
 *     object key = HKDF-SHA256(ikm = master, salt = object salt, info = "yester object" || u8 type || volume id), 32 bytes
 * A sealed piece of an object is ciphertext || 16-byte tag, where
 *     nonce = 4 zero bytes || u64 number                      (a number is used once per object: I23)
 *     aad   = "YSTR" || u8 format (1) || u8 suite || u8 type || u8 final || volume id (16) || object id (16) || u64 number || extra
 * Suite 1 is AES-256-GCM. Suite 0 (no encryption) leaves the bytes clear, and its tag is the first 16 bytes of
 * HMAC-SHA256(object key, nonce || aad || bytes): a checksum against accident, since the "master key" of
 * an unencrypted volume is SHA-256("yester unencrypted volume" || volume id), which everyone can compute.
 * All integers little-endian. */
#ifndef YESTER_CRYPT_H
#define YESTER_CRYPT_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum suite { SUITE_NONE = 0, SUITE_AES256_GCM = 1 };
enum object_type { OBJECT_PACK = 1, OBJECT_RECORD = 2, OBJECT_CHECKPOINT = 3, OBJECT_KEY = 4 };

#define CRYPT_KEY_BYTES 32
#define CRYPT_SALT_BYTES 32
#define CRYPT_TAG_BYTES 16
#define CRYPT_ID_BYTES 16
#define CRYPT_FORMAT 1

/* The unlocked volume. Lives in memory of its own that is locked, kept out of cores, and wiped on free; never copied. (Locking is best effort: a
 * user without any RLIMIT_MEMLOCK still gets his files. It is not inherited by fork: daemonise first.) Read-only after creation: any thread. */
struct master;
/* `key`: 32 bytes, NULL: SUITE_NONE. NULL: out of memory. */
struct master *master_new(const uint8_t volume_id[CRYPT_ID_BYTES], const uint8_t *key);
void master_free(struct master *master);
enum suite master_suite(const struct master *master);
const uint8_t *master_volume_id(const struct master *master);
const uint8_t *master_key(const struct master *master); /* key.c only: to wrap it */
/* HKDF-SHA256(master, salt = volume id, info = purpose without its NUL): "yester chunk id", "yester gear", "yester volume descriptor". */
void master_derive(const struct master *master, const char *purpose, uint8_t out[CRYPT_KEY_BYTES]);
/* First 16 bytes of HMAC-SHA256(derive("yester chunk id"), bytes); the derived key is cached in the master. */
void master_chunk_id(const struct master *master, const void *data, size_t length, uint8_t out[CRYPT_ID_BYTES]);

/* One object's key and identity. Not thread-safe; one per thread. NULL: out of memory. */
struct sealer;
struct sealer *sealer_new(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
			  const uint8_t salt[CRYPT_SALT_BYTES]);
void sealer_free(struct sealer *sealer);
/* out has length + CRYPT_TAG_BYTES bytes; may not overlap. 0 or ERR_FAILED. */
int sealer_seal(struct sealer *sealer, uint64_t number, bool final, const void *extra, size_t extra_length,
		const void *data, size_t length, uint8_t *out);
/* `sealed_length` includes the tag; out has sealed_length - CRYPT_TAG_BYTES bytes. 0 or ERR_CORRUPT (out is wiped). */
int sealer_open(struct sealer *sealer, uint64_t number, bool final, const void *extra, size_t extra_length,
		const void *sealed, size_t sealed_length, uint8_t *out);

/* HKDF-SHA256 and scrypt, for key.c. */
void crypt_hkdf(uint8_t *out, size_t out_length, const void *ikm, size_t ikm_length, const void *salt,
		size_t salt_length, const void *info, size_t info_length);
int crypt_scrypt(uint8_t out[CRYPT_KEY_BYTES], const void *passphrase, size_t length,
		 const void *salt, size_t salt_length, uint64_t n, uint32_t r, uint32_t p); /* 0 or ERR_NOMEM; the caller caps n, r, p */
/* AES-256-GCM as NIST SP 800-38D has it, for key.c: out of _seal has length + CRYPT_TAG_BYTES bytes, _open takes as many. A (key, nonce) pair seals
 * once. 0 or ERR_FAILED; 0 or ERR_CORRUPT (out is wiped). */
int crypt_gcm_seal(const uint8_t key[CRYPT_KEY_BYTES], const uint8_t nonce[12], const void *aad, size_t aad_length,
		   const void *data, size_t length, uint8_t *out);
int crypt_gcm_open(const uint8_t key[CRYPT_KEY_BYTES], const uint8_t nonce[12], const void *aad, size_t aad_length,
		   const void *sealed, size_t sealed_length, uint8_t *out);
/* Whether two secrets are equal, in time that does not depend on where they differ. */
bool crypt_equal(const void *a, const void *b, size_t length);
void crypt_wipe(void *data, size_t length);

#endif

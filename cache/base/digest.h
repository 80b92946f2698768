/* digest: hashes (OpenSSL inside). All functions are thread-safe and cannot fail (out of memory aborts). */
#ifndef YESTER_DIGEST_H
#define YESTER_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define MD5_BYTES 16

void sha256(uint8_t out[SHA256_BYTES], const void *data, size_t length);
void md5(uint8_t out[MD5_BYTES], const void *data, size_t length);
void hmac_sha256(uint8_t out[SHA256_BYTES], const void *key, size_t key_length, const void *data, size_t length);

/* Incremental SHA-256 (and MD5 beside it when with_md5: S3 wants both of one body). */
struct digest;
struct digest *digest_new(int with_md5);
void digest_update(struct digest *digest, const void *data, size_t length);
/* Frees. md5_out may be NULL. */
void digest_finish(struct digest *digest, uint8_t sha256_out[SHA256_BYTES], uint8_t *md5_out);

#endif

#include "digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct digest {
	EVP_MD_CTX *sha256;
	EVP_MD_CTX *md5; /* NULL: not wanted */
};

static void require(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "yester: %s: the OpenSSL library failed\n", what);
	abort();
}

/* Fetched once: EVP_sha256() would search the providers at every use. Kept until the process ends. */
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256_md;

static void sha256_fetch(void)
{
	sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
	require(sha256_md != NULL, "SHA-256");
}

static const EVP_MD *sha256_get(void)
{
	pthread_once(&sha256_once, sha256_fetch);
	return sha256_md;
}

void sha256(uint8_t out[SHA256_BYTES], const void *data, size_t length)
{
	require(EVP_Digest(data, length, out, NULL, sha256_get(), NULL), "SHA-256");
}

void md5(uint8_t out[MD5_BYTES], const void *data, size_t length)
{
	require(EVP_Digest(data, length, out, NULL, EVP_md5(), NULL), "MD5");
}

void hmac_sha256(uint8_t out[SHA256_BYTES], const void *key, size_t key_length, const void *data, size_t length)
{
	/* HMAC() takes an int; a longer key is hashed first, as RFC 2104 says HMAC does anyway. */
	uint8_t short_key[SHA256_BYTES];

	if (key_length > SHA256_BYTES * 2) {
		sha256(short_key, key, key_length);
		key = short_key;
		key_length = sizeof short_key;
	}
	require(HMAC(sha256_get(), key_length ? key : "", (int)key_length, data, length, out, NULL) != NULL, "HMAC");
	OPENSSL_cleanse(short_key, sizeof short_key);
}

struct digest *digest_new(int with_md5)
{
	struct digest *digest = calloc(1, sizeof *digest);

	require(digest != NULL, "digest");
	digest->sha256 = EVP_MD_CTX_new();
	require(digest->sha256 && EVP_DigestInit_ex(digest->sha256, sha256_get(), NULL), "SHA-256");
	if (with_md5) {
		digest->md5 = EVP_MD_CTX_new();
		require(digest->md5 && EVP_DigestInit_ex(digest->md5, EVP_md5(), NULL), "MD5");
	}
	return digest;
}

void digest_update(struct digest *digest, const void *data, size_t length)
{
	require(EVP_DigestUpdate(digest->sha256, data, length), "SHA-256");
	if (digest->md5)
		require(EVP_DigestUpdate(digest->md5, data, length), "MD5");
}

void digest_finish(struct digest *digest, uint8_t sha256_out[SHA256_BYTES], uint8_t *md5_out)
{
	require(EVP_DigestFinal_ex(digest->sha256, sha256_out, NULL), "SHA-256");
	if (digest->md5 && md5_out)
		require(EVP_DigestFinal_ex(digest->md5, md5_out, NULL), "MD5");
	EVP_MD_CTX_free(digest->sha256);
	EVP_MD_CTX_free(digest->md5);
	free(digest);
}

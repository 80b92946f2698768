/* The one file of sync/ that knows OpenSSL (beside cache/base/digest.c). */
#include "crypt.h"

#include "bytes.h"
#include "digest.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONCE_BYTES 12
#define AAD_BYTES 48
/* One call of EVP_*Update takes an int; no piece of ours comes near this. */
#define MAX_PIECE_BYTES (1u << 30)

struct master {
	uint8_t key[CRYPT_KEY_BYTES];
	uint8_t chunk_id_key[CRYPT_KEY_BYTES];
	uint8_t volume_id[CRYPT_ID_BYTES];
	enum suite suite;
};

struct sealer {
	enum suite suite;
	uint8_t key[CRYPT_KEY_BYTES];
	uint8_t aad[AAD_BYTES];     /* `final` and `number` are set for each piece */
	EVP_CIPHER_CTX *contexts[2]; /* suite 1; [encrypt]; made at first use: the key schedule is done once */
	EVP_MAC *mac;                /* suite 0 */
	EVP_MAC_CTX *mac_context;    /* suite 0; keyed, copied for each piece */
};

void crypt_wipe(void *data, size_t length)
{
	if (length > 0)
		OPENSSL_cleanse(data, length);
}

bool crypt_equal(const void *a, const void *b, size_t length)
{
	return CRYPTO_memcmp(a, b, length) == 0;
}

/* ---------------------------------------------------------------- key derivation */

/* A hash that the library can't compute means a broken installation or no memory; going on could only seal under a
 * wrong key. */
static void __attribute__((noreturn)) crypt_abort(const char *what)
{
	fprintf(stderr, "yester: %s: failed in libcrypto; out of memory, or its providers are not installed\n", what);
	abort();
}

static int derive(const char *algorithm, const OSSL_PARAM *params, uint8_t *out, size_t out_length)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, algorithm, NULL);
	EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	int ok = context && EVP_KDF_derive(context, out, out_length, params) == 1;

	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return ok ? 0 : ERR_NOMEM;
}

void crypt_hkdf(uint8_t *out, size_t out_length, const void *ikm, size_t ikm_length, const void *salt,
		size_t salt_length, const void *info, size_t info_length)
{
	OSSL_PARAM params[5], *p = params;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)ikm, ikm_length);
	/* RFC 5869: no salt is a salt of zeros, which is what the library does when it gets none. */
	if (salt_length > 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_length);
	if (info_length > 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_length);
	*p = OSSL_PARAM_construct_end();
	if (derive("HKDF", params, out, out_length))
		crypt_abort("HKDF");
}

int crypt_scrypt(uint8_t out[CRYPT_KEY_BYTES], const void *passphrase, size_t length,
		 const void *salt, size_t salt_length, uint64_t n, uint32_t r, uint32_t p)
{
	/* RFC 7914: 128 r N bytes for V, 128 r p for B, and a few blocks; the library's own limit is 32 MiB. */
	uint64_t max_memory = UINT64_C(128) * r * (n + p + 4) + (1u << 20);
	OSSL_PARAM params[7];

	params[0] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)passphrase, length);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_length);
	params[2] = OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n);
	params[3] = OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r);
	params[4] = OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p);
	params[5] = OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &max_memory);
	params[6] = OSSL_PARAM_construct_end();
	return derive("SCRYPT", params, out, CRYPT_KEY_BYTES);
}

/* ---------------------------------------------------------------- the master key */

struct master *master_new(const uint8_t volume_id[CRYPT_ID_BYTES], const uint8_t *key)
{
	static const char unencrypted[] = "yester unencrypted volume";
	/* Pages of its own: mlock and madvise work on pages, and munlock of a shared one would unlock a neighbour. */
	struct master *master = mmap(NULL, sizeof(*master), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (master == MAP_FAILED)
		return NULL;
	(void)mlock(master, sizeof(*master));
	(void)madvise(master, sizeof(*master), MADV_DONTDUMP);
	memcpy(master->volume_id, volume_id, CRYPT_ID_BYTES);
	if (key) {
		master->suite = SUITE_AES256_GCM;
		memcpy(master->key, key, CRYPT_KEY_BYTES);
	} else {
		uint8_t text[sizeof(unencrypted) - 1 + CRYPT_ID_BYTES];

		memcpy(text, unencrypted, sizeof(unencrypted) - 1);
		memcpy(text + sizeof(unencrypted) - 1, volume_id, CRYPT_ID_BYTES);
		master->suite = SUITE_NONE;
		sha256(master->key, text, sizeof(text));
	}
	master_derive(master, "yester chunk id", master->chunk_id_key);
	return master;
}

void master_free(struct master *master)
{
	if (!master)
		return;
	crypt_wipe(master, sizeof(*master));
	(void)munmap(master, sizeof(*master));
}

enum suite master_suite(const struct master *master)
{
	return master->suite;
}

const uint8_t *master_volume_id(const struct master *master)
{
	return master->volume_id;
}

const uint8_t *master_key(const struct master *master)
{
	return master->key;
}

void master_derive(const struct master *master, const char *purpose, uint8_t out[CRYPT_KEY_BYTES])
{
	crypt_hkdf(out, CRYPT_KEY_BYTES, master->key, CRYPT_KEY_BYTES, master->volume_id, CRYPT_ID_BYTES, purpose,
		   strlen(purpose));
}

void master_chunk_id(const struct master *master, const void *data, size_t length, uint8_t out[CRYPT_ID_BYTES])
{
	uint8_t hash[SHA256_BYTES];

	hmac_sha256(hash, master->chunk_id_key, CRYPT_KEY_BYTES, data, length);
	memcpy(out, hash, CRYPT_ID_BYTES);
}

/* ---------------------------------------------------------------- AES-256-GCM */

/* A context with the key in it, or NULL. */
static EVP_CIPHER_CTX *gcm_context(const uint8_t key[CRYPT_KEY_BYTES], int encrypt)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (context && EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, NULL, encrypt) != 1) {
		EVP_CIPHER_CTX_free(context);
		context = NULL;
	}
	return context;
}

struct span {
	const void *data;
	size_t length;
};

/* Starts one message: nonce and associated data in two parts. */
static bool gcm_begin(EVP_CIPHER_CTX *context, int encrypt, const uint8_t nonce[NONCE_BYTES], const struct span aad[2])
{
	int done;

	if (EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, encrypt) != 1)
		return false;
	for (int i = 0; i < 2; i++) {
		if (aad[i].length > MAX_PIECE_BYTES)
			return false;
		if (aad[i].length > 0 &&
		    EVP_CipherUpdate(context, NULL, &done, aad[i].data, (int)aad[i].length) != 1)
			return false;
	}
	return true;
}

static int gcm_seal(EVP_CIPHER_CTX *context, const uint8_t nonce[NONCE_BYTES], const struct span aad[2],
		    const void *data, size_t length, uint8_t *out)
{
	int done = 0;

	if (!context || length > MAX_PIECE_BYTES || !gcm_begin(context, 1, nonce, aad))
		return ERR_FAILED;
	if (length > 0 && EVP_EncryptUpdate(context, out, &done, data, (int)length) != 1)
		return ERR_FAILED;
	if (EVP_EncryptFinal_ex(context, out + length, &done) != 1 ||
	    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, CRYPT_TAG_BYTES, out + length) != 1)
		return ERR_FAILED;
	return 0;
}

static int gcm_open(EVP_CIPHER_CTX *context, const uint8_t nonce[NONCE_BYTES], const struct span aad[2],
		    const uint8_t *sealed, size_t length, uint8_t *out)
{
	uint8_t tag[CRYPT_TAG_BYTES], unused[16];
	int done = 0;

	if (!context || length > MAX_PIECE_BYTES || !gcm_begin(context, 0, nonce, aad))
		goto bad;
	memcpy(tag, sealed + length, CRYPT_TAG_BYTES);
	if (length > 0 && EVP_DecryptUpdate(context, out, &done, sealed, (int)length) != 1)
		goto bad;
	if (EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CRYPT_TAG_BYTES, tag) == 1 &&
	    EVP_DecryptFinal_ex(context, unused, &done) == 1)
		return 0;
bad:
	crypt_wipe(out, length);
	return ERR_CORRUPT;
}

int crypt_gcm_seal(const uint8_t key[CRYPT_KEY_BYTES], const uint8_t nonce[NONCE_BYTES], const void *aad,
		   size_t aad_length, const void *data, size_t length, uint8_t *out)
{
	EVP_CIPHER_CTX *context = gcm_context(key, 1);
	const struct span parts[2] = {{aad, aad_length}, {NULL, 0}};
	int status = gcm_seal(context, nonce, parts, data, length, out);

	EVP_CIPHER_CTX_free(context);
	return status;
}

int crypt_gcm_open(const uint8_t key[CRYPT_KEY_BYTES], const uint8_t nonce[NONCE_BYTES], const void *aad,
		   size_t aad_length, const void *sealed, size_t sealed_length, uint8_t *out)
{
	EVP_CIPHER_CTX *context;
	const struct span parts[2] = {{aad, aad_length}, {NULL, 0}};
	int status;

	if (sealed_length < CRYPT_TAG_BYTES)
		return ERR_CORRUPT;
	context = gcm_context(key, 0);
	status = gcm_open(context, nonce, parts, sealed, sealed_length - CRYPT_TAG_BYTES, out);
	EVP_CIPHER_CTX_free(context);
	return status;
}

/* ---------------------------------------------------------------- the checksum of suite 0 */

static bool checksum_init(struct sealer *sealer)
{
	OSSL_PARAM params[2];

	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0);
	params[1] = OSSL_PARAM_construct_end();
	sealer->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	sealer->mac_context = sealer->mac ? EVP_MAC_CTX_new(sealer->mac) : NULL;
	return sealer->mac_context && EVP_MAC_init(sealer->mac_context, sealer->key, CRYPT_KEY_BYTES, params) == 1;
}

static bool checksum(const struct sealer *sealer, const uint8_t nonce[NONCE_BYTES], const struct span aad[2],
		     const void *data, size_t length, uint8_t tag[CRYPT_TAG_BYTES])
{
	EVP_MAC_CTX *context = EVP_MAC_CTX_dup(sealer->mac_context);
	uint8_t hash[SHA256_BYTES];
	size_t hash_length;
	bool ok = context && EVP_MAC_update(context, nonce, NONCE_BYTES) == 1 &&
		  EVP_MAC_update(context, aad[0].data, aad[0].length) == 1 &&
		  (aad[1].length == 0 || EVP_MAC_update(context, aad[1].data, aad[1].length) == 1) &&
		  (length == 0 || EVP_MAC_update(context, data, length) == 1) &&
		  EVP_MAC_final(context, hash, &hash_length, sizeof(hash)) == 1;

	EVP_MAC_CTX_free(context);
	if (ok)
		memcpy(tag, hash, CRYPT_TAG_BYTES);
	return ok;
}

/* ---------------------------------------------------------------- sealer */

struct sealer *sealer_new(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
			  const uint8_t salt[CRYPT_SALT_BYTES])
{
	static const char object[] = "yester object";
	uint8_t info[sizeof(object) - 1 + 1 + CRYPT_ID_BYTES];
	struct sealer *sealer = calloc(1, sizeof(*sealer));

	if (!sealer)
		return NULL;
	sealer->suite = master->suite;
	memcpy(info, object, sizeof(object) - 1);
	info[sizeof(object) - 1] = (uint8_t)type;
	memcpy(info + sizeof(object), master->volume_id, CRYPT_ID_BYTES);
	crypt_hkdf(sealer->key, CRYPT_KEY_BYTES, master->key, CRYPT_KEY_BYTES, salt, CRYPT_SALT_BYTES, info,
		   sizeof(info));
	memcpy(sealer->aad, "YSTR", 4);
	sealer->aad[4] = CRYPT_FORMAT;
	sealer->aad[5] = (uint8_t)master->suite;
	sealer->aad[6] = (uint8_t)type;
	memcpy(sealer->aad + 8, master->volume_id, CRYPT_ID_BYTES);
	memcpy(sealer->aad + 24, object_id, CRYPT_ID_BYTES);
	if (sealer->suite == SUITE_NONE && !checksum_init(sealer)) {
		sealer_free(sealer);
		return NULL;
	}
	return sealer;
}

void sealer_free(struct sealer *sealer)
{
	if (!sealer)
		return;
	EVP_CIPHER_CTX_free(sealer->contexts[0]);
	EVP_CIPHER_CTX_free(sealer->contexts[1]);
	EVP_MAC_CTX_free(sealer->mac_context);
	EVP_MAC_free(sealer->mac);
	crypt_wipe(sealer, sizeof(*sealer));
	free(sealer);
}

static EVP_CIPHER_CTX *sealer_context(struct sealer *sealer, int encrypt)
{
	if (!sealer->contexts[encrypt])
		sealer->contexts[encrypt] = gcm_context(sealer->key, encrypt);
	return sealer->contexts[encrypt];
}

static void piece_begin(struct sealer *sealer, uint64_t number, bool final, uint8_t nonce[NONCE_BYTES])
{
	memset(nonce, 0, 4);
	put_u64(nonce + 4, number);
	sealer->aad[7] = final;
	put_u64(sealer->aad + 40, number);
}

int sealer_seal(struct sealer *sealer, uint64_t number, bool final, const void *extra, size_t extra_length,
		const void *data, size_t length, uint8_t *out)
{
	const struct span aad[2] = {{sealer->aad, AAD_BYTES}, {extra, extra_length}};
	uint8_t nonce[NONCE_BYTES];

	piece_begin(sealer, number, final, nonce);
	if (sealer->suite == SUITE_AES256_GCM)
		return gcm_seal(sealer_context(sealer, 1), nonce, aad, data, length, out);
	if (length > 0)
		memcpy(out, data, length);
	return checksum(sealer, nonce, aad, data, length, out + length) ? 0 : ERR_FAILED;
}

int sealer_open(struct sealer *sealer, uint64_t number, bool final, const void *extra, size_t extra_length,
		const void *sealed, size_t sealed_length, uint8_t *out)
{
	const struct span aad[2] = {{sealer->aad, AAD_BYTES}, {extra, extra_length}};
	const uint8_t *bytes = sealed;
	uint8_t nonce[NONCE_BYTES], tag[CRYPT_TAG_BYTES];
	size_t length;

	if (sealed_length < CRYPT_TAG_BYTES)
		return ERR_CORRUPT;
	length = sealed_length - CRYPT_TAG_BYTES;
	piece_begin(sealer, number, final, nonce);
	if (sealer->suite == SUITE_AES256_GCM)
		return gcm_open(sealer_context(sealer, 0), nonce, aad, bytes, length, out);
	if (!checksum(sealer, nonce, aad, bytes, length, tag) ||
	    !crypt_equal(tag, bytes + length, CRYPT_TAG_BYTES)) {
		crypt_wipe(out, length);
		return ERR_CORRUPT;
	}
	if (length > 0)
		memcpy(out, bytes, length);
	return 0;
}

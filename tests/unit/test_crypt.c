#include "crypt.h"

#include "bytes.h"
#include "digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t volume_id[CRYPT_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t object_id[CRYPT_ID_BYTES] = "object number 1";
static const uint8_t other_id[CRYPT_ID_BYTES] = "object number 2";
static const uint8_t salt[CRYPT_SALT_BYTES] = "a salt of thirty-two bytes, yes";
static const uint8_t key[CRYPT_KEY_BYTES] = "a key that is thirty-two bytes.";

static size_t unhex(uint8_t *out, const char *text)
{
	size_t length = strlen(text) / 2;

	assert_true(hex_decode(out, length, text));
	return length;
}

static void assert_hex(const void *data, const char *expected)
{
	uint8_t bytes[256];
	size_t length = unhex(bytes, expected);

	assert_memory_equal(data, bytes, length);
}

static struct master *new_master(enum suite suite)
{
	struct master *master = master_new(volume_id, suite == SUITE_NONE ? NULL : key);

	assert_non_null(master);
	assert_int_equal(master_suite(master), suite);
	return master;
}

/* RFC 5869 appendix A, cases 1 to 3. */
static void test_hkdf(void **state)
{
	uint8_t ikm[80], s[80], info[80], out[82];

	(void)state;
	memset(ikm, 0x0b, 22);
	unhex(s, "000102030405060708090a0b0c");
	unhex(info, "f0f1f2f3f4f5f6f7f8f9");
	crypt_hkdf(out, 42, ikm, 22, s, 13, info, 10);
	assert_hex(out, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
	crypt_hkdf(out, 42, ikm, 22, NULL, 0, NULL, 0);
	assert_hex(out, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
	for (int i = 0; i < 80; i++) {
		ikm[i] = (uint8_t)i;
		s[i] = (uint8_t)(0x60 + i);
		info[i] = (uint8_t)(0xb0 + i);
	}
	crypt_hkdf(out, 82, ikm, 80, s, 80, info, 80);
	assert_hex(out, "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e"
			"09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87");
}

/* RFC 7914 section 12; its keys have 64 bytes, of which ours are the first 32. */
static void test_scrypt(void **state)
{
	uint8_t out[CRYPT_KEY_BYTES];

	(void)state;
	assert_int_equal(crypt_scrypt(out, "", 0, "", 0, 16, 1, 1), 0);
	assert_hex(out, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442");
	assert_int_equal(crypt_scrypt(out, "password", 8, "NaCl", 4, 1024, 8, 16), 0);
	assert_hex(out, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
	assert_int_equal(crypt_scrypt(out, "pleaseletmein", 13, "SodiumChloride", 14, 16384, 8, 1), 0);
	assert_hex(out, "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

/* Test cases 13, 14 and 16 of "The Galois/Counter Mode of Operation", as submitted to NIST. */
static void test_gcm(void **state)
{
	static const struct { const char *key, *nonce, *aad, *clear, *sealed; } cases[] = {
		{"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "",
		 "530f8afbc74536b9a963b4f1c4cb738b"},
		{"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "",
		 "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
		{"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
		 "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
		 "b16aedf5aa0de657ba637b39",
		 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
		 "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t k[32], nonce[12], aad[32], clear[64], sealed[80], out[80];
		size_t aad_length, length;

		unhex(k, cases[i].key);
		unhex(nonce, cases[i].nonce);
		aad_length = unhex(aad, cases[i].aad);
		length = unhex(clear, cases[i].clear);
		unhex(sealed, cases[i].sealed);
		assert_int_equal(crypt_gcm_seal(k, nonce, aad, aad_length, clear, length, out), 0);
		assert_memory_equal(out, sealed, length + CRYPT_TAG_BYTES);
		assert_int_equal(crypt_gcm_open(k, nonce, aad, aad_length, sealed, length + CRYPT_TAG_BYTES, out), 0);
		assert_memory_equal(out, clear, length);
		sealed[0] ^= 1;
		assert_int_equal(crypt_gcm_open(k, nonce, aad, aad_length, sealed, length + CRYPT_TAG_BYTES, out),
				 ERR_CORRUPT);
		assert_int_equal(crypt_gcm_open(k, nonce, aad, aad_length, sealed, CRYPT_TAG_BYTES - 1, out),
				 ERR_CORRUPT);
	}
}

/* The constructions of crypt.h, put together by hand from HMAC: a check of ours against the text of the header. */
static void test_constructions(void **state)
{
	struct master *master = new_master(SUITE_NONE);
	struct sealer *sealer = sealer_new(master, OBJECT_RECORD, object_id, salt);
	uint8_t expanded[64], prk[32], object_key[32], hash[32], sealed[5 + CRYPT_TAG_BYTES], id[CRYPT_ID_BYTES];
	uint8_t message[12 + 48 + 3 + 5] = {0};
	size_t n;

	(void)state;
	memcpy(expanded, "yester unencrypted volume", 25);
	memcpy(expanded + 25, volume_id, 16);
	sha256(hash, expanded, 41);
	assert_memory_equal(master_key(master), hash, 32);
	/* HKDF of one block is HMAC(HMAC(salt, ikm), info || 1). */
	hmac_sha256(prk, salt, sizeof(salt), hash, 32);
	memcpy(expanded, "yester object\2", 14);
	memcpy(expanded + 14, volume_id, 16);
	expanded[30] = 1;
	hmac_sha256(object_key, prk, 32, expanded, 31);
	put_u64(message + 4, 0x1122334455667788);
	memcpy(message + 12, "YSTR\1\0\2\1", 8);
	memcpy(message + 20, volume_id, 16);
	memcpy(message + 36, object_id, 16);
	put_u64(message + 52, 0x1122334455667788);
	memcpy(message + 60, "xtr" "hello", 8);
	hmac_sha256(hash, object_key, 32, message, sizeof(message));
	assert_int_equal(sealer_seal(sealer, 0x1122334455667788, true, "xtr", 3, "hello", 5, sealed), 0);
	assert_memory_equal(sealed, "hello", 5);
	assert_memory_equal(sealed + 5, hash, CRYPT_TAG_BYTES);

	hmac_sha256(prk, volume_id, 16, master_key(master), 32);
	n = strlen("yester chunk id");
	memcpy(expanded, "yester chunk id", n);
	expanded[n] = 1;
	hmac_sha256(object_key, prk, 32, expanded, n + 1);
	hmac_sha256(hash, object_key, 32, "hello", 5);
	master_chunk_id(master, "hello", 5, id);
	assert_memory_equal(id, hash, CRYPT_ID_BYTES);
	sealer_free(sealer);
	master_free(master);
}

/* Suite 1 against AES-256-GCM with a key and associated data made by hand. */
static void test_construction_gcm(void **state)
{
	struct master *master = new_master(SUITE_AES256_GCM);
	struct sealer *sealer = sealer_new(master, OBJECT_PACK, object_id, salt);
	uint8_t info[30], object_key[32], aad[51], nonce[12] = {0}, sealed[21], expected[21];

	(void)state;
	memcpy(info, "yester object\1", 14);
	memcpy(info + 14, volume_id, 16);
	crypt_hkdf(object_key, 32, key, 32, salt, 32, info, 30);
	memcpy(aad, "YSTR\1\1\1\0", 8);
	memcpy(aad + 8, volume_id, 16);
	memcpy(aad + 24, object_id, 16);
	put_u64(aad + 40, 7);
	memcpy(aad + 48, "xtr", 3);
	put_u64(nonce + 4, 7);
	assert_int_equal(crypt_gcm_seal(object_key, nonce, aad, sizeof(aad), "hello", 5, expected), 0);
	assert_int_equal(sealer_seal(sealer, 7, false, "xtr", 3, "hello", 5, sealed), 0);
	assert_memory_equal(sealed, expected, sizeof(expected));
	sealer_free(sealer);
	master_free(master);
}

static void assert_refused(struct sealer *sealer, uint64_t number, bool final, const char *extra, const uint8_t *sealed,
			   size_t length)
{
	static const uint8_t zeros[64];
	uint8_t out[64];

	memset(out, 0xee, sizeof(out));
	assert_int_equal(sealer_open(sealer, number, final, extra, strlen(extra), sealed, length, out), ERR_CORRUPT);
	if (length > CRYPT_TAG_BYTES)
		assert_memory_equal(out, zeros, length - CRYPT_TAG_BYTES);
}

static void test_tamper(void **state)
{
	enum suite suite = *(enum suite *)*state;
	struct master *master = new_master(suite), *other;
	struct sealer *sealer = sealer_new(master, OBJECT_PACK, object_id, salt), *wrong;
	uint8_t sealed[20 + CRYPT_TAG_BYTES], out[20], other_salt[32] = {9};
	const size_t length = sizeof(sealed);

	assert_int_equal(sealer_seal(sealer, 3, false, "extra", 5, "twenty bytes of text", 20, sealed), 0);
	assert_int_equal(sealer_open(sealer, 3, false, "extra", 5, sealed, length, out), 0);
	assert_memory_equal(out, "twenty bytes of text", 20);
	for (size_t i = 0; i < length * 8; i++) {
		sealed[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_refused(sealer, 3, false, "extra", sealed, length);
		sealed[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t cut = 0; cut < length; cut++)
		assert_refused(sealer, 3, false, "extra", sealed, cut);
	assert_refused(sealer, 3, true, "extra", sealed, length);
	assert_refused(sealer, 4, false, "extra", sealed, length);
	assert_refused(sealer, 3, false, "extrb", sealed, length);
	assert_refused(sealer, 3, false, "", sealed, length);
	wrong = sealer_new(master, OBJECT_RECORD, object_id, salt);
	assert_refused(wrong, 3, false, "extra", sealed, length);
	sealer_free(wrong);
	wrong = sealer_new(master, OBJECT_PACK, other_id, salt);
	assert_refused(wrong, 3, false, "extra", sealed, length);
	sealer_free(wrong);
	wrong = sealer_new(master, OBJECT_PACK, object_id, other_salt);
	assert_refused(wrong, 3, false, "extra", sealed, length);
	sealer_free(wrong);
	other = master_new(other_id, suite == SUITE_NONE ? NULL : key);
	wrong = sealer_new(other, OBJECT_PACK, object_id, salt);
	assert_refused(wrong, 3, false, "extra", sealed, length);
	sealer_free(wrong);
	master_free(other);
	other = new_master(suite == SUITE_NONE ? SUITE_AES256_GCM : SUITE_NONE);
	wrong = sealer_new(other, OBJECT_PACK, object_id, salt);
	assert_refused(wrong, 3, false, "extra", sealed, length);
	sealer_free(wrong);
	master_free(other);
	/* And the piece itself is as good as before. */
	assert_int_equal(sealer_open(sealer, 3, false, "extra", 5, sealed, length, out), 0);
	sealer_free(sealer);
	master_free(master);
}

static void test_empty_piece(void **state)
{
	enum suite suite = *(enum suite *)*state;
	struct master *master = new_master(suite);
	struct sealer *sealer = sealer_new(master, OBJECT_PACK, object_id, salt);
	uint8_t sealed[CRYPT_TAG_BYTES], out[1];

	assert_int_equal(sealer_seal(sealer, 0, true, NULL, 0, NULL, 0, sealed), 0);
	assert_int_equal(sealer_open(sealer, 0, true, NULL, 0, sealed, sizeof(sealed), out), 0);
	assert_int_equal(sealer_open(sealer, 0, false, NULL, 0, sealed, sizeof(sealed), out), ERR_CORRUPT);
	sealer_free(sealer);
	master_free(master);
}

static void test_derive(void **state)
{
	struct master *master = new_master(SUITE_AES256_GCM);
	uint8_t a[32], b[32], id[16], again[16];

	(void)state;
	master_derive(master, "yester gear", a);
	master_derive(master, "yester volume descriptor", b);
	assert_memory_not_equal(a, b, 32);
	crypt_hkdf(b, 32, key, 32, volume_id, 16, "yester gear", 11);
	assert_memory_equal(a, b, 32);
	master_chunk_id(master, "one", 3, id);
	master_chunk_id(master, "two", 3, again);
	assert_memory_not_equal(id, again, 16);
	master_chunk_id(master, "one", 3, again);
	assert_memory_equal(id, again, 16);
	master_free(master);
	master_free(NULL);
	sealer_free(NULL);
}

int main(void)
{
	static enum suite suites[] = {SUITE_NONE, SUITE_AES256_GCM};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hkdf),
		cmocka_unit_test(test_scrypt),
		cmocka_unit_test(test_gcm),
		cmocka_unit_test(test_constructions),
		cmocka_unit_test(test_construction_gcm),
		cmocka_unit_test_prestate(test_tamper, &suites[0]),
		cmocka_unit_test_prestate(test_tamper, &suites[1]),
		cmocka_unit_test_prestate(test_empty_piece, &suites[0]),
		cmocka_unit_test_prestate(test_empty_piece, &suites[1]),
		cmocka_unit_test(test_derive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

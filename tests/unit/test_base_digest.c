#include "digest.h"

#include "bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void expect_hex(const uint8_t *got, size_t length, const char *expected)
{
	char text[2 * SHA256_BYTES + 1];

	hex_encode(text, got, length);
	assert_string_equal(text, expected);
}

/* FIPS 180-4 examples (NIST, "SHA256.pdf" and "SHA2_Additional.pdf"). */
static void test_sha256(void **state)
{
	uint8_t out[SHA256_BYTES];
	char *million = malloc(1000000);

	(void)state;
	sha256(out, "abc", 3);
	expect_hex(out, sizeof out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha256(out, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
	expect_hex(out, sizeof out, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	sha256(out, NULL, 0);
	expect_hex(out, sizeof out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256(out, "\xbd", 1);
	expect_hex(out, sizeof out, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
	memset(million, 'a', 1000000);
	sha256(out, million, 1000000);
	expect_hex(out, sizeof out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(million);
}

/* RFC 1321 appendix A.5. */
static void test_md5(void **state)
{
	uint8_t out[MD5_BYTES];

	(void)state;
	md5(out, "", 0);
	expect_hex(out, sizeof out, "d41d8cd98f00b204e9800998ecf8427e");
	md5(out, "message digest", 14);
	expect_hex(out, sizeof out, "f96b697d7cb7938d525a2f31aaf161d0");
}

/* RFC 4231 test cases 1, 2, 6 and 7. */
static void test_hmac(void **state)
{
	static const char long_text[] = "This is a test using a larger than block-size key and a larger than block-size data. "
					"The key needs to be hashed before being used by the HMAC algorithm.";
	uint8_t out[SHA256_BYTES], key[131];

	(void)state;
	memset(key, 0x0b, 20);
	hmac_sha256(out, key, 20, "Hi There", 8);
	expect_hex(out, sizeof out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	hmac_sha256(out, "Jefe", 4, "what do ya want for nothing?", 28);
	expect_hex(out, sizeof out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof key);
	hmac_sha256(out, key, sizeof key, "Test Using Larger Than Block-Size Key - Hash Key First", 54);
	expect_hex(out, sizeof out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	hmac_sha256(out, key, sizeof key, long_text, strlen(long_text));
	expect_hex(out, sizeof out, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
	hmac_sha256(out, NULL, 0, NULL, 0);
	expect_hex(out, sizeof out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_incremental(void **state)
{
	uint8_t out[SHA256_BYTES], md5_out[MD5_BYTES];
	struct digest *digest = digest_new(1);

	(void)state;
	digest_update(digest, "a", 1);
	digest_update(digest, NULL, 0);
	digest_update(digest, "bc", 2);
	digest_finish(digest, out, md5_out);
	expect_hex(out, sizeof out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	expect_hex(md5_out, sizeof md5_out, "900150983cd24fb0d6963f7d28e17f72");
	digest = digest_new(0);
	digest_finish(digest, out, NULL);
	expect_hex(out, sizeof out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	digest = digest_new(1);
	digest_finish(digest, out, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_md5),
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_incremental),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

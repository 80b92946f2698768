/* The worked example of yester-format(5), which an independent program computed: what stands in the manual is what the
 * code does. Where the manual is in reach (run from the top of the tree), each value is looked for in it. */
#include "key.h"
#include "seal.h"

#include "bytes.h"
#include "io.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DERIVED_CHUNK_ID "bddfd5d9ccb5791e6c0694bdfee514a7cc9d0b53425348db6d1388f404018b2a"
#define DERIVED_GEAR "5b62afcc10ddce7dcab1becbb18d6e3c9ff28ec951d78a4ef8b2a7c05dd11c95"
#define DERIVED_VOLUME_DESCRIPTOR "e46ce72f277e4df2289bf2a4820497518cff2448024abdfb530a1c1eb95dd029"
#define CHUNK_ID "1972d16b7c400824d658b5e4d37d70a2"
#define SEALED_CHUNK "9756da2805473811c77652dc8ea17bd74fc4d72c1bd26367e4319ebe49"
#define PACK \
	"595354525041434b0100000001010000606162636465666768696a6b6c6d6e6f404142434445464748494a4b4c4d4e4f" \
	"505152535455565758595a5b5c5d5e5f9756da2805473811c77652dc8ea17bd74fc4d72c1bd26367e4319ebe49965be4" \
	"cc2d5466adba9341c9e8b97abc783873c27061c4cd395860bda27a2b06e11af9c6c0bb8f92520afeb47f7b29c411d34d" \
	"7c822e28df5d0000000000000038000000010000005953545250454e44"
#define PACK_SHA256 "cdd5173a08457b092f6fc8cb0ddaf6d175b4fe3cf21ea4c389561ba91a80fd82"
#define MASTER0 "504bb1422df7f665e7293c2ccb4e5848525ca363d7a0559f2c9e43cc5152ba55"
#define CHUNK_ID0 "ef9f0fd12fd7208cf7ba4509631cd6b5"
#define SEALED_CHUNK0 "68656c6c6f2c20776f726c640a3b31d4338f5b6b6cbab4a8a8ccce3fab"
#define PACK0 \
	"595354525041434b0100000000010000606162636465666768696a6b6c6d6e6f404142434445464748494a4b4c4d4e4f" \
	"505152535455565758595a5b5c5d5e5f68656c6c6f2c20776f726c640a3b31d4338f5b6b6cbab4a8a8ccce3fabef9f0f" \
	"d12fd7208cf7ba4509631cd6b540000000000000001d0000000d000000000000000000000094513739deea584341a816" \
	"e9236877a65d0000000000000038000000010000005953545250454e44"
#define RECORD_SEGMENT "047b68058173f57ae98cd6554728734d9fa1cb11540f3132c34f446b99"
#define CHECKPOINT_SEGMENT "3ac33c5c2df6c32be9a7172a150aeeccfa1ce70d78396b36f55afb9b12"
#define KEK_PASSPHRASE "8d4d9e7e43a761bd469822ec0ef60472b182d6f83cd5cb9fde0c84a45d64dfc4"
#define WRAPPED_PASSPHRASE \
	"e758c5a0ca682c73978b7cda4bb5c8ed8e1594088f3aaa47ab7d48f2367d8259b593b649a6f526db3403566f7504851b"
#define KEK_FILE "e8ddbbff1f1da91458842ddd95221dcf4d041eb91c03e6eac43a3f5619a7f043"
#define WRAPPED_FILE \
	"53bc687c26d99ae4a6d397657613fdb16b1df805b2dc0c64e5ede6a8cddb8332f3dbb2802471d686473bb1304e99e74a"
#define KEK_RECOVERY "bcd9368e5cfa58620f39eb2629eeeb67cfe19735708cfeaec0f0ecaa06e8eb47"
#define WRAPPED_RECOVERY \
	"d4ad9ebb516a36bb53d6a6d7b8650ac2717d58eae5abb3427ff7f2b0d819c1a5da1896028c42f0b1a7605ff48813ed21"
#define DESCRIPTOR_MAC "67ffecdd955b43704dc0bf698625d31ce93f83571b068f85fbff8839bed29a09"
#define RECOVERY_TEXT "UCQ2F-I5EUW-TKPKF-JVKV2-ZLNOV-6YLDM-VTPF4-Y6EDE"
#define DESCRIPTOR \
	"yester volume\nformat 1\nvolume 000102030405060708090a0b0c0d0e0f\nsuite aes-256-gcm\nchunk-min 131072\n" \
	"chunk-average 524288\nchunk-max 2097152\ncreated 2026-11-20T08-14-07Z\ncompatible 0\n" \
	"read-only-compatible 0\nincompatible 0\nmac " DESCRIPTOR_MAC "\n"

static const char text[] = "hello, world\n";
#define TEXT_BYTES (sizeof(text) - 1)

static uint8_t volume_id[16], pack_id[16], master_bytes[32], salt[32], file_secret[32], recovery_secret[20];
static struct master *sealed_master, *clear_master;

static void count_up(uint8_t *out, size_t length, uint8_t first)
{
	for (size_t i = 0; i < length; i++)
		out[i] = (uint8_t)(first + i);
}

static int setup(void **state)
{
	(void)state;
	count_up(volume_id, 16, 0);
	count_up(master_bytes, 32, 0x20);
	count_up(salt, 32, 0x40);
	count_up(pack_id, 16, 0x60);
	count_up(file_secret, 32, 0x80);
	count_up(recovery_secret, 20, 0xa0);
	sealed_master = master_new(volume_id, master_bytes);
	clear_master = master_new(volume_id, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	master_free(sealed_master);
	master_free(clear_master);
	return 0;
}

static void assert_hex(const void *data, size_t length, const char *expected)
{
	char *digits = malloc(2 * length + 1);

	hex_encode(digits, data, length);
	assert_string_equal(digits, expected);
	free(digits);
}

static void test_derived(void **state)
{
	uint8_t out[32];

	(void)state;
	master_derive(sealed_master, "yester chunk id", out);
	assert_hex(out, 32, DERIVED_CHUNK_ID);
	master_derive(sealed_master, "yester gear", out);
	assert_hex(out, 32, DERIVED_GEAR);
	master_derive(sealed_master, "yester volume descriptor", out);
	assert_hex(out, 32, DERIVED_VOLUME_DESCRIPTOR);
	assert_hex(master_key(clear_master), 32, MASTER0);
	master_chunk_id(sealed_master, text, TEXT_BYTES, out);
	assert_hex(out, 16, CHUNK_ID);
	master_chunk_id(clear_master, text, TEXT_BYTES, out);
	assert_hex(out, 16, CHUNK_ID0);
}

static void check_pack(const struct master *master, const char *pack_hex, const char *chunk_hex, const char *chunk_id)
{
	size_t length = strlen(pack_hex) / 2;
	uint8_t *pack = malloc(length), id[16], pack_salt[32];
	struct chunk_place *places;
	struct buf out = {0};
	uint32_t count;

	assert_true(hex_decode(pack, length, pack_hex));
	assert_int_equal(pack_read_index(master, pack, length, id, pack_salt, &places, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_memory_equal(id, pack_id, 16);
	assert_memory_equal(pack_salt, salt, 32);
	assert_hex(places->id, 16, chunk_id);
	assert_hex(pack + places->offset, places->stored_bytes, chunk_hex);
	assert_int_equal(chunk_open(master, id, pack_salt, places, pack + places->offset, &out), 0);
	assert_int_equal(out.length, TEXT_BYTES);
	assert_memory_equal(out.data, text, TEXT_BYTES);
	buf_free(&out);
	free(places);
	free(pack);
}

static void test_packs(void **state)
{
	uint8_t bytes[sizeof(PACK) / 2], hash[32];

	(void)state;
	check_pack(sealed_master, PACK, SEALED_CHUNK, CHUNK_ID);
	check_pack(clear_master, PACK0, SEALED_CHUNK0, CHUNK_ID0);
	assert_true(hex_decode(bytes, sizeof(bytes), PACK));
	sha256(hash, bytes, sizeof(bytes));
	assert_hex(hash, 32, PACK_SHA256);
}

static void check_segment(enum object_type type, const uint8_t id[16], size_t header_length, const char *expected)
{
	struct sealer *sealer = sealer_new(sealed_master, type, id, salt);
	uint8_t header[256], out[TEXT_BYTES + CRYPT_TAG_BYTES];

	count_up(header, sizeof(header), 0);
	assert_int_equal(sealer_seal(sealer, 0, true, header, header_length, text, TEXT_BYTES, out), 0);
	assert_hex(out, sizeof(out), expected);
	sealer_free(sealer);
}

static void test_segments(void **state)
{
	uint8_t id[16] = {0};

	(void)state;
	put_u64(id, 1);
	check_segment(OBJECT_RECORD, id, 256, RECORD_SEGMENT);
	put_u64(id + 8, 0x0123456789abcdef);
	check_segment(OBJECT_CHECKPOINT, id, 128, CHECKPOINT_SEGMENT);
}

static void check_slot(const char *head, const char *wrapped, enum key_kind kind, const void *secret, size_t length)
{
	char slot[1024], salt_hex[65];
	struct volume_descriptor descriptor = {.suite = SUITE_AES256_GCM};
	struct master *master;

	memcpy(descriptor.volume_id, volume_id, 16);
	hex_encode(salt_hex, salt, 32);
	snprintf(slot, sizeof(slot), "yester key\nformat 1\n%s\nsalt %s\nwrapped %s\n", head, salt_hex, wrapped);
	assert_int_equal(key_slot_open(slot, strlen(slot), &descriptor, kind, secret, length, &master, NULL), 0);
	assert_memory_equal(master_key(master), master_bytes, 32);
	assert_int_equal(descriptor_verify(DESCRIPTOR, strlen(DESCRIPTOR), master, NULL), 0);
	master_free(master);
}

static void test_slots(void **state)
{
	uint8_t kek[32], secret[20];

	(void)state;
	assert_int_equal(crypt_scrypt(kek, "correct horse", 13, salt, 32, 131072, 8, 1), 0);
	assert_hex(kek, 32, KEK_PASSPHRASE);
	check_slot("kind passphrase\ngeneration 1\nscrypt 131072 8 1", WRAPPED_PASSPHRASE, KEY_PASSPHRASE, "correct horse",
		   13);
	check_slot("kind file\ngeneration 1", WRAPPED_FILE, KEY_FILE, file_secret, 32);
	check_slot("kind recovery\ngeneration 1", WRAPPED_RECOVERY, KEY_RECOVERY, recovery_secret, 20);
	assert_int_equal(key_parse_recovery(RECOVERY_TEXT, secret, NULL), 0);
	assert_memory_equal(secret, recovery_secret, 20);
}

/* The page without blanks, line ends and macros. */
static char *read_page(void)
{
	struct buf page = {0};
	char *out, *to;
	int status = io_read_file(AT_FDCWD, "man/yester-format.5", 1u << 20, &page, NULL);

	if (status) {
		buf_free(&page);
		return NULL;
	}
	to = out = malloc(page.length + 1);
	for (size_t i = 0; i < page.length; i++)
		if (page.data[i] != '\n' && page.data[i] != ' ' && page.data[i] != '\t')
			*to++ = (char)page.data[i];
	*to = '\0';
	buf_free(&page);
	return out;
}

static void test_manual(void **state)
{
	static const char *const values[] = {
		DERIVED_CHUNK_ID, DERIVED_GEAR, DERIVED_VOLUME_DESCRIPTOR, CHUNK_ID, SEALED_CHUNK, PACK, PACK_SHA256, MASTER0,
		CHUNK_ID0, SEALED_CHUNK0, PACK0, RECORD_SEGMENT, CHECKPOINT_SEGMENT, KEK_PASSPHRASE, WRAPPED_PASSPHRASE,
		KEK_FILE, WRAPPED_FILE, KEK_RECOVERY, WRAPPED_RECOVERY, DESCRIPTOR_MAC, RECOVERY_TEXT,
	};
	char *page = read_page();

	(void)state;
	if (!page)
		skip();
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		if (!strstr(page, values[i]))
			fail_msg("not in man/yester-format.5: %s", values[i]);
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_derived), cmocka_unit_test(test_packs), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_slots), cmocka_unit_test(test_manual),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

#include "key.h"

#include "bytes.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct volume_descriptor new_descriptor(enum suite suite, struct master **master, struct buf *text)
{
	struct volume_descriptor descriptor;

	descriptor_init(&descriptor, suite);
	*master = key_new_master(&descriptor);
	assert_non_null(*master);
	memset(text, 0, sizeof(*text));
	if (descriptor_write(&descriptor, *master, text))
		fail();
	return descriptor;
}

static void test_descriptor_round_trip(void **state)
{
	enum suite suite = *(enum suite *)*state;
	struct master *master;
	struct buf text;
	struct volume_descriptor in = new_descriptor(suite, &master, &text), out;
	struct error error;

	assert_int_equal(descriptor_read(text.data, text.length, &out, &error), 0);
	assert_memory_equal(in.volume_id, out.volume_id, CRYPT_ID_BYTES);
	assert_int_equal(out.suite, suite);
	assert_int_equal(out.chunk_min, 131072);
	assert_int_equal(out.chunk_average, 524288);
	assert_int_equal(out.chunk_max, 2097152);
	assert_int_equal(out.created_s, in.created_s);
	assert_int_equal(out.compatible | out.read_only_compatible | out.incompatible, 0);
	assert_int_equal(descriptor_verify(text.data, text.length, master, &error), 0);
	assert_int_equal(descriptor_writable(&out, &error), 0);
	master_free(master);
	buf_free(&text);
}

/* Fault 44, 46: no bit of it can be changed, nothing cut off or added. */
static void test_descriptor_tamper(void **state)
{
	enum suite suite = *(enum suite *)*state;
	struct master *master, *other;
	struct buf text, second;
	struct volume_descriptor descriptor;

	new_descriptor(suite, &master, &text);
	new_descriptor(suite, &other, &second);
	for (size_t i = 0; i < text.length * 8; i++) {
		text.data[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_not_equal(descriptor_verify(text.data, text.length, master, NULL), 0);
		text.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t length = 0; length < text.length; length++)
		assert_int_equal(descriptor_read(text.data, length, &descriptor, NULL), ERR_CORRUPT);
	assert_int_equal(descriptor_verify(second.data, second.length, master, NULL), ERR_CORRUPT);
	assert_int_equal(descriptor_verify(text.data, text.length, master, NULL), 0);
	assert_int_equal(buf_append(&text, "x y\n", 4), 0);
	assert_int_equal(descriptor_read(text.data, text.length, &descriptor, NULL), ERR_CORRUPT);
	master_free(master);
	master_free(other);
	buf_free(&text);
	buf_free(&second);
}

/* Fault 46: an encrypted volume's descriptor exchanged for an unencrypted one with the same id. */
static void test_descriptor_downgrade(void **state)
{
	struct master *master, *none;
	struct buf text, weak = {0};
	struct volume_descriptor descriptor = new_descriptor(SUITE_AES256_GCM, &master, &text);

	(void)state;
	descriptor.suite = SUITE_NONE;
	none = key_new_master(&descriptor);
	assert_int_equal(descriptor_write(&descriptor, none, &weak), 0);
	assert_int_equal(descriptor_verify(weak.data, weak.length, none, NULL), 0);
	assert_int_equal(descriptor_verify(weak.data, weak.length, master, NULL), ERR_CORRUPT);
	assert_int_equal(descriptor_verify(text.data, text.length, none, NULL), ERR_CORRUPT);
	master_free(master);
	master_free(none);
	buf_free(&text);
	buf_free(&weak);
}

/* A descriptor with line `name` replaced by `with` (NULL: left out); its mac is kept as it was. */
static int read_replaced(const struct buf *text, const char *name, const char *with, struct volume_descriptor *out)
{
	char changed[2048], *at = changed, *copy = strndup((const char *)text->data, text->length), *rest = copy, *line;
	int status;

	while ((line = strsep(&rest, "\n")) && *line) {
		size_t length = strcspn(line, " ");

		if (strlen(name) == length && strncmp(line, name, length) == 0)
			at = with ? stpcpy(at, with) : at;
		else
			at += sprintf(at, "%s\n", line);
	}
	status = descriptor_read(changed, (size_t)(at - changed), out, NULL);
	free(copy);
	return status;
}

static void test_descriptor_strict(void **state)
{
	static const struct { const char *name, *with; int status; } cases[] = {
		{"yester", "yester key\n", ERR_CORRUPT},
		{"format", "format 2\n", ERR_UNSUPPORTED},
		{"format", "format 2\nanything goes\n", ERR_UNSUPPORTED},
		{"format", "format 0\n", ERR_CORRUPT},
		{"format", "format 01\n", ERR_CORRUPT},
		{"suite", "suite rot13\n", ERR_CORRUPT},
		{"suite", NULL, ERR_CORRUPT},
		{"suite", "suite none\nsuite none\n", ERR_CORRUPT},
		{"suite", "suite none \n", ERR_CORRUPT},
		{"suite", "suite  none\n", ERR_CORRUPT},
		{"suite", "suite\n", ERR_CORRUPT},
		{"suite", "\nsuite none\n", ERR_CORRUPT},
		{"chunk-min", "chunk-min 131073\n", ERR_CORRUPT},
		{"chunk-min", "chunk-min 2048\n", ERR_CORRUPT},
		{"chunk-min", "chunk-min 524288\n", ERR_CORRUPT},
		{"chunk-max", "chunk-max 33554432\n", ERR_CORRUPT},
		{"chunk-max", "chunk-max 18446744073709551616\n", ERR_CORRUPT},
		{"chunk-max", "chunk-max -4096\n", ERR_CORRUPT},
		{"created", "created yesterday\n", ERR_CORRUPT},
		{"created", "created 2026-02-30T00-00-00Z\n", ERR_CORRUPT},
		{"compatible", "compatible 0\nnew thing\n", ERR_CORRUPT},
		{"compatible", "compatible 1\nnew thing\n", 0},
		{"compatible", "compatible 1\nmac 1\n", ERR_CORRUPT},
		{"read-only-compatible", "read-only-compatible 4\n", 0},
		{"incompatible", "incompatible 1\n", ERR_UNSUPPORTED},
		{"incompatible", "incompatible 1\nnew thing\n", ERR_UNSUPPORTED},
		{"mac", "mac 00\n", ERR_CORRUPT},
		{"mac", NULL, ERR_CORRUPT},
		{"volume", "volume 00\n", ERR_CORRUPT},
	};
	struct master *master;
	struct buf text;
	struct volume_descriptor out;

	(void)state;
	new_descriptor(SUITE_AES256_GCM, &master, &text);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = read_replaced(&text, cases[i].name, cases[i].with, &out);

		if (status != cases[i].status)
			fail_msg("%s -> %s: %d, not %d", cases[i].name, cases[i].with ? cases[i].with : "-", status,
				 cases[i].status);
	}
	assert_int_equal(read_replaced(&text, "read-only-compatible", "read-only-compatible 4\n", &out), 0);
	assert_int_equal(descriptor_writable(&out, NULL), ERR_UNSUPPORTED);
	master_free(master);
	buf_free(&text);
}

struct secret { enum key_kind kind; const char *bytes; size_t length; };
static const struct secret secrets[] = {
	{KEY_PASSPHRASE, "correct horse battery staple", 28},
	{KEY_FILE, "thirty-two bytes of a key file.", 32},
	{KEY_RECOVERY, "twenty bytes of key", 20},
};

static void test_slot_round_trip(void **state)
{
	struct master *master, *opened;
	struct buf text, slot = {0};
	struct volume_descriptor descriptor = new_descriptor(SUITE_AES256_GCM, &master, &text), other = descriptor;
	struct error error;

	(void)state;
	other.volume_id[5] ^= 1;
	for (size_t i = 0; i < 3; i++) {
		const struct secret *secret = &secrets[i];
		enum key_kind kind;
		char wrong[32];

		buf_clear(&slot);
		assert_int_equal(key_slot_write(master, secret->kind, secret->bytes, secret->length, &slot, &error), 0);
		assert_int_equal(key_slot_kind(slot.data, slot.length, &kind, &error), 0);
		assert_int_equal(kind, secret->kind);
		assert_int_equal(key_slot_open(slot.data, slot.length, &descriptor, secret->kind, secret->bytes,
					       secret->length, &opened, &error), 0);
		assert_memory_equal(master_key(opened), master_key(master), CRYPT_KEY_BYTES);
		assert_int_equal(descriptor_verify(text.data, text.length, opened, &error), 0);
		master_free(opened);
		memcpy(wrong, secret->bytes, secret->length);
		wrong[0] ^= 1;
		assert_int_equal(key_slot_open(slot.data, slot.length, &descriptor, secret->kind, wrong, secret->length,
					       &opened, &error), ERR_KEY);
		assert_null(opened);
		assert_int_equal(key_slot_open(slot.data, slot.length, &other, secret->kind, secret->bytes,
					       secret->length, &opened, &error), ERR_KEY);
		assert_int_equal(key_slot_open(slot.data, slot.length, &descriptor, secrets[(i + 1) % 3].kind,
					       secrets[(i + 1) % 3].bytes, secrets[(i + 1) % 3].length, &opened, &error),
				 ERR_KEY);
		assert_int_equal(key_slot_write(master, secret->kind, secret->bytes, 0, &slot, &error), ERR_USAGE);
	}
	buf_free(&slot);
	buf_free(&text);
	master_free(master);
}

static void test_slot_tamper(void **state)
{
	struct master *master, *opened;
	struct buf text, slot = {0};
	struct volume_descriptor descriptor = new_descriptor(SUITE_AES256_GCM, &master, &text);

	(void)state;
	for (size_t k = 1; k < 3; k++) {
		const struct secret *secret = &secrets[k];

		buf_clear(&slot);
		assert_int_equal(key_slot_write(master, secret->kind, secret->bytes, secret->length, &slot, NULL), 0);
		for (size_t i = 0; i < slot.length * 8; i++) {
			slot.data[i / 8] ^= (uint8_t)(1 << i % 8);
			assert_int_not_equal(key_slot_open(slot.data, slot.length, &descriptor, secret->kind,
							   secret->bytes, secret->length, &opened, NULL), 0);
			assert_null(opened);
			slot.data[i / 8] ^= (uint8_t)(1 << i % 8);
		}
		for (size_t length = 0; length < slot.length; length++)
			assert_int_equal(key_slot_open(slot.data, length, &descriptor, secret->kind, secret->bytes,
						       secret->length, &opened, NULL), ERR_CORRUPT);
	}
	buf_free(&slot);
	buf_free(&text);
	master_free(master);
}

static int slot_status(const char *scrypt, const char *generation)
{
	char text[1024], salt[65], wrapped[97];
	struct master *opened;
	struct volume_descriptor descriptor;
	int status;

	descriptor_init(&descriptor, SUITE_AES256_GCM);
	memset(salt, 'a', 64);
	memset(wrapped, 'b', 96);
	salt[64] = wrapped[96] = '\0';
	snprintf(text, sizeof(text), "yester key\nformat 1\nkind passphrase\n%s\n%s\nsalt %s\nwrapped %s\n", generation,
		 scrypt, salt, wrapped);
	status = key_slot_open(text, strlen(text), &descriptor, KEY_PASSPHRASE, "x", 1, &opened, NULL);
	assert_null(opened);
	return status;
}

/* Fault 43: what a hostile slot asks for is capped before it is done. */
static void test_scrypt_caps(void **state)
{
	static const char *const bad[] = {
		"scrypt 2097152 8 1", "scrypt 131073 8 1", "scrypt 0 8 1", "scrypt 1 8 1", "scrypt 16 17 1", "scrypt 16 8 5",
		"scrypt 16 0 1", "scrypt 16 8 0", "scrypt 65536 1 1", "scrypt 16 8", "scrypt 16 8 1 1", "scrypt 16  8 1",
		"scrypt 18446744073709551616 8 1", "scrypt 16 4294967304 1", "scrypt 16 8 +1",
		"scrypt 00000000000000000000000000000000000000000000000000000000000000000000000000016 8 1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(slot_status(bad[i], "generation 1"), ERR_CORRUPT);
	assert_int_equal(slot_status("scrypt 16 8 1", "generation 1"), ERR_KEY);
	assert_int_equal(slot_status("scrypt 16 16 4", "generation 1"), ERR_KEY);
	assert_int_equal(slot_status("scrypt 16 8 1", "generation 2"), ERR_UNSUPPORTED);
	assert_int_equal(slot_status("scrypt 16 8 1", "generation 0"), ERR_CORRUPT);
	assert_int_equal(slot_status("scrypt 16 8 1", "unknown 1\ngeneration 1"), ERR_CORRUPT);
}

static void test_unencrypted_has_no_slots(void **state)
{
	struct master *master;
	struct buf text, slot = {0};

	(void)state;
	new_descriptor(SUITE_NONE, &master, &text);
	assert_int_equal(key_slot_write(master, KEY_PASSPHRASE, "x", 1, &slot, NULL), ERR_USAGE);
	assert_int_equal(slot.length, 0);
	buf_free(&text);
	master_free(master);
}

static void test_recovery(void **state)
{
	uint8_t secret[20], parsed[20];
	char text[KEY_RECOVERY_TEXT_BYTES], changed[100], *out = changed;
	unsigned accepted = 0;

	(void)state;
	key_new_recovery(secret, text);
	assert_int_equal(strlen(text), KEY_RECOVERY_TEXT_BYTES - 1);
	assert_int_equal(text[5], '-');
	assert_int_equal(key_parse_recovery(text, parsed, NULL), 0);
	assert_memory_equal(secret, parsed, sizeof(secret));
	/* As people type: lower case, blanks. */
	for (const char *in = text; *in; in++)
		*out++ = *in == '-' ? ' ' : (*in >= 'A' && *in <= 'Z') ? (char)(*in + 32) : *in;
	*out = '\0';
	assert_int_equal(key_parse_recovery(changed, parsed, NULL), 0);
	assert_memory_equal(secret, parsed, sizeof(secret));
	for (size_t i = 0; text[i]; i++) {
		if (text[i] == '-')
			continue;
		strcpy(changed, text);
		changed[i] = text[i] == 'A' ? 'B' : 'A';
		accepted += key_parse_recovery(changed, parsed, NULL) == 0;
	}
	assert_int_equal(accepted, 0);
	text[strlen(text) - 1] = '\0';
	assert_int_equal(key_parse_recovery(text, parsed, NULL), ERR_KEY);
	assert_int_equal(key_parse_recovery("", parsed, NULL), ERR_KEY);
}

static char directory[] = "/tmp/yester-test-key-XXXXXX";
static char path[128];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/secret", directory);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

static void put_file(const char *content, size_t length, mode_t mode)
{
	int fd;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, length), (ssize_t)length);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void test_passphrase_file(void **state)
{
	struct buf out = {0};
	struct error error;
	char longest[1030];

	(void)state;
	unlink(path);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_ABSENT);
	put_file("two words\nsecond line\n", 22, 0600);
	assert_int_equal(key_read_passphrase(path, &out, &error), 0);
	assert_int_equal(out.length, 9);
	assert_memory_equal(out.data, "two words", 9);
	put_file("bare", 4, 0400);
	assert_int_equal(key_read_passphrase(path, &out, &error), 0);
	assert_int_equal(out.length, 4);
	put_file("\nx\n", 3, 0600);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_KEY);
	put_file("", 0, 0600);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_KEY);
	memset(longest, 'p', sizeof(longest));
	longest[1024] = '\n';
	put_file(longest, 1030, 0600);
	assert_int_equal(key_read_passphrase(path, &out, &error), 0);
	assert_int_equal(out.length, 1024);
	longest[1024] = 'p';
	put_file(longest, 1030, 0600);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_KEY);
	assert_int_equal(out.length, 0);
	/* Fault 49. */
	put_file("loose\n", 6, 0640);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_USAGE);
	put_file("loose\n", 6, 0604);
	assert_int_equal(key_read_passphrase(path, &out, &error), ERR_USAGE);
	buf_wipe(&out);
}

static void test_passphrase_pipe(void **state)
{
	struct buf out = {0};
	int fds[2];
	char name[32];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "piped\nrest", 10), 10);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fds[0]);
	assert_int_equal(key_read_passphrase(name, &out, NULL), 0);
	assert_int_equal(out.length, 5);
	assert_memory_equal(out.data, "piped", 5);
	buf_wipe(&out);
	close(fds[0]);
	close(fds[1]);
}

static void test_key_file(void **state)
{
	struct buf made = {0}, read = {0};
	struct error error;
	struct stat st;
	char text[66];
	mode_t mask = umask(0277);

	(void)state;
	unlink(path);
	assert_int_equal(key_create_file(path, &made, &error), 0);
	umask(mask);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 65);
	assert_int_equal(key_read_file(path, &read, &error), 0);
	assert_int_equal(read.length, 32);
	assert_memory_equal(read.data, made.data, 32);
	/* Never over a key that is there. */
	assert_int_equal(key_create_file(path, &made, &error), ERR_EXISTS);
	assert_int_equal(key_read_file(path, &made, &error), 0);
	assert_memory_equal(read.data, made.data, 32);
	hex_encode(text, read.data, 32);
	text[64] = '\n';
	put_file(text, 64, 0600);
	assert_int_equal(key_read_file(path, &read, &error), ERR_KEY);
	put_file(text, 65, 0600);
	assert_int_equal(key_read_file(path, &read, &error), 0);
	put_file(text, 65, 0644);
	assert_int_equal(key_read_file(path, &read, &error), ERR_USAGE);
	text[65] = '\n';
	put_file(text, 66, 0600);
	assert_int_equal(key_read_file(path, &read, &error), ERR_KEY);
	text[3] = 'g';
	put_file(text, 65, 0600);
	assert_int_equal(key_read_file(path, &read, &error), ERR_KEY);
	assert_int_equal(read.length, 0);
	buf_wipe(&made);
	buf_wipe(&read);
}

int main(void)
{
	static enum suite suites[] = {SUITE_NONE, SUITE_AES256_GCM};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_descriptor_round_trip, &suites[0]),
		cmocka_unit_test_prestate(test_descriptor_round_trip, &suites[1]),
		cmocka_unit_test_prestate(test_descriptor_tamper, &suites[0]),
		cmocka_unit_test_prestate(test_descriptor_tamper, &suites[1]),
		cmocka_unit_test(test_descriptor_downgrade),
		cmocka_unit_test(test_descriptor_strict),
		cmocka_unit_test(test_slot_round_trip),
		cmocka_unit_test(test_slot_tamper),
		cmocka_unit_test(test_scrypt_caps),
		cmocka_unit_test(test_unencrypted_has_no_slots),
		cmocka_unit_test(test_recovery),
		cmocka_unit_test(test_passphrase_file),
		cmocka_unit_test(test_passphrase_pipe),
		cmocka_unit_test(test_key_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

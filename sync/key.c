/* key slots and recovery keys; the volume descriptor is in descriptor.c, files with secrets are in key_file.c. */
#include "key.h"

#include "bytes.h"
#include "digest.h"
#include "io.h"
#include "lines.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SCRYPT_N (UINT64_C(1) << 17)
#define SCRYPT_R 8
#define SCRYPT_P 1
/* Read from a remote that may be hostile (fault 43): 128 r N is at most 2 GiB. */
#define SCRYPT_N_MAX (UINT64_C(1) << 20)
#define SCRYPT_R_MAX 16
#define SCRYPT_P_MAX 4

#define WRAPPED_BYTES (CRYPT_KEY_BYTES + CRYPT_TAG_BYTES)
#define RECOVERY_BYTES 20
#define RECOVERY_CHECK_BYTES 5
#define RECOVERY_GROUP 5

static const char recovery_prefix[] = "yester recovery key";

enum line { L_YESTER, L_FORMAT, L_KIND, L_GENERATION, L_SCRYPT, L_SALT, L_WRAPPED };
static const char *const names[] = {"yester", "format", "kind", "generation", "?scrypt", "salt", "wrapped", NULL};

static const struct {
	const char *word;     /* in the slot */
	const char *name;     /* for people */
	const char *purpose;  /* HKDF info; NULL: scrypt */
	size_t secret_length; /* 0: any */
} kinds[] = {
	[KEY_PASSPHRASE] = {"passphrase", "passphrase", NULL, 0},
	[KEY_FILE] = {"file", "key file", "yester key file", CRYPT_KEY_BYTES},
	[KEY_RECOVERY] = {"recovery", "recovery key", recovery_prefix, RECOVERY_BYTES},
};

struct slot {
	enum key_kind kind;
	uint64_t n;
	uint32_t r, p;
	uint8_t salt[CRYPT_SALT_BYTES];
	uint8_t wrapped[WRAPPED_BYTES];
};

struct master *key_new_master(const struct volume_descriptor *descriptor)
{
	uint8_t key[CRYPT_KEY_BYTES];
	struct master *master;

	if (descriptor->suite == SUITE_NONE)
		return master_new(descriptor->volume_id, NULL);
	io_random(key, sizeof(key));
	master = master_new(descriptor->volume_id, key);
	crypt_wipe(key, sizeof(key));
	return master;
}

/* ---------------------------------------------------------------- wrapping */

/* The key-encryption key of a secret. */
static int derive_kek(const struct slot *slot, const uint8_t volume_id[CRYPT_ID_BYTES], const void *secret,
		      size_t length, uint8_t kek[CRYPT_KEY_BYTES])
{
	uint8_t info[64];
	size_t purpose_length;

	if (slot->kind == KEY_PASSPHRASE)
		return crypt_scrypt(kek, secret, length, slot->salt, CRYPT_SALT_BYTES, slot->n,
				    slot->r, slot->p);
	purpose_length = strlen(kinds[slot->kind].purpose);
	memcpy(info, kinds[slot->kind].purpose, purpose_length);
	memcpy(info + purpose_length, volume_id, CRYPT_ID_BYTES);
	crypt_hkdf(kek, CRYPT_KEY_BYTES, secret, length, slot->salt, CRYPT_SALT_BYTES, info,
		   purpose_length + CRYPT_ID_BYTES);
	return 0;
}

/* "yester key" || volume id || kind; returns its length. */
static size_t slot_aad(const uint8_t volume_id[CRYPT_ID_BYTES], enum key_kind kind, uint8_t aad[32])
{
	static const char prefix[] = "yester key";
	const size_t length = sizeof(prefix) - 1;

	memcpy(aad, prefix, length);
	memcpy(aad + length, volume_id, CRYPT_ID_BYTES);
	aad[length + CRYPT_ID_BYTES] = (uint8_t)kind;
	return length + CRYPT_ID_BYTES + 1;
}

/* A KEK is used for one message (its salt is fresh), so that the nonce can be constant. */
static const uint8_t zero_nonce[12];

static bool secret_fits(enum key_kind kind, size_t length)
{
	return kinds[kind].secret_length == 0 ? length > 0 : length == kinds[kind].secret_length;
}

static int slot_format(const struct slot *slot, struct buf *out)
{
	char salt[2 * CRYPT_SALT_BYTES + 1], wrapped[2 * WRAPPED_BYTES + 1], scrypt[64] = "";

	hex_encode(salt, slot->salt, sizeof(slot->salt));
	hex_encode(wrapped, slot->wrapped, sizeof(slot->wrapped));
	if (slot->kind == KEY_PASSPHRASE)
		snprintf(scrypt, sizeof(scrypt), "scrypt %" PRIu64 " %" PRIu32 " %" PRIu32 "\n", slot->n, slot->r,
			 slot->p);
	return buf_printf(out, "yester key\nformat 1\nkind %s\ngeneration 1\n%ssalt %s\nwrapped %s\n",
			  kinds[slot->kind].word, scrypt, salt, wrapped);
}

int key_slot_write(const struct master *master, enum key_kind kind, const void *secret, size_t length, struct buf *out,
		   struct error *error)
{
	struct slot slot = {.kind = kind, .n = SCRYPT_N, .r = SCRYPT_R, .p = SCRYPT_P};
	uint8_t kek[CRYPT_KEY_BYTES], aad[32];
	size_t aad_length;
	int status;

	if (master_suite(master) == SUITE_NONE)
		return error_set(error, ERR_USAGE, 0, "key slot: the volume is not encrypted, it has no keys");
	if (!secret_fits(kind, length))
		return error_set(error, ERR_USAGE, 0, "key slot: a %s of %zu bytes can't be used", kinds[kind].name,
				 length);
	io_random(slot.salt, sizeof(slot.salt));
	status = derive_kek(&slot, master_volume_id(master), secret, length, kek);
	if (!status) {
		aad_length = slot_aad(master_volume_id(master), kind, aad);
		status = crypt_gcm_seal(kek, zero_nonce, aad, aad_length, master_key(master), CRYPT_KEY_BYTES,
					slot.wrapped);
	}
	crypt_wipe(kek, sizeof(kek));
	if (!status)
		status = slot_format(&slot, out);
	if (status)
		return error_set(error, status, 0, "key slot: out of memory");
	return 0;
}

/* ---------------------------------------------------------------- reading */

/* "N r p" within the caps. */
static bool read_scrypt(const char *value, struct slot *slot)
{
	uint64_t numbers[3];
	char text[64], *at = text, *field;
	size_t count = 0;

	if (strlen(value) >= sizeof(text))
		return false;
	strcpy(text, value);
	while ((field = strsep(&at, " "))) {
		if (count == 3 || !lines_number(field, &numbers[count++]))
			return false;
	}
	if (count != 3 || numbers[0] < 2 || numbers[0] > SCRYPT_N_MAX || (numbers[0] & (numbers[0] - 1)) ||
	    numbers[1] < 1 || numbers[1] > SCRYPT_R_MAX || numbers[2] < 1 || numbers[2] > SCRYPT_P_MAX)
		return false;
	/* RFC 7914 section 2: N < 2^(128 r / 8); only r = 1 can break that here. */
	if (numbers[1] == 1 && numbers[0] >= UINT64_C(1) << 16)
		return false;
	slot->n = numbers[0];
	slot->r = (uint32_t)numbers[1];
	slot->p = (uint32_t)numbers[2];
	return true;
}

static bool read_kind(const char *value, enum key_kind *kind)
{
	for (int i = KEY_PASSPHRASE; i <= KEY_RECOVERY; i++) {
		if (strcmp(value, kinds[i].word) == 0) {
			*kind = (enum key_kind)i;
			return true;
		}
	}
	return false;
}

static bool read_values(const char *const *values, struct slot *slot)
{
	if (!read_kind(values[L_KIND], &slot->kind))
		return false;
	if (slot->kind == KEY_PASSPHRASE ? !values[L_SCRYPT] || !read_scrypt(values[L_SCRYPT], slot)
					 : values[L_SCRYPT] != NULL)
		return false;
	return lines_hex(values[L_SALT], slot->salt, sizeof(slot->salt)) &&
	       lines_hex(values[L_WRAPPED], slot->wrapped, sizeof(slot->wrapped));
}

static int slot_read(const void *text, size_t length, struct slot *slot, struct error *error)
{
	static const int versions[] = {L_FORMAT, L_GENERATION};
	struct lines lines;
	bool well_formed = lines_read(&lines, names, text, length);
	uint64_t number;

	memset(slot, 0, sizeof(*slot));
	if (!lines.values[L_YESTER] || strcmp(lines.values[L_YESTER], "key") != 0)
		return error_set(error, ERR_CORRUPT, 0, "key slot: this is not one");
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		const char *value = lines.values[versions[i]];

		if (value && lines_number(value, &number) && number > 1)
			return error_set(error, ERR_UNSUPPORTED, 0,
					 "key slot: %s %" PRIu64 " is not known to this version of yester; use a newer one",
					 names[versions[i]], number);
		if (value && strcmp(value, "1") != 0)
			well_formed = false;
	}
	if (!well_formed || lines.unknown || !read_values(lines.values, slot))
		return error_set(error, ERR_CORRUPT, 0, "key slot: malformed");
	return 0;
}

int key_slot_kind(const void *text, size_t length, enum key_kind *kind, struct error *error)
{
	struct slot slot;
	int status = slot_read(text, length, &slot, error);

	if (!status)
		*kind = slot.kind;
	return status;
}

int key_slot_open(const void *text, size_t length, const struct volume_descriptor *descriptor, enum key_kind kind,
		  const void *secret, size_t secret_length, struct master **out, struct error *error)
{
	struct slot slot;
	uint8_t kek[CRYPT_KEY_BYTES], key[CRYPT_KEY_BYTES], aad[32];
	size_t aad_length;
	int status = slot_read(text, length, &slot, error);

	*out = NULL;
	if (status)
		return status;
	if (descriptor->suite == SUITE_NONE)
		return error_set(error, ERR_CORRUPT, 0, "key slot: the volume says that it is not encrypted");
	if (slot.kind != kind || !secret_fits(kind, secret_length))
		return error_set(error, ERR_KEY, 0, "key slot: this slot does not open with this %s", kinds[kind].name);
	if (derive_kek(&slot, descriptor->volume_id, secret, secret_length, kek))
		return error_set(error, ERR_NOMEM, 0, "key slot: not enough memory for scrypt with N = %" PRIu64,
				 slot.n);
	aad_length = slot_aad(descriptor->volume_id, kind, aad);
	status = crypt_gcm_open(kek, zero_nonce, aad, aad_length, slot.wrapped, WRAPPED_BYTES, key);
	crypt_wipe(kek, sizeof(kek));
	if (status)
		return error_set(error, ERR_KEY, 0, "wrong %s", kinds[kind].name);
	*out = master_new(descriptor->volume_id, key);
	crypt_wipe(key, sizeof(key));
	if (!*out)
		return error_set(error, ERR_NOMEM, 0, "key slot: out of memory");
	return 0;
}

/* ---------------------------------------------------------------- recovery keys */

static void recovery_check(const uint8_t secret[RECOVERY_BYTES], uint8_t check[RECOVERY_CHECK_BYTES])
{
	uint8_t text[sizeof(recovery_prefix) - 1 + RECOVERY_BYTES], hash[SHA256_BYTES];

	memcpy(text, recovery_prefix, sizeof(recovery_prefix) - 1);
	memcpy(text + sizeof(recovery_prefix) - 1, secret, RECOVERY_BYTES);
	sha256(hash, text, sizeof(text));
	memcpy(check, hash, RECOVERY_CHECK_BYTES);
	crypt_wipe(text, sizeof(text));
}

void key_new_recovery(uint8_t secret[RECOVERY_BYTES], char text[KEY_RECOVERY_TEXT_BYTES])
{
	uint8_t bytes[RECOVERY_BYTES + RECOVERY_CHECK_BYTES];
	char letters[KEY_RECOVERY_TEXT_BYTES];
	size_t count;

	io_random(secret, RECOVERY_BYTES);
	memcpy(bytes, secret, RECOVERY_BYTES);
	recovery_check(secret, bytes + RECOVERY_BYTES);
	count = base32_encode(letters, bytes, sizeof(bytes));
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && i % RECOVERY_GROUP == 0)
			*text++ = '-';
		*text++ = letters[i];
	}
	*text = '\0';
	crypt_wipe(bytes, sizeof(bytes));
	crypt_wipe(letters, sizeof(letters));
}

int key_parse_recovery(const char *text, uint8_t secret[RECOVERY_BYTES], struct error *error)
{
	uint8_t bytes[RECOVERY_BYTES + RECOVERY_CHECK_BYTES], check[RECOVERY_CHECK_BYTES];
	bool ok = base32_decode(bytes, sizeof(bytes), text);

	if (ok) {
		recovery_check(bytes, check);
		ok = crypt_equal(check, bytes + RECOVERY_BYTES, sizeof(check));
	}
	if (ok)
		memcpy(secret, bytes, RECOVERY_BYTES);
	crypt_wipe(bytes, sizeof(bytes));
	if (!ok)
		return error_set(error, ERR_KEY, 0, "recovery key: mistyped; it has 8 groups of 5 letters and digits");
	return 0;
}

/* Names of the objects of a volume (record.h). One number has one spelling: lower-case hex of full width. */
#include "record.h"

#include "bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_DIGITS 16

void record_key(char out[RECORD_KEY_BYTES], int64_t seq)
{
	snprintf(out, RECORD_KEY_BYTES, "log/%016" PRIx64, (uint64_t)seq);
}

void checkpoint_key(char out[RECORD_KEY_BYTES], int64_t seq, uint64_t rand)
{
	snprintf(out, RECORD_KEY_BYTES, "checkpoint/%016" PRIx64 "-%016" PRIx64, (uint64_t)seq, rand);
}

void pack_key(char out[RECORD_KEY_BYTES], const uint8_t id[CRYPT_ID_BYTES])
{
	char hex[2 * CRYPT_ID_BYTES + 1];

	hex_encode(hex, id, CRYPT_ID_BYTES);
	snprintf(out, RECORD_KEY_BYTES, "pack/%.2s/%s", hex, hex);
}

/* Exactly 16 lower-case digits. */
static int parse_number(const char *text, uint64_t *out)
{
	uint64_t value = 0;

	for (int i = 0; i < NUMBER_DIGITS; i++) {
		char c = text[i];
		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
			return ERR_CORRUPT;
		value = value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	*out = value;
	return 0;
}

int64_t record_key_parse(const char *key)
{
	uint64_t seq;

	if (strlen(key) != 4 + NUMBER_DIGITS || strncmp(key, "log/", 4) != 0 || parse_number(key + 4, &seq))
		return -1;
	return seq >= 1 && seq <= INT64_MAX ? (int64_t)seq : -1;
}

int checkpoint_key_parse(const char *key, int64_t *seq, uint64_t *rand)
{
	uint64_t number;

	if (strlen(key) != 11 + 2 * NUMBER_DIGITS + 1 || strncmp(key, "checkpoint/", 11) != 0 ||
	    key[11 + NUMBER_DIGITS] != '-' || parse_number(key + 11, &number) ||
	    parse_number(key + 11 + NUMBER_DIGITS + 1, rand) || number < 1 || number > INT64_MAX)
		return ERR_CORRUPT;
	*seq = (int64_t)number;
	return 0;
}

/* descriptor: the object `volume` of a remote (key.h). */
#include "key.h"

#include "bytes.h"
#include "clock.h"
#include "digest.h"
#include "io.h"
#include "lines.h"
#include "when.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK_MIN_BYTES (128u << 10)
#define CHUNK_AVERAGE_BYTES (512u << 10)
#define CHUNK_MAX_BYTES (2u << 20)
#define CHUNK_LOWEST_BYTES (4u << 10)
#define CHUNK_HIGHEST_BYTES (16u << 20)

#define MAC_LINE_BYTES (4 + 2 * SHA256_BYTES + 1) /* "mac ", digits, newline */

enum line {
	L_YESTER, L_FORMAT, L_VOLUME, L_SUITE, L_MIN, L_AVERAGE, L_MAX, L_CREATED,
	L_COMPATIBLE, L_READ_ONLY, L_INCOMPATIBLE, L_MAC
};
static const char *const names[] = {
	"yester", "format", "volume", "suite", "chunk-min", "chunk-average", "chunk-max", "created",
	"compatible", "read-only-compatible", "incompatible", "mac", NULL
};

static const char *const suites[] = {[SUITE_NONE] = "none", [SUITE_AES256_GCM] = "aes-256-gcm"};

void descriptor_init(struct volume_descriptor *descriptor, enum suite suite)
{
	memset(descriptor, 0, sizeof(*descriptor));
	io_random(descriptor->volume_id, CRYPT_ID_BYTES);
	descriptor->suite = suite;
	descriptor->chunk_min = CHUNK_MIN_BYTES;
	descriptor->chunk_average = CHUNK_AVERAGE_BYTES;
	descriptor->chunk_max = CHUNK_MAX_BYTES;
	descriptor->created_s = clock_wall_ns() / NS_PER_S;
}

static void descriptor_mac(const struct master *master, const void *text, size_t length, uint8_t mac[SHA256_BYTES])
{
	uint8_t key[CRYPT_KEY_BYTES];

	master_derive(master, "yester volume descriptor", key);
	hmac_sha256(mac, key, sizeof(key), text, length);
	crypt_wipe(key, sizeof(key));
}

int descriptor_write(const struct volume_descriptor *descriptor, const struct master *master, struct buf *out)
{
	char volume[2 * CRYPT_ID_BYTES + 1], created[WHEN_NAME_BYTES], digits[2 * SHA256_BYTES + 1];
	uint8_t mac[SHA256_BYTES];
	size_t start = out->length;
	int status;

	hex_encode(volume, descriptor->volume_id, CRYPT_ID_BYTES);
	when_name(created, descriptor->created_s);
	status = buf_printf(out,
			    "yester volume\nformat 1\nvolume %s\nsuite %s\nchunk-min %u\nchunk-average %u\nchunk-max %u\n"
			    "created %s\ncompatible %" PRIu64 "\nread-only-compatible %" PRIu64 "\nincompatible %" PRIu64 "\n",
			    volume, suites[descriptor->suite], descriptor->chunk_min, descriptor->chunk_average,
			    descriptor->chunk_max, created, descriptor->compatible, descriptor->read_only_compatible,
			    descriptor->incompatible);
	if (!status) {
		descriptor_mac(master, out->data + start, out->length - start, mac);
		hex_encode(digits, mac, sizeof(mac));
		status = buf_printf(out, "mac %s\n", digits);
	}
	if (status)
		out->length = start;
	return status;
}

static bool read_chunk_size(const char *value, uint32_t *size)
{
	uint64_t number;

	if (!lines_number(value, &number) || number < CHUNK_LOWEST_BYTES || number > CHUNK_HIGHEST_BYTES ||
	    (number & (number - 1)))
		return false;
	*size = (uint32_t)number;
	return true;
}

static bool read_suite(const char *value, enum suite *suite)
{
	for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
		if (strcmp(value, suites[i]) == 0) {
			*suite = (enum suite)i;
			return true;
		}
	}
	return false;
}

static bool read_values(const char *const *values, struct volume_descriptor *out)
{
	uint8_t mac[SHA256_BYTES];

	return lines_hex(values[L_VOLUME], out->volume_id, CRYPT_ID_BYTES) &&
	       read_suite(values[L_SUITE], &out->suite) && read_chunk_size(values[L_MIN], &out->chunk_min) &&
	       read_chunk_size(values[L_AVERAGE], &out->chunk_average) &&
	       read_chunk_size(values[L_MAX], &out->chunk_max) && out->chunk_min < out->chunk_average &&
	       out->chunk_average < out->chunk_max && when_is_canonical(values[L_CREATED], &out->created_s) &&
	       lines_number(values[L_COMPATIBLE], &out->compatible) &&
	       lines_number(values[L_READ_ONLY], &out->read_only_compatible) &&
	       lines_number(values[L_INCOMPATIBLE], &out->incompatible) && lines_hex(values[L_MAC], mac, sizeof(mac));
}

static int unsupported(struct error *error, const char *what, uint64_t number)
{
	return error_set(error, ERR_UNSUPPORTED, 0,
			 "volume descriptor: %s %" PRIu64 " is not known to this version of yester; use a newer one",
			 what, number);
}

int descriptor_read(const void *text, size_t length, struct volume_descriptor *out, struct error *error)
{
	struct lines lines;
	bool well_formed = lines_read(&lines, names, text, length);
	uint64_t number;

	memset(out, 0, sizeof(*out));
	if (!lines.values[L_YESTER] || strcmp(lines.values[L_YESTER], "volume") != 0)
		return error_set(error, ERR_CORRUPT, 0, "volume descriptor: this is not one");
	/* What a later format means by its other lines is not ours to judge. */
	if (lines.values[L_FORMAT] && lines_number(lines.values[L_FORMAT], &number) && number > 1)
		return unsupported(error, "format", number);
	if (lines.values[L_INCOMPATIBLE] && lines_number(lines.values[L_INCOMPATIBLE], &number) &&
	    (number & ~VOLUME_INCOMPATIBLE_KNOWN))
		return unsupported(error, "incompatible feature set", number);
	if (!well_formed || strcmp(lines.values[L_FORMAT], "1") != 0 || !read_values(lines.values, out) ||
	    (lines.unknown && !(out->compatible & ~VOLUME_COMPATIBLE_KNOWN))) {
		memset(out, 0, sizeof(*out));
		return error_set(error, ERR_CORRUPT, 0, "volume descriptor: malformed");
	}
	return 0;
}

int descriptor_verify(const void *text, size_t length, const struct master *master, struct error *error)
{
	struct volume_descriptor descriptor;
	uint8_t mac[SHA256_BYTES];
	char digits[2 * SHA256_BYTES + 1];
	int status = descriptor_read(text, length, &descriptor, error);

	if (status)
		return status;
	/* descriptor_read has seen a mac line of this length at the end. */
	descriptor_mac(master, text, length - MAC_LINE_BYTES, mac);
	hex_encode(digits, mac, sizeof(mac));
	if (!crypt_equal((const char *)text + length - MAC_LINE_BYTES + 4, digits, 2 * SHA256_BYTES) ||
	    memcmp(descriptor.volume_id, master_volume_id(master), CRYPT_ID_BYTES) != 0 ||
	    descriptor.suite != master_suite(master))
		return error_set(error, ERR_CORRUPT, 0,
				 "volume descriptor: not written by the holder of this key; it was changed or swapped");
	return 0;
}

int descriptor_writable(const struct volume_descriptor *descriptor, struct error *error)
{
	uint64_t unknown = descriptor->read_only_compatible & ~VOLUME_READ_ONLY_COMPATIBLE_KNOWN;

	return unknown ? unsupported(error, "read-only-compatible feature set", unknown) : 0;
}

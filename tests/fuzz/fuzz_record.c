/* Any bytes are either refused or a log record. Input that begins with 'I' is, behind that, the database image of a delta: it is sealed as the key holder
 * would (without encryption everybody is one), so that what lies behind the authentication is reached too. */
#include "record.h"

#include "bytes.h"
#include "catalogue_schema.h"
#include "io.h"
#include "seal.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEQ 1

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void require(int ok)
{
	if (!ok)
		abort();
}

static int file_of(const void *data, size_t length)
{
	int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	require(fd >= 0 && io_pwrite(fd, data, length, 0) == 0);
	return fd;
}

static void read_record(const struct master *master, int fd, uint64_t length, int64_t seq)
{
	struct record_header header;
	struct version_row row;
	struct delta *delta;
	struct error error = {0};
	int rc = record_read(master, fd, length, seq, ".", &header, &delta, &error);

	require(rc == 0 || rc == ERR_CORRUPT || rc == ERR_UNSUPPORTED);
	require((rc == 0) == (delta != NULL) && error.code == rc);
	if (rc)
		return;
	require(header.seq >= 1 && delta_seq(delta) == header.seq && header.pack_length + header.delta_length < length);
	require(delta_get_version(delta, &row, &error) == 0 && row.seq == header.seq && row.cut_ns == header.cut_ns);
	delta_free(delta);
}

/* The header's layout: record_format.h. */
static void read_image(const uint8_t *image, size_t length)
{
	static const uint8_t volume_id[CRYPT_ID_BYTES] = {7};
	uint8_t header[RECORD_HEADER_BYTES] = RECORD_MAGIC, id[CRYPT_ID_BYTES] = {SEQ};
	struct master *master = master_new(volume_id, NULL);
	struct error error;
	uint64_t sealed;
	int in = file_of(image, length), out = file_of("", 0);

	require(master != NULL);
	put_u32(header + 8, RECORD_FORMAT);
	put_u32(header + 12, CATALOGUE_SCHEMA);
	memcpy(header + 16, volume_id, sizeof(volume_id));
	put_u64(header + 32, SEQ);
	put_u64(header + 56, 10000000000); /* as the corpus has it */
	require(object_sealed_length(master, OBJECT_RECORD, in, length, &sealed, &error) == 0);
	put_u64(header + 216, sealed);
	require(io_pwrite(out, header, sizeof(header), 0) == 0 && lseek(out, sizeof(header), SEEK_SET) == sizeof(header));
	require(stream_seal(master, OBJECT_RECORD, id, header + 176, header, sizeof(header), in, length, out, &sealed,
			    &error) == 0);
	read_record(master, out, RECORD_HEADER_BYTES + sealed, SEQ);
	close(in);
	close(out);
	master_free(master);
}

static void read_object(const uint8_t *data, size_t length)
{
	uint8_t volume_id[CRYPT_ID_BYTES] = {0};
	struct master *master;
	int64_t seq;
	uint64_t rand, image_length;
	struct error error;
	int fd = file_of(data, length), image;
	char key[64] = "";

	if (length >= 32) /* whatever volume it says that it is of */
		memcpy(volume_id, data + 16, sizeof(volume_id));
	master = master_new(volume_id, NULL);
	require(master != NULL);
	read_record(master, fd, length, -1);
	if (checkpoint_read(master, fd, length, SEQ, 1, ".", &image, &image_length, &error) == 0)
		close(image);
	memcpy(key, data, length < sizeof(key) - 1 ? length : sizeof(key) - 1);
	require(record_key_parse(key) == -1 || record_key_parse(key) >= 1);
	require(checkpoint_key_parse(key, &seq, &rand) != 0 || seq >= 1);
	close(fd);
	master_free(master);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	if (length && data[0] == 'I')
		read_image(data + 1, length - 1);
	else
		read_object(data, length);
	return 0;
}

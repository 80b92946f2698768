/* Streams: a compressed file as a sequence of sealed segments, in constant memory (seal.h, record_format.h). */
#include "seal.h"

#include "compress.h"
#include "io.h"
#include "record_format.h"

#include <errno.h>
#include <stdlib.h>

#define STREAM_LEVEL 3
#define SEALED_SEGMENT_BYTES (RECORD_SEGMENT_BYTES + CRYPT_TAG_BYTES)

struct piece_context { /* how each segment of one object is sealed */
	struct sealer *sealer;
	const void *header;
	size_t header_length;
};

/* ---------------------------------------------------------------- sealing */

struct stream_writer {
	struct piece_context seal;
	struct compress_stream *compress;
	uint8_t *clear;    /* compressed bytes of the segment in the making */
	uint8_t *sealed;
	uint8_t *in;       /* a stretch of the file */
	size_t in_segment; /* bytes in clear */
	uint64_t number;   /* of the segment in the making */
	uint64_t written;
	int out_fd;
};

static int write_segment(struct stream_writer *writer, bool final, struct error *error)
{
	if (sealer_seal(writer->seal.sealer, writer->number, final, writer->seal.header, writer->seal.header_length,
			writer->clear, writer->in_segment, writer->sealed))
		return error_set(error, ERR_FAILED, 0, "stream: can't seal");
	if (io_write(writer->out_fd, writer->sealed, writer->in_segment + CRYPT_TAG_BYTES) < 0)
		return error_errno(error, errno, "stream: can't write");
	writer->written += writer->in_segment + CRYPT_TAG_BYTES;
	writer->in_segment = 0;
	writer->number++;
	return 0;
}

/* Compresses input into segments. A full one is sealed only when more follows, because the last is marked as such. */
static int write_input(struct stream_writer *writer, struct compress_input *input, bool end, struct error *error)
{
	bool done = false;

	while (end ? !done : input->length > 0) {
		uint8_t overflow[1], *target = writer->clear + writer->in_segment;
		size_t room = RECORD_SEGMENT_BYTES - writer->in_segment, produced;
		bool full = room == 0;
		int status;

		/* With the segment full, one byte more proves that it is not the last. */
		if (compress_stream_step(writer->compress, input, end, full ? overflow : target,
					 full ? sizeof(overflow) : room, &produced, &done))
			return error_set(error, ERR_FAILED, 0, "stream: can't compress");
		if (full && produced > 0) {
			status = write_segment(writer, false, error);
			if (status)
				return status;
			writer->clear[0] = overflow[0];
		}
		writer->in_segment += produced;
	}
	return 0;
}

static int write_stream(struct stream_writer *writer, int in_fd, uint64_t in_length, struct error *error)
{
	uint64_t offset = 0;
	int status;

	do {
		uint64_t left = in_length - offset;
		size_t want = left < RECORD_SEGMENT_BYTES ? (size_t)left : RECORD_SEGMENT_BYTES;
		ssize_t got = io_pread(in_fd, writer->in, want, (int64_t)offset);
		struct compress_input input = {writer->in, want};

		if (got < 0)
			return error_errno(error, errno, "stream: can't read");
		if ((size_t)got != want)
			return error_set(error, ERR_FAILED, 0, "stream: the file became shorter while it was read");
		offset += want;
		status = write_input(writer, &input, offset == in_length, error);
		if (status)
			return status;
	} while (offset < in_length);
	return write_segment(writer, true, error);
}

int stream_seal(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
		const uint8_t salt[CRYPT_SALT_BYTES], const void *header, size_t header_length, int in_fd,
		uint64_t in_length, int out_fd, uint64_t *out_length, struct error *error)
{
	struct stream_writer writer = {.seal = {NULL, header, header_length}, .out_fd = out_fd};
	int status;

	writer.seal.sealer = sealer_new(master, type, object_id, salt);
	writer.compress = compress_stream_new(STREAM_LEVEL, in_length);
	writer.clear = malloc(RECORD_SEGMENT_BYTES);
	writer.sealed = malloc(SEALED_SEGMENT_BYTES);
	writer.in = malloc(RECORD_SEGMENT_BYTES);
	if (!writer.seal.sealer || !writer.compress || !writer.clear || !writer.sealed || !writer.in)
		status = error_set(error, ERR_NOMEM, 0, "stream: out of memory");
	else
		status = write_stream(&writer, in_fd, in_length, error);
	if (!status)
		*out_length = writer.written;
	sealer_free(writer.seal.sealer);
	compress_stream_free(writer.compress);
	free(writer.clear);
	free(writer.sealed);
	free(writer.in);
	return status;
}

/* ---------------------------------------------------------------- opening */

struct stream_reader {
	struct piece_context seal;
	struct decompress_stream *decompress;
	uint8_t *sealed, *clear, *out;
	uint64_t written, limit;
	int out_fd;
	bool done; /* the frame is complete */
};

static int bad_stream(struct error *error, const char *why)
{
	return error_set(error, ERR_CORRUPT, 0, "stream: %s", why);
}

/* Decompresses one authenticated segment into the file. */
static int write_clear(struct stream_reader *reader, struct compress_input *input, struct error *error)
{
	size_t produced;
	int status;

	do {
		status = decompress_stream_step(reader->decompress, input, reader->out, RECORD_SEGMENT_BYTES, &produced,
						&reader->done);
		if (status == ERR_NOMEM)
			return error_set(error, status, 0, "stream: out of memory");
		if (status)
			return bad_stream(error, "not one valid zstd frame");
		if (produced > reader->limit - reader->written)
			return bad_stream(error, "larger than it may be when decompressed");
		if (io_pwrite(reader->out_fd, reader->out, produced, (int64_t)reader->written) < 0)
			return error_errno(error, errno, "stream: can't write");
		reader->written += produced;
	} while (input->length > 0 || produced == RECORD_SEGMENT_BYTES);
	return 0;
}

static int open_segment(struct stream_reader *reader, int in_fd, int64_t offset, size_t length, uint64_t number,
			bool final, struct error *error)
{
	struct compress_input input = {reader->clear, length - CRYPT_TAG_BYTES};
	ssize_t got = io_pread(in_fd, reader->sealed, length, offset);

	if (got < 0)
		return error_errno(error, errno, "stream: can't read");
	if ((size_t)got != length)
		return bad_stream(error, "truncated");
	if (sealer_open(reader->seal.sealer, number, final, reader->seal.header, reader->seal.header_length,
			reader->sealed, length, reader->clear))
		return bad_stream(error, "fails authentication");
	return write_clear(reader, &input, error);
}

static int read_stream(struct stream_reader *reader, int in_fd, int64_t in_offset, uint64_t in_length,
		       struct error *error)
{
	uint64_t number = 0, end = (uint64_t)in_offset + in_length, at = (uint64_t)in_offset;
	int status;

	/* Where segments lie, and which is the last, follows from the length alone. */
	if (in_offset < 0 || end < in_length || end > INT64_MAX || in_length < CRYPT_TAG_BYTES)
		return bad_stream(error, "impossible length");
	do {
		uint64_t left = end - at;
		size_t length = left < SEALED_SEGMENT_BYTES ? (size_t)left : SEALED_SEGMENT_BYTES;

		if (length < CRYPT_TAG_BYTES || (length == CRYPT_TAG_BYTES && number > 0))
			return bad_stream(error, "impossible length");
		status = open_segment(reader, in_fd, (int64_t)at, length, number++, length == left, error);
		if (status)
			return status;
		at += length;
	} while (at < end);
	return reader->done ? 0 : bad_stream(error, "not one valid zstd frame");
}

int stream_open(const struct master *master, enum object_type type, const uint8_t object_id[CRYPT_ID_BYTES],
		const uint8_t salt[CRYPT_SALT_BYTES], const void *header, size_t header_length, int in_fd,
		int64_t in_offset, uint64_t in_length, int out_fd, uint64_t limit, uint64_t *out_length,
		struct error *error)
{
	struct stream_reader reader = {.seal = {NULL, header, header_length}, .limit = limit, .out_fd = out_fd};
	int status;

	reader.seal.sealer = sealer_new(master, type, object_id, salt);
	reader.decompress = decompress_stream_new();
	reader.sealed = malloc(SEALED_SEGMENT_BYTES);
	reader.clear = malloc(SEALED_SEGMENT_BYTES);
	reader.out = malloc(RECORD_SEGMENT_BYTES);
	if (!reader.seal.sealer || !reader.decompress || !reader.sealed || !reader.clear || !reader.out)
		status = error_set(error, ERR_NOMEM, 0, "stream: out of memory");
	else
		status = read_stream(&reader, in_fd, in_offset, in_length, error);
	if (!status)
		*out_length = reader.written;
	sealer_free(reader.seal.sealer);
	decompress_stream_free(reader.decompress);
	free(reader.sealed);
	free(reader.clear);
	free(reader.out);
	return status;
}

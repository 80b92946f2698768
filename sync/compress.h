/* compress: zstd, and nothing else of it outside this module. Level: 1 to 19. */
#ifndef YESTER_COMPRESS_H
#define YESTER_COMPRESS_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Largest window that a stream may ask a reader to hold: 2^27 bytes, 128 MiB. */
#define COMPRESS_WINDOW_LOG_MAX 27

/* --- One piece at once. */

/* A reusable context; one thread at a time. NULL: out of memory. */
struct compressor;
struct compressor *compressor_new(int level);
void compressor_free(struct compressor *compressor);
/* Compresses into out[0..capacity). Bytes written, or 0 when the result would not fit (then out is undefined). */
size_t compress_bytes(struct compressor *compressor, const void *data, size_t length, void *out, size_t capacity);
/* One whole frame that holds exactly `length` bytes, nothing before it and nothing after it. Any thread (the context is per thread). 0,
 * ERR_CORRUPT, ERR_NOMEM. Allocates nothing that the frame could choose the size of. */
int decompress_exact(const void *data, size_t data_length, void *out, size_t length);

/* --- Streams: one frame in pieces. One thread at a time. Memory does not depend on the length of the stream. */

/* What is left to be read; advanced by the calls below. */
struct compress_input {
	const uint8_t *data;
	size_t length;
};

struct compress_stream;
/* total: bytes that will be given in all (written to the frame). NULL: out of memory. */
struct compress_stream *compress_stream_new(int level, uint64_t total);
void compress_stream_free(struct compress_stream *stream);
/* Takes from input, puts up to capacity bytes into out, *produced of them. end: input is the last there is; call until *done. Returns 0 or ERR_FAILED
 * (also when more or fewer than `total` bytes were given). */
int compress_stream_step(struct compress_stream *stream, struct compress_input *input, bool end, void *out,
			 size_t capacity, size_t *produced, bool *done);

struct decompress_stream;
struct decompress_stream *decompress_stream_new(void);
void decompress_stream_free(struct decompress_stream *stream);
/* The reverse. *done: the frame is complete; input given after that is ERR_CORRUPT. Call again while input is left or out was filled. 0, ERR_CORRUPT, ERR_NOMEM. */
int decompress_stream_step(struct decompress_stream *stream, struct compress_input *input, void *out,
			   size_t capacity, size_t *produced, bool *done);

#endif

#include "compress.h"

#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

struct compressor {
	ZSTD_CCtx *context;
	int level;
};

struct compressor *compressor_new(int level)
{
	struct compressor *compressor = calloc(1, sizeof(*compressor));

	if (!compressor)
		return NULL;
	compressor->level = level;
	compressor->context = ZSTD_createCCtx();
	if (!compressor->context) {
		free(compressor);
		return NULL;
	}
	return compressor;
}

void compressor_free(struct compressor *compressor)
{
	if (!compressor)
		return;
	ZSTD_freeCCtx(compressor->context);
	free(compressor);
}

size_t compress_bytes(struct compressor *compressor, const void *data, size_t length, void *out, size_t capacity)
{
	size_t size = ZSTD_compressCCtx(compressor->context, out, capacity, data, length, compressor->level);

	return ZSTD_isError(size) ? 0 : size;
}

/* One decompression context a thread: making one for each chunk costs more than a small chunk does. */
static pthread_key_t context_key;
static pthread_once_t context_once = PTHREAD_ONCE_INIT;
static bool context_key_ok;

static void context_destroy(void *context)
{
	ZSTD_freeDCtx(context);
}

static void context_init(void)
{
	context_key_ok = pthread_key_create(&context_key, context_destroy) == 0;
}

static ZSTD_DCtx *thread_context(void)
{
	ZSTD_DCtx *context;

	pthread_once(&context_once, context_init);
	if (!context_key_ok)
		return NULL;
	context = pthread_getspecific(context_key);
	if (context)
		return context;
	context = ZSTD_createDCtx();
	if (context && pthread_setspecific(context_key, context)) {
		ZSTD_freeDCtx(context);
		return NULL;
	}
	return context;
}

static int decompress_error(size_t result)
{
	return ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? ERR_NOMEM : ERR_CORRUPT;
}

int decompress_exact(const void *data, size_t data_length, void *out, size_t length)
{
	ZSTD_DCtx *context;
	size_t size;

	/* ZSTD_decompressDCtx would go on to further frames, and skip those that say so; we want one and nothing else. */
	size = ZSTD_findFrameCompressedSize(data, data_length);
	if (ZSTD_isError(size) || size != data_length)
		return ERR_CORRUPT;
	context = thread_context();
	if (!context)
		return ERR_NOMEM;
	size = ZSTD_decompressDCtx(context, out, length, data, data_length);
	if (ZSTD_isError(size))
		return decompress_error(size);
	return size == length ? 0 : ERR_CORRUPT;
}

struct compress_stream {
	ZSTD_CCtx *context;
	uint64_t left; /* of the total */
};

struct compress_stream *compress_stream_new(int level, uint64_t total)
{
	struct compress_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->left = total;
	stream->context = ZSTD_createCCtx();
	if (!stream->context ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(stream->context, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(stream->context, total))) {
		compress_stream_free(stream);
		return NULL;
	}
	return stream;
}

void compress_stream_free(struct compress_stream *stream)
{
	if (!stream)
		return;
	ZSTD_freeCCtx(stream->context);
	free(stream);
}

int compress_stream_step(struct compress_stream *stream, struct compress_input *input, bool end, void *out,
			 size_t capacity, size_t *produced, bool *done)
{
	ZSTD_inBuffer in = {input->data, input->length, 0};
	ZSTD_outBuffer target = {out, capacity, 0};
	size_t left;

	/* zstd forgets the announced total when everything comes at once. */
	if (input->length > stream->left || (end && input->length < stream->left))
		return ERR_FAILED;
	left = ZSTD_compressStream2(stream->context, &target, &in, end ? ZSTD_e_end : ZSTD_e_continue);
	if (ZSTD_isError(left))
		return ERR_FAILED;
	stream->left -= in.pos;
	if (in.pos > 0) {
		input->data += in.pos;
		input->length -= in.pos;
	}
	*produced = target.pos;
	*done = end && left == 0;
	return 0;
}

struct decompress_stream {
	ZSTD_DCtx *context;
	bool done;
};

struct decompress_stream *decompress_stream_new(void)
{
	struct decompress_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->context = ZSTD_createDCtx();
	if (!stream->context || ZSTD_isError(ZSTD_DCtx_setParameter(stream->context, ZSTD_d_windowLogMax,
								    COMPRESS_WINDOW_LOG_MAX))) {
		decompress_stream_free(stream);
		return NULL;
	}
	return stream;
}

void decompress_stream_free(struct decompress_stream *stream)
{
	if (!stream)
		return;
	ZSTD_freeDCtx(stream->context);
	free(stream);
}

int decompress_stream_step(struct decompress_stream *stream, struct compress_input *input, void *out,
			   size_t capacity, size_t *produced, bool *done)
{
	ZSTD_inBuffer in = {input->data, input->length, 0};
	ZSTD_outBuffer target = {out, capacity, 0};
	size_t left;

	*produced = 0;
	*done = stream->done;
	if (stream->done)
		return input->length > 0 ? ERR_CORRUPT : 0;
	left = ZSTD_decompressStream(stream->context, &target, &in);
	if (ZSTD_isError(left))
		return decompress_error(left);
	if (in.pos > 0) {
		input->data += in.pos;
		input->length -= in.pos;
	}
	*produced = target.pos;
	*done = stream->done = left == 0;
	return 0;
}

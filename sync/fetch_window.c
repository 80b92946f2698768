#include "fetch_window.h"

#include "pool.h"
#include "record.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (UINT64_C(32) << 20)
#define RANGES_MAX 256 /* many tiny ones would take more room than their bytes, and long to search */
#define LENGTH_MIN (UINT64_C(128) << 10)
#define LENGTH_MAX (UINT64_C(4) << 20)
#define AHEAD_FROM (UINT64_C(1) << 20) /* a stream whose ranges have become so long is asked for ahead */
#define AHEAD 3                        /* ranges */
#define FORGET_BYTES (UINT64_C(16) << 20)
#define STREAMS 16
#define THREADS 4
#define HELD_MAX 16
#define NEAR_CHUNKS 8

enum range_state { RANGE_QUEUED, RANGE_FLYING, RANGE_LANDED, RANGE_FAILED };

/* Places within the object. */
struct range {
	struct range *next;        /* lock */
	struct windows *windows;
	enum range_state state;    /* lock; rc, error and bytes are constant once landed or failed */
	unsigned holders;          /* lock */
	uint64_t used;             /* lock: tick of the last use */
	struct stream *stream;     /* lock: whose it is, while stream->serial is the same */
	uint64_t serial;
	uint8_t pack_id[CRYPT_ID_BYTES];
	char key[RECORD_KEY_BYTES];
	uint64_t from, to;
	uint64_t taken;            /* lock: bytes that readers had of it */
	int rc;
	struct error error;
	struct buf bytes;
};

struct stream { /* lock */
	uint64_t serial;   /* 0: free; a stream that takes another's place has another one */
	uint8_t pack_id[CRYPT_ID_BYTES];
	uint64_t end;      /* of its last range */
	uint64_t pack_end;
	uint64_t length;   /* of the next range; 0: what is read, and no more */
	uint64_t fetched, wanted; /* bytes, of late */
	uint64_t tick;
};

struct windows {
	struct store *store;
	pthread_mutex_t lock; /* all below; a leaf, but for the pool's own */
	pthread_cond_t landed;
	struct range *ranges; /* that can be found */
	uint64_t bytes;       /* of these */
	unsigned count;       /* of these */
	uint64_t tick, serial;
	struct stream streams[STREAMS];
	struct pool *pool;    /* made when first wanted */
	bool closing;
};

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* ---------------------------------------------------------------- ranges; lock held */

static struct range **at_of(struct windows *windows, const struct range *range)
{
	struct range **at = &windows->ranges;

	while (*at != range)
		at = &(*at)->next;
	return at;
}

/* Nobody finds it any more. */
static void forget(struct windows *windows, struct range *range)
{
	*at_of(windows, range) = range->next;
	windows->bytes -= range->to - range->from;
	windows->count--;
}

static void evict(struct windows *windows, struct range *range)
{
	forget(windows, range);
	buf_free(&range->bytes);
	free(range);
}

/* What is long and was read as a whole is not kept: few read it again, and they have caches. */
static void release(struct windows *windows, struct range *range)
{
	if (--range->holders)
		return;
	if (range->state == RANGE_FAILED) {
		buf_free(&range->bytes);
		free(range);
	} else if (range->state == RANGE_LANDED && range->to - range->from >= AHEAD_FROM && range->taken >= range->to - range->from) {
		evict(windows, range);
	}
}

/* Lets the longest unused go. False: what is left is in use. */
static bool make_room(struct windows *windows, uint64_t bytes)
{
	while (windows->bytes + bytes > BYTES_MAX || windows->count >= RANGES_MAX) {
		struct range *oldest = NULL;
		for (struct range *range = windows->ranges; range; range = range->next)
			if (range->state == RANGE_LANDED && !range->holders && (!oldest || range->used < oldest->used))
				oldest = range;
		if (!oldest)
			return false;
		evict(windows, oldest);
	}
	return true;
}

/* The one that covers that byte. */
static struct range *find(struct windows *windows, const uint8_t *pack_id, uint64_t at)
{
	for (struct range *range = windows->ranges; range; range = range->next)
		if (range->from <= at && at < range->to && memcmp(range->pack_id, pack_id, CRYPT_ID_BYTES) == 0)
			return range;
	return NULL;
}

/* Where the next range behind `at` begins, if that is before `to`. */
static uint64_t clip(struct windows *windows, const uint8_t *pack_id, uint64_t at, uint64_t to)
{
	for (struct range *range = windows->ranges; range; range = range->next)
		if (range->from > at && range->from < to && memcmp(range->pack_id, pack_id, CRYPT_ID_BYTES) == 0)
			to = range->from;
	return to;
}

/* With a holder. NULL: out of memory. */
static struct range *add(struct windows *windows, const struct window_place *place, struct stream *stream, uint64_t from, uint64_t to,
			 enum range_state state)
{
	struct range *range = calloc(1, sizeof(*range));

	if (!range)
		return NULL;
	range->windows = windows;
	range->state = state;
	range->holders = 1;
	range->used = ++windows->tick;
	range->stream = stream;
	range->serial = stream->serial;
	memcpy(range->pack_id, place->pack_id, CRYPT_ID_BYTES);
	strncpy(range->key, place->key, sizeof(range->key) - 1);
	range->from = from;
	range->to = to;
	range->next = windows->ranges;
	windows->ranges = range;
	windows->bytes += to - from;
	windows->count++;
	stream->end = max_u64(stream->end, to);
	stream->fetched += to - from;
	return range;
}

/* ---------------------------------------------------------------- streams; lock held */

static struct stream *new_stream(struct windows *windows, const struct window_place *place, uint64_t at)
{
	struct stream *oldest = &windows->streams[0], *ended = NULL;

	for (struct stream *stream = windows->streams; stream < windows->streams + STREAMS; stream++) {
		if (stream->tick < oldest->tick)
			oldest = stream;
		if (stream->serial && stream->pack_end - stream->end <= stream->length && (!ended || stream->tick > ended->tick))
			ended = stream;
	}
	/* Who has read a pack to its end goes on at the beginning of another. */
	if (ended && at - place->from <= LENGTH_MIN) {
		ended->length /= 2;
		oldest = ended;
	} else {
		*oldest = (struct stream){0};
	}
	oldest->serial = ++windows->serial;
	memcpy(oldest->pack_id, place->pack_id, CRYPT_ID_BYTES);
	oldest->pack_end = place->to;
	oldest->end = at;
	return oldest;
}

/* The one that a read of [at, end) goes on with: shortly behind its end, or before it in what was left out, because several threads read for one reader, each its chunk. */
static struct stream *find_stream(struct windows *windows, const struct window_place *place, uint64_t at, uint64_t end)
{
	for (struct stream *stream = windows->streams; stream < windows->streams + STREAMS; stream++) {
		uint64_t near = max_u64(max_u64(stream->length, LENGTH_MIN), NEAR_CHUNKS * (end - at));
		uint64_t distance = at >= stream->end ? at - stream->end : stream->end - at;
		if (stream->serial && distance <= near && memcmp(stream->pack_id, place->pack_id, CRYPT_ID_BYTES) == 0)
			return stream;
	}
	return NULL;
}

/* At least that part of what a reader at `at` has passed was wanted. */
static bool is_wanted(const struct stream *stream, uint64_t at, uint64_t part)
{
	uint64_t before = at < stream->end ? stream->end - at : 0;

	return stream->fetched <= before || stream->wanted >= (stream->fetched - before) / part;
}

/* The length of the next range, after the first. */
static void adapt(struct stream *stream)
{
	if (is_wanted(stream, stream->end, 2))
		stream->length = min_u64(max_u64(2 * stream->length, LENGTH_MIN), LENGTH_MAX);
	else if (is_wanted(stream, stream->end, 4))
		stream->length = max_u64(stream->length / 2, LENGTH_MIN);
	else
		stream->length = 0;
	if (stream->fetched > FORGET_BYTES) {
		stream->fetched /= 2;
		stream->wanted /= 2;
	}
}

/* Nothing covers `at`, which is wanted, and bytes behind it up to `end`. */
static struct range *miss(struct windows *windows, const struct window_place *place, uint64_t at, uint64_t end)
{
	struct stream *stream = find_stream(windows, place, at, end);
	uint64_t to;

	if (stream)
		adapt(stream);
	else
		stream = new_stream(windows, place, at);
	to = max_u64(end, min_u64(at + stream->length, place->to));
	to = clip(windows, place->pack_id, at, to);
	if (!make_room(windows, to - at))
		to = clip(windows, place->pack_id, at, end);
	return add(windows, place, stream, at, to, RANGE_FLYING);
}

static void fly_ahead(void *arg);

/* Several ranges, but not many times more than was read so far: who reads the beginning of a file only shall not have all of it sent. */
static bool is_ahead_enough(const struct stream *stream, uint64_t at)
{
	uint64_t ahead = stream->end - at;

	return ahead >= AHEAD * stream->length || ahead >= 2 * stream->wanted || stream->end >= stream->pack_end;
}

/* The ranges that the readers of this stream will want next. `at`: where one of them is. */
static void ask_ahead(struct windows *windows, const struct window_place *place, struct stream *stream, uint64_t at)
{
	while (stream->length >= AHEAD_FROM && stream->end >= at && is_wanted(stream, at, 2) && !is_ahead_enough(stream, at)) {
		uint64_t from = stream->end, to = min_u64(from + stream->length, stream->pack_end);
		to = clip(windows, place->pack_id, from, to);
		if (find(windows, place->pack_id, from) || !make_room(windows, to - from))
			return;
		if (!windows->pool)
			windows->pool = pool_new(THREADS, "yester-fetch", THREADS * AHEAD);
		struct range *range = windows->pool ? add(windows, place, stream, from, to, RANGE_QUEUED) : NULL;
		if (!range)
			return;
		if (pool_submit(windows->pool, fly_ahead, range)) {
			stream->end = from;
			stream->fetched -= to - from;
			evict(windows, range);
			return;
		}
		stream->length = min_u64(2 * stream->length, LENGTH_MAX);
	}
}

/* ---------------------------------------------------------------- asking the store */

/* Lock held. Where long answers don't arrive, or there is nothing to answer with, the streams of that pack begin anew with short ones: who tries once more gets what can be had. */
static void fall_back(struct windows *windows, const struct range *range)
{
	for (struct stream *stream = windows->streams; stream < windows->streams + STREAMS; stream++)
		if (memcmp(stream->pack_id, range->pack_id, CRYPT_ID_BYTES) == 0)
			stream->length = 0;
	if (range->stream->serial == range->serial)
		range->stream->fetched -= min_u64(range->stream->fetched, range->to - range->from);
}

static void fly(struct windows *windows, struct range *range)
{
	struct error error = {0};
	struct buf bytes = {0};
	int rc = store_get(windows->store, range->key, range->from, range->to - range->from, &bytes, &error);

	if (!rc && bytes.length != range->to - range->from)
		rc = error_set(&error, ERR_RETRY, 0, "%s: %zu bytes instead of %llu", range->key, bytes.length,
			       (unsigned long long)(range->to - range->from));
	pthread_mutex_lock(&windows->lock);
	if (rc)
		fall_back(windows, range);
	range->rc = rc;
	range->error = error;
	range->bytes = bytes;
	range->state = rc ? RANGE_FAILED : RANGE_LANDED;
	if (rc)
		forget(windows, range);
	pthread_cond_broadcast(&windows->landed);
	pthread_mutex_unlock(&windows->lock);
}

static void fly_ahead(void *arg)
{
	struct range *range = arg;
	struct windows *windows = range->windows;

	pthread_mutex_lock(&windows->lock);
	bool mine = range->state == RANGE_QUEUED;
	if (mine && windows->closing) {
		range->state = RANGE_FAILED;
		range->rc = ERR_ABANDONED;
		forget(windows, range);
		mine = false;
	}
	if (mine)
		range->state = RANGE_FLYING;
	pthread_mutex_unlock(&windows->lock);
	if (mine)
		fly(windows, range);
	pthread_mutex_lock(&windows->lock);
	release(windows, range);
	pthread_mutex_unlock(&windows->lock);
}

/* ---------------------------------------------------------------- reading */

struct reading {
	struct range *held[HELD_MAX];
	bool mine[HELD_MAX]; /* the caller's to ask for */
	size_t count;
};

/* Lock held. What covers [at, end), in order; false: too many pieces, or no memory. */
static bool hold_all(struct windows *windows, const struct window_place *place, uint64_t at, uint64_t end, struct reading *reading)
{
	while (at < end) {
		struct range *range = reading->count < HELD_MAX ? find(windows, place->pack_id, at) : NULL;
		bool mine = !range;
		if (reading->count == HELD_MAX)
			return false;
		if (range) {
			range->holders++;
			mine = range->state == RANGE_QUEUED;
			if (mine)
				range->state = RANGE_FLYING;
		} else {
			range = miss(windows, place, at, end);
			if (!range)
				return false;
		}
		range->used = ++windows->tick;
		reading->mine[reading->count] = mine;
		reading->held[reading->count++] = range;
		at = range->to;
	}
	return true;
}

/* Lock held. */
static void note_use(struct windows *windows, const struct window_place *place, const struct reading *reading, uint64_t offset, uint64_t end)
{
	struct range *last = reading->held[reading->count - 1];
	struct stream *stream = last->stream;

	for (size_t i = 0; i < reading->count; i++) {
		struct range *range = reading->held[i];
		range->taken += min_u64(range->to, end) - max_u64(range->from, offset);
	}
	if (stream->serial != last->serial)
		return;
	stream->wanted += end - offset;
	stream->tick = windows->tick;
	ask_ahead(windows, place, stream, end);
}

/* All have landed or failed. Of one range the bytes are given as they are, and it stays held. */
static int take(struct reading *reading, uint64_t offset, uint64_t end, struct window_bytes *out, struct error *error)
{
	int rc = 0;

	for (size_t i = 0; i < reading->count && !rc; i++) {
		const struct range *range = reading->held[i];
		uint64_t from = max_u64(range->from, offset), to = min_u64(range->to, end);
		if (range->rc)
			rc = error_set(error, range->rc, range->error.sys_errno, "%s", range->error.message);
		else if (reading->count > 1 && buf_append(&out->own, range->bytes.data + (from - range->from), to - from))
			rc = error_set(error, ERR_NOMEM, 0, "%s: out of memory", range->key);
	}
	if (!rc && reading->count == 1) {
		out->range = reading->held[--reading->count];
		out->data = out->range->bytes.data + (offset - out->range->from);
	} else {
		out->data = out->own.data;
	}
	return rc;
}

/* Those that are the caller's are asked for; the others come. */
static void await(struct windows *windows, const struct reading *reading)
{
	for (size_t i = 0; i < reading->count; i++)
		if (reading->mine[i])
			fly(windows, reading->held[i]);
	pthread_mutex_lock(&windows->lock);
	for (size_t i = 0; i < reading->count; i++)
		while (reading->held[i]->state < RANGE_LANDED)
			pthread_cond_wait(&windows->landed, &windows->lock);
	pthread_mutex_unlock(&windows->lock);
}

int windows_read(struct windows *windows, const struct window_place *place, uint64_t offset, size_t length, struct window_bytes *out,
		 struct error *error)
{
	struct reading reading = {.count = 0};
	int rc;

	pthread_mutex_lock(&windows->lock);
	bool covered = hold_all(windows, place, offset, offset + length, &reading);
	if (covered)
		note_use(windows, place, &reading, offset, offset + length);
	pthread_mutex_unlock(&windows->lock);
	await(windows, &reading);
	if (covered) {
		rc = take(&reading, offset, offset + length, out, error);
	} else {
		rc = store_get(windows->store, place->key, offset, length, &out->own, error);
		out->data = out->own.data;
	}
	pthread_mutex_lock(&windows->lock);
	for (size_t i = 0; i < reading.count; i++)
		release(windows, reading.held[i]);
	pthread_mutex_unlock(&windows->lock);
	return rc;
}

void windows_release(struct windows *windows, struct window_bytes *bytes)
{
	if (bytes->range) {
		pthread_mutex_lock(&windows->lock);
		release(windows, bytes->range);
		pthread_mutex_unlock(&windows->lock);
	}
	buf_free(&bytes->own);
	*bytes = (struct window_bytes){0};
}

/* ---------------------------------------------------------------- life */

struct windows *windows_new(struct store *store)
{
	struct windows *windows = calloc(1, sizeof(*windows));

	if (!windows)
		return NULL;
	windows->store = store;
	pthread_mutex_init(&windows->lock, NULL);
	pthread_cond_init(&windows->landed, NULL);
	return windows;
}

void windows_free(struct windows *windows)
{
	if (!windows)
		return;
	pthread_mutex_lock(&windows->lock);
	windows->closing = true;
	pthread_mutex_unlock(&windows->lock);
	pool_free(windows->pool);
	while (windows->ranges)
		evict(windows, windows->ranges);
	pthread_cond_destroy(&windows->landed);
	pthread_mutex_destroy(&windows->lock);
	free(windows);
}

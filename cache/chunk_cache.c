#include "chunk_cache.h"

#include "backing.h"
#include "bytes.h"
#include "clock.h"
#include "io.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES 4096
#define BUCKETS 16384 /* power of two; 1 GiB of chunks of 64 KiB */
#define STAMP_NS (600 * NS_PER_S) /* a file's mtime is renewed when older */
#define TMP_PREFIX "tmp-"
#define NAME_BYTES (3 + 2 * CHUNK_ID_BYTES + 1) /* hh/hex */

struct entry {
	struct entry *next_in_bucket;
	struct entry *newer, *older;
	int64_t stamp_ns;
	uint64_t bytes;
	uint8_t id[CHUNK_ID_BYTES];
};

struct chunk_cache {
	int fd;         /* the directory */
	uint64_t limit; /* bytes */
	pthread_mutex_t lock; /* all below; held across the first look at the directory, never across other I/O */
	bool scanned;
	uint64_t bytes;
	struct entry *newest, *oldest;
	struct entry *buckets[BUCKETS];
};

static void name_of(char out[NAME_BYTES], const uint8_t id[CHUNK_ID_BYTES])
{
	hex_encode(out, id, 1);
	out[2] = '/';
	hex_encode(out + 3, id, CHUNK_ID_BYTES);
}

static uint64_t blocks(uint64_t length) { return (length + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES; }

/* --- The index. Names ending in _locked: the lock must be held. --- */

static struct entry **find_locked(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES])
{
	struct entry **at = &cache->buckets[get_u32(id) & (BUCKETS - 1)]; /* ids are uniformly distributed */

	while (*at && memcmp((*at)->id, id, CHUNK_ID_BYTES) != 0)
		at = &(*at)->next_in_bucket;
	return at;
}

static void unlink_locked(struct chunk_cache *cache, struct entry *entry)
{
	*(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
	*(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void link_newest_locked(struct chunk_cache *cache, struct entry *entry)
{
	entry->newer = NULL;
	entry->older = cache->newest;
	*(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
	cache->newest = entry;
}

static void add_locked(struct chunk_cache *cache, struct entry *entry)
{
	struct entry **bucket = find_locked(cache, entry->id);

	entry->next_in_bucket = *bucket;
	*bucket = entry;
	link_newest_locked(cache, entry);
	cache->bytes += entry->bytes;
}

static struct entry *remove_locked(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES])
{
	struct entry **at = find_locked(cache, id), *entry = *at;

	if (!entry)
		return NULL;
	*at = entry->next_in_bucket;
	unlink_locked(cache, entry);
	cache->bytes -= entry->bytes;
	return entry;
}

/* What has to go to meet a limit, as a list by next_in_bucket: the files are removed without the lock. A put of the same chunk in between may lose its
 * file to that; a get then finds none. */
static struct entry *evict_locked(struct chunk_cache *cache, uint64_t limit)
{
	struct entry *list = NULL;

	while (cache->bytes > limit && cache->oldest) {
		struct entry *entry = remove_locked(cache, cache->oldest->id);
		entry->next_in_bucket = list;
		list = entry;
	}
	return list;
}

static void remove_files(struct chunk_cache *cache, struct entry *list)
{
	while (list) {
		struct entry *next = list->next_in_bucket;
		char name[NAME_BYTES];
		name_of(name, list->id);
		unlinkat(cache->fd, name, 0);
		free(list);
		list = next;
	}
}

/* --- The first look --- */

struct found {
	struct entry **list;
	size_t count, room;
};

static void found_add(struct found *found, const uint8_t id[CHUNK_ID_BYTES], const struct stat *st)
{
	if (found->count == found->room) {
		size_t room = found->room ? found->room * 2 : 256;
		struct entry **list = reallocarray(found->list, room, sizeof(*list));
		if (!list)
			return;
		found->list = list;
		found->room = room;
	}
	struct entry *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return;
	memcpy(entry->id, id, CHUNK_ID_BYTES);
	entry->bytes = blocks((uint64_t)st->st_size);
	entry->stamp_ns = timespec_ns(st->st_mtim);
	found->list[found->count++] = entry;
}

/* One of the 256 directories. What is not a chunk of ours is left alone. */
static void look_into(struct chunk_cache *cache, const char *hh, struct found *found)
{
	int fd = openat(cache->fd, hh, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *item;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((item = readdir(dir))) {
		uint8_t id[CHUNK_ID_BYTES];
		char name[NAME_BYTES];
		struct stat st;
		if (strlen(item->d_name) != 2 * CHUNK_ID_BYTES || !hex_decode(id, sizeof(id), item->d_name))
			continue;
		name_of(name, id);
		if (strcmp(name + 3, item->d_name) != 0 || memcmp(name, hh, 2) != 0)
			continue;
		if (fstatat(fd, item->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			found_add(found, id, &st);
	}
	closedir(dir);
}

static void remove_leftovers(struct chunk_cache *cache)
{
	int fd = openat(cache->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *item;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((item = readdir(dir)))
		if (strncmp(item->d_name, TMP_PREFIX, strlen(TMP_PREFIX)) == 0)
			unlinkat(cache->fd, item->d_name, 0);
	closedir(dir);
}

static int by_stamp(const void *a, const void *b)
{
	int64_t x = (*(struct entry *const *)a)->stamp_ns, y = (*(struct entry *const *)b)->stamp_ns;

	return (x > y) - (x < y);
}

static void scan_locked(struct chunk_cache *cache)
{
	struct found found = {0};
	char hh[3];

	if (cache->scanned)
		return;
	cache->scanned = true;
	remove_leftovers(cache);
	for (unsigned i = 0; i < 256; i++) {
		snprintf(hh, sizeof(hh), "%02x", i);
		look_into(cache, hh, &found);
	}
	if (found.count)
		qsort(found.list, found.count, sizeof(struct entry *), by_stamp);
	for (size_t i = 0; i < found.count; i++)
		add_locked(cache, found.list[i]);
	free(found.list);
	remove_files(cache, evict_locked(cache, cache->limit));
}

/* --- Interface --- */

int chunk_cache_open(const char *path, uint64_t limit_bytes, struct chunk_cache **out, struct error *error)
{
	*out = NULL;
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return error_errno(error, errno, "%s", path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(error, errno, "%s", path);
	struct chunk_cache *cache = calloc(1, sizeof(*cache));
	if (!cache) {
		close(fd);
		return error_errno(error, ENOMEM, "%s", path);
	}
	cache->fd = fd;
	cache->limit = limit_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	*out = cache;
	return 0;
}

void chunk_cache_close(struct chunk_cache *cache)
{
	if (!cache)
		return;
	for (struct entry *entry = cache->newest, *older; entry; entry = older) {
		older = entry->older;
		free(entry);
	}
	pthread_mutex_destroy(&cache->lock);
	close(cache->fd);
	free(cache);
}

/* Moves to the front. *stamp: its mtime should be renewed. */
static bool touch(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES], bool *stamp)
{
	int64_t now = clock_wall_ns();

	pthread_mutex_lock(&cache->lock);
	scan_locked(cache);
	struct entry *entry = *find_locked(cache, id);
	*stamp = entry && now - entry->stamp_ns > STAMP_NS;
	if (entry) {
		unlink_locked(cache, entry);
		link_newest_locked(cache, entry);
		if (*stamp)
			entry->stamp_ns = now;
	}
	pthread_mutex_unlock(&cache->lock);
	return entry != NULL;
}

static int read_chunk(int fd, size_t length, struct buf *out)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return ERR_FAILED;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != length)
		return ERR_ABSENT;
	if (buf_reserve(out, length))
		return ERR_NOMEM;
	ssize_t got = io_pread(fd, out->data + out->length, length, 0);
	if (got < 0)
		return ERR_FAILED;
	if ((size_t)got != length)
		return ERR_ABSENT;
	out->length += length;
	return 0;
}

int chunk_cache_get(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES], size_t length, struct buf *out)
{
	char name[NAME_BYTES];
	bool stamp;

	if (!touch(cache, id, &stamp))
		return ERR_ABSENT;
	name_of(name, id);
	int fd = openat(cache->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc = fd >= 0 ? read_chunk(fd, length, out) : errno == ENOENT ? ERR_ABSENT : ERR_FAILED;
	if (!rc && stamp)
		futimens(fd, NULL);
	if (fd >= 0)
		close(fd);
	if (rc == ERR_ABSENT)
		chunk_cache_drop(cache, id);
	return rc;
}

static int write_file(struct chunk_cache *cache, const char *name, const void *data, size_t length)
{
	char tmp[sizeof(TMP_PREFIX) + 16], directory[3] = {name[0], name[1], 0};
	uint8_t random[8];

	io_random(random, sizeof(random));
	strcpy(tmp, TMP_PREFIX);
	hex_encode(tmp + strlen(tmp), random, sizeof(random));
	int fd = openat(cache->fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	int rc = io_write(fd, data, length);
	if (close(fd) != 0)
		rc = -1;
	if (!rc)
		rc = renameat(cache->fd, tmp, cache->fd, name);
	if (rc && errno == ENOENT && mkdirat(cache->fd, directory, 0700) == 0)
		rc = renameat(cache->fd, tmp, cache->fd, name);
	if (rc)
		unlinkat(cache->fd, tmp, 0);
	return rc;
}

void chunk_cache_put(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES], const void *data, size_t length)
{
	char name[NAME_BYTES];
	bool ignored;

	if (!length || length > cache->limit / 8 || touch(cache, id, &ignored) ||
	    backing_free_above_reserve(cache->fd) <= length) /* I13 */
		return;
	struct entry *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return;
	memcpy(entry->id, id, CHUNK_ID_BYTES);
	entry->bytes = blocks(length);
	entry->stamp_ns = clock_wall_ns();
	name_of(name, id);
	if (write_file(cache, name, data, length) != 0) {
		log_debug("chunk cache: a chunk of %zu bytes is not kept: %s", length, strerror(errno));
		free(entry);
		return;
	}
	pthread_mutex_lock(&cache->lock);
	if (*find_locked(cache, id))
		free(entry); /* somebody else was faster, with the same bytes */
	else
		add_locked(cache, entry);
	struct entry *evicted = evict_locked(cache, cache->limit);
	pthread_mutex_unlock(&cache->lock);
	remove_files(cache, evicted);
}

void chunk_cache_drop(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES])
{
	pthread_mutex_lock(&cache->lock);
	scan_locked(cache);
	struct entry *entry = remove_locked(cache, id);
	pthread_mutex_unlock(&cache->lock);
	if (entry)
		entry->next_in_bucket = NULL;
	remove_files(cache, entry);
}

uint64_t chunk_cache_yield(struct chunk_cache *cache, uint64_t bytes)
{
	pthread_mutex_lock(&cache->lock);
	scan_locked(cache);
	uint64_t before = cache->bytes;
	struct entry *evicted = evict_locked(cache, before > bytes ? before - bytes : 0);
	uint64_t gone = before - cache->bytes;
	pthread_mutex_unlock(&cache->lock);
	remove_files(cache, evicted);
	return gone;
}

uint64_t chunk_cache_bytes(struct chunk_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	scan_locked(cache);
	uint64_t bytes = cache->bytes;
	pthread_mutex_unlock(&cache->lock);
	return bytes;
}

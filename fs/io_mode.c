#include "io_mode.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SHARDS 64
#define BUCKETS 64 /* of a shard: more files open at once make longer chains, nothing worse */
#define REMEMBERED 64 /* of a shard */

struct entry { /* an inode that is open, or held */
	struct entry *next;
	uint64_t nodeid;
	size_t opens, writers, both; /* both: for reading and writing */
	enum io_mode mode;
	int backing_id;
	bool held;
	size_t waiting; /* for io_mode_resume */
};

struct memory { /* of an inode that was closed */
	uint64_t nodeid; /* 0: none */
	bool warm;
	bool prefers_cached;
};

struct shard {
	pthread_mutex_t lock; /* all of the shard */
	pthread_cond_t resumed;
	struct entry *buckets[BUCKETS];
	struct memory remembered[REMEMBERED]; /* by nodeid, the newest wins */
	size_t count;
};

struct io_table {
	const struct io_mode_backing *backing;
	atomic_bool passthrough;
	atomic_bool uncached; /* since when an inode was opened otherwise than cached; before that nothing can be stale */
	struct shard shards[SHARDS];
};

/* ---------------------------------------------------------------- table */

struct io_table *io_table_new(const struct io_mode_backing *backing)
{
	struct io_table *table = calloc(1, sizeof(*table));

	for (int i = 0; table && i < SHARDS; i++) {
		pthread_mutex_init(&table->shards[i].lock, NULL);
		pthread_cond_init(&table->shards[i].resumed, NULL);
	}
	if (table)
		table->backing = backing;
	return table;
}

void io_table_free(struct io_table *table)
{
	for (int i = 0; table && i < SHARDS; i++) {
		struct shard *shard = &table->shards[i];
		for (int j = 0; j < BUCKETS; j++) {
			for (struct entry *entry = shard->buckets[j], *next; entry; entry = next) {
				next = entry->next;
				free(entry);
			}
		}
		pthread_cond_destroy(&shard->resumed);
		pthread_mutex_destroy(&shard->lock);
	}
	free(table);
}

void io_table_allow(struct io_table *table, bool passthrough)
{
	atomic_store(&table->passthrough, passthrough);
}

static struct shard *lock_shard(struct io_table *table, uint64_t nodeid)
{
	struct shard *shard = &table->shards[nodeid % SHARDS];

	pthread_mutex_lock(&shard->lock);
	return shard;
}

static struct entry **bucket_of(struct shard *shard, uint64_t nodeid)
{
	return &shard->buckets[nodeid / SHARDS % BUCKETS];
}

/* The lock must be held for all of these. */
static struct entry *find(struct shard *shard, uint64_t nodeid)
{
	struct entry *entry = *bucket_of(shard, nodeid);

	while (entry && entry->nodeid != nodeid)
		entry = entry->next;
	return entry;
}

static struct entry *find_or_add(struct shard *shard, uint64_t nodeid)
{
	struct entry *entry = find(shard, nodeid);

	if (entry || !(entry = calloc(1, sizeof(*entry))))
		return entry;
	entry->nodeid = nodeid;
	entry->next = *bucket_of(shard, nodeid);
	*bucket_of(shard, nodeid) = entry;
	shard->count++;
	return entry;
}

static void drop_unused(struct shard *shard, struct entry *entry)
{
	struct entry **link = bucket_of(shard, entry->nodeid);

	if (entry->opens > 0 || entry->held || entry->waiting > 0)
		return;
	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	shard->count--;
	free(entry);
}

static struct memory *memory_of(struct shard *shard, uint64_t nodeid)
{
	return &shard->remembered[nodeid / SHARDS % REMEMBERED];
}

static struct memory recall(struct shard *shard, uint64_t nodeid)
{
	const struct memory *memory = memory_of(shard, nodeid);

	return memory->nodeid == nodeid ? *memory : (struct memory){.nodeid = nodeid};
}

static bool can_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

/* So that it can store through a mapping: mmap(2) wants a descriptor that can be read. */
static bool can_map(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY && (flags & O_ACCMODE) != O_WRONLY;
}

/* ---------------------------------------------------------------- the choice */

/* By the access that the first open asks for. Measured on Linux 6.18, tmpfs, libfuse's own loop; passthrough / cached, native in brackets:
 *   read-only   passthrough: the first read of a file 4.4 / 2.5 GB/s [4.1], through a mapping 12 / 2.6 [11]; 4 KiB at random 0.80 / 0.84 M/s [0.84]; open, read and close of files of 4 KiB 19 / 6.5 k/s
 *               the first time, 20 / 23 from then on (two ioctls against no read); from 256 KiB on it is faster at any time, and memory is used once
 *   write-only  passthrough: without a copy in the kernel's pages 1 MiB writes 1.7 / 1.2 GB/s [3.1], 4 KiB 20 / 17.5 k/s, new files of 4 KiB 4.5 / 3.7 k/s; nobody can map through it
 *   both        cached: reads of 4 KiB are direct otherwise, 0.02 / 0.86 M/s, for writes the same; stores of every mapping are seen. What databases do
 * One that was opened for both with something in it is cached from then on: the next may come while it is read only. */
static enum io_mode choose(const struct io_open *open, const struct memory *memory)
{
	if (open->plain || memory->prefers_cached)
		return IO_CACHED;
	return can_map(open->flags) ? IO_CACHED : IO_PASSTHROUGH;
}

/* The first open. */
static void begin(struct io_table *table, struct shard *shard, struct entry *entry, struct io_open *open)
{
	struct memory memory = recall(shard, open->nodeid);
	bool possible = atomic_load(&table->passthrough), suspect = table->backing->suspect(table->backing->context, open->node);

	bool untouched = memory.warm || open->fresh || !atomic_load(&table->uncached); /* by passthrough */

	entry->mode = suspect ? IO_PASSTHROUGH : possible ? choose(open, &memory) : IO_CACHED;
	if (entry->mode == IO_CACHED && possible && !untouched && !open->plain && table->backing->in_use(table->backing->context, open->node, open->fd))
		entry->mode = IO_PASSTHROUGH;
	if (entry->mode == IO_PASSTHROUGH) {
		int id = possible ? table->backing->open(table->backing->context, open->path_fd) : -EOPNOTSUPP;
		if (id > 0)
			entry->backing_id = id;
		else
			entry->mode = suspect ? IO_DIRECT : IO_CACHED;
	}
	if (entry->mode != IO_CACHED)
		atomic_store(&table->uncached, true);
	/* Nobody has it open: its pages are neither locked nor dirty, and who comes next waits for the shard's lock. */
	else if (!untouched)
		table->backing->drop(table->backing->context, open->nodeid);
	open->keep_cache = entry->mode == IO_CACHED;
	if (entry->mode != IO_CACHED && memory.warm) {
		memory.warm = false;
		*memory_of(shard, open->nodeid) = memory;
	}
}

static void answer(const struct entry *entry, struct io_open *open)
{
	bool writes = can_write(open->flags);
	/* The kernel reads the backing file with the flags of the open (backing_file_read_iter() of Linux 6.18 goes by that file's f_flags): O_DIRECT that fcntl(2) takes away later would stay, and refuse what is
	 * not aligned. */
	bool sent = writes || open->flags & O_DIRECT;

	open->mode = entry->mode;
	open->backing_id = entry->backing_id;
	open->direct = entry->mode == IO_DIRECT || (entry->mode == IO_PASSTHROUGH && sent);
	open->parallel = open->direct && writes && !can_map(open->flags);
	open->risky = entry->mode == IO_PASSTHROUGH && can_map(open->flags);
}

/* ---------------------------------------------------------------- opens */

void io_mode_look(struct io_table *table, const struct node *node, uint64_t nodeid, int flags)
{
	if (!atomic_load(&table->passthrough) || !atomic_load(&table->uncached))
		return;
	struct shard *shard = lock_shard(table, nodeid);
	const struct entry *entry = find(shard, nodeid);
	if ((!entry || entry->opens == 0) && (can_map(flags) || recall(shard, nodeid).prefers_cached)) /* else it will not be cached */
		table->backing->look(table->backing->context, node);
	pthread_mutex_unlock(&shard->lock);
}

int io_mode_enter(struct io_table *table, struct io_open *open)
{
	struct shard *shard = lock_shard(table, open->nodeid);
	struct entry *entry = find_or_add(shard, open->nodeid);

	if (!entry) {
		pthread_mutex_unlock(&shard->lock);
		return -ENOMEM;
	}
	entry->waiting++;
	while (entry->held && can_write(open->flags))
		pthread_cond_wait(&shard->resumed, &shard->lock);
	entry->waiting--;
	open->keep_cache = entry->mode == IO_CACHED;
	if (entry->opens++ == 0)
		begin(table, shard, entry, open);
	entry->writers += can_write(open->flags);
	entry->both += can_map(open->flags);
	answer(entry, open);
	if (open->risky || (open->filled && can_map(open->flags))) {
		struct memory memory = recall(shard, open->nodeid);
		memory.prefers_cached = true;
		*memory_of(shard, open->nodeid) = memory;
	}
	pthread_mutex_unlock(&shard->lock);
	return 0;
}

bool io_mode_leave(struct io_table *table, uint64_t nodeid, int flags)
{
	struct shard *shard = lock_shard(table, nodeid);
	struct entry *entry = find(shard, nodeid);
	bool last;
	int id = 0;

	assert(entry && entry->opens > 0 && entry->writers >= can_write(flags));
	entry->writers -= can_write(flags);
	entry->both -= can_map(flags);
	last = can_write(flags) && entry->writers == 0;
	if (--entry->opens == 0) {
		id = entry->backing_id;
		entry->backing_id = 0;
		if (entry->mode == IO_CACHED) {
			struct memory memory = recall(shard, nodeid);
			memory.warm = true;
			*memory_of(shard, nodeid) = memory;
		}
		drop_unused(shard, entry);
	}
	pthread_mutex_unlock(&shard->lock);
	if (id > 0)
		table->backing->close(table->backing->context, id);
	return last;
}

bool io_mode_may_store(struct io_table *table, uint64_t nodeid)
{
	struct shard *shard = lock_shard(table, nodeid);
	const struct entry *entry = find(shard, nodeid);
	bool may = entry && entry->mode != IO_PASSTHROUGH && entry->both > 0;

	pthread_mutex_unlock(&shard->lock);
	return may;
}

/* ---------------------------------------------------------------- holding */

bool io_mode_hold(struct io_table *table, uint64_t nodeid)
{
	struct shard *shard = lock_shard(table, nodeid);
	struct entry *entry = find_or_add(shard, nodeid);
	bool held = entry && entry->writers == 0;

	if (held)
		entry->held = true;
	pthread_mutex_unlock(&shard->lock);
	return held;
}

void io_mode_resume(struct io_table *table, uint64_t nodeid)
{
	struct shard *shard = lock_shard(table, nodeid);
	struct entry *entry = find(shard, nodeid);

	entry->held = false;
	pthread_cond_broadcast(&shard->resumed);
	drop_unused(shard, entry);
	pthread_mutex_unlock(&shard->lock);
}

size_t io_table_count(struct io_table *table)
{
	size_t count = 0;

	for (int i = 0; i < SHARDS; i++) {
		struct shard *shard = lock_shard(table, (uint64_t)i);
		count += shard->count;
		pthread_mutex_unlock(&shard->lock);
	}
	return count;
}

#include "stress_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void unmap(struct map *map)
{
	if (map->bytes && munmap(map->bytes, (size_t)map->length) != 0)
		fail("munmap: %s", strerror(errno));
	map->bytes = NULL;
}

void unmap_all(void)
{
	for (int i = 0; i < MAX_MAPS; i++)
		unmap(&w.maps[i]);
}

/* A mapping; its file is perhaps closed at once. It may lie beyond the end: that part is not touched before the file has grown. */
void do_map(void)
{
	struct file *file = pick(READ);
	struct map *map = &w.maps[below(MAX_MAPS)];
	bool writable = (file->flags & O_ACCMODE) == O_RDWR && chance(70);
	int protection = PROT_READ | (writable ? PROT_WRITE : 0);
	int64_t offset = chance(50) ? 0 : below(STRESS_SIZE) / STRESS_PAGE * STRESS_PAGE, length = (1 + below(40)) * STRESS_PAGE;

	unmap(map);
	if (length > STRESS_SIZE - offset)
		length = STRESS_SIZE - offset;
	void *bytes = mmap(NULL, (size_t)length, protection, writable || chance(60) ? MAP_SHARED : MAP_PRIVATE, file->fd, offset);
	if (bytes == MAP_FAILED)
		fail_at(file->slot, offset, offset + length, "mmap of a file opened with %#o, protection %d: %s", (unsigned)file->flags, protection,
			strerror(errno));
	*map = (struct map){bytes, file->slot, protection, file->generation, offset, length};
	if (chance(50))
		close_file(file);
}

/* One that is there, with its shape locked, and a range of the file within it and within the file; NULL: none. */
static struct map *enter_map(int protection, int64_t *from, int64_t *to, enum standing *now)
{
	struct map *map = NULL;
	int at = (int)below(MAX_MAPS);

	for (int i = 0; i < MAX_MAPS && !map; i++) {
		struct map *one = &w.maps[(at + i) % MAX_MAPS];
		if (one->bytes && (one->protection & protection) == protection)
			map = one;
	}
	if (!map)
		return NULL;
	stress_lock_shape(w.locks, map->slot, false);
	*now = standing(map->slot, map->generation);
	int64_t end = image_of(map->slot, map->generation)->size;
	if (end > map->offset + map->length)
		end = map->offset + map->length;
	if (*now == UNKNOWN || end <= map->offset) {
		stress_unlock(w.locks, map->slot);
		if (*now == UNKNOWN)
			unmap(map);
		return NULL;
	}
	choose_range(end - map->offset, false, from, to);
	*from += map->offset;
	*to += map->offset;
	return map;
}

void do_load(void)
{
	enum standing now;
	int64_t from, to;

	struct map *map = enter_map(PROT_READ, &from, &to, &now);
	if (!map)
		return;
	stress_lock_bytes(w.locks, map->slot, from, to, false);
	compare("load", map->bytes + (from - map->offset), map->slot, map->generation, from, to);
	stress_unlock(w.locks, map->slot);
}

static void store(const struct map *map, int64_t from, int64_t to, uint8_t tag)
{
	uint8_t *image = image_of(map->slot, map->generation)->bytes;

	stress_fill(image + from, (size_t)(to - from), from, tag);
	stress_fill(map->bytes + (from - map->offset), (size_t)(to - from), from, tag);
}

void do_store(void)
{
	enum standing now;
	int64_t from, to;

	struct map *map = enter_map(PROT_WRITE, &from, &to, &now);
	if (!map)
		return;
	if (now == ORPHAN) {
		stress_unlock(w.locks, map->slot);
		return;
	}
	stress_lock_bytes(w.locks, map->slot, from, to, true);
	uint8_t tag = new_tag();
	struct stress_note *noted = note(map->slot, from, to, tag);
	store(map, from, to, tag);
	leave(map->slot, noted);
}

/* A child stores through the mapping that it inherited, and its end unmaps it there. */
void do_child_store(void)
{
	enum standing now;
	int64_t from, to;
	int status;

	struct map *map = enter_map(PROT_WRITE, &from, &to, &now);
	if (!map)
		return;
	if (now == ORPHAN) {
		stress_unlock(w.locks, map->slot);
		return;
	}
	stress_lock_bytes(w.locks, map->slot, from, to, true);
	uint8_t tag = new_tag();
	struct stress_note *noted = note(map->slot, from, to, tag);
	pid_t child = fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0) {
		store(map, from, to, tag);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status != 0)
		fail_at(map->slot, from, to, "a child that stores ended with status %#x", (unsigned)status);
	leave(map->slot, noted);
}

void do_msync(void)
{
	struct map *map = &w.maps[below(MAX_MAPS)];

	if (!map->bytes)
		return;
	if (chance(20) ? madvise(map->bytes, (size_t)map->length, MADV_DONTNEED) != 0
		       : msync(map->bytes, (size_t)map->length, chance(70) ? MS_SYNC : MS_ASYNC) != 0)
		fail_at(map->slot, map->offset, map->offset + map->length, "msync or madvise: %s", strerror(errno));
}

void do_unmap(void)
{
	unmap(&w.maps[below(MAX_MAPS)]);
}

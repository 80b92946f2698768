#include "stress_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker w;

/* ------------------------------------------------------------------ small things */

uint64_t random_next(void)
{
	w.random ^= w.random << 13;
	w.random ^= w.random >> 7;
	w.random ^= w.random << 17;
	return w.random * UINT64_C(0x2545F4914F6CDD1D) >> 16;
}

int64_t below(int64_t limit)
{
	return (int64_t)(random_next() % (uint64_t)limit);
}

bool chance(int percent)
{
	return below(100) < percent;
}

void fail_at(int slot, int64_t from, int64_t to, const char *format, ...)
{
	va_list args;

	if (atomic_exchange(&w.model->failed, true))
		_exit(1); /* one report is enough */
	printf("FAIL seed %llu worker %d step %llu, %s: ", (unsigned long long)w.seed, w.number, (unsigned long long)w.step, w.doing);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (slot >= 0) {
		const struct stress_slot *at = &w.model->slot[slot];
		printf("%s generation %u [%lld, %lld), size %lld; the last steps there:\n", slot_name(slot), at->generation, (long long)from,
		       (long long)to, (long long)at->images[at->generation % 2].size);
		stress_print_notes(w.model, slot, from, to);
	}
	fflush(stdout);
	_exit(1);
}

void compare(const char *what, const uint8_t *found, int slot, uint32_t generation, int64_t from, int64_t to)
{
	const uint8_t *expected = image_of(slot, generation)->bytes + from;
	int64_t at = from < to ? stress_compare(found, expected, (size_t)(to - from)) : -1, last = to - from;

	if (at < 0)
		return;
	while (last > at + 1 && found[last - 1] == expected[last - 1])
		last--;
	fail_at(slot, from + at, from + last, "%s of [%lld, %lld) of generation %u: differs in [%lld, %lld): found %u (tag %u), not %u (tag %u)", what,
		(long long)from, (long long)to, generation, (long long)(from + at), (long long)(from + last), found[at],
		(uint8_t)(found[at] - (from + at) % 251), expected[at], (uint8_t)(expected[at] - (from + at) % 251));
}

const char *slot_name(int slot)
{
	static char name[16];
	snprintf(name, sizeof name, "f%d", slot);
	return name;
}

struct stress_image *image_of(int slot, uint32_t generation)
{
	return &w.model->slot[slot].images[generation % 2];
}

struct stress_note *note(int slot, int64_t from, int64_t to, uint8_t tag)
{
	return stress_note(w.model, &(struct stress_note){.step = w.step, .worker = w.number, .slot = slot, .what = w.doing, .from = from,
							  .to = to, .tag = tag, .generation = w.model->slot[slot].generation});
}

void leave(int slot, struct stress_note *noted)
{
	if (noted)
		noted->done = true;
	stress_unlock(w.locks, slot);
}

uint8_t new_tag(void)
{
	return chance(15) ? 0 : (uint8_t)(1 + below(255));
}

/* ------------------------------------------------------------------ descriptors */

bool is_reading(int flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

bool is_writing(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

int random_flags(void)
{
	static const int modes[] = {O_RDONLY, O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
	int flags = modes[below(5)] | O_CLOEXEC;

	if (chance(12))
		flags |= O_DIRECT;
	if (is_writing(flags) && chance(15))
		flags |= O_APPEND;
	if (is_writing(flags) && chance(8))
		flags |= chance(50) ? O_SYNC : O_DSYNC;
	if (chance(5))
		flags |= O_NOATIME;
	return flags;
}

void close_file(struct file *file)
{
	if (file->fd >= 0 && close(file->fd) != 0)
		fail("close: %s", strerror(errno));
	file->fd = -1;
}

struct file *keep_file(int fd, int slot, int flags, uint32_t generation)
{
	struct file *file = &w.files[below(MAX_FILES)];
	close_file(file);
	*file = (struct file){.fd = fd, .slot = slot, .flags = flags, .generation = generation, .was_direct = flags & O_DIRECT};
	return file;
}

struct file *open_slot(int slot, int flags)
{
	uint32_t generation = w.model->slot[slot].generation;
	int fd = open(slot_name(slot), flags);
	int code = errno;

	/* Who replaces a file holds its shape until the new one has its number. */
	stress_lock_shape(w.locks, slot, false);
	bool same = w.model->slot[slot].generation == generation;
	stress_unlock(w.locks, slot);
	if (!same) { /* whatever was opened, it is not known which */
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	if (fd < 0)
		fail_at(slot, 0, STRESS_SIZE, "open with flags %#o: %s", (unsigned)flags, strerror(code));
	return keep_file(fd, slot, flags, generation);
}

static bool suits(const struct file *file, int need)
{
	return file->fd >= 0 && (!(need & READ) || is_reading(file->flags)) && (!(need & WRITE) || is_writing(file->flags)) &&
	       (!(need & PLACE) || !(file->flags & O_APPEND));
}

struct file *pick(int need)
{
	int at = (int)below(MAX_FILES);

	for (int i = 0; i < MAX_FILES; i++) {
		struct file *file = &w.files[(at + i) % MAX_FILES];
		if (suits(file, need))
			return file;
	}
	for (;;) {
		int flags = random_flags(), wanted = need & (READ | WRITE);
		if (!is_writing(flags) && wanted & WRITE)
			flags = (flags & ~O_ACCMODE) | (wanted & READ ? O_RDWR : O_WRONLY);
		if (!is_reading(flags) && wanted & READ)
			flags = (flags & ~O_ACCMODE) | (wanted & WRITE ? O_RDWR : O_RDONLY);
		if (need & PLACE)
			flags &= ~O_APPEND;
		struct file *file = open_slot((int)below(w.model->slots), flags);
		if (file)
			return file;
	}
}

enum standing standing(int slot, uint32_t generation)
{
	uint32_t present = w.model->slot[slot].generation;
	return generation == present ? CURRENT : generation + 1 == present ? ORPHAN : UNKNOWN;
}

bool enter(struct file *file, bool exclusive)
{
	stress_lock_shape(w.locks, file->slot, exclusive);
	enum standing now = standing(file->slot, file->generation);
	if (now == CURRENT)
		return true;
	stress_unlock(w.locks, file->slot);
	if (now == UNKNOWN || chance(30))
		close_file(file);
	return false;
}

void choose_range(int64_t size, bool direct, int64_t *from, int64_t *to)
{
	*from = *to = 0;
	if (direct)
		size -= size % STRESS_PAGE;
	if (size == 0)
		return;
	*from = below(size);
	if (direct || chance(30))
		*from -= *from % STRESS_PAGE;
	*to = *from + 1 + below(chance(50) ? 3000 : chance(60) ? 5 * STRESS_PAGE : STRESS_SIZE);
	if (direct || chance(30))
		*to = (*to + STRESS_PAGE - 1) / STRESS_PAGE * STRESS_PAGE;
	if (*to > size)
		*to = size;
}

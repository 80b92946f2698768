#include "stress_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Offsets in the file of locks. */
#define STRIDE (INT64_C(16) << 20)
#define TAIL 1
#define BYTES STRESS_PAGE
#define NOTES_SHOWN 60

static void give_up(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	_exit(2);
}

struct stress_model *stress_model_new(int slots)
{
	size_t size = sizeof(struct stress_model) + (size_t)slots * sizeof(struct stress_slot);
	struct stress_model *model = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (model == MAP_FAILED)
		give_up("memory");
	model->slots = slots;
	model->lock_fd = memfd_create("locks", MFD_CLOEXEC);
	if (model->lock_fd < 0)
		give_up("memfd_create");
	return model;
}

int stress_locks_open(const struct stress_model *model)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/self/fd/%d", model->lock_fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		give_up(path);
	return fd;
}

static void lock(int locks, int slot, int64_t from, int64_t length, short type)
{
	struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot * STRIDE + from, .l_len = length};

	while (fcntl(locks, F_OFD_SETLKW, &range) != 0)
		if (errno != EINTR)
			give_up("F_OFD_SETLKW");
}

void stress_lock_shape(int locks, int slot, bool exclusive)
{
	lock(locks, slot, 0, 1, exclusive ? F_WRLCK : F_RDLCK);
}

void stress_lock_tail(int locks, int slot, bool exclusive)
{
	lock(locks, slot, TAIL, 1, exclusive ? F_WRLCK : F_RDLCK);
}

void stress_lock_bytes(int locks, int slot, int64_t from, int64_t to, bool exclusive)
{
	int64_t start = from / STRESS_PAGE * STRESS_PAGE;
	int64_t end = (to + STRESS_PAGE - 1) / STRESS_PAGE * STRESS_PAGE;

	if (start < end)
		lock(locks, slot, BYTES + start, end - start, exclusive ? F_WRLCK : F_RDLCK);
}

void stress_unlock(int locks, int slot)
{
	lock(locks, slot, 0, STRIDE, F_UNLCK);
}

void stress_fill(uint8_t *out, size_t length, int64_t from, uint8_t tag)
{
	if (tag == 0) {
		memset(out, 0, length);
		return;
	}
	for (size_t i = 0; i < length; i++)
		out[i] = (uint8_t)(tag + (from + (int64_t)i) % 251);
}

int64_t stress_compare(const uint8_t *found, const uint8_t *expected, size_t length)
{
	if (memcmp(found, expected, length) == 0)
		return -1;
	for (size_t i = 0; i < length; i++)
		if (found[i] != expected[i])
			return (int64_t)i;
	return 0; /* it changed under our eyes */
}

bool stress_is_zero(const uint8_t *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

void stress_image_resize(struct stress_image *image, int64_t size)
{
	if (size < image->size)
		memset(image->bytes + size, 0, (size_t)(image->size - size));
	image->size = size;
}

struct stress_note *stress_note(struct stress_model *model, const struct stress_note *note)
{
	struct stress_note *at = &model->notes[atomic_fetch_add(&model->notes_made, 1) % STRESS_NOTES];

	*at = *note;
	return at;
}

void stress_print_notes(const struct stress_model *model, int slot, int64_t from, int64_t to)
{
	uint64_t end = model->notes_made, first = end > STRESS_NOTES ? end - STRESS_NOTES : 0, at = end;
	int shown = 0;

	/* Back to where the wanted number of them begins. */
	for (; at > first && shown < NOTES_SHOWN; at--) {
		const struct stress_note *note = &model->notes[(at - 1) % STRESS_NOTES];
		shown += note->slot == slot && note->from < to && note->to > from;
	}
	for (; at < end; at++) {
		const struct stress_note *note = &model->notes[at % STRESS_NOTES];
		if (note->slot != slot || note->from >= to || note->to <= from)
			continue;
		printf("  worker %d step %llu generation %u: %s [%lld, %lld) tag %u%s\n", note->worker,
		       (unsigned long long)note->step, note->generation, note->what, (long long)note->from,
		       (long long)note->to, note->tag, note->done ? "" : ", not done");
	}
	fflush(stdout);
}

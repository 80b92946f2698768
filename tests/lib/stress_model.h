/* stress_model: what files should hold, in memory that processes share, and the locks that keep it true while they work
 * on the files. For programs that attack a filesystem (open_stress.c).
 *
 * A slot is a name; each file that stands there one after the other is a generation. The file that was replaced last stays
 * known, for those who have it open: nobody changes it any more.
 *
 * Locks of one slot, in the order in which they may be taken; of two slots, the lower one first:
 *   shape    shared by whoever uses the file, exclusive for what makes it shorter or replaces it
 *   tail     shared by whoever relies on its end, exclusive for what moves the end further out
 *   bytes    ranges of whole pages: shared by readers, exclusive for writers. Whole pages, because direct I/O beside a
 *            store to the same page has no defined result on a local filesystem either (open(2), O_DIRECT)
 * They are open file description locks: the kernel drops those of a process that dies. */
#ifndef STRESS_MODEL_H
#define STRESS_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRESS_PAGE 4096
#define STRESS_SIZE (256 * 1024) /* no file is ever larger */
#define STRESS_NOTES 8192

struct stress_image {
	_Atomic int64_t size;
	uint8_t bytes[STRESS_SIZE]; /* zero from `size` on */
};

struct stress_slot {
	_Atomic uint32_t generation;
	struct stress_image images[2]; /* by generation % 2 */
};

struct stress_note { /* one step, for the report of a failure */
	uint64_t step;
	int worker, slot;
	const char *what; /* of the program's text: the same address in all processes */
	int64_t from, to;
	uint32_t generation;
	uint8_t tag;      /* of the bytes written: stress_fill */
	bool done;
};

struct stress_model {
	int lock_fd; /* a file of no use but for locks; each process opens it anew */
	int slots;
	_Atomic bool failed;
	_Atomic uint64_t notes_made;
	struct stress_note notes[STRESS_NOTES];
	struct stress_slot slot[];
};

/* Shared by all processes forked later. Ends the program when there is no memory. */
struct stress_model *stress_model_new(int slots);
/* A descriptor for the locks of this process. */
int stress_locks_open(const struct stress_model *model);

void stress_lock_shape(int locks, int slot, bool exclusive);
void stress_lock_tail(int locks, int slot, bool exclusive);
/* The pages that [from, to) touches. */
void stress_lock_bytes(int locks, int slot, int64_t from, int64_t to, bool exclusive);
/* All of the slot. */
void stress_unlock(int locks, int slot);

/* The bytes of offset `from` on that a writer with this tag writes. Tag 0: zeros. */
void stress_fill(uint8_t *out, size_t length, int64_t from, uint8_t tag);
/* Index of the first byte in which they differ, or -1. */
int64_t stress_compare(const uint8_t *found, const uint8_t *expected, size_t length);
/* True when all are zero. */
bool stress_is_zero(const uint8_t *bytes, size_t length);
/* Sets the size; what lies between the old and the new one is zero. shape or tail is held. */
void stress_image_resize(struct stress_image *image, int64_t size);

/* Notes the beginning of a step; the caller sets `done` afterwards. */
struct stress_note *stress_note(struct stress_model *model, const struct stress_note *note);
/* Prints the latest steps that touched [from, to) of the slot, oldest first. */
void stress_print_notes(const struct stress_model *model, int slot, int64_t from, int64_t to);

#endif

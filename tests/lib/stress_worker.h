/* stress_worker: one process of open_stress: its random numbers, its open files and mappings, its report of a failure; and
 * what it can do. One thread a process, so that its state is global.
 *
 *   stress_worker   state, descriptors, ranges
 *   stress_open     opening, closing, replacing, running
 *   stress_data     reading, writing, size, holes, copies
 *   stress_map      mappings
 *
 * An operation (do_*) chooses what it works on, takes the locks (stress_model.h), does it on the file and in the model,
 * and fails the run when the two differ. */
#ifndef STRESS_WORKER_H
#define STRESS_WORKER_H

#include "stress_model.h"

#include <sys/types.h>

#define MAX_FILES 10
#define MAX_MAPS 6
#define PROGRAMS 3 /* names of programs that are run */
#define PROGRAM_CODE 7 /* what they exit with */

struct file { /* fd < 0: none */
	int fd, slot, flags;
	uint32_t generation;
	bool was_direct; /* when it was opened */
	bool twin; /* shares its open file description: neither its position nor its flags are its own */
};

struct map { /* bytes NULL: none */
	uint8_t *bytes;
	int slot, protection;
	uint32_t generation;
	int64_t offset, length;
};

struct worker {
	struct stress_model *model;
	int number, locks;
	uint64_t seed, random, step;
	const char *doing; /* name of the operation */
	struct file files[MAX_FILES];
	struct map maps[MAX_MAPS];
	uint8_t *buffer; /* page-aligned, STRESS_SIZE bytes */
	bool can_tmpfile, can_keep, can_punch, can_zero; /* as the filesystem answered when asked */
	bool may_collide, may_refuse, whole_pages; /* -c, -r, -w */
};
extern struct worker w;

uint64_t random_next(void);
int64_t below(int64_t limit);
bool chance(int percent);

/* Prints it with the seed and the step, the latest steps that touched these bytes (slot < 0: none), and ends the process. */
__attribute__((format(printf, 4, 5), noreturn)) void fail_at(int slot, int64_t from, int64_t to, const char *format, ...);
#define fail(...) fail_at(-1, 0, 0, __VA_ARGS__)
/* Fails unless `found` holds what the bytes [from, to) of that file should be. */
void compare(const char *what, const uint8_t *found, int slot, uint32_t generation, int64_t from, int64_t to);

const char *slot_name(int slot);
struct stress_image *image_of(int slot, uint32_t generation);
struct stress_note *note(int slot, int64_t from, int64_t to, uint8_t tag);
/* Unlocks the slot; noted may be NULL. */
void leave(int slot, struct stress_note *noted);
uint8_t new_tag(void);

bool is_reading(int flags);
bool is_writing(int flags);
int random_flags(void);
void close_file(struct file *file);
/* Closes one of the open files, if all places are taken, for this one. */
struct file *keep_file(int fd, int slot, int flags, uint32_t generation);
/* Opens it without any lock. NULL: it was replaced meanwhile. */
struct file *open_slot(int slot, int flags);

/* PLACE: the offset of a write counts (with O_APPEND it does not, and splice(2) and those like it refuse). */
enum { READ = 1, WRITE = 2, PLACE = 4 };
/* An open file that can do it, opened if there is none. */
struct file *pick(int need);

enum standing { CURRENT, ORPHAN, UNKNOWN };
/* An orphan is the file that stood there before: it does not change any more. shape is held. */
enum standing standing(int slot, uint32_t generation);
/* Locks the shape; false: the file is not the present one, and nothing is locked. */
bool enter(struct file *file, bool exclusive);
/* A range within [0, size), of whole pages for direct I/O; empty when there is none. */
void choose_range(int64_t size, bool direct, int64_t *from, int64_t *to);

void do_open(void);
void do_open_close(void);
void do_open_create(void);
void do_reopen(void);
void do_close(void);
void do_dup(void);
void do_flags(void);
void do_replace(void);
void do_program(void);
void do_program_open(void);

void do_read(void);
void do_splice_read(void);
void do_seek(void);
void do_stat(void);
void do_write(void);
void do_splice_write(void);
void do_append(void);
void do_truncate(void);
void do_allocate(void);
void do_zero(void);
void do_copy(void);
void do_sendfile(void);
void do_sync(void);
void do_attributes(void);

void do_map(void);
void do_load(void);
void do_store(void);
void do_child_store(void);
void do_msync(void);
void do_unmap(void);
/* Of all mappings. */
void unmap_all(void);

#endif

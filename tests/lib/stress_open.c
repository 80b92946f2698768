#include "stress_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ------------------------------------------------------------------ opening and closing */

void do_open(void)
{
	open_slot((int)below(w.model->slots), random_flags());
}

void do_open_close(void)
{
	for (int i = 0; i < 5; i++) {
		struct file *file = open_slot((int)below(w.model->slots), random_flags());
		if (file)
			close_file(file);
	}
}

/* O_CREAT of what is there, O_EXCL, and O_TRUNC, which empties it for all. */
void do_open_create(void)
{
	int slot = (int)below(w.model->slots), flags = random_flags() | O_CREAT;
	bool empty = is_writing(flags) && chance(30), exclusive = !empty && chance(30);

	stress_lock_shape(w.locks, slot, empty);
	struct stress_note *noted = empty ? note(slot, 0, STRESS_SIZE, 0) : NULL;
	int fd = open(slot_name(slot), flags | (empty ? O_TRUNC : 0) | (exclusive ? O_EXCL : 0), 0600);
	if (exclusive ? fd >= 0 || errno != EEXIST : fd < 0)
		fail_at(slot, 0, STRESS_SIZE, "open with flags %#o: %s", (unsigned)flags, fd < 0 ? strerror(errno) : "it did not fail");
	uint32_t generation = w.model->slot[slot].generation;
	if (empty)
		stress_image_resize(image_of(slot, generation), 0);
	leave(slot, noted);
	if (fd >= 0)
		keep_file(fd, slot, flags, generation);
}

/* Another open file of the same inode, whatever its name is now. */
void do_reopen(void)
{
	struct file *file = pick(0);
	char path[64];
	int flags = random_flags();

	snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
	int fd = open(path, flags), slot = file->slot;
	if (fd < 0)
		fail_at(slot, 0, STRESS_SIZE, "%s of generation %u with flags %#o: %s", path, file->generation, (unsigned)flags, strerror(errno));
	keep_file(fd, slot, flags, file->generation);
}

void do_close(void)
{
	close_file(&w.files[below(MAX_FILES)]);
}

void do_dup(void)
{
	struct file *file = pick(0);
	int fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		fail("F_DUPFD_CLOEXEC: %s", strerror(errno));
	file->twin = true;
	struct file copy = *file;
	file = keep_file(fd, copy.slot, copy.flags, copy.generation);
	file->twin = true;
	file->was_direct = copy.was_direct;
}

/* O_APPEND and O_DIRECT come and go while it is open. */
void do_flags(void)
{
	struct file *file = pick(0);
	int flag = chance(50) && is_writing(file->flags) ? O_APPEND : O_DIRECT;

	if (file->twin)
		return;
	/* In passthrough the backing file keeps the flags with which it was opened (backing_file_read_iter), and goes on wanting alignment. */
	if (w.may_refuse && flag == O_DIRECT && file->flags & O_DIRECT && !is_writing(file->flags))
		return;
	if (fcntl(file->fd, F_SETFL, file->flags ^ flag) != 0)
		fail("F_SETFL: %s", strerror(errno));
	file->flags ^= flag;
}

/* ------------------------------------------------------------------ replacing */

/* A file with some bytes that nobody has heard of yet, under that name or without one. */
static int make(const char *name, int flags, struct stress_image *image, uint8_t tag)
{
	int fd = name ? open(name, flags | O_CREAT | O_EXCL, 0600) : open(".", flags | O_TMPFILE, 0600);
	int64_t size = below(60000);

	if (fd < 0)
		fail("%s: open with flags %#o: %s", name ? name : "O_TMPFILE", (unsigned)flags, strerror(errno));
	if (flags & O_DIRECT)
		size -= size % STRESS_PAGE;
	stress_fill(w.buffer, (size_t)size, 0, tag);
	if (size && write(fd, w.buffer, (size_t)size) != size)
		fail("%s: write: %s", name ? name : "O_TMPFILE", strerror(errno));
	stress_image_resize(image, 0);
	memcpy(image->bytes, w.buffer, (size_t)size);
	image->size = size;
	return fd;
}

static void give_name(int fd, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) != 0)
		fail("%s: linkat: %s", name, strerror(errno));
}

/* Another file takes the place: unlinked and created, renamed over, made without a name. The old one lives on in those who have it open. */
void do_replace(void)
{
	static const int modes[] = {O_WRONLY, O_RDWR};
	int slot = (int)below(w.model->slots), flags = (random_flags() & ~O_ACCMODE) | modes[below(2)];
	char name[32];

	snprintf(name, sizeof name, "new%d", w.number);
	stress_lock_shape(w.locks, slot, true);
	uint32_t generation = w.model->slot[slot].generation + 1;
	struct stress_image *image = image_of(slot, generation);
	uint8_t tag = new_tag();
	struct stress_note *noted = note(slot, 0, STRESS_SIZE, tag);
	int fd;

	if (chance(40)) {
		if (unlink(slot_name(slot)) != 0)
			fail("unlink: %s", strerror(errno));
		fd = make(slot_name(slot), flags, image, tag);
	} else {
		bool nameless = w.can_tmpfile && chance(50);
		fd = make(nameless ? NULL : name, flags, image, tag);
		if (nameless)
			give_name(fd, name);
		if (rename(name, slot_name(slot)) != 0)
			fail("rename: %s", strerror(errno));
	}
	w.model->slot[slot].generation = generation;
	leave(slot, noted);
	keep_file(fd, slot, flags, generation);
}

/* ------------------------------------------------------------------ programs */

static void program_name(char *name, size_t room, int number)
{
	snprintf(name, room, "program%d", number);
}

/* The bytes of this program, written in one of the ways in which linkers and installers write them. */
static void write_program(const char *name)
{
	static uint8_t bytes[STRESS_SIZE * 4];
	int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	ssize_t size = source < 0 ? -1 : read(source, bytes, sizeof bytes);

	if (fd < 0 || size <= 0 || size == (ssize_t)sizeof bytes)
		fail("%s: %s", name, strerror(errno));
	close(source);
	if (chance(50)) {
		if (write(fd, bytes, (size_t)size) != size)
			fail("%s: write: %s", name, strerror(errno));
	} else {
		if (ftruncate(fd, size) != 0)
			fail("%s: ftruncate: %s", name, strerror(errno));
		void *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			fail("%s: mmap: %s", name, strerror(errno));
		memcpy(map, bytes, (size_t)size);
		munmap(map, (size_t)size);
	}
	if (close(fd) != 0)
		fail("%s: close: %s", name, strerror(errno));
}

/* A program that nobody has open for writing any more runs, at once, though others read and map it. */
void do_program(void)
{
	char name[32], path[48];
	int status, rc;
	pid_t pid;

	if (w.number >= PROGRAMS)
		return;
	program_name(name, sizeof name, w.number);
	snprintf(path, sizeof path, "./%s", name);
	if (chance(50)) {
		unlink(name);
		write_program(name);
	} else if (access(name, X_OK) != 0) {
		return;
	}
	char *arguments[] = {name, "--program", NULL};
	rc = posix_spawn(&pid, path, NULL, NULL, arguments, environ);
	if (rc != 0)
		fail("%s: %s", path, strerror(rc));
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != PROGRAM_CODE)
		fail("%s: ended with status %#x", path, (unsigned)status);
}

/* Opens the program of somebody, and keeps it mapped for a moment. */
void do_program_open(void)
{
	static uint8_t *bytes;
	char name[32];

	if (bytes)
		munmap(bytes, STRESS_PAGE);
	bytes = NULL;
	program_name(name, sizeof name, (int)below(PROGRAMS));
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0)
		fail("%s: %s", name, strerror(errno));
	bytes = mmap(NULL, STRESS_PAGE, PROT_READ | PROT_EXEC, chance(50) ? MAP_PRIVATE : MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		fail("%s: mmap: %s", name, strerror(errno));
	close(fd);
}

#include "extract_internal.h"

#include "volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_BYTES (1 << 20) /* where the first bytes are looked for that decide the order */
#define PROGRESS_EVERY 1000
#define DEPTH_MAX 8192 /* of directories: each is opened from the top */

/* ---------------------------------------------------------------- tables */

static int64_t *slot_of(int64_t *keys, size_t room, int64_t key)
{
	size_t at = (size_t)((uint64_t)key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (room - 1);

	while (keys[at] && keys[at] != key)
		at = (at + 1) & (room - 1);
	return &keys[at];
}

static bool numbers_grow(struct numbers *numbers)
{
	size_t room = numbers->room ? numbers->room * 2 : 256;
	int64_t *keys = calloc(room, sizeof *keys);
	uint32_t *values = malloc(room * sizeof *values);

	if (!keys || !values) {
		free(keys);
		free(values);
		return false;
	}
	for (size_t i = 0; i < numbers->room; i++) {
		int64_t *slot = numbers->keys[i] ? slot_of(keys, room, numbers->keys[i]) : NULL;

		if (slot) {
			*slot = numbers->keys[i];
			values[slot - keys] = numbers->values[i];
		}
	}
	free(numbers->keys);
	free(numbers->values);
	numbers->keys = keys;
	numbers->values = values;
	numbers->room = room;
	return true;
}

/* *value becomes what the key had before, or EXTRACT_NONE after adding it with the given value. False: out of memory. */
static bool numbers_add(struct numbers *numbers, int64_t key, uint32_t *value)
{
	int64_t *slot;
	uint32_t given = *value;

	if (numbers->count * 2 >= numbers->room && !numbers_grow(numbers))
		return false;
	slot = slot_of(numbers->keys, numbers->room, key);
	if (*slot) {
		*value = numbers->values[slot - numbers->keys];
		return true;
	}
	*slot = key;
	numbers->values[slot - numbers->keys] = given;
	numbers->count++;
	*value = EXTRACT_NONE;
	return true;
}

/* Doubles an array that is full. */
static bool make_room(void **array, size_t *room, size_t count, size_t size)
{
	size_t more = *room ? *room * 2 : 64;
	void *bigger;

	if (count < *room)
		return true;
	if (count >= EXTRACT_NONE - 1)
		return false;
	bigger = realloc(*array, more * size);
	if (!bigger)
		return false;
	*array = bigger;
	*room = more;
	return true;
}

/* ---------------------------------------------------------------- the walk */

static bool name_allowed(const void *name, size_t length)
{
	return length > 0 && length <= 255 && !memchr(name, '/', length) && !memchr(name, '\0', length) &&
	       !(length == 1 && memcmp(name, ".", 1) == 0) && !(length == 2 && memcmp(name, "..", 2) == 0);
}

static int refuse(struct extract *x, const char *what, int64_t ino)
{
	struct error error;

	return extract_fail(x, error_set(&error, ERR_CORRUPT, 0, "the catalogue is damaged: %s (inode %lld)", what, (long long)ino),
			    &error);
}

static int add_place(struct extract *x, int64_t ino, uint32_t parent, uint32_t name)
{
	uint32_t number = (uint32_t)x->place_count;

	if (!make_room((void **)&x->places, &x->place_room, x->place_count, sizeof *x->places) ||
	    !numbers_add(&x->dirs, ino, &number))
		return extract_no_memory(x);
	if (number != EXTRACT_NONE)
		return refuse(x, "a directory in two places", ino);
	x->places[x->place_count] = (struct place){ .ino = ino, .parent = parent, .name = name };
	if (x->place_count > 0)
		x->places[x->place_count].depth = x->places[parent].depth + 1;
	if (x->places[x->place_count++].depth > DEPTH_MAX)
		return refuse(x, "directories in directories without end", ino);
	return 0;
}

/* Files are made later, in the order of their bytes: only where these lie is looked up now. */
static int plan_file(struct walk *walk, struct entry *entry)
{
	struct extent_place *extents;
	uint64_t data = 0;
	size_t count;
	int rc = catalogue_extents(walk->conn, walk->x->seq, entry->ino, 0, FIRST_BYTES, &extents, &count);

	if (rc < 0)
		return extract_database(walk->x, rc);
	if (count > 0)
		entry->order = (uint64_t)extents[0].chunk.pack << 20 | (extents[0].chunk.idx & 0xfffff);
	for (size_t i = 0; i < count; i++)
		data += (uint64_t)extents[i].length;
	free(extents);
	if (entry->size > FIRST_BYTES)
		rc = catalogue_data_bytes(walk->conn, walk->x->seq, entry->ino, &data);
	if (rc < 0)
		return extract_database(walk->x, rc);
	/* Holes are no work. */
	walk->x->total_bytes += data < (uint64_t)entry->size ? data : (uint64_t)entry->size;
	walk->x->sorted_count++;
	return 0;
}

static int make_node(struct walk *walk, const struct inode_row *row, const char *name)
{
	char target[PATH_MAX];

	if (!S_ISLNK(row->mode))
		return mknodat(walk->dirfd, name, (row->mode & S_IFMT) | 0600, (dev_t)row->rdev);
	if (!row->target || row->target_length == 0 || row->target_length >= sizeof target ||
	    memchr(row->target, '\0', row->target_length)) {
		errno = EINVAL;
		return -1;
	}
	memcpy(target, row->target, row->target_length);
	target[row->target_length] = '\0';
	return symlinkat(target, walk->dirfd, name);
}

/* Symlinks and special files are complete at once. */
static int make_special(struct walk *walk, struct entry *entry, const struct inode_row *row)
{
	struct extract *x = walk->x;
	const char *name = extract_name(x, entry->name);
	bool device = S_ISCHR(row->mode) || S_ISBLK(row->mode);
	int fd, rc;

	if ((device && !x->root) || make_node(walk, row, name) < 0) {
		if (!(device && !x->root) && (S_ISLNK(row->mode) || (errno != EPERM && errno != ENOTSUP && errno != EINVAL)))
			return extract_fail_errno(x, entry, errno);
		entry->left_out = true;
		atomic_fetch_add(&x->skipped, 1);
		return 0;
	}
	fd = openat(walk->dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return extract_fail_errno(x, entry, errno);
	rc = extract_set_attrs(x, entry, fd, row);
	close(fd);
	atomic_fetch_add(&x->inodes, 1);
	return rc;
}

static int add_entry(struct walk *walk, const struct inode_row *row, uint32_t name)
{
	struct extract *x = walk->x;
	uint32_t number = (uint32_t)x->entry_count, known = number;
	struct entry *entry;

	if (!make_room((void **)&x->entries, &x->entry_room, x->entry_count, sizeof *x->entries) ||
	    (row->nlink > 1 && !numbers_add(&x->links, row->ino, &known)))
		return extract_no_memory(x);
	entry = &x->entries[x->entry_count++];
	*entry = (struct entry){ .ino = row->ino, .size = row->size, .dir = walk->dir, .name = name,
				 .link = known == number ? EXTRACT_NONE : known, .type = row->mode & S_IFMT };
	x->places[walk->dir].count++;
	if (entry->link != EXTRACT_NONE)
		return 0;
	switch (entry->type) {
	case S_IFREG:
		if (entry->size < 0)
			return refuse(x, "a negative size", row->ino);
		return plan_file(walk, entry);
	case S_IFLNK: case S_IFIFO: case S_IFSOCK: case S_IFCHR: case S_IFBLK:
		return make_special(walk, entry, row);
	default:
		return refuse(x, "an unknown type of file", row->ino);
	}
}

static int add_directory(struct walk *walk, int64_t ino, uint32_t name)
{
	struct extract *x = walk->x;
	struct entry here = { .dir = walk->dir, .name = name };

	if (mkdirat(walk->dirfd, extract_name(x, name), 0700) < 0)
		return extract_fail_errno(x, &here, errno);
	atomic_fetch_add(&x->inodes, 1);
	return add_place(x, ino, walk->dir, name);
}

static int visit(void *context, const void *name, size_t length, int64_t ino)
{
	struct walk *walk = context;
	struct extract *x = walk->x;
	struct inode_hold hold;
	uint32_t offset = (uint32_t)x->names.length;
	int rc;

	if (extract_stopping(x))
		return x->result;
	if (!name_allowed(name, length))
		return refuse(x, "a name that is none", ino);
	if (x->names.length > UINT32_MAX - 256 || buf_append(&x->names, name, length) < 0 || buf_append_u8(&x->names, 0) < 0)
		return extract_no_memory(x);
	rc = catalogue_inode(walk->conn, x->seq, ino, &hold);
	walk->reads++;
	if (rc == ERR_ABSENT)
		return refuse(x, "a name without inode", ino);
	if (rc < 0)
		return extract_database(x, rc);
	rc = S_ISDIR(hold.row.mode) ? add_directory(walk, ino, offset) : add_entry(walk, &hold.row, offset);
	inode_hold_free(&hold);
	if (x->options->progress && (x->entry_count + x->place_count) % PROGRESS_EVERY == 0)
		x->options->progress(x->options->context, "reading the version", x->entry_count + x->place_count, 0, "files");
	return rc;
}

int extract_walk_place(struct walk *walk, uint32_t number)
{
	struct extract *x = walk->x;
	struct error error;
	int rc = extract_read(walk);

	if (rc < 0)
		return rc;
	walk->dir = number;
	walk->dirfd = extract_open_place(x, number);
	if (walk->dirfd < 0)
		return extract_fail(x, error_errno(&error, errno, "cannot open a directory"), &error);
	x->places[number].first = (uint32_t)x->entry_count;
	rc = catalogue_list(walk->conn, x->seq, x->places[number].ino, visit, walk);
	close(walk->dirfd);
	if (rc < 0 && !atomic_load(&x->failed))
		return extract_database(x, rc);
	return rc;
}

/* ---------------------------------------------------------------- where it goes */

static int check_empty(struct extract *x, int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct error error;
	int rc = 0;

	if (!dir) {
		rc = extract_fail(x, error_errno(&error, errno, "cannot open the directory"), &error);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0 && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = extract_fail(x, error_set(&error, ERR_EXISTS, EEXIST, "the directory is not empty"), &error);
	closedir(dir);
	return rc;
}

/* Place 0. A directory that is itself to be made is one level above its contents; a file lies in dirfd. */
int extract_begin(struct walk *walk, int64_t ino, int dirfd, const char *name)
{
	struct extract *x = walk->x;
	struct inode_hold hold;
	struct error error;
	int rc = extract_read(walk);

	if (rc < 0)
		return rc;
	rc = catalogue_inode(walk->conn, x->seq, ino, &hold);
	if (rc < 0)
		return extract_fail(x, error_set(&error, rc, 0, "it is not in that version"), &error);
	if (*name != '\0' && !name_allowed(name, strlen(name))) {
		rc = extract_fail(x, error_set(&error, ERR_USAGE, 0, "%s: no name for a file", name), &error);
	} else if (*name == '\0' && !S_ISDIR(hold.row.mode)) {
		rc = extract_fail(x, error_set(&error, ERR_FAILED, ENOTDIR, "it is not a directory"), &error);
	} else if (S_ISDIR(hold.row.mode)) {
		if (*name == '\0')
			rc = check_empty(x, dirfd);
		else if (mkdirat(dirfd, name, 0700) < 0)
			rc = extract_fail(x, error_errno(&error, errno, "cannot create %s", name), &error);
		x->base_fd = openat(dirfd, *name ? name : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (rc == 0 && x->base_fd < 0)
			rc = extract_fail(x, error_errno(&error, errno, "cannot open %s", *name ? name : "the directory"), &error);
		x->base_is_new = true;
		atomic_fetch_add(&x->inodes, 1);
		if (rc == 0)
			rc = add_place(x, ino, 0, 0);
	} else {
		x->base_fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
		if (x->base_fd < 0)
			rc = extract_fail(x, error_errno(&error, errno, "cannot write %s", name), &error);
		if (rc == 0)
			rc = add_place(x, -1, 0, 0); /* no inode of the version */
		walk->dir = 0;
		walk->dirfd = x->base_fd;
		if (rc == 0)
			rc = visit(walk, name, strlen(name), ino);
	}
	inode_hold_free(&hold);
	return rc;
}

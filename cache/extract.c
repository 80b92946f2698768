#include "extract.h"

#include "extract_internal.h"
#include "clock.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READS_MAX 5000 /* inodes on one read transaction: a long one keeps the WAL from shrinking */

/* ---------------------------------------------------------------- failures, names, places */

int extract_fail(struct extract *x, int code, const struct error *error)
{
	pthread_mutex_lock(&x->lock);
	if (!atomic_exchange(&x->failed, true)) {
		x->result = code;
		if (x->error)
			*x->error = *error;
	}
	code = x->result;
	pthread_mutex_unlock(&x->lock);
	return code;
}

int extract_fail_errno(struct extract *x, const struct entry *entry, int sys_errno)
{
	struct error error;
	char path[1024];

	extract_path(x, entry, path, sizeof path);
	return extract_fail(x, error_errno(&error, sys_errno, "cannot write %s", path), &error);
}

int extract_no_memory(struct extract *x)
{
	struct error error;

	return extract_fail(x, error_errno(&error, ENOMEM, "cannot restore"), &error);
}

int extract_database(struct extract *x, int rc)
{
	struct error error;

	return extract_fail(x, error_set(&error, rc, 0, "cannot read the catalogue: %s", error_word(rc)), &error);
}

bool extract_stopping(struct extract *x)
{
	struct error error;

	if (atomic_load(&x->failed))
		return true;
	if (!x->options->stop || !atomic_load(x->options->stop))
		return false;
	extract_fail(x, error_set(&error, ERR_ABANDONED, 0, "stopped"), &error);
	return true;
}

const char *extract_name(const struct extract *x, uint32_t offset)
{
	return (const char *)x->names.data + offset;
}

int extract_open_place(const struct extract *x, uint32_t place)
{
	const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int parent, fd, saved;

	if (place == 0)
		return fcntl(x->base_fd, F_DUPFD_CLOEXEC, 0);
	parent = extract_open_place(x, x->places[place].parent);
	if (parent < 0)
		return -1;
	fd = openat(parent, extract_name(x, x->places[place].name), flags);
	saved = errno;
	close(parent);
	errno = saved;
	return fd;
}

void extract_path(const struct extract *x, const struct entry *entry, char *out, size_t room)
{
	const char *name = extract_name(x, entry->name);
	size_t at = room - 1, length;

	/* From the end: that is the part that is kept if it is too long. */
	out[at] = '\0';
	for (uint32_t place = entry->dir;; place = x->places[place].parent) {
		length = strlen(name);
		if (length > at)
			break;
		at -= length;
		memcpy(out + at, name, length);
		if (place == 0 || at == 0)
			break;
		out[--at] = '/';
		name = extract_name(x, x->places[place].name);
	}
	memmove(out, out + at, room - at);
}

int extract_read(struct walk *walk)
{
	struct db *db = volume_db(walk->x->volume);
	struct error error;
	int rc;

	if (walk->conn && walk->reads < READS_MAX)
		return 0;
	if (walk->conn)
		db_read_end(db, walk->conn);
	walk->conn = NULL;
	walk->reads = 0;
	rc = db_read_begin(db, &walk->conn, &error);
	return rc < 0 ? extract_fail(walk->x, rc, &error) : 0;
}

/* ---------------------------------------------------------------- after the bodies */

static int make_link(struct extract *x, struct entry *entry)
{
	struct entry *first = &x->entries[entry->link];
	int from, to, rc = 0;

	if (first->left_out) {
		entry->left_out = true;
		return 0;
	}
	from = extract_open_place(x, first->dir);
	to = extract_open_place(x, entry->dir);
	if (from < 0 || to < 0 || linkat(from, extract_name(x, first->name), to, extract_name(x, entry->name), 0) < 0)
		rc = extract_fail_errno(x, entry, errno);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return rc;
}

static int make_links(struct extract *x)
{
	int rc = 0;

	for (size_t i = 0; x->links.count > 0 && i < x->entry_count && rc == 0; i++)
		if (x->entries[i].link != EXTRACT_NONE)
			rc = extract_stopping(x) ? x->result : make_link(x, &x->entries[i]);
	return rc;
}

static int finish_place(struct extract *x, struct walk *walk, uint32_t number)
{
	struct place *place = &x->places[number];
	struct entry here = { .dir = place->parent, .name = place->name };
	struct inode_hold hold;
	int fd, rc = extract_read(walk);

	if (rc < 0)
		return rc;
	rc = catalogue_inode(walk->conn, x->seq, place->ino, &hold);
	walk->reads++;
	if (rc < 0)
		return extract_database(x, rc);
	fd = extract_open_place(x, number);
	rc = fd < 0 ? extract_fail_errno(x, &here, errno) : extract_set_attrs(x, &here, fd, &hold.row);
	if (fd >= 0)
		close(fd);
	inode_hold_free(&hold);
	return rc;
}

/* Those made last first: what lies in a directory is finished before its times are set, and before its mode may keep us out. */
static int finish_places(struct extract *x, struct walk *walk)
{
	int rc = 0;

	for (size_t i = x->place_count; i > 0 && rc == 0; i--)
		if (i > 1 || x->base_is_new)
			rc = extract_stopping(x) ? x->result : finish_place(x, walk, (uint32_t)(i - 1));
	return rc;
}

static int sort_files(struct extract *x)
{
	size_t count = 0;

	x->sorted = malloc((x->sorted_count + 1) * sizeof *x->sorted);
	if (!x->sorted)
		return extract_no_memory(x);
	for (size_t i = 0; i < x->entry_count; i++)
		if (x->entries[i].type == S_IFREG && x->entries[i].link == EXTRACT_NONE)
			x->sorted[count++] = (uint32_t)i;
	return 0;
}

static int run(struct extract *x, int64_t ino, int dirfd, const char *name)
{
	struct walk walk = { .x = x, .dirfd = -1 };
	int rc = extract_begin(&walk, ino, dirfd, name);

	/* In order of their numbers, which grows while we go; a file alone has nothing to list. */
	for (size_t i = 0; x->base_is_new && i < x->place_count && rc == 0; i++)
		rc = extract_walk_place(&walk, (uint32_t)i);
	if (rc == 0)
		rc = sort_files(x);
	if (walk.conn)
		db_read_end(volume_db(x->volume), walk.conn);
	walk.conn = NULL;
	if (rc == 0)
		rc = extract_bodies(x);
	if (rc == 0)
		rc = make_links(x);
	if (rc == 0)
		rc = finish_places(x, &walk);
	if (walk.conn)
		db_read_end(volume_db(x->volume), walk.conn);
	if (rc == 0 && x->options->record_local)
		rc = extract_record(x);
	return rc;
}

int extract_tree(struct volume *volume, int64_t seq, int64_t ino, int dirfd, const char *name,
		 const struct extract_options *options, struct extract_result *out, struct error *error)
{
	struct extract x = { .volume = volume, .seq = seq, .options = options, .root = geteuid() == 0, .base_fd = -1,
			     .error = error };
	int rc;

	pthread_mutex_init(&x.lock, NULL);
	clock_cond_init(&x.ended);
	rc = buf_append_u8(&x.names, 0) < 0 ? extract_no_memory(&x) : run(&x, ino, dirfd, name);
	*out = (struct extract_result){ .inodes = x.inodes, .bytes = x.written, .skipped = x.skipped, .damaged = x.damaged };
	if (x.base_fd >= 0)
		close(x.base_fd);
	buf_free(&x.names);
	free(x.places);
	free(x.entries);
	free(x.sorted);
	free(x.dirs.keys);
	free(x.dirs.values);
	free(x.links.keys);
	free(x.links.values);
	pthread_cond_destroy(&x.ended);
	pthread_mutex_destroy(&x.lock);
	return rc;
}

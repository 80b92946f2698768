/* Which names a version is about, and what has none left (sealing.h). One thread. */
#include "sealing.h"

#include "behind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- names */

/* After the loss of the local database (or of its rows) the keys are unknown, the tree is not: what has the name of a live inode that no key belongs to, and its type, is that
 * inode. So the history of a file outlives the database of the machine. */
static int adopt(struct sealing *sealing, struct db_conn *conn, int64_t live, struct seal_ino *child, struct error *error)
{
	uint8_t key[NODE_KEY_MAX];
	size_t length = sizeof(key);
	bool known;
	mode_t type = 0;
	int rc;

	if (child->ino || !live || seal_ino_find(sealing, live) || catalogue_local_key(conn, live, key, &length) != ERR_ABSENT)
		return 0;
	rc = seal_ino_live(conn, live, &known, &type, error);
	if (rc || !known || type != child->type)
		return rc;
	child->ino = live;
	child->known = child->adopted = true;
	seal_ino_chain(sealing, child);
	return 0;
}

static struct seal_name *name_push(struct sealing *sealing, const char *name)
{
	size_t length = strlen(name);

	if (sealing->name_count == sealing->name_room) {
		size_t room = sealing->name_room ? 2 * sealing->name_room : 64;
		struct seal_name *names = reallocarray(sealing->names, room, sizeof(*names));
		if (!names)
			return NULL;
		sealing->names = names;
		sealing->name_room = room;
	}
	char *copy = seal_alloc(sealing, length + 1);
	if (!copy)
		return NULL;
	memcpy(copy, name, length + 1);
	struct seal_name *entry = &sealing->names[sealing->name_count++];
	*entry = (struct seal_name){.name = copy, .length = (uint8_t)length};
	return entry;
}

int seal_name_add(struct sealing *sealing, struct seal_ino *dir, const char *name, struct seal_ino *child, int64_t backlog,
		  struct error *error)
{
	struct db_conn *conn = seal_reader_conn(&sealing->reader, error);
	struct seal_name *entry;
	struct seal_ino *old;
	int64_t live = 0;
	int rc = 0;

	if (!conn)
		return ERR_FAILED;
	if (dir->known) {
		rc = catalogue_lookup(conn, CATALOGUE_LIVE, dir->ino, name, strlen(name), &live);
		if (rc && rc != ERR_ABSENT)
			return error_set(error, rc, 0, "catalogue: can't read a directory");
		live = rc ? 0 : live;
	}
	if (child) {
		rc = adopt(sealing, conn, live, child, error);
		seal_ino_number(sealing, child);
	} else {
		rc = 0;
	}
	entry = rc ? NULL : name_push(sealing, name);
	if (!entry)
		return rc ? rc : error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
	entry->dir = dir;
	entry->child = child;
	entry->was = live;
	entry->backlog = backlog;
	if (child && child->ino == live)
		return 0;
	if (child)
		child->added++;
	if (live) {
		rc = seal_ino_by_number(sealing, live, &old, error);
		if (!rc)
			old->removed++;
	}
	return rc;
}

static int name_order(const void *a, const void *b)
{
	const struct seal_name *x = a, *y = b;
	size_t shorter = x->length < y->length ? x->length : y->length;
	int order = (x->dir->ino > y->dir->ino) - (x->dir->ino < y->dir->ino);

	if (!order)
		order = memcmp(x->name, y->name, shorter);
	return order ? order : (int)x->length - (int)y->length;
}

/* First entry of a directory among the sorted ones. */
static size_t first_of(const struct sealing *sealing, int64_t dir)
{
	size_t low = 0, high = sealing->sorted;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (sealing->names[middle].dir->ino < dir)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool has_entry(const struct sealing *sealing, struct seal_ino *dir, const char *name, size_t length)
{
	struct seal_name wanted = {.dir = dir, .name = name, .length = (uint8_t)length};

	return sealing->sorted &&
	       bsearch(&wanted, sealing->names, sealing->sorted, sizeof(wanted), name_order) != NULL;
}

/* ---------------------------------------------------------------- what has no name left */

struct closing {
	struct sealing *sealing;
	struct seal_ino *dir, *list; /* list: inodes that lost a name and were not looked at since */
	struct error *error;
};

static void lost_name(struct closing *closing, struct seal_ino *ino)
{
	if (ino->listed)
		return;
	ino->listed = true;
	ino->next = closing->list;
	closing->list = ino;
}

static int count_name(void *context, int64_t dir, const void *name, size_t length)
{
	(void)dir, (void)name, (void)length;
	++*(int32_t *)context;
	return 0;
}

static int names_left(struct sealing *sealing, const struct seal_ino *ino, int32_t *left, struct error *error)
{
	int rc = 0;

	*left = ino->added - ino->removed;
	if (!ino->known)
		return 0;
	if (!ino->removed) { /* it had a name all the time */
		*left = 1;
		return 0;
	}
	struct db_conn *conn = seal_reader_conn(&sealing->reader, error);
	if (!conn)
		return ERR_FAILED;
	rc = catalogue_names_of(conn, CATALOGUE_LIVE, ino->ino, count_name, left);
	return rc ? error_set(error, rc, 0, "catalogue: can't read the names of inode %lld", (long long)ino->ino) : 0;
}

/* A name that is still live in a directory that is gone. */
static int end_live_name(void *context, const void *name, size_t length, int64_t number)
{
	struct closing *closing = context;
	struct sealing *sealing = closing->sealing;
	struct seal_ino *child;
	struct seal_name *entry;
	char text[256];
	int rc;

	if (length < 1 || length >= sizeof(text) || has_entry(sealing, closing->dir, name, length))
		return 0;
	memcpy(text, name, length);
	text[length] = '\0';
	rc = seal_ino_by_number(sealing, number, &child, closing->error);
	if (rc)
		return rc;
	entry = name_push(sealing, text);
	if (!entry)
		return error_errno(closing->error, ENOMEM, "version %lld", (long long)sealing->seq);
	entry->dir = closing->dir;
	entry->was = number;
	child->removed++;
	lost_name(closing, child);
	return 0;
}

/* Names that this version brings into a directory that it also removes: removed behind our back, between the two. */
static void cancel_new_names(struct closing *closing)
{
	struct sealing *sealing = closing->sealing;

	for (size_t i = first_of(sealing, closing->dir->ino); i < sealing->sorted; i++) {
		struct seal_name *entry = &sealing->names[i];
		if (entry->dir != closing->dir)
			break;
		if (!entry->child)
			continue;
		if (entry->child->ino == entry->was)
			entry->child->removed++;
		else
			entry->child->added--;
		lost_name(closing, entry->child);
		entry->child = NULL;
	}
}

static int close_directory(struct closing *closing, struct seal_ino *dir)
{
	struct sealing *sealing = closing->sealing;
	struct db_conn *conn;
	int rc;

	if (dir->expanded || !S_ISDIR(dir->type))
		return 0;
	dir->expanded = true;
	closing->dir = dir;
	cancel_new_names(closing);
	if (!dir->known)
		return 0;
	conn = seal_reader_conn(&sealing->reader, closing->error);
	if (!conn)
		return ERR_FAILED;
	/* The callback asks through the same reader: it must not be renewed meanwhile. */
	sealing->reader.since_ns = INT64_MAX;
	rc = catalogue_list(conn, CATALOGUE_LIVE, dir->ino, end_live_name, closing);
	sealing->reader.since_ns = 0;
	return rc && (!closing->error || !closing->error->code)
		       ? error_set(closing->error, rc, 0, "catalogue: can't read directory %lld", (long long)dir->ino) : rc;
}

/* A directory that is in the tree has a name there: this version does not know of it yet. One that the disk does not give may be there. */
static bool is_there(struct sealing *sealing, const struct seal_ino *dir)
{
	int fd = dir->key.length ? backing_reopen_key(volume_backing(sealing->env->volume), &dir->key, O_PATH | O_NOFOLLOW) : -ESTALE;
	struct stat st;

	if (fd < 0)
		return fd != -ESTALE && fd != -ENOENT;
	bool there = fstat(fd, &st) == 0 && st.st_nlink > 0;
	close(fd);
	return there;
}

/* The names that this version brings into a directory that is left to the import go there too. */
static void put_off_names(struct closing *closing, struct seal_ino *dir)
{
	struct sealing *sealing = closing->sealing;

	if (dir->expanded || !S_ISDIR(dir->type))
		return;
	dir->expanded = true;
	for (size_t i = first_of(sealing, dir->ino); i < sealing->sorted && sealing->names[i].dir == dir; i++) {
		struct seal_ino *child = sealing->names[i].child;
		if (!child)
			continue;
		child->added--;
		child->awaited = true;
		lost_name(closing, child);
	}
}

/* It has no name in this version. True when that does not mean that it is gone: its name is still in the backlog, where an operation may have changed it, or is put off. What the catalogue knows stays,
 * without a name until then, with all that is below; what it does not know waits for the import. */
static bool is_awaited(struct closing *closing, struct seal_ino *ino)
{
	struct sealing *sealing = closing->sealing;

	if (!ino->awaited && !(S_ISDIR(ino->type) && is_there(sealing, ino)))
		return false;
	if (!sealing->env->backlog && !ino->awaited) { /* moved behind our back */
		sealing->rescan = true;
		return ino->known;
	}
	if (!ino->known && !ino->sealed) {
		ino->deferred = true;
		put_off_names(closing, ino);
	}
	return true;
}

static int close_all(struct closing *closing)
{
	int rc = 0;

	while (closing->list && !rc) {
		struct seal_ino *ino = closing->list;
		int32_t left;
		closing->list = ino->next;
		ino->listed = false;
		if (ino->ino == CATALOGUE_ROOT_INO)
			continue;
		rc = names_left(closing->sealing, ino, &left, closing->error);
		ino->gone = !rc && (ino->vanished || (left <= 0 && !is_awaited(closing, ino)));
		if (ino->gone)
			rc = close_directory(closing, ino);
	}
	return rc;
}

static int work_order(const void *a, const void *b)
{
	const struct seal_ino *x = *(struct seal_ino *const *)a, *y = *(struct seal_ino *const *)b;

	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* What is new goes into the packs in the order in which a reader of the tree will want it: directory by directory, by name. */
static void order_work(struct sealing *sealing)
{
	for (size_t i = 0; i < sealing->sorted; i++) {
		struct seal_ino *child = sealing->names[i].child;
		if (child && !child->place)
			child->place = i + 1;
	}
	if (sealing->work_count)
		qsort(sealing->work, sealing->work_count, sizeof(*sealing->work), work_order);
}

int seal_names_settle(struct sealing *sealing, struct error *error)
{
	struct closing closing = {.sealing = sealing, .error = error};

	if (sealing->name_count)
		qsort(sealing->names, sealing->name_count, sizeof(*sealing->names), name_order);
	sealing->sorted = sealing->name_count;
	order_work(sealing);
	for (size_t i = 0; i < sealing->buckets; i++)
		for (struct seal_ino *ino = sealing->by_ino[i]; ino; ino = ino->same_ino)
			lost_name(&closing, ino);
	/* Items without a number have no name and never had one. */
	for (size_t i = 0; i < sealing->buckets; i++)
		for (struct seal_ino *ino = sealing->by_key[i]; ino; ino = ino->same_key)
			if (!ino->ino)
				ino->gone = true;
	return close_all(&closing);
}

/* ---------------------------------------------------------------- into the delta */

static int end_vanished_name(void *context, int64_t number, const void *name, size_t length)
{
	struct closing *closing = context;
	struct sealing *sealing = closing->sealing;
	struct seal_ino *dir;
	struct seal_name *entry;
	char text[256];
	int rc = length < sizeof(text) ? seal_ino_by_number(sealing, number, &dir, closing->error) : ERR_CORRUPT;

	if (rc || has_entry(sealing, dir, name, length))
		return rc;
	memcpy(text, name, length);
	text[length] = '\0';
	entry = name_push(sealing, text);
	if (!entry)
		return error_errno(closing->error, ENOMEM, "version %lld", (long long)sealing->seq);
	entry->dir = dir;
	entry->was = closing->dir->ino;
	behind_name(sealing->env->volume, &dir->key, text);
	return 0;
}

/* The names that it has in the catalogue and that this version would leave alone. */
static int end_names_of(struct closing *closing, struct seal_ino *ino)
{
	struct sealing *sealing = closing->sealing;
	struct db_conn *conn = ino->known ? seal_reader_conn(&sealing->reader, closing->error) : NULL;
	int rc;

	if (!conn)
		return ino->known ? ERR_FAILED : 0;
	closing->dir = ino;
	sealing->reader.since_ns = INT64_MAX;
	rc = catalogue_names_of(conn, CATALOGUE_LIVE, ino->ino, end_vanished_name, closing);
	sealing->reader.since_ns = 0;
	return rc ? error_set(closing->error, rc, 0, "catalogue: can't read the names of inode %lld", (long long)ino->ino) : 0;
}

/* What was removed behind our back, found when it was to be captured. */
static int close_vanished(struct sealing *sealing, struct error *error)
{
	struct closing closing = {.sealing = sealing, .error = error};

	for (size_t i = 0; i < sealing->sorted; i++) {
		struct seal_name *entry = &sealing->names[i];
		if (entry->child && entry->child->vanished) {
			behind_name(sealing->env->volume, &entry->dir->key, entry->name);
			lost_name(&closing, entry->child);
			if (entry->child->ino != entry->was)
				entry->child = NULL;
		}
	}
	for (size_t i = 0; i < sealing->work_count; i++) {
		if (!sealing->work[i]->vanished)
			continue;
		lost_name(&closing, sealing->work[i]);
		sealing->rescan = true; /* there may be more */
		int rc = end_names_of(&closing, sealing->work[i]);
		if (rc)
			return rc;
	}
	return close_all(&closing);
}

static bool in_version(const struct seal_ino *ino) { return (ino->known || ino->sealed) && !ino->gone; }

static int emit_name(struct sealing *sealing, struct seal_name *entry, struct error *error)
{
	struct seal_ino *dir = entry->dir, *child = entry->child;

	if (child && child->ino == entry->was && !child->vanished)
		return 0; /* as it was */
	if (child && (!in_version(child) || !in_version(dir))) {
		entry->put_off = !child->vanished && !dir->gone;
		entry->unreadable = entry->put_off && (in_version(dir) ? child->unreadable : dir->unreadable);
		sealing->partial |= entry->put_off && !entry->unreadable;
		sealing->lacking |= entry->unreadable;
		child = NULL;
	}
	if (child) {
		atomic_fetch_add(&sealing->changes, 1);
		return delta_add_name(sealing->delta, dir->ino, entry->name, entry->length, child->ino, error);
	}
	if (!entry->was)
		return 0;
	atomic_fetch_add(&sealing->changes, 1);
	return delta_add_name_end(sealing->delta, dir->ino, entry->name, entry->length, error);
}

int seal_names_emit(struct sealing *sealing, struct error *error)
{
	int rc = close_vanished(sealing, error);

	for (size_t i = 0; i < sealing->name_count && !rc; i++)
		rc = emit_name(sealing, &sealing->names[i], error);
	for (size_t i = 0; i < sealing->buckets && !rc; i++)
		for (struct seal_ino *ino = sealing->by_ino[i]; ino && !rc; ino = ino->same_ino)
			if (ino->gone && (ino->known || ino->sealed))
				rc = seal_inode_end(sealing, ino, error);
	return rc;
}

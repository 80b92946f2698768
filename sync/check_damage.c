/* What a check found, and which files it concerns. */
#include "check_internal.h"

#include "bytes.h"
#include "catalogue.h"
#include "db_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 2048
#define PATH_ROOM 16384

int damage_add(struct checking *checking, const char *object, const char *why, int64_t pack, const int64_t *chunks,
	       size_t count, struct error *error)
{
	struct damage *grown, damage = {.pack = pack, .chunk_count = count};

	snprintf(damage.object, sizeof(damage.object), "%s", object);
	snprintf(damage.why, sizeof(damage.why), "%s", why);
	if (count) {
		damage.chunks = malloc(count * sizeof(*chunks));
		if (!damage.chunks)
			return error_errno(error, ENOMEM, "%s", object);
		memcpy(damage.chunks, chunks, count * sizeof(*chunks));
	}
	pthread_mutex_lock(&checking->lock);
	grown = reallocarray(checking->damages, checking->damage_count + 1, sizeof(*grown));
	if (grown) {
		checking->damages = grown;
		grown[checking->damage_count++] = damage;
		checking->out->damaged_objects++;
	}
	pthread_mutex_unlock(&checking->lock);
	if (grown)
		return 0;
	free(damage.chunks);
	return error_errno(error, ENOMEM, "%s", object);
}

void damage_free(struct checking *checking)
{
	for (size_t i = 0; i < checking->damage_count; i++)
		free(checking->damages[i].chunks);
	free(checking->damages);
	checking->damages = NULL;
	checking->damage_count = 0;
}

/* ---------------------------------------------------------------- chunks to files */

static int mark_chunk(struct db_conn *work, int64_t chunk, size_t damage, struct error *error)
{
	return db_step(work, error, "INSERT OR IGNORE INTO check_chunk(chunk, damage) VALUES(?, ?)", "ii", chunk,
		       (int64_t)damage);
}

static int mark_pack(struct db_conn *catalogue, struct db_conn *work, int64_t pack, size_t damage, struct error *error)
{
	int rc = db_step(catalogue, error, "SELECT num FROM chunk WHERE pack=?", "i", pack);
	sqlite3_stmt *stmt = db_last(catalogue);

	while (rc == 1) {
		rc = mark_chunk(work, db_int(stmt, 0), damage, error);
		rc = rc ? rc : db_next(catalogue, stmt, error);
	}
	if (stmt)
		db_reset(stmt);
	return rc;
}

static int mark_all(struct checking *checking, struct db_conn *catalogue, struct db_conn *work, struct error *error)
{
	int rc = 0;

	for (size_t i = 0; i < checking->damage_count && !rc; i++) {
		const struct damage *damage = &checking->damages[i];
		if (damage->pack)
			rc = mark_pack(catalogue, work, damage->pack, i, error);
		for (size_t c = 0; c < damage->chunk_count && !rc; c++)
			rc = mark_chunk(work, damage->chunks[c], i, error);
	}
	return rc;
}

/* One extent: if its chunk is damaged, its file is, in those versions. */
static int mark_extent(struct db_conn *work, const sqlite3_stmt *extent, struct error *error)
{
	sqlite3_stmt *row = (sqlite3_stmt *)extent;

	return db_step(work, error,
		       "INSERT INTO check_file(damage, ino, first, last) SELECT damage, ?, ?, ? FROM check_chunk WHERE chunk=? "
		       "ON CONFLICT DO UPDATE SET first=min(first, excluded.first), last=max(last, excluded.last)",
		       "iiii", db_int(row, 0), db_int(row, 1), db_int(row, 2), db_int(row, 3));
}

/* One pass over all extents, whatever the number of damaged objects: extents are not indexed by chunk. */
static int mark_files(struct db_conn *catalogue, struct db_conn *work, int64_t head, struct error *error)
{
	int rc = db_step(catalogue, error,
			 "SELECT ino, vfrom, ?, chunk FROM extent WHERE vfrom<=? UNION ALL "
			 "SELECT ino, vfrom, min(vto-1, ?), chunk FROM extent_past WHERE vfrom<=?",
			 "iiii", head, head, head, head);
	sqlite3_stmt *stmt = db_last(catalogue);

	while (rc == 1) {
		rc = mark_extent(work, stmt, error);
		rc = rc ? rc : db_next(catalogue, stmt, error);
	}
	if (stmt)
		db_reset(stmt);
	return rc;
}

/* ---------------------------------------------------------------- paths */

struct step {
	int64_t dir;
	char name[256];
	size_t length;
};

static int first_name(void *context, int64_t dir, const void *name, size_t length)
{
	struct step *step = context;

	if (length >= sizeof(step->name))
		return ERR_CORRUPT;
	step->dir = dir;
	memcpy(step->name, name, length);
	step->name[length] = '\0';
	step->length = length;
	return 1;
}

/* The path of an inode in a version, escaped; "inode N" when there is none. Of hard links the first. */
static void path_of(struct db_conn *catalogue, int64_t seq, int64_t ino, char *out, size_t room)
{
	char path[PATH_ROOM];
	size_t at = sizeof(path) - 1;
	int64_t node = ino;

	path[at] = '\0';
	for (int depth = 0; node != CATALOGUE_ROOT_INO && depth < DEPTH_MAX; depth++) {
		struct step step;
		if (catalogue_names_of(catalogue, seq, node, first_name, &step) != 1 || step.length + 1 > at)
			break;
		if (path[at])
			path[--at] = '/';
		at -= step.length;
		memcpy(path + at, step.name, step.length);
		node = step.dir;
	}
	if (node == CATALOGUE_ROOT_INO && path[at])
		escape_text(out, room, path + at);
	else
		snprintf(out, room, "inode %lld", (long long)ino);
}

static void report_file(struct checking *checking, struct db_conn *catalogue, int64_t ino, int64_t first, int64_t last)
{
	char path[PATH_ROOM], line[PATH_ROOM + 80];

	path_of(catalogue, last, ino, path, sizeof(path));
	if (first == last)
		snprintf(line, sizeof(line), "  file: %s, version %lld", path, (long long)first);
	else
		snprintf(line, sizeof(line), "  file: %s, versions %lld-%lld", path, (long long)first, (long long)last);
	checking->report(checking->context, line);
}

static int report_all(struct checking *checking, struct db_conn *catalogue, struct db_conn *work, struct error *error)
{
	for (size_t i = 0; i < checking->damage_count; i++) {
		const struct damage *damage = &checking->damages[i];
		char line[sizeof(damage->object) + sizeof(damage->why) + 20];
		snprintf(line, sizeof(line), "damaged: %s: %s", damage->object, damage->why);
		checking->report(checking->context, line);
		if (!catalogue)
			continue;
		int rc = db_step(work, error, "SELECT ino, first, last FROM check_file WHERE damage=? ORDER BY ino", "i",
				 (int64_t)i);
		sqlite3_stmt *stmt = db_last(work);
		for (; rc == 1; rc = db_next(work, stmt, error))
			report_file(checking, catalogue, db_int(stmt, 0), db_int(stmt, 1), db_int(stmt, 2));
		if (rc < 0)
			return rc;
	}
	int rc = db_step(work, error, "SELECT count(DISTINCT ino) FROM check_file", "");
	if (rc < 0)
		return rc;
	checking->out->damaged_files = (uint64_t)db_int(db_last(work), 0);
	db_reset(db_last(work));
	return 0;
}

int damage_report(struct checking *checking, struct error *error)
{
	struct db_conn *work, *catalogue = NULL;
	int rc;

	if (!checking->damage_count)
		return 0;
	rc = db_begin(checking->work, false, &work, error);
	if (rc)
		return rc;
	if (checking->catalogue)
		rc = db_read_begin(checking->catalogue, &catalogue, error);
	if (!rc && catalogue)
		rc = mark_all(checking, catalogue, work, error);
	if (!rc && catalogue)
		rc = mark_files(catalogue, work, db_meta_int(catalogue, "head", 0), error);
	if (!rc)
		rc = report_all(checking, catalogue, work, error);
	if (catalogue)
		db_read_end(checking->catalogue, catalogue);
	db_rollback(checking->work);
	return rc;
}

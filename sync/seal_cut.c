/* A cut becomes a version: names, then each inode as it was at the cut (sealing.h, PROTOCOL Seal). */
#include "sealing.h"

#include "failpoint.h"

#include <sys/stat.h>

/* A file that no version holds, and of which only parts changed since the cut was taken, can be read as of the cut only if nobody touches the rest meanwhile. Larger ones are left to the import. */
#define TRY_BYTES (INT64_C(64) << 20)

/* ---------------------------------------------------------------- one inode: a sealer's work */

struct source { /* a file of the cut */
	struct frozen *frozen;
	bool failed; /* the tree's disk did not give its bytes */
};

static int heed(struct source *source, int rc, const struct error *error)
{
	source->failed |= seal_is_unreadable(rc, error);
	return rc;
}

static int read_frozen(void *context, void *data, size_t length, int64_t offset, struct error *error)
{
	struct source *source = context;

	return heed(source, frozen_read(source->frozen, data, length, offset, error), error);
}

static int64_t next_frozen(void *context, int64_t offset, int64_t end)
{
	return frozen_next_data(((struct source *)context)->frozen, offset, end);
}

static int64_t hole_frozen(void *context, int64_t offset, int64_t end)
{
	return frozen_next_hole(((struct source *)context)->frozen, offset, end);
}

/* Who wants those can do without: a refusal is none of the version's. */
static int read_unchanged(void *context, void *data, size_t length, int64_t offset, struct error *error)
{
	return frozen_read_unchanged(((struct source *)context)->frozen, data, length, offset, error);
}

/* A file without a base: changed ranges as of the cut, the rest if it is unchanged since. */
static int read_either(void *context, void *data, size_t length, int64_t offset, struct error *error)
{
	struct source *source = context;
	const struct extent_map *changed = frozen_extents(source->frozen);
	int64_t at = offset, end = offset + (int64_t)length;
	uint8_t *out = data;
	int rc = 0;

	while (at < end && !rc) {
		struct extent range;
		bool any = extent_map_next(changed, at, &range);
		bool inside = any && range.start <= at;
		int64_t stop = !any ? end : inside ? range.end : range.start;
		if (stop > end)
			stop = end;
		if (inside)
			rc = frozen_read(source->frozen, out + (at - offset), (size_t)(stop - at), at, error);
		else
			rc = frozen_read_unchanged(source->frozen, out + (at - offset), (size_t)(stop - at), at, error);
		at = stop;
	}
	return heed(source, rc, error);
}

static int64_t no_holes(void *context, int64_t offset, int64_t end)
{
	(void)context, (void)end;
	return offset;
}

/* A file of which only parts are of the cut, and that no version holds; or a version does, but others have changed it since: its stat, which is kept as that of what was captured (I8), is then true only if all of it is
 * read. One that could not be read the last time has its own time for the next try: a bad disk takes long to say no. */
static int seal_whole_now(struct seal_worker *worker, struct seal_ino *ino, struct seal_content *content, bool *any, struct error *error)
{
	struct db_conn *conn = worker->sealing->env->unreadable_rows ? seal_reader_conn(&worker->reader, NULL) : NULL;

	ino->unreadable = conn && backlog_is_unreadable(conn, &ino->key);
	if (ino->unreadable || content->size > TRY_BYTES) {
		ino->deferred = true;
		return 0;
	}
	content->read = read_either;
	content->next_data = no_holes;
	content->next_hole = NULL;
	int rc = seal_file(worker, ino->ino, content, NULL, any, error);
	ino->whole = !rc;
	ino->deferred = rc == ERR_BUSY; /* its rows were not made yet: they come after the last byte */
	return rc == ERR_BUSY ? 0 : rc;
}

/* In place: nothing of it is older than what the cut has. */
static bool is_written_anew(struct frozen *frozen, int64_t size)
{
	struct extent range;

	return size == 0 || (extent_map_next(frozen_extents(frozen), 0, &range) && range.start == 0 && range.end >= size);
}

static int seal_bytes(struct seal_worker *worker, struct seal_ino *ino, const struct attrs *attrs, bool *any, struct error *error)
{
	struct source source = {.frozen = ino->frozen};
	struct seal_content content = {.read = read_frozen, .next_data = next_frozen, .next_hole = hole_frozen, .read_unchanged = read_unchanged,
				       .context = &source, .size = attrs->st.st_size};
	int rc;

	if (frozen_whole(ino->frozen) || (!ino->captured && is_written_anew(ino->frozen, content.size))) {
		ino->whole = true;
		rc = seal_file(worker, ino->ino, &content, NULL, any, error);
	} else if (ino->captured && !frozen_changed_behind(ino->frozen, attrs)) {
		rc = seal_file(worker, ino->ino, &content, frozen_extents(ino->frozen), any, error);
	} else {
		rc = seal_whole_now(worker, ino, &content, any, error);
	}
	return source.failed && seal_is_unreadable(rc, error) ? seal_put_off_unreadable(worker, ino, error) : rc;
}

static int capture(struct seal_worker *worker, struct seal_ino *ino, struct error *error)
{
	struct attrs attrs = {0};
	bool any = false;
	int rc = frozen_attrs(ino->frozen, &attrs);

	if (rc == ERR_ABSENT) {
		rc = seal_put_off_stale(worker, ino, error);
		goto out;
	}
	if (rc == ERR_DENIED) {
		error_errno(error, frozen_unreadable(ino->frozen), "reading a changed inode");
		rc = seal_put_off_unreadable(worker, ino, error);
		goto out;
	}
	if (rc) {
		error_set(error, rc, 0, "reading a changed inode: %s", error_word(rc));
		goto out;
	}
	ino->row.size = attrs.st.st_size; /* an estimate, if it is put off */
	if (S_ISREG(attrs.st.st_mode))
		rc = seal_bytes(worker, ino, &attrs, &any, error);
	else
		ino->whole = true;
	if (rc == ERR_ABSENT) {
		rc = seal_put_off_stale(worker, ino, error);
		goto out;
	}
	if (!rc && !ino->deferred)
		rc = seal_inode_row(worker, ino, &attrs, !any, error); /* other rows of an inode never change without this one */
	if (!rc && !ino->deferred)
		seal_captured(worker, ino, &attrs, worker->sealing->cut_ns);
out:
	attrs_free(&attrs);
	frozen_done(ino->frozen);
	return rc;
}

/* ---------------------------------------------------------------- the items */

struct naming {
	struct sealing *sealing;
	struct seal_ino *dir;
	struct error *error;
};

static int add_name(void *context, const char *name, const struct node_key *child, mode_t type)
{
	struct naming *naming = context;
	struct seal_ino *ino = NULL;
	int rc = child ? seal_ino_by_key(naming->sealing, child, type, &ino, naming->error) : 0;

	return rc ? rc : seal_name_add(naming->sealing, naming->dir, name, ino, 0, naming->error);
}

static int add_names(struct sealing *sealing, struct seal_ino *dir, struct error *error)
{
	struct naming naming = {sealing, dir, error};

	return frozen_names(dir->frozen, add_name, &naming);
}

static int add_items(struct sealing *sealing, struct error *error)
{
	int rc = 0;

	for (size_t i = 0; i < cut_count(sealing->cut) && !rc; i++) {
		struct frozen *frozen = cut_item(sealing->cut, i);
		struct seal_ino *ino;
		rc = seal_ino_by_key(sealing, frozen_key(frozen), frozen_type(frozen), &ino, error);
		if (rc)
			break;
		ino->frozen = frozen;
		rc = seal_want(sealing, ino, 0, error);
	}
	return rc;
}

/* The names of all directories that have a number, or of all that are left. *any: there were some. */
static int add_names_once(struct sealing *sealing, bool numbered, bool *any, struct error *error)
{
	int rc = 0;

	*any = false;
	for (size_t i = 0; i < sealing->work_count && !rc; i++) {
		struct seal_ino *ino = sealing->work[i];
		if (ino->listed || !S_ISDIR(ino->type) || (numbered && !ino->ino))
			continue;
		seal_ino_number(sealing, ino);
		ino->listed = *any = true;
		rc = add_names(sealing, ino, error);
	}
	return rc;
}

/* From known directories down: what a directory holds gets its number (perhaps one that the catalogue has for that name) before its own names are looked at. Last those that nothing leads to. */
static int add_all_names(struct sealing *sealing, struct error *error)
{
	bool any = true;
	int rc = 0;

	while (!rc && any)
		rc = add_names_once(sealing, true, &any, error);
	if (!rc)
		rc = add_names_once(sealing, false, &any, error);
	for (size_t i = 0; i < sealing->work_count; i++)
		sealing->work[i]->listed = false;
	return rc;
}

static int build(struct sealing *sealing, struct error *error)
{
	int rc = 0;

	if (sealing->cut) {
		sealing->capture = capture;
		rc = add_items(sealing, error);
		FAILPOINT("seal/items");
		if (!rc)
			rc = add_all_names(sealing, error);
		if (!rc)
			rc = seal_names_settle(sealing, error);
		FAILPOINT("seal/names");
		if (!rc)
			rc = seal_run(sealing, error);
		if (!rc)
			rc = seal_names_emit(sealing, error);
	}
	return rc;
}

int seal_cut(struct seal_env *env, struct cut *cut, bool partial, bool force, bool *rescan, struct error *error)
{
	struct sealing *sealing;
	bool committed = false;
	int rc = sealing_new(env, cut, &sealing, error);

	if (!rc) {
		sealing->partial = partial;
		rc = build(sealing, error);
		if (!rc)
			rc = sealing_commit(sealing, force, &committed, error);
		*rescan |= !rc && sealing->rescan;
		if (!rc)
			cut = NULL;
		else
			sealing_give_up(sealing, rc);
		sealing_free(sealing);
	}
	FAILPOINT("seal/end");
	if (cut)
		cut_abandon(cut);
	return rc;
}

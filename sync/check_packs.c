/* Every pack that the catalogue names against the listing of the store. */
#include "check_internal.h"

#include "catalogue.h"
#include "db_internal.h"
#include "io.h"
#include "pack_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- listing */

struct listing {
	struct db_conn *work;
	struct error *error;
	int rc;
};

static int on_object(void *context, const struct store_object *object)
{
	struct listing *listing = context;

	listing->rc = db_step(listing->work, listing->error, "INSERT OR REPLACE INTO check_object(key, size) VALUES(?, ?)",
			      "ti", object->key, (int64_t)object->size);
	return listing->rc ? 1 : 0;
}

static int list_objects(struct checking *checking, struct db_conn *work, struct error *error)
{
	static const char *const prefixes[] = {"pack/", "log/"};
	struct listing listing = {.work = work, .error = error};

	for (size_t i = 0; i < 2; i++) {
		int rc = store_list(checking->store, prefixes[i], NULL, on_object, &listing, error);
		if (rc < 0 || listing.rc)
			return rc < 0 ? rc : listing.rc;
	}
	return 0;
}

/* ---------------------------------------------------------------- presence */

struct chosen { /* packs to read */
	struct pack_row *packs;
	size_t count, room;
};

static int choose(struct chosen *chosen, const struct pack_row *pack, struct error *error)
{
	if (chosen->count == chosen->room) {
		size_t room = chosen->room ? 2 * chosen->room : 64;
		struct pack_row *grown = reallocarray(chosen->packs, room, sizeof(*grown));
		if (!grown)
			return error_errno(error, ENOMEM, "packs");
		chosen->packs = grown;
		chosen->room = room;
	}
	chosen->packs[chosen->count++] = *pack;
	return 0;
}

static bool by_chance(int percent)
{
	uint32_t random;

	if (percent >= 100)
		return true;
	io_random(&random, sizeof(random));
	return random % 10000 < (uint32_t)percent * 100;
}

/* "" when it is as the catalogue says. */
static int compare_size(struct db_conn *work, const struct pack_row *pack, const char *key, char *why, size_t room,
			struct error *error)
{
	int64_t size = 0, wanted = pack->size + (pack->record ? RECORD_HEADER_BYTES : 0);
	int rc = db_step(work, error, "SELECT size FROM check_object WHERE key=?", "t", key);

	why[0] = '\0';
	if (rc < 0)
		return rc;
	if (rc == 1) {
		size = db_int(db_last(work), 0);
		db_reset(db_last(work));
	}
	if (rc == 0)
		snprintf(why, room, "it is not in the remote");
	else if (size < wanted || (!pack->record && size > wanted))
		snprintf(why, room, "it has %" PRId64 " bytes instead of %" PRId64, size, wanted);
	return 0;
}

static int check_presence(struct checking *checking, struct db_conn *work, const struct pack_row *pack,
			  struct chosen *chosen, struct error *error)
{
	char key[RECORD_KEY_BYTES], why[160];
	int rc;

	if (pack->record)
		record_key(key, pack->record);
	else
		pack_key(key, pack->id);
	rc = compare_size(work, pack, key, why, sizeof(why), error);
	if (rc)
		return rc;
	checking->out->packs++;
	if (why[0])
		return damage_add(checking, key, why, pack->num, NULL, 0, error);
	return checking->percent > 0 && by_chance(checking->percent) ? choose(chosen, pack, error) : 0;
}

static int read_pack_row(sqlite3_stmt *row, struct pack_row *out)
{
	*out = (struct pack_row){.num = db_int(row, 0), .size = db_int(row, 4), .record = db_int(row, 5)};
	return db_blob(row, 1, out->id, sizeof(out->id)) || db_blob(row, 2, out->salt, sizeof(out->salt)) ||
			       db_blob(row, 3, out->hash, sizeof(out->hash)) ? ERR_CORRUPT : 0;
}

static int check_all(struct checking *checking, struct db_conn *catalogue, struct db_conn *work, struct chosen *chosen,
		     struct error *error)
{
	int rc = db_step(catalogue, error, "SELECT num, id, salt, hash, size, record FROM pack WHERE vfrom<=? ORDER BY num", "i",
			 db_meta_int(catalogue, "confirmed", 0));
	sqlite3_stmt *stmt = db_last(catalogue);

	while (rc == 1) {
		struct pack_row pack;
		rc = read_pack_row(stmt, &pack) ? error_set(error, ERR_CORRUPT, 0, "catalogue: malformed pack row") : 0;
		if (!rc)
			rc = check_presence(checking, work, &pack, chosen, error);
		rc = rc ? rc : db_next(catalogue, stmt, error);
	}
	if (stmt)
		db_reset(stmt);
	return rc;
}

int check_packs(struct checking *checking, struct error *error)
{
	struct chosen chosen = {0};
	struct db_conn *work, *catalogue;
	int rc = db_begin(checking->work, false, &work, error);

	if (rc)
		return rc;
	if (checking->progress)
		checking->progress(checking->context, "listing packs", 0, 0, "packs");
	/* The catalogue first: whatever it names was there before. */
	rc = db_read_begin(checking->catalogue, &catalogue, error);
	if (!rc) {
		rc = list_objects(checking, work, error);
		if (!rc)
			rc = check_all(checking, catalogue, work, &chosen, error);
		db_read_end(checking->catalogue, catalogue);
	}
	db_rollback(checking->work);
	if (!rc && chosen.count)
		rc = check_read(checking, chosen.packs, chosen.count, error);
	free(chosen.packs);
	return rc;
}

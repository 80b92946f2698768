#include "catalogue.h"
#include "db_internal.h"

#include <stdlib.h>
#include <string.h>

/* --- Chunks and packs --- */

#define CHUNK_COLUMNS "chunk.num, chunk.id, chunk.pack, chunk.idx, chunk.offset, chunk.stored, chunk.length, chunk.codec, chunk.dictionary"

static int chunk_get(sqlite3_stmt *stmt, int first, struct chunk_row *out)
{
	*out = (struct chunk_row){
		.num = db_int(stmt, first), .pack = db_int(stmt, first + 2), .idx = db_int(stmt, first + 3),
		.offset = db_int(stmt, first + 4), .stored = db_int(stmt, first + 5), .length = db_int(stmt, first + 6),
		.codec = db_int(stmt, first + 7), .dictionary = db_int(stmt, first + 8),
	};
	return db_blob(stmt, first + 1, out->id, sizeof(out->id));
}

static int one_chunk(struct db_conn *conn, int rc, struct chunk_row *out)
{
	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	rc = chunk_get(db_last(conn), 0, out);
	db_reset(db_last(conn));
	return rc;
}

static int one_pack(struct db_conn *conn, int rc, struct pack_row *out)
{
	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	sqlite3_stmt *stmt = db_last(conn);
	*out = (struct pack_row){.num = db_int(stmt, 0), .size = db_int(stmt, 4), .record = db_int(stmt, 5)};
	rc = db_blob(stmt, 1, out->id, sizeof(out->id)) || db_blob(stmt, 2, out->salt, sizeof(out->salt)) ||
	     db_blob(stmt, 3, out->hash, sizeof(out->hash)) ? ERR_CORRUPT : 0;
	db_reset(stmt);
	return rc;
}

int catalogue_pack(struct db_conn *conn, int64_t num, struct pack_row *out)
{
	return one_pack(conn, db_step(conn, NULL, "SELECT num, id, salt, hash, size, record FROM pack WHERE num=?", "i", num), out);
}

int catalogue_pack_by_id(struct db_conn *conn, const uint8_t id[16], struct pack_row *out)
{
	return one_pack(conn, db_step(conn, NULL, "SELECT num, id, salt, hash, size, record FROM pack WHERE id=?", "b", id,
				      (size_t)16), out);
}

int catalogue_chunk_by_id(struct db_conn *conn, const uint8_t id[16], struct chunk_row *out)
{
	return one_chunk(conn, db_step(conn, NULL,
				       "SELECT " CHUNK_COLUMNS " FROM chunk WHERE id=? AND pack NOT IN (SELECT pack FROM distrusted) "
				       "LIMIT 1", "b", id, (size_t)16), out);
}

int catalogue_chunk(struct db_conn *conn, int64_t num, struct chunk_row *out)
{
	return one_chunk(conn, db_step(conn, NULL, "SELECT " CHUNK_COLUMNS " FROM chunk WHERE num=?", "i", num), out);
}

/* --- Extents --- */

struct places {
	struct extent_place *list;
	size_t count, room;
};

static int places_add(struct places *places, sqlite3_stmt *stmt)
{
	if (places->count == places->room) {
		size_t room = places->room ? places->room * 2 : 64;
		struct extent_place *list = reallocarray(places->list, room, sizeof(*list));
		if (!list)
			return ERR_NOMEM;
		places->list = list;
		places->room = room;
	}
	struct extent_place *place = &places->list[places->count];
	*place = (struct extent_place){.start = db_int(stmt, 0), .length = db_int(stmt, 1), .skip = db_int(stmt, 2)};
	if (sqlite3_column_type(stmt, 3) == SQLITE_NULL || chunk_get(stmt, 3, &place->chunk) ||
	    place->skip < 0 || place->length < 1 || place->length > place->chunk.length - place->skip)
		return ERR_CORRUPT; /* no such chunk, or not that long */
	places->count++;
	return 0;
}

static int places_rows(struct places *places, struct db_conn *conn, int rc)
{
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		rc = places_add(places, stmt);
		if (rc)
			db_reset(stmt);
		else
			rc = db_next(conn, stmt, NULL);
	}
	return rc;
}

/* An extent that intersects [from, to) begins before `to`, and after `from` minus the longest extent. */
#define PLACES "SELECT e.start, e.length, e.skip, " CHUNK_COLUMNS " FROM "
#define PLACES_RANGE " AND e.start>=?3 AND e.start<?4 AND e.start+e.length>?5"

static int places_past(struct places *places, struct db_conn *conn, int64_t seq, int64_t ino, int64_t low, int64_t to,
		       int64_t from)
{
	int64_t forks[64];
	int rc = db_step(conn, NULL, "SELECT max(seq) FROM version", "");
	if (rc != 1)
		return rc;
	int count = catalogue_ancestors(seq, db_int(db_last(conn), 0), forks);
	db_reset(db_last(conn));
	rc = 0;
	for (int i = 0; i < count && !rc; i++) {
		if (forks[i] <= seq)
			rc = db_step(conn, NULL,
				     PLACES "extent_past AS e LEFT JOIN chunk ON chunk.num=e.chunk "
				     "WHERE e.ino=?1 AND e.fork=?6 AND e.vto>?2" PLACES_RANGE,
				     "iiiiii", ino, seq, low, to, from, forks[i]);
		else
			rc = db_step(conn, NULL,
				     PLACES "extent_past AS e INDEXED BY extent_past_lower LEFT JOIN chunk ON chunk.num=e.chunk "
				     "WHERE e.ino=?1 AND e.fork=?6 AND e.vfrom<=?2" PLACES_RANGE,
				     "iiiiii", ino, seq, low, to, from, forks[i]);
		rc = places_rows(places, conn, rc);
	}
	return rc;
}

static int by_start(const void *a, const void *b)
{
	const struct extent_place *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

int catalogue_extents(struct db_conn *conn, int64_t seq, int64_t ino, int64_t from, int64_t to,
		      struct extent_place **out, size_t *count)
{
	struct places places = {0};
	int64_t low = from > CATALOGUE_MAX_CHUNK_BYTES ? from - CATALOGUE_MAX_CHUNK_BYTES : 0;
	int rc = db_step(conn, NULL,
			 PLACES "extent AS e LEFT JOIN chunk ON chunk.num=e.chunk WHERE e.ino=?1 AND e.vfrom<=?2" PLACES_RANGE
			 " ORDER BY e.start", "iiiii", ino, seq, low, to, from);

	*out = NULL;
	*count = 0;
	rc = places_rows(&places, conn, rc);
	size_t live = places.count;
	if (!rc && seq != CATALOGUE_LIVE)
		rc = places_past(&places, conn, seq, ino, low, to, from);
	if (!rc && places.count > live)
		qsort(places.list, places.count, sizeof(*places.list), by_start);
	for (size_t i = 1; i < places.count && !rc; i++)
		if (places.list[i - 1].start + places.list[i - 1].length > places.list[i].start)
			rc = ERR_CORRUPT;
	if (rc) {
		free(places.list);
		return rc;
	}
	*out = places.list;
	*count = places.count;
	return 0;
}

/* total() is a double: exact up to 2^53, and no overflow, whatever a damaged row says. */
#define DATA "SELECT CAST(total(length) AS INTEGER) FROM "

static int add_bytes(struct db_conn *conn, int rc, uint64_t *bytes)
{
	if (rc != 1)
		return rc < 0 ? rc : ERR_CORRUPT;
	int64_t found = db_int(db_last(conn), 0);
	db_reset(db_last(conn));
	if (found > 0)
		*bytes += (uint64_t)found;
	return 0;
}

int catalogue_data_bytes(struct db_conn *conn, int64_t seq, int64_t ino, uint64_t *bytes)
{
	int64_t forks[64];
	int count = 0, rc;

	*bytes = 0;
	rc = add_bytes(conn, db_step(conn, NULL, DATA "extent WHERE ino=?1 AND vfrom<=?2", "ii", ino, seq), bytes);
	if (rc || seq == CATALOGUE_LIVE)
		return rc;
	rc = db_step(conn, NULL, "SELECT max(seq) FROM version", "");
	if (rc != 1)
		return rc;
	count = catalogue_ancestors(seq, db_int(db_last(conn), 0), forks);
	db_reset(db_last(conn));
	rc = 0;
	for (int i = 0; i < count && !rc; i++)
		rc = add_bytes(conn, forks[i] <= seq ?
			       db_step(conn, NULL, DATA "extent_past WHERE ino=?1 AND fork=?3 AND vto>?2", "iii", ino, seq, forks[i]) :
			       db_step(conn, NULL, DATA "extent_past INDEXED BY extent_past_lower WHERE ino=?1 AND fork=?3 AND vfrom<=?2",
				       "iii", ino, seq, forks[i]), bytes);
	return rc;
}

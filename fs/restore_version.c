#include "restore_version.h"

#include "clock.h"
#include "human.h"
#include "when.h"

#include <string.h>

static int no_version(struct db_conn *conn, const char *at, int rc, struct error *error)
{
	struct version_row oldest = { 0 };
	char name[WHEN_NAME_BYTES];

	if (rc != ERR_ABSENT)
		return error_set(error, rc, 0, "the catalogue can't be read: %s", error_word(rc));
	/* Versions ascend in time with their numbers. */
	for (int64_t seq = 1; oldest.seq == 0; seq++) {
		struct version_row newest;

		if (catalogue_version_newest(conn, false, &newest) != 0 || seq > newest.seq)
			return error_set(error, ERR_ABSENT, 0, "--at %s: the volume has no version yet; the first upload is not complete", at);
		if (catalogue_version_get(conn, seq, &oldest) != 0)
			oldest.seq = 0;
	}
	when_name(name, oldest.time_s);
	return error_set(error, ERR_ABSENT, 0, "--at %s: the history of the volume begins later, at %s", at, name);
}

static int find_version(struct db_conn *conn, const char *at, struct version_row *out, struct error *error)
{
	int64_t seconds;
	int rc;

	switch (when_parse(at, clock_wall_ns() / NS_PER_S, &seconds)) {
	case WHEN_TIME:
	case WHEN_RELATIVE:
		rc = catalogue_version_at(conn, seconds, out);
		break;
	case WHEN_LATEST:
		rc = catalogue_version_newest(conn, false, out);
		break;
	default:
		return error_set(error, ERR_USAGE, 0, "--at %s: that is no time; write it as 10m-ago, 3d-ago, 2026-11-20 or "
				 "2026-11-20T08:14:07 (UTC)", at);
	}
	return rc == 0 ? 0 : no_version(conn, at, rc, error);
}

static bool has(struct db_conn *conn, int64_t seq, const char *inside, struct version_row *row)
{
	int64_t ino;

	return seq > 0 && catalogue_version_get(conn, seq, row) == 0 && catalogue_resolve(conn, seq, inside, &ino) == 0;
}

/* Outward from the version that was asked for, by number; of two that are equally far the earlier. */
static bool find_nearest(struct db_conn *conn, const struct version_row *wanted, const char *inside, struct version_row *out)
{
	struct version_row newest, earlier = { 0 }, later = { 0 };

	if (catalogue_version_newest(conn, false, &newest) != 0)
		return false;
	for (int64_t d = 1; d < wanted->seq || wanted->seq + d <= newest.seq; d++) {
		if (earlier.seq == 0 && !has(conn, wanted->seq - d, inside, &earlier))
			earlier.seq = 0;
		if (later.seq == 0 && (wanted->seq + d > newest.seq || !has(conn, wanted->seq + d, inside, &later)))
			later.seq = 0;
		if (earlier.seq != 0 || later.seq != 0)
			break;
	}
	if (earlier.seq == 0 && later.seq == 0)
		return false;
	*out = earlier.seq != 0 ? earlier : later;
	return true;
}

static int not_there(struct db_conn *conn, const struct version_row *wanted, const char *inside, const char *shown, struct error *error)
{
	char then[WHEN_NAME_BYTES], name[WHEN_NAME_BYTES];
	struct version_row nearest;

	when_name(then, wanted->time_s);
	if (!find_nearest(conn, wanted, inside, &nearest))
		return error_set(error, ERR_ABSENT, 0, "%s: no version has it; look for its name then below .snapshots", shown);
	when_name(name, nearest.time_s);
	return error_set(error, ERR_ABSENT, 0, "%s: it did not exist at %s; the nearest version that has it is --at %s", shown, then, name);
}

static int find_all(struct db_conn *conn, const char *at, const char *inside, const char *shown, struct restore_version *out,
		    struct error *error)
{
	int rc = find_version(conn, at, &out->row, error);

	if (rc < 0)
		return rc;
	rc = catalogue_resolve(conn, out->row.seq, inside, &out->ino);
	if (rc == ERR_ABSENT)
		return not_there(conn, &out->row, inside, shown, error);
	return rc == 0 ? 0 : error_set(error, rc, 0, "%s: the catalogue can't be read: %s", shown, error_word(rc));
}

int restore_version_find(struct volume *volume, const char *at, const char *inside, const char *shown,
			 struct restore_version *out, struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(volume), &conn, error);

	if (rc < 0)
		return rc;
	rc = find_all(conn, at, inside, shown, out, error);
	db_read_end(volume_db(volume), conn);
	return rc;
}

void restore_version_name(struct volume *volume, int64_t seq, char out[40])
{
	struct version_row row;
	struct db_conn *conn;

	out[0] = '\0';
	if (db_read_begin(volume_db(volume), &conn, NULL) != 0)
		return;
	if (catalogue_version_get(conn, seq, &row) == 0)
		when_name(out, row.time_s);
	db_read_end(volume_db(volume), conn);
}

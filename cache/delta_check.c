#include "bytes.h"
#include "catalogue.h"
#include "catalogue_schema.h"
#include "delta_internal.h"

#include <string.h>
#include <sys/stat.h>

#define TIME_MAX_S INT64_C(253402300799) /* the last second of the year 9999 */
#define U32_MAX INT64_C(0xffffffff)

/* One pass over a table. `low` and `high` bound vfrom. */
struct pass {
	struct db_conn *conn;
	sqlite3_stmt *stmt;
	const char *what;
	struct error *error;
	int64_t seq;
	bool delta;
	int64_t ino, end; /* extents: where the one before ended */
	int64_t time_s;   /* versions: of the one before */
};

static int bad(const struct pass *pass, const char *why)
{
	return error_set(pass->error, ERR_CORRUPT, 0, "%s: %s", pass->what, why);
}

/* --- Columns --- */

static bool in_range(const struct pass *pass, int column, int64_t low, int64_t high)
{
	if (sqlite3_column_type(pass->stmt, column) != SQLITE_INTEGER)
		return false;
	int64_t value = db_int(pass->stmt, column);
	return low <= value && value <= high;
}

static bool is_blob(const struct pass *pass, int column, int length)
{
	return sqlite3_column_type(pass->stmt, column) == SQLITE_BLOB && sqlite3_column_bytes(pass->stmt, column) == length;
}

static bool is_null(const struct pass *pass, int column)
{
	return sqlite3_column_type(pass->stmt, column) == SQLITE_NULL;
}

bool catalogue_name_valid(const void *name, size_t length)
{
	if (!name || length < 1 || length > 255)
		return false;
	if (memchr(name, '/', length) || memchr(name, 0, length))
		return false;
	return !(length == 1 && memcmp(name, ".", 1) == 0) && !(length == 2 && memcmp(name, "..", 2) == 0);
}

static bool is_name(const struct pass *pass, int column, int type)
{
	const void *name = sqlite3_column_blob(pass->stmt, column);

	return sqlite3_column_type(pass->stmt, column) == type &&
	       catalogue_name_valid(name, (size_t)sqlite3_column_bytes(pass->stmt, column));
}

static bool is_vfrom(const struct pass *pass, int column)
{
	return in_range(pass, column, pass->delta ? pass->seq : 1, pass->seq);
}

/* vfrom < vto <= seq, and the fork that belongs to them. */
static bool is_interval(const struct pass *pass, int vfrom, int vto)
{
	return is_vfrom(pass, vfrom) && in_range(pass, vto, db_int(pass->stmt, vfrom) + 1, pass->seq);
}

static bool is_fork(const struct pass *pass, int fork, int vfrom, int vto)
{
	int64_t right = catalogue_fork(db_int(pass->stmt, vfrom), db_int(pass->stmt, vto));

	return in_range(pass, fork, right, right);
}

/* Sorted by name, none twice; names as the kernel has them; see catalogue_schema.h. */
static bool xattrs_valid(const void *data, size_t length)
{
	struct reader reader = {.at = data, .end = (const uint8_t *)data + length};
	const uint8_t *last = NULL;
	size_t last_length = 0;

	if (length > CATALOGUE_MAX_XATTRS_BYTES)
		return false;
	while (reader.at < reader.end) {
		size_t name_length = reader_u16(&reader);
		const uint8_t *name = reader_bytes(&reader, name_length);
		uint32_t value_length = reader_u32(&reader);
		if (!reader_bytes(&reader, value_length) && reader.bad)
			return false;
		if (reader.bad || name_length < 1 || name_length > 255 || memchr(name, 0, name_length))
			return false;
		int order = last ? memcmp(last, name, last_length < name_length ? last_length : name_length) : -1;
		if (order > 0 || (order == 0 && last_length >= name_length))
			return false;
		last = name;
		last_length = name_length;
	}
	return true;
}

/* --- Rows --- */

/* Columns from `first` on as SCHEMA_INODE_COLUMNS. */
static int inode_columns(struct pass *pass, int first)
{
	if (!in_range(pass, first, 0, 0177777))
		return bad(pass, "inode: mode");
	uint32_t type = (uint32_t)db_int(pass->stmt, first) & S_IFMT;
	if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO && type != S_IFSOCK &&
	    type != S_IFCHR && type != S_IFBLK)
		return bad(pass, "inode: type");
	if (!in_range(pass, first + 1, 0, U32_MAX) || !in_range(pass, first + 2, 0, U32_MAX) ||
	    !in_range(pass, first + 3, 0, U32_MAX) || !in_range(pass, first + 4, 0, INT64_MAX) ||
	    !in_range(pass, first + 5, 0, INT64_MAX))
		return bad(pass, "inode: attributes");
	int target = first + 10, xattrs = first + 11;
	if (type == S_IFLNK) {
		int length = sqlite3_column_bytes(pass->stmt, target);
		const void *text = sqlite3_column_blob(pass->stmt, target);
		if (is_null(pass, target) || length < 1 || length > 4095 || memchr(text, 0, (size_t)length))
			return bad(pass, "inode: target of a symbolic link");
	} else if (!is_null(pass, target)) {
		return bad(pass, "inode: target of what is no symbolic link");
	}
	const void *data = sqlite3_column_blob(pass->stmt, xattrs);
	if (!is_null(pass, xattrs) && (!data || !xattrs_valid(data, (size_t)sqlite3_column_bytes(pass->stmt, xattrs))))
		return bad(pass, "inode: extended attributes");
	return 0;
}

static bool root_is_dir(const struct pass *pass, int mode)
{
	return db_int(pass->stmt, 0) != CATALOGUE_ROOT_INO || S_ISDIR((uint32_t)db_int(pass->stmt, mode));
}

static int inode_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_vfrom(pass, 1) || !root_is_dir(pass, 2))
		return bad(pass, "inode: key");
	return inode_columns(pass, 2);
}

static int inode_past_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_interval(pass, 2, 1) || !root_is_dir(pass, 3))
		return bad(pass, "inode_past: key");
	return inode_columns(pass, 3);
}

static int name_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_name(pass, 1, SQLITE_BLOB) || !is_vfrom(pass, 2) ||
	    !in_range(pass, 3, CATALOGUE_ROOT_INO + 1, INT64_MAX) || db_int(pass->stmt, 3) == db_int(pass->stmt, 0))
		return bad(pass, "name");
	return 0;
}

static int name_past_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_name(pass, 1, SQLITE_BLOB) || !is_interval(pass, 3, 2) ||
	    !is_fork(pass, 4, 3, 2) || !in_range(pass, 5, CATALOGUE_ROOT_INO + 1, INT64_MAX) ||
	    db_int(pass->stmt, 5) == db_int(pass->stmt, 0))
		return bad(pass, "name_past");
	return 0;
}

/* The columns start, length, chunk, skip. */
static bool is_extent(const struct pass *pass, int start, int length, int chunk, int skip)
{
	return in_range(pass, length, 1, CATALOGUE_MAX_CHUNK_BYTES) &&
	       in_range(pass, start, 0, INT64_MAX - db_int(pass->stmt, length)) && in_range(pass, chunk, 1, INT64_MAX) &&
	       in_range(pass, skip, 0, CATALOGUE_MAX_CHUNK_BYTES - db_int(pass->stmt, length));
}

static int extent_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_vfrom(pass, 2) || !is_extent(pass, 1, 3, 4, 5))
		return bad(pass, "extent");
	int64_t ino = db_int(pass->stmt, 0), start = db_int(pass->stmt, 1);
	if (ino == pass->ino && start < pass->end)
		return bad(pass, "extent: overlaps another");
	pass->ino = ino;
	pass->end = start + db_int(pass->stmt, 3);
	return 0;
}

static int extent_past_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_interval(pass, 4, 2) || !is_fork(pass, 1, 4, 2) ||
	    !is_extent(pass, 3, 5, 6, 7))
		return bad(pass, "extent_past");
	return 0;
}

static int chunk_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_blob(pass, 1, 16) || !in_range(pass, 2, 1, INT64_MAX) ||
	    !in_range(pass, 3, 0, U32_MAX) || !in_range(pass, 4, 0, INT64_MAX - CATALOGUE_MAX_CHUNK_BYTES * 2) ||
	    !in_range(pass, 5, 1, CATALOGUE_MAX_CHUNK_BYTES + 4096) || !in_range(pass, 6, 1, CATALOGUE_MAX_CHUNK_BYTES) ||
	    !in_range(pass, 7, 0, 255) || !in_range(pass, 8, 0, U32_MAX))
		return bad(pass, "chunk");
	return 0;
}

static int pack_row(struct pass *pass)
{
	if (!in_range(pass, 0, 1, INT64_MAX) || !is_blob(pass, 1, 16) || !is_blob(pass, 2, 32) || !is_blob(pass, 3, 32) ||
	    !in_range(pass, 4, 0, INT64_MAX) || !in_range(pass, 5, 0, pass->seq) || !is_vfrom(pass, 6))
		return bad(pass, "pack");
	return 0;
}

static int version_row(struct pass *pass)
{
	if (!in_range(pass, 0, pass->delta ? pass->seq : 1, pass->seq) || !in_range(pass, 1, pass->time_s + 1, TIME_MAX_S) ||
	    !in_range(pass, 3, 0, TIME_MAX_S) || !in_range(pass, 4, 0, INT64_MAX))
		return bad(pass, "version");
	pass->time_s = db_int(pass->stmt, 1);
	return 0;
}

static int version_server_row(struct pass *pass)
{
	return in_range(pass, 0, 1, pass->seq - 1) && in_range(pass, 1, 0, TIME_MAX_S) ? 0 : bad(pass, "version_server");
}

static int pin_row(struct pass *pass)
{
	return is_name(pass, 0, SQLITE_TEXT) && in_range(pass, 1, 1, pass->seq) ? 0 : bad(pass, "pin");
}

static int pin_end_row(struct pass *pass) { return is_name(pass, 0, SQLITE_TEXT) ? 0 : bad(pass, "pin_end"); }
static int inode_end_row(struct pass *pass)
{
	return in_range(pass, 0, CATALOGUE_ROOT_INO + 1, INT64_MAX) ? 0 : bad(pass, "inode_end");
}
static int name_end_row(struct pass *pass)
{
	return in_range(pass, 0, 1, INT64_MAX) && is_name(pass, 1, SQLITE_BLOB) ? 0 : bad(pass, "name_end");
}
static int extent_end_row(struct pass *pass)
{
	return in_range(pass, 0, 1, INT64_MAX) && in_range(pass, 1, 0, INT64_MAX) ? 0 : bad(pass, "extent_end");
}

/* --- Tables. Columns in the order of the schema, which was compared. --- */

struct table {
	const char *sql;
	int (*row)(struct pass *);
};

static const struct table both[] = {
	{"SELECT * FROM version ORDER BY seq", version_row},
	{"SELECT * FROM inode", inode_row},
	{"SELECT * FROM name", name_row},
	{"SELECT * FROM extent ORDER BY ino, start", extent_row},
	{"SELECT * FROM chunk", chunk_row},
	{"SELECT * FROM pack", pack_row},
	{"SELECT * FROM pin", pin_row},
};
static const struct table delta_only[] = {
	{"SELECT * FROM version_server", version_server_row},
	{"SELECT * FROM inode_end", inode_end_row},
	{"SELECT * FROM name_end", name_end_row},
	{"SELECT * FROM extent_end", extent_end_row},
	{"SELECT * FROM pin_end", pin_end_row},
};
static const struct table checkpoint_only[] = {
	{"SELECT * FROM inode_past", inode_past_row},
	{"SELECT * FROM name_past", name_past_row},
	{"SELECT * FROM extent_past", extent_past_row},
};

static int check_table(struct pass *pass, const struct table *table)
{
	pass->stmt = db_prepare(pass->conn, table->sql, pass->error);
	if (!pass->stmt)
		return ERR_CORRUPT;
	int rc;
	while ((rc = db_next(pass->conn, pass->stmt, pass->error)) == 1) {
		rc = table->row(pass);
		if (rc)
			break;
	}
	db_reset(pass->stmt);
	return rc;
}

static int check_tables(struct pass *pass, const struct table *tables, size_t count)
{
	int rc = 0;

	for (size_t i = 0; i < count && !rc; i++)
		rc = check_table(pass, &tables[i]);
	return rc;
}

/* The newest version must be there; a delta's is the only one by the range of seq. */
static int check_newest(struct pass *pass)
{
	int rc = db_step(pass->conn, pass->error, "SELECT 1 FROM version WHERE seq=?", "i", pass->seq);

	if (rc < 0)
		return rc;
	db_reset(db_last(pass->conn));
	return rc ? 0 : bad(pass, "version: its own row is missing");
}

int delta_check_rows(struct db_conn *conn, int64_t seq, const char *what, struct error *error)
{
	struct pass pass = {.conn = conn, .what = what, .error = error, .seq = seq, .delta = true};
	int rc = check_tables(&pass, both, TABLES_COUNT(both));

	if (!rc)
		rc = check_tables(&pass, delta_only, TABLES_COUNT(delta_only));
	return rc ? rc : check_newest(&pass);
}

int checkpoint_check_rows(struct db_conn *conn, int64_t seq, const char *what, struct error *error)
{
	struct pass pass = {.conn = conn, .what = what, .error = error, .seq = seq};
	int rc = check_tables(&pass, both, TABLES_COUNT(both));

	if (!rc)
		rc = check_tables(&pass, checkpoint_only, TABLES_COUNT(checkpoint_only));
	return rc ? rc : check_newest(&pass);
}

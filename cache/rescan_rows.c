#include "rescan_internal.h"

#include "behind.h"
#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS_MAX 4000           /* backlog rows in a transaction */
#define READS_MAX 4000          /* entries on one read transaction: an old one keeps the WAL from shrinking */
#define INO_MAX (INT64_C(1) << 34) /* the writer counts up from 1: more is damage, not a bitmap of gigabytes */

static int no_memory(struct rescan *r)
{
	return error_set(r->error, ERR_NOMEM, ENOMEM, "cannot scan the directory: out of memory");
}

/* ---------------------------------------------------------------- backlog rows */

static int put_key(struct buf *rows, const struct node_key *key)
{
	int rc = buf_append_u8(rows, key ? key->length : 0);

	return rc < 0 || !key ? rc : buf_append(rows, key->bytes, key->length);
}

static int put(struct rescan *r, const struct node_key *key, mode_t type, int64_t bytes, const char *name,
	       const struct node_key *child)
{
	struct buf *rows = &r->rows;
	size_t length = strlen(name), before = rows->length;

	if (buf_append_u8(rows, (uint8_t)length) < 0 || buf_append(rows, name, length) < 0 || put_key(rows, key) < 0 ||
	    buf_append_u32(rows, type & S_IFMT) < 0 || buf_append_u64(rows, (uint64_t)bytes) < 0 ||
	    put_key(rows, child) < 0) {
		rows->length = before;
		return no_memory(r);
	}
	return ++r->row_count < ROWS_MAX ? 0 : rescan_flush(r);
}

int rescan_put_inode(struct rescan *r, const struct node_key *key, mode_t type, int64_t bytes)
{
	return put(r, key, type, bytes, "", NULL);
}

int rescan_put_name(struct rescan *r, const struct node_key *dir, const char *name, const struct node_key *child,
		    mode_t child_type)
{
	behind_name(r->volume, dir, name);
	return put(r, dir, child_type, 0, name, child);
}

static int write_row(struct db_conn *conn, struct reader *rows, struct error *error)
{
	size_t name_length = reader_u8(rows);
	const uint8_t *name = reader_bytes(rows, name_length);
	size_t key_length = reader_u8(rows);
	const uint8_t *key = reader_bytes(rows, key_length);
	int64_t type = reader_u32(rows), bytes = (int64_t)reader_u64(rows);
	size_t child_length = reader_u8(rows);
	const uint8_t *child = reader_bytes(rows, child_length);

	if (name_length == 0)
		return db_step(conn, error, "INSERT OR IGNORE INTO backlog_inode(key, bytes, type) VALUES(?, ?, ?)", "bii",
			       key, key_length, bytes, type);
	return db_step(conn, error, "INSERT OR REPLACE INTO backlog_name(dir, name, child, child_type) VALUES(?, ?, ?, ?)",
		       "bbni", key, key_length, name, name_length, child_length ? child : NULL, child_length, type);
}

int rescan_flush(struct rescan *r)
{
	struct reader rows = { .at = r->rows.data, .end = r->rows.data + r->rows.length };
	struct db_conn *conn;
	int rc;

	if (r->row_count == 0)
		return 0;
	rc = db_begin(r->db, false, &conn, r->error);
	if (rc < 0)
		return rc;
	while (rc == 0 && rows.at < rows.end)
		rc = write_row(conn, &rows, r->error);
	if (rc < 0) {
		db_rollback(r->db);
		return rc;
	}
	rc = db_commit(r->db, r->error);
	if (rc < 0)
		return rc;
	buf_clear(&r->rows);
	r->row_count = 0;
	return 0;
}

int rescan_read(struct rescan *r)
{
	if (r->conn && r->reads++ < READS_MAX)
		return 0;
	rescan_read_end(r);
	db_tidy(r->db); /* now that we keep nobody from it */
	return db_read_begin(r->db, &r->conn, r->error);
}

void rescan_read_end(struct rescan *r)
{
	if (r->conn)
		db_read_end(r->db, r->conn);
	r->conn = NULL;
	r->reads = 0;
}

/* ---------------------------------------------------------------- what was met */

int rescan_see(struct rescan *r, int64_t ino)
{
	size_t at = (size_t)ino / 8;

	if (ino <= 0 || ino > INO_MAX)
		return error_set(r->error, ERR_CORRUPT, 0, "the catalogue is damaged: inode number %lld", (long long)ino);
	if (at >= r->seen_bytes) {
		size_t bytes = at + at / 2 + 4096;
		uint8_t *seen = realloc(r->seen, bytes);

		if (!seen)
			return no_memory(r);
		memset(seen + r->seen_bytes, 0, bytes - r->seen_bytes);
		r->seen = seen;
		r->seen_bytes = bytes;
	}
	r->seen[at] |= (uint8_t)(1 << ino % 8);
	return 0;
}

bool rescan_has_seen(const struct rescan *r, int64_t ino)
{
	size_t at = (size_t)ino / 8;

	return ino > 0 && at < r->seen_bytes && r->seen[at] >> ino % 8 & 1;
}

/* FNV-1a, folded so that the low bits depend on all (as node.c). Two of a million directories meet with probability 1 to 40 million. */
static uint64_t hash_key(const struct node_key *key)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < key->length; i++)
		hash = (hash ^ key->bytes[i]) * UINT64_C(0x100000001b3);
	hash ^= hash >> 33;
	hash *= UINT64_C(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	return hash ? hash : 1;
}

/* The slot that holds it, or the free one where it belongs. */
static uint64_t *slot_of(uint64_t *slots, size_t room, uint64_t hash)
{
	size_t at = hash & (room - 1);

	while (slots[at] && slots[at] != hash)
		at = (at + 1) & (room - 1);
	return &slots[at];
}

static bool grow_visited(struct rescan *r)
{
	size_t room = r->visited_room ? r->visited_room * 2 : 1024;
	uint64_t *slots = calloc(room, sizeof *slots);

	if (!slots)
		return false;
	for (size_t i = 0; i < r->visited_room; i++)
		if (r->visited[i])
			*slot_of(slots, room, r->visited[i]) = r->visited[i];
	free(r->visited);
	r->visited = slots;
	r->visited_room = room;
	return true;
}

int rescan_visit(struct rescan *r, const struct node_key *key)
{
	uint64_t hash = hash_key(key), *slot;

	if (r->visited_count * 2 >= r->visited_room && !grow_visited(r))
		return no_memory(r);
	slot = slot_of(r->visited, r->visited_room, hash);
	if (*slot)
		return 0;
	*slot = hash;
	r->visited_count++;
	return 1;
}

bool rescan_has_visited(const struct rescan *r, const struct node_key *key)
{
	return r->visited_room > 0 && *slot_of(r->visited, r->visited_room, hash_key(key));
}

int rescan_push(struct rescan *r, const struct node_key *key)
{
	size_t before = r->stack.length;

	if (buf_append(&r->stack, key->bytes, key->length) == 0 && buf_append_u8(&r->stack, key->length) == 0)
		return 0;
	r->stack.length = before;
	return no_memory(r);
}

bool rescan_pop(struct rescan *r, struct node_key *key)
{
	if (r->stack.length == 0)
		return false;
	memset(key, 0, sizeof *key);
	key->length = r->stack.data[--r->stack.length];
	r->stack.length -= key->length;
	memcpy(key->bytes, r->stack.data + r->stack.length, key->length);
	return true;
}

/* ---------------------------------------------------------------- names not found, in a file without a name */

static FILE *open_scratch(int dirfd)
{
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	FILE *file;

	if (fd < 0) {
		fd = openat(dirfd, "rescan.tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0)
			unlinkat(dirfd, "rescan.tmp", 0);
	}
	file = fd < 0 ? NULL : fdopen(fd, "w+");
	if (!file && fd >= 0)
		close(fd);
	return file;
}

static int scratch_failed(struct rescan *r)
{
	return error_errno(r->error, errno, "cannot write a temporary file in %s", volume_state_path(r->volume));
}

int rescan_put_absent(struct rescan *r, int64_t dir, int64_t ino, const void *name, size_t length)
{
	uint8_t header[17];

	if (!r->absent)
		r->absent = open_scratch(volume_state_fd(r->volume));
	put_u64(header, (uint64_t)dir);
	put_u64(header + 8, (uint64_t)ino);
	header[16] = (uint8_t)length;
	if (!r->absent || fwrite(header, sizeof header, 1, r->absent) != 1 || fwrite(name, length, 1, r->absent) != 1)
		return scratch_failed(r);
	return 0;
}

int rescan_next_absent(struct rescan *r, int64_t *dir, int64_t *ino, char *name)
{
	uint8_t header[17];

	if (!r->absent)
		return 0;
	if (fread(header, sizeof header, 1, r->absent) != 1)
		return ferror(r->absent) ? scratch_failed(r) : 0;
	*dir = (int64_t)get_u64(header);
	*ino = (int64_t)get_u64(header + 8);
	if (fread(name, header[16], 1, r->absent) != 1)
		return scratch_failed(r);
	name[header[16]] = '\0';
	return 1;
}

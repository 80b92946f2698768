/* The catalogue against an independent model: random versions of a small tree, every version compared after each way in. */
#include "catalogue.h"
#include "db.h"
#include "delta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define INOS 20
#define DIRS 4 /* 1 (the root) to 4 */
#define NAMES 6
#define BLOCKS 10
#define VERSIONS 70
#define BLOCK 4096

static const char *const pool[NAMES] = {"a", "Maildir", "new\nline", "\xff\xfe", "...", "x y"};

/* A tree as a version holds it. */
struct model {
	struct { uint32_t mode; int64_t size, mtime; int xattr; } inode[INOS + 1]; /* mode 0: none */
	int name[DIRS + 1][NAMES];                                               /* 0: none */
	struct { int length, chunk, skip; } extent[INOS + 1][BLOCKS];            /* length 0: none starts here */
};

static struct model models[VERSIONS + 1];
static int chunks; /* numbers given; each is BLOCKS blocks long */
static unsigned seed;
static struct error error;

static int below(int n) { return rand_r(&seed) % n; }

static char *temp_dir(void)
{
	char *dir = strdup("/tmp/test_catalogue-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static void remove_dir(char *dir)
{
	static const char *const files[] = {"volume.db", "volume.db-wal", "volume.db-shm"};
	for (size_t i = 0; i < 3; i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(dir), 0);
	free(dir);
}

/* --- The interval tree --- */

static int64_t fork_by_force(int64_t vfrom, int64_t vto)
{
	int64_t best = vfrom;
	for (int64_t i = vfrom; i < vto; i++)
		if (__builtin_ctzll((uint64_t)i) > __builtin_ctzll((uint64_t)best))
			best = i;
	return best;
}

static void test_fork_and_ancestors(void **state)
{
	(void)state;
	enum { MAX = 130 };
	for (int64_t vfrom = 1; vfrom < MAX; vfrom++)
		for (int64_t vto = vfrom + 1; vto <= MAX; vto++)
			assert_int_equal(catalogue_fork(vfrom, vto), fork_by_force(vfrom, vto));
	/* Valid in V: exactly those found at an ancestor under its rule. */
	for (int64_t v = 1; v < MAX; v++) {
		int64_t nodes[64];
		int count = catalogue_ancestors(v, MAX, nodes);
		for (int64_t vfrom = 1; vfrom < MAX; vfrom++)
			for (int64_t vto = vfrom + 1; vto <= MAX; vto++) {
				int found = 0;
				for (int i = 0; i < count; i++)
					if (nodes[i] == catalogue_fork(vfrom, vto))
						found += nodes[i] <= v ? vto > v : vfrom <= v;
				assert_int_equal(found, vfrom <= v && v < vto);
			}
	}
	int64_t nodes[64];
	int64_t huge = INT64_C(1) << 61;
	assert_true(catalogue_ancestors(huge - 1, huge, nodes) <= 64);
	assert_int_equal(catalogue_fork(huge - 5, huge + 1), huge);
	assert_int_equal(catalogue_ancestors(0, 10, nodes), 0);
}

/* --- Random changes --- */

static bool has_name(const struct model *m, int ino)
{
	for (int d = 1; d <= DIRS; d++)
		for (int n = 0; n < NAMES; n++)
			if (m->name[d][n] == ino)
				return true;
	return false;
}

static void touch(struct model *m, int ino)
{
	m->inode[ino].mtime = (int64_t)rand_r(&seed) - (INT64_C(1) << 30);
	m->inode[ino].xattr = below(3);
}

static void punch(struct model *m, int ino, int block, int count)
{
	for (int b = 0; b < BLOCKS; b++) {
		int length = m->extent[ino][b].length, chunk = m->extent[ino][b].chunk, skip = m->extent[ino][b].skip;
		if (!length || b + length <= block || b >= block + count)
			continue;
		m->extent[ino][b].length = 0;
		if (b < block) {
			m->extent[ino][b].length = block - b;
		}
		if (b + length > block + count) {
			int at = block + count;
			m->extent[ino][at].length = b + length - at;
			m->extent[ino][at].chunk = chunk;
			m->extent[ino][at].skip = skip + at - b;
		}
	}
}

static void write_blocks(struct model *m, int ino, int block, int count)
{
	punch(m, ino, block, count);
	m->extent[ino][block].length = count;
	m->extent[ino][block].skip = below(BLOCKS - count + 1);
	/* sometimes a chunk that is there already, as dedup does */
	m->extent[ino][block].chunk = chunks && below(3) == 0 ? 1 + below(chunks) : ++chunks;
	if (m->inode[ino].size < (block + count) * BLOCK)
		m->inode[ino].size = (block + count) * BLOCK;
}

static void drop_unnamed(struct model *m)
{
	for (int ino = DIRS + 1; ino <= INOS; ino++)
		if (m->inode[ino].mode && !has_name(m, ino)) {
			memset(&m->inode[ino], 0, sizeof(m->inode[ino]));
			memset(m->extent[ino], 0, sizeof(m->extent[ino]));
		}
}

static void change(struct model *m)
{
	int ino = DIRS + 1 + below(INOS - DIRS), d = 1 + below(DIRS), n = below(NAMES), block = below(BLOCKS);

	if (!m->inode[d].mode)
		d = 1;
	switch (below(8)) {
	case 0:
	case 1: /* create, link or rename over */
		if (m->name[d][n] && m->name[d][n] <= DIRS)
			break;
		if (!m->inode[ino].mode)
			m->inode[ino].mode = below(5) ? S_IFREG | 0640 : S_IFLNK | 0777;
		touch(m, ino);
		m->name[d][n] = ino;
		break;
	case 2: /* unlink */
		if (m->name[d][n] > DIRS)
			m->name[d][n] = 0;
		break;
	case 3: /* make or move a directory, to a parent with a smaller number */
		ino = 2 + below(DIRS - 1);
		d = 1 + below(ino - 1);
		if (!m->inode[d].mode || m->name[d][n])
			break;
		m->inode[ino].mode = S_IFDIR | 0755;
		for (int i = 1; i <= DIRS; i++)
			for (int j = 0; j < NAMES; j++)
				if (m->name[i][j] == ino)
					m->name[i][j] = 0;
		m->name[d][n] = ino;
		break;
	case 4: /* punch or truncate */
		if (m->inode[ino].mode)
			punch(m, ino, block, below(2) ? BLOCKS : 1 + below(BLOCKS - block));
		break;
	default:
		if (S_ISREG(m->inode[ino].mode)) {
			write_blocks(m, ino, block, 1 + below(BLOCKS - block));
			touch(m, ino);
		}
	}
	drop_unnamed(m);
}

/* --- The difference of two models as a delta --- */

static const uint8_t xattrs[] = {4, 0, 'u', '.', 'a', 'b', 2, 0, 0, 0, 'h', 'i', 4, 0, 'u', '.', 'a', 'c', 0, 0, 0, 0};

static struct inode_row row_of(const struct model *m, int ino)
{
	struct inode_row row = {.ino = ino, .mode = m->inode[ino].mode, .uid = (uint32_t)ino, .gid = 4294967295u, .nlink = 1,
				.size = m->inode[ino].size, .mtime_ns = m->inode[ino].mtime, .ctime_ns = INT64_MIN,
				.btime_ns = INT64_MAX};
	if (S_ISLNK(row.mode)) {
		row.target = "../target";
		row.target_length = 9;
	}
	if (m->inode[ino].xattr) {
		row.xattrs = xattrs;
		row.xattrs_length = m->inode[ino].xattr == 1 ? 12 : sizeof(xattrs);
	}
	return row;
}

static void add_chunks(struct delta *delta, int from, int to)
{
	struct pack_row pack = {.num = delta_seq(delta), .size = 1000, .record = delta_seq(delta)};
	memset(pack.id, (int)pack.num, sizeof(pack.id));
	if (from < to)
		assert_int_equal(delta_add_pack(delta, &pack, &error), 0);
	for (int i = from + 1; i <= to; i++) {
		struct chunk_row chunk = {.num = i, .pack = pack.num, .idx = i, .stored = 99, .length = BLOCKS * BLOCK, .codec = 1};
		chunk.id[0] = (uint8_t)i, chunk.id[1] = (uint8_t)(i >> 8);
		assert_int_equal(delta_add_chunk(delta, &chunk, &error), 0);
	}
}

static void diff(struct delta *delta, const struct model *a, const struct model *b)
{
	for (int ino = 1; ino <= INOS; ino++) {
		if (a->inode[ino].mode && !b->inode[ino].mode)
			assert_int_equal(delta_add_inode_end(delta, ino, &error), 0);
		struct inode_row row = row_of(b, ino);
		if (b->inode[ino].mode && memcmp(&a->inode[ino], &b->inode[ino], sizeof(a->inode[ino])) != 0)
			assert_int_equal(delta_add_inode(delta, &row, &error), 0);
		for (int i = 0; i < BLOCKS; i++) {
			if (memcmp(&a->extent[ino][i], &b->extent[ino][i], sizeof(a->extent[ino][i])) == 0)
				continue;
			struct extent_row extent = {ino, i * BLOCK, b->extent[ino][i].length * BLOCK, b->extent[ino][i].chunk,
						    b->extent[ino][i].skip * BLOCK};
			if (extent.length)
				assert_int_equal(delta_add_extent(delta, &extent, &error), 0);
			else
				assert_int_equal(delta_add_extent_end(delta, ino, i * BLOCK, &error), 0);
		}
	}
	for (int d = 1; d <= DIRS; d++)
		for (int n = 0; n < NAMES; n++) {
			if (a->name[d][n] == b->name[d][n])
				continue;
			if (b->name[d][n])
				assert_int_equal(delta_add_name(delta, d, pool[n], strlen(pool[n]), b->name[d][n], &error), 0);
			else
				assert_int_equal(delta_add_name_end(delta, d, pool[n], strlen(pool[n]), &error), 0);
		}
}

static struct delta *version_delta(const char *dir, int seq, int chunks_from, int chunks_to)
{
	struct delta *delta;
	struct version_row version = {seq, 1000 + 10 * seq, seq * INT64_C(1000000007), 0, seq % 9 == 0 ? VERSION_PARTIAL : 0};
	assert_int_equal(delta_new(dir, seq, &delta, &error), 0);
	assert_int_equal(delta_set_version(delta, &version, &error), 0);
	if (seq > 1)
		assert_int_equal(delta_add_version_server(delta, seq - 1, 5000 + seq, &error), 0);
	add_chunks(delta, chunks_from, chunks_to);
	diff(delta, &models[seq - 1], &models[seq]);
	return delta;
}

static int chunks_at[VERSIONS + 1];

static void make_history(unsigned with_seed)
{
	seed = with_seed;
	chunks = 0;
	memset(models, 0, sizeof(models));
	for (int v = 1; v <= VERSIONS; v++) {
		models[v] = models[v - 1];
		models[v].inode[1].mode = S_IFDIR | 0755;
		for (int i = 1 + below(6); i > 0; i--)
			change(&models[v]);
		/* what the unlink of an extent's fields leaves behind is no difference */
		for (int ino = 1; ino <= INOS; ino++)
			for (int b = 0; b < BLOCKS; b++)
				if (!models[v].extent[ino][b].length)
					memset(&models[v].extent[ino][b], 0, sizeof(models[v].extent[ino][b]));
		chunks_at[v] = chunks;
	}
}

static void apply(struct db *db, struct delta *delta)
{
	struct db_conn *conn;
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	int rc = delta_apply(delta, conn, &error);
	if (rc)
		fail_msg("version %d: %s", (int)delta_seq(delta), error.message);
	assert_int_equal(db_commit(db, &error), 0);
}

/* --- Comparing a version --- */

struct seen {
	const struct model *m;
	struct db_conn *conn;
	int64_t seq;
	int dir, count;
	int ino;
};

static int on_entry(void *context, const void *name, size_t length, int64_t ino)
{
	struct seen *seen = context;
	int n = 0;
	while (n < NAMES && (strlen(pool[n]) != length || memcmp(pool[n], name, length) != 0))
		n++;
	assert_in_range(n, 0, NAMES - 1);
	assert_int_equal(seen->m->name[seen->dir][n], ino);
	seen->count++;
	/* Coming back to the same function must not disturb the loop. */
	if (ino <= DIRS) {
		struct seen inner = {seen->m, seen->conn, seen->seq, (int)ino, 0, 0};
		assert_int_equal(catalogue_list(seen->conn, seen->seq, ino, on_entry, &inner), 0);
	}
	return 0;
}

static int on_name(void *context, int64_t dir, const void *name, size_t length)
{
	struct seen *seen = context;
	int64_t ino;
	assert_int_equal(catalogue_lookup(seen->conn, seen->seq, dir, name, length, &ino), 0);
	assert_int_equal(ino, seen->ino);
	seen->count++;
	return 0;
}

static void compare_inode(struct db_conn *conn, const struct model *m, int64_t seq, int ino)
{
	struct inode_hold hold;
	int rc = catalogue_inode(conn, seq, ino, &hold);
	if (!m->inode[ino].mode) {
		assert_int_equal(rc, ERR_ABSENT);
		return;
	}
	assert_int_equal(rc, 0);
	struct inode_row want = row_of(m, ino);
	assert_int_equal(hold.row.mode, want.mode);
	assert_int_equal(hold.row.uid, want.uid);
	assert_int_equal(hold.row.gid, want.gid);
	assert_true(hold.row.size == want.size && hold.row.mtime_ns == want.mtime_ns);
	assert_true(hold.row.ctime_ns == INT64_MIN && hold.row.btime_ns == INT64_MAX);
	assert_int_equal(hold.row.target_length, want.target_length);
	assert_int_equal(hold.row.xattrs_length, want.xattrs_length);
	assert_int_equal(!hold.row.xattrs, !want.xattrs);
	if (want.xattrs)
		assert_memory_equal(hold.row.xattrs, want.xattrs, want.xattrs_length);
	if (want.target)
		assert_memory_equal(hold.row.target, want.target, want.target_length);
	inode_hold_free(&hold);
	struct seen seen = {m, conn, seq, 0, 0, ino};
	int links = 0;
	for (int d = 1; d <= DIRS; d++)
		for (int n = 0; n < NAMES; n++)
			links += m->name[d][n] == ino;
	assert_int_equal(catalogue_names_of(conn, seq, ino, on_name, &seen), 0);
	assert_int_equal(seen.count, links);
}

static void compare_extents(struct db_conn *conn, const struct model *m, int64_t seq, int ino, int from, int to)
{
	struct extent_place *places;
	size_t count, at = 0;
	assert_int_equal(catalogue_extents(conn, seq, ino, from, to, &places, &count), 0);
	for (int b = 0; b < BLOCKS; b++) {
		int length = m->extent[ino][b].length;
		if (!length || (b + length) * BLOCK <= from || b * BLOCK >= to)
			continue;
		assert_true(at < count);
		assert_int_equal(places[at].start, b * BLOCK);
		assert_int_equal(places[at].length, length * BLOCK);
		assert_int_equal(places[at].skip, m->extent[ino][b].skip * BLOCK);
		assert_int_equal(places[at].chunk.num, m->extent[ino][b].chunk);
		assert_int_equal(places[at].chunk.id[0], m->extent[ino][b].chunk & 255);
		at++;
	}
	assert_int_equal(at, count);
	free(places);
}

static void compare_bytes(struct db_conn *conn, const struct model *m, int64_t seq, int ino)
{
	uint64_t bytes, want = 0;

	for (int b = 0; b < BLOCKS; b++)
		want += (uint64_t)m->extent[ino][b].length * BLOCK;
	assert_int_equal(catalogue_data_bytes(conn, seq, ino, &bytes), 0);
	assert_int_equal(bytes, want);
}

static void compare_version(struct db_conn *conn, const struct model *m, int64_t seq)
{
	int64_t found;
	for (int ino = 1; ino <= INOS; ino++) {
		compare_inode(conn, m, seq, ino);
		compare_extents(conn, m, seq, ino, 0, BLOCKS * BLOCK);
		compare_bytes(conn, m, seq, ino);
		int from = below(BLOCKS * BLOCK);
		compare_extents(conn, m, seq, ino, from, from + 1 + below(3 * BLOCK));
	}
	for (int d = 1; d <= DIRS; d++) {
		struct seen seen = {m, conn, seq, d, 0, 0};
		int entries = 0;
		for (int n = 0; n < NAMES; n++) {
			int want = m->name[d][n];
			entries += want != 0;
			int rc = catalogue_lookup(conn, seq, d, pool[n], strlen(pool[n]), &found);
			assert_int_equal(rc, want ? 0 : ERR_ABSENT);
			if (want)
				assert_int_equal(found, want);
		}
		assert_int_equal(catalogue_list(conn, seq, d, on_entry, &seen), 0);
		assert_int_equal(seen.count, entries);
	}
}

static void compare_all(struct db *db, int newest)
{
	struct db_conn *conn;
	assert_int_equal(db_read_begin(db, &conn, &error), 0);
	for (int v = 1; v <= newest; v++)
		compare_version(conn, &models[v], v);
	compare_version(conn, &models[newest], CATALOGUE_LIVE);
	db_read_end(db, conn);
}

/* --- Tests --- */

static void one_history(unsigned with_seed)
{
	char *dir = temp_dir(), *dir2 = temp_dir(), *dir3 = temp_dir();
	struct db *db, *db2, *db3;
	print_message("seed %u\n", with_seed);
	make_history(with_seed);
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_open(dir2, true, &db2, &error), 0);
	for (int v = 1; v <= VERSIONS; v++) {
		struct delta *delta = version_delta(dir, v, chunks_at[v - 1], chunks_at[v]), *again;
		int fd;
		uint64_t length;
		apply(db, delta);
		/* what a clone does with the record */
		assert_int_equal(delta_image(delta, &fd, &length, &error), 0);
		int rc = delta_from_image(fd, length, v, dir2, &again, &error);
		if (rc)
			fail_msg("seed %u version %d: %s", with_seed, v, error.message);
		apply(db2, again);
		delta_free(again);
		delta_free(delta);
		if (v % 23 == 0)
			compare_all(db, v);
	}
	compare_all(db, VERSIONS);
	compare_all(db2, VERSIONS);
	/* what a clone does with a checkpoint */
	int fd;
	uint64_t length;
	assert_int_equal(catalogue_export(db, VERSIONS - 1, dir, &fd, &length, &error), ERR_BUSY);
	assert_int_equal(catalogue_export(db, VERSIONS, dir, &fd, &length, &error), 0);
	assert_int_equal(db_open(dir3, true, &db3, &error), 0);
	if (catalogue_import(db3, fd, length, VERSIONS, dir3, &error))
		fail_msg("import: %s", error.message);
	compare_all(db3, VERSIONS);
	assert_int_equal(db_integrity_check(db3, &error), 0);
	/* I14: back to an earlier version, and the same way again */
	struct db_conn *conn;
	int back = VERSIONS / 2 + (int)(with_seed % 20);
	assert_int_equal(db_begin(db3, false, &conn, &error), 0);
	assert_int_equal(catalogue_rollback(conn, back, &error), 0);
	assert_int_equal(db_commit(db3, &error), 0);
	compare_all(db3, back);
	for (int v = back + 1; v <= VERSIONS; v++) {
		struct delta *delta = version_delta(dir, v, chunks_at[v - 1], chunks_at[v]);
		apply(db3, delta);
		delta_free(delta);
	}
	compare_all(db3, VERSIONS);
	db_close(db);
	db_close(db2);
	db_close(db3);
	remove_dir(dir);
	remove_dir(dir2);
	remove_dir(dir3);
}

static void test_histories(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 6; i++)
		one_history(i);
}

static int count_versions(void *context, const struct version_row *row)
{
	int64_t *last = context;
	assert_true(row->seq > *last && row->seq % 9 != 0);
	*last = row->seq;
	return row->seq == 20 ? 77 : 0;
}

static void test_versions(void **state)
{
	(void)state;
	char *dir = temp_dir();
	struct db *db;
	struct db_conn *conn;
	struct version_row row;
	make_history(3);
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	for (int v = 1; v <= 27; v++) {
		struct delta *delta = version_delta(dir, v, chunks_at[v - 1], chunks_at[v]);
		apply(db, delta);
		delta_free(delta);
	}
	assert_int_equal(db_read_begin(db, &conn, &error), 0);
	assert_int_equal(catalogue_version_at(conn, 1009, &row), ERR_ABSENT);
	assert_int_equal(catalogue_version_at(conn, 1010, &row), 0);
	assert_int_equal(row.seq, 1);
	assert_int_equal(row.server_s, 5002);
	assert_int_equal(catalogue_version_at(conn, 1095, &row), 0); /* 9 is partial */
	assert_int_equal(row.seq, 8);
	assert_int_equal(catalogue_version_newest(conn, false, &row), 0);
	assert_int_equal(row.seq, 26);
	assert_int_equal(catalogue_version_newest(conn, true, &row), 0);
	assert_int_equal(row.seq, 27);
	assert_int_equal(catalogue_version_get(conn, 9, &row), 0);
	assert_int_equal(row.flags, VERSION_PARTIAL);
	assert_int_equal(catalogue_version_get(conn, 28, &row), ERR_ABSENT);
	int64_t last = 4;
	assert_int_equal(catalogue_version_each(conn, 4, count_versions, &last), 77);
	last = 20;
	assert_int_equal(catalogue_version_each(conn, 20, count_versions, &last), 0);
	assert_int_equal(last, 26);
	int64_t ino, chunk, pack, seq, time_s;
	assert_int_equal(catalogue_maxima(conn, &ino, &chunk, &pack, &seq, &time_s), 0);
	assert_int_equal(seq, 27);
	assert_int_equal(time_s, 1270);
	assert_int_equal(chunk, chunks_at[27]);
	assert_in_range(ino, 5, INOS);
	struct pack_row found;
	assert_int_equal(catalogue_pack(conn, pack, &found), 0);
	assert_int_equal(catalogue_pack_by_id(conn, found.id, &found), 0);
	assert_int_equal(found.num, pack);
	assert_int_equal(catalogue_pack(conn, 999, &found), ERR_ABSENT);
	db_read_end(db, conn);
	db_close(db);
	remove_dir(dir);
}

static void test_dedup_trust(void **state) /* I21 */
{
	(void)state;
	char *dir = temp_dir();
	struct db *db;
	struct db_conn *conn;
	struct chunk_row chunk, same;
	make_history(2);
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	for (int v = 1; v <= 20; v++) {
		struct delta *delta = version_delta(dir, v, chunks_at[v - 1], chunks_at[v]);
		apply(db, delta);
		delta_free(delta);
	}
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	assert_int_equal(catalogue_chunk(conn, 1, &chunk), 0);
	assert_int_equal(catalogue_chunk_by_id(conn, chunk.id, &same), 0);
	assert_int_equal(same.num, 1);
	assert_int_equal(db_step(conn, &error, "INSERT INTO distrusted VALUES(?)", "i", chunk.pack), 0);
	assert_int_equal(catalogue_chunk_by_id(conn, chunk.id, &same), ERR_ABSENT);
	assert_int_equal(catalogue_chunk(conn, 1, &same), 0);
	/* An extent whose chunk is gone is damage, not a hole. */
	struct extent_place *places;
	size_t count;
	int rc = 0;
	assert_int_equal(db_exec(conn, "DELETE FROM chunk", &error), 0);
	for (int ino = 5; ino <= INOS && !rc; ino++) {
		rc = catalogue_extents(conn, CATALOGUE_LIVE, ino, 0, INT64_MAX, &places, &count);
		if (!rc)
			free(places);
	}
	assert_int_equal(rc, ERR_CORRUPT);
	db_rollback(db);
	db_close(db);
	remove_dir(dir);
}

static void test_resolve(void **state)
{
	(void)state;
	char *dir = temp_dir();
	struct db *db;
	struct db_conn *conn;
	int64_t ino;
	memset(models, 0, sizeof(models));
	models[1].inode[1].mode = models[1].inode[2].mode = models[1].inode[3].mode = S_IFDIR | 0755;
	models[1].inode[9].mode = S_IFREG | 0600;
	models[1].name[1][1] = 2, models[1].name[2][2] = 3, models[1].name[3][3] = 9;
	models[2] = models[1];
	models[2].name[2][2] = 0, models[2].name[1][0] = 3; /* moved to the root */
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_read_begin(db, &conn, &error), 0);
	assert_int_equal(catalogue_resolve(conn, CATALOGUE_LIVE, "", &ino), ERR_ABSENT);
	db_read_end(db, conn);
	for (int v = 1; v <= 2; v++) {
		struct delta *delta = version_delta(dir, v, 0, 0);
		apply(db, delta);
		delta_free(delta);
	}
	assert_int_equal(db_read_begin(db, &conn, &error), 0);
	assert_int_equal(catalogue_resolve(conn, 1, "Maildir/new\nline/\xff\xfe", &ino), 0);
	assert_int_equal(ino, 9);
	assert_int_equal(catalogue_resolve(conn, 2, "Maildir/new\nline/\xff\xfe", &ino), ERR_ABSENT);
	assert_int_equal(catalogue_resolve(conn, CATALOGUE_LIVE, "/a//\xff\xfe/", &ino), 0);
	assert_int_equal(ino, 9);
	assert_int_equal(catalogue_resolve(conn, 2, "", &ino), 0);
	assert_int_equal(ino, 1);
	int64_t inodes, bytes;
	assert_int_equal(catalogue_totals(conn, &inodes, &bytes), 0);
	assert_int_equal(inodes, 1);
	db_read_end(db, conn);
	db_close(db);
	remove_dir(dir);
}

static void test_local(void **state)
{
	(void)state;
	char *dir = temp_dir();
	struct db *db;
	struct db_conn *conn;
	struct local_row row = {7, 3, 100, -5, INT64_MAX, true}, got;
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_begin(db, true, &conn, &error), 0);
	assert_int_equal(catalogue_local_by_key(conn, "key", 3, &got), ERR_ABSENT);
	assert_int_equal(catalogue_local_set(conn, "key", 3, &row, &error), 0);
	assert_int_equal(catalogue_local_by_key(conn, "key", 3, &got), 0);
	assert_true(got.ino == 7 && got.captured == 3 && got.mtime_ns == -5 && got.ctime_ns == INT64_MAX && got.racy);
	char key[8];
	size_t length = sizeof(key);
	assert_int_equal(catalogue_local_key(conn, 7, key, &length), 0);
	assert_int_equal(length, 3);
	length = 2;
	assert_int_equal(catalogue_local_key(conn, 7, key, &length), ERR_CORRUPT);
	row.ino = 8; /* a key is of one inode */
	assert_int_equal(catalogue_local_set(conn, "key", 3, &row, &error), 0);
	assert_int_equal(catalogue_local_key(conn, 7, key, &length), ERR_ABSENT);
	int64_t ino; /* numbers are not reused while this machine remembers them */
	assert_int_equal(catalogue_maxima(conn, &ino, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(ino, 8);
	assert_int_equal(catalogue_local_forget(conn, 8, &error), 0);
	assert_int_equal(catalogue_local_by_key(conn, "key", 3, &got), ERR_ABSENT);
	assert_int_equal(db_commit(db, &error), 0);
	db_close(db);
	remove_dir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fork_and_ancestors), cmocka_unit_test(test_histories),
		cmocka_unit_test(test_versions),           cmocka_unit_test(test_dedup_trust),
		cmocka_unit_test(test_resolve),            cmocka_unit_test(test_local),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

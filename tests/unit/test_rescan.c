/* rescan: a small tree, a database that knows it as of some moment, and what happened behind our back since. */
#include "behind.h"
#include "catalogue.h"
#include "clock.h"
#include "rescan_internal.h"
#include "tree_volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t next_ino;

static int setup(void **state)
{
	next_ino = CATALOGUE_ROOT_INO;
	return tree_volume_setup(state);
}

/* ---------------------------------------------------------------- a catalogue that knows the tree as it is now */

static int64_t capture_inode(struct db_conn *conn, const struct node_key *key, const struct stat *st)
{
	struct local_row row;

	if (catalogue_local_by_key(conn, key->bytes, key->length, &row) == 0)
		return row.ino;
	row = (struct local_row){ next_ino++, 1, st->st_size, timespec_ns(st->st_mtim), timespec_ns(st->st_ctim), false };
	OK(catalogue_local_set(conn, key->bytes, key->length, &row, &error));
	OK(db_step(conn, &error, "INSERT INTO inode VALUES(?, 1, ?, 0, 0, 1, ?, 0, 0, 0, 0, 0, NULL, NULL)", "iii", row.ino,
		   (int64_t)st->st_mode, (int64_t)st->st_size));
	return row.ino;
}

static void capture_dir(struct db_conn *conn, int dirfd, int64_t dir_ino)
{
	DIR *dir = fdopendir(openat(dirfd, ".", O_RDONLY));
	struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct node_key key;
		struct stat st;
		int64_t ino;
		int fd;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		assert_int_equal(backing_identify(volume_backing(volume), dirfd, entry->d_name, &key, &st, &fd), 0);
		ino = capture_inode(conn, &key, &st);
		OK(db_step(conn, &error, "INSERT INTO name VALUES(?, ?, 1, ?)", "ibi", dir_ino, entry->d_name,
			   strlen(entry->d_name), ino));
		if (S_ISDIR(st.st_mode))
			capture_dir(conn, fd, ino);
		close(fd);
	}
	closedir(dir);
}

static void capture(void)
{
	struct db_conn *conn;
	struct node_key key;
	struct stat st;
	int fd;

	OK(db_begin(volume_db(volume), false, &conn, &error));
	assert_int_equal(backing_identify(volume_backing(volume), backing_root_fd(volume_backing(volume)), "", &key, &st, &fd), 0);
	assert_int_equal(capture_inode(conn, &key, &st), CATALOGUE_ROOT_INO);
	capture_dir(conn, fd, CATALOGUE_ROOT_INO);
	close(fd);
	OK(db_commit(volume_db(volume), &error));
}

/* ---------------------------------------------------------------- looking at the result */

static struct rescan_result scan(bool clean, bool same_boot)
{
	struct rescan_result result;
	_Atomic uint64_t progress = 0;

	OK(rescan_run(volume, clean, same_boot, NULL, &progress, &result, &error));
	assert_int_equal(progress, result.seen);
	return result;
}

static struct node_key key_of(const char *path)
{
	struct node_key key;
	struct stat st;
	int fd;

	while (*path == '/')
		path++;
	/* Through the backing's own mount: by another the inode would be foreign. */
	fd = openat(backing_root_fd(volume_backing(volume)), *path ? path : ".", O_PATH | O_NOFOLLOW);
	assert_true(fd >= 0);
	assert_int_equal(backing_identify(volume_backing(volume), fd, "", &key, &st, NULL), 0);
	close(fd);
	return key;
}

/* Bytes of its row; -1: none. */
static int64_t inode_row(const char *path)
{
	struct node_key key = key_of(path);
	struct db_conn *conn;
	int64_t bytes = -1;

	OK(db_read_begin(volume_db(volume), &conn, &error));
	if (db_step(conn, &error, "SELECT bytes FROM backlog_inode WHERE key=?", "b", key.bytes, (size_t)key.length) == 1)
		bytes = sqlite3_column_int64(db_last(conn), 0);
	db_read_end(volume_db(volume), conn);
	return bytes;
}

enum found { NONE, PRESENT, ABSENT, OTHER };

/* The row of a name in the directory with that key: is its child what is on disk there? */
static enum found name_row_at(struct node_key dir, const char *name, const struct node_key *child)
{
	struct db_conn *conn;
	enum found found = NONE;

	OK(db_read_begin(volume_db(volume), &conn, &error));
	if (db_step(conn, &error, "SELECT child FROM backlog_name WHERE dir=? AND name=?", "bb", dir.bytes, (size_t)dir.length,
		    name, strlen(name)) == 1) {
		sqlite3_stmt *stmt = db_last(conn);

		if (sqlite3_column_type(stmt, 0) == SQLITE_NULL)
			found = ABSENT;
		else if (child && sqlite3_column_bytes(stmt, 0) == child->length &&
			 memcmp(sqlite3_column_blob(stmt, 0), child->bytes, child->length) == 0)
			found = PRESENT;
		else
			found = OTHER;
	}
	db_read_end(volume_db(volume), conn);
	return found;
}

static enum found name_row(const char *dir, const char *name)
{
	char path[512];
	struct node_key child;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (faccessat(AT_FDCWD, ({ static char full[700]; snprintf(full, sizeof full, "%s/%s", tree_path, path); full; }), F_OK,
		      AT_SYMLINK_NOFOLLOW) != 0)
		return name_row_at(key_of(dir), name, NULL);
	child = key_of(path);
	return name_row_at(key_of(dir), name, &child);
}

#define ASSERT_COUNTS(result, changed_, names_, absent_)                                                               \
	do {                                                                                                           \
		assert_int_equal((result).changed, changed_);                                                          \
		assert_int_equal((result).names, names_);                                                              \
		assert_int_equal((result).absent, absent_);                                                            \
	} while (0)

/* ---------------------------------------------------------------- tests */

static void make_tree(void)
{
	tree_run("mkdir -p a/b/c d && printf 12345 >f && printf 1234567 >a/g && printf x >a/b/c/h && ln f d/link && ln -s f sym && "
	    "mkfifo pipe && truncate -s 1G sparse");
}

/* Everything is new. */
static void test_first(void **state)
{
	struct rescan_result result;

	(void)state;
	make_tree();
	tree_volume_create();
	result = scan(false, true);
	assert_int_equal(result.seen, 11);
	assert_int_equal(result.known, 0);
	/* The root too; f and d/link are one. */
	ASSERT_COUNTS(result, 11, 11, 0);
	assert_int_equal(result.changed_bytes, 5 + 7 + 1);
	assert_int_equal(inode_row("f"), 5);
	assert_int_equal(inode_row(""), 0);
	assert_int_equal(inode_row("sparse"), 0);
	assert_int_equal(name_row("", "f"), PRESENT);
	assert_int_equal(name_row("d", "link"), PRESENT);
	assert_int_equal(name_row("a/b/c", "h"), PRESENT);
	assert_int_equal(name_row("", "sym"), PRESENT);
	/* Again: the same. */
	result = scan(false, true);
	ASSERT_COUNTS(result, 11, 11, 0);
}

static void test_unchanged(void **state)
{
	struct rescan_result result;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	for (int i = 0; i < 4; i++) {
		result = scan(i & 1, i & 2);
		ASSERT_COUNTS(result, 0, 0, 0);
		assert_int_equal(result.known, 11);
	}
	/* I8: captured with a racy stat, or not yet at all. */
	tree_volume_sql("UPDATE local_inode SET racy=1 WHERE ino=(SELECT ino FROM name WHERE name=CAST('f' AS BLOB))");
	tree_volume_sql("UPDATE local_inode SET captured=0 WHERE ino=(SELECT ino FROM name WHERE name=CAST('g' AS BLOB))");
	result = scan(true, true);
	ASSERT_COUNTS(result, 2, 0, 0);
	assert_int_equal(inode_row("f"), 5);
	assert_int_equal(inode_row("a/g"), 7);
}

/* Fault 23: changed while unmounted. */
static void test_edits(void **state)
{
	struct node_key gone;
	struct rescan_result result;

	(void)state;
	make_tree();
	tree_run("touch -d @1000 a/g");
	tree_volume_create();
	capture();
	gone = key_of("a/b");
	tree_run("printf 54321 >f && chmod 600 a/b/c/h && mv a/b/c moved && printf 7654321 >a/new && touch -d @1000 a/new && "
	    "mv a/new a/g && rm sym && rmdir a/b && mkdir sym");
	result = scan(true, true);
	/* Changed: root, f, a, moved (by the rename), h, a/g, sym. */
	ASSERT_COUNTS(result, 7, 5, 2);
	assert_int_equal(inode_row("f"), 5);
	assert_int_equal(inode_row("moved/h"), 1);
	assert_int_equal(inode_row("a/g"), 7);
	assert_int_equal(inode_row("d"), -1);
	assert_int_equal(name_row("", "moved"), PRESENT);
	assert_int_equal(name_row("", "sym"), PRESENT);
	assert_int_equal(name_row("a", "g"), PRESENT);
	assert_int_equal(name_row("a", "b"), ABSENT);
	assert_int_equal(name_row_at(gone, "c", NULL), ABSENT);
	assert_int_equal(name_row("", "f"), NONE);
	assert_int_equal(name_row("moved", "h"), NONE);
}

/* A whole subtree is gone: each of its names is. */
static void test_subtree_gone(void **state)
{
	struct node_key a, b, c;
	struct rescan_result result;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	a = key_of("a"), b = key_of("a/b"), c = key_of("a/b/c");
	tree_run("rm -rf a");
	result = scan(true, true);
	ASSERT_COUNTS(result, 1, 5, 5);
	assert_int_equal(name_row("", "a"), ABSENT);
	assert_int_equal(name_row_at(a, "g", NULL), ABSENT);
	assert_int_equal(name_row_at(a, "b", NULL), ABSENT);
	assert_int_equal(name_row_at(b, "c", NULL), ABSENT);
	assert_int_equal(name_row_at(c, "h", NULL), ABSENT);
}

static void test_many_entries(void **state)
{
	struct rescan_result result;

	(void)state;
	tree_run("mkdir many && cd many && seq 1 9000 | xargs touch");
	tree_volume_create();
	capture();
	result = scan(true, true);
	assert_int_equal(result.seen, 9001);
	ASSERT_COUNTS(result, 0, 0, 0);
	tree_run("cd many && seq 1 2 9000 | xargs rm && seq 10001 14500 | xargs touch");
	result = scan(true, true);
	ASSERT_COUNTS(result, 1 + 4500, 9000, 4500);
	assert_int_equal(result.known, 9001);
	assert_int_equal(name_row("many", "77"), ABSENT);
	assert_int_equal(name_row("many", "78"), NONE);
	assert_int_equal(name_row("many", "10077"), PRESENT);
}

static void test_odd_names(void **state)
{
	char name[256];
	struct rescan_result result;

	(void)state;
	tree_run("touch \"$(printf 'new\\nline')\" \"$(printf '\\377\\376')\" -- '-x' && mkdir .snapshots && touch .snapshots/y");
	memset(name, 'n', 255);
	name[255] = '\0';
	tree_run("touch %s", name);
	tree_volume_create();
	result = scan(true, true);
	ASSERT_COUNTS(result, 7, 6, 0);
	assert_int_equal(name_row("", "new\nline"), PRESENT);
	assert_int_equal(name_row("", name), PRESENT);
	capture();
	tree_run("rm %s '%s'", name, "\377\376");
	result = scan(true, true);
	ASSERT_COUNTS(result, 7, 2, 2); /* rows of inodes stay until they are captured */
	assert_int_equal(name_row("", "\377\376"), ABSENT);
}

static void test_stop(void **state)
{
	struct rescan_result result;
	atomic_bool stop = true;

	(void)state;
	make_tree();
	tree_volume_create();
	assert_int_equal(rescan_run(volume, true, true, &stop, NULL, &result, &error), ERR_ABANDONED);
	stop = false;
	OK(rescan_run(volume, true, true, &stop, NULL, &result, NULL));
	ASSERT_COUNTS(result, 11, 11, 0);
}

static void put_journal_inode(const char *path, int64_t epoch, bool whole, bool same_stat)
{
	struct node_key key = key_of(path);
	struct db_conn *conn;
	struct stat st;
	char full[512];

	snprintf(full, sizeof full, "%s/%s", tree_path, path);
	assert_int_equal(stat(full, &st), 0);
	OK(db_begin(volume_db(volume), false, &conn, &error));
	OK(db_step(conn, &error,
		   "INSERT INTO journal_inode(key, epoch, type, whole, size, mtime_ns, ctime_ns, extents) "
		   "VALUES(?, ?, ?, ?, ?, ?, ?, x'')",
		   "biiiiii", key.bytes, (size_t)key.length, epoch, (int64_t)st.st_mode & S_IFMT, (int64_t)whole,
		   (int64_t)st.st_size, timespec_ns(st.st_mtim), timespec_ns(st.st_ctim) + !same_stat));
	OK(db_commit(volume_db(volume), &error));
}

static void put_unsettled(const char *path)
{
	struct node_key key = key_of(path);
	struct db_conn *conn;

	OK(db_begin(volume_db(volume), false, &conn, &error));
	OK(db_step(conn, &error, "INSERT INTO unsettled VALUES(?, 1)", "b", key.bytes, (size_t)key.length));
	OK(db_commit(volume_db(volume), &error));
}

/* I12: what the journal holds counts after a clean stop only, and only with the stat that it wrote down. */
static void test_i12_journaled(void **state)
{
	struct rescan_result result;

	(void)state;
	tree_run("for i in known changed new part; do printf old >$i; done");
	tree_volume_create();
	tree_run("rm new part");
	capture();
	tree_run("printf new! | tee known >changed && printf new >new && printf new >part");
	put_journal_inode("known", 3, false, true);
	put_journal_inode("changed", 3, false, false);
	put_journal_inode("new", 3, true, true);
	put_journal_inode("part", 3, false, true); /* not known, and not journaled throughout */
	result = scan(true, true);
	assert_int_equal(inode_row("known"), -1);
	assert_int_equal(inode_row("changed"), 4);
	assert_int_equal(inode_row("new"), -1);
	assert_int_equal(inode_row("part"), 3);
	ASSERT_COUNTS(result, 3, 2, 0);
	result = scan(false, true);
	assert_int_equal(inode_row("known"), 4);
	assert_int_equal(inode_row("new"), 3);
	ASSERT_COUNTS(result, 5, 2, 0);
}

static void nothing(void *context)
{
	(void)context;
}

/* I9: after a power cut, the stat of an unsettled inode proves nothing; after a kill or a clean stop it does. */
static void test_i9_unsettled(void **state)
{
	struct rescan_result result;
	uint8_t boot[16], stored[16] = { 0 };
	struct db_conn *conn;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	put_unsettled("a/g");
	result = scan(false, true);
	ASSERT_COUNTS(result, 0, 0, 0);
	result = scan(true, false);
	ASSERT_COUNTS(result, 0, 0, 0);
	tree_volume_sql("DELETE FROM meta WHERE name='boot_id'");
	result = scan(false, false);
	ASSERT_COUNTS(result, 1, 0, 0);
	assert_int_equal(inode_row("a/g"), 7);
	/* It stays, although this boot has been dealt with. */
	backing_boot_id(boot);
	OK(db_read_begin(volume_db(volume), &conn, &error));
	assert_int_equal(db_meta_blob(conn, "boot_id", stored, 16), 0);
	db_read_end(volume_db(volume), conn);
	assert_memory_equal(boot, stored, 16);
	result = scan(false, true);
	ASSERT_COUNTS(result, 1, 0, 0);
}


/* A session, which ends as an unmount does. */
static void session(bool scanning, bool *clean)
{
	bool same_boot;

	OK(volume_start_journal(volume, nothing, NULL, clean, &same_boot, &error));
	assert_false(*clean && !same_boot);
	if (scanning)
		scan(*clean, same_boot);
	volume_close(volume, true);
	tree_volume_open();
}

/* I10: a session that ends before the rescan does leaves no clean mark behind: what a power cut made doubtful stays so. */
static void test_i10_clean_after_the_rescan(void **state)
{
	bool clean;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	put_unsettled("a/g");
	session(false, &clean);
	assert_false(clean);
	session(false, &clean);
	assert_false(clean);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM unsettled"), 1);
	session(true, &clean);
	assert_false(clean);
	assert_int_equal(inode_row("a/g"), 7);
	session(false, &clean);
	assert_true(clean);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM unsettled"), 0);
	session(false, &clean);
	assert_true(clean);
}

/* As an operation would: a rename that is journaled, of something that the walk (by the order of its stack) can't meet any more. */
static void journal_name(const char *dir, const char *name, const char *child)
{
	struct node_key dir_key = key_of(dir), child_key;

	if (child)
		child_key = key_of(child);
	assert_int_equal(journal_note_name(volume_journal(volume), &dir_key, name, child ? &child_key : NULL, child ? S_IFDIR : 0), 0);
}

/* An operation moves a directory with things changed behind our back from where the walk has not been yet to where it has been: only the journal knows. The walk
 * is at its end, having met the root and a/b/c. */
static void test_moved_meanwhile(void **state)
{
	bool clean, same_boot;
	struct rescan_result result = { 0 };
	struct node_key key;
	struct rescan r = {
		.result = &result, .error = &error, .clean = false,
	};

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	tree_run("mkdir -p n1/n2 d/n3 && touch n1/n2/deep d/n3/unseen && mv n1 a/b/c/n1");
	journal_name("a/b/c", "n1", "a/b/c/n1");
	journal_name("a/b/c/n1/n2", "deep", "a/b/c/n1/n2/deep");
	journal_name("d", "n3", "d/n3");
	journal_name("a/b/c", "gone", NULL);
	r.volume = volume;
	r.backing = volume_backing(volume);
	r.db = volume_db(volume);
	key = key_of("");
	assert_int_equal(rescan_visit(&r, &key), 1);
	key = key_of("a/b/c");
	assert_int_equal(rescan_visit(&r, &key), 1);
	assert_int_equal(rescan_visit(&r, &key), 0);
	OK(rescan_walk_moved(&r));
	OK(rescan_flush(&r));
	rescan_free(&r);
	assert_int_equal(name_row("a/b/c", "n1"), PRESENT);
	assert_int_equal(name_row("a/b/c/n1", "n2"), PRESENT);
	assert_int_equal(name_row("a/b/c/n1/n2", "deep"), PRESENT);
	assert_int_equal(inode_row("a/b/c/n1/n2/deep"), 0);
	assert_int_equal(name_row("a/b/c", "gone"), NONE);
	/* Not in a directory that was visited: perhaps not even in the tree. */
	assert_int_equal(name_row("d", "n3"), NONE);
}

static void test_backlog_to_journal(void **state)
{
	bool clean, same_boot;
	struct journal_counts counts;
	struct rescan_result result;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	tree_run("printf more >>f && touch a/new && rm pipe");
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	result = scan(clean, same_boot);
	ASSERT_COUNTS(result, 4, 2, 1); /* root, a, f, a/new */
	/* As another writer of the table leaves it. */
	tree_volume_sql("UPDATE backlog_inode SET type=0; UPDATE backlog_name SET child_type=0");
	OK(backlog_to_journal(volume, &(struct error){ 0 }, &error));
	assert_int_equal(tree_volume_int("SELECT count(*) FROM backlog_inode"), 0);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM backlog_name"), 0);
	journal_get_counts(volume_journal(volume), &counts);
	assert_int_equal(counts.dirty_inodes, 4);
	assert_int_equal(counts.dirty_names, 2);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM journal_inode WHERE whole=1"), 2);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM journal_name WHERE child IS NULL"), 1);
	OK(backlog_to_journal(volume, &(struct error){ 0 }, &error));
	/* A clean stop, and the next start: all of it is in the journal, and the scan finds nothing. */
	volume_close(volume, true);
	volume = NULL;
	tree_volume_open();
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	assert_true(clean && same_boot);
	result = scan(clean, same_boot);
	ASSERT_COUNTS(result, 0, 0, 0);
}

/* What the journal says of a name in the root: absent, present (as it is on disk), something else, or nothing. */
struct asked { const char *name; struct node_key there; bool exists; enum found found; };

static int take_name(void *context, const char *name, const struct node_key *child, mode_t type)
{
	struct asked *asked = context;

	(void)type;
	if (strcmp(name, asked->name) == 0)
		asked->found = !child ? ABSENT : asked->exists && node_key_equal(child, &asked->there) ? PRESENT : OTHER;
	return 0;
}

static enum found in_cut(struct cut *cut, const char *name)
{
	struct asked asked = { .name = name, .found = NONE };
	struct node_key root = key_of("");
	struct stat st;

	asked.exists = fstatat(backing_root_fd(volume_backing(volume)), name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (asked.exists)
		asked.there = key_of(name);
	for (size_t i = 0; i < cut_count(cut); i++)
		if (node_key_equal(frozen_key(cut_item(cut, i)), &root))
			frozen_names(cut_item(cut, i), take_name, &asked);
	return asked.found;
}

static bool is_item(struct cut *cut, const char *name)
{
	struct node_key key = key_of(name);

	for (size_t i = 0; i < cut_count(cut); i++)
		if (node_key_equal(frozen_key(cut_item(cut, i)), &key))
			return true;
	return false;
}

/* I12: what a scan saw may be old when it comes into the journal. Meanwhile operations changed names, and a cut took those records away; nothing but the disk knows then. */
static void test_i12_names_seen_before(void **state)
{
	bool clean, same_boot;
	struct cut *cut;

	(void)state;
	tree_run("touch went");
	tree_volume_create();
	capture();
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	tree_run("rm went && touch moved replaced removed");
	scan(clean, same_boot);
	assert_int_equal(name_row("", "went"), ABSENT);
	assert_int_equal(name_row("", "moved"), PRESENT);
	tree_run("touch went && mv moved to && touch other && mv other replaced && rm removed");
	OK(backlog_to_journal(volume, &(struct error){ 0 }, &error));
	OK(journal_cut(volume_journal(volume), NS_PER_S, &cut));
	assert_int_equal(in_cut(cut, "went"), PRESENT);
	assert_int_equal(in_cut(cut, "moved"), ABSENT);
	assert_int_equal(in_cut(cut, "replaced"), PRESENT);
	assert_true(is_item(cut, "replaced")); /* the scan saw another inode there */
	assert_int_equal(in_cut(cut, "removed"), ABSENT);
	assert_int_equal(in_cut(cut, "to"), NONE); /* the operation's own record had it */
	cut_abandon(cut);
}

static void put_journal_name(const char *name, const char *child)
{
	struct node_key root = key_of(""), key = key_of(child);
	struct db_conn *conn;

	OK(db_begin(volume_db(volume), false, &conn, &error));
	OK(db_step(conn, &error, "INSERT INTO journal_name(dir, name, epoch, child, child_type) VALUES(?, ?, 1, ?, ?)", "bbbi",
		   root.bytes, (size_t)root.length, name, strlen(name), key.bytes, (size_t)key.length, (int64_t)S_IFREG));
	OK(db_commit(volume_db(volume), &error));
}

/* I12: a name that the journal has from before, and that was changed behind our back since. The scan can't find it: it is neither on disk nor in the catalogue. */
static void test_i12_names_of_the_last_session(void **state)
{
	bool clean, same_boot;
	struct cut *cut;

	(void)state;
	tree_run("touch now");
	tree_volume_create();
	capture();
	put_journal_name("before", "now");
	tree_volume_sql("INSERT INTO meta VALUES('clean', 1)");
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	assert_true(clean);
	OK(journal_cut(volume_journal(volume), NS_PER_S, &cut));
	assert_int_equal(in_cut(cut, "before"), ABSENT);
	cut_abandon(cut);
	volume_close(volume, true);
	tree_volume_open();
	/* After an unclean stop not even that is asked: the scan reads all names, and what was journaled is gone for good. */
	put_journal_name("other", "now");
	tree_volume_sql("UPDATE meta SET value=0 WHERE name='clean'");
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	assert_false(clean);
	assert_int_equal(tree_volume_int("SELECT count(*) FROM journal_name WHERE epoch>0 OR child IS NOT NULL"), 0);
}

/* An unprivileged user: keys without handles, found again by names. */
static int as_user(void)
{
	struct rescan_result result;
	struct journal_counts counts;
	struct node_key h, key;
	struct stat st;
	bool clean, same_boot;
	int fd;

	tree_volume_create();
	if (backing_has_handles(volume_backing(volume)))
		return 2;
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	result = scan(false, true);
	if (result.seen != 11 || result.names != 11 || result.changed != 11)
		return 3;
	h = key_of("a/b/c/h");
	fd = backing_reopen_key(volume_backing(volume), &h, O_RDONLY);
	if (fd < 0 || backing_identify(volume_backing(volume), fd, "", &key, &st, NULL) < 0 || !node_key_equal(&h, &key))
		return 4;
	close(fd);
	OK(backlog_to_journal(volume, &(struct error){ 0 }, &error));
	journal_get_counts(volume_journal(volume), &counts);
	if (counts.dirty_inodes != 11)
		return 5;
	/* By the node's descriptor now. */
	fd = backing_reopen_key(volume_backing(volume), &h, O_RDONLY);
	if (fd < 0)
		return 6;
	close(fd);
	/* From the catalogue alone. */
	volume_close(volume, true);
	tree_volume_open();
	fd = backing_reopen_key(volume_backing(volume), &h, O_RDONLY);
	if (fd != -ESTALE)
		return 7;
	capture();
	fd = backing_reopen_key(volume_backing(volume), &h, O_RDONLY);
	if (fd < 0)
		return 8;
	close(fd);
	result = scan(true, true);
	if (result.changed || result.names || result.absent)
		return 9;
	volume_close(volume, false);
	return 0;
}

/* ---------------------------------------------------------------- who is told */

static struct { /* what a listener heard since the last `begin` */
	int begins, ends, inodes, names;
	char text[4096]; /* the names, each in blanks */
	bool stat_is_new;
} heard;

static void hear_begin(void *context)
{
	(void)context;
	heard.begins++;
	heard.inodes = heard.names = 0;
	heard.text[0] = '\0';
}

static void hear_end(void *context)
{
	(void)context;
	heard.ends++;
}

static void hear_inode(void *context, const struct node_key *key, const struct stat *st)
{
	(void)context;
	(void)key;
	heard.inodes++;
	heard.stat_is_new |= st->st_size == 777;
}

static void hear_name(void *context, const struct node_key *dir, const char *name)
{
	(void)context;
	(void)dir;
	heard.names++;
	strncat(heard.text, " ", sizeof heard.text - strlen(heard.text) - 1);
	strncat(heard.text, name, sizeof heard.text - strlen(heard.text) - 1);
}

static void test_listener(void **state)
{
	static const struct behind_listener listener = { hear_begin, hear_end, hear_inode, hear_name, NULL };
	bool clean, same_boot;

	(void)state;
	make_tree();
	tree_volume_create();
	capture();
	OK(volume_start_journal(volume, nothing, NULL, &clean, &same_boot, &error));
	volume_set_listener(volume, &listener);
	scan(true, true);
	assert_int_equal(heard.begins, 1);
	assert_int_equal(heard.ends, 1);
	assert_int_equal(heard.inodes, 12); /* each entry, and the root */
	assert_int_equal(heard.names, 0);
	/* A subtree that is gone is told name by name; an inode that only changed, by itself. */
	tree_run("truncate -s 777 a/g && mv f f2 && rm -r a/b && mkfifo new");
	scan(true, true);
	assert_int_equal(heard.ends, 2);
	assert_int_equal(heard.inodes, 10);
	assert_true(heard.stat_is_new);
	assert_int_equal(heard.names, 6);
	for (const char *const *name = (const char *const[]){ " f", " f2", " b", " c", " h", " new", NULL }; *name; name++)
		assert_non_null(strstr(heard.text, *name));
	/* Read anew for the journal, they may be newer than the scan: told again. */
	heard.names = 0;
	OK(backlog_to_journal(volume, &(struct error){ 0 }, &error));
	assert_int_equal(heard.names, 4); /* what was in a directory that is gone has no place any more */
	volume_set_listener(volume, NULL);
}

static void test_user(void **state)
{
	(void)state;
	make_tree();
	tree_as_nobody(as_user);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, tree_volume_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first), TEST(test_unchanged), TEST(test_edits), TEST(test_subtree_gone),
		TEST(test_many_entries), TEST(test_odd_names), TEST(test_stop), TEST(test_i12_journaled),
		TEST(test_i9_unsettled), TEST(test_i10_clean_after_the_rescan), TEST(test_moved_meanwhile),
		TEST(test_backlog_to_journal), TEST(test_i12_names_seen_before), TEST(test_i12_names_of_the_last_session), TEST(test_listener), TEST(test_user),
	};

	return cmocka_run_group_tests_name("rescan", tests, NULL, NULL);
}

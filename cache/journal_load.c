/* The journal's life: opening (rows of the last session come back), and the clean stop (I10, I12). */
#include "journal_internal.h"

#include "clock.h"
#include "failpoint.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ------------------------------------------------------------------ rows of the last session */

bool journal_column_key(sqlite3_stmt *stmt, int column, struct node_key *key)
{
	int length = sqlite3_column_bytes(stmt, column);

	if (sqlite3_column_type(stmt, column) != SQLITE_BLOB || length <= 0 || length > NODE_KEY_MAX)
		return false;
	memset(key, 0, sizeof *key);
	key->length = (uint8_t)length;
	memcpy(key->bytes, sqlite3_column_blob(stmt, column), (size_t)length);
	return true;
}

/* The inode's changed ranges, or all of it. */
static int note_extents(struct journal *journal, const struct node_key *key, mode_t type, bool whole, const void *bytes,
			size_t length)
{
	int result = journal_note_inode(journal, key, type, whole && S_ISREG(type));

	for (size_t at = 0; result == 0 && !whole && at + sizeof(struct extent) <= length; at += sizeof(struct extent)) {
		struct node *node = node_get(journal->nodes, key, type, -1);
		struct mutation mutation;
		struct extent range;

		memcpy(&range, (const char *)bytes + at, sizeof range);
		if (!node)
			return -ENOMEM;
		if (range.start < 0 || range.end <= range.start) {
			node_put(journal->nodes, node);
			return journal_note_inode(journal, key, type, true);
		}
		result = mutation_begin(&mutation, journal);
		if (result == 0) {
			mutation_lock(&mutation, node, NULL, NULL, NULL);
			result = mutation_data(&mutation, node, range.start,
					       range.end == EXTENT_END ? -1 : range.end - range.start);
			mutation_end(&mutation);
		}
		node_put(journal->nodes, node);
	}
	return result;
}

static int load_inodes(struct journal *journal, struct db_conn *conn, bool clean, struct error *error)
{
	int more = db_step(conn, error, "SELECT key, type, whole, extents FROM journal_inode ORDER BY epoch", "");
	sqlite3_stmt *stmt = db_last(conn);
	int result = 0;

	while (more == 1 && result == 0) {
		struct node_key key;

		if (journal_column_key(stmt, 0, &key))
			result = note_extents(journal, &key, (mode_t)sqlite3_column_int64(stmt, 1),
					      !clean || sqlite3_column_int64(stmt, 2) != 0, sqlite3_column_blob(stmt, 3),
					      (size_t)sqlite3_column_bytes(stmt, 3));
		if (result == 0)
			more = db_next(conn, stmt, error);
	}
	if (more == 1)
		db_reset(stmt);
	return result != 0 ? error_set(error, ERR_NOMEM, 0, "loading the journal: out of memory") : more;
}

static int load_names(struct journal *journal, struct db_conn *conn, struct error *error)
{
	/* Of each name the newest: SQLite takes the other columns from the row of the maximum. Epoch 0: witness_removals. */
	int more = db_step(conn, error,
			   "SELECT dir, name, child, child_type, max(epoch) FROM journal_name WHERE epoch > 0 GROUP BY dir, name", "");
	sqlite3_stmt *stmt = db_last(conn);
	int result = 0;

	while (more == 1 && result == 0) {
		struct node_key dir, child;
		char name[256];
		int length = sqlite3_column_bytes(stmt, 1);

		if (journal_column_key(stmt, 0, &dir) && length > 0 && length < (int)sizeof name) {
			bool has_child = journal_column_key(stmt, 2, &child);

			memcpy(name, sqlite3_column_blob(stmt, 1), (size_t)length);
			name[length] = '\0';
			result = journal_note_name(journal, &dir, name, has_child ? &child : NULL,
						   (mode_t)sqlite3_column_int64(stmt, 3));
		}
		if (result == 0)
			more = db_next(conn, stmt, error);
	}
	if (more == 1)
		db_reset(stmt);
	return result != 0 ? error_set(error, ERR_NOMEM, 0, "loading the journal: out of memory") : more;
}

/* Journaled names count after a clean stop only: after another, names on disk beat them (I12), and the rescan reads those. They go: a later, clean start would take them for news. What stays, under the epoch 0 that no
 * recording has, is the knowledge that a name was removed by an operation: the scan that finds it gone does not take that for a loss. The next version removes these rows too. */
static int witness_removals(struct journal *journal, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(journal->db, false, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_exec(conn,
			 "DELETE FROM journal_name WHERE epoch < (SELECT max(epoch) FROM journal_name AS newest "
			 "WHERE newest.dir = journal_name.dir AND newest.name = journal_name.name); "
			 "DELETE FROM journal_name WHERE child IS NOT NULL; "
			 "UPDATE journal_name SET epoch = 0 WHERE epoch > 0",
			 error);
	if (result == ERR_OK)
		return db_commit(journal->db, error);
	db_rollback(journal->db);
	return result;
}

static int load(struct journal *journal, bool clean, struct error *error)
{
	struct db_conn *conn;
	int result = db_read_begin(journal->db, &conn, error);

	if (result != ERR_OK)
		return result;
	atomic_store(&journal->epoch, db_meta_int(conn, "epoch", 0) + 1);
	result = load_inodes(journal, conn, clean, error);
	if (result == ERR_OK && clean)
		result = load_names(journal, conn, error);
	if (result == ERR_OK)
		result = suspect_load(journal, conn, error);
	if (result == ERR_OK && db_step(conn, error, "SELECT count(*) FROM unsettled", "") == 1) {
		journal->unsettled_rows = (uint64_t)sqlite3_column_int64(db_last(conn), 0);
		db_reset(db_last(conn));
	}
	db_read_end(journal->db, conn);
	return result == ERR_OK && !clean ? witness_removals(journal, error) : result;
}

/* ------------------------------------------------------------------ life */

static void free_journal(struct journal *journal)
{
	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		struct shard *shard = &journal->shards[i];

		for (struct dirt *dirt = shard->unflushed, *next; dirt; dirt = next) {
			next = dirt->next_unflushed;
			dirt_put(journal, dirt);
		}
		for (struct dirt *dirt = shard->dirty, *next; dirt; dirt = next) {
			next = dirt->next;
			dirt->node->dirt = NULL;
			dirt_put(journal, dirt);
		}
		pthread_mutex_destroy(&shard->mutex);
	}
	suspects_free(journal);
	preimage_store_free(journal->preimages);
	cut_lock_destroy(&journal->lock);
	pthread_cond_destroy(&journal->store_wanted);
	pthread_cond_destroy(&journal->store_done);
	pthread_cond_destroy(&journal->urgent_done);
	pthread_mutex_destroy(&journal->store_mutex);
	unsettled_log_close(journal->unsettled_log);
	if (journal->state_fd >= 0)
		close(journal->state_fd);
	free(journal);
}

/* The rest is for open files, the cache of descriptors, the database and connections (fs/handle.c has the whole sum). */
static int frozen_fd_cap(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 8 >= FROZEN_FD_CAP)
		return FROZEN_FD_CAP;
	return (int)(limit.rlim_cur / 8);
}

int journal_open(struct db *db, struct backing *backing, struct node_table *nodes, const char *state_path, bool clean,
		 void (*wake)(void *), void *wake_context, struct journal **out, struct error *error)
{
	struct journal *journal = calloc(1, sizeof *journal);
	int result;

	if (!journal)
		return error_set(error, ERR_NOMEM, 0, "opening the journal: out of memory");
	journal->db = db;
	journal->backing = backing;
	journal->nodes = nodes;
	journal->wake = wake;
	journal->wake_context = wake_context;
	journal->frozen_fd_cap = frozen_fd_cap();
	journal->preimages = preimage_store_new(state_path);
	journal->state_fd = open(state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < JOURNAL_SHARDS; i++)
		pthread_mutex_init(&journal->shards[i].mutex, NULL);
	pthread_mutex_init(&journal->store_mutex, NULL);
	clock_cond_init(&journal->store_wanted);
	clock_cond_init(&journal->store_done);
	suspects_init(&journal->suspects);
	clock_cond_init(&journal->urgent_done);
	if (cut_lock_init(&journal->lock) != 0 || !journal->preimages)
		result = error_set(error, ERR_NOMEM, 0, "opening the journal: out of memory");
	else if (journal->state_fd < 0)
		result = error_errno(error, errno, "%s", state_path);
	else
		result = clean ? ERR_OK : unsettled_load_log(journal, error);
	if (result == ERR_OK)
		result = load(journal, clean, error);
	if (result == ERR_OK)
		result = unsettled_log_open(journal->state_fd, &journal->unsettled_log, error);
	if (result == ERR_OK)
		result = journal_store_start(journal, error);
	if (result != ERR_OK) {
		free_journal(journal);
		return result;
	}
	*out = journal;
	return ERR_OK;
}

/* I10, I12: everything is in the database with the stat that goes with it, and all bytes are on disk: then nothing is unsettled, and the next start
 * may believe the rows. Unless there are suspect inodes: timestamps don't tell what happens to them from now on. */
static int stop_clean(struct journal *journal, struct error *error)
{
	struct db_conn *conn;
	int result;

	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		/* Once more, all of them: now with their stat. */
		for (struct dirt *dirt = journal->shards[i].dirty; dirt; dirt = dirt->next)
			dirt_touch(journal, dirt);
	}
	result = backing_syncfs(journal->backing);
	if (result != 0)
		return error_errno(error, -result, "cannot sync the directory's filesystem");
	result = journal_store_flush_final(journal, true, error);
	if (result != ERR_OK)
		return result;
	if (atomic_load(&journal->suspects.count) > 0)
		return ERR_OK;
	FAILPOINT("journal/before-clean");
	result = db_begin(journal->db, true, &conn, error);
	if (result != ERR_OK)
		return result;
	result = db_exec(conn, "DELETE FROM unsettled", error);
	if (result == ERR_OK)
		result = db_meta_set_int(conn, "settled_epoch", atomic_load(&journal->epoch), error);
	if (result == ERR_OK)
		result = db_meta_set_int(conn, "clean", 1, error);
	if (result != ERR_OK) {
		db_rollback(journal->db);
		return result;
	}
	result = db_commit(journal->db, error);
	if (result == ERR_OK && ((journal->overflow_marked && overflow_write(journal, OVERFLOW_UNSETTLED, 0) != 0) ||
				 (overflow_read(journal, OVERFLOW_SUSPECT) && overflow_write(journal, OVERFLOW_SUSPECT, 0) != 0)))
		result = error_errno(error, errno, "cannot clear the overflow mark");
	return result;
}

int journal_close(struct journal *journal, bool mark_clean, struct error *error)
{
	int result;

	if (!journal)
		return ERR_OK;
	journal_store_stop(journal);
	result = mark_clean ? stop_clean(journal, error) : journal_store_flush_final(journal, false, error);
	free_journal(journal);
	return result;
}

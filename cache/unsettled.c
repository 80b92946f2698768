/* The unsettled set (I9, I10): inodes whose bytes may not be on the local disk as captured.
 *
 * A row is written with the journal's (journal_store.c). If the database can't be written (no space), fsync must still not promise too much: one byte of the preallocated file `overflow` in the state
 * directory is set instead, which needs no new block: after a power cut every inode then counts as unsettled. Another one stands for suspect inodes (suspect.c). */
#include "journal_internal.h"

#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#define OVERFLOW_FILE "overflow"

/* ------------------------------------------------------------------ the overflow mark */

int overflow_write(struct journal *journal, enum overflow which, char value)
{
	int fd = openat(journal->state_fd, OVERFLOW_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int result = -1;

	if (fd >= 0) {
		result = io_pwrite(fd, &value, 1, which);
		if (result == 0)
			result = fdatasync(fd);
		close(fd);
	}
	return result;
}

bool overflow_read(struct journal *journal, enum overflow which)
{
	int fd = openat(journal->state_fd, OVERFLOW_FILE, O_RDONLY | O_CLOEXEC);
	char value = 0;

	if (fd >= 0) {
		if (io_pread(fd, &value, 1, which) != 1)
			value = 0;
		close(fd);
	}
	return value == 1;
}

/* After a power cut that followed an overflow nobody knows what was unsettled: everything. */
int overflow_spread(struct journal *journal, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(journal->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_exec(conn, "INSERT OR IGNORE INTO unsettled SELECT key, 0 FROM local_inode", error);
	if (result != ERR_OK) {
		db_rollback(journal->db);
		return result;
	}
	result = db_commit(journal->db, error);
	if (result == ERR_OK && overflow_write(journal, OVERFLOW_UNSETTLED, 0) != 0)
		result = error_errno(error, errno, "cannot clear the overflow mark");
	return result;
}

/* ------------------------------------------------------------------ entering */

int unsettled_put(struct db_conn *conn, const struct node_key *key, int64_t epoch, struct error *error)
{
	return db_step(conn, error,
		       "INSERT INTO unsettled(key, epoch) VALUES(?, ?) "
		       "ON CONFLICT(key) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
		       "bi", key->bytes, (size_t)key->length, epoch);
}

void unsettled_count(struct journal *journal, uint64_t more)
{
	pthread_mutex_lock(&journal->store_mutex);
	journal->unsettled_rows += more;
	pthread_mutex_unlock(&journal->store_mutex);
}

/* Newest epoch of which the inode's row is on disk, of the changes that are not captured. node->lock held. */
static int64_t durable_epoch(const struct node *node)
{
	int64_t dirty = node->dirt ? atomic_load(&node->dirt->durable_epoch) : 0;
	int64_t frozen = node->frozen ? atomic_load(&node->frozen->durable_epoch) : 0;

	return dirty > frozen ? dirty : frozen;
}

/* Puts the inode's newest changes on the way to the database, if they are not durable there. Their epoch; 0: nothing to wait for. *durable: what there is. */
static int64_t want_unsettled(struct journal *journal, struct node *node, int64_t *durable)
{
	int64_t epoch = 0;

	small_lock_take(&node->lock);
	if (node->dirt || node->frozen) {
		struct dirt *newest = node->dirt ? node->dirt : node->frozen;

		epoch = newest->epoch;
		*durable = durable_epoch(node);
		if (*durable < epoch)
			dirt_touch(journal, newest);
	}
	small_lock_leave(&node->lock);
	return epoch;
}

int journal_wait_unsettled(struct journal *journal, struct node *node)
{
	int64_t first = 0;
	bool failed = false, marked = false;

	/* More than once when 1 we touch, 2 a flush that nobody waits for takes the row, 3 we take our ticket: what that flush commits is not synced, and the one for our
	 * ticket finds nothing to write. */
	for (;;) {
		int64_t durable = 0, needed = want_unsettled(journal, node, &durable);

		first = first ? first : needed;
		if (needed == 0 || durable >= first)
			return 0;
		if (marked) /* after a power cut every inode is unsettled, this one too */
			return 0;
		if (failed)
			return -EIO;
		pthread_mutex_lock(&journal->store_mutex);
		uint64_t ticket = ++journal->durable_wanted;

		pthread_cond_signal(&journal->store_wanted);
		while (journal->durable_done < ticket && !journal->stop)
			pthread_cond_wait(&journal->store_done, &journal->store_mutex);
		marked = journal->overflow_marked;
		failed = journal->stop || journal->store_result != ERR_OK;
		pthread_mutex_unlock(&journal->store_mutex);
	}
}

/* ------------------------------------------------------------------ settling (I10) */

static int forget_settled(struct journal *journal, int64_t epoch, struct error *error)
{
	struct db_conn *conn;
	int64_t left = 0;
	int result = db_begin(journal->db, false, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_step(conn, error, "DELETE FROM unsettled WHERE epoch <= ?", "i", epoch);
	if (result >= 0 && db_step(conn, error, "SELECT count(*) FROM unsettled", "") == 1) {
		left = sqlite3_column_int64(db_last(conn), 0);
		db_reset(db_last(conn));
	}
	if (result < 0) {
		db_rollback(journal->db);
		return result;
	}
	result = db_commit(journal->db, error);
	if (result != ERR_OK)
		return result;
	pthread_mutex_lock(&journal->store_mutex);
	journal->unsettled_rows = (uint64_t)left;
	pthread_mutex_unlock(&journal->store_mutex);
	return ERR_OK;
}

int journal_settle(struct journal *journal, int64_t spooled_epoch, struct error *error)
{
	/* The captured set is what has rows <= spooled_epoch; noted before the sync, so that what is captured during it waits for the next. An inode changed since
	 * has, or will have before its next fsync, a row of a later epoch. */
	int result = backing_syncfs(journal->backing);

	if (result != 0)
		return error_errno(error, -result, "cannot sync the directory's filesystem");
	return forget_settled(journal, spooled_epoch, error);
}

/* The unsettled set (I9, I10): inodes whose bytes may not be on the local disk as captured.
 *
 * A row is written with the journal's (journal_store.c), within a second. An fsync does not wait for that: it appends a record to a log (unsettled_log.h), which needs no transaction. One fsync
 * writes for all that wait, in its own thread: no other has to wake up before it can go on. If the log is full or broken, it writes its rows. If the database can't be written either (no space), fsync
 * must still not promise too much: one byte of the preallocated file `overflow` in the state directory is set instead, which needs no new block: after a power cut every inode then counts as
 * unsettled. Another one stands for suspect inodes (suspect.c). */
#include "journal_internal.h"

#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#define OVERFLOW_FILE "overflow"

/* ------------------------------------------------------------------ the overflow mark */

int overflow_write_at(int state_fd, enum overflow which, char value)
{
	int fd = openat(state_fd, OVERFLOW_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int result = -1;

	if (fd >= 0) {
		result = io_pwrite(fd, &value, 1, which);
		if (result == 0)
			result = fdatasync(fd);
		close(fd);
	}
	return result;
}

int overflow_write(struct journal *journal, enum overflow which, char value)
{
	return overflow_write_at(journal->state_fd, which, value);
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

/* ------------------------------------------------------------------ what the last session logged */

struct logged {
	struct db_conn *conn;
	int64_t settled_epoch;
	struct error *error;
};

static int put_logged(void *context, const struct node_key *key, int64_t epoch)
{
	struct logged *logged = context;

	return epoch <= logged->settled_epoch ? 0 : unsettled_put(logged->conn, key, epoch, logged->error);
}

int unsettled_load_log(struct journal *journal, struct error *error)
{
	struct logged logged = {.error = error};
	int result = db_begin(journal->db, true, &logged.conn, error);

	if (result != ERR_OK)
		return result;
	logged.settled_epoch = db_meta_int(logged.conn, "settled_epoch", 0);
	result = unsettled_log_each(journal->state_fd, put_logged, &logged);
	if (result == ERR_OK)
		return db_commit(journal->db, error);
	if (!error || !error->code)
		error_errno(error, errno, "cannot read unsettled.log in the state directory");
	db_rollback(journal->db);
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

/* One fsync that waits for its row: on the stack of its thread. dirt and epoch are constant, the rest is under store_mutex. */
struct urgent {
	struct urgent *next;
	struct dirt *dirt; /* referenced */
	int64_t epoch;
	bool done;
	int result; /* 0 or -EIO */
};

/* Newest epoch of which the inode's row is on disk, of the changes that are not captured. node->lock held. */
static int64_t durable_epoch(const struct node *node)
{
	int64_t dirty = node->dirt ? atomic_load(&node->dirt->durable_epoch) : 0;
	int64_t frozen = node->frozen ? atomic_load(&node->frozen->durable_epoch) : 0;

	return dirty > frozen ? dirty : frozen;
}

/* False: the inode has no changes that are not captured, or their row is on disk. */
static bool needs_row(struct journal *journal, struct node *node, struct urgent *urgent)
{
	bool needed = false;

	small_lock_take(&node->lock);
	if (node->dirt || node->frozen) {
		urgent->dirt = node->dirt ? node->dirt : node->frozen;
		urgent->epoch = urgent->dirt->epoch;
		needed = durable_epoch(node) < urgent->epoch;
		if (needed)
			dirt_ref(journal, urgent->dirt);
	}
	small_lock_leave(&node->lock);
	return needed;
}

/* The ordinary way: a record for each, and one sync. False: it can't be had now. */
static bool write_log(struct journal *journal, struct urgent *group)
{
	struct unsettled_log *log = journal->unsettled_log;
	struct unsettled_place place;
	size_t count = 0;
	bool room, written = true;

	for (struct urgent *one = group; one; one = one->next)
		count++;
	pthread_mutex_lock(&journal->store_mutex);
	room = unsettled_log_reserve(log, count, &place);
	if (unsettled_log_is_filling(log))
		pthread_cond_signal(&journal->store_wanted);
	pthread_mutex_unlock(&journal->store_mutex);
	if (!room)
		return false;
	for (struct urgent *one = group; one && written; one = one->next)
		written = unsettled_log_put(log, &place, &one->dirt->node->key, one->epoch) == 0;
	if (written && unsettled_log_sync(log) == 0) {
		for (struct urgent *one = group; one; one = one->next)
			dirt_is_durable(one->dirt, one->epoch);
		return true;
	}
	log_warn("cannot write unsettled.log: %s; fsync goes the slower way through the database", strerror(errno));
	pthread_mutex_lock(&journal->store_mutex);
	unsettled_log_give_up(log);
	pthread_mutex_unlock(&journal->store_mutex);
	return false;
}

/* The rows that they wait for and no others, in one transaction that is synced. What else is known of these inodes follows with the journal thread. */
static int write_rows(struct journal *journal, struct urgent *group, struct error *error)
{
	struct db_conn *conn;
	uint64_t count = 0;
	int result = db_begin(journal->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	for (struct urgent *one = group; one && result == ERR_OK; one = one->next, count++)
		result = unsettled_put(conn, &one->dirt->node->key, one->epoch, error);
	if (result != ERR_OK) {
		db_rollback(journal->db);
		return result;
	}
	result = db_commit(journal->db, error);
	if (result != ERR_OK)
		return result;
	unsettled_count(journal, count);
	for (struct urgent *one = group; one; one = one->next) {
		atomic_store(&one->dirt->unsettled, true);
		dirt_is_durable(one->dirt, one->epoch);
	}
	return ERR_OK;
}

/* store_mutex held, and again when it returns: this thread writes for all who wait now; those who come meanwhile are the next one's. */
static void lead(struct journal *journal)
{
	struct urgent *group = journal->urgent;
	struct error error = {0};
	int result, answer = 0;
	bool marked = false;

	journal->urgent = NULL;
	journal->urgent_led = true;
	pthread_mutex_unlock(&journal->store_mutex);
	result = write_log(journal, group) ? ERR_OK : write_rows(journal, group, &error);
	if (result != ERR_OK) { /* with the mark every inode is unsettled after a power cut, these too */
		marked = overflow_write(journal, OVERFLOW_UNSETTLED, 1) == 0;
		answer = marked ? 0 : -EIO;
	}
	pthread_mutex_lock(&journal->store_mutex);
	if (result != ERR_OK && !journal->urgent_failed)
		log_error("journal: %s; %s", error.message, marked ? "after a power cut every file will be compared" : "fsync fails");
	journal->urgent_failed = result != ERR_OK;
	journal->overflow_marked |= marked;
	journal->urgent_led = false;
	for (struct urgent *one = group, *next; one; one = next) {
		next = one->next;
		one->result = answer;
		one->done = true; /* its thread may go as soon as we leave the mutex */
	}
	pthread_cond_broadcast(&journal->urgent_done);
}

int journal_wait_unsettled(struct journal *journal, struct node *node)
{
	struct urgent urgent = {0};

	if (!needs_row(journal, node, &urgent))
		return 0;
	pthread_mutex_lock(&journal->store_mutex);
	urgent.next = journal->urgent;
	journal->urgent = &urgent;
	while (!urgent.done) {
		if (journal->urgent_led)
			pthread_cond_wait(&journal->urgent_done, &journal->store_mutex);
		else
			lead(journal);
	}
	pthread_mutex_unlock(&journal->store_mutex);
	dirt_put(journal, urgent.dirt);
	return urgent.result;
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
	if (result == ERR_OK) /* for what is in the log */
		result = db_meta_set_int(conn, "settled_epoch", epoch, error);
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

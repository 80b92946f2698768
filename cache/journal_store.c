/* The journal in SQLite: the thread that groups recordings into transactions.
 *
 * Rows are written within a second of the change; an fsync does not wait for that (unsettled.c). What memory held when the process died is found again by the
 * rescan, because the clean mark is off while a session runs (I12). */
#include "journal_internal.h"

#include "buf.h"
#include "clock.h"
#include "failpoint.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP_NS NS_PER_S        /* how long recordings are gathered */
#define RETRY_NS (5 * NS_PER_S)   /* after the database refused */
#define BATCH 1024                /* inodes in a transaction: their copies are in memory at the same time, and an fsync waits for it */

/* ------------------------------------------------------------------ one flush */

struct name_value {
	size_t offset; /* in struct copy's text */
	uint16_t length;
	bool has_child;
	struct node_key child;
	uint32_t child_type;
};

struct copy { /* what one dirt looked like, taken under its node's lock */
	struct dirt *dirt; /* referenced */
	int64_t epoch;
	bool whole, over;
	struct stat st; /* at a clean stop; zero otherwise */
	struct buf extents, names, text;
};

static void copy_free(struct journal *journal, struct copy *copy)
{
	buf_free(&copy->extents);
	buf_free(&copy->names);
	buf_free(&copy->text);
	dirt_put(journal, copy->dirt);
}

static int copy_names(struct copy *copy, struct dirt *dirt)
{
	for (uint32_t i = 0; i < dirt->name_buckets; i++) {
		for (struct dirty_name *entry = dirt->names[i]; entry; entry = entry->next) {
			struct name_value value = {.offset = copy->text.length, .length = entry->length};

			if (!entry->set || !entry->unflushed)
				continue;
			if (entry->child) {
				value.has_child = true;
				node_key_of(entry->child, &value.child);
				value.child_type = entry->child->type;
			}
			if (buf_append(&copy->text, entry->text, entry->length) != 0 ||
			    buf_append(&copy->names, &value, sizeof value) != 0)
				return ERR_NOMEM;
		}
	}
	/* Only now: after a failure all of them are copied again. */
	for (uint32_t i = 0; i < dirt->name_buckets; i++)
		for (struct dirty_name *entry = dirt->names[i]; entry; entry = entry->next)
			if (entry->set)
				entry->unflushed = false;
	return ERR_OK;
}

static int copy_dirt(struct journal *journal, struct dirt *dirt, bool with_stat, struct copy *copy)
{
	int result = ERR_OK;
	int fd;

	small_lock_take(&dirt->node->lock);
	copy->over = dirt->over;
	copy->epoch = dirt->epoch;
	copy->whole = dirt->whole;
	if (!dirt->over) {
		result = buf_append(&copy->extents, dirt->extents.ranges, dirt->extents.count * sizeof(struct extent));
		if (result == ERR_OK)
			result = copy_names(copy, dirt);
		if (with_stat && (fd = backing_fd_get(journal->backing, dirt->node)) >= 0) {
			if (fstat(fd, &copy->st) != 0)
				memset(&copy->st, 0, sizeof copy->st);
			backing_fd_put(journal->backing, dirt->node, fd);
		}
	}
	small_lock_leave(&dirt->node->lock);
	return result;
}

static struct dirt *pop_unflushed(struct shard *shard)
{
	struct dirt *dirt;

	pthread_mutex_lock(&shard->mutex);
	dirt = shard->unflushed;
	if (dirt) {
		shard->unflushed = dirt->next_unflushed;
		shard->unflushed_count--;
		dirt->listed_unflushed = false;
	}
	pthread_mutex_unlock(&shard->mutex);
	return dirt; /* with the list's reference */
}

/* What a flush takes: as much as is on the unflushed lists when it begins, and nothing that comes later: else one who waits might never be reached. */
struct flush {
	struct journal *journal;
	bool durable, with_stat;
	size_t left[JOURNAL_SHARDS], total;
};

static void flush_begin(struct flush *flush)
{
	flush->total = 0;
	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		struct shard *shard = &flush->journal->shards[i];

		pthread_mutex_lock(&shard->mutex);
		flush->left[i] = shard->unflushed_count;
		pthread_mutex_unlock(&shard->mutex);
		flush->total += flush->left[i];
	}
}

/* Copies the next ones into `copies`, BATCH at most. On failure nothing is lost: the caller puts back what was taken. */
static int collect(struct flush *flush, struct copy *copies, size_t *count)
{
	*count = 0;
	for (int i = 0; i < JOURNAL_SHARDS; i++) {
		while (flush->left[i] > 0 && *count < BATCH) {
			struct dirt *dirt = pop_unflushed(&flush->journal->shards[i]);
			int result;

			flush->left[i] = dirt ? flush->left[i] - 1 : 0;
			if (!dirt)
				break;
			copies[*count].dirt = dirt;
			result = copy_dirt(flush->journal, dirt, flush->with_stat, &copies[(*count)++]);
			if (result != ERR_OK)
				return result;
		}
	}
	return ERR_OK;
}

/* After a failure: everything must be written again. */
static void requeue(struct journal *journal, struct copy *copies, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct dirt *dirt = copies[i].dirt;

		small_lock_take(&dirt->node->lock);
		if (!dirt->over) {
			dirt_mark_names_unflushed(dirt);
			dirt_touch(journal, dirt);
		}
		small_lock_leave(&dirt->node->lock);
	}
}

static int write_names(struct db_conn *conn, const struct copy *copy, const struct node_key *dir, struct error *error)
{
	const struct name_value *values = (const struct name_value *)(const void *)copy->names.data;

	for (size_t i = 0; i < copy->names.length / sizeof *values; i++) {
		const struct name_value *value = &values[i];
		int result = db_step(conn, error,
				     "INSERT OR REPLACE INTO journal_name(dir, name, epoch, child, child_type) "
				     "VALUES(?, ?, ?, ?, ?)",
				     "bbini", dir->bytes, (size_t)dir->length, copy->text.data + value->offset,
				     (size_t)value->length, copy->epoch, value->has_child ? value->child.bytes : NULL,
				     (size_t)value->child.length, (int64_t)value->child_type);

		if (result < 0)
			return result;
	}
	return ERR_OK;
}

static int write_copy(struct db_conn *conn, const struct copy *copy, struct error *error)
{
	const struct node_key *key = &copy->dirt->node->key;
	int result;

	result = unsettled_put(conn, key, copy->epoch, error);
	if (result < 0 || copy->over)
		return result;
	result = db_step(conn, error,
			 "INSERT OR REPLACE INTO journal_inode(key, epoch, type, whole, size, mtime_ns, ctime_ns, "
			 "extents) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
			 "biiiiiib", key->bytes, (size_t)key->length, copy->epoch, (int64_t)copy->dirt->node->type,
			 (int64_t)copy->whole, (int64_t)copy->st.st_size, timespec_ns(copy->st.st_mtim),
			 timespec_ns(copy->st.st_ctim), copy->extents.data ? (const void *)copy->extents.data : "",
			 copy->extents.length);
	return result < 0 ? result : write_names(conn, copy, key, error);
}

static int write_copies(struct journal *journal, const struct copy *copies, size_t count, bool durable,
			struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(journal->db, durable, &conn, error);

	if (result != ERR_OK)
		return result;
	for (size_t i = 0; i < count && result == ERR_OK; i++)
		result = write_copy(conn, &copies[i], error);
	if (result == ERR_OK)
		result = db_meta_set_int(conn, "epoch", atomic_load(&journal->epoch), error);
	if (result != ERR_OK) {
		db_rollback(journal->db);
		return result;
	}
	FAILPOINT("journal/before-commit");
	result = db_commit(journal->db, error);
	FAILPOINT("journal/after-commit");
	return result;
}

/* The copies are in the database. */
static void mark_written(struct journal *journal, struct copy *copies, size_t count)
{
	for (size_t i = 0; i < count; i++)
		atomic_store(&copies[i].dirt->unsettled, true);
	unsettled_count(journal, count);
}

/* One transaction. `copies` is zeroed before and after. */
static int flush_batch(struct flush *flush, struct copy *copies, size_t *count, struct error *error)
{
	struct journal *journal = flush->journal;
	int result = collect(flush, copies, count);

	if (result != ERR_OK)
		error_set(error, result, 0, "journal: out of memory");
	else if (*count > 0 || flush->durable)
		result = write_copies(journal, copies, *count, flush->durable, error);
	if (result == ERR_OK)
		mark_written(journal, copies, *count);
	for (size_t i = 0; result == ERR_OK && flush->durable && i < *count; i++)
		dirt_is_durable(copies[i].dirt, copies[i].epoch);
	if (result != ERR_OK)
		requeue(journal, copies, *count);
	for (size_t i = 0; i < *count; i++)
		copy_free(journal, &copies[i]);
	memset(copies, 0, *count * sizeof *copies);
	return result;
}

static int flush_once(struct journal *journal, bool durable, bool with_stat, struct error *error)
{
	struct flush flush = {.journal = journal, .durable = durable, .with_stat = with_stat};
	struct copy *copies;
	size_t done = 0, count = 0;
	int result;

	atomic_store(&journal->armed, false);
	flush_begin(&flush);
	copies = calloc(flush.total < BATCH ? flush.total + 1 : BATCH, sizeof *copies);
	if (!copies)
		return error_set(error, ERR_NOMEM, 0, "journal: out of memory");
	do {
		result = flush_batch(&flush, copies, &count, error);
		done += count;
		db_tidy(journal->db);
	} while (result == ERR_OK && count > 0 && done < flush.total);
	free(copies);
	return result;
}

/* ------------------------------------------------------------------ the thread */

void journal_arm(struct journal *journal)
{
	pthread_mutex_lock(&journal->store_mutex);
	pthread_cond_signal(&journal->store_wanted);
	pthread_mutex_unlock(&journal->store_mutex);
}

static bool urgent(const struct journal *journal)
{
	return journal->stop || journal->flush_wanted > journal->flush_done || unsettled_log_is_filling(journal->unsettled_log);
}

/* store_mutex held. Sleeps until there is something to write and its time has come. */
static void wait_for_work(struct journal *journal, bool failed)
{
	struct timespec deadline;

	while (!urgent(journal) && !failed && !atomic_load(&journal->armed))
		pthread_cond_wait(&journal->store_wanted, &journal->store_mutex);
	deadline = clock_deadline(failed ? RETRY_NS : GROUP_NS);
	while (!urgent(journal))
		if (pthread_cond_timedwait(&journal->store_wanted, &journal->store_mutex, &deadline) == ETIMEDOUT)
			break;
}

/* All rows written so far are on disk for good: a durable commit syncs earlier ones too. */
static int sync_rows(struct journal *journal, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(journal->db, true, &conn, error);

	return result == ERR_OK ? db_commit(journal->db, error) : result;
}

static void *journal_thread(void *argument)
{
	struct journal *journal = argument;
	bool failed = false;

	pthread_mutex_lock(&journal->store_mutex);
	while (!journal->stop) {
		struct error error = {0};
		uint64_t ticket;
		bool turned;
		int result;

		wait_for_work(journal, failed);
		ticket = journal->flush_wanted;
		turned = unsettled_log_turn(journal->unsettled_log);
		pthread_mutex_unlock(&journal->store_mutex);

		result = flush_once(journal, false, false, &error);
		if (result == ERR_OK && turned)
			result = sync_rows(journal, &error);
		if (result != ERR_OK && !failed)
			log_error("journal: %s; changes are found again by a rescan", error.message);
		failed = result != ERR_OK;

		pthread_mutex_lock(&journal->store_mutex);
		if (result == ERR_OK && turned)
			unsettled_log_forget(journal->unsettled_log);
		journal->store_result = result;
		journal->flush_done = ticket;
		pthread_cond_broadcast(&journal->store_done);
	}
	pthread_mutex_unlock(&journal->store_mutex);
	return NULL;
}

int journal_flush(struct journal *journal, struct error *error)
{
	uint64_t ticket;
	int result;

	pthread_mutex_lock(&journal->store_mutex);
	ticket = ++journal->flush_wanted;
	pthread_cond_signal(&journal->store_wanted);
	while (journal->flush_done < ticket && !journal->stop)
		pthread_cond_wait(&journal->store_done, &journal->store_mutex);
	result = journal->store_result;
	pthread_mutex_unlock(&journal->store_mutex);
	return result == ERR_OK ? ERR_OK : error_set(error, result, 0, "the journal could not be written");
}

/* ------------------------------------------------------------------ start and stop */

int journal_store_start(struct journal *journal, struct error *error)
{
	int result = ERR_OK;
	int status;

	journal->suspects_overflowed = overflow_read(journal, OVERFLOW_SUSPECT);
	if (overflow_read(journal, OVERFLOW_UNSETTLED))
		result = overflow_spread(journal, error);
	else if (overflow_write(journal, OVERFLOW_UNSETTLED, 0) != 0) /* makes its block, while there is room */
		result = error_errno(error, errno, "cannot write into the state directory");
	if (result != ERR_OK)
		return result;
	status = pthread_create(&journal->thread, NULL, journal_thread, journal);
	if (status != 0)
		return error_errno(error, status, "cannot start the journal thread");
	journal->thread_running = true;
	return ERR_OK;
}

void journal_store_stop(struct journal *journal)
{
	if (!journal->thread_running)
		return;
	pthread_mutex_lock(&journal->store_mutex);
	journal->stop = true;
	pthread_cond_broadcast(&journal->store_wanted);
	pthread_cond_broadcast(&journal->store_done);
	pthread_mutex_unlock(&journal->store_mutex);
	pthread_join(journal->thread, NULL);
	journal->thread_running = false;
}

int journal_store_flush_final(struct journal *journal, bool with_stat, struct error *error)
{
	return flush_once(journal, true, with_stat, error);
}

/* I10: captured, but not settled: what the journal thread has not come to yet enters here. */
static int put_captured(struct cut *cut, struct db_conn *conn, struct error *error)
{
	uint64_t count = 0;
	int result = ERR_OK;

	for (size_t i = 0; i < cut->count && result == ERR_OK; i++) {
		if (atomic_load(&cut->items[i]->unsettled))
			continue;
		result = unsettled_put(conn, &cut->items[i]->node->key, cut->epoch, error);
		count++;
	}
	unsettled_count(cut->journal, count);
	return result;
}

int cut_forget_rows(struct cut *cut, struct db_conn *conn, struct error *error)
{
	int result = db_step(conn, error, "DELETE FROM journal_inode WHERE epoch <= ?", "i", cut->epoch);

	/* The journal thread may have copied some of the cut and write them after this: they say again what is captured, and the next cut removes them. */
	if (result == ERR_OK)
		result = db_step(conn, error, "DELETE FROM journal_name WHERE epoch <= ?", "i", cut->epoch);
	if (result == ERR_OK)
		result = suspect_forget_rows(cut->journal, cut->epoch, conn, error);
	return result == ERR_OK ? put_captured(cut, conn, error) : result;
}

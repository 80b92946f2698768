#include "suspect_internal.h"

#include "clock.h"
#include "failpoint.h"
#include "log.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SHARE 10 /* reading a suspect inode takes at most this part of the time */

/* ------------------------------------------------------------------ the set; its lock is held for all of these */

static struct suspect **bucket_of(struct suspects *set, const struct node *node)
{
	return &set->buckets[((uintptr_t)node >> 7) % SUSPECT_BUCKETS];
}

struct suspect *suspect_find(struct suspects *set, const struct node *node)
{
	struct suspect *suspect = *bucket_of(set, node);

	while (suspect && suspect->node != node)
		suspect = suspect->next;
	return suspect;
}

static struct suspect *find_or_add(struct journal *journal, struct node *node)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect = suspect_find(set, node);

	if (suspect || !(suspect = calloc(1, sizeof *suspect)))
		return suspect;
	node_ref(journal->nodes, node);
	suspect->node = node;
	suspect->next = *bucket_of(set, node);
	*bucket_of(set, node) = suspect;
	atomic_fetch_add(&set->count, 1);
	return suspect;
}

struct node **suspects_collect(struct journal *journal, bool (*wanted)(void *context, struct suspect *suspect), void *context, size_t *count)
{
	struct suspects *set = &journal->suspects;
	struct node **nodes;

	*count = 0;
	pthread_mutex_lock(&set->lock);
	nodes = calloc(atomic_load(&set->count) + 1, sizeof(struct node *));
	for (int i = 0; nodes && i < SUSPECT_BUCKETS; i++) {
		for (struct suspect *suspect = set->buckets[i]; suspect; suspect = suspect->next) {
			if (!wanted(context, suspect))
				continue;
			node_ref(journal->nodes, suspect->node);
			nodes[(*count)++] = suspect->node;
		}
	}
	pthread_mutex_unlock(&set->lock);
	return nodes;
}

void suspects_put(struct journal *journal, struct node **nodes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		node_put(journal->nodes, nodes[i]);
	free(nodes);
}

static void free_list(struct journal *journal, struct suspect *list)
{
	for (struct suspect *next; list; list = next) {
		next = list->next;
		node_put(journal->nodes, list->node);
		free(list);
	}
}

/* ------------------------------------------------------------------ adding */

static int put_row(struct journal *journal, const struct node *node, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(journal->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_step(conn, error, "INSERT OR IGNORE INTO suspect VALUES(?)", "b", node->key.bytes, (size_t)node->key.length);
	FAILPOINT("suspect/row");
	if (result == ERR_OK)
		return db_commit(journal->db, error);
	db_rollback(journal->db);
	return result;
}

static int set_mark(struct journal *journal)
{
	struct suspects *set = &journal->suspects;
	int result;

	pthread_mutex_lock(&set->mark_lock);
	result = overflow_write(journal, OVERFLOW_SUSPECT, 1);
	if (result == 0)
		set->refused = true;
	pthread_mutex_unlock(&set->mark_lock);
	return result;
}

/* The row is written, or, where the database refuses, the mark that makes the next start look at every file. */
static int make_durable(struct journal *journal, const struct node *node)
{
	struct error error;
	int result = put_row(journal, node, &error);

	if (result == ERR_OK)
		return 0;
	if (set_mark(journal) == 0)
		return 0;
	log_error("a file that a program may write to through a mapping can't be marked: %s", error.message);
	return -EIO;
}

/* Lock held. It stays in the set from here on: nobody removes one that is not quiet, and one that is being removed is kept if it was added again. Only a file without a name may go at any time. */
static void open_again(struct suspect *suspect)
{
	suspect->quiet = false;
	suspect->again = true;
	suspect->due_ns = 0;
}

int suspect_add(struct journal *journal, struct node *node)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect;
	int result = 0;
	bool durable;

	pthread_mutex_lock(&set->lock);
	suspect = find_or_add(journal, node);
	if (suspect)
		open_again(suspect);
	durable = suspect && suspect->durable && !suspect->removing;
	pthread_mutex_unlock(&set->lock);
	if (!suspect)
		return -ENOMEM;
	/* One that is being removed: 1 the pipeline's transaction deletes the row; 2 ours waits for that one to end, and makes the row anew. */
	if (!durable)
		result = make_durable(journal, node);
	if (result == 0 && !durable) {
		pthread_mutex_lock(&set->lock);
		suspect = suspect_find(set, node);
		if (suspect)
			suspect->durable = true;
		pthread_mutex_unlock(&set->lock);
	}
	if (journal->wake)
		journal->wake(journal->wake_context);
	return result;
}

bool suspect_again(struct journal *journal, const struct node *node)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect;
	bool again;

	if (atomic_load(&set->count) == 0)
		return false;
	pthread_mutex_lock(&set->lock);
	suspect = suspect_find(set, node);
	again = suspect && suspect->durable && !suspect->removing;
	if (again)
		open_again(suspect);
	pthread_mutex_unlock(&set->lock);
	if (again && journal->wake)
		journal->wake(journal->wake_context);
	return again;
}

bool suspect_is(struct journal *journal, const struct node *node)
{
	struct suspects *set = &journal->suspects;
	bool found;

	if (atomic_load(&set->count) == 0)
		return false;
	pthread_mutex_lock(&set->lock);
	found = suspect_find(set, node) != NULL;
	pthread_mutex_unlock(&set->lock);
	return found;
}

void suspect_poke(struct journal *journal, const struct node *node)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect;

	if (atomic_load(&set->count) == 0)
		return;
	pthread_mutex_lock(&set->lock);
	suspect = suspect_find(set, node);
	if (suspect)
		suspect->due_ns = 0;
	pthread_mutex_unlock(&set->lock);
	if (suspect && journal->wake)
		journal->wake(journal->wake_context);
}

/* ------------------------------------------------------------------ with the cut */

int suspect_delete_row(struct db_conn *conn, const struct node *node, struct error *error)
{
	return db_step(conn, error, "DELETE FROM suspect WHERE key = ?", "b", node->key.bytes, (size_t)node->key.length);
}

void suspect_was_read(struct journal *journal, const struct node *node, int64_t took_ns)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect;

	if (atomic_load(&set->count) == 0)
		return;
	pthread_mutex_lock(&set->lock);
	suspect = suspect_find(set, node);
	if (suspect)
		suspect->cost_ns = took_ns;
	pthread_mutex_unlock(&set->lock);
}

static bool is_captured(void *context, struct suspect *suspect)
{
	bool captured = suspect->quiet && suspect->epoch > 0 && suspect->epoch <= *(int64_t *)context;

	if (captured) {
		suspect->removing = true;
		suspect->again = false;
	}
	return captured;
}

int suspect_forget_rows(struct journal *journal, int64_t epoch, struct db_conn *conn, struct error *error)
{
	struct node **captured;
	int result = ERR_OK;
	size_t count;

	if (atomic_load(&journal->suspects.count) == 0)
		return ERR_OK;
	captured = suspects_collect(journal, is_captured, &epoch, &count);
	if (!captured)
		return no_memory(error);
	for (size_t i = 0; i < count && result == ERR_OK; i++)
		result = suspect_delete_row(conn, captured[i], error);
	suspects_put(journal, captured, count);
	return result;
}

void suspect_end(struct journal *journal, int64_t epoch, bool committed)
{
	struct suspects *set = &journal->suspects;
	struct suspect *over = NULL;

	if (atomic_load(&set->count) == 0)
		return;
	pthread_mutex_lock(&set->lock);
	for (int i = 0; i < SUSPECT_BUCKETS; i++) {
		for (struct suspect **link = &set->buckets[i], *suspect; (suspect = *link);) {
			if (suspect->removing && committed && !suspect->again) {
				*link = suspect->next;
				suspect->next = over;
				over = suspect;
				atomic_fetch_sub(&set->count, 1);
				continue;
			}
			if (suspect->removing && committed)
				suspect->durable = false; /* until whoever added it has made its row anew: it may not be there yet */
			suspect->removing = false;
			if (committed && suspect->epoch > 0 && suspect->epoch <= epoch) {
				suspect->epoch = 0;
				if (suspect->due_ns == NEVER)
					suspect->due_ns = clock_mono_ns() + (SHARE - 1) * suspect->cost_ns;
			}
			link = &suspect->next;
		}
	}
	pthread_mutex_unlock(&set->lock);
	free_list(journal, over);
}

/* ------------------------------------------------------------------ life */

int suspect_load(struct journal *journal, struct db_conn *conn, struct error *error)
{
	int more = db_step(conn, error, "SELECT key FROM suspect", "");
	sqlite3_stmt *stmt = db_last(conn);
	struct node_key key;

	while (more == 1) {
		struct node *node = journal_column_key(stmt, 0, &key) ? node_get(journal->nodes, &key, S_IFREG, -1) : NULL;
		struct suspect *suspect = node ? find_or_add(journal, node) : NULL;
		node_put(journal->nodes, node);
		if (!suspect) {
			db_reset(stmt);
			return no_memory(error);
		}
		suspect->durable = true;
		more = db_next(conn, stmt, error);
	}
	return more;
}

void suspects_init(struct suspects *set)
{
	pthread_mutex_init(&set->lock, NULL);
	pthread_mutex_init(&set->guard_lock, NULL);
	pthread_mutex_init(&set->mark_lock, NULL);
}

void suspects_free(struct journal *journal)
{
	struct suspects *set = &journal->suspects;

	for (int i = 0; i < SUSPECT_BUCKETS; i++)
		free_list(journal, set->buckets[i]);
	pthread_mutex_destroy(&set->mark_lock);
	pthread_mutex_destroy(&set->guard_lock);
	pthread_mutex_destroy(&set->lock);
}

/* ------------------------------------------------------------------ after the database refused a row */

bool suspect_overflowed(struct journal *journal)
{
	return journal && journal->suspects_overflowed;
}

int suspect_forgotten(int state_fd)
{
	return overflow_write_at(state_fd, OVERFLOW_SUSPECT, 1);
}

int suspect_looked(struct journal *journal, struct error *error)
{
	int result = 0, number = 0;

	if (!suspect_overflowed(journal)) /* there may be no journal */
		return ERR_OK;
	struct suspects *set = &journal->suspects;
	pthread_mutex_lock(&set->mark_lock);
	if (!set->refused) { /* else the next start has to look once more */
		result = overflow_write(journal, OVERFLOW_SUSPECT, 0);
		number = errno;
	}
	pthread_mutex_unlock(&set->mark_lock);
	if (result != 0)
		return error_errno(error, number, "cannot clear the overflow mark");
	journal->suspects_overflowed = false;
	return ERR_OK;
}

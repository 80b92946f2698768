#include "suspect.h"

#include "clock.h"
#include "failpoint.h"
#include "journal_internal.h"
#include "log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEVER INT64_MAX
#define SHARE 10 /* reading a suspect inode takes at most this part of the time */

struct suspect {
	struct suspect *next;
	struct node *node; /* referenced */
	bool durable;      /* its row is in the database, or the overflow mark stands for it */
	bool quiet, removing;
	bool again;        /* added while it was being removed */
	int64_t epoch;     /* in which it was journaled whole; 0: not since it was last captured so */
	int64_t due_ns;    /* monotonic, of the next check */
	int64_t cost_ns;   /* how long reading it took, the last time */
};

/* ------------------------------------------------------------------ the set; its lock is held for all of these */

static struct suspect **bucket_of(struct suspects *set, const struct node *node)
{
	return &set->buckets[((uintptr_t)node >> 7) % SUSPECT_BUCKETS];
}

static struct suspect *find(struct suspects *set, const struct node *node)
{
	struct suspect *suspect = *bucket_of(set, node);

	while (suspect && suspect->node != node)
		suspect = suspect->next;
	return suspect;
}

static struct suspect *find_or_add(struct journal *journal, struct node *node)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect = find(set, node);

	if (suspect || !(suspect = calloc(1, sizeof *suspect)))
		return suspect;
	node_ref(journal->nodes, node);
	suspect->node = node;
	suspect->next = *bucket_of(set, node);
	*bucket_of(set, node) = suspect;
	atomic_fetch_add(&set->count, 1);
	return suspect;
}

/* The nodes of those for which `wanted` says so, with a reference; NULL: out of memory. */
static struct node **collect(struct journal *journal, bool (*wanted)(void *context, struct suspect *suspect), void *context, size_t *count)
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

static void put_all(struct journal *journal, struct node **nodes, size_t count)
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

static int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, ENOMEM, "looking at files that are mapped for writing: out of memory");
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
		suspect = find(set, node);
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
	suspect = find(set, node);
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
	found = find(set, node) != NULL;
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
	suspect = find(set, node);
	if (suspect)
		suspect->due_ns = 0;
	pthread_mutex_unlock(&set->lock);
	if (suspect && journal->wake)
		journal->wake(journal->wake_context);
}

/* ------------------------------------------------------------------ checking */

void suspect_set_guard(struct journal *journal, const struct suspect_guard *guard)
{
	pthread_mutex_lock(&journal->suspects.guard_lock);
	journal->suspects.guard = guard ? *guard : (struct suspect_guard){0};
	pthread_mutex_unlock(&journal->suspects.guard_lock);
}

int64_t suspect_due(struct journal *journal)
{
	struct suspects *set = &journal->suspects;
	int64_t due = NEVER;

	if (atomic_load(&set->count) == 0)
		return NEVER;
	pthread_mutex_lock(&set->lock);
	for (int i = 0; i < SUSPECT_BUCKETS; i++)
		for (struct suspect *suspect = set->buckets[i]; suspect; suspect = suspect->next)
			due = suspect->due_ns < due ? suspect->due_ns : due;
	pthread_mutex_unlock(&set->lock);
	return due;
}

/* The content is read at the next cut, all of it. The epoch that it belongs to, or -ENOMEM. */
static int64_t note_whole(struct journal *journal, struct node *node)
{
	struct mutation mutation;
	int64_t epoch;
	int result = mutation_begin(&mutation, journal);

	if (result < 0)
		return result;
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert(!journal_frozen(journal, node)); /* else it would be saved for the cut, though we change nothing */
	result = mutation_data(&mutation, node, 0, -1);
	if (result == 0)
		node->dirt->whole = true;
	epoch = atomic_load(&journal->epoch);
	mutation_end(&mutation);
	return result < 0 ? result : epoch;
}

static void set_checked(struct journal *journal, struct node *node, bool quiet, int64_t epoch)
{
	struct suspect *suspect;

	pthread_mutex_lock(&journal->suspects.lock);
	suspect = find(&journal->suspects, node);
	if (suspect) {
		suspect->quiet = quiet;
		suspect->epoch = epoch;
		suspect->due_ns = NEVER; /* until it was captured, or somebody pokes */
	}
	pthread_mutex_unlock(&journal->suspects.lock);
}

/* No name leads to it any more: no version will have it, and none can be given to it again (fs/io_mode.h, `plain`). */
static bool is_gone(int fd)
{
	struct stat st;

	return fd == -ESTALE || fd == -ENOENT || (fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0);
}

static int delete_row(struct db_conn *conn, const struct node *node, struct error *error)
{
	return db_step(conn, error, "DELETE FROM suspect WHERE key = ?", "b", node->key.bytes, (size_t)node->key.length);
}

static bool is_this(void *context, struct suspect *suspect)
{
	if (suspect->node == context) {
		suspect->removing = true;
		suspect->again = false;
	}
	return false;
}

static int remove_gone(struct journal *journal, struct node *node, struct error *error)
{
	struct db_conn *conn;
	size_t none;
	int result;

	result = db_begin(journal->db, false, &conn, error);
	if (result == ERR_OK) {
		/* In the transaction, for which a suspect_add that comes now waits. */
		free(collect(journal, is_this, node, &none));
		result = delete_row(conn, node, error);
		if (result == ERR_OK)
			result = db_commit(journal->db, error);
		else
			db_rollback(journal->db);
	}
	suspect_end(journal, 0, result == ERR_OK);
	return result;
}

/* guard_lock held. */
static bool hold(struct journal *journal, const struct node *node)
{
	const struct suspect_guard *guard = &journal->suspects.guard;

	return !guard->hold || guard->hold(guard->context, node);
}

static void resume(struct journal *journal, const struct node *node)
{
	const struct suspect_guard *guard = &journal->suspects.guard;

	if (guard->resume)
		guard->resume(guard->context, node);
}

static int open_to_read(struct journal *journal, struct node *node)
{
	return backing_reopen(journal->backing, node, O_RDONLY | O_NONBLOCK | O_NOATIME);
}

static int check_one(struct journal *journal, struct node *node, struct error *error)
{
	int fd = open_to_read(journal, node);
	int64_t epoch;

	if (is_gone(fd)) {
		if (fd >= 0)
			close(fd);
		return remove_gone(journal, node, error);
	}
	/* In this order: once the lease is granted there is no such mapping, and until resume no new one; what was stored before is read after this note. */
	pthread_mutex_lock(&journal->suspects.guard_lock);
	bool held = hold(journal, node), quiet = held && backing_lease(fd) == 0;
	FAILPOINT("suspect/granted");
	epoch = note_whole(journal, node);
	if (epoch > 0)
		set_checked(journal, node, quiet, epoch);
	if (held)
		resume(journal, node);
	pthread_mutex_unlock(&journal->suspects.guard_lock);
	FAILPOINT("suspect/noted");
	if (fd >= 0)
		close(fd);
	return epoch > 0 ? ERR_OK : no_memory(error);
}

static bool is_due(void *context, struct suspect *suspect)
{
	return suspect->due_ns <= *(int64_t *)context;
}

int suspect_check(struct journal *journal, bool all, struct error *error)
{
	int64_t until = all ? NEVER : clock_mono_ns();
	size_t count, done = 0;
	struct node **due;
	int result = ERR_OK;

	assert(!atomic_load(&journal->cut));
	if (atomic_load(&journal->suspects.count) == 0)
		return ERR_OK;
	due = collect(journal, is_due, &until, &count);
	if (!due)
		return no_memory(error);
	while (done < count && result == ERR_OK)
		result = check_one(journal, due[done++], error);
	put_all(journal, due, count);
	return result;
}

/* ------------------------------------------------------------------ with the cut */

void suspect_was_read(struct journal *journal, const struct node *node, int64_t took_ns)
{
	struct suspects *set = &journal->suspects;
	struct suspect *suspect;

	if (atomic_load(&set->count) == 0)
		return;
	pthread_mutex_lock(&set->lock);
	suspect = find(set, node);
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
	captured = collect(journal, is_captured, &epoch, &count);
	if (!captured)
		return no_memory(error);
	for (size_t i = 0; i < count && result == ERR_OK; i++)
		result = delete_row(conn, captured[i], error);
	put_all(journal, captured, count);
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

int suspect_look(struct journal *journal, const struct node_key *key)
{
	struct node *node = node_get(journal->nodes, key, S_IFREG, -1);
	int fd, result = 0;

	if (!node)
		return -ENOMEM;
	fd = open_to_read(journal, node);
	pthread_mutex_lock(&journal->suspects.guard_lock);
	bool held = hold(journal, node), quiet = held && backing_lease(fd) == 0;
	if (held)
		resume(journal, node);
	pthread_mutex_unlock(&journal->suspects.guard_lock);
	if (!quiet && !is_gone(fd))
		result = suspect_add(journal, node);
	if (fd >= 0)
		close(fd);
	node_put(journal->nodes, node);
	return result;
}

int suspect_looked(struct journal *journal, struct error *error)
{
	struct suspects *set = &journal->suspects;
	int result = 0, number = 0;

	if (!suspect_overflowed(journal))
		return ERR_OK;
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

/* Whether suspect inodes can be quiet (suspect.h). */
#include "suspect_internal.h"

#include "clock.h"
#include "failpoint.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
	suspect = suspect_find(&journal->suspects, node);
	if (suspect) {
		suspect->quiet = quiet;
		suspect->epoch = epoch;
		suspect->due_ns = NEVER; /* until it was captured, or somebody pokes */
	}
	pthread_mutex_unlock(&journal->suspects.lock);
}

/* No name leads to it any more: no version will have it, and none can be given to it again: one that can, as it never had one, is not passed through (fs/io_mode.h, `plain`). */
static bool is_gone(int fd)
{
	struct stat st;

	return fd == -ESTALE || fd == -ENOENT || (fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0);
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
		free(suspects_collect(journal, is_this, node, &none));
		result = suspect_delete_row(conn, node, error);
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

bool suspect_in_use(struct journal *journal, struct node *node)
{
	const struct dirt *frozen;
	int reading, fd = -1;

	/* Two of ours at once would each be somebody to the other: only the sealer's is asked, where there is one. The lock keeps it open, and keeps it from being opened. */
	small_lock_take(&node->lock);
	frozen = journal_frozen(journal, node);
	reading = frozen && frozen->past ? frozen->past->fd : -1;
	if (reading < 0)
		reading = fd = open_to_read(journal, node);
	bool in_use = reading < 0 || backing_is_in_use(reading);
	if (fd >= 0)
		close(fd);
	small_lock_leave(&node->lock);
	return in_use;
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
	due = suspects_collect(journal, is_due, &until, &count);
	if (!due)
		return no_memory(error);
	while (done < count && result == ERR_OK)
		result = check_one(journal, due[done++], error);
	suspects_put(journal, due, count);
	return result;
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

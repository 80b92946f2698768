/* journal_internal: what journal.c (recording), cut.c (cut and sealing) and journal_store.c (SQLite) share. */
#ifndef YESTER_JOURNAL_INTERNAL_H
#define YESTER_JOURNAL_INTERNAL_H

#include "cut_lock.h"
#include "journal.h"
#include "preimage.h"
#include "unsettled_log.h"
#include "suspect.h"

#define JOURNAL_SHARDS 16
/* Descriptors kept for unlinked frozen files, at most this and an eighth of all that we may have; beyond it they are copied, or, if too large, the cut is abandoned (I6). */
#define FROZEN_FD_CAP 1024
#define GRANULE 4096       /* recorded ranges are rounded to it (I2) */

struct dirty_name { /* protected by the directory's node->lock */
	struct dirty_name *next; /* hash chain */
	struct node *child;      /* referenced; NULL: absent */
	bool set;                /* false: reserved by a mutation that has not succeeded */
	bool unflushed;
	uint16_t length;
	char text[]; /* NUL-terminated */
};

struct saved_range { /* old bytes of [start, end) */
	int64_t start, end;
	struct preimage *bytes; /* NULL: all zero */
};

/* A frozen inode as of the cut, from the first look at it (operation or sealer) until the sealer is done with it: apart from struct dirt, because
 * a change of a million files makes a million of those, and few of these at a time. node->lock. */
struct past {
	bool gone; /* it had no name at the cut */
	int unreadable; /* errno with which the disk refused what the cut needs of it; 0: none. It then stays out of the version */
	bool pending_made;
	struct attrs attrs;
	struct extent_map pending; /* still only on disk: neither saved nor read */
	struct saved_range *saved; /* sorted, disjoint */
	uint32_t saved_count, saved_capacity;
	int fd; /* for reading, -1 */
	int64_t reading_ns; /* monotonic: when the sealer began */
};

/* Changes of one inode in one epoch. `frozen` of the public interface is this, once its epoch has been cut.
 * Everything is protected by node->lock unless said otherwise. */
struct dirt {
	struct journal *journal; /* constant */
	struct node *node;       /* referenced, constant */
	int64_t epoch;
	_Atomic int64_t durable_epoch; /* its unsettled row of that epoch is on disk (I9) */
	struct dirt *next, *previous; /* list of the epoch: shard mutex; of a cut: the pipeline thread */
	struct dirt *next_unflushed;  /* shard mutex */
	int references;               /* shard mutex: 1 for the epoch or cut, 1 while on the unflushed list or being flushed */
	bool listed_unflushed;        /* shard mutex */
	bool over;                    /* committed or merged away: only its unsettled row is still to be written */
	_Atomic bool unsettled;       /* that row is in the database, perhaps not durably */

	bool whole;
	bool read_done; /* of a cut: the sealer needs nothing more of it */
	struct extent_map extents;
	struct dirty_name **names; /* hash table of name_buckets, NULL until the first name */
	uint32_t name_buckets, name_count;
	int64_t bytes; /* written; an estimate */
	int64_t touched_ns; /* node->lock: wall clock when the last operation on the inode ended */
	struct past *past; /* of a cut: NULL while nobody has looked */
};
struct frozen {
	struct dirt dirt; /* never made on its own: frozen_of below */
};
static inline struct frozen *frozen_of(struct dirt *dirt)
{
	return (struct frozen *)dirt;
}

struct shard {
	pthread_mutex_t mutex;
	struct dirt *dirty; /* of the present epoch */
	struct dirt *unflushed, *unflushed_last; /* oldest first: a flush takes as many as there were when it began */
	size_t unflushed_count;
	uint64_t inodes, names;
	int64_t bytes;
};

struct cut {
	struct journal *journal;
	int64_t epoch, time_ns, first_change_ns;
	struct dirt **items;
	size_t count;
	uint64_t names;
	int64_t bytes;
	_Atomic bool abandoned;
};

#define SUSPECT_BUCKETS 256
struct suspect;
struct suspects { /* suspect.c */
	_Atomic size_t count;
	pthread_mutex_t lock; /* a leaf */
	struct suspect *buckets[SUSPECT_BUCKETS]; /* lock */
	pthread_mutex_t guard_lock; /* before node locks and `lock`; held while the guard holds an inode */
	struct suspect_guard guard; /* guard_lock */
	pthread_mutex_t mark_lock; /* a leaf: the overflow mark, too */
	bool refused; /* mark_lock: the mark stands for inodes of this session */
};

struct journal {
	struct db *db;
	struct backing *backing;
	struct node_table *nodes;
	struct preimage_store *preimages;
	int state_fd; /* directory, for the overflow mark */
	struct cut_lock lock;
	_Atomic int64_t epoch; /* changes only in journal_cut, write side held */
	struct shard shards[JOURNAL_SHARDS];
	_Atomic int64_t first_change_ns;
	_Atomic int64_t frozen_bytes, frozen_first_ns; /* of the cut that exists: the cut itself is the pipeline's */
	struct cut *_Atomic cut; /* the one that exists; set and cleared by the pipeline thread */
	_Atomic int frozen_fds;
	int frozen_fd_cap; /* constant */
	_Atomic uint64_t abandoned;
	void (*wake)(void *);
	void *wake_context;

	/* journal_store.c: the journal thread */
	pthread_t thread;
	bool thread_running;
	pthread_mutex_t store_mutex; /* the tickets, stop */
	pthread_cond_t store_wanted, store_done;
	_Atomic bool armed; /* something is unflushed and the thread knows */
	bool stop;
	uint64_t flush_wanted, flush_done; /* tickets */
	int store_result;                  /* of the newest flush: enum err */
	struct unsettled_log *unsettled_log; /* with store_mutex as its lock */
	/* unsettled.c; store_mutex */
	struct urgent *urgent; /* fsyncs that wait for their rows */
	pthread_cond_t urgent_done;
	bool urgent_led;         /* one of them writes */
	bool urgent_failed;      /* the newest time */
	bool overflow_marked;
	uint64_t unsettled_rows; /* not less than there are */

	struct suspects suspects;
	bool suspects_overflowed; /* the last session could not write down all of them: constant until the rescan is through */
};

static inline struct shard *journal_shard(struct journal *journal, const struct node *node)
{
	return &journal->shards[((uintptr_t)node >> 7) % JOURNAL_SHARDS];
}

/* --- dirt.c */
/* The frozen part, if a cut is being sealed and this inode belongs to it. node->lock held. First toucher moves it (journal.h). */
struct dirt *journal_frozen(struct journal *journal, struct node *node);
struct dirt *dirt_new(struct journal *journal, struct node *node);
void dirt_ref(struct journal *journal, struct dirt *dirt); /* node->lock held */
/* Its unsettled row of that epoch is on disk for good: the inode may be fsynced (I9). */
static inline void dirt_is_durable(struct dirt *dirt, int64_t epoch)
{
	int64_t before = atomic_load(&dirt->durable_epoch);

	while (before < epoch && !atomic_compare_exchange_weak(&dirt->durable_epoch, &before, epoch))
		;
}
/* Frees content and struct when the last reference goes. No lock held. */
void dirt_put(struct journal *journal, struct dirt *dirt);
/* Shard's mutex held, after inodes or names grew: true now and then, when there may be JOURNAL_MANY; then journal_wake, without the mutex. */
static inline bool shard_is_large(const struct shard *shard)
{
	return (shard->inodes + shard->names) % (JOURNAL_MANY / JOURNAL_SHARDS) == 0;
}
void journal_wake(struct journal *journal);
/* Puts it on the epoch's list. node->lock held. */
void dirt_list(struct journal *journal, struct dirt *dirt);
/* Marks for the journal thread. node->lock held. */
void dirt_touch(struct journal *journal, struct dirt *dirt);
void dirt_mark_names_unflushed(struct dirt *dirt); /* node->lock held */
void dirt_free_frozen(struct journal *journal, struct dirt *dirt); /* saved bytes, attributes, descriptor; node->lock held */
struct dirty_name *dirt_find_name(const struct dirt *dirt, const char *name, size_t length);
bool dirt_insert_name(struct dirt *dirt, struct dirty_name *entry); /* false: no memory for the first table */
void dirt_remove_name(struct journal *journal, struct dirt *dirt, struct dirty_name *entry); /* and frees it */

/* --- cut.c: saving (I4). node->lock held, `frozen` not read_done. They set the abandon flag when they can't. */
/* Makes frozen->past, unless the cut is abandoned. */
void frozen_capture(struct journal *journal, struct dirt *frozen);
void frozen_save(struct journal *journal, struct dirt *frozen, int64_t start, int64_t end);
void frozen_keep_fd(struct journal *journal, struct dirt *frozen);
bool frozen_make_pending(struct dirt *frozen); /* false: out of memory */
/* Descriptor to read the file with, opened once and kept until the sealer is done with it. Or -errno. */
int frozen_reading_fd(struct journal *journal, struct dirt *frozen);
void frozen_close_fd(struct journal *journal, struct dirt *frozen);
/* Index of the first saved range that ends after `offset`. */
uint32_t frozen_saved_find(const struct dirt *frozen, int64_t offset);

/* --- journal_load.c */
struct sqlite3_stmt;
bool journal_column_key(struct sqlite3_stmt *stmt, int column, struct node_key *key); /* false: it is none */

/* --- journal_store.c */
int journal_store_start(struct journal *journal, struct error *error);
void journal_store_stop(struct journal *journal); /* what is unflushed stays in memory */
int journal_store_flush_final(struct journal *journal, bool with_stat, struct error *error); /* thread stopped */
void journal_arm(struct journal *journal); /* something was put on an unflushed list */

/* --- unsettled.c */
/* After an unclean stop: what was logged enters the table. Before the log is opened. */
int unsettled_load_log(struct journal *journal, struct error *error);
int unsettled_put(struct db_conn *conn, const struct node_key *key, int64_t epoch, struct error *error);
void unsettled_count(struct journal *journal, uint64_t more); /* so many rows more, at most */
/* Marks that need no new block on disk. The bytes of the file `overflow`. */
enum overflow { OVERFLOW_UNSETTLED, OVERFLOW_SUSPECT, OVERFLOW_BYTES };
int overflow_write(struct journal *journal, enum overflow which, char value); /* 0 or -1 with errno */
int overflow_write_at(int state_fd, enum overflow which, char value);         /* the same before there is a journal */
bool overflow_read(struct journal *journal, enum overflow which);
/* After a power cut that followed an overflow nobody knows what was unsettled: everything is. Clears the mark. */
int overflow_spread(struct journal *journal, struct error *error);

/* --- suspect.c, suspect_check.c (suspect_internal.h is theirs) */
void suspects_init(struct suspects *set);
void suspects_free(struct journal *journal); /* content only */
int suspect_load(struct journal *journal, struct db_conn *conn, struct error *error);
/* How long a sealer took to read the inode, suspect or not. */
void suspect_was_read(struct journal *journal, const struct node *node, int64_t took_ns);
/* In the I11 transaction of the cut of that epoch: the rows of those that are quiet and in it. */
int suspect_forget_rows(struct journal *journal, int64_t epoch, struct db_conn *conn, struct error *error);
/* After that transaction, or instead of it (committed false). */
void suspect_end(struct journal *journal, int64_t epoch, bool committed);

#endif

/* sealing: one version under construction, from what a cut froze (seal_cut.c) or from a batch of the backlog (import.c) to a spooled record and its packs.
 *
 *   sealing_new            numbers, an empty delta
 *   seal_ino_*, seal_name_add   which inodes and names it is about                     (seal_ino.c, seal_names.c; caller's thread)
 *   seal_names_settle      live names are looked up; inodes that have none left are gone, with all below them; the others are put in order
 *   seal_run               sealers capture every wanted inode: attributes, then bytes  (seal_pool.c, seal_room.c; seal_file.c; several threads)
 *   seal_names_emit        names of inodes that made it; the others are put off
 *   sealing_commit         record, spool, the I11 transaction, hand-over to upload     (seal_commit.c)
 *   sealing_free           gives everything back that was not committed
 *
 * State of an inode in a sealing:
 *   wanted     it has a name (or is the root) in this version and something of it changed
 *   sealed     captured: its rows are in the delta
 *   deferred   could not be read as of the cut, or has its name in the backlog still: back there, and the version is partial; or, unreadable, the disk refused it: the version is lacking
 *   vanished   removed behind our back: loses its names in this version
 *   gone       no name left: its rows end */
#ifndef YESTER_SEALING_H
#define YESTER_SEALING_H

#include "backlog_rows.h"
#include "catalogue.h"
#include "chunker.h"
#include "clock.h"
#include "record.h"
#include "seal.h"
#include "spool.h"
#include "upload.h"

#include <pthread.h>
#include <stdatomic.h>

/* What stays from one version to the next. The pipeline thread's, except for numbers, which a sealing's lock guards while it runs. */
struct seal_env {
	struct volume *volume;
	const struct master *master;
	const struct chunker *chunker;
	struct spool *spool;
	struct upload *upload;
	atomic_bool *stop;
	struct node_key root;
	uint8_t writer_id[CRYPT_ID_BYTES]; /* of this mount (I16) */
	int64_t first_seq;                 /* this writer's first record, 0: none yet (I17) */
	int64_t head, head_time_s, head_cut_ns;
	bool head_partial, head_lacking;
	uint8_t head_hash[SHA256_BYTES];
	int64_t next_ino, next_chunk, next_pack;
	bool backlog, bulk;                /* there may be rows in it; such that are not unreadable */
	uint64_t unreadable_rows;          /* not less than there are */
	bool unseen;                       /* the newest scan could not look at something */
	int64_t idle_ns;                   /* wall clock, not after the moment when nothing was dirty: the time of a version without a cut (I24) */
	struct error unreadable;           /* something of the tree that can't be read; code 0: all can, as far as we know */
};
/* Head and numbers from the database: at start and after a rollback. */
int seal_env_load(struct seal_env *env, struct error *error);

struct frozen;
struct seal_ino {
	struct seal_ino *same_key, *same_ino; /* chains of the tables */
	struct seal_ino *next;                /* work list of seal_names.c */
	struct node_key key;                  /* length 0: not known */
	mode_t type;                          /* the catalogue's, if nobody could look at the inode; 0: not known */
	int64_t ino;                          /* 0: none given yet */
	int64_t captured;                     /* 0: its bytes are in no version, or differ in unknown places */
	struct frozen *frozen;                /* of the cut, NULL otherwise */
	size_t place;           /* of its first name among the sorted ones, from 1; 0: has none in this version */
	int32_t added, removed;               /* names, in this version */
	bool known;                           /* the catalogue has a live row */
	bool wanted, gone, expanded, listed;
	bool awaited;                         /* a name of it is put off */
	bool adopted;                         /* its key was not known, its name was */
	bool sealed, whole, vanished, deferred; /* the sealer's. whole: all its bytes were read */
	bool unreadable;              /* the sealer's: why it is deferred */
	struct local_row row;                 /* when sealed */
};

struct seal_name {
	struct seal_ino *dir, *child; /* child NULL: the name is gone */
	int64_t was;                  /* live inode number of that name, 0: none */
	int64_t backlog;              /* its row there, 0: none */
	const char *name;
	uint8_t length;
	bool put_off, unreadable;     /* not in this version; because of what it leads to, or of its directory */
};

/* A read connection that is renewed each second: a reader that stays would starve the WAL checkpoint. */
struct seal_reader { struct db *db; struct db_conn *conn; int64_t since_ns; };
/* NULL: out of connections. Not between two steps of one statement. */
struct db_conn *seal_reader_conn(struct seal_reader *reader, struct error *error);
void seal_reader_end(struct seal_reader *reader);

struct seal_worker {
	struct sealing *sealing;
	struct seal_reader reader;
	struct pack_builder *builder; /* NULL: none begun */
	int64_t pack;                 /* its number */
	uint8_t *window;              /* SEAL_WINDOW_BYTES, NULL before use */
	pthread_t thread;
	int rc;
	struct error error;
};
#define SEAL_WINDOW_BYTES (8u << 20)
#define SEAL_THREADS_MAX 16

/* Chunks of this version by id: open addressing, ids are as good as random. */
struct seal_chunk { uint8_t id[CRYPT_ID_BYTES]; int64_t num; uint32_t length; };
struct seal_chunks { struct seal_chunk *slots; size_t capacity, count; };

typedef int seal_capture_fn(struct seal_worker *worker, struct seal_ino *ino, struct error *error);

struct sealing {
	struct seal_env *env;
	struct delta *delta;
	struct cut *cut;      /* NULL: import */
	int64_t seq, cut_ns, epoch;
	bool partial, lacking;
	atomic_bool early;    /* packs travel before the version is committed, and leave the spool */
	bool rescan;          /* something did not fit what we know: look again */
	/* Caller's thread. */
	struct seal_reader reader;
	struct seal_ino **by_key, **by_ino;
	size_t buckets, ino_count;
	struct seal_name *names;
	size_t name_count, name_room, sorted;
	struct seal_block *blocks; /* arena */
	struct seal_ino **work;
	size_t work_count, work_room;
	uint64_t work_bytes;      /* estimate, for the size of a batch */
	struct seal_worker *workers; /* their builders hold what is left of the packs */
	int worker_room;
	seal_capture_fn *capture;
	_Atomic size_t next_work;
	_Atomic uint64_t effort;  /* bytes read so far, and something for each inode: more of it, more sealers */
	atomic_bool failed;       /* some sealer gave up: the others do too */
	_Atomic uint64_t changes; /* rows in the delta */
	_Atomic uint64_t sealed_bytes; /* of packs */
	uint64_t pack_bytes, early_bytes; /* a pack with so many is full; of so many in packs, those done already leave. By the room there is */
	pthread_mutex_t lock; /* a leaf: chunks, objects, env's numbers, worker_count */
	int worker_count;
	const struct seal_ino *unreadable; /* the first that could not be read */
	char unreadable_path[512];         /* of it, if it was met by name only */
	struct error unreadable_why;
	struct seal_chunks chunks;
	struct spool_object *objects;
};

int sealing_new(struct seal_env *env, struct cut *cut, struct sealing **out, struct error *error);
void sealing_free(struct sealing *sealing);
void *seal_alloc(struct sealing *sealing, size_t size); /* zeroed; lives as long as the sealing; NULL: out of memory */

/* --- seal_ino.c */
int seal_ino_by_key(struct sealing *sealing, const struct node_key *key, mode_t type, struct seal_ino **out, struct error *error);
/* A number for an inode that is new to the catalogue. */
void seal_ino_number(struct sealing *sealing, struct seal_ino *ino);
/* To be captured; bytes: an estimate. */
int seal_want(struct sealing *sealing, struct seal_ino *ino, uint64_t bytes, struct error *error);
/* For seal_names.c: an inode of the catalogue, by its number; NULL if it was not met yet; makes it findable by its number; whether there is a live row, and its type. */
int seal_ino_by_number(struct sealing *sealing, int64_t number, struct seal_ino **out, struct error *error);
struct seal_ino *seal_ino_find(struct sealing *sealing, int64_t number);
struct seal_ino *seal_ino_find_key(const struct sealing *sealing, const struct node_key *key);
void seal_ino_chain(struct sealing *sealing, struct seal_ino *ino);
int seal_ino_live(struct db_conn *conn, int64_t number, bool *known, mode_t *type, struct error *error);

/* --- seal_names.c */
/* `name` is copied. dir has a number. */
int seal_name_add(struct sealing *sealing, struct seal_ino *dir, const char *name, struct seal_ino *child, int64_t backlog,
		  struct error *error);
int seal_names_settle(struct sealing *sealing, struct error *error);
/* After the sealers. */
int seal_names_emit(struct sealing *sealing, struct error *error);

/* --- seal_pool.c */
int seal_run(struct sealing *sealing, struct error *error);
/* The number of the chunk with those bytes: known, or added to the worker's pack. */
int seal_chunk(struct seal_worker *worker, const void *data, uint32_t length, int64_t *num, struct error *error);
/* Finishes what is left of the packs: the small last one stays to be inlined (*pack), the others are spooled. */
int seal_finish_packs(struct sealing *sealing, const struct buf **inline_pack, struct error *error);
/* Sizes by the room that there is now. */
void seal_room_begin(struct sealing *sealing);
/* Writes a finished pack into the spool; waits, as long as that makes sense, for others to leave it. ERR_NOSPACE. (seal_room.c) */
int seal_spool_pack(struct sealing *sealing, const char *key, const struct buf *bytes, const uint8_t hash[SHA256_BYTES],
		    struct error *error);
/* Nobody wants the result any more (engine stops, cut abandoned). */
bool seal_cancelled(const struct sealing *sealing);

/* --- seal_unreadable.c */
/* Whether an error of reading the tree means that the disk refuses that file, rather than a shortage of ours, which passes. */
bool seal_is_unreadable(int rc, const struct error *error);
/* That is so: the inode is put off, and what can be read goes on. Returns 0. A sealer's. */
int seal_put_off_unreadable(struct seal_worker *worker, struct seal_ino *ino, const struct error *why);
/* The handle of an inode that has a name in this version opens nothing (ESTALE), or it has no name any more. Its names, those of this version too, say whether it has vanished or the disk does not give it, or the way
 * to it (by_name.h): then it is put off. 0, or enum err. A sealer's. */
int seal_put_off_stale(struct seal_worker *worker, struct seal_ino *ino, struct error *error);
/* env->unreadable for that path and errno. */
void seal_say_unreadable(struct seal_env *env, const char *path, int number);
/* The same for the first that this sealing met, if any. */
void seal_note_unreadable(struct sealing *sealing);

/* --- seal_file.c: the content of one regular file. */
struct seal_content {
	/* The bytes of the version, each asked for once, ascending. 0 or enum err. */
	int (*read)(void *context, void *data, size_t length, int64_t offset, struct error *error);
	/* Next data at or after offset, `end` when there is none before it; or enum err. Only for what was not read yet. */
	int64_t (*next_data)(void *context, int64_t offset, int64_t end);
	/* A hint: where the data at offset ends, at most `end`; offset: there is none any more. What lies behind is asked for as before. NULL: not known. */
	int64_t (*next_hole)(void *context, int64_t offset, int64_t end);
	/* Bytes outside `changed`; ERR_BUSY: not those of the version any more. NULL: not available. */
	int (*read_unchanged)(void *context, void *data, size_t length, int64_t offset, struct error *error);
	/* After the last byte was read, before a row is made: ERR_BUSY when they don't belong together. NULL: they do. */
	int (*finish)(void *context, struct error *error);
	void *context;
	int64_t size;
};
/* changed NULL: all. *any: some extent changed. */
int seal_file(struct seal_worker *worker, int64_t ino, const struct seal_content *content, const struct extent_map *changed,
	      bool *any, struct error *error);

/* --- seal_inode.c: the other rows of an inode. */
#define RACY_NS (20 * NS_PER_S / 1000) /* timestamps are as coarse as the kernel's tick, 10 ms at most */
/* only_changed: no row if the live one says the same (but for atime). */
int seal_inode_row(struct seal_worker *worker, struct seal_ino *ino, const struct attrs *attrs, bool only_changed,
		   struct error *error);
/* I8: what a rescan will compare with. captured_ns: wall clock, not after the stat. */
void seal_captured(struct seal_worker *worker, struct seal_ino *ino, const struct attrs *attrs, int64_t captured_ns);
/* Ends the rows of an inode without a name, and takes back those that this version made of it. */
int seal_inode_end(struct sealing *sealing, struct seal_ino *ino, struct error *error);

/* --- seal_commit.c */
/* Everything from the finished delta to the hand-over; the cut, if any, is committed and forgotten. A version comes of it when something changed, when it makes a partial head whole, or by force. *committed: a version was made (else only what is known of
 * this machine was brought up to date). After an error sealing_free gives back what there is; the caller abandons the cut. */
int sealing_commit(struct sealing *sealing, bool force, bool *committed, struct error *error);
/* Instead, after a failure; then only sealing_free. Of a large version that nobody wants any more (ERR_ABANDONED), or for the rest of which there is no room (ERR_NOSPACE), the packs that are finished are kept,
 * in a partial version with nothing else in it: the next attempt finds their chunks, and does not upload them again. Else a file that changes once in the time that it takes to upload it would never be in a version. */
void sealing_give_up(struct sealing *sealing, int failure);

/* --- seal_cut.c, import.c */
/* One version from a cut, which is consumed in any case. `partial`: it can't be a prefix, whatever is in it. force: a version also when the cut brings nothing that the newest one doesn't have. cut NULL: an
 * empty version. *rescan: see sealing. */
int seal_cut(struct seal_env *env, struct cut *cut, bool partial, bool force, bool *rescan, struct error *error);

#endif

/* unsettled_log: how an fsync makes it durable that its inode is unsettled (I9): one write into a file made beforehand, and one fdatasync. No table, no lock that a large transaction holds.
 *
 * STATE/unsettled.log is 256 KiB in two halves. Records are appended to one half. When that is half full, the journal thread turns to the other, writes all rows that it has not written yet
 * into the database, durably, and forgets the first half: what its records say is in the table `unsettled` then. So at any time each record that counts is in the file, or its row in the table.
 *
 *   A fsync 1 records in half 0; B journal thread turns; C fsync 2 records in half 1; B flushes: row of 1 is in the table, since its inode was dirty before A; B forgets half 0.
 *
 * A record is not taken back when its inode is settled: at the start one of an epoch that was settled is skipped (meta `settled_epoch`), the others enter the table again. One too many costs a comparison after a
 * power cut, no more.
 *
 * Record, 88 bytes: u64 checksum of the rest, u64 generation of the half (a lower one: of an earlier turn), i64 epoch, u8 key length, the key, zeros. A torn one ends its half. */
#ifndef YESTER_UNSETTLED_LOG_H
#define YESTER_UNSETTLED_LOG_H

#include "err.h"
#include "node.h"

#include <stdbool.h>
#include <stdint.h>

struct unsettled_log;

/* What is recorded in the state directory's file, by this session or earlier ones; 0 or fn's first result that is not, ERR_FAILED. No file is fine. */
int unsettled_log_each(int state_fd, int (*fn)(void *context, const struct node_key *key, int64_t epoch), void *context);

/* Makes the file if need be. Does not touch what earlier sessions recorded until the half is used. */
int unsettled_log_open(int state_fd, struct unsettled_log **out, struct error *error);
/* NULL is fine. */
void unsettled_log_close(struct unsettled_log *log);

/* Appending: reserve under the lock that the functions below are called with, then put and sync without, one thread at a time. */
struct unsettled_place { int64_t offset; uint64_t generation; };
/* False: no room before the next turn has come to its end, or a write failed once (then there is never room again). */
bool unsettled_log_reserve(struct unsettled_log *log, size_t count, struct unsettled_place *place);
/* The next record of the place. -1 with errno. */
int unsettled_log_put(struct unsettled_log *log, struct unsettled_place *place, const struct node_key *key, int64_t epoch);
int unsettled_log_sync(struct unsettled_log *log);
/* A write or sync failed: what the kernel has of the file is not what the disk has. */
void unsettled_log_give_up(struct unsettled_log *log);

/* The lock held: the half in use is half full, and the other one is free. */
bool unsettled_log_is_filling(const struct unsettled_log *log);
/* Turns to the other half if that is so. True: the half that is not in use has records, now or from an earlier turn: flush, then forget. */
bool unsettled_log_turn(struct unsettled_log *log);
void unsettled_log_forget(struct unsettled_log *log);

#endif

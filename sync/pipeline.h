/* pipeline: the sync thread: takes cuts, has them sealed, imports the backlog, and puts right what does not fit. One per started engine.
 *
 *   phase      what happens                                                          next
 *   checking   the spool is verified; a take-over is carried out                     scanning; checking again after a failure
 *   scanning   rescan; no cut completes (I7)                                         running
 *   running    cuts when their time has come, batches of the backlog in between      checking (spool damaged, or a take-over lost the race), scanning (asked for)
 *   ended      the last cut was taken                                                -
 *
 * A local database that turns out to be damaged (fault 20) ends the work in any phase: what is spooled still goes up, what is changed from then on is found by the next mount's rescan, which has a new one.
 *
 * Versions are made strictly one after the other up to the spool; upload works apart. The thread sleeps while nothing is dirty. */
#ifndef YESTER_PIPELINE_H
#define YESTER_PIPELINE_H

#include "checkpointer.h"
#include "chunker.h"
#include "crypt.h"
#include "spool.h"
#include "store.h"
#include "upload.h"
#include "volume.h"

#include <stdbool.h>

struct pipeline;

struct pipeline_parts { /* all outlive the pipeline */
	struct volume *volume;
	struct store *store;
	const struct master *master;
	const struct chunker *chunker;
	struct spool *spool;
	struct upload *upload;
	struct checkpointer *checkpointer;
	bool take_over, accept_loss; /* options of the mount */
	bool clean, same_boot;       /* how the last session ended */
};

enum pipeline_phase { PIPELINE_CHECKING, PIPELINE_SCANNING, PIPELINE_RUNNING, PIPELINE_ENDED };

struct pipeline_status {
	enum pipeline_phase phase;
	bool damaged;                  /* the local database: nothing is built on it any more */
	bool held, importing, waiting; /* waiting: cuts wait for room */
	bool clean;                    /* nothing dirty, in flight, suspect, or unscanned at one moment during the call, and head is a whole version */
	uint64_t suspects;             /* inodes (suspect.h) */
	int64_t head;
	uint64_t sealing_files;
	uint64_t backlog_files, backlog_bytes, scanned;
	struct error error;            /* code 0: none */
	int64_t error_ns;
};

/* The parts are made first, because journal and upload call pipeline_wake; the thread begins with pipeline_start. */
int pipeline_new(struct pipeline **out, struct error *error);
int pipeline_start(struct pipeline *pipeline, const struct pipeline_parts *parts, struct error *error);
/* Something changed: journal, upload. Any thread; blocks for no longer than it takes to copy a few words. */
void pipeline_wake(void *pipeline);
/* As engine_ops.sync. */
int pipeline_sync(struct pipeline *pipeline, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error);
/* Waits until every version is confirmed, while uploads make progress. ERR_TIMEOUT. */
int pipeline_drain(struct pipeline *pipeline, int64_t drain_ns, struct error *error);
/* Takes a last cut if that is possible, ends the thread. pipeline_cancel: gives up what it is doing, before. */
void pipeline_finish(struct pipeline *pipeline);
/* After pipeline_finish: what the next mount's scan need not look at again, although it was captured right after its change. */
int pipeline_calm(struct pipeline *pipeline, struct error *error);
/* Who still waits in pipeline_sync is told that the volume is being unmounted; returns when nobody is left, and nobody gets in any more. */
void pipeline_dismiss(struct pipeline *pipeline);
void pipeline_free(struct pipeline *pipeline);
void pipeline_get_status(struct pipeline *pipeline, struct pipeline_status *out);

#endif

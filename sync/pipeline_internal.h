/* pipeline_internal: pipeline.c (the thread and its decisions), pipeline_check.c, pipeline_scan.c, pipeline_cut.c, pipeline_backlog.c (what it does), pipeline_wait.c (those who wait for it). */
#ifndef YESTER_PIPELINE_INTERNAL_H
#define YESTER_PIPELINE_INTERNAL_H

#include "import.h"
#include "pipeline.h"
#include "sealing.h"

#include <pthread.h>
#include <stdatomic.h>

struct backlog_counts;

struct pipeline {
	struct pipeline_parts parts; /* constant once started */
	pthread_t thread;
	bool started;

	/* The thread's own. */
	struct seal_env env;
	struct import import;
	bool taking_over;        /* asked for and not finished */
	bool force;              /* a version is due though nothing changed */
	bool blind;              /* the newest scan could not see all absences: after a partial version it is done again */
	int blind_scans;         /* in a row */
	bool now;                /* what is dirty came from the rescan: cut without waiting for the interval */
	int64_t spooled_epoch, settled_epoch; /* of the journal: in a spooled version; settled up to */
	int64_t settle_at, rescan_at;         /* monotonic; rescan_at 0: not wanted */
	bool unsettled;                       /* settling failed */
	bool worked;                          /* since it waited last */
	int64_t retry_at, retry_ns;           /* what could not be read is tried again: monotonic, 0: nothing is; the time between two tries */
	uint64_t retried;                     /* sync_asked for which it was */
	uint64_t failures;
	uint64_t suspects_ticket;             /* suspect inodes were journaled for who asked up to this one */
	bool suspects_ended;                  /* likewise for the last cut */
	int last_tries;          /* of the last cut */
	int64_t poked;           /* confirmed version that the checkpointer was told of */
	uint64_t backlog_before; /* rows at the start of the round */

	atomic_bool stop;            /* gives up an import, a rescan */
	_Atomic uint64_t scanned;

	pthread_mutex_t lock; /* all below; a leaf */
	pthread_cond_t work;  /* to the thread */
	pthread_cond_t done;  /* to those who wait for it */
	bool woken, finishing, cancelled; /* cancelled: the store is not asked any more */
	uint64_t changes;               /* counts what those who wait may want to see */
	bool scan_complete;             /* the newest rescan of this mount has ended well */
	bool partial_head;              /* the newest version is partial or lacking, or there is none */
	bool unreadable;                /* something of the tree could not be read the last time */
	uint64_t sync_asked, sync_done; /* tickets */
	uint64_t rescan_asked, rescan_done; /* likewise, for scans that began after they were asked for */
	int64_t sync_target;            /* version that the last done one waits for */
	struct error sync_lacks;        /* what could not be read for it; code 0: all could */
	uint64_t rollbacks, sync_rollbacks; /* how often versions were taken back, by now and when sync_target was set: numbers from before then may mean others' */
	int waiting;                    /* threads in pipeline_sync */
	bool dismissed;                 /* they are to go */
	uint64_t sealings;              /* begun and ended: odd while one is going on */
	struct pipeline_status status;
};

/* --- The steps: 0, or enum err with *error filled. The pipeline's thread. */
/* --- pipeline_check.c */
/* Verifies the spool, takes over if that is asked for. */
int pipeline_check(struct pipeline *pipeline, struct error *error);
/* --- pipeline_scan.c */
int pipeline_scan(struct pipeline *pipeline, struct error *error);
/* Before a scan that somebody asked for: makes it find little of what the mount itself has changed. */
void pipeline_before_scan(struct pipeline *pipeline);
/* --- pipeline_cut.c */
/* Takes a cut and seals it; nothing dirty: an empty version if one is due. ERR_ABSENT: nothing to do. */
int pipeline_cut(struct pipeline *pipeline, bool partial, struct error *error);
int pipeline_settle(struct pipeline *pipeline, struct error *error);
/* For who watches: a version is under construction between these. */
void pipeline_sealing_begins(struct pipeline *pipeline);
void pipeline_sealing_ends(struct pipeline *pipeline);
/* --- pipeline_backlog.c */
/* The next batch of the backlog, or, if it has become small, all of it into the journal. */
int pipeline_import(struct pipeline *pipeline, struct error *error);
/* What could not be read is looked at again, by a scan if it takes one. */
int pipeline_retry(struct pipeline *pipeline, bool *scan, struct error *error);
/* Reads how much there is, for the status and what the thread decides by it. */
int pipeline_count_backlog(struct pipeline *pipeline, struct backlog_counts *out, struct error *error);
/* After a whole version, an import or a scan: what could not be read can, or is gone. */
void pipeline_forget_unreadable(struct pipeline *pipeline);

/* --- pipeline_wait.c */
/* Lock held: those who wait look again. */
void pipeline_tell(struct pipeline *pipeline);
void pipeline_set_error(struct pipeline *pipeline, const struct error *error); /* NULL: none */

#endif

/* upload_internal: upload.c (threads), upload_queue.c (queues) and commit.c (what one object needs). */
#ifndef YESTER_UPLOAD_INTERNAL_H
#define YESTER_UPLOAD_INTERNAL_H

#include "upload.h"

#include <pthread.h>

#define UPLOAD_THREADS_MAX 64

struct upload_queue { /* in order of versions; only objects that are not done */
	struct spool_object *first, *last;
};

struct upload {
	struct volume *volume; /* constant */
	struct store *store;
	struct spool *spool;
	void (*changed)(void *);
	void *context;

	pthread_mutex_t lock; /* all below; a leaf: nothing is taken, no database and no network used inside */
	pthread_cond_t work;  /* to the threads */
	pthread_cond_t idle;  /* to upload_pause */
	pthread_cond_t moved; /* to upload_await */
	struct upload_queue packs, records;
	bool paused, held, stopping, taking_over;
	int in_flight;
	int64_t not_before;    /* monotonic */
	int64_t contact_until; /* monotonic: then Commit 7 again */
	struct upload_status status;

	pthread_t threads[UPLOAD_THREADS_MAX + 1];
	int thread_count;
};

/* --- upload_queue.c; lock held. A queue has a reference to what is in it. */
void upload_queue_add(struct upload_queue *queue, struct spool_object *object);
/* Not in it: nothing happens. */
void upload_queue_remove(struct upload_queue *queue, struct spool_object *object);
void upload_queue_clear(struct upload *upload, struct upload_queue *queue);
void upload_unref(struct spool_object *object);
/* It is acknowledged: state and counters. */
void upload_pack_done(struct upload *upload, struct spool_object *pack);

/* --- commit.c */
/* Commit 7. */
int commit_contact(struct upload *upload, struct error *error);
/* Uploads a pack, makes its acknowledgement durable. */
int commit_pack(struct upload *upload, struct spool_object *pack, struct error *error);
/* Commit 4 to 6: 0 confirmed; ERR_FENCED: the key holds another's record. */
int commit_record(struct upload *upload, struct spool_object *record, struct error *error);
/* meta `fenced`. */
void commit_fenced(struct upload *upload);

#endif

#include "invalidate.h"

#include "behind.h"
#include "clock.h"
#include "failpoint.h"
#include "inode.h"
#include "log.h"
#include "node.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 20000            /* about 2 MB */
#define PATIENCE_NS (5 * NS_PER_S) /* without any progress */
#define AGAIN_NS (NS_PER_S / 50)
#define AGAIN_TRIES 50

struct item { /* name "": the inode itself */
	struct item *next;
	uint64_t nodeid;
	int tries;
	char name[];
};

struct invalidator {
	struct fs *fs;
	struct behind_listener listener;
	atomic_bool watching;
	pthread_t thread;
	pthread_mutex_t lock;   /* all below */
	pthread_cond_t work;    /* to the thread */
	pthread_cond_t advance; /* to those who wait for it */
	struct item *first, **last;
	struct item *later;     /* to be said again */
	size_t count;           /* of both lists and the one being said */
	uint64_t done;          /* since the start */
	uint64_t lost;          /* in this scan */
	bool started, stopping, stopped;
};

/* ---------------------------------------------------------------- finding: threads of the engine */

/* Lock held. Waits until there are at most `count` items, while they get fewer. */
static bool wait_for(struct invalidator *v, size_t count)
{
	while (v->count > count && !v->stopping) {
		struct timespec deadline = clock_deadline(PATIENCE_NS);
		uint64_t done = v->done;
		int rc = 0;

		while (v->count > count && v->done == done && !v->stopping && rc != ETIMEDOUT)
			rc = pthread_cond_timedwait(&v->advance, &v->lock, &deadline);
		if (v->done == done && rc == ETIMEDOUT)
			return false;
	}
	return true;
}

static void put(struct invalidator *v, uint64_t nodeid, const char *name)
{
	struct item *item = malloc(sizeof(*item) + strlen(name) + 1);

	if (item) {
		*item = (struct item){.nodeid = nodeid};
		strcpy(item->name, name);
	}
	pthread_mutex_lock(&v->lock);
	if (!v->started || v->stopping) { /* no kernel keeps anything yet, or any more */
		free(item);
	} else if (!item || !wait_for(v, LIST_MAX - 1) || v->stopping) {
		v->lost += !v->stopping;
		free(item);
	} else {
		*v->last = item;
		v->last = &item->next;
		v->count++;
		pthread_cond_signal(&v->work);
	}
	pthread_mutex_unlock(&v->lock);
}

static void found_inode(void *context, const struct node_key *key, const struct stat *st)
{
	struct invalidator *v = context;
	struct node *node = node_find(v->fs->nodes, key);

	if (!node)
		return;
	/* Own changes differ too, until the kernel has asked again: that costs it an answer. */
	if (node_is_told_otherwise(v->fs->nodes, node, inode_stamp(st)))
		put(v, node->nodeid, "");
	node_put(v->fs->nodes, node);
}

static void found_name(void *context, const struct node_key *dir, const char *name)
{
	struct invalidator *v = context;
	struct node *node = atomic_load(&v->fs->can_expire) ? node_find(v->fs->nodes, dir) : NULL;

	if (node && node_is_looked_up(v->fs->nodes, node))
		put(v, node->nodeid, name);
	node_put(v->fs->nodes, node);
}

static void scan_begins(void *context)
{
	struct invalidator *v = context;
	atomic_store(&v->watching, true);
	pthread_mutex_lock(&v->lock);
	v->lost = 0;
	pthread_mutex_unlock(&v->lock);
}

static void scan_ends(void *context)
{
	struct invalidator *v = context;
	pthread_mutex_lock(&v->lock);
	if (!wait_for(v, 0))
		v->lost += v->count;
	uint64_t lost = v->lost;
	pthread_mutex_unlock(&v->lock);
	atomic_store(&v->watching, false);
	if (lost > 0)
		log_warn("a process blocks a directory of the mount: of %llu changes made behind the mount, the mount shows some a day late",
			 (unsigned long long)lost);
}

bool invalidate_is_watching(struct fs *fs)
{
	return fs->invalidator && atomic_load(&fs->invalidator->watching);
}

/* ---------------------------------------------------------------- telling: our thread */

static int say(struct fs *fs, const struct item *item)
{
	if (!item->name[0])
		return fuse_lowlevel_notify_inval_inode(fs->session, item->nodeid, 0, 0);
#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 16)
	return fuse_lowlevel_notify_expire_entry(fs->session, item->nodeid, item->name, strlen(item->name),
						 FUSE_LL_EXPIRE_ONLY);
#else
	return fuse_lowlevel_notify_expire_entry(fs->session, item->nodeid, item->name, strlen(item->name));
#endif
}

/* The kernel does not know the inode although we have told it: the answer is on its way, or a FORGET is. (Of a name it only means that nothing is kept.) */
static bool is_early(struct fs *fs, const struct item *item, int rc)
{
	if (rc != -ENOENT || item->name[0] || item->tries >= AGAIN_TRIES)
		return false;
	struct node *node = node_by_id(fs->nodes, item->nodeid);
	bool known = node && node_is_looked_up(fs->nodes, node);
	node_put(fs->nodes, node);
	return known;
}

/* Lock held; given up while the kernel is told. */
static void say_first(struct invalidator *v)
{
	struct item *item = v->first;

	v->first = item->next;
	if (!v->first)
		v->last = &v->first;
	pthread_mutex_unlock(&v->lock);
	int rc = say(v->fs, item);
	bool again = is_early(v->fs, item, rc);
	if (rc != 0 && rc != -ENOENT && rc != -ENOTCONN && rc != -ENODEV)
		log_debug("the kernel can't be told of a change: %s", strerror(-rc));
	pthread_mutex_lock(&v->lock);
	v->done++;
	if (again) {
		item->tries++;
		item->next = v->later;
		v->later = item;
	} else {
		free(item);
		v->count--;
	}
	pthread_cond_broadcast(&v->advance);
}

/* Lock held. */
static void take_later(struct invalidator *v)
{
	while (v->later) {
		struct item *item = v->later;
		v->later = item->next;
		item->next = NULL;
		*v->last = item;
		v->last = &item->next;
	}
}

static void *run(void *arg)
{
	struct invalidator *v = arg;

	pthread_mutex_lock(&v->lock);
	while (!v->stopping) {
		if (v->first)
			say_first(v);
		else if (!v->later)
			pthread_cond_wait(&v->work, &v->lock);
		else {
			struct timespec deadline = clock_deadline(AGAIN_NS);
			pthread_cond_timedwait(&v->work, &v->lock, &deadline);
			take_later(v);
		}
	}
	v->stopped = true;
	pthread_cond_broadcast(&v->advance);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

void invalidate_attributes(struct fs *fs, fuse_ino_t ino)
{
	fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
}

/* ---------------------------------------------------------------- life */

int invalidate_new(struct fs *fs, struct error *error)
{
	struct invalidator *v = calloc(1, sizeof(*v));

	if (!v)
		return error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
	v->fs = fs;
	v->last = &v->first;
	v->listener = (struct behind_listener){scan_begins, scan_ends, found_inode, found_name, v};
	pthread_mutex_init(&v->lock, NULL);
	clock_cond_init(&v->work);
	clock_cond_init(&v->advance);
	fs->invalidator = v;
	volume_set_listener(fs->volume, &v->listener);
	return 0;
}

int invalidate_start(struct fs *fs, struct error *error)
{
	struct invalidator *v = fs->invalidator;
	int rc = OMIT("invalidate/thread") ? EAGAIN : pthread_create(&v->thread, NULL, run, v);
	if (rc != 0)
		return error_errno(error, rc, "thread for the kernel's caches");
	pthread_mutex_lock(&v->lock);
	v->started = true;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

bool invalidate_stop(struct fs *fs)
{
	struct invalidator *v = fs->invalidator;
	struct timespec deadline = clock_deadline(PATIENCE_NS);
	int rc = 0;

	if (!v)
		return true;
	pthread_mutex_lock(&v->lock);
	bool started = v->started;
	v->stopping = true;
	pthread_cond_broadcast(&v->work);
	pthread_cond_broadcast(&v->advance);
	while (started && !v->stopped && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&v->advance, &v->lock, &deadline);
	bool ended = !started || v->stopped, ours = ended && v->started; /* two may wait for it; one joins */
	v->started = v->started && !ended;
	pthread_mutex_unlock(&v->lock);
	if (ours)
		pthread_join(v->thread, NULL);
	return ended;
}

static void free_items(struct item *item)
{
	while (item) {
		struct item *next = item->next;
		free(item);
		item = next;
	}
}

void invalidate_free(struct fs *fs)
{
	struct invalidator *v = fs->invalidator;

	if (!v)
		return;
	volume_set_listener(fs->volume, NULL);
	fs->invalidator = NULL;
	if (v->started) /* a thread of it is stuck, and may come back: it is for the exit to clear up */
		return;
	free_items(v->first);
	free_items(v->later);
	pthread_cond_destroy(&v->work);
	pthread_cond_destroy(&v->advance);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

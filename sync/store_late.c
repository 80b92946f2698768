#include "store_late.h"

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct late {
	struct store store; /* first; counts: of the inner one, copied after each call */
	const struct volume_config *config;
	int tries;
	atomic_bool cancelled;
	pthread_mutex_t lock; /* serialises opening; inner is set once */
	struct store *_Atomic inner;
};

/* NULL: not there yet. */
static struct store *inner_of(struct late *late, int *rc, struct error *error)
{
	struct store *inner = atomic_load(&late->inner);

	if (inner)
		return inner;
	if (atomic_load(&late->cancelled)) {
		*rc = error_set(error, ERR_ABANDONED, 0, "%s: cancelled", late->store.url);
		return NULL;
	}
	pthread_mutex_lock(&late->lock);
	inner = atomic_load(&late->inner);
	*rc = inner ? 0 : store_open(late->config, false, late->tries, &inner, error);
	if (*rc == ERR_ABSENT && error)
		error->code = ERR_RETRY;
	if (*rc == ERR_ABSENT)
		*rc = ERR_RETRY;
	if (*rc)
		inner = NULL;
	atomic_store(&late->inner, inner);
	if (inner && atomic_load(&late->cancelled))
		store_cancel(inner);
	pthread_mutex_unlock(&late->lock);
	return inner;
}

static int counted(struct late *late, struct store *inner, int rc)
{
	struct store_counts counts;

	store_get_counts(inner, &counts);
	__atomic_store_n(&late->store.counts.put, counts.put, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.get, counts.get, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.list, counts.list, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.delete_, counts.delete_, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.head, counts.head, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.bytes_up, counts.bytes_up, __ATOMIC_RELAXED);
	__atomic_store_n(&late->store.counts.bytes_down, counts.bytes_down, __ATOMIC_RELAXED);
	return rc;
}

static int late_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out, struct error *error)
{
	struct late *late = (struct late *)store;
	int rc;
	struct store *inner = inner_of(late, &rc, error);

	return inner ? counted(late, inner, inner->ops->get(inner, key, offset, length, out, error)) : rc;
}

static int late_put(struct store *store, const char *key, const struct store_body *body, bool only_new, int64_t *server_ns,
		    struct error *error)
{
	struct late *late = (struct late *)store;
	int rc;
	struct store *inner = inner_of(late, &rc, error);

	return inner ? counted(late, inner, inner->ops->put(inner, key, body, only_new, server_ns, error)) : rc;
}

static int late_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
		     struct error *error)
{
	struct late *late = (struct late *)store;
	int rc;
	struct store *inner = inner_of(late, &rc, error);

	return inner ? counted(late, inner, inner->ops->list(inner, prefix, start_after, fn, context, error)) : rc;
}

static int late_delete(struct store *store, const char *key, struct error *error)
{
	struct late *late = (struct late *)store;
	int rc;
	struct store *inner = inner_of(late, &rc, error);

	return inner ? counted(late, inner, inner->ops->delete_(inner, key, error)) : rc;
}

static void late_cancel(struct store *store)
{
	struct late *late = (struct late *)store;

	atomic_store(&late->cancelled, true);
	struct store *inner = atomic_load(&late->inner);
	if (inner)
		store_cancel(inner);
}

static void late_close(struct store *store)
{
	struct late *late = (struct late *)store;

	store_close(atomic_load(&late->inner));
	pthread_mutex_destroy(&late->lock);
	free(late);
}

int store_late_open(const struct volume_config *config, int tries, struct store **out, struct error *error)
{
	static const struct store_ops ops = {
		.get = late_get, .put = late_put, .list = late_list, .delete_ = late_delete, .cancel = late_cancel, .close = late_close,
	};
	struct late *late;
	int rc = store_open(config, false, tries, out, error);

	if (rc != ERR_ABSENT)
		return rc;
	late = calloc(1, sizeof(*late));
	if (!late)
		return error_errno(error, ENOMEM, "%s", config->remote);
	late->store.ops = &ops;
	snprintf(late->store.url, sizeof(late->store.url), "%s", config->remote);
	late->config = config;
	late->tries = tries;
	pthread_mutex_init(&late->lock, NULL);
	*out = &late->store;
	return 0;
}

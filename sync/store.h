/* store: the interface to an object store, and nothing more than that.
 *
 * Keys are relative to the volume's prefix and use only [0-9a-z/-]. Objects are immutable once written, except that
 * nothing here enforces it: the callers above never put a key twice with different bytes, and log/ keys go only through
 * store_put_new (PROTOCOL I15, I20).
 *
 * Every function may block on the network, is callable from any thread at the same time, takes no lock that another
 * call holds while it waits, and classifies its result once:
 *   ERR_ABSENT    no such object (404)
 *   ERR_EXISTS    store_put_new lost: the key is taken (412); may be our own earlier try
 *   ERR_RETRY     no or unclear answer, 5xx, 409, time-out, truncated or malformed answer
 *   ERR_DENIED    403, bad certificate, bad credentials
 *   ERR_FAILED    anything that trying again will not mend (no such bucket, 400, a local file that can't be read); message
 *                 says what to do
 *   ERR_UNSUPPORTED store_put_new: the store knows no conditional PUT
 *   ERR_CORRUPT   store_get: the object is shorter than asked for; store_put: the body is not what its sha256 says
 *   ERR_ABANDONED store_cancel was called
 *   ERR_NOMEM
 * A call tries `tries` times (see store_open) with full jitter before it gives ERR_RETRY. */
#ifndef YESTER_STORE_H
#define YESTER_STORE_H

#include "buf.h"
#include "digest.h"
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct store;
struct volume_config;

/* The bytes of a PUT: either memory, or a range of a file (read with pread: the descriptor may be shared). */
struct store_body {
	const void *data; /* NULL: from fd */
	int fd;
	int64_t offset;
	uint64_t length;
	bool has_sha256;              /* then checked before anything is sent */
	uint8_t sha256[SHA256_BYTES];
};

struct store_counts { /* requests answered or attempted since store_open, as the server would count them */
	uint64_t put, get, list, delete_, head, bytes_up, bytes_down;
};

struct store_object { /* one row of a listing */
	const char *key;  /* relative to the prefix; valid during the callback */
	uint64_t size;
	int64_t modified_s; /* server's time */
};
/* Return non-zero to stop the listing; store_list then returns that value. */
typedef int store_list_fn(void *context, const struct store_object *object);

struct store_ops {
	int (*get)(struct store *, const char *key, uint64_t offset, uint64_t length, struct buf *out, struct error *);
	int (*put)(struct store *, const char *key, const struct store_body *, bool only_new, int64_t *server_ns,
		   struct error *);
	int (*list)(struct store *, const char *prefix, const char *start_after, store_list_fn *, void *context,
		    struct error *);
	int (*delete_)(struct store *, const char *key, struct error *);
	void (*cancel)(struct store *);
	void (*close)(struct store *);
};

struct store { /* embedded first in each implementation */
	const struct store_ops *ops;
	struct store_counts counts; /* updated with store_count */
	char url[512];              /* for messages: no credentials */
};

static inline void store_count(uint64_t *counter, uint64_t more)
{
	__atomic_fetch_add(counter, more, __ATOMIC_RELAXED);
}

/* Opens the store of config->remote: file:///PATH or s3://BUCKET[/PREFIX]. Does no network input or output; for file:// a root
 * directory that does not exist is ERR_ABSENT unless `create` (then it is made, parents not). ERR_USAGE: a setting is wrong.
 * Credentials that are missing are no error here: each call looks for them again and is ERR_DENIED until they are there.
 * `tries`: attempts per call before ERR_RETRY (the pipeline uses few and retries by itself for ever; commands more). */
int store_open(const struct volume_config *config, bool create, int tries, struct store **out, struct error *error);
/* NULL is fine. */
void store_close(struct store *store);
/* Makes calls in progress return ERR_ABANDONED soon, and later ones at once. From any thread. */
void store_cancel(struct store *store);

#define STORE_WHOLE UINT64_MAX
#define STORE_GET_MAX (UINT64_C(4) << 30) /* a longer answer is refused, whatever the store says: it must fit into memory */
/* Appends exactly `length` bytes from `offset` (STORE_WHOLE: to the end). Fewer bytes than asked for is ERR_CORRUPT when the object
 * is shorter, ERR_RETRY when the transfer was cut short; out is then as before. An offset at or beyond the end is ERR_CORRUPT
 * too, except STORE_WHOLE of an empty object from 0. A length of 0 asks nothing of the store. */
int store_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
	      struct error *error);
/* Replaces or creates. *server_ns (may be NULL): the store's Date (whole seconds), its best estimate if the answer had none. */
int store_put(struct store *store, const char *key, const struct store_body *body, int64_t *server_ns,
	      struct error *error);
/* Creates if absent, atomically. On ERR_RETRY the object may or may not be there (PROTOCOL commit 6: the caller looks). */
int store_put_new(struct store *store, const char *key, const struct store_body *body, int64_t *server_ns,
		  struct error *error);
/* All keys that begin with `prefix`, in byte order, after `start_after` (may be NULL). Complete or an error (I22): fn may have
 * seen rows before the error. */
int store_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
	       struct error *error);
/* Absent is success. */
int store_delete(struct store *store, const char *key, struct error *error);
void store_get_counts(struct store *store, struct store_counts *out);
/* Races 8 PUTs of a fresh key; 0 when exactly one won and the object is the winner's; ERR_UNSUPPORTED when the store does not
 * do conditional PUT or does it wrongly. Deletes the key afterwards (best effort). */
int store_probe_conditional_put(struct store *store, struct error *error);

/* Implementations. */
int store_file_open(const struct volume_config *config, bool create, struct store **out, struct error *error);
int store_s3_open(const struct volume_config *config, int tries, struct store **out, struct error *error);

#endif

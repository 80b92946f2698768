/* s3_client: one signed request to a bucket, tried until its result is clear or the tries are used up.
 *
 * store_s3 says what to ask for and what a good answer looks like; s3_client signs (s3_sign), sends (http), classifies
 * (s3_classify), waits with full jitter, and corrects by itself, once a call: the clock's offset, the bucket's region, keys that
 * were renewed on disk. Any thread may use a client at any time. */
#ifndef YESTER_S3_CLIENT_H
#define YESTER_S3_CLIENT_H

#include "credentials.h"
#include "http.h"
#include "s3_endpoint.h"
#include "s3_sign.h"
#include "store.h"

#include <pthread.h>

struct s3_client {
	/* Read-only after s3_client_open. */
	struct http *http;
	struct credentials *credentials;
	struct s3_endpoint endpoint;
	char bucket[S3_BUCKET_BYTES];
	int tries;
	struct store_counts *counts;
	int64_t skew_s; /* atomic: server's clock minus ours, once the server has complained */
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool cancelled;               /* under lock */
	char region[S3_REGION_BYTES]; /* under lock */
};

struct s3_call {
	const char *method;
	const char *what; /* for messages: s3://bucket/key */
	const char *key;  /* whole key; "": the bucket */
	const struct s3_pair *query;
	size_t query_count;
	const struct s3_pair *headers; /* beyond those that each request has; lower case; 8 at most */
	size_t header_count;
	const struct store_body *body; /* its sha256 is valid */
	bool only_new;                 /* a condition is among the headers */
	struct buf *out;               /* as in http_request */
	uint64_t limit;
	uint64_t *counter; /* in counts */
	/* Looks at a 2xx answer: 0, ERR_RETRY (try again), or another code, which is final. The message is only the "why". */
	int (*check)(void *context, const struct http_response *response, struct error *error);
	void *context;
};

/* From config, environment and profile. ERR_USAGE. On failure the client is closed. */
int s3_client_open(struct s3_client *client, const struct volume_config *config, const char *bucket, int tries,
		   struct store_counts *counts, struct error *error);
/* Fine on a zero-initialised one. */
void s3_client_close(struct s3_client *client);
void s3_client_cancel(struct s3_client *client);
/* One call; codes as in store.h. `response` is the last attempt's, for http_response_free. */
int s3_client_send(struct s3_client *client, const struct s3_call *call, struct http_response *response,
		   struct error *error);
/* The time of an answer: its Date, else our clock corrected by the known offset. */
int64_t s3_client_time_ns(struct s3_client *client, const struct http_response *response);

#endif

/* http: single HTTP requests (libcurl inside).
 *
 * Connections are kept and used again; redirects are never followed (a signature is for one host); nothing is read from
 * .netrc; a connection that moves less than 1 KiB/s for 15 s is given up (fault 13). A status is an answer, whatever it
 * says: what it means is the caller's business (s3_classify). */
#ifndef YESTER_HTTP_H
#define YESTER_HTTP_H

#include "buf.h"
#include "err.h"
#include "store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;

struct http_options {
	const char *ca_file; /* NULL: the system's */
	const char *proxy;   /* URL; NULL: the environment's (https_proxy, no_proxy) */
	bool no_proxy;       /* none at all, whatever the environment says: for loopback */
	bool allow_http;     /* else https only */
};

/* Texts of `options` are copied. NULL: out of memory. Any number of threads may use it at once: each request takes an idle
 * handle or makes one. */
struct http *http_new(const struct http_options *options);
/* No request may be in progress. NULL is fine. */
void http_free(struct http *http);
/* Requests in progress return ERR_ABANDONED within about a second, later ones at once. Any thread. */
void http_cancel(struct http *http);

struct http_request {
	const char *method;         /* GET, PUT, DELETE */
	const char *url;            /* encoded */
	const char *const *headers; /* "Name: value"; content-length is added for a body */
	size_t header_count;
	const struct store_body *body; /* PUT only */
	struct buf *out; /* the body of a 2xx answer is appended here; NULL: it goes to `other` as that of any answer does */
	uint64_t limit;  /* a longer body for `out` is ERR_RETRY */
};

#define HTTP_OTHER_MAX (64 << 10)

struct http_response { /* zero-initialised before the first use; http_response_free after the last */
	long status;
	bool sent; /* bytes of the request left this machine: the server may have counted it and acted on it */
	int64_t date_s;         /* 0: none */
	int64_t content_length; /* -1: none */
	char etag[128], bucket_region[64], content_range[96], content_type[64]; /* "": none, or too long to be sane */
	struct buf other; /* the first HTTP_OTHER_MAX bytes of any body that did not go to `out` */
	uint64_t bytes_up, bytes_down; /* of bodies */
};
void http_response_free(struct http_response *response);

/* One request; blocks. 0: answered, see response->status. ERR_RETRY: no answer, or a broken one. ERR_DENIED: the certificate
 * is not trusted. ERR_ABANDONED: cancelled. ERR_FAILED: the body could not be read (sys_errno), or the URL or an option is unusable.
 * ERR_NOMEM. `response` is filled as far as it was received in each case; what a failed call appended to `out` is
 * for the caller to drop. The message is only the "why". */
int http_perform(struct http *http, const struct http_request *request, struct http_response *response,
		 struct error *error);

#endif

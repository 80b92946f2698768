/* s3_sign: AWS Signature Version 4 in the Authorization header, as S3 wants it: each path segment encoded once, nothing
 * normalised, the payload's real hash. (libcurl 7.88's signer is not usable for S3: it signs the empty hash for PUT and does
 * not sort the query.)
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Pure functions, any thread. */
#ifndef YESTER_S3_SIGN_H
#define YESTER_S3_SIGN_H

#include "buf.h"
#include "digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_pair { /* a header or a query parameter; not yet encoded */
	const char *name;
	const char *value;
};

#define S3_SIGN_HEADERS_MAX 24
#define S3_SIGN_QUERY_MAX 16
#define S3_DATE_BYTES 17 /* "20150830T123600Z" and NUL */

struct s3_sign_input {
	const char *method;
	const char *path; /* absolute, not encoded: "/bucket/key" */
	const struct s3_pair *query;
	size_t query_count; /* S3_SIGN_QUERY_MAX at most */
	/* All of them are signed, so: host, x-amz-date and everything that must not be changed on the way. Names in lower case,
	 * each once, any order; S3_SIGN_HEADERS_MAX at most. */
	const struct s3_pair *headers;
	size_t header_count;
	uint8_t payload_sha256[SHA256_BYTES];
	const char *access_key, *secret_key, *region, *service;
	const char *date; /* s3_sign_date; the value of x-amz-date */
};

/* "20150830T123600Z" for seconds since 1970 (years 1970 to 9999; beyond them: their nearest end). */
void s3_sign_date(char out[S3_DATE_BYTES], int64_t seconds);
/* Appends `text` percent-encoded: all but A-Za-z0-9-._~ , and '/' too unless keep_slash. 0 or ERR_NOMEM. */
int s3_encode(struct buf *out, const char *text, bool keep_slash);
/* Appends the query, encoded and in the order in which it is signed. 0 or ERR_NOMEM. */
int s3_sign_query(struct buf *out, const struct s3_pair *query, size_t count);
/* Appends the value of the Authorization header, without NUL. `canonical` (may be NULL): the canonical request is appended
 * there, for tests. 0 or ERR_NOMEM. */
int s3_sign(const struct s3_sign_input *input, struct buf *authorization, struct buf *canonical);

#endif

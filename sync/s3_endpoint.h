/* s3_endpoint: where a bucket's objects are: endpoint URL, addressing style, region. Pure functions, any thread. */
#ifndef YESTER_S3_ENDPOINT_H
#define YESTER_S3_ENDPOINT_H

#include "buf.h"
#include "err.h"

#include <stdbool.h>

#define S3_REGION_BYTES 64
#define S3_BUCKET_BYTES 64
#define S3_HOST_BYTES 256

struct s3_endpoint {
	bool https;
	bool loopback;      /* this machine: plain http is all right, and proxies are not asked */
	bool follow_region; /* AWS itself: the host's name has the region in it */
	bool virtual_host;  /* BUCKET.host/key rather than host/BUCKET/key */
	char host[S3_HOST_BYTES]; /* with the port if it is not the scheme's; unused when follow_region */
	char base[128];           /* path before the bucket: "" or "/x" */
};

/* `url` NULL: AWS. `addressing`: "auto" or NULL (virtual for AWS, path elsewhere), "path", "virtual". ERR_USAGE. */
int s3_endpoint_parse(const char *url, const char *addressing, const char *bucket, struct s3_endpoint *out,
		      struct error *error);
/* A region's name becomes part of a host's name: only [A-Za-z0-9-], not empty, not too long. */
bool s3_region_is_sane(const char *region);
/* The Host header for this bucket. */
void s3_endpoint_host(const struct s3_endpoint *endpoint, const char *bucket, const char *region,
		      char host[2 * S3_HOST_BYTES]);
/* Appends the path, not encoded and NUL-terminated, of `key` ("": the bucket itself). 0 or ERR_NOMEM. */
int s3_endpoint_path(const struct s3_endpoint *endpoint, const char *bucket, const char *key, struct buf *out);

#endif

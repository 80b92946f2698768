#include "s3_sign.h"

#include "bytes.h"
#include "err.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEX_BYTES (2 * SHA256_BYTES + 1)
#define SCOPE_TAIL "aws4_request"

void s3_sign_date(char out[S3_DATE_BYTES], int64_t seconds)
{
	const int64_t last = INT64_C(253402300799); /* 9999-12-31T23:59:59Z */
	time_t time = seconds < 0 ? 0 : seconds > last ? last : seconds;
	struct tm tm;

	gmtime_r(&time, &tm);
	strftime(out, S3_DATE_BYTES, "%Y%m%dT%H%M%SZ", &tm);
}

static bool unreserved(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

int s3_encode(struct buf *out, const char *text, bool keep_slash)
{
	static const char digits[] = "0123456789ABCDEF"; /* the standard wants upper case */
	int rc = 0;

	for (; rc == 0 && *text; text++) {
		unsigned char c = (unsigned char)*text;
		char escaped[3] = { '%', digits[c >> 4], digits[c & 15] };

		if (unreserved(c) || (c == '/' && keep_slash))
			rc = buf_append(out, text, 1);
		else
			rc = buf_append(out, escaped, 3);
	}
	return rc;
}

/* By encoded name, then by encoded value. Comparing whole "name=value" texts would be wrong: '-' sorts before '='. */
static int compare_encoded(const void *a, const void *b)
{
	const char *const *left = a, *const *right = b;
	int order = strcmp(left[0], right[0]);

	return order ? order : strcmp(left[1], right[1]);
}

int s3_sign_query(struct buf *out, const struct s3_pair *query, size_t count)
{
	struct buf encoded[2 * S3_SIGN_QUERY_MAX] = { 0 };
	const char *sorted[S3_SIGN_QUERY_MAX][2];
	int rc = 0;

	assert(count <= S3_SIGN_QUERY_MAX);
	for (size_t i = 0; rc == 0 && i < 2 * count; i++) {
		rc = s3_encode(&encoded[i], i % 2 ? query[i / 2].value : query[i / 2].name, false);
		if (rc == 0)
			rc = buf_append_u8(&encoded[i], 0);
	}
	if (rc == 0) {
		for (size_t i = 0; i < 2 * count; i++)
			sorted[i / 2][i % 2] = (const char *)encoded[i].data;
		qsort(sorted, count, sizeof sorted[0], compare_encoded);
		for (size_t i = 0; rc == 0 && i < count; i++)
			rc = buf_printf(out, "%s%s=%s", i ? "&" : "", sorted[i][0], sorted[i][1]);
	}
	for (size_t i = 0; i < 2 * count; i++)
		buf_free(&encoded[i]);
	return rc;
}

static int compare_pairs(const void *a, const void *b)
{
	const struct s3_pair *const *left = a, *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

/* A header's value with runs of blanks as one, and none at its ends. */
static int append_trimmed(struct buf *out, const char *value)
{
	bool blank = false, any = false;
	int rc = 0;

	for (; rc == 0 && *value; value++) {
		if (*value == ' ' || *value == '\t') {
			blank = any;
			continue;
		}
		if (blank)
			rc = buf_append(out, " ", 1);
		if (rc == 0)
			rc = buf_append(out, value, 1);
		blank = false;
		any = true;
	}
	return rc;
}

static int append_signed_names(struct buf *out, const struct s3_pair *const *sorted, size_t count)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = buf_printf(out, "%s%s", i ? ";" : "", sorted[i]->name);
	return rc;
}

static int append_canonical(struct buf *out, const struct s3_sign_input *input, const struct s3_pair *const *sorted)
{
	char payload[HEX_BYTES];
	int rc = buf_printf(out, "%s\n", input->method);

	if (rc == 0)
		rc = s3_encode(out, input->path, true);
	if (rc == 0)
		rc = buf_append(out, "\n", 1);
	if (rc == 0)
		rc = s3_sign_query(out, input->query, input->query_count);
	if (rc == 0)
		rc = buf_append(out, "\n", 1);
	for (size_t i = 0; rc == 0 && i < input->header_count; i++) {
		rc = buf_printf(out, "%s:", sorted[i]->name);
		if (rc == 0)
			rc = append_trimmed(out, sorted[i]->value);
		if (rc == 0)
			rc = buf_append(out, "\n", 1);
	}
	if (rc == 0)
		rc = buf_append(out, "\n", 1);
	if (rc == 0)
		rc = append_signed_names(out, sorted, input->header_count);
	hex_encode(payload, input->payload_sha256, SHA256_BYTES);
	return rc == 0 ? buf_printf(out, "\n%s", payload) : rc;
}

/* HMAC chain over date, region, service: the key that signs. 0 or ERR_NOMEM. */
static int signing_key(const struct s3_sign_input *input, uint8_t key[SHA256_BYTES])
{
	struct buf secret = { 0 };
	int rc = buf_printf(&secret, "AWS4%s", input->secret_key);

	if (rc == 0) {
		hmac_sha256(key, secret.data, secret.length, input->date, 8);
		hmac_sha256(key, key, SHA256_BYTES, input->region, strlen(input->region));
		hmac_sha256(key, key, SHA256_BYTES, input->service, strlen(input->service));
		hmac_sha256(key, key, SHA256_BYTES, SCOPE_TAIL, strlen(SCOPE_TAIL));
	}
	buf_wipe(&secret);
	return rc;
}

int s3_sign(const struct s3_sign_input *input, struct buf *authorization, struct buf *canonical)
{
	const struct s3_pair *sorted[S3_SIGN_HEADERS_MAX];
	uint8_t digest[SHA256_BYTES], key[SHA256_BYTES];
	struct buf request = { 0 }, to_sign = { 0 };
	char hex[HEX_BYTES], scope[128];
	int rc;

	assert(input->header_count <= S3_SIGN_HEADERS_MAX);
	for (size_t i = 0; i < input->header_count; i++)
		sorted[i] = &input->headers[i];
	qsort(sorted, input->header_count, sizeof sorted[0], compare_pairs);

	rc = append_canonical(&request, input, sorted);
	if (rc == 0 && canonical)
		rc = buf_append(canonical, request.data, request.length);
	if (rc < 0)
		goto out;
	snprintf(scope, sizeof scope, "%.8s/%s/%s/%s", input->date, input->region, input->service, SCOPE_TAIL);
	sha256(digest, request.data, request.length);
	hex_encode(hex, digest, SHA256_BYTES);
	rc = buf_printf(&to_sign, "AWS4-HMAC-SHA256\n%s\n%s\n%s", input->date, scope, hex);
	if (rc == 0)
		rc = signing_key(input, key);
	if (rc < 0)
		goto out;
	hmac_sha256(digest, key, SHA256_BYTES, to_sign.data, to_sign.length);
	explicit_bzero(key, sizeof key);
	hex_encode(hex, digest, SHA256_BYTES);

	rc = buf_printf(authorization, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", input->access_key, scope);
	if (rc == 0)
		rc = append_signed_names(authorization, sorted, input->header_count);
	if (rc == 0)
		rc = buf_printf(authorization, ",Signature=%s", hex);
out:
	buf_free(&request);
	buf_free(&to_sign);
	return rc;
}

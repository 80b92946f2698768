/* store_s3: the store on S3 and what looks like it. Says what to ask for, and what a good answer looks like; the rest is
 * s3_client. An answer that is not clearly the store's own (an HTML page with 200, a listing that contradicts itself) is ERR_RETRY. */
#include "config.h"
#include "io.h"
#include "s3_client.h"
#include "s3_xml.h"
#include "store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX_BYTES (16 << 20)
#define EMPTY_PAGES_MAX 100
#define PREFIX_MAX 400

struct store_s3 {
	struct store store;
	struct s3_client client;
	char *prefix; /* "" or ending in '/' */
	char *storage_class, *server_side_encryption;
};

/* The names of one call, for the wire and for messages. */
struct names {
	char *key;  /* whole key */
	char *what; /* s3://bucket/prefix/key */
};

static int names_make(struct store_s3 *s3, const char *key, struct names *names, struct error *error)
{
	names->key = io_printf("%s%s", s3->prefix, key);
	names->what = io_printf("%s/%s", s3->store.url, key);
	if (names->key && names->what)
		return 0;
	return error_set(error, ERR_NOMEM, ENOMEM, "%s/%s: out of memory", s3->store.url, key);
}

static void names_free(struct names *names)
{
	free(names->key);
	free(names->what);
}

static int not_ours(struct error *error, const char *why)
{
	return error_set(error, ERR_RETRY, 0, "the answer is not the store's: %s", why);
}

/* ---- get */

struct get_check {
	uint64_t offset, length; /* STORE_WHOLE: to the end */
	const struct buf *out;
	size_t before;
};

/* "bytes 0-9/100": is it what was asked for, and did all of it come? */
static int check_range(const struct get_check *get, const struct http_response *response, struct error *error)
{
	uint64_t first, last, total, got = get->out->length - get->before;
	char rest;

	if (sscanf(response->content_range, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%c", &first, &last, &total, &rest) != 3 ||
	    first != get->offset || last < first || last >= total)
		return not_ours(error, "its Content-Range is wrong");
	if (got != last - first + 1)
		return error_set(error, ERR_RETRY, 0, "the transfer was cut short");
	if (get->length == STORE_WHOLE ? last + 1 == total : got == get->length)
		return 0;
	if (last + 1 == total)
		return error_set(error, ERR_CORRUPT, 0, "the object has only %" PRIu64 " bytes", total);
	return not_ours(error, "it is not the range asked for");
}

static int check_get(void *context, const struct http_response *response, struct error *error)
{
	const struct get_check *get = context;
	uint64_t got = get->out->length - get->before;

	if (strncasecmp(response->content_type, "text/html", 9) == 0)
		return not_ours(error, "it is an HTML page");
	if (!response->etag[0])
		return not_ours(error, "it has no ETag");
	if (response->status == 206)
		return check_range(get, response, error);
	if (response->status != 200 || get->offset > 0)
		return error_set(error, ERR_FAILED, 0, "the store ignores Range: it answered %ld; use another store or proxy",
				 response->status);
	if (response->content_length < 0 || (uint64_t)response->content_length != got)
		return error_set(error, ERR_RETRY, 0, "the transfer was cut short");
	if (get->length != STORE_WHOLE && got != get->length)
		return error_set(error, ERR_CORRUPT, 0, "the object has only %" PRIu64 " bytes", got);
	return 0;
}

static int s3_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
		  struct error *error)
{
	struct store_s3 *s3 = (struct store_s3 *)store;
	struct get_check get = { .offset = offset, .length = length, .out = out, .before = out->length };
	struct http_response response = { 0 };
	struct names names = { 0 };
	char range[64];
	const struct s3_pair header = { "range", range };
	struct s3_call call = { .method = "GET", .headers = &header, .out = out, .counter = &store->counts.get,
				.check = check_get, .context = &get };
	int rc = names_make(s3, key, &names, error);

	if (rc < 0)
		goto out;
	call.what = names.what;
	call.key = names.key;
	call.limit = length == STORE_WHOLE ? STORE_GET_MAX : length;
	call.header_count = offset > 0 || length != STORE_WHOLE;
	if (length == STORE_WHOLE)
		snprintf(range, sizeof range, "bytes=%" PRIu64 "-", offset);
	else
		snprintf(range, sizeof range, "bytes=%" PRIu64 "-%" PRIu64, offset, offset + length - 1);
	rc = s3_client_send(&s3->client, &call, &response, error);
	if (rc == ERR_FAILED && response.status == 416)
		rc = error_set(error, ERR_CORRUPT, 0, "%s: the object ends before byte %" PRIu64, names.what, offset);
out:
	http_response_free(&response);
	names_free(&names);
	return rc;
}

/* ---- put */

static int check_put(void *context, const struct http_response *response, struct error *error)
{
	(void)context;
	if (response->other.length)
		return not_ours(error, "it has a body");
	return response->etag[0] ? 0 : not_ours(error, "it has no ETag");
}

/* SHA-256 and MD5 of a body, in one reading. The MD5 guards the way to the disk behind the gateway, which the signature does not. */
static int digest_body(const char *what, const struct store_body *body, uint8_t sum[SHA256_BYTES], uint8_t md5_sum[MD5_BYTES],
		       struct error *error)
{
	const size_t piece = 1 << 20;
	struct digest *digest = digest_new(1);
	uint8_t *scratch = body->data ? NULL : malloc(piece);
	int rc = 0;

	if (body->data)
		digest_update(digest, body->data, body->length);
	else if (!scratch)
		rc = error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", what);
	for (uint64_t done = 0; rc == 0 && !body->data && done < body->length;) {
		size_t want = body->length - done < piece ? (size_t)(body->length - done) : piece;
		ssize_t n = io_pread(body->fd, scratch, want, body->offset + (int64_t)done);

		if (n < 0)
			rc = error_set(error, ERR_FAILED, errno, "%s: cannot read the bytes to store: %s", what, strerror(errno));
		else if ((size_t)n < want)
			rc = error_set(error, ERR_FAILED, 0, "%s: the file to store is shorter than it should be", what);
		else
			digest_update(digest, scratch, want);
		done += want;
	}
	digest_finish(digest, sum, md5_sum);
	free(scratch);
	if (rc == 0 && body->has_sha256 && memcmp(sum, body->sha256, SHA256_BYTES) != 0)
		rc = error_set(error, ERR_CORRUPT, 0, "%s: the bytes to store are not those that were sealed", what);
	return rc;
}

static void base64_md5(char out[25], const uint8_t sum[MD5_BYTES])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t padded[18] = { 0 };

	memcpy(padded, sum, MD5_BYTES);
	for (int i = 0; i < 6; i++) {
		unsigned bits = (unsigned)padded[3 * i] << 16 | (unsigned)padded[3 * i + 1] << 8 | padded[3 * i + 2];

		for (int j = 0; j < 4; j++)
			out[4 * i + j] = digits[bits >> (18 - 6 * j) & 63];
	}
	strcpy(out + 22, "==");
}

static int s3_put(struct store *store, const char *key, const struct store_body *given, bool only_new,
		  int64_t *server_ns, struct error *error)
{
	struct store_s3 *s3 = (struct store_s3 *)store;
	struct store_body body = *given;
	struct http_response response = { 0 };
	struct names names = { 0 };
	struct s3_pair headers[5];
	uint8_t md5_sum[MD5_BYTES];
	char md5_text[25];
	struct s3_call call = { .method = "PUT", .headers = headers, .body = &body, .only_new = only_new,
				.counter = &store->counts.put, .check = check_put };
	int rc = names_make(s3, key, &names, error);

	if (rc == 0)
		rc = digest_body(names.what, given, body.sha256, md5_sum, error);
	if (rc < 0)
		goto out;
	base64_md5(md5_text, md5_sum);
	headers[call.header_count++] = (struct s3_pair){ "content-md5", md5_text };
	headers[call.header_count++] = (struct s3_pair){ "content-type", "application/octet-stream" };
	if (only_new)
		headers[call.header_count++] = (struct s3_pair){ "if-none-match", "*" };
	if (s3->storage_class)
		headers[call.header_count++] = (struct s3_pair){ "x-amz-storage-class", s3->storage_class };
	if (s3->server_side_encryption)
		headers[call.header_count++] = (struct s3_pair){ "x-amz-server-side-encryption", s3->server_side_encryption };
	call.what = names.what;
	call.key = names.key;
	rc = s3_client_send(&s3->client, &call, &response, error);
	if (rc == 0)
		*server_ns = s3_client_time_ns(&s3->client, &response);
out:
	http_response_free(&response);
	names_free(&names);
	return rc;
}

/* ---- list */

struct listing {
	struct store_s3 *s3;
	const char *prefix; /* whole */
	struct buf body;
	struct s3_list page;
	char *last;  /* the last key seen, or where to start after */
	char *token; /* of the page in hand; NULL for the first */
};

/* Each page, and one page after the other, must be in order and below the prefix; else something is missing or repeated. */
static int check_order(const struct listing *listing, struct error *error)
{
	const struct s3_list *page = &listing->page;
	const char *last = listing->last;

	if (page->truncated && listing->token && strcmp(page->token, listing->token) == 0)
		return not_ours(error, "the listing repeats its continuation token");
	for (size_t i = 0; i < page->count; i++) {
		const char *key = page->rows[i].key;

		if (strncmp(key, listing->prefix, strlen(listing->prefix)) != 0)
			return not_ours(error, "the listing has keys that were not asked for");
		if (last && strcmp(key, last) <= 0)
			return not_ours(error, "the listing is not in byte order");
		last = key;
	}
	return 0;
}

static int check_list(void *context, const struct http_response *response, struct error *error)
{
	struct listing *listing = context;
	int rc;

	(void)response;
	s3_list_free(&listing->page);
	rc = s3_xml_list(listing->body.data, listing->body.length, &listing->page);
	if (rc == ERR_CORRUPT)
		return not_ours(error, "it is not a listing");
	return rc < 0 ? error_set(error, rc, 0, "out of memory") : check_order(listing, error);
}

static int fetch_page(struct listing *listing, const char *what, const char *start_after, struct error *error)
{
	struct store_s3 *s3 = listing->s3;
	struct http_response response = { 0 };
	struct s3_pair query[5] = { { "list-type", "2" }, { "encoding-type", "url" }, { "max-keys", "1000" },
				    { "prefix", listing->prefix } };
	struct s3_call call = { .method = "GET", .what = what, .key = "", .query = query, .query_count = 4, .out = &listing->body,
				.limit = PAGE_MAX_BYTES, .counter = &s3->store.counts.list, .check = check_list,
				.context = listing };
	int rc;

	if (listing->token)
		query[call.query_count++] = (struct s3_pair){ "continuation-token", listing->token };
	else if (start_after)
		query[call.query_count++] = (struct s3_pair){ "start-after", start_after };
	buf_clear(&listing->body);
	rc = s3_client_send(&s3->client, &call, &response, error);
	http_response_free(&response);
	return rc;
}

/* Hands the page's rows to fn and remembers where it ended. */
static int report_page(struct listing *listing, store_list_fn *fn, void *context)
{
	size_t own = strlen(listing->s3->prefix);
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < listing->page.count; i++) {
		struct s3_row *row = &listing->page.rows[i];
		struct store_object object = { .key = row->key + own, .size = row->size, .modified_s = row->modified_s };

		/* "prefix/" itself is the mark that consoles make for an empty folder. */
		if (object.key[0])
			rc = fn(context, &object);
	}
	if (rc == 0 && listing->page.count) {
		free(listing->last);
		listing->last = listing->page.rows[listing->page.count - 1].key;
		listing->page.rows[listing->page.count - 1].key = NULL;
	}
	return rc;
}

static int s3_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
		   struct error *error)
{
	struct listing listing = { .s3 = (struct store_s3 *)store };
	struct names names = { 0 };
	int empty = 0, rc = names_make(listing.s3, prefix, &names, error);

	if (rc == 0 && start_after) {
		listing.last = io_printf("%s%s", listing.s3->prefix, start_after);
		if (!listing.last)
			rc = error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", names.what);
	}
	listing.prefix = names.key;
	for (bool more = true; rc == 0 && more;) {
		rc = fetch_page(&listing, names.what, listing.last, error);
		if (rc == 0)
			rc = report_page(&listing, fn, context);
		empty = listing.page.count ? 0 : empty + 1;
		more = listing.page.truncated;
		free(listing.token);
		listing.token = listing.page.token;
		listing.page.token = NULL;
		if (rc == 0 && more && empty > EMPTY_PAGES_MAX)
			rc = error_set(error, ERR_RETRY, 0, "%s: the listing goes on and on with empty pages", names.what);
	}
	s3_list_free(&listing.page);
	buf_free(&listing.body);
	free(listing.last);
	free(listing.token);
	names_free(&names);
	return rc;
}

/* ---- delete */

static int check_delete(void *context, const struct http_response *response, struct error *error)
{
	(void)context;
	return response->other.length ? not_ours(error, "it has a body") : 0;
}

static int s3_delete(struct store *store, const char *key, struct error *error)
{
	struct store_s3 *s3 = (struct store_s3 *)store;
	struct http_response response = { 0 };
	struct names names = { 0 };
	struct s3_call call = { .method = "DELETE", .counter = &store->counts.delete_, .check = check_delete };
	int rc = names_make(s3, key, &names, error);

	if (rc == 0) {
		call.what = names.what;
		call.key = names.key;
		rc = s3_client_send(&s3->client, &call, &response, error);
		if (rc == ERR_ABSENT)
			rc = 0;
	}
	http_response_free(&response);
	names_free(&names);
	return rc;
}

/* ---- open, close */

static void s3_cancel(struct store *store)
{
	s3_client_cancel(&((struct store_s3 *)store)->client);
}

static void s3_close(struct store *store)
{
	struct store_s3 *s3 = (struct store_s3 *)store;

	s3_client_close(&s3->client);
	free(s3->prefix);
	free(s3->storage_class);
	free(s3->server_side_encryption);
	free(s3);
}

static const struct store_ops s3_ops = {
	.get = s3_get,
	.put = s3_put,
	.list = s3_list,
	.delete_ = s3_delete,
	.cancel = s3_cancel,
	.close = s3_close,
};

/* Splits s3://BUCKET[/PREFIX]; *prefix is a fresh string, "" or ending in '/'. */
static int parse_remote(const char *remote, char bucket[S3_BUCKET_BYTES], char **prefix, struct error *error)
{
	const char *from = remote + strlen("s3://"), *end = remote + strlen(remote), *slash = from + strcspn(from, "/");
	size_t length = (size_t)(slash - from);
	char *segments;

	if (length < 3 || length >= S3_BUCKET_BYTES ||
	    strspn(from, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != length || from[0] == '.')
		return error_set(error, ERR_USAGE, 0, "remote %s: the bucket's name is not valid; write s3://BUCKET/PREFIX", remote);
	memcpy(bucket, from, length);
	bucket[length] = '\0';
	while (*slash == '/')
		slash++;
	while (end > slash && end[-1] == '/')
		end--;
	*prefix = io_printf("%.*s%s", (int)(end - slash), slash, end > slash ? "/" : "");
	segments = io_printf("/%.*s/", (int)(end - slash), slash);
	if (!*prefix || !segments) {
		free(segments);
		return error_set(error, ERR_NOMEM, ENOMEM, "remote %s: out of memory", remote);
	}
	/* Such keys mean something else to some servers, proxies and tools. */
	if (end - slash > PREFIX_MAX || strstr(*prefix, "//") || strstr(segments, "/./") || strstr(segments, "/../")) {
		free(segments);
		return error_set(error, ERR_USAGE, 0, "remote %s: the prefix is too long, or has '//', '.' or '..' in it; choose another",
				 remote);
	}
	free(segments);
	return 0;
}

static bool copy_text(char **to, const char *text)
{
	*to = text && *text ? strdup(text) : NULL;
	return *to || !text || !*text;
}

int store_s3_open(const struct volume_config *config, int tries, struct store **out, struct error *error)
{
	struct store_s3 *s3 = calloc(1, sizeof *s3);
	char bucket[S3_BUCKET_BYTES];
	int rc;

	if (!s3)
		return error_set(error, ERR_NOMEM, ENOMEM, "remote %s: out of memory", config->remote);
	s3->store.ops = &s3_ops;
	rc = parse_remote(config->remote, bucket, &s3->prefix, error);
	if (rc == 0 && (!copy_text(&s3->storage_class, config->storage_class) ||
			!copy_text(&s3->server_side_encryption, config->server_side_encryption)))
		rc = error_set(error, ERR_NOMEM, ENOMEM, "remote %s: out of memory", config->remote);
	if (rc == 0) {
		snprintf(s3->store.url, sizeof s3->store.url, "s3://%s%s%.*s", bucket, s3->prefix[0] ? "/" : "",
			 s3->prefix[0] ? (int)strlen(s3->prefix) - 1 : 0, s3->prefix);
		rc = s3_client_open(&s3->client, config, bucket, tries, &s3->store.counts, error);
	}
	if (rc == 0)
		*out = &s3->store;
	else
		s3_close(&s3->store);
	return rc;
}

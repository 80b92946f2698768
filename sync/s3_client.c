#include "s3_client.h"

#include "bytes.h"
#include "clock.h"
#include "config.h"
#include "interrupt.h"
#include "io.h"
#include "log.h"
#include "patience.h"
#include "s3_classify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_FIRST_NS (NS_PER_S / 10)
#define BACKOFF_LAST_NS (20 * NS_PER_S)
#define INTERRUPT_NS (NS_PER_S / 10)
#define EXTRA_HEADERS_MAX 8

/* ---- open, close */

static const char *first_of(const char *a, const char *b, const char *c, const char *d)
{
	return a && *a ? a : b && *b ? b : c && *c ? c : d && *d ? d : NULL;
}

static int open_endpoint(struct s3_client *client, const struct volume_config *config, struct error *error)
{
	char *of_profile = credentials_setting(client->credentials, "endpoint_url");
	const char *url = first_of(config->endpoint, getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"), of_profile);
	int rc = s3_endpoint_parse(url, config->addressing, client->bucket, &client->endpoint, error);

	free(of_profile);
	if (rc == 0 && !client->endpoint.https && !client->endpoint.loopback && !config->allow_http)
		rc = error_set(error, ERR_USAGE, 0,
			       "the S3 endpoint http://%s is not encrypted, so everyone on the way could use its requests; use https, or allow "
			       "it: --allow-http at init and clone, then allow_http = yes in the config",
			       client->endpoint.host);
	return rc;
}

static int open_region(struct s3_client *client, const struct volume_config *config, struct error *error)
{
	char *of_profile = credentials_setting(client->credentials, "region");
	const char *region = first_of(config->region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"), of_profile);
	int rc = 0;

	if (!region)
		region = "us-east-1";
	if (s3_region_is_sane(region))
		strcpy(client->region, region);
	else
		rc = error_set(error, ERR_USAGE, 0, "'%s' is not the name of a region; correct region or AWS_REGION", region);
	free(of_profile);
	return rc;
}

int s3_client_open(struct s3_client *client, const struct volume_config *config, const char *bucket, int tries,
		   struct store_counts *counts, struct error *error)
{
	struct http_options options = { .ca_file = config->ca_file, .proxy = config->proxy };
	int rc;

	*client = (struct s3_client){ .tries = tries > 0 ? tries : 1, .counts = counts };
	pthread_mutex_init(&client->lock, NULL);
	clock_cond_init(&client->woken);
	snprintf(client->bucket, sizeof client->bucket, "%s", bucket);
	client->credentials = credentials_new(config->profile);
	rc = client->credentials ? 0 : error_set(error, ERR_NOMEM, 0, "out of memory");
	if (rc == 0)
		rc = open_endpoint(client, config, error);
	if (rc == 0)
		rc = open_region(client, config, error);
	if (rc == 0) {
		options.no_proxy = client->endpoint.loopback && !config->proxy;
		options.allow_http = !client->endpoint.https;
		client->http = http_new(&options);
		if (!client->http)
			rc = error_set(error, ERR_NOMEM, 0, "out of memory");
	}
	if (rc < 0)
		s3_client_close(client);
	return rc;
}

void s3_client_close(struct s3_client *client)
{
	if (!client->tries)
		return;
	http_free(client->http);
	credentials_free(client->credentials);
	pthread_cond_destroy(&client->woken);
	pthread_mutex_destroy(&client->lock);
	*client = (struct s3_client){ 0 };
}

void s3_client_cancel(struct s3_client *client)
{
	http_cancel(client->http);
	pthread_mutex_lock(&client->lock);
	client->cancelled = true;
	pthread_cond_broadcast(&client->woken);
	pthread_mutex_unlock(&client->lock);
}

int64_t s3_client_time_ns(struct s3_client *client, const struct http_response *response)
{
	if (response->date_s)
		return response->date_s * NS_PER_S;
	return clock_wall_ns() + __atomic_load_n(&client->skew_s, __ATOMIC_RELAXED) * NS_PER_S;
}

/* ---- one attempt */

/* What one attempt was made with, to see afterwards whether the same would be tried again. */
struct attempt {
	char region[S3_REGION_BYTES];
	uint64_t generation; /* of the keys */
	int64_t skew_s;
};

/* A line feed in a header would begin another one. */
static bool has_control(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return true;
	}
	return false;
}

/* Everything that a request consists of, built anew for each attempt. */
struct request {
	struct s3_pair headers[EXTRA_HEADERS_MAX + 5];
	size_t count;
	char host[2 * S3_HOST_BYTES], date[S3_DATE_BYTES], payload[2 * SHA256_BYTES + 1];
	struct buf path, url, authorization;
	char *lines[EXTRA_HEADERS_MAX + 6];
	size_t line_count;
};

static void request_free(struct request *request)
{
	buf_free(&request->path);
	buf_free(&request->url);
	buf_wipe(&request->authorization);
	for (size_t i = 0; i < request->line_count; i++) {
		explicit_bzero(request->lines[i], strlen(request->lines[i])); /* one of them may be the session token */
		free(request->lines[i]);
	}
}

static void add_header(struct request *request, const char *name, const char *value)
{
	request->headers[request->count++] = (struct s3_pair){ name, value };
}

static int build_url(struct s3_client *client, const struct s3_call *call, struct request *request)
{
	int rc = s3_endpoint_path(&client->endpoint, client->bucket, call->key, &request->path);

	if (rc == 0)
		rc = buf_printf(&request->url, "%s://%s", client->endpoint.https ? "https" : "http", request->host);
	if (rc == 0)
		rc = s3_encode(&request->url, (const char *)request->path.data, true);
	if (rc == 0 && call->query_count)
		rc = buf_append(&request->url, "?", 1);
	if (rc == 0)
		rc = s3_sign_query(&request->url, call->query, call->query_count);
	return rc == 0 ? buf_append_u8(&request->url, 0) : rc;
}

static int build_lines(struct request *request)
{
	for (size_t i = 0; i < request->count; i++) {
		char *line = io_printf("%s: %s", request->headers[i].name, request->headers[i].value);

		if (!line)
			return ERR_NOMEM;
		request->lines[request->line_count++] = line;
	}
	return 0;
}

static int build(struct s3_client *client, const struct s3_call *call, const struct credential_keys *keys,
		 const struct attempt *attempt, struct request *request, struct error *error)
{
	struct s3_sign_input input = { .method = call->method, .query = call->query, .query_count = call->query_count,
				       .access_key = keys->access_key, .secret_key = keys->secret_key,
				       .region = attempt->region, .service = "s3", .date = request->date };
	int rc;

	s3_sign_date(request->date, clock_wall_ns() / NS_PER_S + attempt->skew_s);
	if (call->body)
		memcpy(input.payload_sha256, call->body->sha256, SHA256_BYTES);
	else
		sha256(input.payload_sha256, "", 0);
	hex_encode(request->payload, input.payload_sha256, SHA256_BYTES);
	s3_endpoint_host(&client->endpoint, client->bucket, attempt->region, request->host);

	add_header(request, "host", request->host);
	add_header(request, "x-amz-date", request->date);
	add_header(request, "x-amz-content-sha256", request->payload);
	if (keys->session_token)
		add_header(request, "x-amz-security-token", keys->session_token);
	for (size_t i = 0; i < call->header_count; i++)
		add_header(request, call->headers[i].name, call->headers[i].value);
	for (size_t i = 0; i < request->count; i++) {
		if (has_control(request->headers[i].value))
			return error_set(error, ERR_FAILED, 0, "the value for %s has a control character in it; correct it",
					 request->headers[i].name);
	}
	if (has_control(keys->access_key))
		return error_set(error, ERR_DENIED, 0, "the access key has a control character in it; correct it");
	input.headers = request->headers;
	input.header_count = request->count;

	rc = build_url(client, call, request);
	input.path = (const char *)request->path.data;
	if (rc == 0)
		rc = s3_sign(&input, &request->authorization, NULL);
	if (rc == 0)
		rc = buf_append_u8(&request->authorization, 0);
	if (rc == 0) {
		add_header(request, "Authorization", (const char *)request->authorization.data);
		rc = build_lines(request);
	}
	return rc < 0 ? error_set(error, rc, 0, "out of memory") : 0;
}

/* Signs and sends once. 0: there is an answer, whatever it says. */
static int attempt_once(struct s3_client *client, const struct s3_call *call, struct attempt *attempt,
			struct http_response *response, struct error *error)
{
	struct request request = { 0 };
	struct credential_keys keys;
	int rc = credentials_get(client->credentials, &keys, error);

	response->status = 0;
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&client->lock);
	memcpy(attempt->region, client->region, sizeof attempt->region);
	pthread_mutex_unlock(&client->lock);
	attempt->generation = keys.generation;
	attempt->skew_s = __atomic_load_n(&client->skew_s, __ATOMIC_RELAXED);
	rc = build(client, call, &keys, attempt, &request, error);
	if (rc == 0) {
		struct http_request http_request = {
			.method = call->method,
			.url = (const char *)request.url.data,
			.headers = (const char *const *)request.lines,
			.header_count = request.line_count,
			.body = call->body,
			.out = call->out,
			.limit = call->limit,
		};

		rc = http_perform(client->http, &http_request, response, error);
		if (response->sent)
			store_count(call->counter, 1);
		store_count(&client->counts->bytes_up, response->bytes_up);
		store_count(&client->counts->bytes_down, response->bytes_down);
	}
	request_free(&request);
	credential_keys_wipe(&keys);
	return rc;
}

/* ---- what to make of the answer */

/* The server's <Error> document, if there is one. `before`: where this answer begins in call->out. */
static bool error_document(const struct s3_call *call, const struct http_response *response, size_t before,
			   struct s3_error *out)
{
	bool in_out = call->out && response->status >= 200 && response->status < 300;

	if (!in_out)
		return s3_xml_error(response->other.data, response->other.length, out);
	/* What has an ETag is an object, and may contain anything. */
	return !response->etag[0] && call->out->length > before &&
	       s3_xml_error(call->out->data + before, call->out->length - before, out);
}

/* The store complained about the clock that `attempt` was signed by: take its own. False if it was used already. */
static bool correct_skew(struct s3_client *client, const struct attempt *attempt, const struct http_response *response)
{
	int64_t skew_s = response->date_s - clock_wall_ns() / NS_PER_S;
	int64_t before;

	if (!response->date_s || llabs(skew_s - attempt->skew_s) < 60)
		return false;
	before = __atomic_exchange_n(&client->skew_s, skew_s, __ATOMIC_RELAXED);
	if (llabs(skew_s - before) >= 60) /* else another thread was first */
		log_warn("s3://%s: the clock of this machine is %lld s off the store's: using the store's; set the clock",
			 client->bucket, (long long)-skew_s);
	return true;
}

/* The bucket is in another region than `attempt` was signed for: use that. False if it isn't known, or was used already. */
static bool correct_region(struct s3_client *client, const struct attempt *attempt, const struct http_response *response,
			   const struct s3_error *error)
{
	const char *region = response->bucket_region[0] ? response->bucket_region : error->region;
	bool changed = false, other;

	pthread_mutex_lock(&client->lock);
	if (s3_region_is_sane(region) && strcmp(region, client->region) != 0) {
		strcpy(client->region, region);
		changed = true;
	}
	other = strcmp(client->region, attempt->region) != 0; /* or another thread was first */
	pthread_mutex_unlock(&client->lock);
	if (changed)
		log_warn("s3://%s: the bucket is in region %s, not %s: using that; set region = %s", client->bucket, region,
			 attempt->region, region);
	return other;
}

static const char *credentials_advice(const char *code)
{
	if (strcmp(code, "SignatureDoesNotMatch") == 0)
		return "the secret key is not that of the access key; correct AWS_SECRET_ACCESS_KEY or the credentials file";
	if (strcmp(code, "InvalidAccessKeyId") == 0)
		return "the store does not know the access key; correct AWS_ACCESS_KEY_ID or the credentials file";
	return "the session has expired; get new credentials (they are read again by themselves)";
}

/* The error of an answer that is final, or would be after the last try. */
static int explain(struct s3_client *client, const struct s3_call *call, enum s3_verdict verdict, long status,
		   const struct s3_error *s3_error, struct error *error)
{
	char answer[512];

	snprintf(answer, sizeof answer, "%ld%s%s%s%s%s", status, s3_error->code[0] ? " " : "", s3_error->code,
		 s3_error->message[0] ? " (" : "", s3_error->message, s3_error->message[0] ? ")" : "");
	switch (verdict) {
	case S3_ABSENT:
		if (!call->body && call->key[0])
			return error_set(error, ERR_ABSENT, 0, "no such object");
		return error_set(error, ERR_RETRY, 0, "the store answered %s, which makes no sense", answer);
	case S3_EXISTS:
		if (call->only_new)
			return error_set(error, ERR_EXISTS, 0, "the object exists already");
		break;
	case S3_RETRY:
		return error_set(error, ERR_RETRY, 0, "the store answered %s", answer);
	case S3_SKEWED:
		return error_set(error, ERR_DENIED, 0, "the store answered %s; set the clock of this machine", answer);
	case S3_REGION:
		return error_set(error, ERR_FAILED, 0, "the bucket is in another region: the store answered %s; set region (and "
						       "endpoint)", answer);
	case S3_CREDENTIALS:
		return error_set(error, ERR_DENIED, 0, "the store answered %s: %s", answer, credentials_advice(s3_error->code));
	case S3_DENIED:
		return error_set(error, ERR_DENIED, 0, "the store answered %s%s", answer,
				 !s3_error->code[0] || strcmp(s3_error->code, "AccessDenied") == 0
					 ? "; grant these credentials s3:ListBucket, s3:GetObject and s3:PutObject there" : "");
	case S3_NO_BUCKET:
		return error_set(error, ERR_FAILED, 0,
				 "bucket %s does not exist: the store answered %s; create it, or correct the remote or endpoint",
				 client->bucket, answer);
	case S3_UNSUPPORTED:
		if (call->only_new)
			return error_set(error, ERR_UNSUPPORTED, 0, "the store does not do conditional PUT: it answered %s", answer);
		break;
	default:
		break;
	}
	return error_set(error, ERR_FAILED, 0, "the store answered %s", answer);
}

enum next { NEXT_END, NEXT_AFTER_PAUSE, NEXT_AT_ONCE };

/* Each correction is made once a call, so that a store that complains for ever can't keep us for ever. */
struct corrections {
	bool skew, region, credentials;
};

/* Decides about one attempt: its code, and whether there is to be another. */
static int judge(struct s3_client *client, const struct s3_call *call, const struct attempt *attempt,
		 struct corrections *done, size_t before, const struct http_response *response, enum next *next,
		 struct error *error)
{
	struct s3_error s3_error;
	bool document = error_document(call, response, before, &s3_error);
	enum s3_verdict verdict = s3_classify(response->status, document ? &s3_error : NULL);
	int rc;

	if (verdict == S3_DONE) {
		rc = call->check(call->context, response, error);
		*next = rc == ERR_RETRY ? NEXT_AFTER_PAUSE : NEXT_END;
		return rc;
	}
	rc = explain(client, call, verdict, response->status, &s3_error, error);
	*next = verdict == S3_RETRY ? NEXT_AFTER_PAUSE : NEXT_END;
	if (verdict == S3_SKEWED && !done->skew) {
		done->skew = true;
		*next = correct_skew(client, attempt, response) ? NEXT_AT_ONCE : NEXT_END;
	} else if (verdict == S3_REGION && !done->region) {
		done->region = true;
		*next = correct_region(client, attempt, response, &s3_error) ? NEXT_AT_ONCE : NEXT_END;
	} else if (verdict == S3_CREDENTIALS && !done->credentials) {
		done->credentials = true;
		*next = credentials_renew(client->credentials, attempt->generation) == 0 ? NEXT_AT_ONCE : NEXT_END;
	}
	return rc;
}

/* ---- the loop */

/* Waits rand(0, min(20 s, 0.1 s * 2^n)): full jitter. ERR_ABANDONED when cancelled. */
static int pause_before(struct s3_client *client, int n, struct error *error)
{
	int64_t longest = n < 8 ? BACKOFF_FIRST_NS << n : BACKOFF_LAST_NS;
	int64_t end, now;
	uint64_t random;
	bool cancelled;

	if (longest > BACKOFF_LAST_NS)
		longest = BACKOFF_LAST_NS;
	io_random(&random, sizeof random);
	end = clock_mono_ns() + (int64_t)(random % (uint64_t)longest);
	pthread_mutex_lock(&client->lock);
	/* In slices: a signal wakes nobody who waits for a condition. */
	while (!client->cancelled && !interrupt_asked() && (now = clock_mono_ns()) < end) {
		struct timespec slice = clock_deadline(end - now < INTERRUPT_NS ? end - now : INTERRUPT_NS);
		pthread_cond_timedwait(&client->woken, &client->lock, &slice);
	}
	cancelled = client->cancelled || interrupt_asked();
	pthread_mutex_unlock(&client->lock);
	return cancelled ? error_set(error, ERR_ABANDONED, 0, "cancelled") : 0;
}

int s3_client_send(struct s3_client *client, const struct s3_call *call, struct http_response *response,
		   struct error *error)
{
	size_t before = call->out ? call->out->length : 0;
	struct corrections done = { 0 };
	struct attempt attempt;
	struct error why;
	int rc;

	for (int tried = 0;;) {
		enum next next;

		rc = attempt_once(client, call, &attempt, response, &why);
		next = rc == ERR_RETRY ? NEXT_AFTER_PAUSE : NEXT_END;
		if (rc == 0)
			rc = judge(client, call, &attempt, &done, before, response, &next, &why);
		if (rc < 0 && call->out)
			call->out->length = before;
		if (rc == 0 || next == NEXT_END)
			break;
		if (next == NEXT_AT_ONCE)
			continue;
		if (++tried >= client->tries)
			break;
		patience_failed(why.message);
		log_debug("%s %s: %s; try %d of %d", call->method, call->what, why.message, tried + 1, client->tries);
		rc = pause_before(client, tried - 1, &why);
		if (rc < 0)
			break;
	}
	return rc < 0 ? error_set(error, rc, why.sys_errno, "%s: %s", call->what, why.message) : 0;
}

#include "http.h"

#include "interrupt.h"
#include "io.h"
#include "patience.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_HANDLES_MAX 64
#define EXPECT_ABOVE_BYTES (2 << 20) /* below it, waiting for 100-continue costs more than a body sent in vain */
#define CONNECT_TIMEOUT_S 10L
#define LOW_SPEED_BYTES 1024L
#define LOW_SPEED_S 15L
#define IDLE_CONNECTION_S 30L

struct handle {
	CURL *curl;
	struct handle *next;
};

struct http {
	char *ca_file, *proxy;
	bool no_proxy, allow_http;
	bool cancelled; /* atomic */
	pthread_mutex_t lock;
	struct handle *idle; /* under lock: last used first, so that surplus connections age */
	int idle_count;      /* under lock */
};

/* One request in progress; everything that a curl callback sees. */
struct exchange {
	struct http *http;
	const struct http_request *request;
	struct http_response *response;
	uint64_t sent, received; /* of the bodies */
	curl_off_t moved;        /* bytes, when on_progress looked last */
	int body_errno;          /* reading the request's body failed; -1: the file is too short */
	bool too_long, no_memory;
	char message[CURL_ERROR_SIZE];
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_result;

static void global_init(void)
{
	global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void handle_free(struct handle *handle)
{
	curl_easy_cleanup(handle->curl);
	free(handle);
}

struct http *http_new(const struct http_options *options)
{
	struct http *http;

	pthread_once(&global_once, global_init);
	if (global_result != CURLE_OK)
		return NULL;
	http = calloc(1, sizeof *http);
	if (!http)
		return NULL;
	pthread_mutex_init(&http->lock, NULL);
	http->no_proxy = options->no_proxy;
	http->allow_http = options->allow_http;
	http->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	http->proxy = options->proxy ? strdup(options->proxy) : NULL;
	if ((options->ca_file && !http->ca_file) || (options->proxy && !http->proxy)) {
		http_free(http);
		return NULL;
	}
	return http;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	while (http->idle) {
		struct handle *next = http->idle->next;

		handle_free(http->idle);
		http->idle = next;
	}
	pthread_mutex_destroy(&http->lock);
	free(http->ca_file);
	free(http->proxy);
	free(http);
}

void http_cancel(struct http *http)
{
	__atomic_store_n(&http->cancelled, true, __ATOMIC_RELAXED);
}

void http_response_free(struct http_response *response)
{
	buf_free(&response->other);
}

static struct handle *take_handle(struct http *http)
{
	struct handle *handle;

	pthread_mutex_lock(&http->lock);
	handle = http->idle;
	if (handle) {
		http->idle = handle->next;
		http->idle_count--;
	}
	pthread_mutex_unlock(&http->lock);
	if (handle) {
		curl_easy_reset(handle->curl); /* keeps connections, sessions and names */
		return handle;
	}
	handle = calloc(1, sizeof *handle);
	if (handle && !(handle->curl = curl_easy_init())) {
		free(handle);
		handle = NULL;
	}
	return handle;
}

static void give_handle(struct http *http, struct handle *handle)
{
	pthread_mutex_lock(&http->lock);
	if (http->idle_count < IDLE_HANDLES_MAX) {
		handle->next = http->idle;
		http->idle = handle;
		http->idle_count++;
		handle = NULL;
	}
	pthread_mutex_unlock(&http->lock);
	if (handle)
		handle_free(handle);
}

/* ---- callbacks */

static size_t on_read(char *to, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	const struct store_body *body = exchange->request->body;
	size_t room = size * count;
	uint64_t left = body->length - exchange->sent;
	ssize_t n;

	if (room > left)
		room = (size_t)left;
	if (body->data) {
		memcpy(to, (const uint8_t *)body->data + exchange->sent, room);
	} else {
		n = io_pread(body->fd, to, room, body->offset + (int64_t)exchange->sent);
		if (n != (ssize_t)room) {
			exchange->body_errno = n < 0 ? errno : -1;
			return CURL_READFUNC_ABORT;
		}
	}
	exchange->sent += room;
	return room;
}

/* curl rewinds when a kept connection turns out to be dead and it sends again on a new one. */
static int on_seek(void *context, curl_off_t offset, int origin)
{
	struct exchange *exchange = context;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > exchange->request->body->length)
		return CURL_SEEKFUNC_FAIL;
	exchange->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	struct http_response *response = exchange->response;
	struct buf *out = exchange->request->out;
	size_t length = size * count, take = length;
	int rc;

	exchange->received += length;
	if (out && response->status >= 200 && response->status < 300) {
		if (exchange->received > exchange->request->limit) {
			exchange->too_long = true;
			return CURL_WRITEFUNC_ERROR;
		}
		/* All at once, when its length is said and allowed: no growing by copies. */
		if (exchange->received == length && response->content_length > 0 &&
		    (uint64_t)response->content_length <= exchange->request->limit &&
		    buf_reserve(out, (size_t)response->content_length) < 0) {
			exchange->no_memory = true;
			return CURL_WRITEFUNC_ERROR;
		}
		rc = buf_append(out, data, length);
	} else {
		if (take > HTTP_OTHER_MAX - response->other.length)
			take = HTTP_OTHER_MAX - response->other.length;
		rc = buf_append(&response->other, data, take);
		exchange->too_long = exchange->received > 16 * HTTP_OTHER_MAX;
	}
	if (rc < 0)
		exchange->no_memory = true;
	return rc < 0 || exchange->too_long ? CURL_WRITEFUNC_ERROR : length;
}

/* Stores the value of header `name` if this line is it. */
static bool header_value(const char *line, size_t length, const char *name, char *out, size_t room)
{
	size_t name_length = strlen(name);

	if (length <= name_length || strncasecmp(line, name, name_length) != 0 || line[name_length] != ':')
		return false;
	line += name_length + 1;
	length -= name_length + 1;
	while (length > 0 && (*line == ' ' || *line == '\t'))
		line++, length--;
	while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == '\n' || line[length - 1] == ' '))
		length--;
	if (length >= room || memchr(line, '\0', length))
		length = 0;
	memcpy(out, line, length);
	out[length] = '\0';
	return true;
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
	struct http_response *response = ((struct exchange *)context)->response;
	size_t length = size * count;
	char text[64];

	if (length > 9 && strncmp(line, "HTTP/", 5) == 0) { /* another answer begins: what came before was a 1xx */
		const char *blank = memchr(line, ' ', length);

		response->status = blank ? strtol(blank, NULL, 10) : 0;
		response->date_s = 0;
		response->content_length = -1;
		response->etag[0] = response->bucket_region[0] = response->content_range[0] = response->content_type[0] = '\0';
	} else if (header_value(line, length, "Date", text, sizeof text)) {
		time_t date = curl_getdate(text, NULL);

		response->date_s = date > 0 ? date : 0;
	} else if (header_value(line, length, "Content-Length", text, sizeof text)) {
		response->content_length = text[0] >= '0' && text[0] <= '9' ? strtoll(text, NULL, 10) : -1;
	} else if (!header_value(line, length, "ETag", response->etag, sizeof response->etag) &&
		   !header_value(line, length, "Content-Range", response->content_range, sizeof response->content_range) &&
		   !header_value(line, length, "Content-Type", response->content_type, sizeof response->content_type)) {
		header_value(line, length, "x-amz-bucket-region", response->bucket_region, sizeof response->bucket_region);
	}
	return length;
}

static bool is_cancelled(const struct http *http)
{
	return __atomic_load_n(&http->cancelled, __ATOMIC_RELAXED) || interrupt_asked();
}

/* curl_easy(3) calls it about once a second also while nothing moves. */
static int on_progress(void *context, curl_off_t to_get, curl_off_t got, curl_off_t to_send, curl_off_t sent)
{
	struct exchange *exchange = context;

	(void)to_get;
	(void)to_send;
	if (got + sent != exchange->moved)
		patience_heard();
	exchange->moved = got + sent;
	return is_cancelled(exchange->http);
}

/* ---- one request */

static struct curl_slist *make_headers(const struct http_request *request)
{
	bool expect = request->body && request->body->length > EXPECT_ABOVE_BYTES;
	struct curl_slist *list = curl_slist_append(NULL, expect ? "Expect: 100-continue" : "Expect:");

	for (size_t i = 0; list && i < request->header_count; i++) {
		struct curl_slist *longer = curl_slist_append(list, request->headers[i]);

		if (!longer)
			curl_slist_free_all(list);
		list = longer;
	}
	return list;
}

/* Sets an option, remembering the first failure. */
#define SET(option, value)                                              \
	do {                                                            \
		if (rc == CURLE_OK)                                     \
			rc = curl_easy_setopt(curl, option, value);     \
	} while (0)

static CURLcode set_connection(struct http *http, CURL *curl)
{
	CURLcode rc = CURLE_OK;

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROTOCOLS_STR, http->allow_http ? "https,http" : "https");
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_BYTES);
	SET(CURLOPT_LOW_SPEED_TIME, LOW_SPEED_S);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_S);
	SET(CURLOPT_BUFFERSIZE, 256L << 10);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* a proxy's answer to CONNECT is not the store's */
	SET(CURLOPT_USERAGENT, "yester");
	if (http->ca_file)
		SET(CURLOPT_CAINFO, http->ca_file);
	if (http->no_proxy)
		SET(CURLOPT_NOPROXY, "*");
	else if (http->proxy)
		SET(CURLOPT_PROXY, http->proxy);
	return rc;
}

static CURLcode set_request(struct exchange *exchange, CURL *curl, struct curl_slist *headers)
{
	const struct http_request *request = exchange->request;
	CURLcode rc = CURLE_OK;

	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_ERRORBUFFER, exchange->message);
	SET(CURLOPT_WRITEFUNCTION, on_write);
	SET(CURLOPT_WRITEDATA, exchange);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, exchange);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, exchange);
	SET(CURLOPT_NOPROGRESS, 0L);
	if (request->body) {
		SET(CURLOPT_UPLOAD, 1L);
		SET(CURLOPT_READFUNCTION, on_read);
		SET(CURLOPT_READDATA, exchange);
		SET(CURLOPT_SEEKFUNCTION, on_seek);
		SET(CURLOPT_SEEKDATA, exchange);
		SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body->length);
	}
	SET(CURLOPT_CUSTOMREQUEST, request->method);
	return rc;
}

/* What curl's result means. Which of them a later try may mend is decided here and nowhere else. */
static int classify(const struct exchange *exchange, CURLcode result, struct error *error)
{
	const char *why = exchange->message[0] ? exchange->message : curl_easy_strerror(result);

	if (exchange->body_errno > 0)
		return error_set(error, ERR_FAILED, exchange->body_errno, "cannot read the bytes to send: %s",
				 strerror(exchange->body_errno));
	if (exchange->body_errno < 0)
		return error_set(error, ERR_FAILED, 0, "the file to send is shorter than it should be");
	if (exchange->no_memory || result == CURLE_OUT_OF_MEMORY)
		return error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
	switch (result) {
	case CURLE_OK:
		return 0;
	case CURLE_ABORTED_BY_CALLBACK:
		return error_set(error, ERR_ABANDONED, 0, "cancelled");
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return error_set(error, ERR_DENIED, 0, "the server's certificate is not trusted (%s); if it is your own "
				 "server's, name its CA with ca_file in the config (--ca-file at init and clone)", why);
	case CURLE_SSL_CACERT_BADFILE:
		return error_set(error, ERR_DENIED, 0, "the CA file can't be used (%s); correct ca_file (--ca-file)", why);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_NOT_BUILT_IN:
	case CURLE_BAD_FUNCTION_ARGUMENT:
	case CURLE_UNKNOWN_OPTION:
		return error_set(error, ERR_FAILED, 0, "%s", why);
	case CURLE_OPERATION_TIMEDOUT:
		return error_set(error, ERR_RETRY, ETIMEDOUT, "%s", why);
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_WRITE_ERROR:
	case CURLE_PARTIAL_FILE:
		/* The server said no and hung up before it had read everything, or went on and on about it: still an answer. */
		if (exchange->response->status >= 400)
			return 0;
		if (exchange->too_long)
			return error_set(error, ERR_RETRY, 0, "the answer is longer than what was asked for");
		return error_set(error, ERR_RETRY, 0, "%s", why);
	default:
		return error_set(error, ERR_RETRY, 0, "%s", why);
	}
}

int http_perform(struct http *http, const struct http_request *request, struct http_response *response,
		 struct error *error)
{
	struct exchange exchange = { .http = http, .request = request, .response = response };
	CURLcode result = CURLE_OUT_OF_MEMORY;
	struct curl_slist *headers;
	struct handle *handle;
	long request_bytes = 0;
	int rc;

	response->status = 0;
	response->sent = false;
	response->content_length = -1;
	response->date_s = 0;
	response->etag[0] = response->bucket_region[0] = response->content_range[0] = response->content_type[0] = '\0';
	response->bytes_up = response->bytes_down = 0;
	buf_clear(&response->other);
	if (is_cancelled(http))
		return error_set(error, ERR_ABANDONED, 0, "cancelled");
	handle = take_handle(http);
	headers = make_headers(request);
	if (handle && headers) {
		result = set_connection(http, handle->curl);
		if (result == CURLE_OK)
			result = set_request(&exchange, handle->curl, headers);
		if (result == CURLE_OK)
			result = curl_easy_perform(handle->curl);
		if (curl_easy_getinfo(handle->curl, CURLINFO_REQUEST_SIZE, &request_bytes) == CURLE_OK)
			response->sent = request_bytes > 0;
	}
	response->bytes_up = exchange.sent;
	response->bytes_down = exchange.received;
	if (result == CURLE_OK)
		patience_heard();
	rc = classify(&exchange, result, error);
	curl_slist_free_all(headers);
	if (handle)
		give_handle(http, handle);
	return rc;
}

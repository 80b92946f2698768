#include "s3_xml.h"

#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATH_BYTES 160
#define DEPTH_MAX 8
#define NAME_MAX_BYTES 64
#define ROWS_MAX 100000 /* servers send 1,000 a page; more than this is nonsense */

/* Called at the end of each element. `path` is "Root/Child/Leaf"; `text` is the decoded text directly in it (of an element that
 * has children: whatever blanks stood there), NUL-terminated. Non-zero stops. */
typedef int on_end(void *context, const char *path, const char *text, size_t length);

struct scan {
	const char *at, *end;
	char path[PATH_BYTES];
	on_end *fn;
	void *context;
};

static bool starts(const struct scan *scan, const char *text)
{
	size_t length = strlen(text);

	return (size_t)(scan->end - scan->at) >= length && memcmp(scan->at, text, length) == 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_blanks(struct scan *scan)
{
	while (scan->at < scan->end && is_blank(*scan->at))
		scan->at++;
}

/* Moves behind the next `text`; false if there is none. */
static bool skip_past(struct scan *scan, const char *text)
{
	const char *found = memmem(scan->at, (size_t)(scan->end - scan->at), text, strlen(text));

	if (!found)
		return false;
	scan->at = found + strlen(text);
	return true;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

static bool read_name(struct scan *scan, char name[NAME_MAX_BYTES])
{
	size_t length = 0;

	while (scan->at < scan->end && is_name_char(*scan->at)) {
		if (length == NAME_MAX_BYTES - 1)
			return false;
		name[length++] = *scan->at++;
	}
	name[length] = '\0';
	return length > 0;
}

/* After the name of an opening tag: its attributes and '>'. *empty: it ended in "/>". */
static bool skip_attributes(struct scan *scan, bool *empty)
{
	while (scan->at < scan->end) {
		char quote = *scan->at++;

		if (quote == '>') {
			*empty = scan->at[-2] == '/';
			return true;
		}
		if (quote == '<')
			return false;
		if (quote != '"' && quote != '\'')
			continue;
		scan->at = memchr(scan->at, quote, (size_t)(scan->end - scan->at));
		if (!scan->at) {
			scan->at = scan->end;
			return false;
		}
		scan->at++;
	}
	return false;
}

static int append_utf8(struct buf *text, unsigned long c)
{
	char bytes[4];
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

	if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return ERR_CORRUPT;
	for (size_t i = n; i-- > 1; c >>= 6)
		bytes[i] = (char)(0x80 | (c & 0x3f));
	bytes[0] = (char)(lead[n] | c);
	return buf_append(text, bytes, n);
}

/* At '&'. */
static int read_entity(struct scan *scan, struct buf *text)
{
	static const struct { const char *name; char c; } known[] = {
		{ "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' },
	};
	char digits[12];
	size_t length = 0, base = 10;
	char *end;
	unsigned long c;

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (starts(scan, known[i].name)) {
			scan->at += strlen(known[i].name);
			return buf_append(text, &known[i].c, 1);
		}
	}
	if (!starts(scan, "&#"))
		return ERR_CORRUPT;
	scan->at += 2;
	if (scan->at < scan->end && *scan->at == 'x') {
		base = 16;
		scan->at++;
	}
	while (scan->at < scan->end && length < sizeof digits - 1 && is_name_char(*scan->at))
		digits[length++] = *scan->at++;
	digits[length] = '\0';
	if (length == 0 || digits[0] == '-' || scan->at == scan->end || *scan->at++ != ';')
		return ERR_CORRUPT;
	c = strtoul(digits, &end, (int)base);
	return *end ? ERR_CORRUPT : append_utf8(text, c);
}

/* Text up to the next '<'. */
static int read_text(struct scan *scan, struct buf *text)
{
	int rc = 0;

	while (rc == 0 && scan->at < scan->end && *scan->at != '<') {
		if (*scan->at == '&') {
			rc = read_entity(scan, text);
		} else {
			rc = *scan->at ? buf_append(text, scan->at, 1) : ERR_CORRUPT;
			scan->at++;
		}
	}
	return rc;
}

/* At '<' of an opening tag; ends behind its closing one. The depth is bounded by `depth`. */
static int read_element(struct scan *scan, int depth)
{
	size_t path_length = strlen(scan->path);
	char name[NAME_MAX_BYTES], closing[NAME_MAX_BYTES];
	struct buf text = { 0 };
	bool empty;
	int rc = ERR_CORRUPT;

	scan->at++;
	if (depth == 0 || !read_name(scan, name) || !skip_attributes(scan, &empty) ||
	    path_length + strlen(name) + 2 > sizeof scan->path)
		return ERR_CORRUPT;
	snprintf(scan->path + path_length, sizeof scan->path - path_length, "%s%s", path_length ? "/" : "", name);
	while (!empty) {
		rc = read_text(scan, &text);
		if (rc < 0)
			goto out;
		rc = ERR_CORRUPT;
		if (scan->at == scan->end)
			goto out;
		if (starts(scan, "<!--")) {
			if (!skip_past(scan, "-->"))
				goto out;
		} else if (starts(scan, "</")) {
			scan->at += 2;
			if (!read_name(scan, closing) || strcmp(name, closing) != 0)
				goto out;
			skip_blanks(scan);
			if (scan->at == scan->end || *scan->at++ != '>')
				goto out;
			break;
		} else {
			rc = read_element(scan, depth - 1);
			if (rc != 0)
				goto out;
		}
	}
	rc = buf_append_u8(&text, 0);
	if (rc == 0)
		rc = scan->fn(scan->context, scan->path, (const char *)text.data, text.length - 1);
	scan->path[path_length] = '\0';
out:
	buf_free(&text);
	return rc;
}

static int scan_document(const void *data, size_t length, on_end *fn, void *context)
{
	struct scan scan = { .at = data, .fn = fn, .context = context };
	int rc;

	if (!data || length == 0)
		return ERR_CORRUPT;
	scan.end = scan.at + length;
	if (starts(&scan, "\xef\xbb\xbf"))
		scan.at += 3;
	skip_blanks(&scan);
	if (starts(&scan, "<?xml") && !skip_past(&scan, "?>"))
		return ERR_CORRUPT;
	skip_blanks(&scan);
	if (scan.at == scan.end || *scan.at != '<')
		return ERR_CORRUPT;
	rc = read_element(&scan, DEPTH_MAX);
	skip_blanks(&scan);
	return rc == 0 && scan.at != scan.end ? ERR_CORRUPT : rc;
}

/* ---- errors */

static int error_element(void *context, const char *path, const char *text, size_t length)
{
	struct s3_error *error = context;

	(void)length;
	if (strcmp(path, "Error/Code") == 0)
		snprintf(error->code, sizeof error->code, "%s", text);
	else if (strcmp(path, "Error/Message") == 0)
		snprintf(error->message, sizeof error->message, "%s", text);
	else if (strcmp(path, "Error/Region") == 0)
		snprintf(error->region, sizeof error->region, "%s", text);
	return 0;
}

bool s3_xml_error(const void *data, size_t length, struct s3_error *out)
{
	*out = (struct s3_error){ 0 };
	(void)scan_document(data, length, error_element, out);
	return out->code[0] != '\0';
}

/* ---- listings */

struct page {
	struct s3_list *list;
	struct s3_row row; /* the one being read */
	bool have_size, have_time, have_truncated, url, done;
	uint64_t key_count;
	bool have_count;
};

/* %XX and '+' as encoding-type=url has them. In place. */
static bool url_decode(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '%') {
			char digits[3] = { text[1], text[1] ? text[2] : '\0', '\0' }, *end;
			unsigned long c = strtoul(digits, &end, 16);

			if (end != digits + 2 || digits[0] == '+' || digits[0] == '-' || is_blank(digits[0]) || c == 0)
				return false;
			*to++ = (char)c;
			text += 2;
		} else {
			*to++ = *text == '+' ? ' ' : *text;
		}
	}
	*to = '\0';
	return true;
}

static bool read_number(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9' || strlen(text) > 18)
		return false;
	*value = strtoull(text, &end, 10);
	return *end == '\0';
}

static bool read_bool(const char *text, bool *value)
{
	*value = strcmp(text, "true") == 0;
	return *value || strcmp(text, "false") == 0;
}

/* 2026-11-20T08:14:07.000Z, the fraction being optional */
static bool read_time(const char *text, int64_t *seconds)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!rest)
		return false;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (strcmp(rest, "Z") != 0)
		return false;
	*seconds = timegm(&tm);
	return true;
}

static int end_row(struct page *page)
{
	struct s3_list *list = page->list;

	if (!page->row.key || !page->have_size || !page->have_time || list->count == ROWS_MAX)
		return ERR_CORRUPT;
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 64;
		struct s3_row *grown = realloc(list->rows, capacity * sizeof *grown);

		if (!grown)
			return ERR_NOMEM;
		list->rows = grown;
		list->capacity = capacity;
	}
	list->rows[list->count++] = page->row;
	page->row = (struct s3_row){ 0 };
	page->have_size = page->have_time = false;
	return 0;
}

static int set_text(char **to, const char *text)
{
	if (*to)
		return ERR_CORRUPT; /* twice */
	*to = strdup(text);
	return *to ? 0 : ERR_NOMEM;
}

static int list_element(void *context, const char *path, const char *text, size_t length)
{
	struct page *page = context;
	bool good = true;

	(void)length;
	if (strcmp(path, "ListBucketResult/Contents") == 0)
		return end_row(page);
	if (strcmp(path, "ListBucketResult/Contents/Key") == 0)
		return set_text(&page->row.key, text);
	if (strcmp(path, "ListBucketResult/NextContinuationToken") == 0)
		return set_text(&page->list->token, text);
	if (strcmp(path, "ListBucketResult/Contents/Size") == 0)
		good = page->have_size = read_number(text, &page->row.size);
	else if (strcmp(path, "ListBucketResult/Contents/LastModified") == 0)
		good = page->have_time = read_time(text, &page->row.modified_s);
	else if (strcmp(path, "ListBucketResult/IsTruncated") == 0)
		good = page->have_truncated = read_bool(text, &page->list->truncated);
	else if (strcmp(path, "ListBucketResult/KeyCount") == 0)
		good = page->have_count = read_number(text, &page->key_count);
	else if (strcmp(path, "ListBucketResult/EncodingType") == 0)
		page->url = strcmp(text, "url") == 0;
	else if (strcmp(path, "ListBucketResult") == 0)
		page->done = true;
	return good ? 0 : ERR_CORRUPT;
}

/* What the page says about itself must hold (I22). */
static bool consistent(const struct page *page)
{
	const struct s3_list *list = page->list;

	if (!page->done || !page->have_truncated || (page->have_count && page->key_count != list->count))
		return false;
	return !list->truncated || (list->token && list->token[0]);
}

int s3_xml_list(const void *data, size_t length, struct s3_list *out)
{
	struct page page = { .list = out };
	int rc;

	*out = (struct s3_list){ 0 };
	rc = scan_document(data, length, list_element, &page);
	free(page.row.key);
	if (rc == 0 && !consistent(&page))
		rc = ERR_CORRUPT;
	for (size_t i = 0; rc == 0 && page.url && i < out->count; i++) {
		if (!url_decode(out->rows[i].key))
			rc = ERR_CORRUPT;
	}
	if (rc < 0)
		s3_list_free(out);
	return rc;
}

void s3_list_free(struct s3_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->rows[i].key);
	free(list->rows);
	free(list->token);
	*list = (struct s3_list){ 0 };
}

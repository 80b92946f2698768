#include "s3_endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool ends_with(const char *text, const char *tail)
{
	size_t length = strlen(text), tail_length = strlen(tail);

	return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static bool is_loopback(const char *host)
{
	unsigned a, b, c, d;
	char rest;

	if (strcmp(host, "localhost") == 0 || ends_with(host, ".localhost") || strcmp(host, "[::1]") == 0)
		return true;
	return sscanf(host, "%u.%u.%u.%u%c", &a, &b, &c, &d, &rest) == 4 && a == 127 && b < 256 && c < 256 && d < 256;
}

/* Splits "host[:port]" into endpoint->host, lower case, without a port that is the scheme's own. */
static bool parse_authority(const char *text, size_t length, struct s3_endpoint *out)
{
	char host[S3_HOST_BYTES / 2], *colon, *end;
	long port = 0;

	if (length == 0 || length >= sizeof host)
		return false;
	for (size_t i = 0; i < length; i++)
		host[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 'a' - 'A' : text[i]);
	host[length] = '\0';
	colon = strrchr(host, ':');
	if (colon && strchr(colon, ']'))
		colon = NULL; /* inside [::1] */
	if (colon) {
		port = colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : 0;
		if (port < 1 || port > 65535 || *end)
			return false;
		*colon = '\0';
	}
	if (host[0] == '[' ? host[strspn(host, "[0123456789abcdef:.]")] || !ends_with(host, "]")
			   : !host[0] || host[strspn(host, ALNUM ".-_")])
		return false;
	out->loopback = is_loopback(host);
	if (port == 0 || port == (out->https ? 443 : 80))
		snprintf(out->host, sizeof out->host, "%s", host);
	else
		snprintf(out->host, sizeof out->host, "%s:%ld", host, port);
	return true;
}

static bool is_aws(const char *host)
{
	return ends_with(host, ".amazonaws.com") || ends_with(host, ".amazonaws.com.cn");
}

/* A wildcard certificate covers one label, and a host's name has no capitals: such buckets need path style. */
static bool fits_host(const char *bucket)
{
	return bucket[strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

static int parse_url(const char *url, struct s3_endpoint *out, struct error *error)
{
	const char *at, *slash;
	size_t length;

	out->https = strncasecmp(url, "https://", 8) == 0;
	if (!out->https && strncasecmp(url, "http://", 7) != 0)
		goto bad;
	at = url + (out->https ? 8 : 7);
	slash = at + strcspn(at, "/");
	if (!parse_authority(at, (size_t)(slash - at), out))
		goto bad;
	length = strlen(slash);
	while (length > 0 && slash[length - 1] == '/')
		length--;
	if (length >= sizeof out->base || strspn(slash, ALNUM "/-._~") < length)
		goto bad;
	memcpy(out->base, slash, length);
	out->base[length] = '\0';
	if (strstr(out->base, "//") || strstr(out->base, "/."))
		goto bad;
	return 0;
bad:
	/* Not the URL itself: somebody may have written a password into it. */
	return error_set(error, ERR_USAGE, 0, "the S3 endpoint is not a URL of the form https://HOST[:PORT][/PATH]; correct "
					      "endpoint or AWS_ENDPOINT_URL");
}

int s3_endpoint_parse(const char *url, const char *addressing, const char *bucket, struct s3_endpoint *out,
		      struct error *error)
{
	int rc;

	*out = (struct s3_endpoint){ .https = true };
	if (url) {
		rc = parse_url(url, out, error);
		if (rc < 0)
			return rc;
	} else {
		out->follow_region = true;
	}
	if (!addressing || strcmp(addressing, "auto") == 0)
		out->virtual_host = (out->follow_region || is_aws(out->host)) && fits_host(bucket);
	else if (strcmp(addressing, "virtual") == 0)
		out->virtual_host = true;
	else if (strcmp(addressing, "path") != 0)
		return error_set(error, ERR_USAGE, 0, "addressing is '%s'; use auto, path or virtual", addressing);
	return 0;
}

bool s3_region_is_sane(const char *region)
{
	return region[0] && strlen(region) < S3_REGION_BYTES && region[strspn(region, ALNUM "-")] == '\0';
}

void s3_endpoint_host(const struct s3_endpoint *endpoint, const char *bucket, const char *region,
		      char host[2 * S3_HOST_BYTES])
{
	const char *prefix = endpoint->virtual_host ? bucket : "", *dot = endpoint->virtual_host ? "." : "";

	if (endpoint->follow_region)
		snprintf(host, 2 * S3_HOST_BYTES, "%s%ss3.%s.amazonaws.com%s", prefix, dot, region,
			 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
	else
		snprintf(host, 2 * S3_HOST_BYTES, "%s%s%s", prefix, dot, endpoint->host);
}

int s3_endpoint_path(const struct s3_endpoint *endpoint, const char *bucket, const char *key, struct buf *out)
{
	int rc;

	if (endpoint->virtual_host)
		rc = buf_printf(out, "%s/%s", endpoint->base, key);
	else
		rc = buf_printf(out, "%s/%s%s%s", endpoint->base, bucket, *key ? "/" : "", key);
	return rc == 0 ? buf_append_u8(out, 0) : rc;
}

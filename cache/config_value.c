#include "config.h"

#include "clock.h"

#include <string.h>

#define NAME_LONGEST 64
#define PREFIX_LONGEST 512
#define REMOTE_EXAMPLE "for example s3://my-bucket/laptop or file:///mnt/disk/yester"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool config_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > NAME_LONGEST)
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == length;
}

/* Digits at the start of text; what follows them in *rest. */
static bool parse_count(const char *text, uint64_t *count, const char **rest)
{
	*count = 0;
	if (!is_digit(*text))
		return false;
	for (; is_digit(*text); text++)
		if (__builtin_mul_overflow(*count, 10, count) ||
		    __builtin_add_overflow(*count, (uint64_t)(*text - '0'), count))
			return false;
	*rest = text;
	return true;
}

bool config_parse_duration(const char *text, int64_t *ns)
{
	int64_t unit_ns, value;
	uint64_t count;
	const char *rest;

	if (!parse_count(text, &count, &rest) || *rest == '\0' || rest[1] != '\0')
		return false;
	switch (*rest) {
	case 's':
		unit_ns = NS_PER_S;
		break;
	case 'm':
		unit_ns = 60 * NS_PER_S;
		break;
	case 'h':
		unit_ns = 3600 * NS_PER_S;
		break;
	case 'd':
		unit_ns = 86400 * NS_PER_S;
		break;
	default:
		return false;
	}
	if (count > INT64_MAX || __builtin_mul_overflow((int64_t)count, unit_ns, &value))
		return false;
	*ns = value;
	return true;
}

bool config_parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t count, unit = 1;
	const char *rest, *letter;

	if (!parse_count(text, &count, &rest))
		return false;
	if (*rest != '\0') {
		letter = strchr(units, *rest);
		if (!letter || rest[1] != '\0')
			return false;
		unit = UINT64_C(1) << 10 * (letter - units + 1);
	}
	if (__builtin_mul_overflow(count, unit, &count))
		return false;
	*bytes = count;
	return true;
}

static int bad_remote(struct error *error, const char *remote, const char *why)
{
	return error_set(error, ERR_USAGE, 0, "remote %s: %s; write it as s3://BUCKET/PREFIX or file:///PATH, " REMOTE_EXAMPLE,
			 remote, why);
}

/* Each part between slashes is there and is neither . nor .. */
static bool parts_are_plain(const char *path)
{
	for (;;) {
		size_t length = strcspn(path, "/");

		if (length == 0 || (length == 1 && path[0] == '.') || (length == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (path[length] == '\0')
			return true;
		path += length + 1;
	}
}

/* The rules for new bucket names of S3, and the looser ones that other stores and old buckets have. */
static bool bucket_is_valid(const char *bucket, size_t length)
{
	if (length < 3 || length > 255 || !is_alnum(bucket[0]) || !is_alnum(bucket[length - 1]))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_alnum(bucket[i]) && !strchr("._-", bucket[i]))
			return false;
	return true;
}

static int check_s3(const char *remote, const char *at, struct error *error)
{
	size_t bucket_length = strcspn(at, "/");
	const char *prefix = at + bucket_length;

	if (!bucket_is_valid(at, bucket_length))
		return bad_remote(error, remote, "that is no name of a bucket");
	if (prefix[0] == '\0' || prefix[1] == '\0')
		return bad_remote(error, remote, "a prefix is missing, under which the volume is kept");
	prefix++;
	if (strlen(prefix) > PREFIX_LONGEST)
		return bad_remote(error, remote, "the prefix is too long");
	for (const char *p = prefix; *p; p++)
		if (!is_alnum(*p) && !strchr("/!-_.*'()", *p))
			return bad_remote(error, remote, "the prefix may hold only letters, digits and !-_.*'()");
	if (!parts_are_plain(prefix))
		return bad_remote(error, remote, "the prefix has an empty, . or .. part");
	return 0;
}

int config_check_remote(const char *remote, struct error *error)
{
	for (const char *p = remote; *p; p++)
		if ((uint8_t)*p < 0x20 || *p == 0x7f)
			return bad_remote(error, remote, "it has a control character");
	if (strncmp(remote, "s3://", 5) == 0)
		return check_s3(remote, remote + 5, error);
	if (strncmp(remote, "file://", 7) == 0) {
		if (remote[7] != '/')
			return bad_remote(error, remote, "the path must be absolute, with three slashes before it");
		if (!parts_are_plain(remote + 8))
			return bad_remote(error, remote, "the path has an empty, . or .. part");
		return 0;
	}
	return bad_remote(error, remote, "that is no kind of remote that yester knows");
}

/* s3_xml and s3_classify: listings and errors as AWS and Ceph send them, and everything that is not quite one. */
#include "s3_classify.h"
#include "s3_xml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
#define ROW(key, size)                                                                                            \
	"<Contents><Key>" key "</Key><LastModified>2026-11-20T08:14:07.123Z</LastModified><ETag>&quot;a&quot;</ETag>" \
	"<Size>" size "</Size><Owner><ID>x</ID></Owner></Contents>"
#define TAIL "<IsTruncated>false</IsTruncated></ListBucketResult>"

static int parse(const char *text, struct s3_list *list)
{
	/* In its own allocation, so that reading beyond the end is seen. */
	size_t length = strlen(text);
	char *copy = malloc(length ? length : 1);
	int rc;

	memcpy(copy, text, length);
	rc = s3_xml_list(copy, length, list);
	free(copy);
	return rc;
}

static void good_listings(void **state)
{
	struct s3_list list;

	(void)state;
	assert_int_equal(parse(HEAD TAIL, &list), 0);
	assert_int_equal(list.count, 0);
	assert_false(list.truncated);
	s3_list_free(&list);

	assert_int_equal(parse(HEAD "<Name>b</Name><Prefix></Prefix><KeyCount>2</KeyCount>" ROW("a&amp;b%20c+&#x e4;", "0") TAIL, &list),
			 ERR_CORRUPT);
	assert_int_equal(parse(HEAD "\n <Name>b</Name>\n<Prefix/><KeyCount>2</KeyCount><!-- <x> -->\n" ROW("a&amp;b%20c+&#xe4;&#65;", "0")
				       ROW("log/0001", "123456789012") "<IsTruncated>true</IsTruncated>"
				       "<NextContinuationToken>t&lt;o+k%</NextContinuationToken></ListBucketResult>\n",
			       &list),
			 0);
	assert_int_equal(list.count, 2);
	assert_string_equal(list.rows[0].key, "a&b%20c+\xc3\xa4" "A"); /* not said to be encoded */
	assert_string_equal(list.rows[1].key, "log/0001");
	assert_int_equal(list.rows[1].size, 123456789012);
	assert_int_equal(list.rows[1].modified_s, 1795162447);
	assert_true(list.truncated);
	assert_string_equal(list.token, "t<o+k%");
	s3_list_free(&list);

	assert_int_equal(parse(HEAD "<EncodingType>url</EncodingType>" ROW("a%2Bb%20c+d%2f%C3%A4", "1") TAIL, &list), 0);
	assert_string_equal(list.rows[0].key, "a+b c d/\xc3\xa4");
	s3_list_free(&list);
}

static void bad_listings(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"x",
		"<",
		"<html><body>Welcome to the hotel network</body></html>",
		"<!DOCTYPE html><html></html>",
		HEAD,
		HEAD ROW("a", "1"),
		HEAD ROW("a", "1") "</ListBucketResult>", /* does not say whether it is complete */
		HEAD ROW("a", "1") TAIL "<more/>",
		HEAD ROW("a", "1") TAIL "x",
		HEAD ROW("a", "-1") TAIL,
		HEAD ROW("a", "1x") TAIL,
		HEAD ROW("a", "") TAIL,
		HEAD ROW("a", "99999999999999999999") TAIL,
		HEAD ROW("a&b;", "1") TAIL,
		HEAD ROW("a&#0;", "1") TAIL,
		HEAD ROW("a&#xd800;", "1") TAIL,
		HEAD ROW("a&#x110000;", "1") TAIL,
		HEAD ROW("a&#99999999999999;", "1") TAIL,
		HEAD ROW("a&#-5;", "1") TAIL,
		HEAD ROW("<![CDATA[a]]>", "1") TAIL,
		HEAD "<EncodingType>url</EncodingType>" ROW("a%2", "1") TAIL,
		HEAD "<EncodingType>url</EncodingType>" ROW("a%", "1") TAIL,
		HEAD "<EncodingType>url</EncodingType>" ROW("a%+1", "1") TAIL,
		HEAD "<EncodingType>url</EncodingType>" ROW("a%00b", "1") TAIL,
		HEAD "<KeyCount>2</KeyCount>" ROW("a", "1") TAIL, /* a row is missing */
		HEAD "<IsTruncated>yes</IsTruncated></ListBucketResult>",
		HEAD "<IsTruncated>true</IsTruncated></ListBucketResult>", /* and no token to go on */
		HEAD "<IsTruncated>true</IsTruncated><NextContinuationToken/></ListBucketResult>",
		HEAD "<Contents><Key>a</Key><Size>1</Size></Contents>" TAIL,
		HEAD "<Contents><Size>1</Size><LastModified>2026-11-20T08:14:07Z</LastModified></Contents>" TAIL,
		HEAD "<Contents><Key>a</Key><Key>b</Key><Size>1</Size><LastModified>2026-11-20T08:14:07Z</LastModified></Contents>" TAIL,
		HEAD "<Contents><Key>a</Key><Size>1</Size><LastModified>yesterday</LastModified></Contents>" TAIL,
		HEAD "<Contents><Key>a</Contents></Key>" TAIL,
		HEAD "<a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a></a>" TAIL,
		HEAD "<a b=\"" TAIL,
		"<?xml version=\"1.0\"",
		"<Other>" ROW("a", "1") "<IsTruncated>false</IsTruncated></Other>",
		"<Error><Code>InternalError</Code></Error>",
	};
	struct s3_list list;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (parse(bad[i], &list) != ERR_CORRUPT)
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(list.count, 0);
		assert_null(list.rows);
		assert_null(list.token);
	}
	assert_int_equal(s3_xml_list("<a>\0</a>", 8, &list), ERR_CORRUPT);
	assert_int_equal(s3_xml_list(NULL, 0, &list), ERR_CORRUPT);
}

/* A listing that is cut off anywhere is refused: a short one would make things look absent (I22). */
static void truncated_listings(void **state)
{
	const char *whole = HEAD "<KeyCount>1</KeyCount>" ROW("a&amp;", "1") TAIL;
	struct s3_list list;

	(void)state;
	for (size_t length = 0; length < strlen(whole); length++) {
		char *part = malloc(length ? length : 1);

		memcpy(part, whole, length);
		assert_int_equal(s3_xml_list(part, length, &list), ERR_CORRUPT);
		free(part);
	}
	assert_int_equal(parse(whole, &list), 0);
	s3_list_free(&list);
}

static bool parse_error(const char *text, struct s3_error *error)
{
	return s3_xml_error(text, strlen(text), error);
}

static void errors(void **state)
{
	struct s3_error error;
	char *huge = malloc(100000);

	(void)state;
	assert_true(parse_error("<?xml version=\"1.0\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>The &quot;x&quot; is "
				"wrong</Message><Region>eu-west-1</Region><RequestId>4</RequestId></Error>",
				&error));
	assert_string_equal(error.code, "AuthorizationHeaderMalformed");
	assert_string_equal(error.message, "The \"x\" is wrong");
	assert_string_equal(error.region, "eu-west-1");
	assert_true(parse_error("<Error><Code>SlowDown</Code><Messa", &error));
	assert_string_equal(error.code, "SlowDown");
	assert_false(parse_error("<Error></Error>", &error));
	assert_false(parse_error("<html><Error><Code>SlowDown</Code></Error></html>", &error));
	assert_false(parse_error("", &error));
	assert_false(parse_error("\x89PNG", &error));

	memset(huge, 'x', 100000);
	memcpy(huge, "<Error><Code>", 13);
	memcpy(huge + 90000, "</Code></Error>", 15);
	assert_true(s3_xml_error(huge, 90015, &error));
	assert_int_equal(strlen(error.code), sizeof error.code - 1);
	free(huge);
}

static enum s3_verdict verdict(long status, const char *code)
{
	struct s3_error error = { 0 };

	if (!code)
		return s3_classify(status, NULL);
	snprintf(error.code, sizeof error.code, "%s", code);
	return s3_classify(status, &error);
}

static void verdicts(void **state)
{
	(void)state;
	assert_int_equal(verdict(200, NULL), S3_DONE);
	assert_int_equal(verdict(204, NULL), S3_DONE);
	assert_int_equal(verdict(206, NULL), S3_DONE);
	assert_int_equal(verdict(200, "InternalError"), S3_RETRY);
	assert_int_equal(verdict(200, "Unheard"), S3_RETRY);
	assert_int_equal(verdict(200, "AccessDenied"), S3_DENIED);
	assert_int_equal(verdict(404, "NoSuchKey"), S3_ABSENT);
	assert_int_equal(verdict(404, "NoSuchBucket"), S3_NO_BUCKET);
	assert_int_equal(verdict(404, NULL), S3_RETRY); /* a portal's page must not make a log record absent */
	assert_int_equal(verdict(412, "PreconditionFailed"), S3_EXISTS);
	assert_int_equal(verdict(412, NULL), S3_EXISTS);
	assert_int_equal(verdict(409, "ConditionalRequestConflict"), S3_RETRY);
	assert_int_equal(verdict(409, NULL), S3_RETRY);
	assert_int_equal(verdict(500, NULL), S3_RETRY);
	assert_int_equal(verdict(502, NULL), S3_RETRY);
	assert_int_equal(verdict(503, "SlowDown"), S3_RETRY);
	assert_int_equal(verdict(429, NULL), S3_RETRY);
	assert_int_equal(verdict(302, NULL), S3_RETRY);
	assert_int_equal(verdict(301, "PermanentRedirect"), S3_REGION);
	assert_int_equal(verdict(400, "AuthorizationHeaderMalformed"), S3_REGION);
	assert_int_equal(verdict(400, "ExpiredToken"), S3_CREDENTIALS);
	assert_int_equal(verdict(403, "InvalidAccessKeyId"), S3_CREDENTIALS);
	assert_int_equal(verdict(403, "SignatureDoesNotMatch"), S3_CREDENTIALS);
	assert_int_equal(verdict(403, "RequestTimeTooSkewed"), S3_SKEWED);
	assert_int_equal(verdict(403, "AccessDenied"), S3_DENIED);
	assert_int_equal(verdict(403, NULL), S3_DENIED);
	assert_int_equal(verdict(400, "InvalidArgument"), S3_FAILED);
	assert_int_equal(verdict(400, "BadDigest"), S3_RETRY);
	assert_int_equal(verdict(400, NULL), S3_RETRY);
	assert_int_equal(verdict(501, "NotImplemented"), S3_UNSUPPORTED);
	assert_int_equal(verdict(501, NULL), S3_UNSUPPORTED);
	assert_int_equal(verdict(0, NULL), S3_RETRY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_listings), cmocka_unit_test(bad_listings), cmocka_unit_test(truncated_listings),
		cmocka_unit_test(errors),	 cmocka_unit_test(verdicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

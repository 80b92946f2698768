/* s3_sign against the examples of the S3 documentation ("Signature Calculations for the Authorization Header") and AWS's
 * published signing test suite (aws-sig-v4-test-suite). */
#include "s3_sign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct s3_sign_input s3_input(const char *path)
{
	struct s3_sign_input input = { .method = "GET", .path = path, .access_key = "AKIAIOSFODNN7EXAMPLE",
				       .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", .region = "us-east-1",
				       .service = "s3", .date = "20130524T000000Z" };

	sha256(input.payload_sha256, "", 0);
	return input;
}

static struct s3_sign_input suite_input(const char *path)
{
	struct s3_sign_input input = { .method = "GET", .path = path, .access_key = "AKIDEXAMPLE",
				       .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", .region = "us-east-1",
				       .service = "service", .date = "20150830T123600Z" };

	sha256(input.payload_sha256, "", 0);
	return input;
}

static const struct s3_pair suite_headers[] = { { "host", "example.amazonaws.com" }, { "x-amz-date", "20150830T123600Z" } };

#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void assert_ends(const struct buf *text, const char *tail)
{
	size_t length = strlen(tail);

	assert_true(text->length >= length);
	assert_memory_equal(text->data + text->length - length, tail, length);
}

static void check(const struct s3_sign_input *input, const char *signed_names, const char *signature)
{
	struct buf authorization = { 0 };
	char tail[512];

	assert_int_equal(s3_sign(input, &authorization, NULL), 0);
	snprintf(tail, sizeof tail, ",SignedHeaders=%s,Signature=%s", signed_names, signature);
	assert_ends(&authorization, tail);
	buf_free(&authorization);
}

static void check_suite(const char *path, const struct s3_pair *query, size_t count, const char *signature)
{
	struct s3_sign_input input = suite_input(path);

	input.query = query;
	input.query_count = count;
	input.headers = suite_headers;
	input.header_count = 2;
	check(&input, "host;x-amz-date", signature);
}

static void s3_get_object_with_range(void **state)
{
	struct s3_sign_input input = s3_input("/test.txt");
	const struct s3_pair headers[] = { { "x-amz-date", "20130524T000000Z" },
					   { "range", "bytes=0-9" },
					   { "host", "examplebucket.s3.amazonaws.com" },
					   { "x-amz-content-sha256", EMPTY_HASH } };
	struct buf authorization = { 0 }, canonical = { 0 };

	(void)state;
	input.headers = headers;
	input.header_count = 4;
	assert_int_equal(s3_sign(&input, &authorization, &canonical), 0);
	buf_append_u8(&authorization, 0);
	assert_string_equal((char *)authorization.data,
			    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
			    "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
			    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	buf_append_u8(&canonical, 0);
	assert_string_equal((char *)canonical.data, "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\n"
						    "x-amz-content-sha256:" EMPTY_HASH "\nx-amz-date:20130524T000000Z\n\n"
						    "host;range;x-amz-content-sha256;x-amz-date\n" EMPTY_HASH);
	buf_free(&authorization);
	buf_free(&canonical);
}

static void s3_put_object(void **state)
{
	struct s3_sign_input input = s3_input("/test$file.text");
	const struct s3_pair headers[] = {
		{ "date", "Fri, 24 May 2013 00:00:00 GMT" },
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" },
		{ "x-amz-date", "20130524T000000Z" },
		{ "x-amz-storage-class", "REDUCED_REDUNDANCY" },
	};

	(void)state;
	input.method = "PUT";
	sha256(input.payload_sha256, "Welcome to Amazon S3.", strlen("Welcome to Amazon S3."));
	input.headers = headers;
	input.header_count = 5;
	check(&input, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void s3_queries(void **state)
{
	struct s3_sign_input input = s3_input("/");
	const struct s3_pair headers[] = { { "host", "examplebucket.s3.amazonaws.com" },
					   { "x-amz-content-sha256", EMPTY_HASH },
					   { "x-amz-date", "20130524T000000Z" } };
	const struct s3_pair lifecycle[] = { { "lifecycle", "" } };
	const struct s3_pair list[] = { { "prefix", "J" }, { "max-keys", "2" } };

	(void)state;
	input.headers = headers;
	input.header_count = 3;
	input.query = lifecycle;
	input.query_count = 1;
	check(&input, "host;x-amz-content-sha256;x-amz-date",
	      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	input.query = list;
	input.query_count = 2;
	check(&input, "host;x-amz-content-sha256;x-amz-date",
	      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void suite_paths(void **state)
{
	(void)state;
	check_suite("/", NULL, 0, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"); /* get-vanilla */
	check_suite("/\xe1\x88\xb4", NULL, 0,
		    "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"); /* get-utf8 */
	check_suite("/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", NULL, 0,
		    "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"); /* get-unreserved */
	check_suite("/example space/", NULL, 0,
		    "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"); /* get-space-unnormalized */
}

static void suite_queries(void **state)
{
	const char *unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	const struct s3_pair key_case[] = { { "Param2", "value2" }, { "Param1", "value1" } };
	const struct s3_pair empty_key[] = { { "Param1", "value1" } };
	const struct s3_pair utf8[] = { { "\xe1\x88\xb4", "bar" } };
	const struct s3_pair plain[] = { { unreserved, unreserved } };
	const struct s3_pair order[] = { { "Param-3", "Value3" }, { "Param", "Value2" }, { "\xe1\x88\xb4", "Value1" } };

	(void)state;
	check_suite("/", key_case, 2, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
	check_suite("/", empty_key, 1, "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb");
	check_suite("/", utf8, 1, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
	check_suite("/", plain, 1, "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197");
	check_suite("/", order, 3, "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac");
}

static void suite_headers_and_bodies(void **state)
{
	struct s3_sign_input input = suite_input("/");
	const struct s3_pair trim[] = { { "host", "example.amazonaws.com" },
					{ "my-header1", " value1 " },
					{ "my-header2", " \"a   b   c\"" },
					{ "x-amz-date", "20150830T123600Z" } };
	const struct s3_pair token[] = {
		{ "host", "example.amazonaws.com" },
		{ "x-amz-date", "20150830T123600Z" },
		{ "x-amz-security-token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267" },
	};
	const struct s3_pair form[] = {
		{ "content-type", "application/x-www-form-urlencoded" },
		{ "host", "example.amazonaws.com" },
		{ "content-length", "13" },
		{ "x-amz-date", "20150830T123600Z" },
		{ "x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e" },
	};

	(void)state;
	input.headers = trim;
	input.header_count = 4;
	check(&input, "host;my-header1;my-header2;x-amz-date",
	      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
	input.headers = token;
	input.header_count = 3;
	check(&input, "host;x-amz-date;x-amz-security-token",
	      "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8");
	input.method = "POST";
	input.headers = suite_headers;
	input.header_count = 2;
	check(&input, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
	input.headers = form;
	input.header_count = 5;
	sha256(input.payload_sha256, "Param1=value1", 13);
	check(&input, "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
	      "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b");
}

static void encoding_and_dates(void **state)
{
	struct buf out = { 0 };
	char date[S3_DATE_BYTES];

	(void)state;
	assert_int_equal(s3_encode(&out, "a/b c+%~\xff", true), 0);
	assert_int_equal(s3_encode(&out, "|a/b", false), 0);
	buf_append_u8(&out, 0);
	assert_string_equal((char *)out.data, "a/b%20c%2B%25~%FF%7Ca%2Fb");
	buf_free(&out);

	s3_sign_date(date, 1440938160);
	assert_string_equal(date, "20150830T123600Z");
	s3_sign_date(date, -1);
	assert_string_equal(date, "19700101T000000Z");
	s3_sign_date(date, INT64_MAX);
	assert_string_equal(date, "99991231T235959Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(s3_get_object_with_range), cmocka_unit_test(s3_put_object),
		cmocka_unit_test(s3_queries),		    cmocka_unit_test(suite_paths),
		cmocka_unit_test(suite_queries),	    cmocka_unit_test(suite_headers_and_bodies),
		cmocka_unit_test(encoding_and_dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

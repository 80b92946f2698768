/* s3_endpoint: URLs that people write, addressing styles, and what must never be taken for this machine. */
#include "s3_endpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *url, const char *addressing, const char *bucket, const char *expected_host,
		  const char *expected_path)
{
	char host[2 * S3_HOST_BYTES];
	struct s3_endpoint endpoint;
	struct buf path = { 0 };
	struct error error;

	assert_int_equal(s3_endpoint_parse(url, addressing, bucket, &endpoint, &error), 0);
	s3_endpoint_host(&endpoint, bucket, "eu-west-1", host);
	assert_string_equal(host, expected_host);
	assert_int_equal(s3_endpoint_path(&endpoint, bucket, "a/b", &path), 0);
	assert_string_equal((char *)path.data, expected_path);
	buf_free(&path);
}

static void hosts_and_paths(void **state)
{
	(void)state;
	check(NULL, NULL, "bucket", "bucket.s3.eu-west-1.amazonaws.com", "/a/b");
	check(NULL, "auto", "my.bucket", "s3.eu-west-1.amazonaws.com", "/my.bucket/a/b");
	check(NULL, "path", "bucket", "s3.eu-west-1.amazonaws.com", "/bucket/a/b");
	check("https://s3.us-west-2.amazonaws.com", NULL, "bucket", "bucket.s3.us-west-2.amazonaws.com", "/a/b");
	check("https://minio.example:9000/", NULL, "bucket", "minio.example:9000", "/bucket/a/b");
	check("HTTPS://MinIO.Example:443", "virtual", "bucket", "bucket.minio.example", "/a/b");
	check("http://localhost:80/base/path//", NULL, "bucket", "localhost", "/base/path/bucket/a/b");
	check("http://[::1]:9000", NULL, "bucket", "[::1]:9000", "/bucket/a/b");
	check("https://evil-amazonaws.com", NULL, "bucket", "evil-amazonaws.com", "/bucket/a/b");
}

static void china(void **state)
{
	char host[2 * S3_HOST_BYTES];
	struct s3_endpoint endpoint;
	struct error error;

	(void)state;
	assert_int_equal(s3_endpoint_parse(NULL, NULL, "bucket", &endpoint, &error), 0);
	s3_endpoint_host(&endpoint, "bucket", "cn-north-1", host);
	assert_string_equal(host, "bucket.s3.cn-north-1.amazonaws.com.cn");
}

static void loopback(void **state)
{
	static const struct { const char *url; bool loopback; } cases[] = {
		{ "http://127.0.0.1:9000", true },   { "http://127.1.2.3", true },	    { "http://localhost:1", true },
		{ "http://b.localhost", true },	     { "http://[::1]", true },		    { "http://127.0.0.1.example", false },
		{ "http://localhost.example", false }, { "http://notlocalhost", false },    { "http://192.0.2.1", false },
		{ "http://127.0.0.256", false },     { "http://[::2]", false },		    { "http://127.0.0.1x", false },
	};
	struct s3_endpoint endpoint;
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(s3_endpoint_parse(cases[i].url, NULL, "bucket", &endpoint, &error), 0);
		assert_int_equal(endpoint.loopback, cases[i].loopback);
	}
}

static void refused(void **state)
{
	static const char *const bad[] = {
		"", "host", "ftp://host", "https://", "https:///x", "https://user:secret@host", "https://host:0", "https://host:70000",
		"https://host:", "https://host:9x", "https://ho st", "https://host/?query", "https://host/a/../b", "https://host/a//b",
		"https://host/%41", "https://host#x", "https://[::1", "https://host\n", "https://::1",
	};
	struct s3_endpoint endpoint;
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (s3_endpoint_parse(bad[i], NULL, "bucket", &endpoint, &error) != ERR_USAGE)
			fail_msg("accepted: %s", bad[i]);
		assert_null(strstr(error.message, "secret"));
	}
	assert_int_equal(s3_endpoint_parse("https://host", "dns", "bucket", &endpoint, &error), ERR_USAGE);
	assert_true(s3_region_is_sane("us-east-1"));
	assert_false(s3_region_is_sane(""));
	assert_false(s3_region_is_sane("a.b"));
	assert_false(s3_region_is_sane("a/b"));
	assert_false(s3_region_is_sane("0123456789012345678901234567890123456789012345678901234567890123"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_and_paths), cmocka_unit_test(china), cmocka_unit_test(loopback), cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

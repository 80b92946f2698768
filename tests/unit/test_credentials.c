/* credentials: the order in which they are looked for, the ini files, renewal. */
#include "credentials.h"
#include "io.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64], shared_file[96], config_file[96];

static void write_file(const char *path, const char *text)
{
	struct error error;

	assert_int_equal(io_replace_file(AT_FDCWD, path, text, strlen(text), 0600, &error), 0);
}

static int setup(void **state)
{
	static const char *const names[] = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE" };

	(void)state;
	strcpy(directory, "/tmp/yester-creds-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(shared_file, sizeof shared_file, "%s/credentials", directory);
	snprintf(config_file, sizeof config_file, "%s/config", directory);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unsetenv(names[i]);
	setenv("AWS_SHARED_CREDENTIALS_FILE", shared_file, 1);
	setenv("AWS_CONFIG_FILE", config_file, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(shared_file);
	unlink(config_file);
	rmdir(directory);
	return 0;
}

static void assert_keys(struct credentials *credentials, const char *access_key, const char *secret_key, const char *token)
{
	struct credential_keys keys;
	struct error error;

	assert_int_equal(credentials_get(credentials, &keys, &error), 0);
	assert_string_equal(keys.access_key, access_key);
	assert_string_equal(keys.secret_key, secret_key);
	if (token)
		assert_string_equal(keys.session_token, token);
	else
		assert_null(keys.session_token);
	credential_keys_wipe(&keys);
}

static void check_keys(const char *profile, const char *access_key, const char *secret_key, const char *token)
{
	struct credentials *credentials = credentials_new(profile);

	assert_keys(credentials, access_key, secret_key, token);
	credentials_free(credentials);
}

static void environment_first(void **state)
{
	(void)state;
	write_file(shared_file, "[default]\naws_access_key_id=F\naws_secret_access_key=FS\n"
				"[other]\naws_access_key_id=O\naws_secret_access_key=OS\n");
	setenv("AWS_ACCESS_KEY_ID", "E", 1);
	check_keys(NULL, "F", "FS", NULL); /* half a pair is none */
	setenv("AWS_SECRET_ACCESS_KEY", "ES", 1);
	check_keys(NULL, "E", "ES", NULL);
	setenv("AWS_SESSION_TOKEN", "ET", 1);
	check_keys(NULL, "E", "ES", "ET");
	setenv("AWS_PROFILE", "other", 1);
	check_keys(NULL, "E", "ES", "ET");
	check_keys("other", "O", "OS", NULL); /* named in the volume's config: that one */
	setenv("AWS_ACCESS_KEY_ID", "", 1);
	check_keys(NULL, "O", "OS", NULL);
}

static void ini_files(void **state)
{
	struct credentials *credentials;
	char *value;

	(void)state;
	write_file(shared_file, "# comment\r\naws_access_key_id = outside\r\n[ default ]\r\n; more\r\n"
				"  aws_secret_access_key = nested\r\nAWS_ACCESS_KEY_ID =  A=B \r\naws_secret_access_key\t=\tx+/y#z= \r\n"
				"[second]\naws_access_key_id = 1\naws_access_key_id = 2\naws_secret_access_key = 3\n"
				"aws_session_token = 4");
	write_file(config_file, "[default]\nregion = eu-west-1\ns3 =\n    endpoint_url = https://nested\n"
				"[profile second]\nregion = eu-west-2\nendpoint_url = https://second\n"
				"[second]\nregion = wrong\n[profile third]\naws_access_key_id = 5\naws_secret_access_key = 6\n");
	check_keys(NULL, "A=B", "x+/y#z=", NULL);
	check_keys("second", "2", "3", "4");
	check_keys("third", "5", "6", NULL);

	credentials = credentials_new(NULL);
	value = credentials_setting(credentials, "region");
	assert_string_equal(value, "eu-west-1");
	free(value);
	assert_null(credentials_setting(credentials, "endpoint_url"));
	credentials_free(credentials);
	credentials = credentials_new("second");
	value = credentials_setting(credentials, "region");
	assert_string_equal(value, "eu-west-2");
	free(value);
	value = credentials_setting(credentials, "endpoint_url");
	assert_string_equal(value, "https://second");
	free(value);
	credentials_free(credentials);
}

static void missing_then_found(void **state)
{
	struct credentials *credentials = credentials_new(NULL);
	struct credential_keys keys;
	struct error error;

	(void)state;
	assert_int_equal(credentials_get(credentials, &keys, &error), ERR_DENIED);
	assert_non_null(strstr(error.message, "AWS_ACCESS_KEY_ID"));
	assert_non_null(strstr(error.message, "'default'"));
	assert_non_null(strstr(error.message, shared_file));
	assert_non_null(strstr(error.message, config_file));
	assert_null(credentials_setting(credentials, "region"));
	write_file(shared_file, "[default]\naws_access_key_id=F\n");
	assert_int_equal(credentials_get(credentials, &keys, &error), ERR_DENIED);
	write_file(shared_file, "[default]\naws_access_key_id=F\naws_secret_access_key=FS");
	assert_keys(credentials, "F", "FS", NULL);
	credentials_free(credentials);
	credentials_free(NULL);
}

static void renewal(void **state)
{
	struct credentials *credentials = credentials_new(NULL);
	struct credential_keys keys;
	struct error error;

	(void)state;
	write_file(shared_file, "[default]\naws_access_key_id=1\naws_secret_access_key=1S\naws_session_token=1T");
	assert_int_equal(credentials_get(credentials, &keys, &error), 0);
	assert_int_equal(credentials_renew(credentials, keys.generation), ERR_DENIED);
	write_file(shared_file, "[default]\naws_access_key_id=1\naws_secret_access_key=1S\naws_session_token=2T");
	assert_keys(credentials, "1", "1S", "1T"); /* not before it is asked for */
	assert_int_equal(credentials_renew(credentials, keys.generation), 0);
	assert_keys(credentials, "1", "1S", "2T");
	assert_int_equal(credentials_renew(credentials, keys.generation), 0); /* an older generation: already done */
	credential_keys_wipe(&keys);
	assert_int_equal(credentials_get(credentials, &keys, &error), 0);
	unlink(shared_file); /* while the other tool writes it: the old ones stay */
	assert_int_equal(credentials_renew(credentials, keys.generation), ERR_DENIED);
	assert_keys(credentials, "1", "1S", "2T");
	credential_keys_wipe(&keys);
	credentials_free(credentials);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(environment_first), TEST(ini_files), TEST(missing_then_found), TEST(renewal) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

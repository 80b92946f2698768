#include "verbs.h"

#include "io.h"
#include "recover.h"
#include "sample_log.h"
#include "setup.h"
#include "tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything below one temporary directory: tree, remote, conf, state. */
struct place {
	char *dir, *tree, *remote, *conf, *states;
	struct volume_config *config;
	struct store *store;
	struct init_result result;
	struct error error;
};

static void write_file(const char *dir, const char *name, const char *text, mode_t mode)
{
	char *path = io_printf("%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd >= 0);
	assert_int_equal(io_write(fd, text, strlen(text)), 0);
	close(fd);
	free(path);
}

static struct volume_config *new_config(const struct place *place, const char *name)
{
	struct volume_config *config = config_new(name);

	assert_non_null(config);
	config->directory = strdup(place->tree);
	config->remote = io_printf("file://%s", place->remote);
	return config;
}

static int setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	place->dir = strdup("/tmp/yester-test-XXXXXX");
	assert_non_null(mkdtemp(place->dir));
	place->tree = io_printf("%s/tree", place->dir);
	place->remote = io_printf("%s/remote", place->dir);
	place->conf = io_printf("%s/conf", place->dir);
	place->states = io_printf("%s/state", place->dir);
	assert_int_equal(mkdir(place->tree, 0755), 0);
	write_file(place->tree, "a.txt", "hello", 0644);
	write_file(place->dir, "passphrase", "correct horse\n", 0600);
	setenv("YESTER_CONFIG_DIR", place->conf, 1);
	setenv("YESTER_STATE_DIR", place->states, 1);
	place->config = new_config(place, "docs");
	assert_int_equal(store_open(place->config, true, 1, &place->store, &place->error), 0);
	*state = place;
	return 0;
}

static int teardown(void **state)
{
	struct place *place = *state;

	store_close(place->store);
	config_free(place->config);
	sample_remove_tree(place->dir);
	free(place->dir);
	free(place->tree);
	free(place->remote);
	free(place->conf);
	free(place->states);
	free(place);
	return 0;
}

static int init(struct place *place, const struct unlock *unlock)
{
	int rc = sync_init(place->config, unlock, &place->result, &place->error);

	if (rc && rc != ERR_EXISTS && rc != ERR_USAGE && rc != ERR_DENIED && rc != ERR_KEY && rc != ERR_ABSENT)
		fail_msg("%s", place->error.message);
	return rc;
}

static bool there(const char *dir, const char *name)
{
	char *path = io_printf("%s/%s", dir, name);
	struct stat st;
	bool found = lstat(path, &st) == 0;

	free(path);
	return found;
}

static int count(const char *path)
{
	DIR *dir = opendir(path);
	int entries = -2;

	if (!dir)
		return 0;
	while (readdir(dir))
		entries++;
	closedir(dir);
	return entries;
}

static int count_object(void *context, const struct store_object *object)
{
	(void)object;
	++*(int *)context;
	return 0;
}

static int objects(const struct place *place)
{
	int found = 0;

	assert_int_equal(store_list(place->store, "", NULL, count_object, &found, NULL), 0);
	return found;
}

/* What a failed init leaves. */
static void expect_nothing(const struct place *place, int left_remote, int left_conf, int left_state)
{
	assert_int_equal(objects(place), left_remote);
	assert_int_equal(count(place->conf), left_conf);
	assert_int_equal(count(place->states), left_state);
	assert_string_equal(place->result.recovery_key, "");
	assert_string_equal(place->result.key_file, "");
}

static int unlocks(struct place *place, const struct unlock *unlock, const struct volume_config *config)
{
	struct volume_descriptor descriptor;
	struct master *master;
	int rc = recover_unlock(place->store, unlock, config, NULL, NULL, &descriptor, &master, &place->error);

	if (!rc)
		assert_memory_equal(descriptor.volume_id, place->result.volume_id, CRYPT_ID_BYTES);
	master_free(master);
	return rc;
}

static void test_key_file(void **state)
{
	struct place *place = *state;
	struct unlock recovery = {.recovery_key = place->result.recovery_key};
	struct volume_config *written;
	struct volume *volume;
	struct stat st;

	assert_int_equal(init(place, NULL), 0);
	assert_int_equal(place->result.files, 1);
	assert_int_equal(place->result.bytes, 5);
	assert_int_equal(strlen(place->result.recovery_key), 47);
	assert_int_equal(stat(place->result.key_file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(objects(place), 3);

	if (config_read(place->config->file, &written, &place->error))
		fail_msg("%s", place->error.message);
	assert_string_equal(written->key_file, place->result.key_file);
	assert_true(written->encryption);
	assert_int_equal(unlocks(place, NULL, written), 0);
	assert_int_equal(unlocks(place, &recovery, NULL), 0);
	assert_int_equal(volume_open(written, &volume, &place->error), 0);
	if (volume_open_backing(volume, false, &place->error))
		fail_msg("%s", place->error.message);
	volume_close(volume, false);
	config_free(written);

	/* Again: everything is taken. */
	struct volume_config *again = new_config(place, "other");
	struct init_result result;
	assert_int_equal(sync_init(again, NULL, &result, &place->error), ERR_EXISTS);
	free(again->directory);
	again->directory = io_printf("%s/conf", place->dir);
	assert_int_equal(sync_init(again, NULL, &result, &place->error), ERR_EXISTS);
	assert_non_null(strstr(place->error.message, "a volume is already there; yester clone"));
	config_free(again);
	assert_int_equal(objects(place), 3);
	assert_int_equal(count(place->states), 1);
}

static void test_passphrase(void **state)
{
	struct place *place = *state;
	char *path = io_printf("%s/passphrase", place->dir);
	struct unlock unlock = {.passphrase_file = path};

	assert_int_equal(init(place, &unlock), 0);
	assert_string_equal(place->result.key_file, "");
	assert_string_equal(place->config->passphrase_file, path);
	assert_int_equal(unlocks(place, &unlock, NULL), 0);
	assert_false(there(place->conf, "docs.key"));
	free(path);
}

static void test_unencrypted(void **state)
{
	struct place *place = *state;
	struct unlock unlock = {.unencrypted = true};
	struct volume_config *written;

	assert_int_equal(init(place, &unlock), 0);
	assert_string_equal(place->result.recovery_key, "");
	assert_int_equal(objects(place), 1);
	assert_int_equal(config_read(place->config->file, &written, &place->error), 0);
	assert_false(written->encryption);
	config_free(written);
	assert_int_equal(unlocks(place, NULL, NULL), 0);
}

static void test_refusals(void **state)
{
	struct place *place = *state;
	struct unlock missing = {.passphrase_file = "/nonexistent/passphrase"};
	struct store_body body = {.data = "x", .fd = -1, .length = 1};

	assert_int_equal(init(place, &missing), ERR_ABSENT);
	expect_nothing(place, 0, 0, 0);
	write_file(place->tree, ".snapshots", "", 0644);
	assert_int_equal(init(place, NULL), ERR_USAGE);
	expect_nothing(place, 0, 0, 0);
	char *path = io_printf("%s/.snapshots", place->tree);
	unlink(path);
	free(path);

	/* A log without a descriptor is nothing to build on. */
	assert_int_equal(store_put_new(place->store, "log/0000000000000001", &body, NULL, NULL), 0);
	assert_int_equal(init(place, NULL), ERR_EXISTS);
	expect_nothing(place, 1, 0, 0);
	assert_int_equal(store_delete(place->store, "log/0000000000000001", NULL), 0);

	/* The remote inside the directory. */
	free(place->config->remote);
	place->config->remote = io_printf("file://%s/remote", place->tree);
	assert_int_equal(init(place, NULL), ERR_USAGE);
	expect_nothing(place, 0, 0, 0);
	free(place->config->remote);
	place->config->remote = strdup("ftp://somewhere");
	assert_int_equal(init(place, NULL), ERR_USAGE);
	expect_nothing(place, 0, 0, 0);
}

/* It fails late: what was made until then goes away. */
static void test_undo(void **state)
{
	struct place *place = *state;

	mkdir(place->conf, 0755);
	write_file(place->conf, "docs.key", "somebody else's", 0600);
	assert_int_equal(init(place, NULL), ERR_EXISTS);
	expect_nothing(place, 0, 1, 0);
	assert_true(there(place->conf, "docs.key"));
	char *path = io_printf("%s/docs.key", place->conf);
	unlink(path);
	free(path);

	/* The directory is not there. */
	free(place->config->directory);
	place->config->directory = io_printf("%s/absent", place->dir);
	assert_int_equal(init(place, NULL), ERR_ABSENT);
	expect_nothing(place, 0, 0, 0);

	/* The state directory lies below it: noticed when it has been made. */
	free(place->config->directory);
	place->config->directory = strdup(place->states);
	mkdir(place->states, 0755);
	assert_int_equal(init(place, NULL), ERR_USAGE);
	expect_nothing(place, 0, 0, 0);
}

static void test_clear_directory(void **state)
{
	struct place *place = *state;
	char *deep = io_printf("%s/x/y", place->tree), *link = io_printf("%s/x/link", place->tree);
	int fd;

	assert_int_equal(io_mkdirs(deep, NULL), 0);
	write_file(deep, "file", "1", 0400);
	assert_int_equal(chmod(deep, 0), 0);
	assert_int_equal(symlink(place->dir, link), 0);
	fd = open(place->tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(tree_clear(fd), 0);
	close(fd);
	assert_int_equal(count(place->tree), 0);
	assert_true(there(place->dir, "passphrase"));
	free(deep);
	free(link);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_key_file), TEST(test_passphrase), TEST(test_unencrypted), TEST(test_refusals), TEST(test_undo),
		TEST(test_clear_directory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

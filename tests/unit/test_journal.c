/* The cut against operations that go on: whatever the sealer reads of a cut is what the files held at the swap (I2-I6). */
#include "journal.h"
#include "journal_internal.h"

#include "clock.h"
#include "catalogue.h"
#include "db.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES 6
#define FILE_MAX (96 * 1024)
#define WORKERS 3
#define ROUNDS 25

struct model {
	char name[16];
	bool there;
	size_t size;
	unsigned char bytes[FILE_MAX];
};

static char directory[64], state_directory[64];
static struct db *db;
static struct backing *backing;
static struct node_table *nodes;
static struct journal *journal;
static struct node *root;
static pthread_rwlock_t world = PTHREAD_RWLOCK_INITIALIZER; /* workers share it for each operation, the cut excludes them */
static pthread_mutex_t file_locks[FILES];
static struct model live[FILES], at_cut[FILES];
static _Atomic bool stop;

static struct node *node_of(const char *name)
{
	struct node_key key;
	struct stat st;

	if (backing_identify(backing, backing_root_fd(backing), name, &key, &st, NULL) != 0)
		return NULL;
	return node_get(nodes, &key, st.st_mode & S_IFMT, -1);
}

static void create(struct model *model)
{
	struct mutation mutation;
	struct node *node;
	int fd;

	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, root, NULL, NULL, NULL);
	assert_int_equal(mutation_name(&mutation, root, model->name), 0);
	fd = openat(backing_root_fd(backing), model->name, O_CREAT | O_EXCL | O_RDWR, 0600);
	assert_true(fd >= 0);
	close(fd);
	node = node_of(model->name);
	assert_non_null(node);
	mutation_set_name(&mutation, 0, node);
	mutation_adopt(&mutation, node);
	mutation_end(&mutation);
	node_put(nodes, node);
	model->there = true;
	model->size = 0;
}

static void write_some(struct model *model, unsigned *seed)
{
	size_t offset = (size_t)rand_r(seed) % (FILE_MAX - 9000), length = 1 + (size_t)rand_r(seed) % 8999;
	unsigned char *data = malloc(length);
	struct node *node = node_of(model->name);
	struct mutation mutation;
	int fd = openat(backing_root_fd(backing), model->name, O_RDWR);

	memset(data, rand_r(seed), length);
	assert_true(fd >= 0);
	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, (int64_t)offset, (int64_t)length), 0);
	assert_int_equal(io_pwrite(fd, data, length, (int64_t)offset), 0);
	mutation_end(&mutation);
	close(fd);
	node_put(nodes, node);
	if (offset > model->size)
		memset(model->bytes + model->size, 0, offset - model->size);
	memcpy(model->bytes + offset, data, length);
	if (offset + length > model->size)
		model->size = offset + length;
	free(data);
}

static void truncate_some(struct model *model, unsigned *seed)
{
	size_t size = (size_t)rand_r(seed) % FILE_MAX;
	struct node *node = node_of(model->name);
	struct mutation mutation;
	int fd = openat(backing_root_fd(backing), model->name, O_RDWR);

	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, (int64_t)(size < model->size ? size : model->size), -1), 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	mutation_end(&mutation);
	close(fd);
	node_put(nodes, node);
	if (size > model->size)
		memset(model->bytes + model->size, 0, size - model->size);
	model->size = size;
}

static void punch_some(struct model *model, unsigned *seed)
{
	size_t offset = (size_t)rand_r(seed) % FILE_MAX, length = 1 + (size_t)rand_r(seed) % 20000;
	struct node *node = node_of(model->name);
	struct mutation mutation;
	int fd = openat(backing_root_fd(backing), model->name, O_RDWR);

	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, (int64_t)offset, (int64_t)length), 0);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length), 0);
	mutation_end(&mutation);
	close(fd);
	node_put(nodes, node);
	for (size_t i = offset; i < offset + length && i < model->size; i++)
		model->bytes[i] = 0;
}

static void chmod_some(struct model *model, unsigned *seed)
{
	struct node *node = node_of(model->name);
	struct mutation mutation;

	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_attrs(&mutation, node), 0);
	assert_int_equal(fchmodat(backing_root_fd(backing), model->name, 0600 | (rand_r(seed) & 077), 0), 0);
	mutation_end(&mutation);
	node_put(nodes, node);
}

static void remove_it(struct model *model)
{
	struct node *node = node_of(model->name);
	struct mutation mutation;

	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, root, node, NULL, NULL);
	assert_int_equal(mutation_name(&mutation, root, model->name), 0);
	assert_int_equal(mutation_unname(&mutation, node), 0);
	assert_int_equal(unlinkat(backing_root_fd(backing), model->name, 0), 0);
	mutation_set_name(&mutation, 0, NULL);
	mutation_end(&mutation);
	node_put(nodes, node);
	model->there = false;
}

static void *worker(void *argument)
{
	unsigned seed = (unsigned)(uintptr_t)argument;

	while (!atomic_load(&stop)) {
		int i = rand_r(&seed) % FILES;
		int what = rand_r(&seed) % 20;

		pthread_rwlock_rdlock(&world);
		pthread_mutex_lock(&file_locks[i]);
		if (!live[i].there)
			create(&live[i]);
		else if (what == 0)
			remove_it(&live[i]);
		else if (what <= 2)
			truncate_some(&live[i], &seed);
		else if (what <= 4)
			punch_some(&live[i], &seed);
		else if (what == 5)
			chmod_some(&live[i], &seed);
		else
			write_some(&live[i], &seed);
		pthread_mutex_unlock(&file_locks[i]);
		pthread_rwlock_unlock(&world);
		if (what > 17)
			assert_int_equal(journal_flush(journal, NULL), 0);
	}
	return NULL;
}

/* What earlier cuts gave, by name: the version that a sealer would build. */
static struct model built[FILES];
static struct node_key built_key[FILES];
static bool built_has_key[FILES];

static int take_name(void *context, const char *name, const struct node_key *child, mode_t type)
{
	(void)context;
	(void)type;
	for (int i = 0; i < FILES; i++) {
		if (strcmp(live[i].name, name) != 0)
			continue;
		built[i].there = built_has_key[i] = child != NULL;
		if (child)
			node_key_copy(&built_key[i], child);
	}
	return 0;
}

/* Reads one file of the cut into its place in `built`, the way a sealer does: what changed, once, holes skipped. */
static int take_file(struct frozen *frozen, struct model *model)
{
	const struct extent_map *extents = frozen_extents(frozen);
	struct attrs attrs;
	int result = frozen_attrs(frozen, &attrs);
	int64_t size;
	struct extent range;
	int64_t from = 0;

	if (result != ERR_OK)
		return result;
	size = attrs.st.st_size;
	attrs_free(&attrs);
	if ((size_t)size > model->size)
		memset(model->bytes + model->size, 0, (size_t)size - model->size);
	model->size = (size_t)size;
	while (result == ERR_OK && extent_map_next(extents, from, &range) && range.start < size) {
		int64_t end = range.end < size ? range.end : size;
		int64_t at = range.start;

		while (result == ERR_OK && at < end) {
			int64_t data = frozen_next_data(frozen, at, end);
			int64_t stop_at = data + 10000 < end ? data + 10000 : end;

			memset(model->bytes + at, 0, (size_t)(data - at));
			if (data < end)
				result = frozen_read(frozen, model->bytes + data, (size_t)(stop_at - data), data, NULL);
			at = data < end ? stop_at : end;
		}
		from = range.end;
	}
	if (result == ERR_OK)
		frozen_done(frozen);
	return result;
}

static int take_cut(struct cut *cut, bool *root_seen)
{
	int result = ERR_OK;

	*root_seen = false;
	for (size_t i = 0; i < cut_count(cut); i++)
		frozen_names(cut_item(cut, i), take_name, NULL);
	for (size_t i = 0; i < cut_count(cut) && result == ERR_OK; i++) {
		struct frozen *frozen = cut_item(cut, i);
		const struct node_key *key = frozen_key(frozen);

		for (int f = 0; f < FILES && result == ERR_OK; f++) {
			if (built_has_key[f] && built_key[f].length == key->length &&
			    memcmp(built_key[f].bytes, key->bytes, key->length) == 0) {
				if (frozen_whole(frozen))
					built[f].size = 0;
				result = take_file(frozen, &built[f]);
				if (result == ERR_ABSENT)
					fail_msg("%s had a name at the cut and is called absent", built[f].name);
			}
		}
	}
	return result;
}

static void compare(int round)
{
	for (int i = 0; i < FILES; i++) {
		if (built[i].there != at_cut[i].there)
			fail_msg("round %d: %s is %s", round, live[i].name, built[i].there ? "there" : "absent");
		if (!built[i].there)
			continue;
		if (built[i].size != at_cut[i].size)
			fail_msg("round %d: %s has size %zu, not %zu", round, live[i].name, built[i].size, at_cut[i].size);
		for (size_t at = 0; at < built[i].size; at++)
			if (built[i].bytes[at] != at_cut[i].bytes[at])
				fail_msg("round %d: %s differs at %zu of %zu", round, live[i].name, at, built[i].size);
	}
}

static void forget_rows(struct cut *cut)
{
	struct db_conn *conn;

	assert_int_equal(db_begin(db, false, &conn, NULL), 0);
	assert_int_equal(cut_forget_rows(cut, conn, NULL), 0);
	assert_int_equal(db_commit(db, NULL), 0);
}

static void test_cuts_are_exact_while_operations_go_on(void **state)
{
	static struct model before[FILES];
	static struct node_key before_key[FILES];
	static bool before_has[FILES];
	pthread_t threads[WORKERS];
	bool root_seen;

	(void)state;
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(i + 1)), 0);
	for (int round = 0; round < ROUNDS; round++) {
		struct cut *cut;
		int result;

		do {
			pthread_rwlock_wrlock(&world);
			memcpy(at_cut, live, sizeof live);
			result = journal_cut(journal, NS_PER_S, &cut);
			pthread_rwlock_unlock(&world);
		} while (result == ERR_ABSENT);
		assert_int_equal(result, ERR_OK);
		memcpy(before, built, sizeof built);
		memcpy(before_key, built_key, sizeof built_key);
		memcpy(before_has, built_has_key, sizeof built_has_key);
		result = take_cut(cut, &root_seen);
		if (round % 5 == 4) {
			/* Thrown away: its set is dirty again, and the next cut must bring all of it. */
			cut_abandon(cut);
			memcpy(built, before, sizeof built);
			memcpy(built_key, before_key, sizeof built_key);
			memcpy(built_has_key, before_has, sizeof built_has_key);
			continue;
		}
		assert_int_equal(result, ERR_OK);
		assert_false(cut_is_abandoned(cut));
		compare(round);
		forget_rows(cut);
		cut_commit(cut);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
}

/* I4, I6: files of the cut lose their names, more than there are descriptors to keep. */
static void test_i4_removed_beyond_descriptors(void **state)
{
	struct model *model = &live[2];
	struct node *node;
	struct cut *cut;
	unsigned seed = 5;
	bool root_seen;

	(void)state;
	if (!model->there)
		create(model);
	truncate_some(model, &seed);
	write_some(model, &seed);
	memcpy(at_cut, live, sizeof live);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	node = node_of(model->name);
	atomic_fetch_add(&journal->frozen_fds, FROZEN_FD_CAP);
	remove_it(model);
	backing_fd_drop(backing, node); /* as when the kernel forgets it */
	atomic_fetch_sub(&journal->frozen_fds, FROZEN_FD_CAP);
	assert_int_equal(take_cut(cut, &root_seen), 0);
	assert_false(cut_is_abandoned(cut));
	compare(-2);
	assert_int_equal(atomic_load(&journal->frozen_fds), 0);
	forget_rows(cut);
	cut_commit(cut);
	node_put(nodes, node);
}

/* I6: an operation does not wait while a large file is copied, but a hole is no reason to give a cut up. */
/* What waits is counted from the change to the last byte that the sealer reads, also while no list of changes has it any more. */
static void test_counts_of_a_cut(void **state)
{
	struct model *model = &live[2];
	struct journal_counts before, during, after;
	struct cut *cut;
	unsigned seed = 5;
	static char data[FILE_MAX];

	(void)state;
	if (!model->there)
		create(model);
	model->size = 0;
	write_some(model, &seed);
	journal_get_counts(journal, &before);
	assert_true(before.dirty_bytes > 0 && before.first_change_ns > 0);
	assert_int_equal(before.frozen_bytes, 0);
	assert_int_equal(before.frozen_first_ns, 0);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	journal_get_counts(journal, &during);
	assert_int_equal(during.dirty_bytes, 0);
	assert_int_equal(during.frozen_bytes, before.dirty_bytes);
	assert_true(during.frozen_first_ns == before.first_change_ns);
	for (size_t i = 0; i < cut_count(cut); i++) {
		struct attrs attrs;

		if (frozen_type(cut_item(cut, i)) != S_IFREG || frozen_attrs(cut_item(cut, i), &attrs) != 0)
			continue;
		assert_int_equal(frozen_read(cut_item(cut, i), data, sizeof data, 0, NULL), 0);
		attrs_free(&attrs);
	}
	journal_get_counts(journal, &after);
	assert_true(after.frozen_bytes < during.frozen_bytes);
	cut_abandon(cut);
	journal_get_counts(journal, &after);
	assert_int_equal(after.dirty_bytes, before.dirty_bytes);
	assert_int_equal(after.frozen_bytes, 0);
	assert_true(after.first_change_ns == before.first_change_ns);
}

static void test_i6_large_truncation(void **state)
{
	struct model *model = &live[3];
	unsigned seed = 9;
	int fd;

	(void)state;
	if (!model->there)
		create(model);
	fd = openat(backing_root_fd(backing), model->name, O_RDWR);
	for (int filled = 0; filled < 2; filled++) {
		struct mutation mutation;
		struct node *node = node_of(model->name);
		struct cut *cut;
		bool abandoned;

		assert_int_equal(mutation_begin(&mutation, journal), 0);
		mutation_lock(&mutation, node, NULL, NULL, NULL);
		assert_int_equal(mutation_data(&mutation, node, 0, -1), 0);
		assert_int_equal(ftruncate(fd, INT64_C(1) << 40), 0);
		if (filled)
			assert_int_equal(fallocate(fd, 0, 0, INT64_C(300) << 20), 0);
		mutation_end(&mutation);
		node_put(nodes, node);
		assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
		model->size = FILE_MAX;
		truncate_some(model, &seed);
		abandoned = cut_is_abandoned(cut);
		cut_abandon(cut);
		assert_int_equal(abandoned, filled);
		memset(model->bytes, 0, model->size);
	}
	close(fd);
}

/* A new one, recorded, whose changes are on the same list as those of `like`. */
static int open_all(bool clean)
{
	assert_int_equal(backing_open(directory, &backing, NULL), 0);
	nodes = node_table_new();
	assert_non_null(nodes);
	assert_int_equal(journal_open(db, backing, nodes, state_directory, clean, NULL, NULL, &journal, NULL), 0);
	root = node_of("");
	assert_non_null(root);
	return 0;
}

static void close_all(void)
{
	node_put(nodes, root);
	assert_int_equal(journal_close(journal, true, NULL), 0);
	backing_close(backing);
	node_table_free(nodes);
}

static void test_clean_stop_brings_the_rest_back(void **state)
{
	static struct model before[FILES];
	struct cut *cut;
	bool root_seen;
	unsigned seed = 11;

	(void)state;
	memcpy(before, built, sizeof built);
	if (!live[1].there)
		create(&live[1]);
	write_some(&live[1], &seed);
	truncate_some(&live[1], &seed);
	close_all();
	open_all(true);
	memcpy(at_cut, live, sizeof live);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	assert_int_equal(take_cut(cut, &root_seen), 0);
	compare(-1);
	forget_rows(cut);
	cut_commit(cut);
}

#define FEW 100 /* descriptors */

static size_t read_all_files(struct cut *cut)
{
	size_t files = 0;

	for (size_t i = 0; i < cut_count(cut); i++) {
		struct frozen *frozen = cut_item(cut, i);
		struct attrs attrs;
		char data[8] = "";

		assert_int_equal(frozen_attrs(frozen, &attrs), 0);
		if (S_ISREG(attrs.st.st_mode)) {
			assert_int_equal(attrs.st.st_size, 8);
			assert_int_equal(frozen_read(frozen, data, sizeof data, 0, NULL), 0);
			assert_memory_equal(data, "content!", 8);
			files++;
		}
		attrs_free(&attrs);
		frozen_done(frozen);
	}
	return files;
}

/* I6: a process that may have few descriptors removes more files of a cut than that. */
static void test_i6_few_descriptors(void **state)
{
	struct model *many = calloc(FEW, sizeof *many);
	struct rlimit before, few;
	struct cut *cut;

	(void)state;
	close_all();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){FEW, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	open_all(true);
	if (journal_cut(journal, NS_PER_S, &cut) == 0) {
		forget_rows(cut);
		cut_commit(cut);
	}
	for (int i = 0; i < FEW; i++) {
		snprintf(many[i].name, sizeof many[i].name, "few%d", i);
		create(&many[i]);
		int fd = openat(backing_root_fd(backing), many[i].name, O_WRONLY);
		assert_int_equal(io_pwrite(fd, "content!", 8, 0), 0);
		close(fd);
	}
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	for (int i = 0; i < FEW; i++) {
		struct node *node = node_of(many[i].name);

		assert_non_null(node); /* there is a descriptor for this */
		remove_it(&many[i]);
		backing_fd_drop(backing, node);
		node_put(nodes, node);
	}
	assert_false(cut_is_abandoned(cut));
	assert_int_equal(read_all_files(cut), FEW);
	forget_rows(cut);
	cut_commit(cut);
	close_all();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	open_all(true);
	free(many);
}

/* Removed behind the mount before an operation had to save its bytes: that is no trouble of the disk. */
static void test_removed_before_it_was_saved(void **state)
{
	struct model model = {.name = "behind"};
	struct mutation mutation;
	struct attrs attrs;
	struct cut *cut;
	unsigned seed = 11;
	size_t at = 0;

	(void)state;
	create(&model);
	struct node *node = node_of(model.name);
	write_some(&model, &seed);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	while (!node_key_equal(frozen_key(cut_item(cut, at)), &node->key))
		at++;
	chmod_some(&model, &seed); /* which saves its attributes */
	assert_int_equal(unlinkat(backing_root_fd(backing), model.name, 0), 0);
	backing_fd_drop(backing, node);
	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, 0, -1), 0);
	mutation_end(&mutation);
	assert_int_equal(frozen_attrs(cut_item(cut, at), &attrs), ERR_ABSENT);
	assert_false(cut_is_abandoned(cut));
	forget_rows(cut);
	cut_commit(cut);
	node_put(nodes, node);
}

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/yester-journal-XXXXXX");
	assert_non_null(mkdtemp(directory));
	char path[128];
	snprintf(path, sizeof path, "%s/state", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	strcpy(state_directory, path);
	assert_int_equal(db_open(path, true, &db, NULL), 0);
	snprintf(path, sizeof path, "%s/tree", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	strcpy(directory, path);
	for (int i = 0; i < FILES; i++) {
		snprintf(live[i].name, sizeof live[i].name, "file%d", i);
		memcpy(built[i].name, live[i].name, sizeof live[i].name);
		pthread_mutex_init(&file_locks[i], NULL);
	}
	return open_all(true);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	node_put(nodes, root);
	assert_int_equal(journal_close(journal, false, NULL), 0);
	assert_int_equal(node_table_count(nodes), 0);
	backing_close(backing);
	node_table_free(nodes);
	db_close(db);
	directory[strlen(directory) - strlen("/tree")] = '\0';
	snprintf(command, sizeof command, "rm -rf '%s'", directory);
	return system(command) == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cuts_are_exact_while_operations_go_on),
		cmocka_unit_test(test_clean_stop_brings_the_rest_back),
		cmocka_unit_test(test_i4_removed_beyond_descriptors),
		cmocka_unit_test(test_counts_of_a_cut), cmocka_unit_test(test_i6_large_truncation),
		cmocka_unit_test(test_i6_few_descriptors), cmocka_unit_test(test_removed_before_it_was_saved),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

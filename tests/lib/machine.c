#include "machine.h"

#include "catalogue.h"
#include "clock.h"
#include "db_internal.h"
#include "io.h"
#include "recover.h"
#include "sync.h"
#include "unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void machine_ok(struct machine *machine, int rc)
{
	if (rc)
		fail_msg("%s (%s)", machine->error.message, error_word(rc));
}

/* The environment says whose config and state it is. */
static void enter(struct machine *machine)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/config", machine->base);
	setenv("YESTER_CONFIG_DIR", path, 1);
	snprintf(path, sizeof(path), "%s/state", machine->base);
	setenv("YESTER_STATE_DIR", path, 1);
	memset(&machine->error, 0, sizeof(machine->error));
}

static void shell(const char *command)
{
	int status = system(command);

	if (status)
		fail_msg("%s: status %d", command, status);
}

static void run_in_tree(struct machine *machine, const char *format, va_list args)
{
	char text[1024], *command;

	vsnprintf(text, sizeof(text), format, args);
	command = io_printf("cd %s && { %s; }", machine->tree, text);
	shell(command);
	free(command);
}

void machine_run(struct machine *machine, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	run_in_tree(machine, format, args);
	va_end(args);
}

void machine_make(struct machine *machine, const char *name, const char *remote)
{
	char url[160], path[160];
	FILE *file;

	memset(machine, 0, sizeof(*machine));
	snprintf(machine->base, sizeof(machine->base), "/tmp/yester-%s-XXXXXX", name);
	assert_non_null(mkdtemp(machine->base));
	snprintf(machine->tree, sizeof(machine->tree), "%s/tree", machine->base);
	snprintf(machine->remote, sizeof(machine->remote), remote ? "%.120s" : "%.100s/remote", remote ? remote : machine->base);
	assert_int_equal(mkdir(machine->tree, 0755), 0);
	snprintf(path, sizeof(path), "%s/config", machine->base);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(machine->passphrase, sizeof(machine->passphrase), "%s/passphrase", machine->base);
	file = fopen(machine->passphrase, "w");
	fputs("correct horse\n", file);
	fclose(file);
	chmod(machine->passphrase, 0600);
	enter(machine);
	machine->config = config_new("docs");
	machine->config->directory = strdup(machine->tree);
	snprintf(url, sizeof(url), "file://%s", machine->remote);
	machine->config->remote = strdup(url);
	machine->config->interval_ns = 3600 * NS_PER_S; /* tests say when */
	machine->unlock.passphrase_file = machine->passphrase;
}

void machine_free(struct machine *machine)
{
	char *command = io_printf("rm -rf %s", machine->base);

	if (machine->engine)
		machine_unmount(machine, 0, false);
	config_free(machine->config);
	shell(command);
	free(command);
}

struct machine *machine_setup(void **state, const char *name)
{
	struct machine *machine = calloc(1, sizeof(*machine));

	machine_make(machine, name, NULL);
	*state = machine;
	return machine;
}

int machine_teardown(void **state)
{
	machine_free(*state);
	free(*state);
	return 0;
}

void machine_init(struct machine *machine)
{
	struct init_result result;

	enter(machine);
	MACHINE_OK(machine, sync_engine()->init(machine->config, &machine->unlock, &result, &machine->error));
}

void machine_clone(struct machine *machine)
{
	struct clone_result result;

	enter(machine);
	rmdir(machine->tree);
	MACHINE_OK(machine, sync_engine()->clone(machine->config, &machine->unlock, -1, NULL, NULL, &result, &machine->error));
}

void machine_open(struct machine *machine, bool take_over, bool accept_loss)
{
	struct engine_options options = {.take_over = take_over, .accept_loss = accept_loss};

	enter(machine);
	MACHINE_OK(machine, volume_open(machine->config, &machine->volume, &machine->error));
	MACHINE_OK(machine, volume_open_backing(machine->volume, false, &machine->error));
	MACHINE_OK(machine, sync_engine()->open(machine->volume, &options, &machine->engine, &machine->error));
}

void machine_start(struct machine *machine)
{
	enter(machine);
	MACHINE_OK(machine, sync_engine()->start(machine->engine, &machine->error));
}

void machine_mount(struct machine *machine, bool take_over, bool accept_loss)
{
	machine_open(machine, take_over, accept_loss);
	machine_start(machine);
}

int machine_unmount(struct machine *machine, int64_t drain_ns, bool clean)
{
	int rc = sync_engine()->stop(machine->engine, drain_ns, &machine->error);

	sync_engine()->close(machine->engine);
	volume_close(machine->volume, clean);
	machine->engine = NULL;
	machine->volume = NULL;
	return rc;
}

void machine_begin(struct machine *machine, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	run_in_tree(machine, format, args);
	va_end(args);
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
}

int machine_sync(struct machine *machine)
{
	int64_t version;

	memset(&machine->error, 0, sizeof(machine->error));
	return sync_engine()->sync(machine->engine, false, 60 * NS_PER_S, &version, &machine->error);
}

struct engine_status machine_status(struct machine *machine)
{
	struct engine_status status;

	sync_engine()->status(machine->engine, &status);
	return status;
}

void machine_look_again(struct machine *machine, const char *what, int64_t began_ns)
{
	struct engine_status status = machine_status(machine);

	if (clock_mono_ns() - began_ns > 60 * NS_PER_S)
		fail_msg("waited a minute for %s: state %s, version %lld, confirmed %lld, %llu bytes in the spool, last error \"%s\"", what,
			 engine_state_word(status.state), (long long)status.head, (long long)status.confirmed,
			 (unsigned long long)status.spool_bytes, status.last_error);
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

int64_t machine_int(struct machine *machine, const char *query)
{
	struct db_conn *conn;
	int64_t value = -1;
	sqlite3_stmt *stmt;

	assert_int_equal(db_read_begin(volume_db(machine->volume), &conn, NULL), 0);
	assert_int_equal(sqlite3_prepare_v2(db_handle(conn), query, -1, &stmt, NULL), SQLITE_OK);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	db_read_end(volume_db(machine->volume), conn);
	return value;
}

/* ---------------------------------------------------------------- comparing */

static void dump(struct db *db, const char *query, struct buf *out)
{
	struct db_conn *conn;
	sqlite3_stmt *stmt;

	assert_int_equal(db_read_begin(db, &conn, NULL), 0);
	assert_int_equal(sqlite3_prepare_v2(db_handle(conn), query, -1, &stmt, NULL), SQLITE_OK);
	buf_printf(out, "%s\n", query);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(stmt); i++) {
			const uint8_t *bytes = sqlite3_column_blob(stmt, i);
			if (sqlite3_column_type(stmt, i) == SQLITE_BLOB)
				for (int j = 0; j < sqlite3_column_bytes(stmt, i); j++)
					buf_printf(out, "%02x", bytes[j]);
			else
				buf_printf(out, "%s", sqlite3_column_type(stmt, i) == SQLITE_NULL
							      ? "-" : (const char *)sqlite3_column_text(stmt, i));
			buf_printf(out, "|");
		}
		buf_printf(out, "\n");
	}
	sqlite3_finalize(stmt);
	db_read_end(db, conn);
}

static void dump_shared(struct db *db, struct buf *out)
{
	static const char *const queries[] = { /* the newest versions' server time is told by a later record */
		"SELECT seq, time_s, cut_ns, flags FROM version ORDER BY seq", "SELECT * FROM inode ORDER BY ino",
		"SELECT * FROM inode_past ORDER BY ino, vto", "SELECT * FROM name ORDER BY dir, name",
		"SELECT dir, name, vto, vfrom, fork, ino FROM name_past ORDER BY dir, name, vto",
		"SELECT * FROM extent ORDER BY ino, start", "SELECT * FROM extent_past ORDER BY ino, fork, vto, start",
		"SELECT * FROM chunk ORDER BY num", "SELECT * FROM pack ORDER BY num", "SELECT * FROM pin ORDER BY name",
	};

	for (size_t i = 0; i < sizeof(queries) / sizeof(*queries); i++)
		dump(db, queries[i], out);
}

static void compare_catalogues(struct machine *machine)
{
	struct volume_descriptor descriptor;
	struct recover_head head;
	struct master *master;
	struct store *store;
	struct buf ours = {0}, theirs = {0};
	struct db *db;
	char dir[160];

	snprintf(dir, sizeof(dir), "%s/recovered", machine->base);
	assert_int_equal(mkdir(dir, 0700), 0);
	MACHINE_OK(machine, db_open(dir, true, &db, &machine->error));
	MACHINE_OK(machine, store_open(machine->config, false, 1, &store, &machine->error));
	MACHINE_OK(machine, recover_unlock(store, &machine->unlock, machine->config, NULL, NULL, &descriptor, &master,
					   &machine->error));
	MACHINE_OK(machine, recover_catalogue(store, master, db, dir, NULL, NULL, &head, &machine->error));
	dump_shared(db, &theirs);
	dump_shared(volume_db(machine->volume), &ours);
	assert_string_equal((char *)ours.data, (char *)theirs.data);
	buf_free(&ours);
	buf_free(&theirs);
	master_free(master);
	store_close(store);
	db_close(db);
	char *command = io_printf("rm -rf %s", dir);
	shell(command);
	free(command);
}

void machine_compare(struct machine *machine)
{
	struct machine other;

	compare_catalogues(machine);
	machine_make(&other, "other", machine->remote);
	machine_clone(&other);
	for (int i = 0; i < 2; i++) {
		char *command = io_printf("cd %s && { find . -printf '%%p %%y %%m %%U %%G %%n %%l %%T@\n'; find . -type f -exec sha256sum {} +; "
					  "getfattr -dhR -m - . 2>/dev/null; } | sort >%s/list%d",
					  i ? other.tree : machine->tree, other.base, i);
		shell(command);
		free(command);
	}
	char *command = io_printf("diff %s/list0 %s/list1", other.base, other.base);
	shell(command);
	free(command);
	machine_free(&other);
	enter(machine);
}

/* ---------------------------------------------------------------- operations */

static struct node *node_of(struct machine *machine, const char *path)
{
	struct backing *backing = volume_backing(machine->volume);
	struct node_key key;
	struct stat st;
	int fd;
	int rc = backing_identify(backing, backing_root_fd(backing), path, &key, &st, &fd); /* its mount is not the path's */
	struct node *node = rc ? NULL : node_get(volume_nodes(machine->volume), &key, st.st_mode, fd);

	assert_int_equal(rc, 0);
	assert_non_null(node);
	close(fd);
	return node;
}

static struct node *parent_of(struct machine *machine, const char *path, char name[256])
{
	char *copy = strdup(path), *slash = strrchr(copy, '/');
	struct node *node;

	snprintf(name, 256, "%s", slash ? slash + 1 : path);
	if (slash)
		*slash = '\0';
	node = node_of(machine, slash ? copy : "");
	free(copy);
	return node;
}

static void put(struct machine *machine, struct node *node)
{
	if (node)
		node_put(volume_nodes(machine->volume), node);
}

void machine_write(struct machine *machine, const char *path, int64_t offset, const void *data, size_t length)
{
	struct node *node = node_of(machine, path);
	struct mutation mutation;
	int fd = backing_reopen(volume_backing(machine->volume), node, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, offset, (int64_t)length), 0);
	assert_int_equal(pwrite(fd, data, length, offset), (ssize_t)length);
	mutation_end(&mutation);
	close(fd);
	put(machine, node);
}

void machine_fail_to_write(struct machine *machine, const char *path, int64_t offset, int64_t length)
{
	struct node *node = node_of(machine, path);
	struct mutation mutation;

	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, offset, length), 0);
	mutation_end(&mutation);
	put(machine, node);
}

void machine_truncate(struct machine *machine, const char *path, int64_t size)
{
	struct node *node = node_of(machine, path);
	struct mutation mutation;
	struct stat st;
	int fd = backing_reopen(volume_backing(machine->volume), node, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_data(&mutation, node, st.st_size < size ? st.st_size : size, -1), 0);
	assert_int_equal(ftruncate(fd, size), 0);
	mutation_end(&mutation);
	close(fd);
	put(machine, node);
}

void machine_create(struct machine *machine, const char *path)
{
	char name[256], *full = io_printf("%s/%s", machine->tree, path);
	struct node *dir = parent_of(machine, path, name), *node;
	struct mutation mutation;
	int fd;

	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, dir, NULL, NULL, NULL);
	assert_int_equal(mutation_name(&mutation, dir, name), 0);
	fd = open(full, O_CREAT | O_EXCL | O_WRONLY, 0644);
	assert_true(fd >= 0);
	node = node_of(machine, path);
	mutation_adopt(&mutation, node);
	mutation_set_name(&mutation, 0, node);
	mutation_end(&mutation);
	close(fd);
	free(full);
	put(machine, node);
	put(machine, dir);
}

void machine_unlink(struct machine *machine, const char *path)
{
	char name[256], *full = io_printf("%s/%s", machine->tree, path);
	struct node *dir = parent_of(machine, path, name), *node = node_of(machine, path);
	struct mutation mutation;

	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, dir, node, NULL, NULL);
	assert_int_equal(mutation_name(&mutation, dir, name), 0);
	assert_int_equal(mutation_unname(&mutation, node), 0);
	assert_int_equal(unlink(full), 0);
	mutation_set_name(&mutation, 0, NULL);
	mutation_end(&mutation);
	free(full);
	put(machine, node);
	put(machine, dir);
}

void machine_rename(struct machine *machine, const char *from, const char *to)
{
	char from_name[256], to_name[256];
	char *full_from = io_printf("%s/%s", machine->tree, from), *full_to = io_printf("%s/%s", machine->tree, to);
	struct node *from_dir = parent_of(machine, from, from_name), *to_dir = parent_of(machine, to, to_name);
	struct node *node = node_of(machine, from);
	struct mutation mutation;

	assert_int_equal(mutation_begin(&mutation, volume_journal(machine->volume)), 0);
	mutation_lock(&mutation, from_dir, to_dir, node, NULL);
	assert_int_equal(mutation_name(&mutation, from_dir, from_name), 0);
	assert_int_equal(mutation_name(&mutation, to_dir, to_name), 0);
	assert_int_equal(mutation_attrs(&mutation, node), 0);
	assert_int_equal(rename(full_from, full_to), 0);
	mutation_set_name(&mutation, 0, NULL);
	mutation_set_name(&mutation, 1, node);
	mutation_end(&mutation);
	free(full_from);
	free(full_to);
	put(machine, node);
	put(machine, from_dir);
	put(machine, to_dir);
}

#include "tree_volume.h"

#include <grp.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

char tree_path[128];
struct volume *volume;
struct error error;
bool in_child;

static char base[64];
static struct volume_config *config;

int tree_volume_setup(void **state)
{
	const char *parent = getenv("TMPDIR");
	char path[96];

	(void)state;
	snprintf(base, sizeof base, "%s/volume-XXXXXX", parent && strlen(parent) < 40 ? parent : "/tmp");
	if (!mkdtemp(base) || chmod(base, 0755) < 0)
		return -1;
	snprintf(tree_path, sizeof tree_path, "%s/tree", base);
	snprintf(path, sizeof path, "%s/state", base);
	if (mkdir(tree_path, 0755) < 0 || mkdir(path, 0777) < 0 || chmod(path, 0777) < 0)
		return -1;
	setenv("YESTER_STATE_DIR", path, 1);
	config = config_new("test");
	config->directory = strdup(tree_path);
	return 0;
}

int tree_volume_teardown(void **state)
{
	char command[200];

	(void)state;
	volume_close(volume, false);
	volume = NULL;
	config_free(config);
	snprintf(command, sizeof command, "chmod -R u+rwX %s; rm -rf %s", base, base);
	return system(command) == 0 ? 0 : -1;
}

void tree_volume_create(void)
{
	OK(volume_create(config, &volume, &error));
	OK(volume_open_backing(volume, false, &error));
}

void tree_volume_open(void)
{
	OK(volume_open(config, &volume, &error));
	OK(volume_open_backing(volume, false, &error));
}

void tree_volume_sql(const char *text)
{
	struct db_conn *conn;

	OK(db_begin(volume_db(volume), false, &conn, &error));
	OK(db_exec(conn, text, &error));
	OK(db_commit(volume_db(volume), &error));
}

int64_t tree_volume_int(const char *query)
{
	struct db_conn *conn;
	sqlite3_stmt *stmt;
	int64_t value;

	OK(db_read_begin(volume_db(volume), &conn, &error));
	assert_int_equal(sqlite3_prepare_v2(db_handle(conn), query, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	db_read_end(volume_db(volume), conn);
	return value;
}

void tree_run(const char *format, ...)
{
	char command[1024];
	va_list args;
	int n = snprintf(command, sizeof command, "cd %s && ", tree_path);

	va_start(args, format);
	vsnprintf(command + n, sizeof command - (size_t)n, format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}

void tree_as_nobody(int (*fn)(void))
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	tree_run("chown -hR 65534:65534 .");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		in_child = true;
		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
			_exit(97);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

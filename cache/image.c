#include "image.h"
#include "db_internal.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VFS_NAME "yester-fd"
#define HEADER_BYTES 100
#define VALUE_LIMIT (16 << 20) /* no value of ours is larger: xattrs of an inode have 16 MiB at most */

/* --- The VFS: the file "fd:N" is descriptor N (https://sqlite.org/vfs.html) --- */

struct fd_file {
	sqlite3_file base;
	int fd;
};

static struct fd_file *fd_file(sqlite3_file *file) { return (struct fd_file *)file; }

static int fd_close(sqlite3_file *file)
{
	(void)file; /* the descriptor is the caller's */
	return SQLITE_OK;
}

static int fd_read(sqlite3_file *file, void *data, int length, sqlite3_int64 offset)
{
	ssize_t got = io_pread(fd_file(file)->fd, data, (size_t)length, offset);

	if (got < 0)
		return SQLITE_IOERR_READ;
	if (got == length)
		return SQLITE_OK;
	memset((char *)data + got, 0, (size_t)(length - got));
	return SQLITE_IOERR_SHORT_READ;
}

static int fd_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 offset)
{
	if (io_pwrite(fd_file(file)->fd, data, (size_t)length, offset) == 0)
		return SQLITE_OK;
	return errno == ENOSPC || errno == EDQUOT ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static int fd_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return ftruncate(fd_file(file)->fd, size) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

static int fd_size(sqlite3_file *file, sqlite3_int64 *size)
{
	struct stat st;

	if (fstat(fd_file(file)->fd, &st) != 0)
		return SQLITE_IOERR_FSTAT;
	*size = st.st_size;
	return SQLITE_OK;
}

static int fd_sync(sqlite3_file *file, int flags) { (void)file, (void)flags; return SQLITE_OK; }
static int fd_lock(sqlite3_file *file, int level) { (void)file, (void)level; return SQLITE_OK; }
static int fd_check_lock(sqlite3_file *file, int *reserved) { (void)file; *reserved = 0; return SQLITE_OK; }
static int fd_control(sqlite3_file *file, int op, void *arg) { (void)file, (void)op, (void)arg; return SQLITE_NOTFOUND; }
static int fd_sector(sqlite3_file *file) { (void)file; return 4096; }
static int fd_features(sqlite3_file *file) { (void)file; return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

static const sqlite3_io_methods fd_methods = {
	.iVersion = 1, /* no shared memory: SQLite can't open a WAL here */
	.xClose = fd_close, .xRead = fd_read, .xWrite = fd_write, .xTruncate = fd_truncate, .xSync = fd_sync,
	.xFileSize = fd_size, .xLock = fd_lock, .xUnlock = fd_lock, .xCheckReservedLock = fd_check_lock,
	.xFileControl = fd_control, .xSectorSize = fd_sector, .xDeviceCharacteristics = fd_features,
};

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
	(void)vfs;
	file->pMethods = NULL;
	if (!name || strncmp(name, "fd:", 3) != 0 || !(flags & SQLITE_OPEN_MAIN_DB))
		return SQLITE_CANTOPEN;
	fd_file(file)->fd = atoi(name + 3);
	file->pMethods = &fd_methods;
	if (out_flags)
		*out_flags = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync) { (void)vfs, (void)name, (void)sync; return SQLITE_OK; }
static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
	(void)vfs, (void)name, (void)flags;
	*out = 0;
	return SQLITE_OK;
}
static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int room, char *out)
{
	(void)vfs;
	return snprintf(out, (size_t)room, "%s", name) < room ? SQLITE_OK : SQLITE_CANTOPEN;
}

static sqlite3_vfs fd_vfs; /* a copy of the default one, for time and randomness */
static pthread_once_t fd_vfs_once = PTHREAD_ONCE_INIT;

static void fd_vfs_register(void)
{
	const sqlite3_vfs *base = sqlite3_vfs_find(NULL); /* initialises SQLite */

	if (!base)
		return; /* opening fails then: no such vfs */
	fd_vfs = *base;
	fd_vfs.iVersion = 2; /* without the system call table of the default VFS */
	fd_vfs.szOsFile = sizeof(struct fd_file);
	fd_vfs.zName = VFS_NAME;
	fd_vfs.pNext = NULL;
	fd_vfs.xOpen = vfs_open;
	fd_vfs.xDelete = vfs_delete;
	fd_vfs.xAccess = vfs_access;
	fd_vfs.xFullPathname = vfs_full_pathname;
	sqlite3_vfs_register(&fd_vfs, 0);
}

static int connect_fd(int fd, int flags, struct db_conn **out, struct error *error)
{
	char name[16];

	pthread_once(&fd_vfs_once, fd_vfs_register);
	snprintf(name, sizeof(name), "fd:%d", fd);
	return db_conn_open(name, flags, VFS_NAME, out, error);
}

/* --- Making one --- */

int image_file(const char *tmp_dir, struct error *error)
{
	int fd = open(tmp_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return error_errno(error, errno, "%s: temporary file", tmp_dir);
	char *path = io_printf("%s/tmp-XXXXXX", tmp_dir);
	fd = path ? mkostemp(path, O_CLOEXEC) : -1;
	int rc = fd >= 0 ? fd : error_errno(error, errno, "%s: temporary file", tmp_dir);
	if (fd >= 0)
		unlink(path);
	free(path);
	return rc;
}

int image_create(int fd, int page_bytes, const char *const tables[], size_t count, struct db_conn **out,
		 struct error *error)
{
	char pragmas[160];
	int rc = connect_fd(fd, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, out, error);

	if (rc)
		return rc;
	snprintf(pragmas, sizeof(pragmas), "PRAGMA main.page_size=%d; PRAGMA main.journal_mode=OFF; "
		 "PRAGMA main.synchronous=OFF; PRAGMA main.cache_size=-8192", page_bytes);
	sqlite3_db_config(db_handle(*out), SQLITE_DBCONFIG_DEFENSIVE, 0, NULL); /* it forbids journal_mode=OFF */
	rc = db_exec(*out, pragmas, error);
	sqlite3_db_config(db_handle(*out), SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	if (!rc)
		rc = db_exec(*out, "BEGIN IMMEDIATE", error);
	for (size_t i = 0; i < count && !rc; i++)
		rc = db_exec(*out, tables[i], error);
	if (rc) {
		db_conn_close(*out);
		*out = NULL;
	}
	return rc;
}

/* --- Opening one from elsewhere --- */

/* The fixed header (https://sqlite.org/fileformat2.html 1.3): rollback journal mode, and a size that is that of the file. */
static int check_header(int fd, uint64_t length, const char *what, struct error *error)
{
	uint8_t header[HEADER_BYTES];
	struct stat st;
	ssize_t got = io_pread(fd, header, sizeof(header), 0);

	if (got < 0 || fstat(fd, &st) != 0)
		return error_errno(error, errno, "%s", what);
	if (got < HEADER_BYTES || (uint64_t)st.st_size != length || memcmp(header, "SQLite format 3", 16) != 0)
		return error_set(error, ERR_CORRUPT, 0, "%s: not a database image", what);
	uint32_t page = (uint32_t)header[16] << 8 | header[17];
	uint32_t pages = (uint32_t)header[28] << 24 | (uint32_t)header[29] << 16 | (uint32_t)header[30] << 8 | header[31];
	if (page == 1)
		page = 65536;
	if (page < 512 || (page & (page - 1)) || header[18] != 1 || header[19] != 1 || header[20] != 0 ||
	    header[59] != 1 /* UTF-8 */ || (uint64_t)page * pages != length)
		return error_set(error, ERR_CORRUPT, 0, "%s: bad database image header", what);
	return 0;
}

/* "CREATE TABLE name(..." -> true when `name` is that name. */
static bool names_table(const char *sql, const char *name)
{
	size_t length = strlen(name);

	return strncmp(sql, "CREATE TABLE ", 13) == 0 && strncmp(sql + 13, name, length) == 0 && sql[13 + length] == '(';
}

static bool column_is(sqlite3_stmt *stmt, int column, const char *text)
{
	const void *found = sqlite3_column_text(stmt, column);
	size_t length = (size_t)sqlite3_column_bytes(stmt, column);

	return found && length == strlen(text) && memcmp(found, text, length) == 0;
}

static int check_schema(struct db_conn *conn, const char *what, const char *const tables[], size_t count,
			struct error *error)
{
	int rc = db_step(conn, error, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid", "");
	sqlite3_stmt *stmt = db_last(conn);
	size_t i = 0;

	for (; rc == 1; i++) {
		const char *name = (const char *)sqlite3_column_text(stmt, 1);
		bool good = i < count && name && column_is(stmt, 0, "table") && column_is(stmt, 3, tables[i]) &&
			    names_table(tables[i], name) && column_is(stmt, 2, name);
		if (!good)
			break;
		rc = db_next(conn, stmt, error);
	}
	if (stmt)
		db_reset(stmt);
	if (rc < 0)
		return rc;
	if (i != count || rc != 0)
		return error_set(error, ERR_CORRUPT, 0, "%s: unknown schema", what);
	return 0;
}

static int check_integrity(struct db_conn *conn, const char *what, struct error *error)
{
	int rc = db_step(conn, error, "PRAGMA integrity_check(1)", "");

	if (rc < 0)
		return rc;
	const char *text = rc ? (const char *)sqlite3_column_text(db_last(conn), 0) : NULL;
	rc = text && strcmp(text, "ok") == 0 ? 0 : error_set(error, ERR_CORRUPT, 0, "%s: %s", what, text ? text : "damaged");
	db_reset(db_last(conn));
	return rc;
}

int image_open(int fd, uint64_t length, const char *what, const char *const tables[], size_t count,
	       struct db_conn **out, struct error *error)
{
	int rc = check_header(fd, length, what, error);

	*out = NULL;
	if (!rc)
		rc = connect_fd(fd, SQLITE_OPEN_READONLY, out, error);
	if (rc)
		return rc;
	sqlite3 *handle = db_handle(*out);
	sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, VALUE_LIMIT + (1 << 20));
	sqlite3_limit(handle, SQLITE_LIMIT_SQL_LENGTH, 16 << 10);
	sqlite3_limit(handle, SQLITE_LIMIT_COLUMN, 64);
	sqlite3_limit(handle, SQLITE_LIMIT_ATTACHED, 0);
	sqlite3_limit(handle, SQLITE_LIMIT_TRIGGER_DEPTH, 1);
	rc = check_schema(*out, what, tables, count, error);
	if (!rc)
		rc = check_integrity(*out, what, error);
	/* SQLite says "error in schema" or "no such table" about a schema that makes no sense to it: damage all the same. */
	if (rc == ERR_FAILED && sqlite3_system_errno(handle) == 0)
		rc = error_set(error, ERR_CORRUPT, 0, "%s: %s", what, sqlite3_errmsg(handle));
	if (rc) {
		db_conn_close(*out);
		*out = NULL;
	}
	return rc;
}

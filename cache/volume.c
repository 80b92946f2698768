#include "volume.h"

#include "behind.h"
#include "catalogue.h"
#include "clock.h"
#include "history.h"
#include "io.h"
#include "log.h"
#include "rescan.h"
#include "suspect.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct volume {
	const struct volume_config *config; /* the caller's; outlives the volume */
	char *state_path;
	int state_fd, spool_fd, lock_fd;
	struct db *db;
	struct backing *backing;
	struct node_table *nodes;
	struct node *root; /* number 1; NULL before volume_open_backing */
	struct journal *journal;
	bool started_clean;  /* how the last session ended, as volume_start_journal found it */
	atomic_bool marked;  /* the file `rebuild` is there */
	atomic_bool scanned; /* a rescan of this session came to its end */
	struct chunk_cache *chunk_cache;
	struct remote *remote;
	const struct behind_listener *listener;
};

static struct volume *volume_new(const struct volume_config *config)
{
	struct volume *volume = calloc(1, sizeof *volume);
	char *base = state_dir();

	if (volume && base) {
		volume->config = config;
		volume->state_fd = volume->spool_fd = volume->lock_fd = -1;
		volume->state_path = io_printf("%s/%s", base, config->name);
	}
	free(base);
	if (!volume || !volume->state_path) {
		free(volume);
		return NULL;
	}
	return volume;
}

static int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, 0, "opening the volume: out of memory");
}

/* The state directory must not lie where our own mount would serve it: every database write would wait for ourselves. */
static int check_apart(const struct volume *volume, struct error *error)
{
	char state[PATH_MAX], directory[PATH_MAX];
	size_t length;

	if (!volume->config->directory || !realpath(volume->state_path, state) ||
	    !realpath(volume->config->directory, directory))
		return ERR_OK; /* absent: somebody else says so */
	length = strlen(directory);
	if (strncmp(state, directory, length) == 0 && (state[length] == '/' || state[length] == '\0'))
		return error_set(error, ERR_USAGE, 0,
				 "the state directory %s lies below %s: it can't record itself; set YESTER_STATE_DIR to "
				 "a directory elsewhere",
				 state, directory);
	return ERR_OK;
}

static int open_state(struct volume *volume, struct error *error)
{
	struct stat st;

	volume->state_fd = open(volume->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume->state_fd < 0)
		return error_errno(error, errno, "state directory %s", volume->state_path);
	if (fstat(volume->state_fd, &st) != 0)
		return error_errno(error, errno, "state directory %s", volume->state_path);
	/* Fault 49. */
	if ((st.st_mode & 077) != 0 || st.st_uid != geteuid())
		return error_set(error, ERR_DENIED, 0,
				 "state directory %s: it must belong to you and be closed to others; chmod 700 %s",
				 volume->state_path, volume->state_path);
	volume->spool_fd = openat(volume->state_fd, "spool", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume->spool_fd < 0)
		return error_errno(error, errno, "%s/spool", volume->state_path);
	return check_apart(volume, error);
}

static pid_t lock_owner(int fd)
{
	char text[32] = "";
	ssize_t got = pread(fd, text, sizeof text - 1, 0);

	return got > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

static int take_lock(struct volume *volume, struct error *error)
{
	char text[32];
	int length;

	volume->lock_fd = openat(volume->state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (volume->lock_fd < 0)
		return error_errno(error, errno, "%s/lock", volume->state_path);
	if (flock(volume->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK)
			return error_errno(error, errno, "%s/lock", volume->state_path);
		return error_set(error, ERR_BUSY, 0, "%s: already mounted or in use (process %d); yester umount %s",
				 volume->config->directory ? volume->config->directory : volume->config->name,
				 (int)lock_owner(volume->lock_fd),
				 volume->config->directory ? volume->config->directory : "DIR");
	}
	length = snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (ftruncate(volume->lock_fd, 0) != 0 || io_pwrite(volume->lock_fd, text, (size_t)length, 0) != 0)
		return error_errno(error, errno, "%s/lock", volume->state_path);
	return ERR_OK;
}

/* `reader`: beside a process that writes, or without the right to. */
static int open_parts(struct volume *volume, bool create, bool reader, struct error *error)
{
	char *cache_path = io_printf("%s/cache", volume->state_path);
	int result = ERR_OK;

	volume->nodes = node_table_new();
	if (!cache_path || !volume->nodes)
		result = no_memory(error);
	if (result == ERR_OK)
		result = reader ? db_open_reader(volume->state_path, &volume->db, error) :
				  db_open(volume->state_path, create, &volume->db, error);
	if (result == ERR_OK)
		result = chunk_cache_open(cache_path, volume->config->cache_limit_bytes, &volume->chunk_cache, error);
	free(cache_path);
	return result;
}

#define REBUILD "rebuild"

bool volume_is_damaged(struct volume *volume)
{
	static const char why[] = "yester: volume.db was found damaged; the next mount makes a new one\n";
	struct error error;

	if (!volume->db || !db_damaged(volume->db))
		return false;
	if (atomic_load(&volume->marked) || volume->lock_fd < 0) /* beside a mount, which may have a new one by now */
		return true;
	if (io_replace_file(volume->state_fd, REBUILD, why, sizeof why - 1, 0600, &error) == ERR_OK)
		atomic_store(&volume->marked, true);
	else
		log_error("%s: can't note that the database is damaged: %s", volume->config->name, error.message);
	return true;
}

/* ERR_CORRUPT: volume_is_damaged was there. */
static int find_mark(struct volume *volume, struct error *error)
{
	if (faccessat(volume->state_fd, REBUILD, F_OK, 0) == 0)
		return error_set(error, ERR_CORRUPT, 0, "%s/volume.db: it was found damaged while it was in use", volume->state_path);
	return errno == ENOENT ? ERR_OK : error_errno(error, errno, "%s/" REBUILD, volume->state_path);
}

/* A damaged database is only a cache: it is kept for the curious and out of the way. The mark goes last: a kill before that has it done again. */
static int set_aside(struct volume *volume, struct error *error)
{
	static const char *const files[] = {"volume.db", "volume.db-wal", "volume.db-shm"};
	int64_t now_s = clock_wall_ns() / NS_PER_S;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char to[64];

		snprintf(to, sizeof to, "%s.damaged-%lld", files[i], (long long)now_s);
		if (renameat(volume->state_fd, files[i], volume->state_fd, to) != 0 && errno != ENOENT)
			return error_errno(error, errno, "%s/%s: can't be set aside", volume->state_path, files[i]);
	}
	if (io_fsync_dir(volume->state_fd) != 0 || (unlinkat(volume->state_fd, REBUILD, 0) != 0 && errno != ENOENT))
		return error_errno(error, errno, "state directory %s", volume->state_path);
	return ERR_CORRUPT;
}

int volume_create(const struct volume_config *config, struct volume **out, struct error *error)
{
	struct volume *volume = volume_new(config);
	char *base = state_dir();
	int result;

	if (!volume || !base) {
		result = no_memory(error);
		goto out;
	}
	result = io_mkdirs(base, error);
	if (result != ERR_OK)
		goto out;
	if (mkdir(volume->state_path, 0700) != 0) {
		result = errno == EEXIST ? error_set(error, ERR_EXISTS, EEXIST,
						     "state directory %s: there is one already; choose another --name, or "
						     "remove it if its volume is gone",
						     volume->state_path)
					 : error_errno(error, errno, "state directory %s", volume->state_path);
		goto out;
	}
	volume->state_fd = open(volume->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume->state_fd < 0 || mkdirat(volume->state_fd, "spool", 0700) != 0 ||
	    mkdirat(volume->state_fd, "cache", 0700) != 0) {
		result = error_errno(error, errno, "state directory %s", volume->state_path);
		goto out;
	}
	close(volume->state_fd);
	result = open_state(volume, error);
	if (result == ERR_OK)
		result = take_lock(volume, error);
	if (result == ERR_OK)
		result = open_parts(volume, true, false, error);
out:
	free(base);
	if (result != ERR_OK) {
		volume_close(volume, false);
		return result;
	}
	*out = volume;
	return ERR_OK;
}

/* Before the new database is there: a kill between has it done again. */
static int begin_anew(struct volume *volume, struct error *error)
{
	if (tree_clear(volume->spool_fd) != 0)
		return error_errno(error, errno, "%s/spool: can't be cleared", volume->state_path);
	if (suspect_forgotten(volume->state_fd) != 0)
		return error_errno(error, errno, "%s: can't be written to", volume->state_path);
	return ERR_OK;
}

/* `create`: the database may be absent; a new one knows nothing of what is in the spool. */
static int open_existing(const struct volume_config *config, bool lock, bool create, struct volume **out, struct error *error)
{
	struct volume *volume = volume_new(config);
	int result = volume ? open_state(volume, error) : no_memory(error);

	if (result == ERR_OK && lock)
		result = take_lock(volume, error);
	if (result == ERR_OK && !create)
		result = find_mark(volume, error);
	if (result == ERR_OK && create && faccessat(volume->state_fd, "volume.db", F_OK, 0) != 0)
		result = begin_anew(volume, error);
	if (result == ERR_OK)
		result = open_parts(volume, create, !lock, error);
	if (result == ERR_CORRUPT && lock && !volume->db)
		result = set_aside(volume, error);
	if (result != ERR_OK) {
		volume_close(volume, false);
		return result;
	}
	*out = volume;
	return ERR_OK;
}

/* What of the state directory is absent. */
static int make_state(const struct volume_config *config, struct error *error)
{
	static const char *const parts[] = {"", "/spool", "/cache"};
	char *base = state_dir();
	int result = base ? io_mkdirs(base, error) : no_memory(error);

	for (size_t i = 0; result == ERR_OK && i < sizeof parts / sizeof *parts; i++) {
		char *path = io_printf("%s/%s%s", base, config->name, parts[i]);

		if (!path)
			result = no_memory(error);
		else if (mkdir(path, 0700) != 0 && errno != EEXIST)
			result = error_errno(error, errno, "state directory %s", path);
		free(path);
	}
	free(base);
	return result;
}

int volume_open(const struct volume_config *config, struct volume **out, struct error *error)
{
	struct error why;
	int result = open_existing(config, true, false, out, &why);

	if (result != ERR_ABSENT && result != ERR_CORRUPT)
		return result == ERR_OK ? ERR_OK : error_set(error, result, why.sys_errno, "%s", why.message);
	/* Faults 20, 21: it is only a cache. */
	log_warn("%s: %s; making a new database, to be filled from the remote", config->name, why.message);
	result = make_state(config, error);
	return result == ERR_OK ? open_existing(config, true, true, out, error) : result;
}

int volume_open_reader(const struct volume_config *config, struct volume **out, struct error *error)
{
	return open_existing(config, false, false, out, error);
}

/* ------------------------------------------------------------------ backing tree */

static int read_identity(struct volume *volume, uint8_t *out, size_t *length, struct error *error)
{
	struct db_conn *conn;
	int result = db_read_begin(volume->db, &conn, error);

	if (result != ERR_OK)
		return result;
	/* Its first bytes say how long it is: identities differ in length. */
	*length = (size_t)db_meta_int(conn, "root_identity_length", 0);
	if (*length > BACKING_IDENTITY_BYTES || db_meta_blob(conn, "root_identity", out, *length) != ERR_OK)
		*length = 0;
	db_read_end(volume->db, conn);
	return ERR_OK;
}

static int write_identity(struct volume *volume, const uint8_t *identity, size_t length, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(volume->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_meta_set_int(conn, "root_identity_length", (int64_t)length, error);
	if (result == ERR_OK)
		result = db_meta_set_blob(conn, "root_identity", identity, length, error);
	if (result != ERR_OK) {
		db_rollback(volume->db);
		return result;
	}
	return db_commit(volume->db, error);
}

/* The root is the first node, so that its number is the kernel's for it. */
static int attach_nodes(struct volume *volume, struct error *error)
{
	struct node_key key;
	struct stat st;
	int fd, result = backing_identify(volume->backing, backing_root_fd(volume->backing), "", &key, &st, &fd);

	if (result != 0)
		return error_errno(error, -result, "cannot identify the directory %s", volume->config->directory);
	node_table_on_free(volume->nodes, backing_fd_drop_id, volume->backing);
	backlog_attach(volume);
	volume->root = node_get(volume->nodes, &key, st.st_mode, fd);
	close(fd);
	return volume->root ? ERR_OK : no_memory(error);
}

int volume_open_backing(struct volume *volume, bool adopt, struct error *error)
{
	uint8_t now[BACKING_IDENTITY_BYTES], before[BACKING_IDENTITY_BYTES];
	size_t now_length, before_length;
	const char *directory = volume->config->directory;
	int result = backing_open(directory, &volume->backing, error);

	if (result == ERR_OK)
		result = attach_nodes(volume, error);
	if (result != ERR_OK)
		return result;
	now_length = backing_identity(volume->backing, now);
	result = read_identity(volume, before, &before_length, error);
	if (result != ERR_OK)
		return result;
	if (before_length == 0 || adopt)
		return write_identity(volume, now, now_length, error);
	/* Fault 53: an absent disk leaves an empty mountpoint, which must not be recorded as the loss of everything. */
	if (before_length != now_length || memcmp(before, now, now_length) != 0)
		return error_set(error, ERR_FAILED, 0,
				 "%s: it is not the directory it was at init (another filesystem, or made anew); is its disk "
				 "mounted? If you moved it on purpose: yester mount -o adopt %s",
				 directory, directory);
	return ERR_OK;
}

int volume_start_journal(struct volume *volume, void (*wake)(void *), void *context, bool *clean, bool *same_boot,
			 struct error *error)
{
	uint8_t boot_now[16], boot_before[16] = {0};
	struct db_conn *conn;
	int result = db_begin(volume->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	backing_boot_id(boot_now);
	*clean = db_meta_int(conn, "clean", 0) == 1;
	volume->started_clean = *clean;
	*same_boot = db_meta_blob(conn, "boot_id", boot_before, sizeof boot_before) == ERR_OK &&
		     memcmp(boot_before, boot_now, sizeof boot_now) == 0;
	/* Off before the first operation: from now on memory may know more than the disk (I12). The boot id of an unclean session stays until its
	 * unsettled inodes have been looked at: the rescan clears it (I9). */
	result = db_meta_set_int(conn, "clean", 0, error);
	if (result == ERR_OK && (*clean || *same_boot))
		result = db_meta_set_blob(conn, "boot_id", boot_now, sizeof boot_now, error);
	if (result != ERR_OK) {
		db_rollback(volume->db);
		return result;
	}
	result = db_commit(volume->db, error);
	if (result != ERR_OK)
		return result;
	return journal_open(volume->db, volume->backing, volume->nodes, volume->state_path, *clean, wake, context,
			    &volume->journal, error);
}

void volume_close(struct volume *volume, bool mark_clean)
{
	struct error error;

	if (!volume)
		return;
	/* I10: what an unclean session left unscanned must not be forgotten, nor which of its inodes are unsettled. */
	mark_clean = mark_clean && (volume->started_clean || atomic_load(&volume->scanned));
	if (volume->journal && journal_close(volume->journal, mark_clean, &error) != ERR_OK)
		log_error("%s: %s; the next mount looks at everything", volume->config->name, error.message);
	volume_is_damaged(volume);
	chunk_cache_close(volume->chunk_cache);
	node_put(volume->nodes, volume->root);
	node_table_free(volume->nodes);
	backing_close(volume->backing);
	db_close(volume->db);
	if (volume->spool_fd >= 0)
		close(volume->spool_fd);
	if (volume->state_fd >= 0)
		close(volume->state_fd);
	if (volume->lock_fd >= 0)
		close(volume->lock_fd);
	free(volume->state_path);
	free(volume);
}

/* ------------------------------------------------------------------ parts */

const struct volume_config *volume_config(const struct volume *volume)
{
	return volume->config;
}

const char *volume_state_path(const struct volume *volume)
{
	return volume->state_path;
}

int volume_state_fd(const struct volume *volume)
{
	return volume->state_fd;
}

int volume_spool_fd(const struct volume *volume)
{
	return volume->spool_fd;
}

struct db *volume_db(struct volume *volume)
{
	return volume->db;
}

struct backing *volume_backing(struct volume *volume)
{
	return volume->backing;
}

struct node_table *volume_nodes(struct volume *volume)
{
	return volume->nodes;
}

struct journal *volume_journal(struct volume *volume)
{
	return volume->journal;
}

struct chunk_cache *volume_chunk_cache(struct volume *volume)
{
	return volume->chunk_cache;
}

struct remote *volume_remote(struct volume *volume)
{
	return volume->remote;
}

void volume_set_remote(struct volume *volume, struct remote *remote)
{
	if (!remote)
		history_stop(); /* reading ahead may be using the one that goes */
	volume->remote = remote;
}

void volume_set_listener(struct volume *volume, const struct behind_listener *listener)
{
	volume->listener = listener;
}

const struct behind_listener *volume_listener(const struct volume *volume)
{
	return volume->listener;
}

void volume_set_scanned(struct volume *volume)
{
	atomic_store(&volume->scanned, true);
}

int volume_open_live(struct volume *volume, int64_t ino)
{
	struct node_key key = {0};
	struct db_conn *conn;
	size_t length = NODE_KEY_MAX;
	int result;

	if (!volume->backing || db_read_begin(volume->db, &conn, NULL) != ERR_OK)
		return -1;
	result = catalogue_local_key(conn, ino, key.bytes, &length);
	db_read_end(volume->db, conn);
	if (result != ERR_OK)
		return -1;
	key.length = (uint8_t)length;
	result = backing_reopen_key(volume->backing, &key, O_RDONLY | O_NOATIME | O_NONBLOCK);
	return result < 0 ? -1 : result;
}

int volume_lock_holder(const struct volume_config *config)
{
	struct volume *volume = volume_new(config);
	int holder = 0, fd = -1;
	char *path = volume ? io_printf("%s/lock", volume->state_path) : NULL;

	if (path)
		fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
		holder = (int)lock_owner(fd);
	if (fd >= 0)
		close(fd);
	free(path);
	if (volume)
		free(volume->state_path);
	free(volume);
	return holder;
}

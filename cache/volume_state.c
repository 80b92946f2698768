/* The state directory of a volume: its place and modes, the lock, and the mark of a damaged database. */
#include "volume_internal.h"

#include "clock.h"
#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct volume *volume_new(const struct volume_config *config)
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

int volume_make_state(const struct volume_config *config, struct error *error)
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

int volume_open_state(struct volume *volume, struct error *error)
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

int volume_take_lock(struct volume *volume, struct error *error)
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

int volume_find_mark(struct volume *volume, struct error *error)
{
	if (faccessat(volume->state_fd, REBUILD, F_OK, 0) == 0)
		return error_set(error, ERR_CORRUPT, 0, "%s/volume.db: it was found damaged while it was in use", volume->state_path);
	return errno == ENOENT ? ERR_OK : error_errno(error, errno, "%s/" REBUILD, volume->state_path);
}

/* A damaged database is only a cache: it is kept for the curious and out of the way. The mark goes last: a kill before that has it done again. */
int volume_set_aside(struct volume *volume, struct error *error)
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

#include "new_config.h"

#include "fs.h"
#include "io.h"
#include "mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
}

/* ---- paths */

/* Absolute and without links as far as it exists; what does not is appended. Fresh or NULL with errno. */
static char *resolve(const char *path)
{
	char *real = realpath(path, NULL), *copy, *slash, *parent, *joined = NULL;
	size_t length = strlen(path);

	if (real || errno != ENOENT)
		return real;
	while (length > 1 && path[length - 1] == '/')
		length--;
	copy = strndup(path, length);
	if (!copy)
		return NULL;
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	parent = resolve(!slash ? "." : slash == copy ? "/" : copy);
	if (parent)
		joined = io_printf("%s%s%s", parent, strcmp(parent, "/") == 0 ? "" : "/", slash ? slash + 1 : copy);
	free(parent);
	free(copy);
	return joined;
}

/* `path` is `directory` or lies below it. Both resolved. */
static bool is_within(const char *path, const char *directory)
{
	size_t length = strcmp(directory, "/") == 0 ? 0 : strlen(directory);

	return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int refuse_within(const char *path, const char *directory, const char *what, const char *advice, struct error *error)
{
	char *resolved = path ? resolve(path) : NULL;
	int rc = 0;

	if (resolved && is_within(resolved, directory))
		rc = error_set(error, ERR_USAGE, 0, "%s: %s would lie in it, at %s; %s", directory, what, resolved, advice);
	free(resolved);
	return rc;
}

/* ---- the place */

struct neighbour { const char *directory; struct error *error; };

static int refuse_neighbour(void *context, struct volume_config *other)
{
	const struct neighbour *mine = context;
	char *resolved = resolve(other->directory);
	const char *theirs = resolved ? resolved : other->directory;
	int rc = 0;

	if (strcmp(theirs, mine->directory) == 0)
		rc = error_set(mine->error, ERR_EXISTS, 0, "%s: it is a volume already, %s; see yester status %s", mine->directory,
			       other->name, mine->directory);
	else if (is_within(mine->directory, theirs))
		rc = error_set(mine->error, ERR_USAGE, 0, "%s: it lies in the volume %s, at %s, which keeps it already; choose a "
			       "directory outside", mine->directory, other->name, theirs);
	else if (is_within(theirs, mine->directory))
		rc = error_set(mine->error, ERR_USAGE, 0, "%s: it holds the volume %s, at %s; volumes can't be nested", mine->directory,
			       other->name, theirs);
	free(resolved);
	return rc;
}

static int check_our_own(const char *directory, const char *remote, struct error *error)
{
	char *config = config_dir(), *state = state_dir();
	int rc = !config || !state ? error_set(error, ERR_FAILED, 0, "there is no place for config and state: HOME is not set; set "
					       "YESTER_CONFIG_DIR and YESTER_STATE_DIR") : 0;

	if (rc == 0)
		rc = refuse_within(state, directory, "the state directory", "set YESTER_STATE_DIR to a place outside", error);
	if (rc == 0)
		rc = refuse_within(config, directory, "the config directory", "set YESTER_CONFIG_DIR to a place outside", error);
	if (rc == 0 && strncmp(remote, "file://", 7) == 0)
		rc = refuse_within(remote + 7, directory, "the remote", "choose one outside", error);
	free(config);
	free(state);
	return rc;
}

/* What the kernel makes up as it is read is no files that could be kept. */
static bool is_kernel_filesystem(int fd)
{
	static const uint32_t types[] = { PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
					  TRACEFS_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC, DEVPTS_SUPER_MAGIC, BPF_FS_MAGIC,
					  PSTOREFS_MAGIC, EFIVARFS_MAGIC, BINFMTFS_MAGIC, NSFS_MAGIC };
	struct statfs st;

	if (fstatfs(fd, &st) != 0)
		return false;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if ((uint32_t)st.f_type == types[i])
			return true;
	return false;
}

static int check_directory(const char *directory, struct error *error)
{
	struct stat st;
	int fd, rc = 0;

	if (mount_point_is_yester(directory))
		return error_set(error, ERR_BUSY, 0, "%s: a yester is mounted there; unmount it first, with yester umount %s", directory,
				 directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOTDIR)
		return error_set(error, ERR_USAGE, ENOTDIR, "%s: it is not a directory; a volume is a directory", directory);
	if (fd < 0)
		return error_errno(error, errno, "%s: can't open it", directory);
	if (fstatat(fd, FS_SNAPSHOTS, &st, AT_SYMLINK_NOFOLLOW) == 0)
		rc = error_set(error, ERR_USAGE, 0, "%s/%s: there is a real one, which would hide the history; rename it", directory,
			       FS_SNAPSHOTS);
	else if (is_kernel_filesystem(fd))
		rc = error_set(error, ERR_USAGE, 0, "%s: the kernel makes up what is in it, there are no files to keep; choose another "
			       "directory", directory);
	close(fd);
	return rc;
}

/* ---- names */

void new_config_name(char out[NEW_CONFIG_NAME_BYTES], const char *directory)
{
	const char *slash = strrchr(directory, '/'), *base = slash ? slash + 1 : directory;
	size_t used = 0;

	for (; *base && used + 1 < NEW_CONFIG_NAME_BYTES; base++) {
		char c = *base >= 'A' && *base <= 'Z' ? (char)(*base - 'A' + 'a') : *base;
		bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';

		/* One '-' for any number of others, none at the ends. */
		if (fits)
			out[used++] = c;
		else if (used > 0 && out[used - 1] != '-')
			out[used++] = '-';
	}
	while (used > 0 && out[used - 1] == '-')
		used--;
	out[used] = '\0';
	if (used == 0)
		memcpy(out, "volume", sizeof "volume");
}

static bool is_taken(const char *name)
{
	char *config = config_dir(), *state = state_dir();
	char *paths[3] = { config ? io_printf("%s/%s.conf", config, name) : NULL, config ? io_printf("%s/%s.key", config, name) : NULL,
			   state ? io_printf("%s/%s", state, name) : NULL };
	struct stat st;
	bool taken = false;

	for (size_t i = 0; i < 3; i++) {
		taken |= paths[i] && lstat(paths[i], &st) == 0;
		free(paths[i]);
	}
	free(config);
	free(state);
	return taken;
}

static int choose_name(const struct new_config *wanted, const char *directory, char out[NEW_CONFIG_NAME_BYTES], struct error *error)
{
	char base[NEW_CONFIG_NAME_BYTES];

	if (wanted->name && !config_name_is_valid(wanted->name))
		return error_set(error, ERR_USAGE, 0, "--name %s: a name has 1 to 64 of a-z, 0-9, _ and -", wanted->name);
	if (wanted->name) {
		snprintf(out, NEW_CONFIG_NAME_BYTES, "%s", wanted->name);
		return 0;
	}
	new_config_name(base, directory);
	snprintf(out, NEW_CONFIG_NAME_BYTES, "%s", base);
	for (int i = 2; is_taken(out); i++) {
		if (i == 1000)
			return error_set(error, ERR_EXISTS, 0, "%s: all names like it are taken; choose one with --name", base);
		snprintf(out, NEW_CONFIG_NAME_BYTES, "%.59s-%d", base, i);
	}
	return 0;
}

/* ---- the config */

int new_config_remote(const char *remote, char **out, struct error *error)
{
	const char *scheme = strstr(remote, "://");
	size_t length = strlen(remote), least = strncmp(remote, "file:///", 8) == 0 ? 8 : scheme ? (size_t)(scheme - remote) + 3 : 0;
	char *copy;
	int rc;

	while (length > least && remote[length - 1] == '/')
		length--;
	copy = strndup(remote, length);
	if (!copy)
		return no_memory(error);
	rc = config_check_remote(copy, error);
	if (rc < 0)
		free(copy);
	else
		*out = copy;
	return rc;
}

static int take(char **target, const char *first, const char *second, struct error *error)
{
	const char *value = first && first[0] ? first : second;

	if (!value || !value[0])
		return 0;
	free(*target);
	*target = strdup(value);
	return *target ? 0 : no_memory(error);
}

int new_config_environment(struct volume_config *config, struct error *error)
{
	int rc;

	if (strncmp(config->remote, "s3://", 5) != 0)
		return 0;
	rc = take(&config->endpoint, getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"), error);
	if (rc == 0)
		rc = take(&config->region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"), error);
	/* Keys in the environment win over a profile there, but a config's profile wins over them. */
	return rc || getenv("AWS_ACCESS_KEY_ID") ? rc : take(&config->profile, getenv("AWS_PROFILE"), NULL, error);
}

static int find_directory(const struct new_config *wanted, char **out, struct error *error)
{
	if (strlen(wanted->directory) >= PATH_MAX)
		return error_set(error, ERR_USAGE, ENAMETOOLONG, "%.40s...: the path is too long", wanted->directory);
	*out = wanted->must_exist ? realpath(wanted->directory, NULL) : resolve(wanted->directory);
	if (*out)
		return 0;
	if (errno == ENOENT && wanted->must_exist)
		return error_set(error, ERR_ABSENT, ENOENT, "%s: there is no such directory; make it, then try again", wanted->directory);
	if (errno == ENOTDIR)
		return error_set(error, ERR_USAGE, ENOTDIR, "%s: it is not a directory; a volume is a directory", wanted->directory);
	return error_errno(error, errno, "%s", wanted->directory);
}

/* The config could not hold it: better said before anything is made. */
static int check_spelling(const char *directory, struct error *error)
{
	bool control = false;

	for (const char *at = directory; *at; at++)
		control |= (uint8_t)*at < 0x20 || *at == 0x7f;
	if (control || directory[strlen(directory) - 1] == ' ')
		return error_set(error, ERR_USAGE, 0, "%s: a path with %s can't stand in a config; rename it", directory,
				 control ? "a control character" : "a blank at its end");
	return 0;
}

static int fill(struct volume_config *config, char *directory, char *remote, struct error *error)
{
	config->directory = strdup(directory);
	config->remote = strdup(remote);
	if (!config->directory || !config->remote)
		return no_memory(error);
	return new_config_environment(config, error);
}

int new_config(const struct new_config *wanted, struct volume_config **out, struct error *error)
{
	struct volume_config *config = NULL;
	char *remote = NULL, *directory = NULL, name[NEW_CONFIG_NAME_BYTES];
	int rc = new_config_remote(wanted->remote, &remote, error);
	struct neighbour mine = { .error = error };
	struct stat st;

	if (rc == 0)
		rc = find_directory(wanted, &directory, error);
	if (rc == 0)
		rc = check_spelling(directory, error);
	if (rc == 0 && (wanted->must_exist || stat(directory, &st) == 0 || errno == ENOTCONN))
		rc = check_directory(directory, error);
	if (rc == 0) {
		mine.directory = directory;
		rc = config_each(refuse_neighbour, &mine, error);
	}
	if (rc == 0)
		rc = check_our_own(directory, remote, error);
	if (rc == 0)
		rc = choose_name(wanted, directory, name, error);
	if (rc == 0 && !(config = config_new(name)))
		rc = no_memory(error);
	if (rc == 0)
		rc = fill(config, directory, remote, error);
	if (rc == 0)
		*out = config;
	else
		config_free(config);
	free(directory);
	free(remote);
	return rc;
}

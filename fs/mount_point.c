#include "mount_point.h"

#include "holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define TYPE "fuse.yester"
#define MOVES 5 /* so often a mount may go elsewhere between a look and an unmount */

/* Undoes the \ooo of mountinfo, in place. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
		    from[3] >= '0' && from[3] <= '7') {
			*to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0');
			from += 4;
		} else
			*to = *from++;
	}
	*to = '\0';
}

/* proc_pid_mountinfo(5): ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [FIELDS...] - TYPE SOURCE SUPEROPTIONS
 * `path` NULL: any mount point. */
static bool parse_line(char *line, const char *path, struct mount_entry *out)
{
	char *words = line, *first[5] = {NULL}, *word, *type, *source;
	for (int i = 0; i < 5; i++)
		first[i] = strsep(&words, " ");
	if (!first[4] || !words)
		return false;
	unescape(first[4]);
	if (path && strcmp(first[4], path) != 0)
		return false;
	while ((word = strsep(&words, " ")) && strcmp(word, "-") != 0)
		;
	type = strsep(&words, " ");
	source = strsep(&words, " ");
	if (!type || !source)
		return false;
	unescape(source);
	out->id = atoi(first[0]);
	snprintf(out->device, sizeof(out->device), "%s", first[2]);
	snprintf(out->path, sizeof(out->path), "%s", first[4]);
	snprintf(out->type, sizeof(out->type), "%s", type);
	snprintf(out->source, sizeof(out->source), "%s", source);
	return true;
}

struct wanted {
	const char *path;                 /* NULL: any */
	const char *source;               /* of a yester; NULL: any mount */
	const struct mount_entry *itself; /* NULL: any */
};

static bool is_wanted(const struct wanted *wanted, const struct mount_entry *entry)
{
	if (wanted->source && (strcmp(entry->type, TYPE) != 0 || strcmp(entry->source, wanted->source) != 0))
		return false;
	return !wanted->itself || (entry->id == wanted->itself->id && strcmp(entry->device, wanted->itself->device) == 0);
}

/* The last one, which lies above the others on its path. ERR_ABSENT: none; ERR_FAILED: that can't be told. */
static int find(const struct wanted *wanted, struct mount_entry *out, struct error *error)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	struct mount_entry entry;
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!file)
		return error_set(error, ERR_FAILED, errno, "what is mounted can't be told: /proc/self/mountinfo: %s; try again", strerror(errno));
	while (getline(&line, &room, file) > 0) {
		if (!parse_line(line, wanted->path, &entry) || !is_wanted(wanted, &entry))
			continue;
		*out = entry;
		found = true;
	}
	bool complete = feof(file) && !ferror(file);
	free(line);
	fclose(file);
	if (!complete)
		return error_set(error, ERR_FAILED, 0, "what is mounted can't be told: /proc/self/mountinfo can't be read; try again");
	return found ? 0 : error_set(error, ERR_ABSENT, 0, "it is not mounted");
}

bool mount_point_find(const char *path, struct mount_entry *out)
{
	return find(&(struct wanted){.path = path}, out, NULL) == 0;
}

int mount_point_find_volume(const char *path, const char *directory, struct mount_entry *out, struct error *error)
{
	return find(&(struct wanted){.path = path, .source = directory}, out, error);
}

/* The path leads to that mount, which so is the uppermost there. Asks nothing of the filesystem, and takes no descriptor. */
static bool leads_to(const char *path, const struct mount_entry *mount)
{
	struct statx st;
	char device[sizeof(mount->device)];

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) != 0 || !(st.stx_mask & STATX_MNT_ID))
		return false;
	snprintf(device, sizeof(device), "%u:%u", st.stx_dev_major, st.stx_dev_minor);
	return st.stx_mnt_id == (uint64_t)mount->id && strcmp(device, mount->device) == 0;
}

int mount_point_follow(struct mount_entry *mount, struct error *error)
{
	struct mount_entry entry;

	if (leads_to(mount->path, mount))
		return 0;
	int rc = find(&(struct wanted){.itself = mount}, &entry, error);
	if (rc < 0)
		return error_set(error, rc, 0, "%s: %s", mount->path, error->message);
	snprintf(mount->path, sizeof(mount->path), "%s", entry.path);
	if (!leads_to(mount->path, mount))
		return error_set(error, ERR_BUSY, EBUSY, "%s: something is mounted over it, or over a directory above it; unmount that first (findmnt shows it), "
				 "then try again", mount->path);
	return 0;
}

bool mount_point_has_volume(const char *directory)
{
	struct mount_entry entry;
	return find(&(struct wanted){.source = directory}, &entry, NULL) == 0;
}

bool mount_point_is_yester(const char *path)
{
	struct mount_entry entry;
	return mount_point_find(path, &entry) && strcmp(entry.type, TYPE) == 0;
}

bool mount_point_is_dead(const char *path)
{
	struct statfs st; /* stat(2) would be answered from the kernel's cache for a while */
	return mount_point_is_yester(path) && statfs(path, &st) != 0 && errno == ENOTCONN;
}

int mount_point_check_plain(const struct volume_config *config, struct error *error)
{
	const char *directory = config->directory;

	if (!mount_point_is_yester(directory))
		return 0;
	if (mount_point_is_dead(directory))
		return error_set(error, ERR_FAILED, 0, "%s: it is mounted, but its daemon has died; yester mount %s recovers it", directory,
				 directory);
	return error_set(error, ERR_FAILED, 0, "%s: it is mounted, but its daemon can't be reached (was the state directory removed?); "
			 "umount %s, then try again", directory, directory);
}

static int check_kernel(struct error *error)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return error_set(error, ERR_UNSUPPORTED, errno, "/dev/fuse: the kernel has no FUSE; modprobe fuse");
	if (errno == EACCES || errno == EPERM)
		return error_set(error, ERR_DENIED, errno, "/dev/fuse: this user may not open it; mount as root, or chmod 666 /dev/fuse");
	return error_errno(error, errno, "/dev/fuse");
}

static bool is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	if (strcmp(directory, "/") == 0)
		return path[1] != '\0';
	return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* A place of its own, other than the directory. */
static int check_apart(const struct volume_config *config, const char *path, struct error *error)
{
	struct dirent *entry = NULL;
	if (is_below(path, config->directory))
		return error_set(error, ERR_USAGE, 0, "%s: lies inside %s; mount on the directory itself or outside of it", path,
				 config->directory);
	DIR *dir = opendir(path);
	if (!dir)
		return error_errno(error, errno, "%s", path);
	while ((entry = readdir(dir)) && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
		;
	closedir(dir);
	if (entry)
		return error_set(error, ERR_USAGE, 0, "%s: is not empty; choose an empty directory", path);
	return 0;
}

int mount_point_check(const struct volume_config *config, const char *path, struct error *error)
{
	struct stat st;
	int holder = holder_wait(config);

	if (holder > 0)
		return holder_refuse(config, holder, error);
	if (mount_point_is_dead(path)) {
		int rc = mount_point_unmount(path, true, error);
		if (rc < 0)
			return rc;
	}
	if (mount_point_is_yester(path))
		return error_set(error, ERR_BUSY, 0, "%s: is mounted already", path);
	if (stat(path, &st) != 0 && errno == ENOENT)
		return error_set(error, ERR_ABSENT, ENOENT, "%s: the directory is not there; bring it back (is its disk mounted?)", path);
	if (stat(path, &st) != 0)
		return error_errno(error, errno, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(error, ERR_USAGE, ENOTDIR, "%s: is not a directory; choose an empty one", path);
	if (strcmp(path, config->directory) != 0) {
		int rc = check_apart(config, path, error);
		if (rc < 0)
			return rc;
	}
	return check_kernel(error);
}

/* fusermount3 says on stderr what it does not like. */
static int fusermount(const char *path, bool lazy, struct error *error)
{
	char *arguments[] = {"fusermount3", lazy ? "-uz" : "-u", "--", (char *)path, NULL};
	pid_t pid;
	int status, failed = posix_spawnp(&pid, "fusermount3", NULL, NULL, arguments, environ);
	if (failed)
		return error_errno(error, failed, "fusermount3");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_errno(error, errno, "fusermount3");
	if (status == 0)
		return 0;
	return error_set(error, ERR_BUSY, EBUSY, "%s: could not be unmounted; it may be in use (see fuser -m %s)", path, path);
}

static int busy(const char *path, struct error *error)
{
	return error_set(error, ERR_BUSY, EBUSY, "%s: is in use; see fuser -m %s, then unmount again", path, path);
}

int mount_point_check_idle(const char *path, struct error *error)
{
	/* umount(2): a first call with MNT_EXPIRE says EBUSY of a mount that is in use, else EAGAIN, and marks it; a second one would unmount it. Whoever
	 * lets go of it takes the mark away (mntput in the kernel's fs/namespace.c); O_PATH asks nothing of the filesystem. */
	if (umount2(path, UMOUNT_NOFOLLOW | MNT_EXPIRE) != 0 && errno == EBUSY)
		return busy(path, error);
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return 0;
}

int mount_point_unmount(const char *path, bool lazy, struct error *error)
{
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EPERM)
		return fusermount(path, lazy, error);
	if (errno == EBUSY)
		return busy(path, error);
	if (errno == EINVAL)
		return error_set(error, ERR_ABSENT, errno, "%s: is not mounted", path);
	return error_errno(error, errno, "%s: can't be unmounted", path);
}

int mount_point_unmount_this(struct mount_entry *mount, bool lazy, struct error *error)
{
	int rc = ERR_ABSENT;

	for (int i = 0; i < MOVES && rc == ERR_ABSENT; i++) {
		rc = mount_point_follow(mount, error);
		if (rc == ERR_ABSENT)
			return 0;
		if (rc == 0)
			rc = mount_point_unmount(mount->path, lazy, error);
	}
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_FAILED, 0, "%s: can't be unmounted: this path does not lead to it; make it do so, then unmount again", mount->path);
	return rc;
}

#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int clear(int dirfd, dev_t device);

static int remove_directory(int dirfd, const char *name, dev_t device)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc, saved;

	/* Without the right to look into it. */
	if (fd < 0 && errno == EACCES && fchmodat(dirfd, name, 0700, 0) == 0)
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = clear(fd, device);
	if (rc < 0 && errno == EACCES && fchmod(fd, 0700) == 0)
		rc = clear(fd, device);
	saved = errno;
	close(fd);
	errno = saved;
	return rc < 0 ? rc : unlinkat(dirfd, name, AT_REMOVEDIR);
}

static int remove_entry(int dirfd, const char *name, dev_t device)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(dirfd, name, 0);
	if (st.st_dev != device) {
		errno = EBUSY;
		return -1;
	}
	return remove_directory(dirfd, name, device);
}

static int clear(int dirfd, dev_t device)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0, saved = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		saved = errno;
		if (fd >= 0)
			close(fd);
		errno = saved;
		return -1;
	}
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (remove_entry(dirfd, entry->d_name, device) < 0 && errno != ENOENT) {
			saved = errno;
			rc = -1;
		}
	}
	closedir(dir);
	errno = saved;
	return rc;
}

int tree_remove(int dirfd, const char *name)
{
	struct stat st;

	/* Of the directory that holds it: a mount on `name` itself is not ours either. */
	if (fstat(dirfd, &st) < 0)
		return -1;
	return remove_entry(dirfd, name, st.st_dev);
}

int tree_clear(int dirfd)
{
	struct stat st;

	if (fstat(dirfd, &st) < 0)
		return -1;
	return clear(dirfd, st.st_dev);
}

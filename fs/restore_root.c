#include "restore_root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTRS_LONGEST 65536 /* xattr(7): of a list and of a value */

struct names { char **list; size_t count; };

struct root {
	int dirfd, newfd; /* the directory; the restored one in it */
	const char *temporary;
	struct stat st;   /* attributes of the restored one, before its entries move */
	struct names before, after;
	struct error *error;
	int rc;           /* of the first failure */
};

static void failed(struct root *root, const char *name)
{
	int rc = error_code_of_errno(errno);

	if (root->rc == 0)
		error_errno(root->error, errno, "%s: can't be put in place", name);
	if (root->rc == 0)
		root->rc = rc;
}

/* ---- names */

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->list[i]);
	free(names->list);
}

static int names_add(struct names *names, const char *name)
{
	char **grown = reallocarray(names->list, names->count + 1, sizeof *grown);

	if (!grown)
		return -1;
	names->list = grown;
	grown[names->count] = strdup(name);
	return grown[names->count] ? (names->count++, 0) : -1;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, without `except`. 0 or -1 with errno. */
static int names_read(int dirfd, const char *except, struct names *out)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while (rc == 0 && (errno = 0, entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && strcmp(entry->d_name, except) != 0)
			rc = names_add(out, entry->d_name);
	if (errno != 0)
		rc = -1;
	closedir(dir);
	if (rc == 0 && out->count > 0)
		qsort(out->list, out->count, sizeof *out->list, compare);
	return rc;
}

static bool names_have(const struct names *names, const char *name)
{
	return names->count > 0 && bsearch(&name, names->list, names->count, sizeof *names->list, compare) != NULL;
}

/* ---- attributes */

/* One that is set on the new root and not, or otherwise, on the old one. */
static void copy_xattr(struct root *root, const char *name, char *value)
{
	ssize_t length = fgetxattr(root->newfd, name, value, XATTRS_LONGEST);

	if (length >= 0 && fsetxattr(root->dirfd, name, value, (size_t)length, 0) != 0 && errno != ENOTSUP && errno != EPERM)
		failed(root, name);
}

static void copy_xattrs(struct root *root)
{
	char *list = malloc(XATTRS_LONGEST), *value = malloc(XATTRS_LONGEST);
	ssize_t length = list && value ? flistxattr(root->dirfd, list, XATTRS_LONGEST) : -1;

	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1)
		if (fgetxattr(root->newfd, list + at, NULL, 0) < 0 && errno == ENODATA)
			fremovexattr(root->dirfd, list + at);
	length = list && value ? flistxattr(root->newfd, list, XATTRS_LONGEST) : -1;
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1)
		copy_xattr(root, list + at, value);
	free(list);
	free(value);
}

/* Last: entries that move change the times. An owner only root can give; without, it stays. */
static void copy_attributes(struct root *root)
{
	struct timespec times[2] = { root->st.st_atim, root->st.st_mtim };
	struct stat now;

	if (fstat(root->dirfd, &now) != 0) {
		failed(root, ".");
		return;
	}
	if ((now.st_uid != root->st.st_uid || now.st_gid != root->st.st_gid) &&
	    fchown(root->dirfd, root->st.st_uid, root->st.st_gid) != 0 && errno != EPERM)
		failed(root, ".");
	if (fchmod(root->dirfd, root->st.st_mode & 07777) != 0)
		failed(root, ".");
	copy_xattrs(root);
	if (futimens(root->dirfd, times) != 0)
		failed(root, ".");
}

/* ---- the exchange */

static void bring(struct root *root, const char *name)
{
	if (names_have(&root->before, name)) {
		if (renameat2(root->newfd, name, root->dirfd, name, RENAME_EXCHANGE) != 0)
			failed(root, name);
	} else if (renameat2(root->newfd, name, root->dirfd, name, RENAME_NOREPLACE) != 0) {
		failed(root, name);
	}
}

static void take_away(struct root *root, const char *name)
{
	if (!names_have(&root->after, name) && renameat2(root->dirfd, name, root->newfd, name, RENAME_NOREPLACE) != 0 &&
	    errno != ENOENT)
		failed(root, name);
}

static void exchange(struct root *root)
{
	/* Moving things out of it needs its permission, whatever it was then. */
	if (fstat(root->newfd, &root->st) != 0 || fchmod(root->newfd, 0700) != 0 ||
	    names_read(root->dirfd, root->temporary, &root->before) != 0 || names_read(root->newfd, "", &root->after) != 0) {
		failed(root, root->temporary);
		return;
	}
	for (size_t i = 0; i < root->after.count; i++)
		bring(root, root->after.list[i]);
	for (size_t i = 0; i < root->before.count; i++)
		take_away(root, root->before.list[i]);
	copy_attributes(root);
}

int restore_root(int dirfd, const char *temporary, struct error *error)
{
	struct root root = { .dirfd = dirfd, .temporary = temporary, .error = error };

	root.newfd = openat(dirfd, temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (root.newfd < 0)
		return error_errno(error, errno, "%s", temporary);
	exchange(&root);
	close(root.newfd);
	names_free(&root.before);
	names_free(&root.after);
	return root.rc;
}

#include "restore_place.h"

#include "buf.h"
#include "find_volume.h"
#include "fs.h"
#include "holder.h"
#include "io.h"
#include "json_field.h"
#include "mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
}

/* "a/b/c/" to "a/b" and "c"; *base is "" when the last part is no name (., .., /): then *parent is the whole. Fresh strings. */
static int split(const char *path, char **parent, char **base, struct error *error)
{
	size_t length = strlen(path), from;
	const char *name;

	while (length > 1 && path[length - 1] == '/')
		length--;
	for (from = length; from > 0 && path[from - 1] != '/'; from--)
		;
	name = path + from;
	if (length == from || (length - from == 1 && name[0] == '.') || (length - from == 2 && name[0] == '.' && name[1] == '.')) {
		*parent = strdup(path);
		*base = strdup("");
	} else {
		*parent = from == 0 ? strdup(".") : strndup(path, from);
		*base = strndup(name, length - from);
	}
	if (*parent && *base)
		return 0;
	free(*parent);
	free(*base);
	*parent = *base = NULL;
	return no_memory(error);
}

static char *join(const char *directory, const char *name)
{
	size_t length = strlen(directory);

	return io_printf("%s%s%s", directory, name[0] && length > 0 && directory[length - 1] != '/' ? "/" : "", name);
}

/* ---- the volume */

static int find_inside(const char *path, struct restore_place *out, struct error *error)
{
	char *parent = NULL, *base = NULL, *rest = NULL;
	int rc = split(path, &parent, &base, error);

	if (rc < 0)
		return rc;
	rc = find_volume(parent, &out->config, &rest, error);
	if (rc == 0)
		out->inside = join(rest, base);
	/* The volume's own directory has its parent outside. */
	if (rc == ERR_ABSENT && base[0]) {
		rc = find_volume(path, &out->config, &out->inside, error);
	} else if (rc == 0 && !out->inside) {
		rc = no_memory(error);
	}
	free(rest);
	free(parent);
	free(base);
	return rc;
}

/* ---- the target */

/* The directory under which the volume's tree is to be changed: the mount if there is one. Fresh. */
static int find_root(struct restore_place *out, char **root, struct error *error)
{
	struct buf answer = { 0 };
	char mountpoint[PATH_MAX];
	struct error why = { 0 };
	int rc = holder_call(out->config, "status", 0, NULL, NULL, &answer, &why);

	out->mounted = rc == 0;
	if (rc == 0 && json_field_text((const char *)answer.data, "mountpoint", mountpoint, sizeof mountpoint))
		*root = strdup(mountpoint);
	else
		*root = strdup(out->config->directory);
	buf_free(&answer);
	if (rc < 0 && rc != ERR_ABSENT)
		return error_set(error, rc, why.sys_errno, "%s", why.message);
	if (!*root)
		return no_memory(error);
	return out->mounted ? 0 : mount_point_check_plain(out->config, error);
}

static int open_target(struct restore_place *out, const char *directory, struct error *error)
{
	struct stat st;

	out->dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out->dirfd < 0 && errno == ENOENT)
		return error_set(error, ERR_ABSENT, ENOENT, "%s: there is no such directory; make it, or choose another DEST", directory);
	if (out->dirfd < 0)
		return error_errno(error, errno, "%s", directory);
	out->shown = join(directory, out->name);
	if (!out->shown)
		return no_memory(error);
	if (fstatat(out->dirfd, out->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		out->exists = true;
	else if (errno != ENOENT)
		return error_errno(error, errno, "%s", out->shown);
	return 0;
}

/* The volume itself. */
static int find_whole(struct restore_place *out, const char *root, struct error *error)
{
	out->name = strdup("");
	out->shown = strdup(root);
	out->whole = out->exists = true;
	if (!out->name || !out->shown)
		return no_memory(error);
	out->dirfd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return out->dirfd < 0 ? error_errno(error, errno, "%s", root) : 0;
}

static int find_in_place(struct restore_place *out, const char *root, struct error *error)
{
	char *whole = join(root, out->inside), *parent = NULL;
	int rc = whole ? 0 : no_memory(error);

	if (rc == 0 && out->inside[0] == '\0') {
		free(whole);
		return find_whole(out, root, error);
	}
	if (rc == 0)
		rc = split(whole, &parent, &out->name, error);
	if (rc == 0)
		rc = open_target(out, parent, error);
	if (rc == ERR_ABSENT)
		rc = error_set(error, rc, ENOENT, "%s: the directory is not there any more; restore it first, or use --to DEST", parent);
	free(parent);
	free(whole);
	return rc;
}

/* DEST, or what is in it under the old name when it is a directory. */
static int find_elsewhere(struct restore_place *out, const char *to, struct error *error)
{
	const char *slash = strrchr(out->inside, '/'), *old = slash ? slash + 1 : out->inside;
	char *parent = NULL;
	struct stat st;
	int rc = 0;

	if (stat(to, &st) == 0 && S_ISDIR(st.st_mode)) {
		parent = strdup(to);
		out->name = strdup(old[0] ? old : out->config->name);
		if (!parent || !out->name)
			rc = no_memory(error);
	} else {
		rc = split(to, &parent, &out->name, error);
		if (rc == 0 && !out->name[0])
			rc = error_set(error, ERR_USAGE, 0, "--to %s: it ends in no name", to);
	}
	if (rc == 0)
		rc = open_target(out, parent, error);
	if (rc == 0 && out->exists)
		rc = error_set(error, ERR_EXISTS, EEXIST, "%s: it is there already, and --to replaces nothing; choose another DEST",
			       out->shown);
	free(parent);
	return rc;
}

/* One of the path's names is .snapshots. */
static bool is_in_the_past(const char *inside)
{
	for (;;) {
		size_t length = strcspn(inside, "/");

		if (length == strlen(FS_SNAPSHOTS) && strncmp(inside, FS_SNAPSHOTS, length) == 0)
			return true;
		if (!inside[length])
			return false;
		inside += length + 1;
	}
}

int restore_place_find(const char *path, const char *to, struct restore_place *out, struct error *error)
{
	char *root = NULL;
	int rc;

	*out = (struct restore_place){ .dirfd = -1 };
	rc = find_inside(path, out, error);
	if (rc == 0 && is_in_the_past(out->inside))
		rc = error_set(error, ERR_USAGE, 0, "%s: that is the past already; name the path without .snapshots, or copy it with cp -a",
			       path);
	if (rc == 0)
		rc = find_root(out, &root, error);
	if (rc == 0)
		rc = to ? find_elsewhere(out, to, error) : find_in_place(out, root, error);
	free(root);
	if (rc < 0)
		restore_place_free(out);
	return rc;
}

void restore_place_free(struct restore_place *place)
{
	config_free(place->config);
	free(place->inside);
	free(place->name);
	free(place->shown);
	if (place->dirfd >= 0)
		close(place->dirfd);
	*place = (struct restore_place){ .dirfd = -1 };
}

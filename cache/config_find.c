#include "config.h"

#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- every config */

static int is_config(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return entry->d_name[0] != '.' && length > 5 && strcmp(entry->d_name + length - 5, ".conf") == 0;
}

/* Bytes, not the locale's collation: the same order for everybody. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visit(const char *directory, const char *base, int (*fn)(void *, struct volume_config *), void *context,
		 struct error *error)
{
	struct volume_config *config = NULL;
	char *path = io_printf("%s/%s", directory, base);
	int rc;

	if (!path)
		return error_set(error, ERR_NOMEM, 0, "%s: out of memory", base);
	rc = config_read(path, &config, error);
	free(path);
	/* Removed since the listing, or somebody else's. */
	if (rc == ERR_ABSENT || rc == ERR_DENIED)
		return 0;
	if (rc == 0)
		rc = fn(context, config);
	config_free(config);
	return rc;
}

int config_each(int (*fn)(void *context, struct volume_config *config), void *context, struct error *error)
{
	char *directory = config_dir();
	struct dirent **entries = NULL;
	int count, rc = 0;

	if (!directory)
		return error_set(error, ERR_FAILED, 0, "there is no directory for config files: HOME is not set; set YESTER_CONFIG_DIR");
	count = scandir(directory, &entries, is_config, by_name);
	if (count < 0 && errno != ENOENT)
		rc = error_errno(error, errno, "cannot list %s", directory);
	for (int i = 0; i < count; i++) {
		if (rc == 0)
			rc = visit(directory, entries[i]->d_name, fn, context, error);
		free(entries[i]);
	}
	free(entries);
	free(directory);
	return rc;
}

/* ---- from a path to its volume */

/* Appends the parts of `tail`, which don't exist, to the resolved path: "." vanishes, ".." takes a part back. Fresh, or NULL. */
static char *append_lexically(const char *resolved, const char *tail)
{
	char *out = malloc(strlen(resolved) + strlen(tail) + 2);
	size_t length;

	if (!out)
		return NULL;
	length = strcmp(resolved, "/") == 0 ? 0 : strlen(resolved);
	memcpy(out, resolved, length);
	while (*tail) {
		size_t part;

		tail += strspn(tail, "/");
		part = strcspn(tail, "/");
		if (part == 2 && tail[0] == '.' && tail[1] == '.') {
			while (length > 0 && out[--length] != '/')
				;
		} else if (part > 0 && !(part == 1 && tail[0] == '.')) {
			out[length++] = '/';
			memcpy(out + length, tail, part);
			length += part;
		}
		tail += part;
	}
	if (length == 0)
		out[length++] = '/';
	out[length] = '\0';
	return out;
}

/* Resolves as much of the path as exists and answers (a mount whose daemon died does not). Fresh, or NULL with errno. */
static char *resolve(const char *path)
{
	char *whole, *cut, *real, *joined;
	size_t length;

	if (path[0] == '/') {
		whole = strdup(path);
	} else {
		char *cwd = getcwd(NULL, 0);

		if (!cwd)
			return NULL;
		whole = io_printf("%s/%s", cwd, path);
		free(cwd);
	}
	cut = whole ? strdup(whole) : NULL;
	length = cut ? strlen(cut) : 0;
	real = NULL;
	while (cut && !real) {
		real = realpath(length > 0 ? cut : "/", NULL);
		if (real || length == 0)
			break;
		while (length > 0 && cut[length - 1] == '/')
			length--;
		while (length > 0 && cut[length - 1] != '/')
			length--;
		cut[length] = '\0';
	}
	joined = real ? append_lexically(real, whole + length) : NULL;
	free(real);
	free(cut);
	free(whole);
	return joined;
}

/* The part of path below the directory, NULL when it is not in it. */
static const char *below(const char *path, const char *directory)
{
	size_t length = strcmp(directory, "/") == 0 ? 0 : strlen(directory);

	if (strncmp(path, directory, length) != 0 || (path[length] != '/' && path[length] != '\0'))
		return NULL;
	path += length;
	return path + (*path == '/');
}

struct search {
	const char *path;
	bool resolving;    /* compare with what the configs' directories resolve to */
	char *file;        /* of the innermost match so far */
	const char *rest;  /* points into path */
};

static int consider(void *context, struct volume_config *config)
{
	struct search *search = context;
	char *resolved = search->resolving ? resolve(config->directory) : NULL;
	const char *rest;
	char *file;

	if (search->resolving && !resolved)
		return 0;
	rest = below(search->path, resolved ? resolved : config->directory);
	free(resolved);
	/* The shorter the rest, the deeper the directory. */
	if (!rest || (search->rest && rest <= search->rest))
		return 0;
	file = strdup(config->file);
	if (!file)
		return ERR_NOMEM;
	free(search->file);
	search->file = file;
	search->rest = rest;
	return 0;
}

int config_find(const char *path, struct volume_config **out, char **rest, struct error *error)
{
	struct search search = { 0 };
	char *resolved = resolve(path), *tail = NULL;
	int rc;

	if (!resolved)
		return error_errno(error, errno, "cannot find out where %s is", path);
	search.path = resolved;
	rc = config_each(consider, &search, error);
	/* Configs usually name a directory as it resolves; only when none fits are they looked up on the disk. */
	if (rc == 0 && !search.file) {
		search.resolving = true;
		rc = config_each(consider, &search, error);
	}
	if (rc == 0 && !search.file)
		rc = error_set(error, ERR_ABSENT, 0, "%s: not in a volume; make one with yester init DIR REMOTE", path);
	else if (rc == ERR_NOMEM)
		error_set(error, rc, 0, "%s: out of memory", path);
	if (rc < 0)
		goto out;
	tail = strdup(search.rest);
	if (!tail) {
		rc = error_set(error, ERR_NOMEM, 0, "%s: out of memory", path);
		goto out;
	}
	rc = config_read(search.file, out, error);
	if (rc == 0 && rest) {
		*rest = tail;
		tail = NULL;
	}
out:
	free(tail);
	free(search.file);
	free(resolved);
	return rc;
}

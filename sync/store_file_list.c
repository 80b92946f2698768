#include "store_file_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct walk {
	struct store_file *files;
	const char *prefix, *start_after;
	store_list_fn *fn;
	void *context;
	struct error *error;
	char path[2 * STORE_FILE_KEY_MAX]; /* of the directory in hand, "" or ending in '/'; then of the entry */
};

/* The entries of one directory; a directory's name ends in '/', so that sorting by bytes gives the order of the keys below. */
struct names {
	char **name;
	size_t count, capacity;
};

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->name[i]);
	free(names->name);
}

static int names_add(struct names *names, const char *name, bool directory)
{
	char *copy = malloc(strlen(name) + 2);

	if (copy && names->count == names->capacity) {
		size_t capacity = names->capacity ? 2 * names->capacity : 64;
		char **grown = realloc(names->name, capacity * sizeof *grown);

		if (grown) {
			names->name = grown;
			names->capacity = capacity;
		}
	}
	if (!copy || names->count == names->capacity) {
		free(copy);
		return ERR_NOMEM;
	}
	strcpy(copy, name);
	if (directory)
		strcat(copy, "/");
	names->name[names->count++] = copy;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Could be part of a key, and so was not put there by the filesystem (lost+found) or as a temporary file. */
static bool is_key_part(const char *name)
{
	return name[strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz-")] == '\0';
}

/* True if a key in question can be `path` or, when that ends in '/', below it. */
static bool may_match(const struct walk *walk, const char *path)
{
	size_t length = strlen(path), prefix_length = strlen(walk->prefix);
	bool directory = length > 0 && path[length - 1] == '/';

	if (strncmp(path, walk->prefix, length < prefix_length ? length : prefix_length) != 0)
		return false;
	if (!directory && length < prefix_length)
		return false;
	if (!walk->start_after || strcmp(path, walk->start_after) > 0)
		return true;
	return directory && strncmp(path, walk->start_after, length) == 0;
}

/* Reads the entries of the directory `at` (closed here) whose keys are in question, sorted. */
static int read_names(struct walk *walk, int at, struct names *names)
{
	size_t length = strlen(walk->path);
	DIR *dir = fdopendir(at);
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		rc = store_file_errno(walk->files, errno, walk->path, walk->error);
		close(at);
		return rc;
	}
	while (rc == 0 && (errno = 0, entry = readdir(dir))) {
		struct stat st;
		bool directory;

		if (!is_key_part(entry->d_name) || length + strlen(entry->d_name) + 2 > STORE_FILE_KEY_MAX)
			continue;
		if (entry->d_type == DT_UNKNOWN) {
			if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
				if (errno != ENOENT)
					rc = store_file_errno(walk->files, errno, walk->path, walk->error);
				continue;
			}
			directory = S_ISDIR(st.st_mode);
			if (!directory && !S_ISREG(st.st_mode))
				continue;
		} else if (entry->d_type == DT_DIR || entry->d_type == DT_REG) {
			directory = entry->d_type == DT_DIR;
		} else {
			continue;
		}
		snprintf(walk->path + length, sizeof walk->path - length, "%s%s", entry->d_name, directory ? "/" : "");
		if (may_match(walk, walk->path) && names_add(names, entry->d_name, directory) < 0)
			rc = error_set(walk->error, ERR_NOMEM, ENOMEM, "%s: out of memory", walk->files->store.url);
		walk->path[length] = '\0';
	}
	/* I22: a listing that breaks off is an error, never a short listing. */
	if (rc == 0 && errno != 0)
		rc = store_file_errno(walk->files, errno, walk->path, walk->error);
	closedir(dir);
	if (rc == 0 && names->count)
		qsort(names->name, names->count, sizeof names->name[0], compare_names);
	return rc;
}

static int report_file(struct walk *walk, int directory, const char *name)
{
	struct store_object object = { .key = walk->path };
	struct stat st;

	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0) /* ENOENT: deleted meanwhile */
		return errno == ENOENT ? 0 : store_file_errno(walk->files, errno, walk->path, walk->error);
	if (!S_ISREG(st.st_mode))
		return 0;
	object.size = (uint64_t)st.st_size;
	object.modified_s = st.st_mtime;
	return walk->fn(walk->context, &object);
}

/* Lists below the directory `at` (closed here), whose path is walk->path. The length of a key bounds the recursion. */
static int walk_directory(struct walk *walk, int at)
{
	size_t length = strlen(walk->path);
	struct names names = { 0 };
	int rc = 0, copy = fcntl(at, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		rc = store_file_errno(walk->files, errno, walk->path, walk->error);
	else
		rc = read_names(walk, copy, &names);
	for (size_t i = 0; rc == 0 && i < names.count; i++) {
		const char *name = names.name[i];

		if (store_file_cancelled(walk->files)) {
			rc = error_set(walk->error, ERR_ABANDONED, 0, "%s: cancelled", walk->files->store.url);
			break;
		}
		snprintf(walk->path + length, sizeof walk->path - length, "%s", name);
		if (name[strlen(name) - 1] != '/') {
			rc = report_file(walk, at, name);
		} else {
			int next = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			rc = next < 0 ? store_file_errno(walk->files, errno, walk->path, walk->error)
				      : walk_directory(walk, next);
		}
		walk->path[length] = '\0';
	}
	names_free(&names);
	close(at);
	return rc;
}

int store_file_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
		    struct error *error)
{
	struct store_file *files = (struct store_file *)store;
	struct walk walk = { .files = files, .prefix = prefix, .start_after = start_after, .fn = fn, .context = context,
			     .error = error };
	int at, rc = store_file_check(files, error);

	if (rc < 0)
		return rc;
	store_count(&store->counts.list, 1);
	at = openat(files->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return store_file_errno(files, errno, "", error);
	rc = walk_directory(&walk, at);
	/* The root may have gone while we read it, and its files one by one with it: then "complete" is not known. */
	return rc == 0 ? store_file_check(files, error) : rc;
}

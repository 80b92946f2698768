#include "config_internal.h"

#include "clock.h"
#include "io.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_LARGEST 65536

/* ---- directories */

static char *absolute(const char *path)
{
	char *cwd, *joined;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return NULL;
	joined = io_printf("%s/%s", cwd, path);
	free(cwd);
	return joined;
}

/* getpwuid_r, because HOME is often missing where a service manager starts us. */
static char *home_dir(void)
{
	const char *home = getenv("HOME");
	struct passwd entry, *found = NULL;
	char scratch[4096];

	if (home && home[0] == '/')
		return strdup(home);
	if (getpwuid_r(geteuid(), &entry, scratch, sizeof scratch, &found) != 0 || !found || found->pw_dir[0] != '/')
		return NULL;
	return strdup(found->pw_dir);
}

static char *user_dir(const char *variable, const char *system, const char *xdg_variable, const char *below_home)
{
	const char *given = getenv(variable), *xdg = getenv(xdg_variable);
	char *home, *joined;

	if (given && given[0])
		return absolute(given);
	if (geteuid() == 0)
		return strdup(system);
	/* The XDG Base Directory Specification: a relative path is to be ignored. */
	if (xdg && xdg[0] == '/')
		return io_printf("%s/yester", xdg);
	home = home_dir();
	if (!home)
		return NULL;
	joined = io_printf("%s/%s/yester", home, below_home);
	free(home);
	return joined;
}

char *config_dir(void)
{
	return user_dir("YESTER_CONFIG_DIR", "/etc/yester", "XDG_CONFIG_HOME", ".config");
}

char *state_dir(void)
{
	return user_dir("YESTER_STATE_DIR", "/var/lib/yester", "XDG_STATE_HOME", ".local/state");
}

/* ---- the struct */

struct volume_config *config_new(const char *name)
{
	struct volume_config *config = calloc(1, sizeof *config);
	char *directory = config_dir();

	if (!config || !directory)
		goto fail;
	config->name = strdup(name);
	config->file = io_printf("%s/%s.conf", directory, name);
	config->addressing = strdup("auto");
	if (!config->name || !config->file || !config->addressing)
		goto fail;
	free(directory);
	config->encryption = true;
	config->interval_ns = 15 * NS_PER_S;
	config->cache_limit_bytes = UINT64_C(1) << 30;
	config->pack_size_bytes = UINT64_C(16) << 20;
	config->compression_level = 3;
	config->uploads = 4;
	return config;
fail:
	free(directory);
	config_free(config);
	return NULL;
}

void config_free(struct volume_config *config)
{
	if (!config)
		return;
	free(config->name);
	free(config->file);
	free(config->directory);
	free(config->remote);
	free(config->passphrase_file);
	free(config->key_file);
	free(config->endpoint);
	free(config->region);
	free(config->profile);
	free(config->addressing);
	free(config->ca_file);
	free(config->storage_class);
	free(config->server_side_encryption);
	free(config->proxy);
	free(config);
}

int config_name_of_file(const char *file, char **out, struct error *error)
{
	const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
	size_t length = strlen(base);
	char *name;

	if (length < 5 || strcmp(base + length - 5, ".conf") != 0)
		return error_set(error, ERR_USAGE, 0, "%s: the name of a config file ends in .conf", file);
	name = strndup(base, length - 5);
	if (!name)
		return error_set(error, ERR_NOMEM, 0, "%s: out of memory", file);
	if (!config_name_is_valid(name)) {
		free(name);
		return error_set(error, ERR_USAGE, 0, "%s: a volume's name has 1 to 64 of a-z, 0-9, _ and -; rename the file", file);
	}
	*out = name;
	return 0;
}

/* ---- files */

int config_read(const char *path, struct volume_config **out, struct error *error)
{
	struct buf text = { 0 };
	int rc = io_read_file(AT_FDCWD, path, CONFIG_LARGEST, &text, error);

	if (rc == ERR_CORRUPT)
		rc = error_set(error, ERR_USAGE, 0, "%s: it is too large for a config file", path);
	if (rc == 0 && memchr(text.data, '\0', text.length))
		rc = error_set(error, ERR_USAGE, 0, "%s: it is no text", path);
	if (rc == 0) {
		text.data[text.length] = '\0'; /* io_read_file leaves room */
		rc = config_parse(path, (const char *)text.data, out, error);
	}
	buf_free(&text);
	return rc;
}

int config_write(const struct volume_config *config, bool only_new, struct error *error)
{
	struct buf text = { 0 };
	char *slash, *parent = strdup(config->file);
	int rc = parent ? 0 : error_set(error, ERR_NOMEM, 0, "%s: out of memory", config->file);

	if (rc == 0)
		rc = config_format(config, &text, error);
	if (rc < 0)
		goto out;
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = '\0';
		rc = io_mkdirs(parent, error);
		if (rc < 0)
			goto out;
	}
	rc = only_new ? io_create_file(AT_FDCWD, config->file, text.data, text.length, 0600, error) :
			io_replace_file(AT_FDCWD, config->file, text.data, text.length, 0600, error);
out:
	buf_free(&text);
	free(parent);
	return rc;
}

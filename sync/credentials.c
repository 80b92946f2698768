#include "credentials.h"

#include "buf.h"
#include "io.h"

#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define FILE_MAX (1 << 20)

struct credentials {
	/* Read-only after credentials_new. */
	bool named;           /* the volume's config names the profile: the environment does not count */
	char *profile;
	char *shared_file, *config_file; /* NULL: no home directory */
	struct credential_keys environment;
	/* Under lock. */
	pthread_mutex_t lock;
	struct credential_keys keys; /* access_key NULL: not found so far */
};

static void wipe_text(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

void credential_keys_wipe(struct credential_keys *keys)
{
	wipe_text(&keys->access_key);
	wipe_text(&keys->secret_key);
	wipe_text(&keys->session_token);
}

/* 0, or ERR_NOMEM (then `to` is empty). */
static int copy_keys(struct credential_keys *to, const struct credential_keys *from)
{
	*to = (struct credential_keys){ .generation = from->generation };
	to->access_key = strdup(from->access_key);
	to->secret_key = strdup(from->secret_key);
	to->session_token = from->session_token ? strdup(from->session_token) : NULL;
	if (to->access_key && to->secret_key && (to->session_token || !from->session_token))
		return 0;
	credential_keys_wipe(to);
	return ERR_NOMEM;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* ---- ini files, as the AWS tools write them */

static char *trimmed(const char *from, const char *end)
{
	while (from < end && (*from == ' ' || *from == '\t' || *from == '\r'))
		from++;
	while (end > from && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		end--;
	return strndup(from, (size_t)(end - from));
}

/* Is this line the header "[name]"? */
static bool is_section(const char *line, const char *end, const char *name)
{
	const char *close = memchr(line, ']', (size_t)(end - line));
	char *text = close ? trimmed(line + 1, close) : NULL;
	bool is = text && strcmp(text, name) == 0;

	free(text);
	return is;
}

/* The value on this line if it is "name = value"; NULL otherwise. */
static char *value_of(const char *line, const char *end, const char *name)
{
	const char *equals = memchr(line, '=', (size_t)(end - line));
	char *text = equals ? trimmed(line, equals) : NULL;
	bool is = text && strcasecmp(text, name) == 0;

	free(text);
	return is ? trimmed(equals + 1, end) : NULL;
}

/* The last value of `name` in section `section`, a fresh string, or NULL. Lines that begin with a blank belong to the setting
 * above them (nested settings such as those of "s3 =") and are passed over. */
static char *ini_value(const struct buf *file, const char *section, const char *name)
{
	const char *at = (const char *)file->data, *stop = at + file->length;
	bool inside = false;
	char *found = NULL;

	while (at < stop) {
		const char *end = memchr(at, '\n', (size_t)(stop - at));
		char *value;

		if (!end)
			end = stop;
		if (*at == '[') {
			inside = is_section(at, end, section);
		} else if (inside && !strchr("#; \t", *at) && (value = value_of(at, end, name))) {
			wipe_text(&found);
			found = value;
		}
		at = end < stop ? end + 1 : stop;
	}
	if (found && !*found)
		wipe_text(&found);
	return found;
}

/* The setting of this profile. In the config file a section is called "profile NAME", except "default". */
static char *profile_value(const struct credentials *credentials, const struct buf *file, bool config, const char *name)
{
	bool plain = !config || strcmp(credentials->profile, "default") == 0;
	char *section = io_printf("%s%s", plain ? "" : "profile ", credentials->profile);
	char *value = section && file->length ? ini_value(file, section, name) : NULL;

	free(section);
	return value;
}

/* The keys of one file; false if it has no pair of them. */
static bool read_keys(const struct credentials *credentials, bool config, struct credential_keys *keys)
{
	const char *path = config ? credentials->config_file : credentials->shared_file;
	struct buf file = { 0 };
	bool found = false;

	*keys = (struct credential_keys){ 0 };
	if (path && io_read_file(AT_FDCWD, path, FILE_MAX, &file, NULL) == 0) {
		keys->access_key = profile_value(credentials, &file, config, "aws_access_key_id");
		keys->secret_key = profile_value(credentials, &file, config, "aws_secret_access_key");
		keys->session_token = profile_value(credentials, &file, config, "aws_session_token");
		found = keys->access_key && keys->secret_key;
	}
	if (!found)
		credential_keys_wipe(keys);
	buf_wipe(&file);
	return found;
}

/* Looks everywhere, without the lock. 0, ERR_DENIED, ERR_NOMEM. */
static int look(const struct credentials *credentials, struct credential_keys *keys)
{
	if (credentials->environment.access_key)
		return copy_keys(keys, &credentials->environment);
	return read_keys(credentials, false, keys) || read_keys(credentials, true, keys) ? 0 : ERR_DENIED;
}

/* Takes over what was found if it differs from what we have; wipes it otherwise. Lock must be held. */
static void install(struct credentials *credentials, struct credential_keys *found)
{
	struct credential_keys *keys = &credentials->keys;

	if (same_text(keys->access_key, found->access_key) && same_text(keys->secret_key, found->secret_key) &&
	    same_text(keys->session_token, found->session_token)) {
		credential_keys_wipe(found);
		return;
	}
	found->generation = keys->generation + 1;
	credential_keys_wipe(keys);
	*keys = *found;
}

static int say_missing(const struct credentials *credentials, struct error *error)
{
	return error_set(error, ERR_DENIED, 0,
			 "no S3 credentials: looked for %sprofile '%s' in %s and %s; set AWS_ACCESS_KEY_ID and "
			 "AWS_SECRET_ACCESS_KEY, or write them into that file, or name another profile",
			 credentials->named ? "" : "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, and for ",
			 credentials->profile, credentials->shared_file ? credentials->shared_file : "(no home directory)",
			 credentials->config_file ? credentials->config_file : "(no home directory)");
}

int credentials_get(struct credentials *credentials, struct credential_keys *keys, struct error *error)
{
	struct credential_keys found;
	bool have;
	int rc = 0;

	pthread_mutex_lock(&credentials->lock);
	have = credentials->keys.access_key != NULL;
	pthread_mutex_unlock(&credentials->lock);
	if (!have && (rc = look(credentials, &found)) < 0)
		return rc == ERR_DENIED ? say_missing(credentials, error)
					: error_set(error, rc, 0, "no S3 credentials: out of memory");

	pthread_mutex_lock(&credentials->lock);
	if (!have)
		install(credentials, &found);
	rc = copy_keys(keys, &credentials->keys);
	pthread_mutex_unlock(&credentials->lock);
	return rc < 0 ? error_set(error, rc, 0, "no S3 credentials: out of memory") : 0;
}

int credentials_renew(struct credentials *credentials, uint64_t generation)
{
	struct credential_keys found;
	bool changed;

	pthread_mutex_lock(&credentials->lock);
	changed = credentials->keys.generation != generation; /* by another thread, meanwhile */
	pthread_mutex_unlock(&credentials->lock);
	if (changed)
		return 0;
	if (look(credentials, &found) < 0)
		return ERR_DENIED;
	pthread_mutex_lock(&credentials->lock);
	install(credentials, &found);
	changed = credentials->keys.generation != generation;
	pthread_mutex_unlock(&credentials->lock);
	return changed ? 0 : ERR_DENIED;
}

char *credentials_setting(struct credentials *credentials, const char *name)
{
	char *value = NULL;

	for (int config = 1; !value && config >= 0; config--) {
		const char *path = config ? credentials->config_file : credentials->shared_file;
		struct buf file = { 0 };

		if (path && io_read_file(AT_FDCWD, path, FILE_MAX, &file, NULL) == 0)
			value = profile_value(credentials, &file, config, name);
		buf_wipe(&file);
	}
	return value;
}

/* ---- new, free */

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* The path that variable `name` gives, else ~/.aws/`base`. Fresh, or NULL. */
static char *file_path(const char *name, const char *base)
{
	const char *path = environment(name), *home = environment("HOME");
	struct passwd entry, *found = NULL;
	char scratch[4096];

	if (path)
		return strdup(path);
	if (!home && getpwuid_r(getuid(), &entry, scratch, sizeof scratch, &found) == 0 && found)
		home = found->pw_dir;
	return home ? io_printf("%s/.aws/%s", home, base) : NULL;
}

struct credentials *credentials_new(const char *profile)
{
	struct credentials *credentials = calloc(1, sizeof *credentials);
	struct credential_keys keys = { (char *)environment("AWS_ACCESS_KEY_ID"), (char *)environment("AWS_SECRET_ACCESS_KEY"),
					(char *)environment("AWS_SESSION_TOKEN"), 0 };

	if (!credentials)
		return NULL;
	pthread_mutex_init(&credentials->lock, NULL);
	credentials->named = profile && *profile;
	if (!credentials->named)
		profile = environment("AWS_PROFILE");
	credentials->profile = strdup(profile ? profile : "default");
	credentials->shared_file = file_path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
	credentials->config_file = file_path("AWS_CONFIG_FILE", "config");
	if (!credentials->profile ||
	    (!credentials->named && keys.access_key && keys.secret_key && copy_keys(&credentials->environment, &keys) < 0)) {
		credentials_free(credentials);
		return NULL;
	}
	return credentials;
}

void credentials_free(struct credentials *credentials)
{
	if (!credentials)
		return;
	credential_keys_wipe(&credentials->environment);
	credential_keys_wipe(&credentials->keys);
	pthread_mutex_destroy(&credentials->lock);
	free(credentials->profile);
	free(credentials->shared_file);
	free(credentials->config_file);
	free(credentials);
}

#include "config_internal.h"

#include "clock.h"
#include "nearest.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define YEAR_NS (365 * 86400 * NS_PER_S)
#define MIB (UINT64_C(1) << 20)

enum type { TYPE_TEXT, TYPE_PATH, TYPE_DIRECTORY, TYPE_REMOTE, TYPE_URL, TYPE_CHOICE, TYPE_BOOL, TYPE_TIME, TYPE_SIZE, TYPE_INT };

/* Every key: where its value lives and what it may be. config_new has the defaults. */
struct key {
	const char *name;
	enum type type;
	size_t offset;
	int64_t least, most; /* times, sizes and integers, in the unit of the field */
	const char *choices; /* blank-separated */
};

#define FIELD(field) offsetof(struct volume_config, field)

static const struct key keys[] = {
	{ "directory", TYPE_DIRECTORY, FIELD(directory), 0, 0, NULL },
	{ "remote", TYPE_REMOTE, FIELD(remote), 0, 0, NULL },
	{ "passphrase_file", TYPE_PATH, FIELD(passphrase_file), 0, 0, NULL },
	{ "key_file", TYPE_PATH, FIELD(key_file), 0, 0, NULL },
	{ "encryption", TYPE_BOOL, FIELD(encryption), 0, 0, NULL },
	{ "unsafe_single_writer", TYPE_BOOL, FIELD(unsafe_single_writer), 0, 0, NULL },
	{ "interval", TYPE_TIME, FIELD(interval_ns), NS_PER_S, YEAR_NS, NULL },
	{ "spool_limit", TYPE_SIZE, FIELD(spool_limit_bytes), 0, INT64_MAX, NULL },
	{ "cache_limit", TYPE_SIZE, FIELD(cache_limit_bytes), 0, INT64_MAX, NULL },
	{ "pack_size", TYPE_SIZE, FIELD(pack_size_bytes), MIB, 128 * MIB, NULL },
	{ "compression_level", TYPE_INT, FIELD(compression_level), 1, 19, NULL },
	{ "uploads", TYPE_INT, FIELD(uploads), 1, 64, NULL },
	{ "endpoint", TYPE_URL, FIELD(endpoint), 0, 0, NULL },
	{ "region", TYPE_TEXT, FIELD(region), 0, 0, NULL },
	{ "profile", TYPE_TEXT, FIELD(profile), 0, 0, NULL },
	{ "addressing", TYPE_CHOICE, FIELD(addressing), 0, 0, "auto path virtual" },
	{ "allow_http", TYPE_BOOL, FIELD(allow_http), 0, 0, NULL },
	{ "ca_file", TYPE_PATH, FIELD(ca_file), 0, 0, NULL },
	{ "storage_class", TYPE_TEXT, FIELD(storage_class), 0, 0, NULL },
	{ "server_side_encryption", TYPE_CHOICE, FIELD(server_side_encryption), 0, 0, "AES256 aws:kms aws:kms:dsse" },
	{ "proxy", TYPE_TEXT, FIELD(proxy), 0, 0, NULL },
};
#define KEY_COUNT (sizeof keys / sizeof *keys)

static void *field_of(const struct volume_config *config, const struct key *key)
{
	return (char *)(uintptr_t)config + key->offset;
}

static bool is_text(enum type type)
{
	return type <= TYPE_CHOICE;
}

/* ---- values */

static bool is_choice(const char *choices, const char *value)
{
	size_t length = strlen(value);

	for (const char *at = choices; *at; at += strcspn(at, " "), at += *at == ' ')
		if (strcspn(at, " ") == length && strncmp(at, value, length) == 0)
			return true;
	return false;
}

/* What is wrong with a text, NULL: nothing. */
static const char *text_fault(const struct key *key, const char *value)
{
	size_t length = strlen(value);

	if (length == 0)
		return "the value is missing";
	for (const char *p = value; *p; p++)
		if ((uint8_t)*p < 0x20 || *p == 0x7f)
			return "a control character cannot stand in a value";
	if (value[0] == ' ' || value[length - 1] == ' ')
		return "a value cannot begin or end with a blank";
	if ((key->type == TYPE_PATH || key->type == TYPE_DIRECTORY) && value[0] != '/')
		return "the path must be absolute";
	if (key->type == TYPE_URL && strncmp(value, "http://", 7) != 0 && strncmp(value, "https://", 8) != 0)
		return "it must begin with https:// (or http://)";
	return NULL;
}

static int check_text(const struct key *key, const char *value, const char *where, struct error *error)
{
	const char *fault = text_fault(key, value);

	if (fault)
		return error_set(error, ERR_USAGE, 0, "%s%s = %s: %s", where, key->name, value, fault);
	if (key->type == TYPE_CHOICE && !is_choice(key->choices, value))
		return error_set(error, ERR_USAGE, 0, "%s%s = %s: it must be one of: %s", where, key->name, value, key->choices);
	return 0;
}

/* One spelling for a directory, so that paths can be compared: no doubled or trailing slash, no "." part. A ".." part is refused:
 * what it means depends on links. */
static bool tidy_directory(char *path)
{
	char *to = path;

	for (const char *from = path; *from;) {
		size_t length;

		from += strspn(from, "/");
		length = strcspn(from, "/");
		if (length == 2 && from[0] == '.' && from[1] == '.')
			return false;
		if (length > 0 && !(length == 1 && from[0] == '.')) {
			*to++ = '/';
			memmove(to, from, length);
			to += length;
		}
		from += length;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
	return true;
}

static int set_text(struct volume_config *config, const struct key *key, const char *value, const char *where, struct error *error)
{
	char **field = field_of(config, key), *copy;
	int rc = check_text(key, value, where, error);

	if (rc < 0)
		return rc;
	if (key->type == TYPE_REMOTE) {
		struct error detail;

		rc = config_check_remote(value, &detail);
		if (rc < 0)
			return error_set(error, rc, 0, "%s%s", where, detail.message);
	}
	copy = strdup(value);
	if (!copy)
		return error_set(error, ERR_NOMEM, 0, "%sout of memory", where);
	if (key->type == TYPE_DIRECTORY && !tidy_directory(copy)) {
		free(copy);
		return error_set(error, ERR_USAGE, 0, "%s%s = %s: the path must not have a .. part", where, key->name, value);
	}
	free(*field);
	*field = copy;
	return 0;
}

static int parse_bool(const char *value)
{
	if (strcmp(value, "yes") == 0)
		return 1;
	return strcmp(value, "no") == 0 ? 0 : -1;
}

/* Numbers in the unit of their field; false when malformed. */
static bool parse_number(const struct key *key, const char *value, int64_t *number)
{
	uint64_t size;

	if (key->type == TYPE_TIME)
		return config_parse_duration(value, number);
	if (key->type == TYPE_INT && (*value == '\0' || value[strspn(value, "0123456789")] != '\0'))
		return false;
	if (!config_parse_size(value, &size) || size > INT64_MAX)
		return false;
	*number = (int64_t)size;
	return true;
}

/* As people write it: 15s, 16M. Times are rounded up to whole seconds. */
static int format_number(struct buf *out, const struct key *key, int64_t number)
{
	static const struct { char letter; int64_t unit; } times[] = {
		{ 'd', 86400 * NS_PER_S }, { 'h', 3600 * NS_PER_S }, { 'm', 60 * NS_PER_S }, { 's', NS_PER_S },
	}, sizes[] = {
		{ 'T', INT64_C(1) << 40 }, { 'G', INT64_C(1) << 30 }, { 'M', INT64_C(1) << 20 }, { 'K', INT64_C(1) << 10 },
	};

	if (key->type == TYPE_TIME) {
		for (size_t i = 0; i < 4; i++)
			if (number % times[i].unit == 0)
				return buf_printf(out, "%" PRId64 "%c", number / times[i].unit, times[i].letter);
		return buf_printf(out, "%" PRId64 "s", number / NS_PER_S + 1);
	}
	for (size_t i = 0; key->type == TYPE_SIZE && number > 0 && i < 4; i++)
		if (number % sizes[i].unit == 0)
			return buf_printf(out, "%" PRId64 "%c", number / sizes[i].unit, sizes[i].letter);
	return buf_printf(out, "%" PRId64, number);
}

static int64_t number_of(const struct volume_config *config, const struct key *key)
{
	const void *field = field_of(config, key);

	switch (key->type) {
	case TYPE_BOOL:
		return *(const bool *)field;
	case TYPE_INT:
		return *(const int *)field;
	case TYPE_SIZE:
		return (int64_t)*(const uint64_t *)field;
	default:
		return *(const int64_t *)field;
	}
}

static int check_range(const struct key *key, int64_t number, const char *where, struct error *error)
{
	struct buf least = { 0 }, most = { 0 };
	int rc = ERR_USAGE;

	if (number >= key->least && number <= key->most)
		return 0;
	if (format_number(&least, key, key->least) < 0 || format_number(&most, key, key->most) < 0)
		rc = error_set(error, ERR_NOMEM, 0, "%sout of memory", where);
	else
		error_set(error, rc, 0, "%s%s: it must be between %s and %s", where, key->name, (char *)least.data, (char *)most.data);
	buf_free(&least);
	buf_free(&most);
	return rc;
}

static int set_value(struct volume_config *config, const struct key *key, const char *value, const char *where, struct error *error)
{
	static const char *const hints[] = {
		[TYPE_BOOL] = "yes or no", [TYPE_TIME] = "a time such as 15s, 10m, 2h or 1d",
		[TYPE_SIZE] = "a size such as 512M or 16G", [TYPE_INT] = "a whole number",
	};
	void *field = field_of(config, key);
	int64_t number;
	int rc;

	if (is_text(key->type))
		return set_text(config, key, value, where, error);
	number = key->type == TYPE_BOOL ? parse_bool(value) : 0;
	if (number < 0 || (key->type != TYPE_BOOL && !parse_number(key, value, &number)))
		return error_set(error, ERR_USAGE, 0, "%s%s = %s: it must be %s", where, key->name, value, hints[key->type]);
	if (key->type == TYPE_BOOL) {
		*(bool *)field = number != 0;
		return 0;
	}
	rc = check_range(key, number, where, error);
	if (rc < 0)
		return rc;
	if (key->type == TYPE_INT)
		*(int *)field = (int)number;
	else if (key->type == TYPE_SIZE)
		*(uint64_t *)field = (uint64_t)number;
	else
		*(int64_t *)field = number;
	return 0;
}

int config_set(struct volume_config *config, const char *name, const char *value, struct error *error)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(name, keys[i].name) == 0)
			return set_value(config, &keys[i], value, "", error);
	return error_set(error, ERR_USAGE, 0, "there is no key \"%s\"", name);
}

/* ---- text to struct */

static const char *nearest_key(const char *name)
{
	const char *nearest = keys[0].name;
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < KEY_COUNT; i++) {
		size_t d = edit_distance(name, keys[i].name);

		if (d < least) {
			least = d;
			nearest = keys[i].name;
		}
	}
	return nearest;
}

static char *trim(char *text)
{
	static const char blanks[] = " \t\r";
	size_t length;

	text += strspn(text, blanks);
	length = strlen(text);
	while (length > 0 && strchr(blanks, text[length - 1]))
		length--;
	text[length] = '\0';
	return text;
}

/* `seen` has a bit for each key. */
static int parse_line(struct volume_config *config, char *line, const char *where, uint64_t *seen, struct error *error)
{
	char *name = trim(line), *value = strchr(name, '=');

	if (name[0] == '\0' || name[0] == '#')
		return 0;
	if (!value)
		return error_set(error, ERR_USAGE, 0, "%s\"%s\" is not of the form key = value", where, name);
	*value++ = '\0';
	name = trim(name);
	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (strcmp(name, keys[i].name) != 0)
			continue;
		if (*seen & UINT64_C(1) << i)
			return error_set(error, ERR_USAGE, 0, "%sthe key %s stands here for the second time", where, name);
		*seen |= UINT64_C(1) << i;
		return set_value(config, &keys[i], trim(value), where, error);
	}
	return error_set(error, ERR_USAGE, 0, "%sthere is no key \"%s\"; the nearest is %s", where, name, nearest_key(name));
}

/* What no line shows by itself. */
static int check_whole(const struct volume_config *config, const char *file, struct error *error)
{
	const char *fault = NULL;

	if (!config->directory)
		fault = "the key directory is missing";
	else if (!config->remote)
		fault = "the key remote is missing";
	else if (config->passphrase_file && config->key_file)
		fault = "passphrase_file and key_file exclude each other";
	else if (!config->encryption && (config->passphrase_file || config->key_file))
		fault = "encryption = no and a passphrase_file or key_file exclude each other";
	return fault ? error_set(error, ERR_USAGE, 0, "%s: %s", file, fault) : 0;
}

static int parse_lines(struct volume_config *config, const char *file, char *text, struct error *error)
{
	uint64_t seen = 0;
	int rc = 0;

	for (unsigned number = 1; rc == 0 && text; number++) {
		char where[512];
		char *line = text;

		text = strchr(text, '\n');
		if (text)
			*text++ = '\0';
		if (snprintf(where, sizeof where, "%s:%u: ", file, number) >= (int)sizeof where)
			snprintf(where, sizeof where, "line %u: ", number);
		rc = parse_line(config, line, where, &seen, error);
	}
	return rc ? rc : check_whole(config, file, error);
}

int config_parse(const char *file, const char *text, struct volume_config **out, struct error *error)
{
	struct volume_config *config = NULL;
	char *name = NULL, *copy = strdup(text);
	int rc = config_name_of_file(file, &name, error);

	if (rc < 0)
		goto out;
	config = config_new(name);
	if (config) {
		free(config->file);
		config->file = strdup(file);
	}
	if (!copy || !config || !config->file) {
		rc = error_set(error, ERR_NOMEM, 0, "%s: out of memory", file);
		goto out;
	}
	rc = parse_lines(config, file, copy, error);
	if (rc == 0) {
		*out = config;
		config = NULL;
	}
out:
	config_free(config);
	free(name);
	free(copy);
	return rc;
}

/* ---- struct to text */

static bool is_default(const struct volume_config *config, const struct volume_config *defaults, const struct key *key)
{
	if (is_text(key->type)) {
		const char *text = *(char **)field_of(config, key), *usual = *(char **)field_of(defaults, key);

		return !text || (usual && strcmp(text, usual) == 0);
	}
	return number_of(config, key) == number_of(defaults, key);
}

static int format_key(const struct volume_config *config, const struct key *key, struct buf *out, struct error *error)
{
	int rc;

	if (buf_printf(out, "%s = ", key->name) < 0)
		goto nomem;
	if (is_text(key->type)) {
		const char *text = *(char **)field_of(config, key);

		rc = check_text(key, text, "", error);
		if (rc < 0)
			return rc;
		if (buf_printf(out, "%s\n", text) < 0)
			goto nomem;
		return 0;
	}
	if (key->type == TYPE_BOOL) {
		if (buf_printf(out, "%s\n", number_of(config, key) ? "yes" : "no") < 0)
			goto nomem;
		return 0;
	}
	rc = check_range(key, number_of(config, key), "", error);
	if (rc < 0)
		return rc;
	if (format_number(out, key, number_of(config, key)) < 0 || buf_printf(out, "\n") < 0)
		goto nomem;
	return 0;
nomem:
	return error_set(error, ERR_NOMEM, 0, "%s: out of memory", key->name);
}

int config_format(const struct volume_config *config, struct buf *out, struct error *error)
{
	struct volume_config *defaults = config_new(config->name), *again = NULL;
	int rc = 0;

	if (!defaults || buf_printf(out, "# yester volume %s: see yester.conf(5). Lines are key = value;\n"
					 "# keys that are not here have their defaults.\n", config->name) < 0)
		rc = error_set(error, ERR_NOMEM, 0, "%s: out of memory", config->file);
	for (size_t i = 0; rc == 0 && i < KEY_COUNT; i++)
		if (!is_default(config, defaults, &keys[i]))
			rc = format_key(config, &keys[i], out, error);
	/* Nothing is written that would be refused when read. */
	if (rc == 0)
		rc = config_parse(config->file, (const char *)out->data, &again, error);
	config_free(again);
	config_free(defaults);
	return rc;
}

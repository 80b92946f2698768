/* config: one file per volume, $YESTER_CONFIG_DIR/NAME.conf; parsed once, read-only afterwards.
 *
 * Lines are `key = value`; `#` begins a comment line; blanks around both sides are dropped; a key occurs once. An unknown key
 * or a bad value is ERR_USAGE naming file, line and the nearest valid key. Sizes are bytes or take K, M, G, T (powers of 1024); times take
 * s, m, h, d; booleans yes or no. Keys are the names of the fields below, without the unit at their end. No value holds a control character.
 *
 * Thread-safe: functions share nothing but the environment and the files.
 *   config.c        the struct, directories, reading and writing files
 *   config_parse.c  the table of keys; text to struct and back
 *   config_value.c  single values: times, sizes, remotes
 *   config_find.c   from a path to its volume */
#ifndef YESTER_CONFIG_H
#define YESTER_CONFIG_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct volume_config {
	char *name;            /* from the file's name: [a-z0-9_-]+, 1 to 64 characters */
	char *file;            /* path of the config file */
	char *directory;       /* absolute path of the mirrored directory, no trailing slash, no . or .. */
	char *remote;          /* s3://BUCKET/PREFIX or file:///PATH */
	char *passphrase_file; /* at most one of these two; neither: YESTER_PASSPHRASE_FILE, if encrypted */
	char *key_file;
	bool encryption;       /* default yes; `no` is remembered so that a downgrade is noticed (fault 46) */
	bool unsafe_single_writer;
	int64_t interval_ns;   /* default 15 s, 1 s to 365 days */
	uint64_t spool_limit_bytes; /* 0: default, the smaller of 16 GiB and a tenth of the filesystem */
	uint64_t cache_limit_bytes; /* default 1 GiB */
	uint64_t pack_size_bytes;   /* default 16 MiB, 1 to 128 MiB */
	int compression_level;      /* zstd, default 3, 1 to 19 */
	int uploads;                /* parallel uploads, default 4, 1 to 64 */
	/* S3 */
	char *endpoint;        /* URL; NULL: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else AWS */
	char *region;          /* NULL: AWS_REGION, AWS_DEFAULT_REGION, profile, else us-east-1 */
	char *profile;
	char *addressing;      /* auto (default), path, virtual */
	bool allow_http;       /* plain http to other than loopback */
	char *ca_file;
	char *storage_class;
	char *server_side_encryption; /* header value: AES256, aws:kms */
	char *proxy;
};

/* The directory of configs and of state: YESTER_CONFIG_DIR, YESTER_STATE_DIR, else /etc/yester and /var/lib/yester for root,
 * $XDG_CONFIG_HOME/yester and $XDG_STATE_HOME/yester for others. Fresh absolute strings; NULL when out of memory or without a home. */
char *config_dir(void);
char *state_dir(void);

/* Fresh struct with the defaults, `file` as it is for this name in config_dir(); NULL when out of memory. The strings are malloced; whoever
 * replaces one frees the old one. config_free(NULL) is fine. */
struct volume_config *config_new(const char *name);
void config_free(struct volume_config *config);

/* Parses a file. ERR_ABSENT, ERR_USAGE. Checks ranges and that the required keys (directory, remote) are there. */
int config_read(const char *path, struct volume_config **out, struct error *error);
/* Parses text, for tests and fuzzing; `file` is for messages and, as .../NAME.conf, for the name. */
int config_parse(const char *file, const char *text, struct volume_config **out, struct error *error);
/* One value, as a line of the file would set it; the old one is freed. ERR_USAGE: a bad value, or there is no such key. */
int config_set(struct volume_config *config, const char *key, const char *value, struct error *error);
/* Writes config->file atomically, mode 0600, with a commented header; keys at their default are left out.
 * only_new: ERR_EXISTS if the file is there. Makes the directory. ERR_USAGE when config_read would refuse the result. */
int config_write(const struct volume_config *config, bool only_new, struct error *error);
/* Checks form of a REMOTE: s3://BUCKET/PREFIX (letters, digits and !-_.*'() in PREFIX's parts) or file:///PATH (taken literally, no
 * %-escapes). ERR_USAGE with what is wrong and an example. */
int config_check_remote(const char *remote, struct error *error);

/* Every volume of this user: calls fn for each readable config in name order; a bad file stops with its error. Returns fn's first non-zero value.
 * fn borrows the config. No directory of configs is no volume. Files that this user may not read are left out. */
int config_each(int (*fn)(void *context, struct volume_config *config), void *context, struct error *error);
/* The volume whose directory is `path` or contains it (the innermost), else ERR_ABSENT with "not in a volume; yester init ..."; `path` is made absolute
 * and its links resolved as far as it exists. *rest (may be NULL): fresh string, the path below the directory without leading '/', "" for itself. */
int config_find(const char *path, struct volume_config **out, char **rest, struct error *error);

/* True for a name of 1 to 64 of [a-z0-9_-]. */
bool config_name_is_valid(const char *name);
/* "15s", "2h" to nanoseconds; "512M" to bytes; false when malformed or overflowing. */
bool config_parse_duration(const char *text, int64_t *ns);
bool config_parse_size(const char *text, uint64_t *bytes);

#endif

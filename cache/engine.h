/* engine: what fs/ asks of sync/. sync/engine.c implements it; fs/main.c hands the table to the verbs. */
#ifndef YESTER_ENGINE_H
#define YESTER_ENGINE_H

#include "config.h"
#include "err.h"
#include "volume.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;

enum engine_state { /* the word of `status` */
	ENGINE_SYNCED, ENGINE_SYNCING, ENGINE_SCANNING, ENGINE_OFFLINE, ENGINE_DEGRADED, ENGINE_FENCED
};
const char *engine_state_word(enum engine_state state);

struct engine_status {
	enum engine_state state;
	int64_t head, confirmed;            /* newest spooled and newest confirmed version */
	int64_t safe_until_ns;              /* I24: wall clock; 0: null; INT64_MAX: now */
	uint64_t pending_bytes, pending_files; /* not yet confirmed */
	uint64_t suspect_files;             /* may change unseen (suspect.h): compared again and again */
	double oldest_pending_seconds;
	uint64_t spool_bytes, uploaded_bytes;
	uint64_t put, get, list, delete_, head_requests;
	uint64_t backlog_files, backlog_bytes, scanned; /* import progress */
	bool scanning, importing;
	char last_error[512];               /* "" when none; says what to do */
	int64_t last_error_ns;
	uint8_t volume_id[16];
	uint8_t head_hash[32];              /* of log/confirmed: the pair (confirmed, hash) anchors against a rolled-back remote */
};

/* How a person or a file gives the secret. At most one is set. */
struct unlock {
	const char *passphrase_file;
	const char *key_file;
	const char *recovery_key; /* text */
	bool unencrypted;         /* init only: --no-encryption */
};

struct init_result {
	char recovery_key[48]; /* "" when unencrypted; shown once, then wiped by the caller */
	char key_file[512];    /* made by init when no passphrase was given */
	uint8_t volume_id[16];
	uint64_t files, bytes; /* in DIR now */
};

struct clone_result {
	int64_t version, time_s;
	uint64_t inodes, bytes;
	bool partial, lacking;
	uint64_t skipped; /* see extract.h */
	uint64_t damaged; /* files left out, because their data is damaged or missing in the remote; each was logged */
};
struct check_result { uint64_t records, packs, chunks, bytes, damaged_objects, damaged_files; };
/* Long work reports here about ten times a second: done of total (0: unknown) of `unit` ("files", "bytes"). May be NULL. */
typedef void progress_fn(void *context, const char *what, uint64_t done, uint64_t total, const char *unit);

struct engine_options { bool take_over, accept_loss; };

struct engine_ops {
	/* Creates config->remote's volume descriptor and key slots, the config file, the key file if need be, and the state directory; nothing stays behind on failure. ERR_EXISTS: a volume is there already. */
	int (*init)(struct volume_config *config, const struct unlock *unlock, struct init_result *out, struct error *error);
	/* PROTOCOL Clone: catalogue, state, config (key file copied beside it), then the tree of the newest version (or at_s >= 0) into config->directory, which must be absent or empty. */
	int (*clone)(struct volume_config *config, const struct unlock *unlock, int64_t at_s, progress_fn *progress,
		     void *context, struct clone_result *out, struct error *error);
	/* Verifies log chain, catalogue, packs; percent > 0: that share of all chunks. `report` gets a line for each damage (object, then paths). ERR_CORRUPT when damage was found. */
	int (*check)(const struct volume_config *config, const struct unlock *unlock, int percent, progress_fn *progress,
		     void (*report)(void *context, const char *line), void *context, struct check_result *out,
		     struct error *error);

	/* Unlocks with the local copies of the key slots (no network), sets the volume's remote. History can be read from then on. */
	int (*open)(struct volume *volume, const struct engine_options *options, struct engine **out, struct error *error);
	/* Starts journal, rescan, pipeline and upload threads. volume must have its backing open. */
	int (*start)(struct engine *engine, struct error *error);
	/* Cuts, and waits until that version is confirmed. *version. ERR_TIMEOUT (not durable in time), ERR_FENCED, ERR_FAILED. timeout_ns < 0: for ever; 0: only cut, spool and return. `rescan`: before that, the whole tree
	 * is looked through for what was changed behind the mount; also when cutting then fails, and however long it takes if timeout_ns is 0. */
	int (*sync)(struct engine *engine, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error);
	void (*status)(struct engine *engine, struct engine_status *out);
	/* Last cut, then uploads while they make progress, at most drain_ns; stops all threads. ERR_TIMEOUT: something is left for next time. */
	int (*stop)(struct engine *engine, int64_t drain_ns, struct error *error);
	void (*close)(struct engine *engine);
};

#endif

/* control: the daemon's socket, $STATE/NAME/control.sock (0600; the peer must be of the same user or root).
 *
 * Protocol 1, text lines. Request, one per connection, at most CONTROL_LINE_BYTES:  yester 1 VERB [ARGUMENT]
 * Answer: any number of progress lines, then one of the last two, then the connection is closed.
 *
 *   + PENDING_BYTES PENDING_FILES UPLOADED_BYTES
 *   ok JSON
 *   error WORD MESSAGE          WORD as error_word (err.h)
 *
 *   ping                 ok {"pid":N,"version":"0.1.0"}
 *   status               ok what status_json.h says
 *   sync TIMEOUT_MS      cuts, and answers when that version is in the remote; -1: no limit. ok {"version":N}
 *                        (as rescan where others are expected to change the directory: mounted elsewhere than on it without -o exclusive, or not local)
 *   rescan TIMEOUT_MS    looks through the directory for what was changed behind the mount, then as sync
 *   umount TIMEOUT_MS    drains while uploads progress, then unmounts and ends; answers when all is closed. `error busy`: still mounted; `error timeout`: unmounted, something
 *                        is left for next time. Who goes while it drains takes the request back
 *
 * Each connection has a thread; at most 16. Hostile input costs the peer its connection, nothing else. */
#ifndef YESTER_CONTROL_H
#define YESTER_CONTROL_H

#include "engine.h"

#define CONTROL_SOCKET "control.sock"
#define CONTROL_PROTOCOL 1
#define CONTROL_LINE_BYTES 256 /* of a request */

struct control;
struct fs;
struct control_env {
	struct volume *volume;
	const struct engine_ops *ops;
	struct engine *engine;
	const char *mountpoint;
	bool rescans; /* `sync` does: others may change the directory beside the mount */
	/* `umount`: drains and unmounts. `tick` is to be called about every second while it drains; false: nobody waits any more, and it stays mounted. */
	int (*unmount)(void *context, int64_t timeout_ns, bool (*tick)(void *), void *tick_context, struct error *error);
	void *context;
	const struct fs *fs; /* what is in force */
};

/* Listens. `env` is copied; what it points to stays until control_stop. */
int control_start(const struct control_env *env, struct control **out, struct error *error);
/* No new request gets at the engine from here on. */
void control_refuse(struct control *control);
/* Waits until no request uses the engine any more (engine stopped: `sync` returns). Before the engine is closed. */
void control_wait_idle(struct control *control);
/* Answers the waiting `umount` requests with *result, ends all threads, frees. NULL is fine. The caller exits soon afterwards: that closes
 * their connections. */
void control_stop(struct control *control, const struct error *result, int64_t version);

#endif

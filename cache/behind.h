/* behind: what the volume learns of its tree from the disk instead of from an operation of the mount. Whoever keeps copies of the tree for others (fs/invalidate.h, for the kernel) listens, and corrects them.
 *
 * The rule: whenever a state of the tree gets into journal, backlog or catalogue that no operation of the mount has brought there, the listener is told *after* it was seen. Else a later scan, which compares
 * with what the volume knows, would find nothing to tell, and the copy would stay wrong.
 *
 *   who looks                                    tells
 *   rescan_run, each inode that it meets         inode: every one, with its stat: the listener knows best what it has told others
 *   rescan_run, each name that goes to the       name: what differs from catalogue and journal, absences too
 *     backlog
 *   sealing, of an inode that is gone when     name: those that it had, which the version leaves out
 *     it is to be captured
 *   backlog_to_journal, batches of the import    name: they read it anew, and may see something newer than the scan
 *
 * All calls: threads of the engine that hold no lock, no transaction that writes, and no mutation. They may wait, for a few seconds at most, and none may call back into the volume but for volume_nodes. Without a
 * listener nothing happens. */
#ifndef YESTER_BEHIND_H
#define YESTER_BEHIND_H

#include "node.h"

#include <sys/stat.h>

struct volume;

struct behind_listener { /* all functions are there; constant */
	/* A scan begins, ends. The end comes however it ended, and returns when all that was told has had its effect, as far as that is possible in finite time. */
	void (*begin)(void *context);
	void (*end)(void *context);
	void (*inode)(void *context, const struct node_key *key, const struct stat *st);
	void (*name)(void *context, const struct node_key *dir, const char *name);
	void *context;
};

/* Before the engine starts; the listener outlives the engine. NULL: none. */
void volume_set_listener(struct volume *volume, const struct behind_listener *listener);
const struct behind_listener *volume_listener(const struct volume *volume);

static inline void behind_name(const struct volume *volume, const struct node_key *dir, const char *name)
{
	const struct behind_listener *listener = volume_listener(volume);

	if (listener)
		listener->name(listener->context, dir, name);
}

#endif

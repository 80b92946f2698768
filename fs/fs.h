/* fs: speaks FUSE and to the person; knows no S3.
 *
 * How data flows. A verb (cmd_*.c) runs in the program that the person started. `mount` forks the daemon (mount.c): it opens the volume and its backing tree, starts
 * the engine, mounts, and serves requests (session.c) until the mount goes away; control.c answers the other verbs over a socket. A request becomes a call on the
 * backing tree inside a mutation of the journal (ops_*.c), or, below `.snapshots`, a read of the catalogue and of history (snap*.c).
 *
 *   main, cmd.h, cmd_*.c   the verbs, one file each; help: what --help says; mount_helper: the words that mount(8) uses
 *   options progress human   words of the command line; bars, rates; numbers and times for people
 *   find_volume new_config secret_options store_options   which volume a path is in; a new one; how the person opens one that this machine does not know, and how its store is reached
 *   unmounted    the engine in the verb's own process
 *   restore_*    where to, which version, the whole volume
 *   json_field status_text   `status` for people, out of its JSON
 *   mount_options mount_point   what `-o` says; mountinfo, whether a place can be mounted on, unmounting
 *   bdi          how much of memory our dirty pages may take
 *   fusectl      what the kernel says of the connection
 *   breaker      a process that breaks the connection when the daemon is dead
 *   mount        life of the daemon: fork, open, mount, serve, drain, close
 *   session      the table of FUSE operations, what is asked of the kernel, the loop
 *   control control_client      the socket between the daemon and the other verbs; status_json: what `status` says
 *   holder       which process has a volume; waiting for one that is about to end
 *   inode        node numbers of the kernel and nodes of the cache; entries, forget, getattr
 *   invalidate   what the kernel keeps, and how it hears of what was changed behind the mount
 *   handle       open files and directories
 *   io_mode passthrough   how the kernel does the I/O of what is open: through its pages of our inode, or on the backing file itself
 *   identity     acting as the caller
 *   reply        errors to errno; answers that must be undone when they did not arrive
 *   ops_*        the operations on the live tree: lookup dir name file data attr xattr
 *   snap_node snapdir snap_list snap_read snap_access   `.snapshots`
 *
 * Threads: libfuse's workers run the operations. What may wait long (fsync; reading history) runs in two pools of threads and answers from there, so that no live operation waits for the
 * network (promise 1). What the kernel is told without being asked comes from a thread that serves nothing (invalidate.h). Signals are taken by a thread of mount.c. Locks of fs are leaves, but for those of io_mode.h: of cache/ only
 * what looks an entry up is called under them (readdir). */
#ifndef YESTER_FS_H
#define YESTER_FS_H

#include "backing.h"
#include "engine.h"
#include "volume.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* fuse_file_info.kill_suidgid came with libfuse 3.18.3: who has asked for FUSE_HANDLE_KILLPRIV_V2 must take set-id bits away himself, and learns by it when. */
#define FUSE_KILLS_SUIDGID                                                                                             \
	(FUSE_VERSION > FUSE_MAKE_VERSION(3, 18) || (FUSE_VERSION == FUSE_MAKE_VERSION(3, 18) && FUSE_HOTFIX_VERSION >= 3))

#define FS_INITIAL_USER_NAMESPACE 0xEFFFFFFDu /* PROC_USER_INIT_INO, include/linux/proc_ns.h: the inode of /proc/PID/ns/user */
#define FS_SNAPSHOTS ".snapshots"
#define FS_MAX_WRITE (1 << 20)
#define FS_SLICE_BYTES (INT64_C(8) << 20) /* I1 */

struct handle;
struct invalidator;
struct io_table;
struct pool;
struct snap_table;

struct fs { /* one per mount; constant while the session runs, but for what says otherwise */
	struct volume *volume;
	struct backing *backing;
	struct node_table *nodes;
	struct journal *journal;
	struct fuse_session *session;
	struct pool *sync_pool;    /* fsync, O_SYNC writes */
	struct pool *history_pool; /* opening and reading files of a version */
	atomic_ulong written_back; /* requests so far that brought pages which programs had stored to through mappings */
	struct snap_table *snaps;
	struct io_table *io;       /* which inodes are open, and how the kernel does their I/O */
	atomic_bool passthrough;   /* the kernel may use the backing files itself */
	bool no_passthrough;       /* -o no_passthrough */
	bool told_fsetid;          /* FUSE_HANDLE_KILLPRIV_V2: writes and truncations say whether the caller lacks CAP_FSETID; set while it mounts */
	struct invalidator *invalidator;
	bool alone;                /* nobody is expected to change the tree but through the mount: the kernel may keep what it was told */
	enum backing_names names;  /* what those of the backing tree are like */
	atomic_bool can_expire;    /* the kernel can be told that a name is to be looked up again; set while it mounts */
	bool snapdir_visible;
	uid_t owner;               /* of the volume's root at mount: `.snapshots` belongs to it */
	gid_t group;
	pthread_mutex_t handles_lock;
	struct handle *handles;    /* all open ones; handles_lock, as the following */
	size_t handle_count, handle_limit;
};

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

#endif

/* identity: doing one system call as the process that asked for it, when the daemon is root.
 *
 * The kernel has checked every permission with the caller's own groups (default_permissions) before a request reaches us, so that nothing is left for us to refuse; what is left is what the backing
 * filesystem takes from the thread that does the call:
 *   - a new inode belongs to the thread's fsuid and fsgid; its mode is cut by the thread's umask unless the directory has a default ACL
 *   - space: quotas, and the blocks that ext4 keeps for root (fsuid 0 or CAP_SYS_RESOURCE)
 *   - set-id bits: a thread without CAP_FSETID loses them when it truncates
 * All of it is per thread in the kernel, though glibc pretends otherwise: hence raw system calls. Supplementary groups don't arrive with a request; so the capabilities that stand
 * in for them (CAP_DAC_OVERRIDE for directories that only a group may write, CAP_FSETID for set-group-id of such a group) are put back after the switch,
 * which clears them (capabilities(7), "Effect of user ID changes on capabilities").
 *
 * Not root, or root without CAP_SETUID and CAP_SETGID: everything is done as the daemon's user; only the umask is the caller's. */
#ifndef YESTER_IDENTITY_H
#define YESTER_IDENTITY_H

#include "fs.h"

#include <sys/stat.h>

struct identity {
	bool switched;
	bool clears; /* the call takes set-id bits away if it succeeds; with FUSE_HANDLE_KILLPRIV_V2 the kernel goes on believing the old mode, in execve(2) too, unless it is told (invalidate_attributes) */
};

/* Reads what this process may do. Once, before threads start. */
void identity_init(void);
/* True when calls are done as the caller. */
bool identity_switches(void);
/* True when a thread can have a umask of its own (some containers forbid unshare(2)); else the kernel must apply the caller's, and a default ACL is cut by it. */
bool identity_has_umask(void);

/* Around the one call that makes an inode. May change errno in enter; leave keeps it. */
void identity_enter_create(struct identity *identity, fuse_req_t req);
/* Around a call that changes the content of the file behind `fd`, takes space for it, gives it to another owner or group, or sets its ACL. Set-id bits: the backing filesystem takes them
 * away as it would for the caller; the kernel does so by requests of its own before most of these calls, but not with FUSE_HANDLE_KILLPRIV_V2, nor set-group-id of a file that its group can't execute, nor for
 * an ACL. Capabilities (security.capability) are taken away by any such call, whoever does it. `fsetid`: whether a caller who is root has CAP_FSETID, without which they go for him too. */
enum identity_fsetid {
	IDENTITY_HAS,
	IDENTITY_LACKS, /* the kernel says so */
	IDENTITY_ASK    /* the request does not tell: fallocate, copy_file_range, chown, ACLs; all without FUSE_HANDLE_KILLPRIV_V2 */
};
/* Of a write or truncation. `lacks`: what the request says. */
enum identity_fsetid identity_told(const struct fs *fs, bool lacks);
void identity_enter_write(struct identity *identity, fuse_req_t req, int fd, enum identity_fsetid fsetid);
void identity_leave(struct identity *identity);

/* The caller may change attributes of what belongs to `owner`: he is that, or has CAP_FOWNER. */
bool identity_owns(fuse_req_t req, uid_t owner);
/* The caller is in that group. */
bool identity_in_group(fuse_req_t req, gid_t gid);

#endif

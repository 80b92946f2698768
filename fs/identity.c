#include "identity.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_BIT(cap) (UINT64_C(1) << (cap))
#define CALLER_ROOT(uid) ((uid) == 0 || (uid) == (uid_t)-1) /* -1: the kernel itself (write-back) */

static bool switches, has_umask;
static uint64_t permitted;
static _Thread_local bool own_umask; /* this thread's umask is its own */

static bool caps_read(uint64_t *effective_out, uint64_t *permitted_out)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) != 0)
		return false;
	*effective_out = data[0].effective | (uint64_t)data[1].effective << 32;
	*permitted_out = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return true;
}

static void caps_set_effective(uint64_t effective)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)effective, .permitted = (uint32_t)permitted},
		{.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32)},
	};
	/* Of our own, and no more than permitted: only a security module could refuse it; going on with the wrong ones is no way out. */
	if (syscall(SYS_capset, &header, data) != 0)
		abort();
}

void identity_init(void)
{
	uint64_t effective;
	uint64_t need = CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID) | CAP_BIT(CAP_DAC_OVERRIDE) |
			CAP_BIT(CAP_DAC_READ_SEARCH) | CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_CHOWN);
	has_umask = unshare(CLONE_FS) == 0;
	switches = geteuid() == 0 && caps_read(&effective, &permitted) && (effective & permitted & need) == need;
}

bool identity_has_umask(void)
{
	return has_umask;
}

bool identity_switches(void)
{
	return switches;
}

static void switch_to(struct identity *identity, uid_t uid, gid_t gid, uint64_t without)
{
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	caps_set_effective(permitted & ~(without | (uid ? CAP_BIT(CAP_SYS_RESOURCE) : 0)));
	identity->switched = true;
}

void identity_enter_create(struct identity *identity, fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	*identity = (struct identity){0};
	if (has_umask && !own_umask)
		own_umask = unshare(CLONE_FS) == 0;
	if (own_umask)
		umask(ctx->umask);
	if (!switches)
		return;
	if (!CALLER_ROOT(ctx->uid))
		switch_to(identity, ctx->uid, ctx->gid, 0);
	else if (ctx->gid != 0 && ctx->gid != (gid_t)-1) {
		syscall(SYS_setfsgid, ctx->gid);
		identity->switched = true;
	}
}

/* In the initial user namespace, as the kernel wants it (capable()). By /proc: of a process that can't be seen from here, no. */
static bool caller_has(fuse_req_t req, int cap)
{
	char path[40], line[128];
	unsigned long long effective = 0;
	long pid = fuse_req_ctx(req)->pid;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%ld/ns/user", pid);
	if (stat(path, &st) != 0 || st.st_ino != FS_INITIAL_USER_NAMESPACE)
		return false;
	snprintf(path, sizeof(path), "/proc/%ld/status", pid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (file)
		fclose(file);
	return effective & CAP_BIT(cap);
}

enum identity_fsetid identity_told(const struct fs *fs, bool lacks)
{
	return lacks ? IDENTITY_LACKS : fs->told_fsetid ? IDENTITY_HAS : IDENTITY_ASK;
}

bool identity_owns(fuse_req_t req, uid_t owner)
{
	return fuse_req_ctx(req)->uid == owner || caller_has(req, CAP_FOWNER);
}

void identity_enter_write(struct identity *identity, fuse_req_t req, int fd, enum identity_fsetid fsetid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct stat st;

	*identity = (struct identity){0};
	bool root = CALLER_ROOT(ctx->uid);
	if (!switches || (root && fsetid == IDENTITY_HAS))
		return;
	if (fstat(fd, &st) != 0)
		st = (struct stat){.st_mode = S_IFREG | S_ISUID, .st_gid = ctx->gid}; /* the careful assumption */
	bool set_id = (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && (st.st_mode & (S_ISUID | S_ISGID));
	if (root && (!set_id || (fsetid == IDENTITY_ASK && caller_has(req, CAP_FSETID))))
		return;
	/* The backing filesystem asks whether the thread is in the file's group: a thread has one group only, so it is that one, if the caller is in it. */
	gid_t gid = set_id && identity_in_group(req, st.st_gid) ? st.st_gid : ctx->gid;
	switch_to(identity, root ? 0 : ctx->uid, gid, set_id ? CAP_BIT(CAP_FSETID) : 0);
	identity->clears = set_id;
}

void identity_leave(struct identity *identity)
{
	if (!identity->switched)
		return;
	int saved = errno;
	syscall(SYS_setfsuid, 0); /* puts the capabilities of the filesystem back, those that the switch took away */
	syscall(SYS_setfsgid, 0);
	caps_set_effective(permitted);
	identity->switched = false;
	errno = saved;
}

bool identity_in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	if (ctx->gid == gid)
		return true;
	gid_t few[64], *list = few;
	int room = 64, count = fuse_req_getgroups(req, room, list);
	if (count > room) {
		list = malloc((size_t)count * sizeof(gid_t));
		if (!list)
			return false;
		room = count;
		count = fuse_req_getgroups(req, room, list);
	}
	bool found = false;
	for (int i = 0; i < count && i < room && !found; i++)
		found = list[i] == gid;
	if (list != few)
		free(list);
	return found;
}

#include "reply.h"

#include "clock.h"
#include "inode.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int reply_errno(int code, int sys_errno)
{
	switch (code) {
	case ERR_OK:
		return 0;
	case ERR_ABSENT:
		return ENOENT;
	case ERR_EXISTS:
		return EEXIST;
	case ERR_NOSPACE:
		return sys_errno ? sys_errno : ENOSPC;
	case ERR_NOMEM:
		return ENOMEM;
	case ERR_UNSUPPORTED:
		return EOPNOTSUPP;
	case ERR_BUSY:
		return EBUSY;
	case ERR_USAGE:
		return EINVAL;
	case ERR_FAILED:
		return sys_errno ? sys_errno : EIO;
	default: /* What is wrong with the remote is no business of the application: it can't read, that is all. */
		return EIO;
	}
}

void reply_result(fuse_req_t req, int result)
{
	fuse_reply_err(req, result < 0 ? -result : 0);
}

void reply_error(fuse_req_t req, const char *what, const struct error *error)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char last[sizeof(error->message)];
	static int64_t last_ns;

	int64_t now = clock_mono_ns();
	pthread_mutex_lock(&lock);
	bool again = last_ns && now - last_ns < 10 * NS_PER_S && strcmp(last, error->message) == 0;
	if (!again) {
		memcpy(last, error->message, sizeof(last));
		last_ns = now;
	}
	pthread_mutex_unlock(&lock);
	if (!again)
		log_error("%s: %s", what, error->message);
	fuse_reply_err(req, reply_errno(error->code, error->sys_errno));
}

void reply_entry(fuse_req_t req, const struct fuse_entry_param *entry)
{
	struct fs *fs = fs_of(req); /* the request is gone after the answer */
	fuse_ino_t ino = entry->ino;
	if (fuse_reply_entry(req, entry) != 0 && ino)
		inode_forget(fs, ino, 1);
}

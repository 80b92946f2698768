#include "ops_attr.h"

#include "backing.h"
#include "catalogue.h"
#include "clock.h"
#include "identity.h"
#include "inode.h"
#include "invalidate.h"
#include "journal.h"
#include "reply.h"
#include "snapdir.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

static bool is_ours(const char *name)
{
	return strncmp(name, XATTR_OURS, strlen(XATTR_OURS)) == 0;
}

void xattr_reply(fuse_req_t req, const void *value, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (length > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, length);
}

/* ---------------------------------------------------------------- user.yester.* */

/* Is the inode as a version knows it? *captured: the newest version that holds its present state, 0 when none does. */
static int look_up_state(struct fs *fs, const struct place *place, int64_t *captured, int64_t *confirmed)
{
	struct db_conn *conn;
	struct local_row row;
	struct error error;
	struct stat st;

	*captured = *confirmed = 0;
	bool pending = journal_node_pending(fs->journal, place->node);
	int rc = inode_stat(place->fd, &st);
	if (rc < 0)
		return rc;
	if (db_read_begin(volume_db(fs->volume), &conn, &error) != 0)
		return -reply_errno(error.code, error.sys_errno);
	rc = catalogue_local_by_key(conn, place->node->key.bytes, place->node->key.length, &row);
	*confirmed = db_meta_int(conn, "confirmed", 0);
	db_read_end(volume_db(fs->volume), conn);
	if (rc == ERR_ABSENT)
		return 0;
	if (rc < 0)
		return -reply_errno(rc, 0);
	/* A change made behind the mount that the rescan has yet to find shows in the stat. */
	bool same = row.ctime_ns == timespec_ns(st.st_ctim) && row.mtime_ns == timespec_ns(st.st_mtim) &&
		    (!S_ISREG(st.st_mode) || row.size == st.st_size);
	*captured = !pending && same ? row.captured : 0;
	return 0;
}

static void get_ours(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	struct place place;
	int64_t captured = 0, confirmed = 0;
	char value[24];

	int rc = place_get(fs, ino, &place);
	if (rc == 0)
		rc = look_up_state(fs, &place, &captured, &confirmed);
	place_put(fs, &place);
	name += strlen(XATTR_OURS);
	if (rc < 0)
		;
	else if (strcmp(name, "state") == 0)
		snprintf(value, sizeof(value), "%s",
			 !captured		? "pending"
			 : captured > confirmed ? "uploading"
						: "synced");
	else if (strcmp(name, "version") == 0 && captured)
		snprintf(value, sizeof(value), "%" PRId64, captured);
	else
		rc = -ENODATA;
	if (rc < 0)
		reply_result(req, rc);
	else
		xattr_reply(req, value, strlen(value), size);
}

/* ---------------------------------------------------------------- reading */

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	if (inode_is_snap(ino)) {
		snapdir_getxattr(req, ino, name, size);
		return;
	}
	if (is_ours(name)) {
		get_ours(req, ino, name, size);
		return;
	}

	char path[BACKING_PROC_PATH], few[1024], *value = size <= sizeof(few) ? few : malloc(size);
	struct place place;
	ssize_t length = 0;
	int rc = value ? place_get(fs, ino, &place) : -ENOMEM;
	if (rc == 0) {
		backing_proc_path(path, place.fd);
		length = getxattr(path, name, value, size);
		rc = length < 0 ? -errno : 0;
		place_put(fs, &place);
	}
	if (rc < 0)
		reply_result(req, rc);
	else
		xattr_reply(req, value, (size_t)length, size);
	if (value != few)
		free(value);
}

size_t xattr_visible(fuse_req_t req, char *names, size_t length)
{
	bool root = fuse_req_ctx(req)->uid == 0;
	size_t kept = 0;
	for (size_t at = 0; at < length;) {
		size_t one = strnlen(names + at, length - at) + 1;
		if (at + one > length)
			break;
		if (!is_ours(names + at) && (root || strncmp(names + at, "trusted.", 8) != 0)) {
			memmove(names + kept, names + at, one);
			kept += one;
		}
		at += one;
	}
	return kept;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	char path[BACKING_PROC_PATH], *names = NULL;
	struct place place;
	ssize_t length = 0;

	if (inode_is_snap(ino)) {
		snapdir_listxattr(req, ino, size);
		return;
	}
	int rc = place_get(fs, ino, &place);
	if (rc == 0) {
		names = malloc(XATTR_LIST_MAX);
		backing_proc_path(path, place.fd);
		length = names ? listxattr(path, names, XATTR_LIST_MAX) : -1;
		rc = !names ? -ENOMEM : length < 0 ? -errno : 0;
	}
	place_put(fs, &place);
	if (rc < 0)
		reply_result(req, rc);
	else
		xattr_reply(req, names, xattr_visible(req, names, (size_t)length), size);
	free(names);
}

/* ---------------------------------------------------------------- changing */

/* value NULL: remove. */
static int change_call(fuse_req_t req, fuse_ino_t ino, int fd, const char *name, const char *value, size_t size, int flags)
{
	char path[BACKING_PROC_PATH];
	struct identity identity = {.switched = false};
	int rc = 0;

	backing_proc_path(path, fd);
	/* An ACL sets the mode; who is not in the group loses set-group-id by that (posix_acl_update_mode in the kernel), and no flag tells us. */
	if (strncmp(name, "system.posix_acl_", 17) == 0)
		identity_enter_write(&identity, req, fd, IDENTITY_ASK);
	if ((value ? setxattr(path, name, value, size, flags) : removexattr(path, name)) != 0)
		rc = -errno;
	identity_leave(&identity);
	if (identity.clears)
		invalidate_attributes(fs_of(req), ino);
	return rc;
}

static void change_and_reply(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
			     int flags)
{
	struct fs *fs = fs_of(req);
	struct mutation mutation;
	struct place place;

	int rc = place_get_own(fs, ino, &place);
	if (rc == 0 && is_ours(name))
		rc = -EPERM;
	if (rc == 0)
		rc = mutation_begin(&mutation, fs->journal);
	if (rc == 0) {
		mutation_lock(&mutation, place.node, NULL, NULL, NULL);
		rc = mutation_attrs(&mutation, place.node);
		if (rc == 0)
			rc = change_call(req, ino, place.fd, name, value, size, flags);
		mutation_end(&mutation);
	}
	place_put(fs, &place);
	reply_result(req, rc);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	change_and_reply(req, ino, name, value ? value : "", size, flags);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	change_and_reply(req, ino, name, NULL, 0, 0);
}

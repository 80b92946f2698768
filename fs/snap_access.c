#include "snap_access.h"

#include "backing.h"
#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ACL_NAME "system.posix_acl_access"
#define ACL_VERSION 2 /* linux/posix_acl_xattr.h, as the following */
enum { TAG_USER_OBJ = 1, TAG_USER = 2, TAG_GROUP_OBJ = 4, TAG_GROUP = 8, TAG_MASK = 16, TAG_OTHER = 32 };
#define SEARCH 1
#define DEEPEST 65536 /* longer chains of parents are no tree */

static bool in_group(const struct caller *caller, gid_t gid)
{
	for (size_t i = 0; i < caller->group_count; i++)
		if (caller->groups[i] == gid)
			return true;
	return false;
}

struct found_acl { const void *value; size_t length; };

static int find_acl(void *context, const char *name, const void *value, size_t length)
{
	struct found_acl *found = context;
	if (strcmp(name, ACL_NAME) != 0)
		return 0;
	*found = (struct found_acl){value, length};
	return 1;
}

static bool search_by_mode(const struct caller *caller, const struct inode_row *row)
{
	if (caller->uid == row->uid)
		return row->mode & S_IXUSR;
	if (in_group(caller, row->gid))
		return row->mode & S_IXGRP;
	return row->mode & S_IXOTH;
}

static bool search_by_acl(const struct caller *caller, const struct inode_row *row, const struct found_acl *acl)
{
	struct reader reader = {acl->value, (const uint8_t *)acl->value + acl->length, false};
	uint16_t mask = 7, other = 0;
	bool user_found = false, user_may = false, group_found = false, group_may = false;

	if (reader_u32(&reader) != ACL_VERSION || (acl->length - 4) % 8 != 0)
		return false;
	if (caller->uid == row->uid)
		return row->mode & S_IXUSR;
	while (!reader.bad && reader.at < reader.end) {
		uint16_t tag = reader_u16(&reader), permissions = reader_u16(&reader);
		uint32_t id = reader_u32(&reader);
		if (tag == TAG_MASK)
			mask = permissions;
		else if (tag == TAG_OTHER)
			other = permissions;
		else if (tag == TAG_USER && id == caller->uid) {
			user_found = true;
			user_may = permissions & SEARCH;
		} else if ((tag == TAG_GROUP && in_group(caller, id)) ||
			   (tag == TAG_GROUP_OBJ && in_group(caller, row->gid))) {
			group_found = true;
			group_may |= permissions & SEARCH;
		}
	}
	if (reader.bad)
		return false;
	if (user_found)
		return user_may && mask & SEARCH;
	if (group_found)
		return group_may && mask & SEARCH;
	return other & SEARCH;
}

bool snap_access_search(const struct caller *caller, const struct inode_row *row)
{
	struct found_acl acl = {NULL, 0};
	if (caller->uid == 0)
		return true;
	if (row->xattrs && attrs_xattr_each(row->xattrs, row->xattrs_length, find_acl, &acl) < 0)
		return false;
	return acl.value ? acl.length >= 4 && search_by_acl(caller, row, &acl) : search_by_mode(caller, row);
}

static int take_parent(void *context, int64_t dir, const void *name, size_t length)
{
	(void)name;
	(void)length;
	*(int64_t *)context = dir;
	return 1;
}

static int walk_up(const struct caller *caller, struct db_conn *conn, int64_t seq, int64_t ino)
{
	for (int depth = 0; ino != CATALOGUE_ROOT_INO; depth++) {
		struct inode_hold hold;
		int64_t parent = 0;
		if (depth == DEEPEST || catalogue_names_of(conn, seq, ino, take_parent, &parent) < 0 || !parent)
			return -EIO;
		if (catalogue_inode(conn, seq, parent, &hold) != 0)
			return -EIO;
		bool may = snap_access_search(caller, &hold.row);
		inode_hold_free(&hold);
		if (!may)
			return -EACCES;
		ino = parent;
	}
	return 0;
}

int snap_access_ancestors(fuse_req_t req, struct db_conn *conn, int64_t seq, int64_t ino)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t few[64], *groups = few;
	if (ctx->uid == 0)
		return 0;
	/* Can't they be read (the process is in another pid namespace, or gone), the primary group alone counts. */
	int room = 63, count = fuse_req_getgroups(req, room, groups + 1);
	if (count > room) {
		groups = malloc(((size_t)count + 1) * sizeof(gid_t));
		if (!groups)
			return -ENOMEM;
		room = count;
		count = fuse_req_getgroups(req, room, groups + 1);
	}
	if (count < 0)
		count = 0;
	groups[0] = ctx->gid;
	struct caller caller = {ctx->uid, groups, (size_t)(count < room ? count : room) + 1};
	int rc = walk_up(&caller, conn, seq, ino);
	if (groups != few)
		free(groups);
	return rc;
}

/* ops_attr: changing attributes, and xattrs. Two xattrs are ours and made up: user.yester.state and user.yester.version (DESIGN section 7). */
#ifndef YESTER_OPS_ATTR_H
#define YESTER_OPS_ATTR_H

#include "fs.h"

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* Answers with a value: its length when size is 0, ERANGE when it does not fit. */
void xattr_reply(fuse_req_t req, const void *value, size_t length, size_t size);
/* What the caller may see of a list of names, in place; returns its length. Left out: what looks like ours, so that nobody takes a stored one for the made-up one; and
 * trusted.* unless root asks, as xattr(7) has it. */
size_t xattr_visible(fuse_req_t req, char *names, size_t length);

#define XATTR_OURS "user.yester."

#endif

/* snap_access: may the caller get where a version's name leads? The kernel checks the modes of what it walks through; from `d/.snapshots` to `d` as it was in version V
 * it jumps over the parents of `d` of then, whose modes may have been tighter than now (fault 48). */
#ifndef YESTER_SNAP_ACCESS_H
#define YESTER_SNAP_ACCESS_H

#include "catalogue.h"
#include "fs.h"

/* 0 when the caller of `req` could search every ancestor of directory `ino` in version seq; -EACCES; -EIO when the catalogue is damaged. Root may always. */
int snap_access_ancestors(fuse_req_t req, struct db_conn *conn, int64_t seq, int64_t ino);

struct caller { uid_t uid; const gid_t *groups; size_t group_count; /* the first is the primary one */ };
/* May this caller search a directory with that mode, owner and stored xattrs (ACL)? acl(5), "ACCESS CHECK ALGORITHM". A malformed ACL refuses. */
bool snap_access_search(const struct caller *caller, const struct inode_row *row);

#endif

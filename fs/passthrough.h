/* passthrough: whether the kernel may do I/O on the backing files itself here, asking for it, and the two ioctls that io_mode needs for it (Linux >= 6.9, fs/fuse/backing.c). */
#ifndef YESTER_PASSTHROUGH_H
#define YESTER_PASSTHROUGH_H

#include "fs.h"

struct io_mode_backing;

/* What the table of open inodes (fs->io) is given: constant, for the one mount of this process. */
const struct io_mode_backing *passthrough_backing(struct fs *fs);
/* At FUSE_INIT, when everything else is asked for: asks for it too, if all that it needs is there, and lets the table use it. Sets fs->passthrough. Why it is not in use, for the log; NULL: it is. */
const char *passthrough_init(struct fs *fs, struct fuse_conn_info *conn);
/* While the table is there: suspect_check keeps opens away through it (suspect.h). */
void passthrough_guard(struct fs *fs, bool on);

#endif

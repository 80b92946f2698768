/* reply: the one place where an error of ours becomes an errno, and answers that have to be undone when the kernel did not take them (the request was interrupted).
 * Any thread. Each call answers the request: it must not be touched afterwards. */
#ifndef YESTER_REPLY_H
#define YESTER_REPLY_H

#include "err.h"
#include "fs.h"

/* The (positive) errno for an enum err; sys_errno is what was behind it, 0 when none. */
int reply_errno(int code, int sys_errno);
/* `result` is 0 or -errno, as the calls on the backing tree return. */
void reply_result(fuse_req_t req, int result);
/* Logs the message (once, if the same comes again and again within ten seconds) and answers with the errno. `what` says what was tried. */
void reply_error(fuse_req_t req, const char *what, const struct error *error);
/* Entry of lookup and its like. The lookup that it counts is undone when the answer is not taken. */
void reply_entry(fuse_req_t req, const struct fuse_entry_param *entry);

#endif

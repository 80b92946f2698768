/* session: the connection to the kernel: which operations we have, what we ask for, and the loop that serves it.
 * Order: session_open, session_mount, session_loop (returns when the mount is gone, or session_exit was called), session_close. */
#ifndef YESTER_SESSION_H
#define YESTER_SESSION_H

#include "fs.h"

#include <stdbool.h>
#include <stdint.h>
#include "mount_options.h"

/* fs->backing must be open. */
int session_open(struct fs *fs, const char *directory, const struct mount_options *options, struct error *error);
int session_mount(struct fs *fs, const char *mountpoint, struct error *error);
/* 0, or ERR_FAILED when the connection broke. Only from the thread that session_exit interrupts. */
int session_loop(struct fs *fs);
/* From another thread, before session_close: waits for so long until the connection to the kernel is broken, as it is when the last mount of the filesystem is gone. False: it is not. */
bool session_is_broken(struct fs *fs, int64_t wait_ns);
/* Below it the kernel writes back whatever it is told to; above its congestion_threshold it leaves files out. */
#define SESSION_FEW 128
/* Likewise, for so long until at most `most` requests are unanswered; 0: then session_exit loses none that came before. `connection`: of fusectl_open, or -1. Without it all that can be seen is that no request is left
 * for us to take, at many looks; one that waits long for the network, or a thread of ours that gets no CPU, is not seen. False: there are more. */
bool session_wait_calm(struct fs *fs, int connection, long most, int64_t wait_ns);
/* From another thread: makes the loop end although the mount is still there. */
void session_exit(struct fs *fs);
/* Closes the connection, and what the kernel held open. Unmounts nothing: what is left of a mount answers ENOTCONN. After session_open failed: fine. */
void session_close(struct fs *fs);

#endif

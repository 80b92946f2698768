/* breaker: a small process beside the daemon, which breaks the FUSE connection when the daemon is dead.
 *
 * Elsewhere the kernel does that when the last descriptor of the connection is closed. But a thread that tells the kernel of a change (invalidate.h) may wait there for the lock of a directory, which a process
 * has that waits for an answer of ours. If the daemon is killed then, nobody answers; the thread can't be killed; and it keeps all descriptors, those of the connection and the volume's lock: requests hang for
 * ever, and the volume can't be mounted again. The breaker gets a signal when the daemon's first thread ends (PR_SET_PDEATHSIG: for a killed process that does not depend on the other threads), and writes to
 * `abort` of the connection in fusectl. A file that was opened there stands for this connection only, and does nothing once it is gone: so the breaker need not know how the daemon ended.
 *
 *   daemon, still one thread   breaker_start: fork
 *   mounted                    breaker_arm: number of the connection; the breaker opens the file, and says whether it could
 *   not mounted after all      the descriptor is closed, or its process gone: the breaker ends
 *
 * Where fusectl can't be had (fusectl.h), there is no breaker. Whoever kills the breaker too (a control group) is left with
 * what the kernel does, and with umount -f. */
#ifndef YESTER_BREAKER_H
#define YESTER_BREAKER_H

#include <stdbool.h>

/* While the process has one thread, which lives as long as the process. A descriptor for breaker_arm, to be closed after it at any time; -1: none (logged). */
int breaker_start(void);
/* Once. `device` of the mount, "0:N". False: it can't (logged). */
bool breaker_arm(int fd, const char *device);

#endif

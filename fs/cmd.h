/* cmd: the verbs. fs/main.c finds the verb in argv[1], answers --help and --version itself, and calls cmd_VERB with argv[0] the verb. */
#ifndef YESTER_CMD_H
#define YESTER_CMD_H

#include "engine.h"
#include "err.h"

/* Returns the exit code of the process (DESIGN section 7). */
typedef int cmd_fn(int argc, char **argv, const struct engine_ops *engine);

cmd_fn cmd_init, cmd_mount, cmd_umount, cmd_status, cmd_sync, cmd_restore, cmd_clone, cmd_check;

/* Prints "yester: MESSAGE" to stderr and returns the exit code that belongs to error->code: 2 for ERR_USAGE, 3 ERR_KEY, 4 ERR_TIMEOUT, 5 ERR_CORRUPT, 6 ERR_FENCED, else 1; what an interrupt ended (ERR_FAILED with EINTR): 128 + the signal. */
int cmd_fail(const struct error *error);

#endif

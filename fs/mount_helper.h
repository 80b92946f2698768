/* mount_helper: the words that mount(8) uses: `yester SRC MNT -o OPTIONS` (from mount.fuse(8)), or the program called as mount.yester or
 * mount.fuse.yester. */
#ifndef YESTER_MOUNT_HELPER_H
#define YESTER_MOUNT_HELPER_H

#include "engine.h"

#include <stdbool.h>

/* Whether these words are meant so: by the program's name, or because the first of them is a path. */
bool mount_helper_is_meant(int argc, char **argv);
/* Turns them into the verb mount; its exit code. */
int mount_helper(int argc, char **argv, const struct engine_ops *engine);

#endif

/* restore_root: puts a whole restored tree in the place of the volume's own directory, which can't be renamed: its entries are exchanged one after another, each
 * in one step. */
#ifndef YESTER_RESTORE_ROOT_H
#define YESTER_RESTORE_ROOT_H

#include "err.h"

/* `temporary`: the restored root, a directory in dirfd. Afterwards it holds what dirfd held before, and dirfd has its entries and its attributes. What can't be
 * moved (a mount) stays, the rest goes on, and the first failure is returned. */
int restore_root(int dirfd, const char *temporary, struct error *error);

#endif

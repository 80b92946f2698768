/* tree_volume: a volume over an empty tree in a directory of its own, for unit tests. One at a time. */
#ifndef YESTER_TREE_VOLUME_H
#define YESTER_TREE_VOLUME_H

#include "volume.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

extern char tree_path[128];     /* of the tree */
extern struct volume *volume;   /* NULL before tree_volume_create */
extern struct error error;      /* of the last call */
extern bool in_child;           /* set in a forked child, where cmocka's way out of a test leads nowhere */

#define OK(expression)                                                                                                 \
	do {                                                                                                           \
		int ok_ = (expression);                                                                                \
		if (ok_ < 0 && in_child)                                                                               \
			_exit(fprintf(stderr, "line %d: %s\n", __LINE__, error.message) > 0 ? 99 : 98);                \
		if (ok_ < 0)                                                                                           \
			fail_msg("line %d: %s (%d)", __LINE__, error.message, ok_);                                    \
	} while (0)

/* cmocka setup and teardown: directories and config; the volume is closed if it is open. */
int tree_volume_setup(void **state);
int tree_volume_teardown(void **state);
/* With its backing open. */
void tree_volume_create(void);
void tree_volume_open(void);
/* Statements in a transaction. */
void tree_volume_sql(const char *text);
/* The first column of the first row. */
int64_t tree_volume_int(const char *query);
/* A shell command in the tree; must succeed. */
void tree_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Runs fn, as nobody, in a child; the tree belongs to nobody then. Its result must be 0. Skips the test when we aren't root. */
void tree_as_nobody(int (*fn)(void));

#endif

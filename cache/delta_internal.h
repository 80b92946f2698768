/* delta_internal: between delta.c (building), delta_apply.c, delta_image.c and delta_check.c. */
#ifndef YESTER_DELTA_INTERNAL_H
#define YESTER_DELTA_INTERNAL_H

#include "db_internal.h"
#include "delta.h"

#include <pthread.h>

/* The zeros of half-empty pages compress away: smaller pages make no smaller record. */
#define DELTA_PAGE_BYTES 4096
#define CHECKPOINT_PAGE_BYTES 4096

struct delta {
	pthread_mutex_t lock;
	struct db_conn *conn; /* lock */
	int fd;               /* the file behind conn */
	int64_t seq;          /* constant */
	bool building;        /* lock: a transaction is open; false once an image was taken or when read from one */
	int failed;           /* lock: first failure; everything fails from then on */
};

#define TABLES_COUNT(tables) (sizeof(tables) / sizeof(*(tables)))

/* What the rows of an image must be. A checkpoint of seq holds rows of vfrom <= seq, past rows of vto <= seq with the right fork; a delta of
 * seq holds rows of vfrom = seq. ERR_CORRUPT names table and rule, never a name. */
int delta_check_rows(struct db_conn *conn, int64_t seq, const char *what, struct error *error);
int checkpoint_check_rows(struct db_conn *conn, int64_t seq, const char *what, struct error *error);

/* True for a name that may stand in a directory: 1 to 255 bytes, no '/', no NUL, not "." or "..". */
bool catalogue_name_valid(const void *name, size_t length);

#endif

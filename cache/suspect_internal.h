/* suspect_internal: the set of suspect inodes, for suspect.c and suspect_check.c. */
#ifndef YESTER_SUSPECT_INTERNAL_H
#define YESTER_SUSPECT_INTERNAL_H

#include "journal_internal.h"
#include "suspect.h"

#include <errno.h>

#define NEVER INT64_MAX

struct suspect {
	struct suspect *next;
	struct node *node; /* referenced */
	bool durable;      /* its row is in the database, or the overflow mark stands for it */
	bool quiet, removing;
	bool again;        /* added while it was being removed */
	int64_t epoch;     /* in which it was journaled whole; 0: not since it was last captured so */
	int64_t due_ns;    /* monotonic, of the next check */
	int64_t cost_ns;   /* how long reading it took, the last time */
};

static inline int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, ENOMEM, "looking at files that are mapped for writing: out of memory");
}

/* NULL: it is not in the set, whose lock is held. */
struct suspect *suspect_find(struct suspects *set, const struct node *node);
/* The nodes of those for which `wanted` says so, with a reference; NULL: out of memory. suspects_put gives them back. Takes the set's lock, under which `wanted` is called. */
struct node **suspects_collect(struct journal *journal, bool (*wanted)(void *context, struct suspect *suspect), void *context, size_t *count);
void suspects_put(struct journal *journal, struct node **nodes, size_t count);
int suspect_delete_row(struct db_conn *conn, const struct node *node, struct error *error);

#endif

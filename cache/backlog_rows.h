/* backlog_rows: single rows of the backlog (rescan.h), for the import, which takes them in batches, and for a seal that has to put something off.
 * All functions work on a connection of the caller, inside his transaction; none of them keeps a statement open. 0 or enum err. */
#ifndef YESTER_BACKLOG_ROWS_H
#define YESTER_BACKLOG_ROWS_H

#include "db.h"
#include "node.h"

#include <stdbool.h>

struct backlog_name {
	int64_t num;
	struct node_key dir, child; /* child.length 0: the name is gone */
	char name[256];
};

/* The first `room` rows with a number above `after` that are not unreadable: their number, or enum err. */
int backlog_names_next(struct db_conn *conn, int64_t after, struct backlog_name *out, int room);
struct backlog_inode { int64_t num, bytes; struct node_key key; };
int backlog_inodes_next(struct db_conn *conn, int64_t after, struct backlog_inode *out, int room);

bool backlog_has_inode(struct db_conn *conn, const struct node_key *key);
/* Estimated bytes of that inode's row, 0 when there is none. */
int64_t backlog_inode_bytes(struct db_conn *conn, const struct node_key *key);

/* Whether that inode's row waits because the disk refused it. */
bool backlog_is_unreadable(struct db_conn *conn, const struct node_key *key);

/* A row that is there stays (names: gets the new child), but for whether it is unreadable. */
int backlog_add_inode(struct db_conn *conn, const struct node_key *key, int64_t bytes, bool unreadable, struct error *error);
int backlog_add_name(struct db_conn *conn, const struct node_key *dir, const char *name, const struct node_key *child,
		     bool unreadable, struct error *error);
int backlog_refuse_name(struct db_conn *conn, int64_t num, struct error *error);
int backlog_refuse_inode(struct db_conn *conn, int64_t num, struct error *error);
int backlog_drop_inode(struct db_conn *conn, const struct node_key *key, struct error *error);
/* A name that now has a value; its row, if any, only if it was unreadable. */
int backlog_drop_unreadable_name(struct db_conn *conn, const struct node_key *dir, const char *name, struct error *error);
int backlog_drop_name(struct db_conn *conn, int64_t num, struct error *error);

#endif

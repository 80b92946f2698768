/* by_name: finds an inode by its names, from the root or from a directory that opens down to it: one whose key holds no file handle, and one whose handle opens nothing. Of the latter the kernel says
 * ESTALE, be it gone or the disk not giving it (Linux do_handle_to_path() makes one of all errors but ENOMEM and EACCES): its names tell which. Each candidate is checked against the key, so that a stale name leads nowhere. */
#ifndef YESTER_BY_NAME_H
#define YESTER_BY_NAME_H

#include "db.h"
#include "node.h"

#include <stdbool.h>

struct volume;

/* Names of an inode that the caller knows of: calls by_name_add for each. 0 or enum err. */
struct by_name_list;
struct by_name_more {
	int (*names)(void *context, const struct node_key *key, struct by_name_list *list);
	void *context;
};
int by_name_add(struct by_name_list *list, const struct node_key *dir, const char *name);

/* The live names of the catalogue, those of `more` (may be NULL), and, if `backlog`, those that the backlog has yet to bring (by_name_index before, if there may be many; always asked where keys hold no handle).
 * *fd: a fresh O_PATH descriptor; -ESTALE: all names could be looked at, and none leads there: it is gone; or another -errno: some name could not be looked at. 0, or enum err of the database: *fd says nothing then.
 * `conn` reads, and no statement of it is in the middle of its rows. Any thread; may block. */
int by_name_find(struct volume *volume, struct db_conn *conn, const struct node_key *key, bool backlog, const struct by_name_more *more,
		 int *fd, struct error *error);
/* An index for who asks the backlog often. It stays. Not inside a transaction that writes. 0 or enum err. */
int by_name_index(struct volume *volume, struct error *error);
/* Lets the backing find inodes whose keys hold no handle in this way. Once, when the backing is open. */
void by_name_attach(struct volume *volume);

#endif

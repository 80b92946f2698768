/* fetch: implements remote.h: chunks from the spool or the store, verified. One per opened volume; any thread. */
#ifndef YESTER_FETCH_H
#define YESTER_FETCH_H

#include "crypt.h"
#include "remote.h"
#include "store.h"

/* spool_fd: directory of spooled objects (-1: none), in which an object's file has the name that spool_file_name gives; stays the caller's. It, master and
 * store must outlive the remote. 0 or ERR_NOMEM. */
int fetch_new(const struct master *master, struct store *store, int spool_fd, struct remote **out);
/* Nobody may be in a call. NULL is fine. */
void fetch_free(struct remote *remote);

/* The file's name in the spool of an object key: '/' becomes '.'. */
#define SPOOL_NAME_BYTES 80
void spool_file_name(char out[SPOOL_NAME_BYTES], const char *key);

#endif

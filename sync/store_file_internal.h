/* store_file_internal: what the parts of store_file share (store_file: open, get, delete; store_file_put; store_file_list). */
#ifndef YESTER_STORE_FILE_INTERNAL_H
#define YESTER_STORE_FILE_INTERNAL_H

#include "store.h"

#include <pthread.h>
#include <sys/stat.h>

#define STORE_FILE_KEY_MAX 256
#define STORE_FILE_DURABLE_MAX 1024
/* Temporary files lie in the root under names with a dot, which no key has. */
#define STORE_FILE_TEMPORARY ".put-"

struct store_file {
	struct store store;
	char *root;  /* absolute path */
	int root_fd; /* held open, so that its inode number can't be given to another directory */
	dev_t device;
	ino_t inode;
	bool cancelled; /* atomic */
	pthread_mutex_t lock;
	char *durable[STORE_FILE_DURABLE_MAX]; /* under lock: directories whose own entry is known to be durable */
	size_t durable_count;                  /* under lock */
};

bool store_file_cancelled(struct store_file *files);
/* At the start of each call: ERR_ABANDONED after a cancel, ERR_FAILED when the root is no more what it was at open. */
int store_file_check(struct store_file *files, struct error *error);
/* Sets *error to what an errno from the store's filesystem means, and returns its code; never ERR_ABSENT or ERR_EXISTS.
 * key "": about the store as a whole. */
int store_file_errno(struct store_file *files, int sys_errno, const char *key, struct error *error);
/* A new descriptor of the directory that holds `key`. create: missing directories are made, durably. *base points at the last part
 * of key. -1 with errno. */
int store_file_directory(struct store_file *files, const char *key, bool create, const char **base);

/* store_ops */
int store_file_put(struct store *store, const char *key, const struct store_body *body, bool only_new,
		   int64_t *server_ns, struct error *error);
int store_file_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
		    struct error *error);

#endif

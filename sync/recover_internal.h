/* recover_internal: the log as a list and as a stream of objects (recover_log.c), for recover.c and check. */
#ifndef YESTER_RECOVER_INTERNAL_H
#define YESTER_RECOVER_INTERNAL_H

#include "recover.h"

struct log_entry {
	int64_t seq;
	uint64_t size; /* bytes of the object */
};
struct log_list {
	struct log_entry *entries; /* ascending */
	size_t count;
};
/* Records with a number above after_seq. The caller frees, also after an error. */
int log_list_fetch(struct store *store, int64_t after_seq, struct log_list *out, struct error *error);
void log_list_free(struct log_list *list);
/* Index of the first entry of an unbroken run first_seq, first_seq + 1, ... up to the end of the list; -1 when a record is missing in it (then
 * *missing). A list that ends before first_seq has an empty run: its count. */
ssize_t log_list_run(const struct log_list *list, int64_t first_seq, int64_t *missing);

/* Fetches an object of `size` bytes into a fresh unlinked file in tmp_dir, in pieces. ERR_ABSENT; messages name the key. */
int object_fetch(struct store *store, const char *key, uint64_t size, const char *tmp_dir, int *fd_out,
		 struct error *error);

/* Reads records ahead, a few at a time, and gives them in order. One consumer. */
struct log_reader;
int log_reader_start(struct store *store, const struct log_entry *entries, size_t count, const char *tmp_dir,
		     struct log_reader **out, struct error *error);
/* The next one: fd (the caller closes) and SHA-256 of its bytes. As object_fetch; after an error stop. */
int log_reader_next(struct log_reader *reader, int *fd, uint8_t hash[SHA256_BYTES], struct error *error);
/* Joins the threads (after the calls to the store that are under way). NULL is fine. */
void log_reader_stop(struct log_reader *reader);

#endif

/* recover_internal: what the files of recover (recover.h) share. */
#ifndef YESTER_RECOVER_INTERNAL_H
#define YESTER_RECOVER_INTERNAL_H

#include "recover.h"

/* --- recover_log.c: the log as a list and as a stream of objects. */
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

/* --- recover_apply.c */
struct recovery {
	struct store *store;
	const struct master *master;
	struct db *db;
	const char *tmp_dir;
	progress_fn *progress;
	void *context;
	struct recover_head *head;
	uint8_t writer_id[CRYPT_ID_BYTES]; /* of the record before the next one */
	bool writer_known;                 /* else that lies below the checkpoint */
};
/* Applies entries, an unbroken run. `previous`: hash of the record before the first; in the end that of the last. */
int recover_apply_run(struct recovery *recovery, const struct log_entry *entries, size_t count,
		      uint8_t previous[SHA256_BYTES], struct error *error);
/* What the catalogue now is: the newest state of the remote. In the transaction that brings it there. */
int recover_set_head(struct db_conn *conn, int64_t seq, const uint8_t hash[SHA256_BYTES], struct error *error);
/* recover_save_base in a transaction of its own. */
int recover_set_base(struct db *db, const struct record_base *base, struct error *error);
/* The newest record's word on the base is authentic; it is read here for that only. Into recovery->head. */
int recover_read_newest(struct recovery *recovery, const struct log_entry *entry, struct error *error);
/* I17: a record follows its writer's own one, or says that it does not. */
void recover_check_writer(struct recovery *recovery, const struct record_header *header);
/* Puts the object's key in front of a message about damage in it. Returns rc. */
int recover_name_record(int rc, int64_t seq, struct error *error);
/* ERR_ABSENT. */
int recover_record_missing(int64_t seq, const struct store *store, struct error *error);

#endif

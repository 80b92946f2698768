/* extract_internal: what the files of extract share. */
#ifndef YESTER_EXTRACT_INTERNAL_H
#define YESTER_EXTRACT_INTERNAL_H

#include "buf.h"
#include "extract.h"

#include <pthread.h>

#define EXTRACT_NONE UINT32_MAX

/* A directory: number 0 is where everything goes. Its parent has a smaller number. */
struct place {
	int64_t ino;
	uint32_t parent, name; /* name: offset in names */
	uint32_t first, count; /* its entries that are no directories */
	uint32_t depth;
};

/* Anything else. */
struct entry {
	int64_t ino, size;
	uint64_t order;     /* where its first bytes lie among the packs */
	uint32_t dir, name; /* place; offset in names */
	uint32_t link;      /* the entry with the same inode that came first; EXTRACT_NONE: this one */
	uint32_t type;      /* S_IFMT bits */
	bool left_out;      /* not there: damaged, or a special file that we may not make */
};

/* Inode numbers to numbers of places or entries. */
struct numbers {
	int64_t *keys; /* 0: free */
	uint32_t *values;
	size_t room, count;
};

struct extract {
	/* Constant during the parallel part. */
	struct volume *volume;
	int64_t seq;
	const struct extract_options *options;
	bool root;
	int base_fd;
	bool base_is_new; /* place 0 was made by us or is to get the attributes of its inode */
	struct buf names; /* NUL-terminated, one after the other */
	struct place *places;
	struct entry *entries;
	size_t place_count, place_room, entry_count, entry_room;
	struct numbers dirs, links; /* visited directories; first entries of inodes with several names */
	uint32_t *sorted;           /* regular files in the order of their bytes */
	size_t sorted_count;
	uint64_t total_bytes;

	_Atomic uint64_t inodes, written, skipped, damaged;
	_Atomic size_t next; /* in sorted */
	atomic_bool failed;
	pthread_mutex_t lock; /* error, result, running, calls of options->damaged */
	pthread_cond_t ended;
	int running;
	int result;
	struct error *error;
};

struct walk {
	struct extract *x;
	struct db_conn *conn; /* extract_read */
	int reads;
	uint32_t dir; /* place being listed */
	int dirfd;    /* its descriptor */
};

const char *extract_name(const struct extract *x, uint32_t offset);
/* A descriptor (O_PATH) of a place, to be closed; or -1 with errno. Every component O_NOFOLLOW. */
int extract_open_place(const struct extract *x, uint32_t place);
/* Path of an entry below what is extracted, for messages; cut if longer. */
void extract_path(const struct extract *x, const struct entry *entry, char *out, size_t room);
/* The first failure is the one told. Returns its code. Any thread. */
int extract_fail(struct extract *x, int code, const struct error *error);
/* errno, with the entry's path. */
int extract_fail_errno(struct extract *x, const struct entry *entry, int sys_errno);
int extract_no_memory(struct extract *x);
/* A failure of the catalogue's functions, which carry no message. */
int extract_database(struct extract *x, int rc);
/* True when somebody failed or the stop flag is set (which then is the failure). */
bool extract_stopping(struct extract *x);

/* Makes sure that walk->conn is a read transaction that is not too old. Not in the middle of a list. */
int extract_read(struct walk *walk);

/* --- extract_walk.c */
/* Makes place 0, or the one file that is wanted. */
int extract_begin(struct walk *walk, int64_t ino, int dirfd, const char *name);
/* Makes all but the files of a directory, and plans these. New places come behind all others. */
int extract_walk_place(struct walk *walk, uint32_t number);

/* --- extract_attrs.c: 0 or -errno. fd: open or O_PATH. What we may not do is left out: *lacking becomes true. */
int extract_attrs(const struct extract *x, int fd, const struct inode_row *row, bool *lacking);
/* The same, as part of the extraction: counts what lacks something, 0 or enum err. */
int extract_set_attrs(struct extract *x, const struct entry *entry, int fd, const struct inode_row *row);

/* --- extract_body.c: all files of x->sorted. */
int extract_bodies(struct extract *x);

/* --- extract_local.c */
int extract_record(struct extract *x);

#endif

/* node: an inode of the backing tree as this process knows it, and the table of all of them.
 *
 * Identity is the kernel's file handle (type and bytes, generation included), never the inode number alone. Where handles
 * are unsupported or not permitted, the key is made of device, inode number and birth time, and the node keeps an O_PATH
 * descriptor instead (node.held_fd).
 *
 * Lifetime: counted references. The kernel's lookup count is one of them (fs), each dirt holds one (journal), each
 * operation in progress one. The last put frees. */
#ifndef YESTER_NODE_H
#define YESTER_NODE_H

#include "small_lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NODE_KEY_MAX 60
#define NODE_KEY_NO_HANDLE (-1) /* u64 device (0: that of the root), u64 inode number, i64 birth time follow */
#define NODE_KEY_FOREIGN (-2)   /* the same, of an inode on another mount, which is not ours to read (backing_identify) */

/* As stored in the database: i16 handle type (little-endian; negative: one of the above), then the handle. */
struct node_key { uint8_t length; uint8_t bytes[NODE_KEY_MAX]; };

int node_key_type(const struct node_key *key);
bool node_key_equal(const struct node_key *a, const struct node_key *b);

struct dirt;
struct node_table;

/* There are as many as the kernel knows inodes, millions perhaps: 72 bytes with a key of ext4, which is 80 as malloc counts. */
struct node {
	struct node *next_by_key, *next_by_id; /* table's shard locks */
	uint64_t nodeid : 48; /* given once, monotonic, never reused; 1 is the root. A million new ones a second for nine years. */
	uint64_t type : 16;   /* S_IFMT bits; constant, like nodeid */
	uint64_t : 0;          /* else all four would be one memory location (C17, 3.14), which a store may write as a whole */
	uint64_t lookups : 40; /* kernel's lookup count; key shard lock */
	uint64_t told : 24;    /* stamp of what the kernel was told of it last (node_tell); key shard lock */
	struct dirt *dirt;    /* changes since the last cut, or of the present cut if not looked at since; lock */
	struct dirt *frozen;  /* its part of the present cut; lock */
	_Atomic uint32_t references; /* becomes 0 under the key shard lock only */
	/* Serialises check, save, operation and record of one inode (I4). Lock order: journal.h. */
	struct small_lock lock;
	_Atomic int held_fd; /* of a key without handle: O_PATH descriptor; -1; closed by the last put or backing_fd_drop */
	_Atomic uint8_t flags; /* fs: what it noted of the inode (inode.h) */
	/* Constant. Memory is allocated for its length only: use it through a pointer, and never copy the struct; node_key_of does that. */
	struct node_key key;
};

struct node_table *node_table_new(void);
/* Every node must be unreferenced but for lookups of a kernel that is gone (these are freed). NULL is fine. */
void node_table_free(struct node_table *table);
/* fn is called with the number of each node that is freed, under no lock (backing drops its descriptor then). Set once, before other threads. */
void node_table_on_free(struct node_table *table, void (*fn)(void *context, uint64_t nodeid), void *context);

/* The node with that key, created if need be, with one more reference. `path_fd`: an open O_PATH descriptor of the inode,
 * duplicated into held_fd if the key is without handle; -1: none at hand. NULL: out of memory (or of descriptors, or of numbers; errno tells).
 * Numbers are given in the order of creation, so the root must be the first (volume_open_backing gets it and keeps the reference). */
struct node *node_get(struct node_table *table, const struct node_key *key, mode_t type, int path_fd);
/* The node if it is in the table, with one more reference, else NULL. */
struct node *node_find(struct node_table *table, const struct node_key *key);
struct node *node_by_id(struct node_table *table, uint64_t nodeid);
/* Does the kernel know it? It always knows the root, without lookups. */
bool node_is_looked_up(struct node_table *table, const struct node *node);
/* Notes what the kernel is told of the inode: 24 bits of a hash of its st_ctime; 0: something that may be old. */
void node_tell(struct node_table *table, struct node *node, uint32_t stamp);
/* Whether the kernel knows the inode, and as something else than that (0 is always something else). */
bool node_is_told_otherwise(struct node_table *table, const struct node *node, uint32_t stamp);
/* One more reference to a node that the caller has a reference to. */
void node_ref(struct node_table *table, struct node *node);
/* NULL is fine. */
void node_put(struct node_table *table, struct node *node);
/* Kernel's lookup count: turns the caller's reference into a lookup (lookup_add) and back (lookup_forget drops `count`
 * lookups; more than there are: all). True: none is left. */
void node_lookup_add(struct node_table *table, struct node *node);
bool node_lookup_forget(struct node_table *table, uint64_t nodeid, uint64_t count);
/* Copies the bytes in use only: a node's own key is allocated no longer than that. */
void node_key_copy(struct node_key *to, const struct node_key *from);
/* A whole copy of its key. */
void node_key_of(const struct node *node, struct node_key *out);
/* Nodes in the table, for status and leak tests. */
uint64_t node_table_count(const struct node_table *table);

#endif

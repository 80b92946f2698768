/* Which inodes a version is about: found by key or by number (sealing.h). One thread. */
#include "sealing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS_MIN 64

/* ---------------------------------------------------------------- tables */

static size_t hash_bytes(const uint8_t *bytes, size_t length)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return (size_t)(hash ^ hash >> 29);
}

static size_t hash_ino(int64_t ino) { return (size_t)((uint64_t)ino * UINT64_C(0x9e3779b97f4a7c15) >> 20); }

static struct seal_ino **key_chain(const struct sealing *sealing, const struct node_key *key)
{
	return &sealing->by_key[hash_bytes(key->bytes, key->length) & (sealing->buckets - 1)];
}

static struct seal_ino **ino_chain(struct sealing *sealing, int64_t ino)
{
	return &sealing->by_ino[hash_ino(ino) & (sealing->buckets - 1)];
}

void seal_ino_chain(struct sealing *sealing, struct seal_ino *ino)
{
	struct seal_ino **chain = ino_chain(sealing, ino->ino);

	ino->same_ino = *chain;
	*chain = ino;
}

static int tables_grow(struct sealing *sealing)
{
	size_t old = sealing->buckets, buckets = old ? 4 * old : BUCKETS_MIN;
	struct seal_ino **by_key = calloc(buckets, sizeof(*by_key)), **by_ino = calloc(buckets, sizeof(*by_ino));
	struct seal_ino **old_key = sealing->by_key, **old_ino = sealing->by_ino;

	if (!by_key || !by_ino) {
		free(by_key);
		free(by_ino);
		return ERR_NOMEM;
	}
	sealing->by_key = by_key;
	sealing->by_ino = by_ino;
	sealing->buckets = buckets;
	for (size_t i = 0; i < old; i++) {
		for (struct seal_ino *ino = old_key[i], *next; ino; ino = next) {
			struct seal_ino **chain = key_chain(sealing, &ino->key);
			next = ino->same_key;
			ino->same_key = *chain;
			*chain = ino;
		}
		for (struct seal_ino *ino = old_ino[i], *next; ino; ino = next) {
			next = ino->same_ino;
			seal_ino_chain(sealing, ino);
		}
	}
	free(old_key);
	free(old_ino);
	return 0;
}

static struct seal_ino *ino_new(struct sealing *sealing)
{
	if (sealing->ino_count >= sealing->buckets && tables_grow(sealing))
		return NULL;
	struct seal_ino *ino = seal_alloc(sealing, sizeof(*ino));
	if (ino)
		sealing->ino_count++;
	return ino;
}

/* ---------------------------------------------------------------- inodes */

struct seal_ino *seal_ino_find(struct sealing *sealing, int64_t number)
{
	struct seal_ino *ino = sealing->buckets ? *ino_chain(sealing, number) : NULL;

	while (ino && ino->ino != number)
		ino = ino->same_ino;
	return ino;
}

struct seal_ino *seal_ino_find_key(const struct sealing *sealing, const struct node_key *key)
{
	struct seal_ino *ino = sealing->buckets ? *key_chain(sealing, key) : NULL;

	while (ino && (ino->key.length != key->length || memcmp(ino->key.bytes, key->bytes, key->length) != 0))
		ino = ino->same_key;
	return ino;
}

static bool is_root(const struct sealing *sealing, const struct node_key *key)
{
	return key->length == sealing->env->root.length && memcmp(key->bytes, sealing->env->root.bytes, key->length) == 0;
}

/* Whether the catalogue has a live row, and of which type. */
int seal_ino_live(struct db_conn *conn, int64_t number, bool *known, mode_t *type, struct error *error)
{
	struct inode_hold hold;
	int rc = catalogue_inode(conn, CATALOGUE_LIVE, number, &hold);

	*known = !rc;
	if (rc)
		return rc == ERR_ABSENT ? 0 : error_set(error, rc, 0, "catalogue: can't read inode %lld", (long long)number);
	*type = hold.row.mode & S_IFMT;
	inode_hold_free(&hold);
	return 0;
}

/* The row of the inode's key; all 0 when there is none. */
static int look_up_local(struct sealing *sealing, struct db_conn *conn, struct seal_ino *ino, struct local_row *local,
			 struct error *error)
{
	int rc = catalogue_local_by_key(conn, ino->key.bytes, ino->key.length, local);

	if (rc == ERR_ABSENT)
		*local = (struct local_row){0};
	else if (rc)
		return error_set(error, rc, 0, "catalogue: can't read what is known of an inode");
	/* A rescan saw differences that nobody has named: what was captured of it is no ground to build on. */
	ino->captured = local->captured && sealing->env->backlog && backlog_has_inode(conn, &ino->key) ? 0 : local->captured;
	return 0;
}

static int ino_fill(struct sealing *sealing, struct seal_ino *ino, struct error *error)
{
	struct db_conn *conn = seal_reader_conn(&sealing->reader, error);
	struct local_row local;
	mode_t type = 0;
	int rc;

	if (!conn)
		return ERR_FAILED;
	rc = look_up_local(sealing, conn, ino, &local, error);
	if (rc)
		return rc;
	ino->ino = is_root(sealing, &ino->key) ? CATALOGUE_ROOT_INO : local.ino;
	if (!ino->ino)
		return 0;
	if (local.captured && ino->type) {
		ino->known = true;
		return 0;
	}
	rc = seal_ino_live(conn, ino->ino, &ino->known, &type, error);
	if (!rc && ino->known && !ino->type) /* nobody could look at it: what depends on the type ends with it */
		ino->type = type;
	if (!rc && ino->known && type != ino->type) { /* an inode never changes its type: the number is another's */
		ino->known = false;
		ino->ino = 0;
	}
	return rc;
}

int seal_ino_by_key(struct sealing *sealing, const struct node_key *key, mode_t type, struct seal_ino **out, struct error *error)
{
	struct seal_ino *ino = seal_ino_find_key(sealing, key);
	int rc;

	*out = ino;
	if (ino) {
		if (!ino->type)
			ino->type = type & S_IFMT;
		return 0;
	}
	ino = ino_new(sealing);
	if (!ino)
		return error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
	node_key_copy(&ino->key, key);
	ino->type = type & S_IFMT;
	rc = ino_fill(sealing, ino, error);
	if (rc)
		return rc;
	if (ino->ino)
		seal_ino_chain(sealing, ino);
	struct seal_ino **chain = key_chain(sealing, key);
	ino->same_key = *chain;
	*chain = ino;
	*out = ino;
	return 0;
}

/* An inode that is known by its number only: it lost its name. */
int seal_ino_by_number(struct sealing *sealing, int64_t number, struct seal_ino **out, struct error *error)
{
	struct seal_ino *ino = seal_ino_find(sealing, number);
	struct db_conn *conn;
	size_t length = NODE_KEY_MAX;

	*out = ino;
	if (ino)
		return 0;
	conn = seal_reader_conn(&sealing->reader, error);
	if (!conn)
		return ERR_FAILED;
	ino = ino_new(sealing);
	if (!ino)
		return error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
	ino->ino = number;
	seal_ino_chain(sealing, ino);
	*out = ino;
	/* With its key, so that who asks by key finds this one. */
	if (catalogue_local_key(conn, number, ino->key.bytes, &length) == 0) {
		ino->key.length = (uint8_t)length;
		struct seal_ino **chain = key_chain(sealing, &ino->key);
		struct local_row local;
		ino->same_key = *chain;
		*chain = ino;
		int rc = look_up_local(sealing, conn, ino, &local, error);
		if (rc)
			return rc;
	}
	return seal_ino_live(conn, number, &ino->known, &ino->type, error);
}

void seal_ino_number(struct sealing *sealing, struct seal_ino *ino)
{
	if (ino->ino)
		return;
	ino->ino = sealing->env->next_ino++;
	seal_ino_chain(sealing, ino);
}

int seal_want(struct sealing *sealing, struct seal_ino *ino, uint64_t bytes, struct error *error)
{
	if (ino->wanted)
		return 0;
	if (sealing->work_count == sealing->work_room) {
		size_t room = sealing->work_room ? 2 * sealing->work_room : 64;
		struct seal_ino **work = reallocarray(sealing->work, room, sizeof(*work));
		if (!work)
			return error_errno(error, ENOMEM, "version %lld", (long long)sealing->seq);
		sealing->work = work;
		sealing->work_room = room;
	}
	ino->wanted = true;
	sealing->work[sealing->work_count++] = ino;
	sealing->work_bytes += bytes;
	return 0;
}

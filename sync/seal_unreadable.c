/* What the tree's disk does not give (sealing.h): it is put off and said; the version goes on without. */
#include "sealing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool seal_is_unreadable(int rc, const struct error *error)
{
	return (rc == ERR_DENIED || rc == ERR_FAILED) && error->sys_errno && !backing_is_shortage(error->sys_errno);
}

int seal_put_off_unreadable(struct seal_worker *worker, struct seal_ino *ino, const struct error *why)
{
	struct sealing *sealing = worker->sealing;

	ino->deferred = ino->unreadable = true;
	pthread_mutex_lock(&sealing->lock);
	if (!sealing->unreadable) {
		sealing->unreadable = ino;
		sealing->unreadable_why = *why;
	}
	pthread_mutex_unlock(&sealing->lock);
	return 0;
}

/* ---------------------------------------------------------------- a handle that opens nothing */

struct stale {
	struct seal_worker *worker;
	struct seal_ino *ino;
	int refused; /* errno of a name that leads to nothing we could look at */
};

static void look_at_name(struct stale *stale, const struct node_key *dir, const char *name)
{
	struct backing *backing = volume_backing(stale->worker->sealing->env->volume);
	int fd = dir->length ? backing_reopen_key(backing, dir, O_PATH | O_DIRECTORY) : -ESTALE, rc;
	struct node_key key;
	struct stat st;

	if (fd < 0)
		return;
	rc = backing_identify(backing, fd, name, &key, &st, NULL);
	close(fd);
	if (rc == 0 && node_key_equal(&key, &stale->ino->key))
		rc = -ESTALE; /* the name leads there, the handle does not */
	else if (rc == 0 || rc == -ENOENT || rc == -ENOTDIR)
		return;
	stale->refused = -rc;
}

static int look_at_live_name(void *context, int64_t dir, const void *name, size_t length)
{
	struct stale *stale = context;
	struct node_key key = {0};
	size_t room = NODE_KEY_MAX;
	char text[256];

	if (length < 1 || length >= sizeof(text) ||
	    catalogue_local_key(stale->worker->reader.conn, dir, key.bytes, &room) != 0)
		return 0;
	key.length = (uint8_t)room;
	memcpy(text, name, length);
	text[length] = '\0';
	look_at_name(stale, &key, text);
	return stale->refused != 0;
}

int seal_put_off_stale(struct seal_worker *worker, struct seal_ino *ino, struct error *error)
{
	struct sealing *sealing = worker->sealing;
	struct stale stale = {.worker = worker, .ino = ino};
	struct db_conn *conn = ino->known ? seal_reader_conn(&worker->reader, error) : NULL;

	if (ino->known && !conn)
		return ERR_FAILED;
	for (size_t i = 0; i < sealing->sorted && !stale.refused; i++)
		if (sealing->names[i].child == ino)
			look_at_name(&stale, &sealing->names[i].dir->key, sealing->names[i].name);
	if (conn && !stale.refused)
		catalogue_names_of(conn, CATALOGUE_LIVE, ino->ino, look_at_live_name, &stale);
	if (!stale.refused) {
		ino->vanished = true;
		return 0;
	}
	error_errno(error, stale.refused, "a file of the tree");
	return backing_is_shortage(stale.refused) ? error->code : seal_put_off_unreadable(worker, ino, error);
}

/* ---------------------------------------------------------------- saying so */

struct parent {
	int64_t dir;
	char name[256];
};

static int first_name(void *context, int64_t dir, const void *name, size_t length)
{
	struct parent *parent = context;

	parent->dir = dir;
	snprintf(parent->name, sizeof(parent->name), "%.*s", (int)length, (const char *)name);
	return 1;
}

void seal_live_path(struct db_conn *conn, int64_t ino, char *out, size_t room)
{
	struct parent parent;
	size_t used = 0;

	out[0] = '\0';
	while (ino != CATALOGUE_ROOT_INO && catalogue_names_of(conn, CATALOGUE_LIVE, ino, first_name, &parent) == 1) {
		size_t length = strlen(parent.name), slash = used ? 1 : 0;
		if (used + slash + length + 1 > room)
			break;
		memmove(out + length + slash, out, used + 1);
		memcpy(out, parent.name, length);
		if (slash)
			out[length] = '/';
		used += length + slash;
		ino = parent.dir;
	}
}

/* Below the root, by the names of this version or of the newest one; as much as fits. */
static void path_of(struct sealing *sealing, const struct seal_ino *ino, char *out, size_t room)
{
	struct db_conn *conn = seal_reader_conn(&sealing->reader, NULL);
	const struct seal_name *name = NULL;
	char path[512];

	for (size_t i = 0; i < sealing->name_count && !name; i++)
		if (sealing->names[i].child == ino)
			name = &sealing->names[i];
	path[0] = '\0';
	if (conn)
		seal_live_path(conn, name ? name->dir->ino : ino->ino, path, sizeof(path));
	snprintf(out, room, "%s%s%s", path, name && *path ? "/" : "", name ? name->name : "");
}

void seal_say_unreadable(struct seal_env *env, const char *path, int number)
{
	bool ours = number == EACCES || number == EPERM;

	error_set(&env->unreadable, ERR_DENIED, number,
		  "%.300s: can't be read (%s); versions go on with what they had of it; %s", *path ? path : "a file", strerror(number),
		  ours ? "let yester read it, or remove it" : "look after the disk, then restore it from .snapshots or remove it");
}

void seal_note_unreadable(struct sealing *sealing)
{
	char path[800];

	if (!sealing->unreadable_why.code)
		return;
	if (sealing->unreadable)
		path_of(sealing, sealing->unreadable, path, sizeof(path));
	else
		snprintf(path, sizeof(path), "%s", sealing->unreadable_path);
	seal_say_unreadable(sealing->env, path, sealing->unreadable_why.sys_errno);
}

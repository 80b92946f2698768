/* What the tree's disk does not give (sealing.h): it is put off and said; the version goes on without. */
#include "sealing.h"

#include "by_name.h"

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

/* Of what has a name in this version. Nothing changes the tables while the sealers run. */
static int names_here(void *context, const struct node_key *key, struct by_name_list *list)
{
	const struct sealing *sealing = context;
	const struct seal_ino *ino = seal_ino_find_key(sealing, key);
	int rc = 0;

	for (size_t i = ino && ino->place ? ino->place - 1 : sealing->sorted; i < sealing->sorted && !rc; i++)
		if (sealing->names[i].child == ino)
			rc = by_name_add(list, &sealing->names[i].dir->key, sealing->names[i].name);
	return rc;
}

int seal_put_off_stale(struct seal_worker *worker, struct seal_ino *ino, struct error *error)
{
	struct sealing *sealing = worker->sealing;
	struct by_name_more here = {.names = names_here, .context = sealing};
	struct db_conn *conn = seal_reader_conn(&worker->reader, error);
	int fd, rc = conn ? by_name_find(sealing->env->volume, conn, &ino->key, false, &here, &fd, error) : ERR_FAILED;

	if (rc)
		return rc;
	if (fd == -ESTALE) {
		ino->vanished = true;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	rc = error_errno(error, fd >= 0 ? ESTALE : -fd, "a file of the tree");
	return fd < 0 && backing_is_shortage(-fd) ? rc : seal_put_off_unreadable(worker, ino, error);
}

/* ---------------------------------------------------------------- saying so */

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
		catalogue_live_path(conn, name ? name->dir->ino : ino->ino, path, sizeof(path));
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

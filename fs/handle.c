#include "handle.h"

#include "io_mode.h"
#include "node.h"
#include "suspect.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors that are not for open files: of files of a cut (journal_internal.h), the database, spool, connections. */
#define OTHERS 1280

void handles_init(struct fs *fs)
{
	struct rlimit limit;

	pthread_mutex_init(&fs->handles_lock, NULL);
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		limit.rlim_cur = 1024;
	/* A quarter may be in the cache of descriptors, which gives way only to those who ask through it. */
	fs->handle_limit = limit.rlim_cur / 4 * 3 > 2 * OTHERS ? limit.rlim_cur / 4 * 3 - OTHERS : limit.rlim_cur / 8 * 3;
}

bool handles_have_room(struct fs *fs)
{
	pthread_mutex_lock(&fs->handles_lock);
	bool room = fs->handle_count < fs->handle_limit;
	pthread_mutex_unlock(&fs->handles_lock);
	return room;
}

struct handle *handle_new(struct fs *fs, struct node *node, int fd)
{
	struct handle *handle = calloc(1, sizeof(*handle));
	if (!handle)
		return NULL;
	handle->node = node;
	handle->fd = fd;
	pthread_mutex_init(&handle->lock, NULL);

	pthread_mutex_lock(&fs->handles_lock);
	handle->next = fs->handles;
	if (handle->next)
		handle->next->previous = handle;
	fs->handles = handle;
	fs->handle_count++;
	pthread_mutex_unlock(&fs->handles_lock);
	return handle;
}

void handle_free(struct fs *fs, struct handle *handle)
{
	pthread_mutex_lock(&fs->handles_lock);
	if (handle->next)
		handle->next->previous = handle->previous;
	if (handle->previous)
		handle->previous->next = handle->next;
	else
		fs->handles = handle->next;
	fs->handle_count--;
	pthread_mutex_unlock(&fs->handles_lock);

	pthread_mutex_destroy(&handle->lock);
	free(handle->entries);
	free(handle);
}

void handle_close(struct fs *fs, struct handle *handle)
{
	struct node *node = handle->node;

	/* First the descriptor: once no open is counted that can write, none of ours must be there. */
	close(handle->fd);
	if (handle->counted && io_mode_leave(fs->io, node->nodeid, handle->flags))
		suspect_poke(fs->journal, node);
	handle_free(fs, handle);
	node_put(fs->nodes, node);
}

void handle_close_all(struct fs *fs)
{
	while (fs->handles)
		handle_close(fs, fs->handles);
}

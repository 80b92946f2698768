#include "handle.h"

#include "node.h"

#include <stdlib.h>
#include <unistd.h>

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
	pthread_mutex_unlock(&fs->handles_lock);
	return handle;
}

void handle_close(struct fs *fs, struct handle *handle)
{
	pthread_mutex_lock(&fs->handles_lock);
	if (handle->next)
		handle->next->previous = handle->previous;
	if (handle->previous)
		handle->previous->next = handle->next;
	else
		fs->handles = handle->next;
	pthread_mutex_unlock(&fs->handles_lock);

	close(handle->fd);
	node_put(fs->nodes, handle->node);
	pthread_mutex_destroy(&handle->lock);
	free(handle->entries);
	free(handle);
}

void handle_close_all(struct fs *fs)
{
	while (fs->handles)
		handle_close(fs, fs->handles);
}

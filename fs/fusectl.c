#include "fusectl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int open_root(void)
{
	int context = fsopen("fusectl", FSOPEN_CLOEXEC), mounted = -1;

	if (context >= 0 && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mounted = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (context >= 0)
		close(context);
	return mounted >= 0 ? mounted : open("/sys/fs/fuse/connections", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int fusectl_open(const char *device)
{
	const char *minor = strchr(device, ':');
	int root = open_root();

	if (root < 0)
		return -1;
	int fd = openat(root, minor ? minor + 1 : device, O_PATH | O_DIRECTORY | O_CLOEXEC); /* fuse_ctl_add_conn() */
	int saved = errno;
	close(root);
	errno = saved;
	return fd;
}

long fusectl_waiting(int directory)
{
	char text[32];
	int fd = openat(directory, "waiting", O_RDONLY | O_CLOEXEC); /* it can be read once only (nonseekable_open) */

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	ssize_t count = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (count < 0)
		return -1;
	text[count] = '\0';
	return strtol(text, NULL, 10);
}

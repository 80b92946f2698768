#include "bdi.h"

#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHARE_PERCENT "20" /* of what may be dirty, when memory gets short */

static void set(const char *device, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/class/bdi/%s/%s", device, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 || io_write(fd, value, strlen(value)) != 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	if (rc < 0 && rc != -ENOENT) /* strict_limit is of Linux 6.2 */
		log_warn("%s: %s; stores through mappings will be slower", path, strerror(-rc));
}

void bdi_set_limits(const char *device)
{
	if (geteuid() != 0)
		return;
	set(device, "strict_limit", "0");
	set(device, "max_ratio", SHARE_PERCENT);
}

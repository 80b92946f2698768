#include "holder.h"

#include "clock.h"
#include "mount_point.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ENDING_NS (60 * NS_PER_S)

/* A killed process is a zombie, or no more to be seen, while its last threads still let go of its files. */
static bool is_dead(int pid)
{
	char path[64], text[512] = "";
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	ssize_t length = read(fd, text, sizeof(text) - 1);
	close(fd);
	const char *state = length > 0 ? strrchr(text, ')') : NULL;
	return length <= 0 || (state && state[1] == ' ' && (state[2] == 'Z' || state[2] == 'X'));
}

/* A daemon listens and has no mount: it is about to end, or has just begun. A verb that works on the unmounted volume does not listen, and may take long: it waits for the network. */
static bool is_passing(const struct volume_config *config, int pid)
{
	return is_dead(pid) || (!mount_point_has_volume(config->directory) && control_listens(config));
}

int holder_wait(const struct volume_config *config)
{
	int64_t deadline = clock_mono_ns() + ENDING_NS;
	int holder = volume_lock_holder(config);

	while (holder > 0 && clock_mono_ns() < deadline) {
		if (is_passing(config, holder))
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		else if (volume_lock_holder(config) == holder) /* a daemon lets go of the lock before it stops listening: it may have done both since we asked */
			break;
		holder = volume_lock_holder(config);
	}
	return holder;
}

int holder_refuse(const struct volume_config *config, int holder, struct error *error)
{
	if (mount_point_has_volume(config->directory))
		return error_set(error, ERR_BUSY, 0, "%s: is mounted already, by process %d; yester umount %s", config->directory, holder,
				 config->directory);
	return error_set(error, ERR_BUSY, 0, "%s: is in use by process %d; try again when it has ended", config->directory, holder);
}

int holder_call(const struct volume_config *config, const char *verb, int64_t timeout_ms, control_progress_fn *progress, void *context,
		struct buf *answer, struct error *error)
{
	int rc = control_call(config, verb, timeout_ms, progress, context, answer, error);

	/* Busy: it says that it is ending. Abandoned: it has ended before it came to our request. */
	if ((rc != ERR_BUSY && rc != ERR_ABANDONED) || mount_point_has_volume(config->directory))
		return rc;
	int holder = holder_wait(config);
	if (holder > 0)
		return holder_refuse(config, holder, error);
	return error_set(error, ERR_ABSENT, 0, "%s: is not mounted", config->directory);
}

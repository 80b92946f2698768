/* Leases: whether anybody has a file open for writing, or mapped so (suspect.h says what for). */
#include "backing_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCRATCH_BYTES 4096

static int lease(int fd, int type)
{
	/* Its holder is told by SIGIO that somebody wants to open the file, and would die of it. We give it back anyway. */
	signal(SIGIO, SIG_IGN);
	if (fcntl(fd, F_SETLEASE, type) != 0)
		return -errno;
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return 0;
}

int backing_lease(int fd)
{
	return lease(fd, F_RDLCK);
}

/* A file without a name, of one page that takes no space. Or -1. */
static int scratch_file(const struct backing *backing)
{
	int fd = openat(backing->root_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	/* Of somebody else, so that a lease on it takes the right that one on any file takes (CAP_LEASE). */
	if (fd >= 0 && (fchown(fd, geteuid() + 1, (gid_t)-1) != 0 || ftruncate(fd, SCRATCH_BYTES) != 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int open_again(int fd, int flags)
{
	char path[BACKING_PROC_PATH];

	backing_proc_path(path, fd);
	return open(path, flags | O_CLOEXEC);
}

bool backing_is_in_use(int fd)
{
	return lease(fd, F_WRLCK) != 0;
}

/* A mapping whose descriptor is closed is what it must tell of; and it must be granted at all. */
bool backing_leases_tell(struct backing *backing)
{
	int writer = scratch_file(backing), reader = writer < 0 ? -1 : open_again(writer, O_RDONLY);
	bool tells = false;

	if (reader >= 0) {
		void *page = mmap(NULL, SCRATCH_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);
		bool open_tells = backing_lease(reader) == -EAGAIN;
		close(writer);
		writer = -1;
		if (page != MAP_FAILED) {
			tells = open_tells && backing_lease(reader) == -EAGAIN;
			munmap(page, SCRATCH_BYTES);
			tells = tells && backing_lease(reader) == 0;
		}
		close(reader);
	}
	if (writer >= 0)
		close(writer);
	return tells;
}

bool backing_has_direct_io(struct backing *backing)
{
	int fd = scratch_file(backing), direct = fd < 0 ? -1 : open_again(fd, O_RDONLY | O_DIRECT);

	if (direct >= 0)
		close(direct);
	if (fd >= 0)
		close(fd);
	return direct >= 0;
}

#include "memory.h"

#include <malloc.h>
#include <unistd.h>

#define MAPPED_FROM (1 << 20) /* fixed: else the first large block that is freed raises it to that block's size, 32 MiB at most */
#define ARENAS_MIN 4

void memory_setup(void)
{
#ifdef __GLIBC__
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	/* Threads have caches of their own before the arenas: half an arena a processor is enough where there are many. */
	mallopt(M_ARENA_MAX, processors / 2 > ARENAS_MIN ? (int)(processors / 2) : ARENAS_MIN);
	mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
#endif
}

void memory_give_back(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

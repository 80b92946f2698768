#include "clock.h"

#ifdef YESTER_FAILPOINTS
#include <stdlib.h>

/* Set once by clock_setup, read-only afterwards. */
static pthread_once_t clock_once = PTHREAD_ONCE_INIT;
static double clock_rate = 1;
static int64_t wall_start_ns, mono_start_ns, wall_offset_ns;
#endif

static int64_t now_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts); /* cannot fail: both clocks exist on Linux and ts is valid */
	return timespec_ns(ts);
}

#ifdef YESTER_FAILPOINTS
static void clock_setup(void)
{
	const char *offset = getenv("YESTER_CLOCK_OFFSET_S");
	const char *rate = getenv("YESTER_CLOCK_RATE");

	wall_start_ns = now_ns(CLOCK_REALTIME);
	mono_start_ns = now_ns(CLOCK_MONOTONIC);
	if (offset)
		wall_offset_ns = strtoll(offset, NULL, 10) * NS_PER_S;
	if (rate && strtod(rate, NULL) > 0)
		clock_rate = strtod(rate, NULL);
}

static int64_t stretch(int64_t start_ns, int64_t real_ns)
{
	if (clock_rate == 1)
		return real_ns;
	return start_ns + (int64_t)((double)(real_ns - start_ns) * clock_rate);
}

int64_t clock_wall_ns(void)
{
	pthread_once(&clock_once, clock_setup);
	return stretch(wall_start_ns, now_ns(CLOCK_REALTIME)) + wall_offset_ns;
}

int64_t clock_mono_ns(void)
{
	pthread_once(&clock_once, clock_setup);
	return stretch(mono_start_ns, now_ns(CLOCK_MONOTONIC));
}

/* Waiting is done by the kernel in real time. */
static int64_t real_distance_ns(int64_t ns)
{
	pthread_once(&clock_once, clock_setup);
	return clock_rate == 1 ? ns : (int64_t)((double)ns / clock_rate);
}
#else
int64_t clock_wall_ns(void)
{
	return now_ns(CLOCK_REALTIME);
}

int64_t clock_mono_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

static int64_t real_distance_ns(int64_t ns)
{
	return ns;
}
#endif

struct timespec clock_deadline(int64_t from_now_ns)
{
	int64_t at;

	if (from_now_ns < 0)
		from_now_ns = 0;
	if (__builtin_add_overflow(now_ns(CLOCK_MONOTONIC), real_distance_ns(from_now_ns), &at))
		at = INT64_MAX;
	return ns_timespec(at);
}

int clock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);

	if (rc != 0)
		return rc;
	rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (rc == 0)
		rc = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

int64_t timespec_ns(struct timespec ts)
{
	int64_t ns;

	/* A hostile or broken filesystem may hold any tv_sec: saturate rather than wrap. */
	if (__builtin_mul_overflow((int64_t)ts.tv_sec, NS_PER_S, &ns) || __builtin_add_overflow(ns, ts.tv_nsec, &ns))
		return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

struct timespec ns_timespec(int64_t ns)
{
	int64_t seconds = ns / NS_PER_S, rest = ns % NS_PER_S;

	if (rest < 0) {
		rest += NS_PER_S;
		seconds--;
	}
	return (struct timespec){ .tv_sec = seconds, .tv_nsec = rest };
}

#include "patience.h"

#include "clock.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below */
static unsigned calls;
static int64_t heard_ns; /* the last sign of life, or when the first of the calls began */
static struct patience present;

/* Lock held. */
static void sign_of_life(void)
{
	heard_ns = clock_mono_ns();
	present.why[0] = '\0';
}

void patience_begin(const char *whom)
{
	pthread_mutex_lock(&lock);
	if (calls++ == 0)
		sign_of_life();
	snprintf(present.whom, sizeof present.whom, "%s", whom);
	pthread_mutex_unlock(&lock);
}

void patience_end(void)
{
	pthread_mutex_lock(&lock);
	calls--;
	pthread_mutex_unlock(&lock);
}

void patience_heard(void)
{
	pthread_mutex_lock(&lock);
	sign_of_life();
	pthread_mutex_unlock(&lock);
}

void patience_failed(const char *why)
{
	pthread_mutex_lock(&lock);
	snprintf(present.why, sizeof present.why, "%s", why);
	pthread_mutex_unlock(&lock);
}

bool patience_look(int64_t now_ns, struct patience *out)
{
	bool waiting;

	pthread_mutex_lock(&lock);
	waiting = calls > 0;
	*out = present;
	out->waited_ns = now_ns > heard_ns ? now_ns - heard_ns : 0;
	pthread_mutex_unlock(&lock);
	return waiting;
}

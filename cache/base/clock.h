/* clock: the only source of time, so that tests can set it (YESTER_CLOCK_OFFSET_S shifts the wall clock by so many
 * seconds, YESTER_CLOCK_RATE multiplies the passing of both clocks; read once, in builds with failpoints only). */
#ifndef YESTER_CLOCK_H
#define YESTER_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)

int64_t clock_wall_ns(void); /* since 1970, UTC */
int64_t clock_mono_ns(void); /* never jumps */
/* CLOCK_MONOTONIC deadline for pthread_cond_timedwait on conditions made by clock_cond_init. Negative: now; too far: saturates. */
struct timespec clock_deadline(int64_t from_now_ns);
/* 0 or a (positive) errno, as pthread_cond_init. */
int clock_cond_init(pthread_cond_t *cond);

int64_t timespec_ns(struct timespec ts);  /* saturates beyond the years 1677 and 2262 */
struct timespec ns_timespec(int64_t ns); /* floor division: right before 1970 too */

#endif

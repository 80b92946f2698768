/* failpoint: a named place where a test can kill or fail the program. Compiled in only with -DYESTER_FAILPOINTS
 * (`make FAILPOINTS=1`, built into build/failpoints); elsewhere the macros vanish.
 *
 * YESTER_FAILPOINT="name=kill" or "name=kill:N" (SIGKILL at the Nth hit, first is 1) or "name=ENOSPC" / "name=EIO:N" (fail from the Nth
 * hit on) ; several separated by commas. YESTER_FAILPOINT_LOG=FILE appends the name of each failpoint at its first hit. Names are
 * listed in the section `failpoints` of the program, so that a test can extract all of them (build/failpoints/yester,
 * `strings -n 4` on the section via objcopy). Name: module/step, e.g. "spool/after-fsync". */
#ifndef YESTER_FAILPOINT_H
#define YESTER_FAILPOINT_H

#ifdef YESTER_FAILPOINTS
int failpoint_hit(const char *name);
#define FAILPOINT_NAME_(name) \
	({ static const char fp_name_[] __attribute__((section("failpoints"), used)) = name; fp_name_; })
/* A place to be killed at. */
#define FAILPOINT(name) ((void)failpoint_hit(FAILPOINT_NAME_(name)))
/* A place to fail at: 0, or the errno to pretend. */
#define FAILPOINT_ERRNO(name) failpoint_hit(FAILPOINT_NAME_(name))
#else
#define FAILPOINT(name) ((void)0)
#define FAILPOINT_ERRNO(name) 0
#endif

#endif

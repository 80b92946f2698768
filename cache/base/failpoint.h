/* failpoint: a named place where a test can kill or fail the program. Compiled in only with -DYESTER_FAILPOINTS
 * (`make FAILPOINTS=1`, built into build/failpoints); elsewhere the macros vanish.
 *
 * YESTER_FAILPOINT="name=kill" or "name=kill:N" (SIGKILL at the Nth hit, first is 1) or "name=ENOSPC" / "name=EIO:N" (fail from the Nth
 * hit on); several separated by commas. "name=EIO@FILE": only for the inode numbers that FILE holds at that moment, where the place says which
 * inode it is about (FAILPOINT_ERRNO_FD). YESTER_FAILPOINT_LOG=FILE appends the name of each failpoint at its first hit. Names are
 * listed in the section `failpoints` of the program, so that a test can extract all of them (build/failpoints/yester,
 * `strings -n 4` on the section via objcopy). Name: module/step, e.g. "spool/after-fsync".
 *
 * Two rules hold threads instead: "name=meet:N", until N of them are there at once (once; all pass afterwards), and "name=latch:PATH", which at the first hit makes the file PATH and waits until somebody removes it. A minute
 * is the deadline, then the program aborts. A LATCH is a place for these only: it is not listed, since to be killed there would tell nothing new. Nor is an OMIT, which a rule like "name=EIO" makes true: there the program leaves out
 * what a test has to notice. */
#ifndef YESTER_FAILPOINT_H
#define YESTER_FAILPOINT_H

#ifdef YESTER_FAILPOINTS
int failpoint_hit(const char *name);
int failpoint_hit_fd(const char *name, int fd);
#define FAILPOINT_NAME_(name) \
	({ static const char fp_name_[] __attribute__((section("failpoints"), used)) = name; fp_name_; })
/* A place to be killed at. */
#define FAILPOINT(name) ((void)failpoint_hit(FAILPOINT_NAME_(name)))
/* A place to fail at: 0, or the errno to pretend. */
#define FAILPOINT_ERRNO(name) failpoint_hit(FAILPOINT_NAME_(name))
#define LATCH(name) ((void)failpoint_hit(name))
#define OMIT(name) (failpoint_hit(name) != 0)
#define FAILPOINT_ERRNO_FD(name, fd) failpoint_hit_fd(FAILPOINT_NAME_(name), fd)
#else
#define LATCH(name) ((void)0)
#define OMIT(name) false
#define FAILPOINT(name) ((void)0)
#define FAILPOINT_ERRNO(name) 0
#define FAILPOINT_ERRNO_FD(name, fd) 0
#endif

#endif

/* The module is compiled into the test, with failpoints, whatever the build; its rules are read once, so each case is a process. */
#ifndef YESTER_FAILPOINTS
#define YESTER_FAILPOINTS
#endif
#include "failpoint.c"

#include "buf.h"
#include "io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <sys/wait.h>

static int first(void)
{
	return FAILPOINT_ERRNO("test/first");
}

static int second(void)
{
	FAILPOINT("test/first");
	return FAILPOINT_ERRNO("test/second");
}

/* Runs `body` under these failpoints in a child; its wait status. */
static int run(const char *failpoints, const char *log, int (*body)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, STDERR_FILENO);
		setenv("YESTER_FAILPOINT", failpoints, 1);
		setenv("YESTER_FAILPOINT_LOG", log, 1);
		signal(SIGABRT, SIG_DFL);
		_exit(body());
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int expect_silence(void)
{
	return first() != 0 || second() != 0;
}

static int expect_enospc_from_third(void)
{
	errno = EXDEV;
	return !(first() == 0 && first() == 0 && first() == ENOSPC && first() == ENOSPC && second() == EIO && errno == EXDEV);
}

static int hit_twice(void)
{
	first();
	first();
	return 3;
}

static void test_rules(void **state)
{
	int status;

	(void)state;
	assert_int_equal(run("", "", expect_silence), 0);
	assert_int_equal(run("other/name=EIO", "", expect_silence), 0);
	assert_int_equal(run("test/first=ENOSPC:3,test/second=EIO", "", expect_enospc_from_third), 0);
	status = run("test/first=kill:2", "", hit_twice);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	status = run("test/first=kill:3", "", hit_twice);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void test_misspelt(void **state)
{
	static const char *const bad[] = { "test/first", "=EIO", "test/first=EWHAT", "test/first=kill:0", "test/first=kill:x", "a=EIO:", "a=meet:1", "a=meet:x" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int status = run(bad[i], "", expect_silence);

		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

static atomic_int arrived;

static void *arrive(void *context)
{
	first();
	atomic_fetch_add(&arrived, 1);
	return context;
}

static int meet_and_go_on(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, arrive, NULL) != 0)
		return 2;
	if (atomic_load(&arrived) != 0) /* alone it does not get on */
		return 3;
	first();
	pthread_join(thread, NULL);
	first();
	return atomic_load(&arrived) != 1;
}

static void test_meet(void **state)
{
	(void)state;
	assert_int_equal(run("test/first=meet:2", "", meet_and_go_on), 0);
}

static char latch[64];

static void *let_go(void *context)
{
	while (unlink(latch) != 0) /* the deadline is the failpoint's */
		sched_yield();
	atomic_fetch_add(&arrived, 1);
	return context;
}

static int wait_at_latch(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, let_go, NULL) != 0)
		return 2;
	first();
	pthread_join(thread, NULL);
	first(); /* once only */
	return atomic_load(&arrived) != 1;
}

static void test_latch(void **state)
{
	char rule[96];

	(void)state;
	snprintf(latch, sizeof(latch), "/tmp/test_failpoint-latch.%d", (int)getpid());
	snprintf(rule, sizeof(rule), "test/first=latch:%s", latch);
	assert_int_equal(run(rule, "", wait_at_latch), 0);
	assert_int_equal(access(latch, F_OK), -1);
}

static int hit_several(void)
{
	return first() + second() + first();
}

static void test_log(void **state)
{
	char log[] = "/tmp/test_failpoint.XXXXXX";
	struct buf buf = { 0 };
	int fd = mkstemp(log);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(run("", log, hit_several), 0);
	assert_int_equal(io_read_file(AT_FDCWD, log, 4096, &buf, NULL), 0);
	assert_int_equal(buf_append_u8(&buf, 0), 0);
	assert_string_equal((char *)buf.data, "test/first\ntest/second\n");
	buf_free(&buf);
	unlink(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_misspelt),
		cmocka_unit_test(test_meet),
		cmocka_unit_test(test_latch),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

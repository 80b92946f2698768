/* The control socket with an engine made up here. Fault 51: hostile input. */
#include "clock.h"
#include "control.h"
#include "control_client.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

struct engine { int64_t asked_ns; int syncs, rescans; };

static struct engine engine;
static char directory[64];
static struct volume_config *config;
static struct volume *volume;
static struct control *control;
static const struct error *stop_result;
static atomic_int unmounts;

static int fake_sync(struct engine *e, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error)
{
	e->asked_ns = timeout_ns;
	e->rescans += rescan;
	e->syncs++;
	if (timeout_ns == 0)
		return error_set(error, ERR_TIMEOUT, 0, "5 files are not in the remote in time");
	*version = 42;
	return 0;
}

static void fake_status(struct engine *e, struct engine_status *out)
{
	(void)e;
	*out = (struct engine_status){.state = ENGINE_SYNCING, .confirmed = 41, .head = 42, .pending_bytes = 7};
	strcpy(out->last_error, "store: \"quoted\"");
}

static int fake_unmount(void *context, int64_t timeout_ns, bool (*tick)(void *), void *tick_context, struct error *error)
{
	(void)context;
	tick(tick_context);
	if (timeout_ns == NS_PER_S)
		return error_set(error, ERR_BUSY, 0, "is in use");
	unmounts++;
	return 0;
}

static const struct engine_ops ops = {.sync = fake_sync, .status = fake_status};

static int setup(void **state)
{
	struct error error = {.code = 0};
	char path[96];
	(void)state;

	strcpy(directory, "/tmp/test_fs_control.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/state", directory);
	mkdir(path, 0700);
	setenv("YESTER_STATE_DIR", path, 1);
	snprintf(path, sizeof(path), "%s/tree", directory);
	mkdir(path, 0700);
	config = config_new("docs");
	config->directory = strdup(path);
	config->remote = strdup("file:///nowhere");
	if (volume_create(config, &volume, &error) != 0)
		return -1;
	unmounts = 0;
	return control_start(&(struct control_env){volume, &ops, &engine, "/mnt", false, fake_unmount, NULL, NULL}, &control, &error);
}

static int teardown(void **state)
{
	static const struct error fine = {.code = 0};
	char command[128];
	(void)state;

	control_stop(control, stop_result ? stop_result : &fine, 42);
	stop_result = NULL;
	volume_close(volume, true);
	config_free(config);
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

static void test_verbs(void **state)
{
	struct buf answer = {0};
	struct error error = {.code = 0};
	(void)state;

	assert_int_equal(control_call(config, "ping", -1, NULL, NULL, &answer, &error), 0);
	assert_non_null(strstr((char *)answer.data, "\"pid\":"));
	assert_int_equal(control_call(config, "status", -1, NULL, NULL, &answer, &error), 0);
	assert_non_null(strstr((char *)answer.data, "\"state\":\"syncing\""));
	assert_non_null(strstr((char *)answer.data, "\"version\":41"));
	assert_non_null(strstr((char *)answer.data, "store: \\\"quoted\\\""));
	assert_int_equal(control_call(config, "sync", 1500, NULL, NULL, &answer, &error), 0);
	assert_string_equal((char *)answer.data, "{\"version\":42}");
	assert_int_equal(engine.asked_ns, 1500 * INT64_C(1000000));
	assert_int_equal(control_call(config, "sync", -1, NULL, NULL, NULL, &error), 0);
	assert_int_equal(engine.asked_ns, -1);
	assert_int_equal(engine.rescans, 0);
	assert_int_equal(control_call(config, "rescan", 2500, NULL, NULL, &answer, &error), 0);
	assert_string_equal((char *)answer.data, "{\"version\":42}");
	assert_int_equal(engine.rescans, 1);
	assert_int_equal(engine.asked_ns, 2500 * INT64_C(1000000));
	assert_int_equal(control_call(config, "sync", 0, NULL, NULL, &answer, &error), ERR_TIMEOUT);
	assert_string_equal(error.message, "5 files are not in the remote in time");
	assert_int_equal(control_call(config, "nonsense", -1, NULL, NULL, &answer, &error), ERR_USAGE);
	buf_free(&answer);
}

static void count_progress(void *context, const char *text)
{
	++*(int *)context;
	assert_string_equal(text, "7 0 0");
}

static void *umount_caller(void *arg)
{
	struct error error = {.code = 0};
	int progress = 0;
	*(int *)arg = control_call(config, "umount", 2000, count_progress, &progress, NULL, &error);
	return progress == 1 ? arg : NULL;
}

static void test_umount_answers_at_the_end(void **state)
{
	static const struct error left = {.code = ERR_TIMEOUT, .message = "something is left"};
	struct error error = {.code = 0};
	pthread_t thread;
	void *result;
	int rc = 1;
	(void)state;

	assert_int_equal(control_call(config, "umount", 1000, NULL, NULL, NULL, &error), ERR_BUSY);
	assert_int_equal(pthread_create(&thread, NULL, umount_caller, &rc), 0);
	int64_t began = clock_mono_ns();
	while (!unmounts) {
		if (clock_mono_ns() - began > 60 * NS_PER_S)
			fail_msg("waited a minute for the call that unmounts");
		sched_yield();
	}
	control_refuse(control);
	assert_int_equal(control_call(config, "sync", 1, NULL, NULL, NULL, &error), ERR_BUSY);
	control_wait_idle(control);
	stop_result = &left;
	control_stop(control, stop_result, 42);
	/* The connection ends with the process; here, by hand: the highest descriptors are the server's side. */
	control = NULL;
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_un name;
		socklen_t length = sizeof(name);
		if (getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.sun_family == AF_UNIX &&
		    length > sizeof(sa_family_t))
			shutdown(fd, SHUT_RDWR);
	}
	pthread_join(thread, &result);
	assert_non_null(result);
	assert_int_equal(rc, ERR_TIMEOUT);
}

static int raw_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/state/docs/control.sock", directory);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void test_socket_mode(void **state)
{
	char path[128];
	struct stat st;
	(void)state;
	snprintf(path, sizeof(path), "%s/state/docs/control.sock", directory);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_hostile_input(void **state)
{
	static const char *const lines[] = {
		"\n", "yester\n", "yester 1\n", "yester 2 status\n", "yester 1 status 1 2\n", "yester 1 sync 99999999999999999999\n",
		"yester 1 statusstatusstatusstatus\n", "yester 1 status x\n", "GET / HTTP/1.0\r\n\r\n", "yester 1 %s%n%n\n",
		"yester -1 status\n", "yester 1 umount \n",
	};
	char answer[512], garbage[4096];
	struct error error = {.code = 0};
	unsigned seed = 51;
	(void)state;

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		int fd = raw_connect();
		assert_int_equal(send(fd, lines[i], strlen(lines[i]), 0), strlen(lines[i]));
		ssize_t count = recv(fd, answer, sizeof(answer), 0);
		assert_true(count > 6 && memcmp(answer, "error ", 6) == 0);
		close(fd);
	}
	for (int round = 0; round < 200; round++) {
		int fd = raw_connect();
		size_t length = (size_t)rand_r(&seed) % sizeof(garbage);
		for (size_t i = 0; i < length; i++)
			garbage[i] = (char)rand_r(&seed);
		send(fd, garbage, length, MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		while (recv(fd, answer, sizeof(answer), 0) > 0)
			;
		close(fd);
	}
	assert_int_equal(control_call(config, "ping", -1, NULL, NULL, NULL, &error), 0);
	assert_int_equal(unmounts, 0);
}

static void test_absent(void **state)
{
	struct volume_config *other = config_new("other");
	struct error error = {.code = 0};
	(void)state;
	other->directory = strdup("/nowhere");
	assert_int_equal(control_call(other, "status", -1, NULL, NULL, NULL, &error), ERR_ABSENT);
	config_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_umount_answers_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_input, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

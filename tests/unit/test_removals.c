/* What an operation has removed is no loss (rescan.h), not even after a kill: the journal's names don't count any more then (I12), but its removals bear witness. */
#include "machine.h"

#include "clock.h"
#include "journal.h"
#include "volume.h"

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 40
#define REMOVED 35

static int setup(void **state)
{
	struct machine *machine = machine_setup(state, "removals");

	machine_begin(machine, "for i in $(seq %d); do echo $i >f$i; done", FILES);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	return 0;
}

static void each(struct machine *machine, void (*operation)(struct machine *machine, const char *path))
{
	for (int i = 1; i <= REMOVED; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%d", i);
		operation(machine, name);
	}
}

/* In a process that is killed once the journal is on the disk. again: put there once more before that. */
static void remove_and_die(struct machine *machine, bool again)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		machine_mount(machine, false, false);
		if (machine_sync(machine) != 0)
			_exit(2);
		each(machine, machine_unlink);
		if (journal_flush(volume_journal(machine->volume), &machine->error) != 0)
			_exit(3);
		if (again)
			each(machine, machine_create);
		_exit(journal_flush(volume_journal(machine->volume), &machine->error) == 0 ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_removed(void **state)
{
	struct machine *machine = *state;

	remove_and_die(machine, false);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM name"), FILES - REMOVED);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM journal_name"), 0);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Again before the next version, as a rule: it is still known then. */
static void test_killed_again(void **state)
{
	struct machine *machine = *state;
	int status;

	remove_and_die(machine, false);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		machine_mount(machine, false, false);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_put_back_and_lost(void **state)
{
	struct machine *machine = *state;

	remove_and_die(machine, true);
	machine_run(machine, "for i in $(seq %d); do rm f$i; done", REMOVED);
	machine_mount(machine, false, false);
	assert_int_equal(machine_sync(machine), ERR_FAILED);
	assert_non_null(strstr(machine->error.message, "accept_loss"));
	machine_unmount(machine, 0, true);
	machine_mount(machine, false, true);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_removed, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_killed_again, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_put_back_and_lost, setup, machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Whose log is it? I17, promise 6: a machine that lost its database, or whose database is an older copy, goes on by itself only from a head that its own
 * directory wrote; from any other it has to be told to. */
#include "machine.h"

#include "clock.h"

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

struct pair { /* of machines with one volume */
	struct machine here, there;
};

static void change(struct machine *machine, const char *name)
{
	machine_create(machine, name);
	machine_write(machine, name, 0, name, strlen(name));
	MACHINE_OK(machine, machine_sync(machine));
}

/* Version 1 is in the remote, written here; nothing is mounted. */
static int setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	machine_make(&pair->here, "here", NULL);
	machine_make(&pair->there, "there", pair->here.remote);
	machine_begin(&pair->here, "mkdir a; for i in $(seq 30); do echo $i >a/f$i; done");
	MACHINE_OK(&pair->here, machine_unmount(&pair->here, NS_PER_S, true));
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	machine_free(&pair->there);
	machine_free(&pair->here);
	free(pair);
	return 0;
}

static void lose_database(struct machine *machine)
{
	machine_run(machine, "rm %s/state/docs/volume.db*", machine->base);
}

static void clone_there(struct pair *pair)
{
	machine_clone(&pair->there);
	machine_mount(&pair->there, false, false); /* the first mount of a clone takes over */
	change(&pair->there, "theirs");
	machine_compare(&pair->there);
}

/* Nothing of what is done here gets into the log, and what is done there does; until somebody says that it shall be the other way round. */
static void check_fenced(struct pair *pair, const char *advice)
{
	struct machine *here = &pair->here, *there = &pair->there;

	assert_int_equal(machine_sync(here), ERR_FENCED);
	assert_non_null(strstr(here->error.message, advice));
	assert_int_equal(machine_status(here).state, ENGINE_FENCED);
	machine_create(here, "late");
	assert_int_equal(machine_sync(here), ERR_FENCED);
	machine_unmount(here, 0, true);
	machine_mount(here, false, false); /* still */
	assert_int_equal(machine_sync(here), ERR_FENCED);
	machine_unmount(here, 0, true);
	change(there, "further");
	machine_compare(there);
	machine_mount(here, true, true);
	MACHINE_OK(here, machine_sync(here));
	machine_run(here, "test -e late -a ! -e theirs -a ! -e further");
	machine_compare(here);
	machine_create(there, "too late");
	assert_int_equal(machine_sync(there), ERR_FENCED);
}

/* Faults 20, 21: the head is of this very directory: nobody has to be asked. */
static void test_rebuilt(void **state)
{
	struct pair *pair = *state;
	struct machine *here = &pair->here;

	lose_database(here);
	machine_run(here, "echo unseen >unseen");
	machine_mount(here, false, false);
	MACHINE_OK(here, machine_sync(here));
	machine_compare(here);
	assert_int_equal(machine_int(here, "SELECT flags & 2 FROM version WHERE seq=2"), 2);
	assert_true(machine_int(here, "SELECT value FROM meta WHERE name='rebuilt'") <= 0);
	MACHINE_OK(here, machine_unmount(here, NS_PER_S, true));
}

static void test_rebuilt_on_foreign_head(void **state)
{
	struct pair *pair = *state;

	clone_there(pair);
	lose_database(&pair->here);
	machine_mount(&pair->here, false, false);
	check_fenced(pair, "take_over");
}

/* The other one takes over in the moment between the reading of the log and the first version. */
static void test_rebuilt_and_outrun(void **state)
{
	struct pair *pair = *state;
	struct machine *here = &pair->here;

	machine_clone(&pair->there);
	lose_database(here);
	machine_open(here, false, false);
	machine_mount(&pair->there, false, false);
	change(&pair->there, "theirs");
	machine_start(here);
	check_fenced(pair, "take_over");
}

/* Fault 22: all of it was restored from a backup, tree and state: the log has gone on since, by whomever. */
static void restored(struct pair *pair, bool by_other)
{
	struct machine *here = &pair->here;

	machine_run(here, "cp -a %s/state %s/kept", here->base, here->base);
	machine_mount(here, false, false);
	change(here, "later");
	MACHINE_OK(here, machine_unmount(here, NS_PER_S, true));
	if (by_other)
		clone_there(pair);
	machine_run(here, "rm -rf %s/state later; mv %s/kept %s/state", here->base, here->base, here->base);
	machine_mount(here, false, false);
}

static void test_restored_and_foreign(void **state)
{
	restored(*state, true);
	check_fenced(*state, "take_over");
}

static void test_restored(void **state)
{
	struct pair *pair = *state;
	struct machine *here = &pair->here;

	restored(pair, false);
	assert_int_equal(machine_sync(here), ERR_FENCED);
	assert_non_null(strstr(here->error.message, "a later state of this one"));
	machine_unmount(here, 0, true);
	machine_mount(here, true, false);
	MACHINE_OK(here, machine_sync(here));
	machine_compare(here);
	assert_int_equal(machine_int(here, "SELECT count(*) FROM version"), 3); /* both histories stay */
	MACHINE_OK(here, machine_unmount(here, NS_PER_S, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rebuilt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rebuilt_on_foreign_head, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rebuilt_and_outrun, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restored_and_foreign, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restored, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

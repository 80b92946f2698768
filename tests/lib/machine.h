/* machine: a computer with one volume, for tests of the engine without FUSE: a tree, its config and state directories, a file:// remote; and changes to the tree, made behind the volume's back or as operations of
 * the mount would make them. Several can share a remote. */
#ifndef YESTER_MACHINE_H
#define YESTER_MACHINE_H

#include "clock.h"
#include "engine.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

struct machine {
	char base[96], tree[128], remote[128]; /* directories; remote may be another machine's */
	struct volume_config *config;
	struct unlock unlock;
	char passphrase[128];
	struct volume *volume; /* while mounted */
	struct engine *engine;
	struct error error; /* of the last call */
};

/* Fails the test with the message of machine->error when rc is not 0. */
void machine_ok(struct machine *machine, int rc);
#define MACHINE_OK(machine, rc) machine_ok(machine, rc)

/* Directories and config, nothing else. remote NULL: one of its own. */
void machine_make(struct machine *machine, const char *name, const char *remote);
void machine_free(struct machine *machine);
void machine_init(struct machine *machine);
void machine_clone(struct machine *machine);
/* A cmocka fixture: a machine_make'd one is the test's state, and is freed again. */
struct machine *machine_setup(void **state, const char *name);
int machine_teardown(void **state);
/* volume_open to engine open; engine start; both. */
void machine_open(struct machine *machine, bool take_over, bool accept_loss);
void machine_start(struct machine *machine);
void machine_mount(struct machine *machine, bool take_over, bool accept_loss);
/* Stops the engine with that much time to drain; its result. */
int machine_unmount(struct machine *machine, int64_t drain_ns, bool clean);
/* Cuts and waits for the remote, a minute at most. */
int machine_sync(struct machine *machine);
/* A shell command, in the tree. */
void machine_run(struct machine *machine, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The remote's newest version has exactly the machine's tree: cloned elsewhere and compared. The catalogue rebuilt from the log is the machine's. */
void machine_compare(struct machine *machine);
/* First column of the first row; -1 when there is none. */
int64_t machine_int(struct machine *machine, const char *query);
struct engine_status machine_status(struct machine *machine);
/* Looks again and again until the condition holds. After a minute the test fails, and says what it waited for and what the status is. */
#define MACHINE_AWAIT(machine, what, condition)                                                                        \
	for (int64_t began_ = clock_mono_ns(); !(condition);)                                                          \
		machine_look_again(machine, what, began_)
/* Between two looks of that loop. */
void machine_look_again(struct machine *machine, const char *what, int64_t began_ns);

/* machine_run makes the tree; then machine_init, machine_mount and machine_sync: the first version has it. */
void machine_begin(struct machine *machine, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As operations of the mount. Paths are relative to the tree. */
void machine_write(struct machine *machine, const char *path, int64_t offset, const void *data, size_t length);
void machine_fail_to_write(struct machine *machine, const char *path, int64_t offset, int64_t length); /* nothing changes */
void machine_truncate(struct machine *machine, const char *path, int64_t size);
void machine_create(struct machine *machine, const char *path);
void machine_unlink(struct machine *machine, const char *path);
void machine_rename(struct machine *machine, const char *from, const char *to);

#endif

/* main: finds the verb, and hands it the engine. The only file that sees both fs/ and sync/. */
#include "cmd.h"
#include "failpoint.h"
#include "help.h"
#include "memory.h"
#include "mount_helper.h"
#include "nearest.h"
#include "sync.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const struct verb {
	const char *name;
	cmd_fn *run;
} verbs[] = {
	{ "init", cmd_init }, { "mount", cmd_mount }, { "umount", cmd_umount }, { "status", cmd_status },
	{ "sync", cmd_sync }, { "restore", cmd_restore }, { "clone", cmd_clone }, { "check", cmd_check },
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(name, verbs[i].name) == 0)
			return &verbs[i];
	return NULL;
}

static int no_such_verb(const char *word)
{
	size_t least = SIZE_MAX;
	const char *nearest = "";
	struct error error;

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		size_t d = edit_distance(word, verbs[i].name);

		if (d < least) {
			least = d;
			nearest = verbs[i].name;
		}
	}
	if (least <= strlen(nearest) / 2)
		error_set(&error, ERR_USAGE, 0, "%s: there is no such verb; the nearest is %s", word, nearest);
	else
		error_set(&error, ERR_USAGE, 0, "%s: there is no such verb; see yester --help", word);
	return cmd_fail(&error);
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

static int run(int argc, char **argv)
{
	const struct verb *verb;

	if (mount_helper_is_meant(argc, argv))
		return mount_helper(argc, argv, sync_engine());
	if (argc < 2) {
		help_all(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("yester " YESTER_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "help") == 0 && argc > 2)
		return help_verb(stdout, argv[2]) == 0 ? 0 : no_such_verb(argv[2]);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		help_all(stdout);
		return 0;
	}
	verb = find_verb(argv[1]);
	if (!verb)
		return no_such_verb(argv[1]);
	if (asks_for_help(argc - 1, argv + 1))
		return help_verb(stdout, verb->name) == 0 ? 0 : 1;
	return verb->run(argc - 1, argv + 1, sync_engine());
}

/* A descriptor 0, 1 or 2 that is closed would be given to a database, and messages written into it. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

#ifndef __SANITIZE_ADDRESS__
/* Linux undoes PR_SET_DUMPABLE whenever a thread acts as another user (commit_creds() sets fs.suid_dumpable, which is 2 where systemd collects dumps). A dump also waits for all threads (coredump_wait()), which one that is
 * stuck in the kernel never lets end: who waits for the death of this process (breaker.h) would not hear of it. A limit of 0 is looked at too late for that. Back from here, the signal does what it does by default. */
static void crash(int number)
{
	prctl(PR_SET_DUMPABLE, 0);
	raise(number);
}
#endif

/* Keys are in memory: no core dump, and nobody without privileges looks into the process (fault 50). The leak checker has to. */
static void keep_memory_private(void)
{
#ifndef __SANITIZE_ADDRESS__
	static const int dumping[] = {SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, SIGXCPU};
	struct sigaction action = {.sa_handler = crash, .sa_flags = SA_RESETHAND}, before;

	for (size_t i = 0; i < sizeof dumping / sizeof *dumping; i++)
		if (sigaction(dumping[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL) /* else it may be ignored, as SIGQUIT is in the background */
			sigaction(dumping[i], &action, NULL);
	if (!OMIT("main/dumpable"))
		prctl(PR_SET_DUMPABLE, 0);
#endif
}

int main(int argc, char **argv)
{
	int code;

	fill_standard_descriptors();
	keep_memory_private();
	memory_setup();
	code = run(argc, argv);
	if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE && code == 0) {
		struct error error;

		error_errno(&error, errno, "cannot write the output");
		code = cmd_fail(&error);
	}
	return code;
}

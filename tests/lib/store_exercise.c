/* store_exercise: one store, driven from a script.
 *
 *   store_exercise [-t TRIES] [-o KEY=VALUE]... REMOTE COMMAND...
 *
 *   put KEY TEXT          put-file KEY FILE          put-new KEY TEXT        put-new-file KEY FILE
 *   get KEY [OFFSET [LENGTH]]     the bytes to standard output; LENGTH - : to the end
 *   list PREFIX [START_AFTER]     one "KEY SIZE" a line
 *   delete KEY            probe                      fill PREFIX COUNT [THREADS]   objects of their own name
 *   drain PREFIX          deletes what is listed     counts                  put/get/list/delete/up/down of this process
 *
 * Several commands may follow each other, separated by "+"; the first failure ends it. Options: endpoint, region, profile, addressing,
 * allow_http, ca_file, storage_class, server_side_encryption, proxy, create. TEXT may be empty. Exit code 0, or 1 with
 * "WORD: message" on standard error, WORD being that of error_word. SIGTERM cancels the store. */
#include "clock.h"
#include "config.h"
#include "log.h"
#include "store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARGUMENTS_MAX 8

static struct store *store;

static int usage(struct error *error, const char *what)
{
	return error_set(error, ERR_USAGE, 0, "%s: bad command; see the comment at the top of store_exercise.c", what);
}

static int put(const char *verb, const char *key, const char *argument, struct error *error)
{
	bool only_new = strncmp(verb, "put-new", 7) == 0;
	struct store_body body = { .data = argument, .fd = -1, .length = strlen(argument) };
	int64_t server_ns;
	struct stat st;
	int rc;

	if (strstr(verb, "-file")) {
		body.data = NULL;
		body.fd = open(argument, O_RDONLY | O_CLOEXEC);
		if (body.fd < 0 || fstat(body.fd, &st) < 0)
			return error_set(error, ERR_USAGE, 0, "%s: cannot open it", argument);
		body.length = (uint64_t)st.st_size;
	}
	rc = (only_new ? store_put_new : store_put)(store, key, &body, &server_ns, error);
	if (body.fd >= 0)
		close(body.fd);
	if (rc == 0 && llabs(server_ns - clock_wall_ns()) > 7200 * NS_PER_S)
		fprintf(stderr, "note: the server's time is far from ours\n");
	return rc;
}

static int get(const char *key, const char *offset, const char *length, struct error *error)
{
	struct buf out = { 0 };
	int rc = store_get(store, key, offset ? strtoull(offset, NULL, 10) : 0,
			   length && strcmp(length, "-") != 0 ? strtoull(length, NULL, 10) : STORE_WHOLE, &out, error);

	if (rc < 0 && out.length)
		abort(); /* store.h: out is as before */
	if (rc == 0 && out.length && fwrite(out.data, out.length, 1, stdout) != 1)
		rc = error_set(error, ERR_FAILED, 0, "cannot write to standard output");
	buf_free(&out);
	return rc;
}

static int print_object(void *context, const struct store_object *object)
{
	(void)context;
	printf("%s %" PRIu64 "\n", object->key, object->size);
	return object->modified_s > 0 ? 0 : ERR_CORRUPT;
}

static int delete_object(void *context, const struct store_object *object)
{
	return store_delete(store, object->key, context);
}

struct fill {
	const char *prefix;
	int count, next; /* next: atomic */
};

struct filler {
	struct fill *fill;
	pthread_t thread;
	int rc;
	struct error error;
};

static void *fill_run(void *argument)
{
	struct filler *filler = argument;
	int number;

	while (filler->rc == 0 && (number = __atomic_fetch_add(&filler->fill->next, 1, __ATOMIC_RELAXED)) < filler->fill->count) {
		char key[200];

		snprintf(key, sizeof key, "%s%06d", filler->fill->prefix, number);
		filler->rc = put("put", key, key, &filler->error);
	}
	return NULL;
}

static int fill(const char *prefix, const char *count, const char *threads, struct error *error)
{
	struct fill work = { .prefix = prefix, .count = atoi(count) };
	struct filler fillers[32] = { 0 };
	int n = threads ? atoi(threads) : 8, rc = 0;

	if (n < 1 || n > 32)
		return usage(error, "fill");
	for (int i = 0; i < n; i++) {
		fillers[i].fill = &work;
		if (pthread_create(&fillers[i].thread, NULL, fill_run, &fillers[i]) != 0)
			abort();
	}
	for (int i = 0; i < n; i++) {
		pthread_join(fillers[i].thread, NULL);
		if (fillers[i].rc < 0 && rc == 0) {
			rc = fillers[i].rc;
			*error = fillers[i].error;
		}
	}
	return rc;
}

static void print_counts(void)
{
	struct store_counts counts;

	store_get_counts(store, &counts);
	printf("put=%" PRIu64 " get=%" PRIu64 " list=%" PRIu64 " delete=%" PRIu64 " up=%" PRIu64 " down=%" PRIu64 "\n", counts.put,
	       counts.get, counts.list, counts.delete_, counts.bytes_up, counts.bytes_down);
}

/* One command; words[count] is NULL. */
static int run(char *const *words, int count, struct error *error)
{
	const char *verb = words[0];

	if (strncmp(verb, "put", 3) == 0 && count == 3)
		return put(verb, words[1], words[2], error);
	if (strcmp(verb, "get") == 0 && count >= 2 && count <= 4)
		return get(words[1], words[2], count > 3 ? words[3] : NULL, error);
	if (strcmp(verb, "list") == 0 && (count == 2 || count == 3))
		return store_list(store, words[1], words[2], print_object, NULL, error);
	if (strcmp(verb, "drain") == 0 && count == 2)
		return store_list(store, words[1], NULL, delete_object, error, error);
	if (strcmp(verb, "delete") == 0 && count == 2)
		return store_delete(store, words[1], error);
	if (strcmp(verb, "probe") == 0 && count == 1)
		return store_probe_conditional_put(store, error);
	if (strcmp(verb, "fill") == 0 && (count == 3 || count == 4))
		return fill(words[1], words[2], words[3], error);
	if (strcmp(verb, "counts") == 0 && count == 1) {
		print_counts();
		return 0;
	}
	return usage(error, verb);
}

static int run_all(char **words, int count, struct error *error)
{
	int rc = 0;

	for (int from = 0; rc == 0 && from < count;) {
		char *command[ARGUMENTS_MAX + 1] = { NULL };
		int n = 0;

		while (from + n < count && strcmp(words[from + n], "+") != 0) {
			if (n == ARGUMENTS_MAX)
				return usage(error, words[from]);
			command[n] = words[from + n];
			n++;
		}
		rc = n ? run(command, n, error) : usage(error, "+");
		from += n + 1;
	}
	return rc;
}

static bool create;

static bool set_option(struct volume_config *config, char *text)
{
	char *value = strchr(text, '=');
	const struct { const char *name; char **at; } texts[] = {
		{ "endpoint", &config->endpoint }, { "region", &config->region }, { "profile", &config->profile },
		{ "addressing", &config->addressing }, { "ca_file", &config->ca_file }, { "storage_class", &config->storage_class },
		{ "server_side_encryption", &config->server_side_encryption }, { "proxy", &config->proxy },
	};

	if (!value)
		return false;
	*value++ = '\0';
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		if (strcmp(text, texts[i].name) == 0) {
			*texts[i].at = value;
			return true;
		}
	}
	if (strcmp(text, "allow_http") == 0)
		config->allow_http = strcmp(value, "yes") == 0;
	else if (strcmp(text, "create") == 0)
		create = strcmp(value, "yes") == 0;
	else
		return false;
	return true;
}

/* SIGTERM: as the daemon does when it is told to stop. */
static void *wait_for_term(void *argument)
{
	int signal_number;

	sigwait(argument, &signal_number);
	store_cancel(store);
	return NULL;
}

int main(int argc, char **argv)
{
	struct volume_config config = { 0 };
	struct error error = { 0 };
	int tries = 4, option, rc = 0;
	pthread_t waiter;
	sigset_t term;

	while ((option = getopt(argc, argv, "+t:o:")) != -1) {
		if (option == 't')
			tries = atoi(optarg);
		else if (option != 'o' || !set_option(&config, optarg))
			rc = usage(&error, argv[0]);
	}
	if (rc == 0 && argc - optind < 2)
		rc = usage(&error, argv[0]);
	log_open("store_exercise", getenv("STORE_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, false);
	config.remote = rc == 0 ? argv[optind] : NULL;
	if (rc == 0)
		rc = store_open(&config, create, tries, &store, &error);
	if (rc == 0) {
		sigemptyset(&term);
		sigaddset(&term, SIGTERM);
		pthread_sigmask(SIG_BLOCK, &term, NULL);
		if (pthread_create(&waiter, NULL, wait_for_term, &term) != 0)
			abort();
		rc = run_all(argv + optind + 1, argc - optind - 1, &error);
		pthread_cancel(waiter); /* sigwait is a cancellation point */
		pthread_join(waiter, NULL);
		store_close(store);
	}
	if (fflush(stdout) != 0)
		rc = error_set(&error, ERR_FAILED, 0, "cannot write to standard output");
	if (rc < 0)
		fprintf(stderr, "%s: %s\n", error_word(rc), error.message);
	return rc < 0;
}

#include "failpoint.h"

/* ISO C wants a declaration in every unit; builds without failpoints have nothing else here. */
typedef int failpoint_unit;

#ifdef YESTER_FAILPOINTS
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX 32
#define SEEN_MAX 1024
#define DEADLINE_S 60

struct rule {
	const char *name;
	bool kill;
	int fail_errno;
	long from; /* hit that counts, the first is 1 */
	long meet; /* threads to wait for, 0: not that kind */
	const char *latch; /* path, NULL: not that kind */
	const char *inodes; /* file with their numbers; NULL: whatever it is about */
	atomic_long hits;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
/* Set once by parse_rules, read-only afterwards, except for the atomic counters. */
static struct rule rules[RULES_MAX];
static int rule_count;
static const char *log_path; /* NULL: none. Not an open descriptor: a daemon closes what it did not open. */

static pthread_mutex_t meet_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER; /* a hit of a rule that waits for several */

static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *seen[SEEN_MAX]; /* seen_lock */
static int seen_count;             /* seen_lock */

/* A test that misspells its failpoint must not pass as if nothing had gone wrong. */
static void refuse(const char *text)
{
	fprintf(stderr, "yester: YESTER_FAILPOINT: cannot understand \"%s\"\n", text);
	abort();
}

static int errno_of_name(const char *name)
{
	for (int i = 1; i < 134; i++) {
		const char *known = strerrorname_np(i);

		if (known && strcmp(known, name) == 0)
			return i;
	}
	return 0;
}

/* "meet:N" and "latch:PATH". False: another kind. */
static bool parse_holding(struct rule *rule, const char *action)
{
	char *end;

	if (strncmp(action, "latch:", 6) == 0) {
		rule->latch = action + 6;
		return true;
	}
	if (strncmp(action, "meet:", 5) != 0)
		return false;
	rule->meet = strtol(action + 5, &end, 10);
	if (*end || rule->meet < 2)
		refuse(action);
	return true;
}

static void parse_rule(char *text)
{
	struct rule *rule = &rules[rule_count];
	char *action = strchr(text, '='), *count, *end, *at;

	if (!action || action == text || rule_count == RULES_MAX)
		refuse(text);
	*action++ = '\0';
	rule->name = text;
	rule->from = 1;
	if (parse_holding(rule, action)) {
		rule_count++;
		return;
	}
	at = strchr(action, '@');
	if (at) {
		*at++ = '\0';
		rule->inodes = at;
	}
	count = strchr(action, ':');
	if (count) {
		*count++ = '\0';
		rule->from = strtol(count, &end, 10);
		if (*end || end == count || rule->from < 1)
			refuse(count);
	}
	rule->kill = strcmp(action, "kill") == 0;
	rule->fail_errno = rule->kill ? 0 : errno_of_name(action);
	if (!rule->kill && rule->fail_errno == 0)
		refuse(action);
	rule_count++;
}

static void parse_rules(void)
{
	const char *text = getenv("YESTER_FAILPOINT"), *log = getenv("YESTER_FAILPOINT_LOG");
	char *copy, *rest, *word;

	if (log && *log)
		log_path = strdup(log);
	if (!text || !*text)
		return;
	copy = strdup(text); /* the rules point into it until the process ends */
	if (!copy)
		abort();
	for (word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
		parse_rule(word);
}

static void append_to_log(const char *name)
{
	char line[256];
	int length = snprintf(line, sizeof line, "%s\n", name);
	int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, line, (size_t)length) != length)
		refuse("the log cannot be written");
	close(fd);
}

static void note_first_hit(const char *name)
{

	pthread_mutex_lock(&seen_lock);
	for (int i = 0; i < seen_count; i++)
		if (strcmp(seen[i], name) == 0)
			goto out;
	if (seen_count < SEEN_MAX)
		seen[seen_count++] = name;
	append_to_log(name);
out:
	pthread_mutex_unlock(&seen_lock);
}

static void too_late(const struct rule *rule)
{
	fprintf(stderr, "yester: failpoint %s: nobody else came in %d s\n", rule->name, DEADLINE_S);
	abort();
}

static void meet(const struct rule *rule, long hit)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += DEADLINE_S;
	pthread_mutex_lock(&meet_lock);
	pthread_cond_broadcast(&met);
	for (int rc = 0; hit < rule->meet && atomic_load(&rule->hits) < rule->meet; )
		if ((rc = pthread_cond_timedwait(&met, &meet_lock, &deadline)) == ETIMEDOUT)
			too_late(rule);
	pthread_mutex_unlock(&meet_lock);
}

static void hold(const struct rule *rule)
{
	int fd = open(rule->latch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		refuse(rule->latch);
	close(fd);
	for (int i = 0; access(rule->latch, F_OK) == 0; i++) {
		if (i == DEADLINE_S * 100)
			too_late(rule);
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

/* Numbers separated by white space; no file: none. */
static bool is_listed(const char *path, int fd)
{
	unsigned long long number;
	bool found = false;
	struct stat st;
	FILE *file;

	if (fd < 0 || fstat(fd, &st) < 0 || !(file = fopen(path, "re")))
		return false;
	while (!found && fscanf(file, "%llu", &number) == 1)
		found = number == st.st_ino;
	fclose(file);
	return found;
}

int failpoint_hit(const char *name)
{
	return failpoint_hit_fd(name, -1);
}

int failpoint_hit_fd(const char *name, int fd)
{
	int saved = errno, result = 0;

	pthread_once(&once, parse_rules);
	if (log_path)
		note_first_hit(name);
	for (int i = 0; i < rule_count; i++) {
		long hit;

		if (strcmp(rules[i].name, name) != 0 || (rules[i].inodes && !is_listed(rules[i].inodes, fd)))
			continue;
		hit = atomic_fetch_add(&rules[i].hits, 1) + 1;
		if (rules[i].kill && hit == rules[i].from) {
			kill(getpid(), SIGKILL);
			for (;;)
				pause();
		}
		if (rules[i].meet && hit <= rules[i].meet)
			meet(&rules[i], hit);
		if (rules[i].latch && hit == 1)
			hold(&rules[i]);
		if (!rules[i].kill && hit >= rules[i].from)
			result = rules[i].fail_errno;
	}
	errno = saved;
	return result;
}
#endif

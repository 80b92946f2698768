#include "store.h"

#include "bytes.h"
#include "clock.h"
#include "config.h"
#include "io.h"
#include "patience.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int store_open(const struct volume_config *config, bool create, int tries, struct store **out, struct error *error)
{
	const char *remote = config->remote ? config->remote : "";

	*out = NULL;
	if (strncmp(remote, "file://", 7) == 0)
		return store_file_open(config, create, out, error);
	if (strncmp(remote, "s3://", 5) == 0)
		return store_s3_open(config, tries, out, error);
	return error_set(error, ERR_USAGE, 0,
			 "remote %s: unknown kind of store; use s3://BUCKET/PREFIX or file:///PATH", remote);
}

void store_close(struct store *store)
{
	if (store)
		store->ops->close(store);
}

void store_cancel(struct store *store)
{
	store->ops->cancel(store);
}

/* Keys use only [0-9a-z/-], so that they mean the same everywhere and never need escaping. */
static bool plain(const char *text)
{
	return text[strspn(text, "0123456789abcdefghijklmnopqrstuvwxyz/-")] == '\0';
}

static int check_key(const struct store *store, const char *key, struct error *error)
{
	size_t length = strlen(key);

	if (length > 0 && length <= 200 && plain(key) && key[0] != '/' && key[length - 1] != '/' && !strstr(key, "//"))
		return 0;
	return error_set(error, ERR_FAILED, 0, "%s: '%s' is not a valid key", store->url, key);
}

int store_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
	      struct error *error)
{
	size_t before = out->length;
	int rc = check_key(store, key, error);

	if (rc < 0 || length == 0)
		return rc;
	if (length != STORE_WHOLE && (length > STORE_GET_MAX || offset > INT64_MAX - length))
		return error_set(error, ERR_FAILED, 0, "%s/%s: the range is too large", store->url, key);
	patience_begin(store->url);
	rc = store->ops->get(store, key, offset, length, out, error);
	patience_end();
	if (rc < 0)
		out->length = before;
	return rc;
}

static int put(struct store *store, const char *key, const struct store_body *body, bool only_new, int64_t *server_ns,
	       struct error *error)
{
	int64_t unwanted;
	int rc = check_key(store, key, error);

	if (rc < 0)
		return rc;
	patience_begin(store->url);
	rc = store->ops->put(store, key, body, only_new, server_ns ? server_ns : &unwanted, error);
	patience_end();
	return rc;
}

int store_put(struct store *store, const char *key, const struct store_body *body, int64_t *server_ns,
	      struct error *error)
{
	return put(store, key, body, false, server_ns, error);
}

int store_put_new(struct store *store, const char *key, const struct store_body *body, int64_t *server_ns,
		  struct error *error)
{
	return put(store, key, body, true, server_ns, error);
}

int store_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn, void *context,
	       struct error *error)
{
	int rc;

	if (!plain(prefix) || prefix[0] == '/' || strstr(prefix, "//"))
		return error_set(error, ERR_FAILED, 0, "%s: '%s' is not a valid prefix", store->url, prefix);
	patience_begin(store->url);
	rc = store->ops->list(store, prefix, start_after, fn, context, error);
	patience_end();
	return rc;
}

int store_delete(struct store *store, const char *key, struct error *error)
{
	int rc = check_key(store, key, error);

	if (rc < 0)
		return rc;
	patience_begin(store->url);
	rc = store->ops->delete_(store, key, error);
	patience_end();
	return rc;
}

void store_get_counts(struct store *store, struct store_counts *out)
{
	out->put = __atomic_load_n(&store->counts.put, __ATOMIC_RELAXED);
	out->get = __atomic_load_n(&store->counts.get, __ATOMIC_RELAXED);
	out->list = __atomic_load_n(&store->counts.list, __ATOMIC_RELAXED);
	out->delete_ = __atomic_load_n(&store->counts.delete_, __ATOMIC_RELAXED);
	out->head = __atomic_load_n(&store->counts.head, __ATOMIC_RELAXED);
	out->bytes_up = __atomic_load_n(&store->counts.bytes_up, __ATOMIC_RELAXED);
	out->bytes_down = __atomic_load_n(&store->counts.bytes_down, __ATOMIC_RELAXED);
}

/* ---- the probe */

#define RACERS 8
#define PROBE_ROUNDS 3
#define PROBE_BYTES 32

enum gate { GATE_SHUT, GATE_RACE, GATE_GIVE_UP };

struct race {
	struct store *store;
	char key[40];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int ready;      /* under lock: racers that wait at the gate */
	enum gate gate; /* under lock */
};

struct racer {
	struct race *race;
	pthread_t thread;
	uint8_t bytes[PROBE_BYTES]; /* different in each */
	int rc;
	struct error error;
};

static void *racer_run(void *argument)
{
	struct racer *racer = argument;
	struct race *race = racer->race;
	struct store_body body = { .data = racer->bytes, .length = sizeof racer->bytes };
	struct buf nothing = { 0 };
	enum gate gate;

	/* Opens a connection to start from: handshakes would spread the PUTs over time. Its result does not matter. */
	(void)store_get(race->store, race->key, 0, STORE_WHOLE, &nothing, NULL);
	buf_free(&nothing);

	pthread_mutex_lock(&race->lock);
	race->ready++;
	pthread_cond_broadcast(&race->changed);
	while (race->gate == GATE_SHUT)
		pthread_cond_wait(&race->changed, &race->lock);
	gate = race->gate;
	pthread_mutex_unlock(&race->lock);
	if (gate == GATE_RACE)
		racer->rc = store_put_new(race->store, race->key, &body, NULL, &racer->error);
	return NULL;
}

/* Runs the racers to their end. ERR_NOMEM when not all could be started. */
static int race_run(struct race *race, struct racer racers[RACERS])
{
	int started = 0;

	for (; started < RACERS; started++) {
		struct racer *racer = &racers[started];

		racer->race = race;
		io_random(racer->bytes, sizeof racer->bytes);
		if (pthread_create(&racer->thread, NULL, racer_run, racer) != 0)
			break;
	}
	pthread_mutex_lock(&race->lock);
	while (race->ready < started)
		pthread_cond_wait(&race->changed, &race->lock);
	race->gate = started == RACERS ? GATE_RACE : GATE_GIVE_UP;
	pthread_cond_broadcast(&race->changed);
	pthread_mutex_unlock(&race->lock);
	for (int i = 0; i < started; i++)
		pthread_join(racers[i].thread, NULL);
	return started == RACERS ? 0 : ERR_NOMEM;
}

static int refuse(const struct race *race, struct error *error, const char *why)
{
	return error_set(error, ERR_UNSUPPORTED, 0,
			 "%s: %s, so two writers could overwrite each other's history; use another store, or "
			 "--unsafe-single-writer if only one machine will ever write there",
			 race->store->url, why);
}

/* 0, an error, or 1: no verdict, since every racer was told that the key is taken. That is what the winner sees whose
 * first answer was lost. */
static int judge(struct race *race, const struct racer racers[RACERS], struct error *error)
{
	const struct racer *winner = NULL, *failed = NULL;
	struct buf object = { 0 };
	int winners = 0, rc;
	bool same;

	for (int i = 0; i < RACERS; i++) {
		if (racers[i].rc == ERR_UNSUPPORTED)
			return refuse(race, error, "the store does not do conditional PUT");
		if (racers[i].rc == 0) {
			winner = &racers[i];
			winners++;
		} else if (racers[i].rc != ERR_EXISTS) {
			failed = &racers[i];
		}
	}
	if (winners > 1)
		return refuse(race, error, "the store let more than one of 8 conditional PUTs of one key succeed");
	if (failed) {
		if (error)
			*error = failed->error;
		return failed->rc;
	}
	if (!winner)
		return 1;
	rc = store_get(race->store, race->key, 0, STORE_WHOLE, &object, error);
	same = rc == 0 && object.length == PROBE_BYTES && memcmp(object.data, winner->bytes, PROBE_BYTES) == 0;
	buf_free(&object);
	if (rc == ERR_ABSENT)
		return refuse(race, error, "the store does not show an object that it has accepted");
	if (rc < 0)
		return rc;
	return same ? 0 : refuse(race, error, "the store kept another object than the winner's");
}

int store_probe_conditional_put(struct store *store, struct error *error)
{
	int rc = 1;

	for (int round = 0; rc == 1 && round < PROBE_ROUNDS; round++) {
		struct race race = { .store = store, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
		struct racer racers[RACERS] = { 0 };
		uint8_t random[16];
		char hex[2 * sizeof random + 1];

		io_random(random, sizeof random);
		hex_encode(hex, random, sizeof random);
		snprintf(race.key, sizeof race.key, "probe/%s", hex);
		rc = race_run(&race, racers);
		if (rc < 0)
			rc = error_set(error, rc, 0, "%s: cannot start threads to try conditional PUT", store->url);
		else
			rc = judge(&race, racers, error);
		(void)store_delete(store, race.key, NULL);
	}
	if (rc == 1)
		rc = error_set(error, ERR_RETRY, 0, "%s: conditional PUT gave no clear result in %d rounds; try again", store->url,
			       PROBE_ROUNDS);
	return rc;
}

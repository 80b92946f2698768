#include "volume_internal.h"

#include "behind.h"
#include "history.h"
#include "io.h"
#include "log.h"
#include "suspect.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* `reader`: beside a process that writes, or without the right to. */
static int open_parts(struct volume *volume, bool create, bool reader, struct error *error)
{
	char *cache_path = io_printf("%s/cache", volume->state_path);
	int result = ERR_OK;

	volume->nodes = node_table_new();
	if (!cache_path || !volume->nodes)
		result = no_memory(error);
	if (result == ERR_OK)
		result = reader ? db_open_reader(volume->state_path, &volume->db, error) :
				  db_open(volume->state_path, create, &volume->db, error);
	if (result == ERR_OK)
		result = chunk_cache_open(cache_path, volume->config->cache_limit_bytes, &volume->chunk_cache, error);
	free(cache_path);
	return result;
}

int volume_create(const struct volume_config *config, struct volume **out, struct error *error)
{
	struct volume *volume = volume_new(config);
	char *base = state_dir();
	int result;

	if (!volume || !base) {
		result = no_memory(error);
		goto out;
	}
	result = io_mkdirs(base, error);
	if (result != ERR_OK)
		goto out;
	if (mkdir(volume->state_path, 0700) != 0) {
		result = errno == EEXIST ? error_set(error, ERR_EXISTS, EEXIST,
						     "state directory %s: there is one already; choose another --name, or "
						     "remove it if its volume is gone",
						     volume->state_path)
					 : error_errno(error, errno, "state directory %s", volume->state_path);
		goto out;
	}
	volume->state_fd = open(volume->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume->state_fd < 0 || mkdirat(volume->state_fd, "spool", 0700) != 0 ||
	    mkdirat(volume->state_fd, "cache", 0700) != 0) {
		result = error_errno(error, errno, "state directory %s", volume->state_path);
		goto out;
	}
	close(volume->state_fd);
	result = volume_open_state(volume, error);
	if (result == ERR_OK)
		result = volume_take_lock(volume, error);
	if (result == ERR_OK)
		result = open_parts(volume, true, false, error);
out:
	free(base);
	if (result != ERR_OK) {
		volume_close(volume, false);
		return result;
	}
	*out = volume;
	return ERR_OK;
}

/* Before the new database is there: a kill between has it done again. */
static int begin_anew(struct volume *volume, struct error *error)
{
	if (tree_clear(volume->spool_fd) != 0)
		return error_errno(error, errno, "%s/spool: can't be cleared", volume->state_path);
	if (suspect_forgotten(volume->state_fd) != 0)
		return error_errno(error, errno, "%s: can't be written to", volume->state_path);
	return ERR_OK;
}

/* `create`: the database may be absent; a new one knows nothing of what is in the spool. */
static int open_existing(const struct volume_config *config, bool lock, bool create, struct volume **out, struct error *error)
{
	struct volume *volume = volume_new(config);
	int result = volume ? volume_open_state(volume, error) : no_memory(error);

	if (result == ERR_OK && lock)
		result = volume_take_lock(volume, error);
	if (result == ERR_OK && !create)
		result = volume_find_mark(volume, error);
	if (result == ERR_OK && create && faccessat(volume->state_fd, "volume.db", F_OK, 0) != 0)
		result = begin_anew(volume, error);
	if (result == ERR_OK)
		result = open_parts(volume, create, !lock, error);
	if (result == ERR_CORRUPT && lock && !volume->db)
		result = volume_set_aside(volume, error);
	if (result != ERR_OK) {
		volume_close(volume, false);
		return result;
	}
	*out = volume;
	return ERR_OK;
}

int volume_open(const struct volume_config *config, struct volume **out, struct error *error)
{
	struct error why;
	int result = open_existing(config, true, false, out, &why);

	if (result != ERR_ABSENT && result != ERR_CORRUPT)
		return result == ERR_OK ? ERR_OK : error_set(error, result, why.sys_errno, "%s", why.message);
	/* Faults 20, 21: it is only a cache. */
	log_warn("%s: %s; making a new database, to be filled from the remote", config->name, why.message);
	result = volume_make_state(config, error);
	return result == ERR_OK ? open_existing(config, true, true, out, error) : result;
}

int volume_open_reader(const struct volume_config *config, struct volume **out, struct error *error)
{
	return open_existing(config, false, false, out, error);
}

int volume_start_journal(struct volume *volume, void (*wake)(void *), void *context, bool *clean, bool *same_boot,
			 struct error *error)
{
	uint8_t boot_now[16], boot_before[16] = {0};
	struct db_conn *conn;
	int result = db_begin(volume->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	backing_boot_id(boot_now);
	*clean = db_meta_int(conn, "clean", 0) == 1;
	volume->started_clean = *clean;
	*same_boot = db_meta_blob(conn, "boot_id", boot_before, sizeof boot_before) == ERR_OK &&
		     memcmp(boot_before, boot_now, sizeof boot_now) == 0;
	/* Off before the first operation: from now on memory may know more than the disk (I12). The boot id of an unclean session stays until its
	 * unsettled inodes have been looked at: the rescan clears it (I9). */
	result = db_meta_set_int(conn, "clean", 0, error);
	if (result == ERR_OK && (*clean || *same_boot))
		result = db_meta_set_blob(conn, "boot_id", boot_now, sizeof boot_now, error);
	if (result != ERR_OK) {
		db_rollback(volume->db);
		return result;
	}
	result = db_commit(volume->db, error);
	if (result != ERR_OK)
		return result;
	return journal_open(volume->db, volume->backing, volume->nodes, volume->state_path, *clean, wake, context,
			    &volume->journal, error);
}

void volume_close(struct volume *volume, bool mark_clean)
{
	struct error error;

	if (!volume)
		return;
	/* I10: what an unclean session left unscanned must not be forgotten, nor which of its inodes are unsettled. */
	mark_clean = mark_clean && (volume->started_clean || atomic_load(&volume->scanned));
	if (volume->journal && journal_close(volume->journal, mark_clean, &error) != ERR_OK)
		log_error("%s: %s; the next mount looks at everything", volume->config->name, error.message);
	volume_is_damaged(volume);
	chunk_cache_close(volume->chunk_cache);
	node_put(volume->nodes, volume->root);
	node_table_free(volume->nodes);
	backing_close(volume->backing);
	db_close(volume->db);
	if (volume->spool_fd >= 0)
		close(volume->spool_fd);
	if (volume->state_fd >= 0)
		close(volume->state_fd);
	if (volume->lock_fd >= 0)
		close(volume->lock_fd);
	free(volume->state_path);
	free(volume);
}

/* ------------------------------------------------------------------ parts */

const struct volume_config *volume_config(const struct volume *volume)
{
	return volume->config;
}

const char *volume_state_path(const struct volume *volume)
{
	return volume->state_path;
}

int volume_state_fd(const struct volume *volume)
{
	return volume->state_fd;
}

int volume_spool_fd(const struct volume *volume)
{
	return volume->spool_fd;
}

struct db *volume_db(struct volume *volume)
{
	return volume->db;
}

struct backing *volume_backing(struct volume *volume)
{
	return volume->backing;
}

struct node_table *volume_nodes(struct volume *volume)
{
	return volume->nodes;
}

struct journal *volume_journal(struct volume *volume)
{
	return volume->journal;
}

struct chunk_cache *volume_chunk_cache(struct volume *volume)
{
	return volume->chunk_cache;
}

struct remote *volume_remote(struct volume *volume)
{
	return volume->remote;
}

void volume_set_remote(struct volume *volume, struct remote *remote)
{
	if (!remote)
		history_stop(); /* reading ahead may be using the one that goes */
	volume->remote = remote;
}

void volume_set_listener(struct volume *volume, const struct behind_listener *listener)
{
	volume->listener = listener;
}

const struct behind_listener *volume_listener(const struct volume *volume)
{
	return volume->listener;
}

void volume_set_scanned(struct volume *volume)
{
	atomic_store(&volume->scanned, true);
}

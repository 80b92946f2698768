/* The backing tree of a volume: whether it still is the one that it was at init, its nodes, and its live files. */
#include "volume_internal.h"

#include "by_name.h"
#include "catalogue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_identity(struct volume *volume, uint8_t *out, size_t *length, struct error *error)
{
	struct db_conn *conn;
	bool is_known = false;
	int64_t known;
	int result = db_read_begin(volume->db, &conn, error);

	if (result != ERR_OK)
		return result;
	/* Identities differ in length. Not to be taken for absent when it only fails to be read: any directory would be the right one then. */
	result = db_meta_read_int(conn, "root_identity_length", 0, &known, error);
	*length = known > 0 && known <= BACKING_IDENTITY_BYTES ? (size_t)known : 0;
	if (result == ERR_OK && *length > 0)
		result = db_meta_read_blob(conn, "root_identity", out, *length, &is_known, error);
	if (!is_known)
		*length = 0;
	db_read_end(volume->db, conn);
	return result;
}

static int write_identity(struct volume *volume, const uint8_t *identity, size_t length, struct error *error)
{
	struct db_conn *conn;
	int result = db_begin(volume->db, true, &conn, error);

	if (result != ERR_OK)
		return result;
	result = db_meta_set_int(conn, "root_identity_length", (int64_t)length, error);
	if (result == ERR_OK)
		result = db_meta_set_blob(conn, "root_identity", identity, length, error);
	if (result != ERR_OK) {
		db_rollback(volume->db);
		return result;
	}
	return db_commit(volume->db, error);
}

/* The root is the first node, so that its number is the kernel's for it. */
static int attach_nodes(struct volume *volume, struct error *error)
{
	struct node_key key;
	struct stat st;
	int fd, result = backing_identify(volume->backing, backing_root_fd(volume->backing), "", &key, &st, &fd);

	if (result != 0)
		return error_errno(error, -result, "cannot identify the directory %s", volume->config->directory);
	node_table_on_free(volume->nodes, backing_fd_drop_id, volume->backing);
	by_name_attach(volume);
	volume->root = node_get(volume->nodes, &key, st.st_mode, fd);
	close(fd);
	return volume->root ? ERR_OK : no_memory(error);
}

int volume_open_backing(struct volume *volume, bool adopt, struct error *error)
{
	uint8_t now[BACKING_IDENTITY_BYTES], before[BACKING_IDENTITY_BYTES];
	size_t now_length, before_length;
	const char *directory = volume->config->directory;
	int result = backing_open(directory, &volume->backing, error);

	if (result == ERR_OK)
		result = attach_nodes(volume, error);
	if (result != ERR_OK)
		return result;
	now_length = backing_identity(volume->backing, now);
	result = read_identity(volume, before, &before_length, error);
	if (result != ERR_OK)
		return result;
	if (before_length == 0 || adopt)
		return write_identity(volume, now, now_length, error);
	/* Fault 53: an absent disk leaves an empty mountpoint, which must not be recorded as the loss of everything. */
	if (before_length != now_length || memcmp(before, now, now_length) != 0)
		return error_set(error, ERR_FAILED, 0,
				 "%s: it is not the directory it was at init (another filesystem, or made anew); is its disk "
				 "mounted? If you moved it on purpose: yester mount -o adopt %s",
				 directory, directory);
	return ERR_OK;
}

int volume_open_live(struct volume *volume, int64_t ino)
{
	struct node_key key = {0};
	struct db_conn *conn;
	size_t length = NODE_KEY_MAX;
	int result;

	if (!volume->backing || db_read_begin(volume->db, &conn, NULL) != ERR_OK)
		return -1;
	result = catalogue_local_key(conn, ino, key.bytes, &length);
	db_read_end(volume->db, conn);
	if (result != ERR_OK)
		return -1;
	key.length = (uint8_t)length;
	result = backing_reopen_key(volume->backing, &key, O_RDONLY | O_NOATIME | O_NONBLOCK);
	/* A lease, which only a regular file has: ours (backing_is_in_use) for microseconds, or somebody's, whom the kernel makes give it back (/proc/sys/fs/lease-break-time). */
	if (result == -EAGAIN)
		result = backing_reopen_key(volume->backing, &key, O_RDONLY | O_NOATIME);
	return result < 0 ? -1 : result;
}

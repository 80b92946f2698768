#include "delta_internal.h"

/* Live rows that came after seq go; past rows that were live at seq come back; past rows of later versions go. ?1: seq. */
static const char *const steps[] = {
	"DELETE FROM version WHERE seq>?1",

	"DELETE FROM inode WHERE vfrom>?1",
	"INSERT INTO inode SELECT ino, vfrom, mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, btime_ns, target, "
	"xattrs FROM inode_past WHERE vto>?1 AND vfrom<=?1",
	"DELETE FROM inode_past WHERE vto>?1",

	"DELETE FROM name WHERE vfrom>?1",
	"INSERT INTO name(dir, name, vfrom, ino) SELECT dir, name, vfrom, ino FROM name_past WHERE vto>?1 AND vfrom<=?1",
	"DELETE FROM name_past WHERE vto>?1",

	"DELETE FROM extent WHERE vfrom>?1",
	"INSERT INTO extent(ino, start, vfrom, length, chunk, skip) "
	"SELECT ino, start, vfrom, length, chunk, skip FROM extent_past WHERE vto>?1 AND vfrom<=?1",
	"DELETE FROM extent_past WHERE vto>?1",

	/* Relocated chunks are in new packs: they go and come back from the oldest undo row, which is inserted last. */
	"DELETE FROM chunk WHERE pack IN (SELECT num FROM pack WHERE vfrom>?1)",
	"DELETE FROM pack WHERE vfrom>?1",
	"INSERT OR REPLACE INTO chunk(num, id, pack, idx, offset, stored, length, codec, dictionary) "
	"SELECT num, id, pack, idx, offset, stored, length, codec, dictionary FROM undo_chunk "
	"WHERE version>?1 AND pack IN (SELECT num FROM pack) ORDER BY version DESC",
	"DELETE FROM undo_chunk WHERE version>?1",

	"DELETE FROM pin WHERE name IN (SELECT name FROM undo_pin WHERE version>?1)",
	"INSERT INTO pin(name, seq) SELECT name, seq FROM undo_pin AS u WHERE version>?1 AND seq IS NOT NULL "
	"AND NOT EXISTS (SELECT 1 FROM undo_pin AS o WHERE o.name=u.name AND o.version>?1 AND o.version<u.version)",
	"DELETE FROM undo_pin WHERE version>?1",

	"UPDATE local_inode SET captured=0 WHERE captured>?1",
};

int catalogue_rollback(struct db_conn *conn, int64_t seq, struct error *error)
{
	int rc = 0;

	for (size_t i = 0; i < TABLES_COUNT(steps) && !rc; i++)
		rc = db_step(conn, error, steps[i], "i", seq);
	if (rc)
		return rc;
	/* A relocation whose undo row is gone (the version was confirmed) would leave bytes without a place. */
	rc = db_step(conn, error,
		     "SELECT 1 FROM extent WHERE chunk NOT IN (SELECT num FROM chunk) "
		     "UNION ALL SELECT 1 FROM extent_past WHERE chunk NOT IN (SELECT num FROM chunk) LIMIT 1", "");
	if (rc != 1)
		return rc;
	db_reset(db_last(conn));
	return error_set(error, ERR_CORRUPT, 0, "catalogue: version %lld can't be restored here; recover from the remote",
			 (long long)seq);
}

/* cache: what this machine knows of a volume. No FUSE, no network.
 *
 * How data flows: an operation in fs/ changes the backing tree (backing) inside a mutation, which saves what is frozen (preimage) and records what changes (journal, extent_map) per inode (node). The journal
 * thread brings that to SQLite (db). sync/ takes a cut of the journal, reads the frozen bytes, and builds a delta, which is applied to the catalogue in the transaction that also empties the journal (I11).
 * history reads any version of the catalogue; its bytes come from chunk_cache, the live file or remote. rescan finds what happened behind our back.
 *
 *   base/        err, log, buf, bytes, io, clock, digest, failpoint, interrupt, json, memory, nearest, patience, pool, small_lock, tree: small helpers
 *   config when  a volume's settings; times as people write them
 *   volume       state directory, lock, database, backing tree, nodes, journal: all that is open for one volume
 *   db           the one database: connections, schema, transactions
 *   backing      safe access to the backing tree: handles, descriptors, attributes
 *   node         inodes known to this process
 *   extent_map   ordered set of byte ranges
 *   cut_lock     the lock between operations and the cut
 *   journal      operations record; dirt: changes of one inode; journal_store, journal_load: to SQLite and back;
 *                unsettled unsettled_log: I9, I10; suspect: what may change unseen; cut: swap, save, abandon, commit; frozen: what the sealer reads; preimage: saved bytes
 *   catalogue    reading versions; catalogue_schema.h: the tables; delta: the rows of one version, built and applied
 *   history extract   a version as a tree to read; a subtree of it written to disk
 *   rescan       backing tree against catalogue
 *   by_name      an inode by its names, where its handle leads nowhere
 *   behind       who is told of what was found
 *   chunk_cache  chunks lately fetched
 *   engine.h remote.h   what fs and cache need of sync
 *
 * Lock order, all of cache/: db write lock > (nothing); guard of suspects > fs's table of open inodes, cut lock > node locks > leaves (journal.h). The db write lock is never waited for while holding any of the others. */
#ifndef YESTER_CACHE_H
#define YESTER_CACHE_H
#endif

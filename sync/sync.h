/* sync: moves the journal to the remote. No FUSE.
 *
 * How data flows: pipeline takes a cut of the journal, or a batch of the backlog; a sealing reads what changed (seal_*), cuts it into chunks (chunker), compresses, encrypts and packs those that are new (seal.h, pack),
 * collects the rows of the version (cache/delta), and writes both to the spool; one database transaction makes the version exist (seal_commit); upload brings its packs to the store, and then, in order, its
 * log record, which commits it (commit). fetch goes the other way, a chunk at a time; recover a whole catalogue.
 *
 *   engine engine_internal status   what fs asks for: open, start, sync, status, stop
 *   pipeline pipeline_check pipeline_scan pipeline_cut pipeline_backlog pipeline_wait   the sync thread: what it does, when, and who waits for it
 *   sealing seal_ino seal_names seal_pool seal_room seal_file seal_inode seal_unreadable seal_commit   one version under construction
 *   seal_cut import        where its inodes come from: a cut; the backlog
 *   spool                  sealed objects on the local disk
 *   upload upload_queue commit contact   packs in parallel, records in order; what each needs; is the remote the one we know
 *   checkpointer checkpoint   when to write one; its bytes
 *   repair writer          damaged spool, take-over; whose head is it
 *   record object_key recover recover_follow recover_apply recover_log   log records; the catalogue from the log
 *   fetch fetch_window     implements cache/remote.h; ranges of packs, ahead of who reads them
 *   init clone check setup unlock verbs   the verbs that need no mounted volume
 *   seal.h pack stream chunker compress crypt key key_file descriptor lines   bytes, sealed
 *   store store_file* store_late store_s3 s3_* http credentials   object stores
 *
 * Threads of a started engine: the sync thread (pipeline); sealers, while a version is sealed; one log thread and `uploads` pack threads (upload); the checkpointer. All sleep when nothing is to be done.
 * Locks are leaves: pipeline's, upload's, a sealing's; none is held over a database call, a network call or an fsync, nor while another is taken. */
#ifndef YESTER_SYNC_H
#define YESTER_SYNC_H

#include "engine.h"

/* The implementation of engine.h. */
const struct engine_ops *sync_engine(void);

#endif

/* invalidate: what the kernel keeps of the tree, and how it learns that it is no longer so.
 *
 * --- What the kernel keeps
 *
 *   kept                             for how long, unless we say otherwise                      told by
 *   a name, or that there is none    KEEP_LONG; KEEP_SHORT where names can change by            lookup, readdirplus, create and its like: `entry_timeout`
 *                                    themselves (inode_entry_timeout)
 *   attributes                       KEEP_ATTRIBUTES; of a file that changes, shorter (inode_told)             the same, getattr, setattr: `attr_timeout`
 *   ACLs                             with the attributes
 *   pages of a file                  until it is told; where others may change the tree, also until size or mtime are found changed (session.c, op_init)
 *   the target of a symlink          for ever: an inode never changes its target
 *   the listing of a directory       until its mtime or iversion change; opendir with keep_cache
 *   below `.snapshots`               what is in a version: SNAP_TIMEOUT; what a name leads to (`latest`, a time, the list): not at all
 *
 * --- Own changes. The kernel corrects what goes through it (fs/fuse/dir.c of Linux 6.18): create, mkdir, mknod, symlink, link, unlink, rmdir, rename mark the attributes of the directories as stale and its listing
 * as changed, name by name; unlink, rename and link the attributes of the inode, whatever other names it has; write, truncate, fallocate and copy_file_range size, times and blocks of the target; reads the access
 * time; chmod and chown bring new attributes; ACLs mark them as stale. What it leaves alone:
 *   - after link(2), it sets st_ctime by its own clock (fuse_update_ctime_in_cache): the answer to LINK is kept for no time at all, and the next stat asks.
 *   - with FUSE_HANDLE_KILLPRIV_V2, that a write or O_TRUNC has taken set-id bits away: it keeps i_mode, and execve(2) would go by it. invalidate_attributes() before such a request is answered.
 *   - blocks that are allocated or freed later than they are written (delayed allocation, compression, preallocation): attributes are believed no longer than the file has been still.
 *   - stores through a mapping that go to the backing file (passthrough): attributes of such an inode are not to be kept.
 *
 * --- Changes behind the mount: by who has the directory itself in view (a separate MOUNTPOINT, a descriptor or working directory from before the mount). They are found by a rescan (cache/behind.h), and a thread
 * of this module tells the kernel:
 *
 *   found                                        said to the kernel                              effect
 *   an inode that the kernel knows, whose        NOTIFY_INVAL_INODE, attributes and all pages    next stat asks; pages, listing, ACLs are gone
 *   ctime is not what it was told last
 *   a name that differs, in a directory          NOTIFY_INVAL_ENTRY with FUSE_EXPIRE_ONLY        next path walk asks; the directory's listing and attributes are gone
 *   that it knows
 *
 * Never plain INVAL_ENTRY or NOTIFY_DELETE: they take mounts on or below the name away (d_invalidate), and NOTIFY_DELETE sets st_nlink of an inode with other names to 0. Where the kernel can't expire (before
 * Linux 6.2) names are kept for KEEP_SHORT only, and need no telling.
 * What an operation trips over is corrected at once: it answers ESTALE when the name that the kernel resolved is not what the disk has, and the VFS resolves the path anew, asking for each name (LOOKUP_REVAL).
 *
 * --- Threads. INVAL_ENTRY takes the inode lock of the directory (fuse_reverse_inval_entry), which whoever waits for our answer to an operation in it holds; INVAL_INODE waits for pages that are being read or written.
 * So both are said by a thread of this module that serves no request and holds no lock. Who finds something only puts it on a bounded list. The engine's thread waits for room there, and at the end of a scan for the
 * list to be empty, but only as long as it gets shorter: a process that keeps the lock of a directory for ever (a buffer of readdir(2) that never gets its page) costs the correctness of that directory, nothing else.
 * A lock kept by an operation that *we* don't answer would be a deadlock, so that the thread must have stopped before the session stops answering (invalidate_stop).
 *
 * --- Races. A: an operation looks at an inode; B: somebody changes it; C: the scan sees it. If the answer of A arrives at the kernel after what is said because of C:
 *   - attributes of a known inode: the kernel's attr_version makes it ignore the older answer.
 *   - a name: the answer to LOOKUP is taken in under the directory's lock, for which EXPIRE waits.
 *   - an inode that the kernel does not know yet: the scan finds no lookup and says nothing. So while a scan runs, operations count the lookup first and look (again) afterwards (inode_entry): either the scan sees the
 *     lookup, or the operation sees the change. If the answer is then still on its way, INVAL_INODE fails with ENOENT and is said again while the lookup stands.
 * Races that the kernel has with itself: rename, setxattr and fuse_dir_changed() mark attributes as stale without a new attr_version. A stat that was answered just before and is taken in just after makes the old times
 * valid again. So attributes are kept for a minute at most, names, whose answers are taken in under the directory's lock, for KEEP_LONG.
 * What is left (a name that was changed, looked up and changed back between two scans; another change within the granularity of timestamps) is corrected by KEEP_LONG, which is not for ever. */
#ifndef YESTER_INVALIDATE_H
#define YESTER_INVALIDATE_H

#include "fs.h"

struct invalidator;

/* Registers with fs->volume, which must be open; before the engine starts. Nothing is said before invalidate_start. ERR_NOMEM. */
int invalidate_new(struct fs *fs, struct error *error);
/* When the session is mounted. ERR_FAILED: no thread. */
int invalidate_start(struct fs *fs, struct error *error);
/* While the session still answers, or its connection is dead. From then on what is found is dropped. False: the thread is stuck in the kernel after some seconds, and the connection has to be aborted; to be called again then. */
bool invalidate_stop(struct fs *fs);
/* After the engine is closed. */
void invalidate_free(struct fs *fs);

/* A scan is going on. */
bool invalidate_is_watching(struct fs *fs);
/* From within an operation on that inode, before its answer: attributes only, which takes no lock that anybody holds for long (fuse_reverse_inval_inode with a negative offset). */
void invalidate_attributes(struct fs *fs, fuse_ino_t ino);

#endif

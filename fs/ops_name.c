#include "ops_name.h"

#include "backing.h"
#include "identity.h"
#include "inode.h"
#include "journal.h"
#include "log.h"
#include "node.h"
#include "reply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool reserved(const char *name)
{
	return strcmp(name, FS_SNAPSHOTS) == 0;
}

/* The one system call. 0 (or a descriptor) or -errno. */
static int make_call(fuse_req_t req, int dirfd, const struct making *making)
{
	struct identity identity;
	int rc;

	identity_enter_create(&identity, req);
	if (making->target)
		rc = symlinkat(making->target, dirfd, making->name);
	else if (S_ISDIR(making->mode))
		rc = mkdirat(dirfd, making->name, making->mode & 07777);
	else if (!making->name)
		rc = openat(dirfd, ".", making->flags | O_TMPFILE | O_CLOEXEC, making->mode & 07777);
	else if (making->open)
		rc = openat(dirfd, making->name, making->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    making->mode & 07777);
	else
		rc = mknodat(dirfd, making->name, making->mode, making->rdev);
	if (rc < 0)
		rc = -errno;
	identity_leave(&identity);
	return rc;
}

/* It was made, but can't be recorded: it must not stay (I12). */
static void unmake(int dirfd, const struct making *making)
{
	if (making->name && unlinkat(dirfd, making->name, S_ISDIR(making->mode) ? AT_REMOVEDIR : 0) != 0)
		log_error("a new file that could not be recorded could not be removed again: %s", strerror(errno));
}

static int find_made(struct fs *fs, int dirfd, int fd, const struct making *making, struct node **out, struct stat *st)
{
	if (making->name)
		return inode_child(fs, dirfd, making->name, out, st);
	int rc = inode_child(fs, fd, "", out, st);
	if (rc == 0) {
		atomic_fetch_or(&(*out)->flags, INODE_UNNAMED);
		rc = backing_hold(fs->backing, *out); /* it has no name to be found by again */
		if (rc < 0)
			node_put(fs->nodes, *out);
	}
	return rc;
}

int name_make(fuse_req_t req, fuse_ino_t parent, const struct making *making, struct made *made)
{
	struct fs *fs = fs_of(req);
	struct mutation mutation;
	struct place dir;
	int fd = -1;

	if (!inode_is_snap(parent) && making->name && reserved(making->name))
		return -EEXIST;
	int rc = place_get_own(fs, parent, &dir);
	if (rc < 0)
		return rc;
	rc = mutation_begin(&mutation, fs->journal);
	if (rc < 0)
		goto out_dir;
	mutation_lock(&mutation, making->name ? dir.node : NULL, NULL, NULL, NULL);
	if (making->name)
		rc = mutation_name(&mutation, dir.node, making->name);
	if (rc < 0)
		goto out;
	rc = make_call(req, dir.fd, making);
	if (rc == -EEXIST) /* the kernel has just looked, and found nothing */
		rc = -ESTALE;
	if (rc < 0)
		goto out;
	if (making->open)
		fd = rc;
	rc = find_made(fs, dir.fd, fd, making, &made->node, &made->st);
	if (rc < 0) {
		unmake(dir.fd, making);
		if (fd >= 0)
			close(fd);
		goto out;
	}
	mutation_adopt(&mutation, made->node);
	if (making->name)
		mutation_set_name(&mutation, 0, made->node);
	made->keep = inode_entry_timeout(fs, dir.node);
	made->fd = fd;
out:
	mutation_end(&mutation);
out_dir:
	place_put(fs, &dir);
	return rc;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t parent, const struct making *making)
{
	struct fuse_entry_param entry;
	struct made made;

	int rc = name_make(req, parent, making, &made);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	inode_entry(fs_of(req), made.node, &made.st, made.keep, &entry);
	reply_entry(req, &entry);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make_and_reply(req, parent, &(struct making){.name = name, .mode = mode, .rdev = rdev});
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_and_reply(req, parent, &(struct making){.name = name, .mode = (mode & 07777) | S_IFDIR});
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make_and_reply(req, parent, &(struct making){.name = name, .target = target, .mode = S_IFLNK});
}

static int link_call(int fd, int dirfd, const char *name)
{
	/* Not AT_EMPTY_PATH: that wants CAP_DAC_READ_SEARCH. */
	char path[BACKING_PROC_PATH];
	backing_proc_path(path, fd);
	return linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

static int link_places(struct fs *fs, struct place *file, struct place *dir, const char *name, struct stat *st)
{
	struct mutation mutation;
	int rc = mutation_begin(&mutation, fs->journal);
	if (rc < 0)
		return rc;
	mutation_lock(&mutation, dir->node, file->node, NULL, NULL);
	rc = mutation_name(&mutation, dir->node, name);
	if (rc == 0)
		rc = mutation_attrs(&mutation, file->node);
	if (rc == 0)
		rc = link_call(file->fd, dir->fd, name);
	if (rc == -EEXIST)
		rc = -ESTALE;
	if (rc == 0)
		mutation_set_name(&mutation, 0, file->node);
	mutation_end(&mutation);
	return rc < 0 ? rc : inode_stat(file->fd, st);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct fs *fs = fs_of(req);
	struct place file, dir = {.fd = -1};
	struct fuse_entry_param entry;
	struct stat st;

	int rc = place_get_own(fs, ino, &file);
	if (rc == 0)
		rc = place_get_own(fs, new_parent, &dir);
	if (rc == 0 && reserved(new_name))
		rc = -EEXIST;
	if (rc == 0)
		rc = link_places(fs, &file, &dir, new_name, &st);
	if (rc == 0) {
		node_ref(fs->nodes, file.node);
		inode_entry(fs, file.node, &st, inode_entry_timeout(fs, dir.node), &entry);
		entry.attr_timeout = 0; /* the kernel now sets st_ctime by its own clock */
	}
	place_put(fs, &file);
	place_put(fs, &dir);
	if (rc < 0)
		reply_result(req, rc);
	else
		reply_entry(req, &entry);
}

/* What the kernel has resolved that name to, before it asked us to take it away. When it is not there any more, or something that the kernel has never heard of is there instead, somebody was at work behind the mount:
 * "stale" makes the kernel look again, and come back if the name still means something. */
static int expected_child(struct fs *fs, int dirfd, const char *name, struct node **child)
{
	int rc = inode_child(fs, dirfd, name, child, NULL);

	if (rc == 0 && !node_is_looked_up(fs->nodes, *child)) {
		node_put(fs->nodes, *child);
		*child = NULL;
		rc = -ENOENT;
	}
	return rc == -ENOENT ? -ESTALE : rc;
}

/* Before a name of it goes: who opens it beside us by a descriptor must not find it without a name, and that a surprise (inode_is_lost). Its lock is held.
 * The flags as they were, to put back if the name stays. */
static uint8_t expect_unnamed(struct node *node)
{
	return (uint8_t)atomic_fetch_or(&node->flags, INODE_UNNAMED);
}

static int remove_child(struct fs *fs, struct place *dir, const char *name, int flags)
{
	struct mutation mutation;
	struct node *child;

	int rc = expected_child(fs, dir->fd, name, &child);
	if (rc < 0)
		return rc;
	rc = mutation_begin(&mutation, fs->journal);
	if (rc < 0)
		goto out;
	mutation_lock(&mutation, dir->node, child, NULL, NULL);
	rc = mutation_name(&mutation, dir->node, name);
	if (rc == 0)
		rc = mutation_unname(&mutation, child);
	if (rc == 0) {
		uint8_t before = expect_unnamed(child);
		rc = unlinkat(dir->fd, name, flags) == 0 ? 0 : errno == ENOENT ? -ESTALE : -errno;
		if (rc == 0)
			mutation_set_name(&mutation, 0, NULL);
		else
			atomic_fetch_and(&child->flags, before | (uint8_t)~INODE_UNNAMED);
	}
	mutation_end(&mutation);
out:
	node_put(fs->nodes, child);
	return rc;
}

static void remove_and_reply(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
	struct fs *fs = fs_of(req);
	struct place dir;
	int rc = place_get_own(fs, parent, &dir);
	if (rc == 0)
		rc = reserved(name) ? -EROFS : remove_child(fs, &dir, name, flags);
	place_put(fs, &dir);
	reply_result(req, rc);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_and_reply(req, parent, name, 0);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_and_reply(req, parent, name, AT_REMOVEDIR);
}

struct renaming {
	struct place from, to;
	const char *name, *new_name;
	unsigned int flags;
	struct node *child, *victim; /* referenced; victim NULL: none */
};

static int rename_call(const struct renaming *r)
{
	int rc = r->flags ? (int)syscall(SYS_renameat2, r->from.fd, r->name, r->to.fd, r->new_name, r->flags)
			  : renameat(r->from.fd, r->name, r->to.fd, r->new_name);
	return rc == 0 ? 0 : -errno;
}

static int rename_recorded(struct fs *fs, const struct renaming *r)
{
	struct mutation mutation;
	bool exchange = r->flags & RENAME_EXCHANGE;

	int rc = mutation_begin(&mutation, fs->journal);
	if (rc < 0)
		return rc;
	mutation_lock(&mutation, r->from.node, r->to.node, r->child, r->victim);
	rc = mutation_name(&mutation, r->from.node, r->name);
	if (rc == 0)
		rc = mutation_name(&mutation, r->to.node, r->new_name);
	if (rc == 0)
		rc = mutation_attrs(&mutation, r->child);
	if (rc == 0 && r->victim)
		rc = exchange ? mutation_attrs(&mutation, r->victim) : mutation_unname(&mutation, r->victim);
	if (rc == 0) {
		struct node *loser = exchange ? NULL : r->victim;
		uint8_t before = loser ? expect_unnamed(loser) : 0;
		rc = rename_call(r);
		if (rc < 0 && loser)
			atomic_fetch_and(&loser->flags, before | (uint8_t)~INODE_UNNAMED);
	}
	if (rc == 0) {
		mutation_set_name(&mutation, 0, exchange ? r->victim : NULL);
		mutation_set_name(&mutation, 1, r->child);
	}
	mutation_end(&mutation);
	return rc;
}

static int rename_find(struct fs *fs, struct renaming *r)
{
	int rc = expected_child(fs, r->from.fd, r->name, &r->child);
	if (rc < 0)
		return rc;
	rc = inode_child(fs, r->to.fd, r->new_name, &r->victim, NULL);
	if (rc == -ENOENT)
		return r->flags & RENAME_EXCHANGE ? -ESTALE : 0;
	if (rc == 0 && (r->flags & RENAME_NOREPLACE || !node_is_looked_up(fs->nodes, r->victim)))
		return -ESTALE; /* as in expected_child: the kernel has looked just now, and does not know of this one */
	return rc;
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned int flags)
{
	struct fs *fs = fs_of(req);
	struct renaming r = {.name = name, .new_name = new_name, .flags = flags, .from.fd = -1, .to.fd = -1};

	if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE)) { /* whiteouts are for overlayfs, which can't be here */
		fuse_reply_err(req, EINVAL);
		return;
	}
	int rc = place_get_own(fs, parent, &r.from);
	if (rc == 0)
		rc = place_get_own(fs, new_parent, &r.to);
	if (rc == 0 && (reserved(name) || reserved(new_name)))
		rc = -EROFS;
	if (rc == 0)
		rc = rename_find(fs, &r);
	if (rc == 0) /* two names of one inode: rename(2) does nothing, so there is nothing to record */
		rc = r.child == r.victim ? rename_call(&r) : rename_recorded(fs, &r);
	node_put(fs->nodes, r.child);
	node_put(fs->nodes, r.victim);
	place_put(fs, &r.from);
	place_put(fs, &r.to);
	reply_result(req, rc);
}

#!/usr/bin/python3 -B
# timeout: 240
# both libfuse
"""Every operation on the mount does what it does on a plain directory, and what it left is in the next version: read back through .snapshots,
and after a clone. The same sequence runs on both; what each call answered (values and errno) is compared, and then the trees. Faults 34-37."""
import errno
import mmap
import os
import pickle
import socket
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

NOBODY, STAFF = 65534, 50
BEFORE_1970, AFTER_2038 = -86_400_123_456_789, 4_102_444_800_987_654_321


class Steps:
    """Runs steps below `root` and remembers what each answered."""

    def __init__(self, root):
        self.root = root
        self.answers = []

    def at(self, name):
        return os.path.join(os.fsencode(self.root), os.fsencode(name))

    def do(self, what, function, *arguments, **words):
        try:
            answer = function(*arguments, **words)
        except OSError as problem:
            answer = errno.errorcode.get(problem.errno, problem.errno)
        self.answers.append((what, answer))
        return answer

    def open(self, name, flags, mode=0o666):
        return os.open(self.at(name), flags, mode)

    def write(self, name, data, flags=os.O_WRONLY | os.O_CREAT, offset=None):
        def go():
            fd = self.open(name, flags)
            try:
                return os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)
            finally:
                os.close(fd)
        return self.do(f"write {name!r}", go)

    def with_file(self, name, flags, function, what=None):
        """function(fd) with the file open."""
        def go():
            fd = self.open(name, flags)
            try:
                return function(fd)
            finally:
                os.close(fd)
        return self.do(what or f"open {name!r}", go)

    def as_user(self, what, uid, gids, function):
        """function(steps) in a child with those ids; its answers become ours."""
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups(gids)
                os.setresgid(gids[0], gids[0], gids[0])
                os.setresuid(uid, uid, uid)
                inner = Steps(self.root)
                function(inner)
                with os.fdopen(writes, "wb") as pipe:
                    pickle.dump(inner.answers, pipe)
            finally:
                os._exit(0)
        os.close(writes)
        with os.fdopen(reads, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        answers = pickle.loads(data) if data else ["the child failed"]
        self.answers += [(what, answer) for answer in answers]

    def mode(self, name):
        st = os.lstat(self.at(name))
        return oct(st.st_mode), st.st_uid, st.st_gid


def directories(s):
    os.umask(0o022)
    s.do("mkdir", os.mkdir, s.at("plain"), 0o777)
    s.do("mkdir again", os.mkdir, s.at("plain"), 0o777)
    s.do("mode", s.mode, "plain")
    os.umask(0o077)
    s.do("mkdir umask", os.mkdir, s.at("private"), 0o777)
    s.write("private/file", b"x")
    os.umask(0o022)
    s.do("mkdir setgid", os.mkdir, s.at("team"))
    s.do("chown", os.chown, s.at("team"), 0, STAFF)
    s.do("chmod", os.chmod, s.at("team"), 0o2775)
    s.do("sub", os.mkdir, s.at("team/sub"))
    s.write("team/file", b"group of the directory")
    for name in ("team", "team/sub", "team/file"):
        s.do("mode " + name, s.mode, name)
    s.do("rmdir full", os.rmdir, s.at("team"))
    s.do("mkdir", os.mkdir, s.at("gone"))
    s.do("rmdir", os.rmdir, s.at("gone"))
    s.do("rmdir absent", os.rmdir, s.at("gone"))
    s.do("rmdir file", os.rmdir, s.at("team/file"))
    s.do("unlink directory", os.unlink, s.at("team/sub"))
    s.do("into a file", os.mkdir, s.at("team/file/x"))
    s.do("listing", lambda: sorted(os.listdir(s.at("team"))))
    s.do("many", lambda: [os.close(s.open(f"plain/{i:04}", os.O_WRONLY | os.O_CREAT)) for i in range(1500)] and None)
    s.do("their listing", lambda: sorted(os.listdir(s.at("plain"))))
    s.do("remove half", lambda: [os.unlink(s.at(f"plain/{i:04}")) for i in range(0, 1500, 2)] and None)
    s.do("their listing", lambda: len(os.listdir(s.at("plain"))))


def names(s):
    s.do("mkdir", os.mkdir, s.at("names"))
    odd = [b"n" * 255, b"\xff\xfe invalid \x80", b"new\nline", b" blank ", b"-rf", b"\x01\x7f", "größe-漢字".encode(), b"a" * 254 + b"\xff",
           b"back\\slash", b"...", b"'\"`$"]
    for name in odd:
        s.write(b"names/" + name, name)
        s.do("symlink", os.symlink, name, s.at(b"names/" + name[:200] + b".link"))
    s.do("too long", os.mkdir, s.at(b"names/" + b"n" * 256))
    s.do("listing", lambda: sorted(os.listdir(s.at("names"))))
    s.do("long target", os.symlink, b"t/" * 2000, s.at("names/long"))
    s.do("read it", os.readlink, s.at("names/long"))
    s.do("empty target", os.symlink, b"", s.at("names/empty"))
    s.do("of a file", os.readlink, s.at(b"names/..."))


def special_files(s):
    s.do("mkdir", os.mkdir, s.at("special"))
    s.do("fifo", os.mkfifo, s.at("special/fifo"), 0o640)
    s.do("char", os.mknod, s.at("special/null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    s.do("block", os.mknod, s.at("special/block"), stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    s.do("regular", os.mknod, s.at("special/regular"), stat.S_IFREG | 0o604)

    def listen():
        with socket.socket(socket.AF_UNIX) as sock:
            here = os.open(s.at("special"), os.O_RDONLY)
            try:
                sock.bind(f"/proc/self/fd/{here}/socket")
            finally:
                os.close(here)
    s.do("socket", listen)
    for name in ("fifo", "null", "block", "regular", "socket"):
        s.do("mode " + name, s.mode, "special/" + name)
    s.do("rdev", lambda: [os.stat(s.at("special/" + n)).st_rdev for n in ("null", "block")])
    s.do("null", s.with_file, "special/null", os.O_WRONLY, lambda fd: os.write(fd, b"x"))


def links_and_renames(s):
    s.do("mkdir", os.mkdir, s.at("links"))
    s.write("links/a", b"one inode")
    s.do("link", os.link, s.at("links/a"), s.at("links/b"))
    s.do("link elsewhere", os.link, s.at("links/a"), s.at("team/c"))
    s.do("link on itself", os.link, s.at("links/a"), s.at("links/b"))
    s.do("link directory", os.link, s.at("team"), s.at("links/team"))
    s.do("count", lambda: os.stat(s.at("links/b")).st_nlink)
    s.write("links/b", b"ONE", offset=0)
    s.do("same", lambda: os.stat(s.at("links/a")).st_ino == os.stat(s.at("team/c")).st_ino)
    s.do("link symlink", os.symlink, "a", s.at("links/sym"))
    s.do("link symlink", lambda: os.link(s.at("links/sym"), s.at("links/sym2"), follow_symlinks=False))
    s.write("links/victim", b"victim")
    s.write("links/mover", b"mover")
    s.do("noreplace onto", yt.renameat2, s.at("links/mover"), s.at("links/victim"), yt.RENAME_NOREPLACE)
    s.do("noreplace", yt.renameat2, s.at("links/mover"), s.at("links/moved"), yt.RENAME_NOREPLACE)
    s.do("replace", os.rename, s.at("links/moved"), s.at("links/victim"))
    s.do("rename to the same inode", os.rename, s.at("links/a"), s.at("links/b"))
    s.do("into another directory", os.rename, s.at("links/victim"), s.at("team/victim"))
    s.do("mkdir", os.mkdir, s.at("links/d1"))
    s.do("mkdir", os.mkdir, s.at("links/d2"))
    s.write("links/d1/inside", b"1")
    s.do("onto a full directory", os.rename, s.at("links/d2"), s.at("links/d1"))
    s.do("onto an empty one", os.rename, s.at("links/d1"), s.at("links/d2"))
    s.do("into itself", os.rename, s.at("links/d2"), s.at("links/d2/below"))
    s.do("file onto directory", os.rename, s.at("links/b"), s.at("links/d2"))
    s.do("exchange file and directory", yt.renameat2, s.at("links/b"), s.at("links/d2"), yt.RENAME_EXCHANGE)
    s.do("exchange with absent", yt.renameat2, s.at("links/b"), s.at("links/absent"), yt.RENAME_EXCHANGE)
    s.do("mkdir", os.mkdir, s.at("links/tree"))
    s.do("move a directory across", os.rename, s.at("links/b"), s.at("links/tree/moved"))
    s.do("listing", lambda: sorted(os.listdir(s.at("links"))))
    s.do("read", s.with_file, "links/d2", os.O_RDONLY, lambda fd: os.read(fd, 100))


def open_flags(s):
    s.do("mkdir", os.mkdir, s.at("flags"))
    s.write("flags/append", b"first ", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    s.write("flags/append", b"again", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    s.with_file("flags/append", os.O_WRONLY | os.O_APPEND,
                lambda fd: (os.lseek(fd, 0, os.SEEK_SET), os.write(fd, b"appended "), os.pwrite(fd, b"and more", 0)))
    s.write("flags/truncated", b"x" * 100_000)
    s.with_file("flags/truncated", os.O_WRONLY | os.O_TRUNC, lambda fd: os.fstat(fd).st_size)
    s.write("flags/truncated", b"short", os.O_WRONLY | os.O_TRUNC)
    s.with_file("flags/append", os.O_RDONLY | os.O_TRUNC, lambda fd: os.fstat(fd).st_size, "read-only with O_TRUNC")
    s.write("flags/append", b"back again")
    s.do("symlink", os.symlink, "append", s.at("flags/sym"))
    s.do("nofollow", s.with_file, "flags/sym", os.O_RDONLY | os.O_NOFOLLOW, lambda fd: 0)
    s.do("directory", s.with_file, "flags/append", os.O_RDONLY | os.O_DIRECTORY, lambda fd: 0)
    s.do("write a directory", s.with_file, "flags", os.O_WRONLY, lambda fd: 0)
    s.with_file("flags/sync", os.O_WRONLY | os.O_CREAT | os.O_SYNC, lambda fd: os.write(fd, b"synchronous"))
    s.with_file("flags/dsync", os.O_WRONLY | os.O_CREAT | os.O_DSYNC, lambda fd: (os.write(fd, b"d"), os.fsync(fd), os.fdatasync(fd)))
    s.do("fsync directory", s.with_file, "flags", os.O_RDONLY, os.fsync)
    s.with_file("flags/append", os.O_RDONLY, lambda fd: (os.read(fd, 4), os.pread(fd, 4, 5), os.read(fd, 100), os.read(fd, 100)))
    s.with_file("flags/append", os.O_RDONLY, lambda fd: os.write(fd, b"x"), "write on a read-only descriptor")
    s.with_file("flags/vector", os.O_RDWR | os.O_CREAT, lambda fd: (os.writev(fd, [b"one ", b"two ", b"three"]), os.pread(fd, 99, 0)))

    def unlinked(fd):
        os.unlink(s.at("flags/unlinked"))
        os.write(fd, b"still here")
        os.ftruncate(fd, 8)
        os.fchmod(fd, 0o600)
        os.setxattr(fd, "user.open", b"yes")
        return os.pread(fd, 100, 0), os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode), os.getxattr(fd, "user.open")
    s.with_file("flags/unlinked", os.O_RDWR | os.O_CREAT, unlinked)

    def replaced(fd):
        s.write("flags/new", b"the new one")
        os.rename(s.at("flags/new"), s.at("flags/replaced"))
        os.write(fd, b"into the old one")
        return os.pread(fd, 100, 0)
    s.with_file("flags/replaced", os.O_RDWR | os.O_CREAT, replaced)


def in_a_removed_directory(s):
    s.do("mkdir", os.mkdir, s.at("doomed"))
    here = os.open(s.at("doomed"), os.O_RDONLY)
    try:
        s.do("rmdir", os.rmdir, s.at("doomed"))
        s.do("create in it", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        s.do("list it", os.listdir, here)
    finally:
        os.close(here)


def sizes_and_holes(s):
    s.do("mkdir", os.mkdir, s.at("sizes"))
    s.write("sizes/sparse", b"end", offset=50_000_000)
    s.write("sizes/sparse", b"middle", offset=25_000_000)
    s.do("ranges", lambda: [(a // 4096, -(-b // 4096)) for a, b in yt.data_ranges(s.at("sizes/sparse"))])
    s.write("sizes/huge", b"!", offset=(1 << 40) - 1)
    s.do("huge", lambda: os.stat(s.at("sizes/huge")).st_size)
    s.do("truncate", lambda: os.truncate(s.at("sizes/huge"), (1 << 40) - 4096))
    s.write("sizes/huge", b"?", offset=(1 << 40) - 10_000)
    s.do("grow", lambda: os.truncate(s.at("sizes/grown"), 5))
    s.write("sizes/grown", b"0123456789" * 1000)
    s.do("shrink", os.truncate, s.at("sizes/grown"), 4321)
    s.do("grow", os.truncate, s.at("sizes/grown"), 9999)
    s.do("negative", os.truncate, s.at("sizes/grown"), -1)
    s.do("read", s.with_file, "sizes/grown", os.O_RDONLY, lambda fd: os.pread(fd, 100, 4300))
    pattern = bytes(range(256)) * 256
    for name in ("punched", "zeroed", "kept", "allocated"):
        s.write("sizes/" + name, pattern)
    s.with_file("sizes/punched", os.O_RDWR, lambda fd: yt.fallocate(fd, yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, 5000, 30_001))
    s.with_file("sizes/zeroed", os.O_RDWR, lambda fd: yt.fallocate(fd, yt.FALLOC_ZERO_RANGE, 60_000, 20_000))
    s.with_file("sizes/kept", os.O_RDWR, lambda fd: yt.fallocate(fd, yt.FALLOC_KEEP_SIZE, 60_000, 20_000))
    s.with_file("sizes/allocated", os.O_RDWR, lambda fd: yt.fallocate(fd, 0, 60_000, 20_000))
    s.with_file("sizes/allocated", os.O_RDONLY, lambda fd: yt.fallocate(fd, 0, 0, 1), "fallocate read-only")
    for name in ("punched", "zeroed", "kept", "allocated"):
        s.do("content", yt.read_all, s.at("sizes/" + name))

    def copy(fd):
        to = s.open("sizes/copy", os.O_RDWR | os.O_CREAT)
        try:
            return os.copy_file_range(fd, to, 20_000, 1000, 3000), os.copy_file_range(fd, to, 20_000, 65_000, 30_000)
        finally:
            os.close(to)
    s.with_file("sizes/zeroed", os.O_RDONLY, copy, "copy_file_range")
    s.do("content", yt.read_all, s.at("sizes/copy"))
    s.write("sizes/big", os.urandom(1) * 3_000_000)
    s.write("sizes/big", b"b" * 3_000_000)
    s.write("sizes/big", b"across blocks" * 1000, offset=1_234_567)

    def direct(fd):
        with mmap.mmap(-1, 65536) as page:
            page.write(b"D" * 65536)
            return os.write(fd, page)
    s.with_file("sizes/direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT, direct)


def mapped(s):
    s.write("mapped", b"." * 100_000)

    def store(fd):
        with mmap.mmap(fd, 100_000) as view:
            view[5:11] = b"stored"
            view[70_000:70_005] = b"later"
            view.flush()
            return view[0:12]
    s.with_file("mapped", os.O_RDWR, store)

    def store_and_leave(fd):
        with mmap.mmap(fd, 100_000) as view:
            view[99_990:] = b"unflushed!"
    s.with_file("mapped", os.O_RDWR, store_and_leave)
    s.with_file("mapped", os.O_RDONLY, lambda fd: (os.pread(fd, 20, 0), os.pread(fd, 20, 69_990), os.pread(fd, 10, 99_990)))

    def private(fd):
        with mmap.mmap(fd, 4096, mmap.MAP_PRIVATE) as view:
            view[0:4] = b"mine"
            return view[0:12]
    s.with_file("mapped", os.O_RDWR, private)
    s.do("content", yt.read_all, s.at("mapped"))


def attributes(s):
    s.do("mkdir", os.mkdir, s.at("attributes"))
    s.write("attributes/file", b"x")
    for mode in (0o4755, 0o2711, 0o1644, 0, 0o7777):
        s.do("chmod", os.chmod, s.at("attributes/file"), mode)
        s.do("mode", s.mode, "attributes/file")
    s.do("chown clears suid", os.chown, s.at("attributes/file"), 1234, 4321)
    s.do("mode", s.mode, "attributes/file")
    s.do("symlink", os.symlink, "file", s.at("attributes/sym"))
    s.do("lchown", lambda: os.chown(s.at("attributes/sym"), 77, 88, follow_symlinks=False))
    s.do("mode", s.mode, "attributes/sym")
    for number, (name, times) in enumerate((("past", (BEFORE_1970, BEFORE_1970 - 1)), ("future", (AFTER_2038, AFTER_2038 + 1)))):
        s.write("attributes/" + name, b"t")
        s.do("utimens", lambda n=name, t=times: os.utime(s.at("attributes/" + n), ns=t))
        s.do("times", lambda n=name: (os.stat(s.at("attributes/" + n)).st_atime_ns, os.stat(s.at("attributes/" + n)).st_mtime_ns))
        s.do("symlink's", lambda n=number: os.utime(s.at("attributes/sym"), ns=(n, 1_000_000_007 + n), follow_symlinks=False))
    s.do("symlink's", lambda: os.lstat(s.at("attributes/sym")).st_mtime_ns)
    s.do("directory's", lambda: os.utime(s.at("attributes"), ns=(5, 1_234_567_890_123_456_789)))
    s.do("directory's", lambda: os.stat(s.at("attributes")).st_mtime_ns)


def extended(s):
    s.do("mkdir", os.mkdir, s.at("xattrs"))
    s.write("xattrs/file", b"x")
    s.do("symlink", os.symlink, "file", s.at("xattrs/sym"))
    for name, value in (("user.empty", b""), ("user.binary", b"\0\xff" * 100), ("user.large", b"L" * 2000), ("trusted.secret", b"root only")):
        s.do("setxattr", os.setxattr, s.at("xattrs/file"), name, value)
        s.do("getxattr", os.getxattr, s.at("xattrs/file"), name)
        s.do("directory's", os.setxattr, s.at("xattrs"), name, value)
    s.do("symlink's", lambda: os.setxattr(s.at("xattrs/sym"), "trusted.link", b"on the link", follow_symlinks=False))
    s.do("symlink's user", lambda: os.setxattr(s.at("xattrs/sym"), "user.link", b"refused", follow_symlinks=False))
    s.do("create again", os.setxattr, s.at("xattrs/file"), "user.empty", b"x", os.XATTR_CREATE)
    s.do("replace absent", os.setxattr, s.at("xattrs/file"), "user.absent", b"x", os.XATTR_REPLACE)
    s.do("replace", os.setxattr, s.at("xattrs/file"), "user.large", b"smaller", os.XATTR_REPLACE)
    s.do("remove", os.removexattr, s.at("xattrs/file"), "user.binary")
    s.do("remove absent", os.removexattr, s.at("xattrs/file"), "user.binary")
    s.do("get absent", os.getxattr, s.at("xattrs/file"), "user.binary")
    for name in ("xattrs", "xattrs/file", "xattrs/sym"):
        s.do("list", yt.xattrs, s.at(name))


def acls(s):
    s.do("mkdir", os.mkdir, s.at("acl"))
    s.write("acl/file", b"x")

    def setfacl(*words):
        return subprocess.run(["setfacl", *words], stderr=subprocess.DEVNULL, check=False).returncode
    s.do("access", setfacl, "-m", "u:65534:rw,g:50:r,m:rw", s.at("acl/file"))
    s.do("default", setfacl, "-d", "-m", "u:65534:rwx,g:50:rx,o:-", s.at("acl"))
    s.do("mkdir below", os.mkdir, s.at("acl/below"))
    s.write("acl/below/file", b"inherits")
    for name in ("acl", "acl/file", "acl/below", "acl/below/file"):
        s.do("mode", s.mode, name)
        s.do("acl", yt.xattrs, s.at(name))
    s.do("chmod changes the mask", os.chmod, s.at("acl/file"), 0o640)
    s.do("acl", yt.xattrs, s.at("acl/file"))
    s.as_user("by acl", NOBODY, [NOBODY], lambda c: c.write("acl/below/file", b"I may"))
    s.as_user("by mask", NOBODY, [NOBODY], lambda c: c.write("acl/file", b"I may not"))


def other_users(s):
    s.do("mkdir", os.mkdir, s.at("users"))
    s.do("sticky", os.chmod, s.at("users"), 0o1777)
    s.write("users/roots", b"root's")
    s.do("mkdir", os.mkdir, s.at("users/closed"), 0o700)

    def theirs(c):
        os.umask(0o027)
        c.write("users/file", b"nobody's")
        c.do("mkdir", os.mkdir, c.at("users/dir"), 0o777)
        c.do("symlink", os.symlink, "file", c.at("users/sym"))
        c.do("fifo", os.mkfifo, c.at("users/fifo"))
        c.do("device", os.mknod, c.at("users/dev"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        c.do("in the team", os.mkdir, c.at("team/theirs"))
        for name in ("users/file", "users/dir", "users/sym", "users/fifo", "team/theirs"):
            c.do("mode", c.mode, name)
        c.write("users/roots", b"no")
        c.do("chmod", os.chmod, c.at("users/roots"), 0o777)
        c.do("chown away", os.chown, c.at("users/file"), 1, -1)
        c.do("chgrp to a group of mine", os.chown, c.at("users/file"), -1, STAFF)
        c.do("chgrp to another", os.chown, c.at("users/file"), -1, 5)
        c.do("unlink in sticky", os.unlink, c.at("users/roots"))
        c.do("rename in sticky", os.rename, c.at("users/roots"), c.at("users/x"))
        c.do("closed", os.listdir, c.at("users/closed"))
        c.do("create in closed", os.mkdir, c.at("users/closed/x"))
        c.do("create in root's", os.mkdir, c.at("plain/x"))
        c.do("trusted xattr", os.setxattr, c.at("users/file"), "trusted.x", b"x")
        c.do("setgid of a group not mine", os.chmod, c.at("users/dir"), 0o2755)
        c.do("suid", os.chmod, c.at("users/file"), 0o6755)
        c.do("mode", c.mode, "users/file")
        c.write("users/file", b"a write clears suid")
        c.do("mode", c.mode, "users/file")
        c.do("suid", os.chmod, c.at("users/file"), 0o6755)
        c.do("truncate clears", os.truncate, c.at("users/file"), 3)
        c.do("mode", c.mode, "users/file")
        c.do("access", lambda: [os.access(c.at("users/roots"), how) for how in (os.R_OK, os.W_OK, os.X_OK)])
    s.as_user("nobody", NOBODY, [NOBODY, STAFF], theirs)
    s.do("suid of root", os.chmod, s.at("users/roots"), 0o4777)
    s.as_user("writes root's suid", NOBODY, [NOBODY], lambda c: c.write("users/roots", b"changed"))
    s.do("mode", s.mode, "users/roots")
    # Set-group-id of a group that the owner is not in: chown(2) and an ACL take it, whether the group may execute or not.
    acl = bytes.fromhex("0200000001000700ffffffff0200040001000000" "04000500ffffffff10000700ffffffff20000500ffffffff")
    for name, mode in (("d", 0o2777), ("x", 0o6777), ("n", 0o6707), ("w", 0o2767)):
        for change in ("acl", "chgrp", "chown"):
            path = s.at(f"users/{name}-{change}")
            s.do("make", os.mkdir if name == "d" else os.mknod, path)
            s.do("give", os.chown, path, NOBODY, STAFF)
            s.do("chmod", os.chmod, path, mode)
            if change == "acl":
                s.as_user("acl", NOBODY, [NOBODY], lambda c: c.do("acl", os.setxattr, path, "system.posix_acl_access", acl))
            elif change == "chgrp":
                s.as_user("chgrp", NOBODY, [NOBODY], lambda c: c.do("chgrp", os.chown, path, -1, NOBODY))
            else:
                s.as_user("chown", NOBODY, [NOBODY], lambda c: c.do("chown", os.chown, path, NOBODY, -1))
            s.do("mode", s.mode, f"users/{name}-{change}")


def temporary(s):
    """O_TMPFILE is optional (libfuse before 3.17 has none); where there is one, it must be right."""
    try:
        fd = os.open(s.at("plain"), os.O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as problem:
        yt.check(problem.errno == errno.EOPNOTSUPP, f"O_TMPFILE: {problem}")
        s.write("plain/tmpfile", b"by name")
        s.do("mode", os.chmod, s.at("plain/tmpfile"), 0o640)
        return
    try:
        os.write(fd, b"by name")
        yt.link_descriptor(fd, s.at("plain/tmpfile"))
    finally:
        os.close(fd)
    s.answers.append(("write 'plain/tmpfile'", 7))
    s.do("mode", os.chmod, s.at("plain/tmpfile"), 0o640)


PARTS = (directories, names, special_files, links_and_renames, open_flags, in_a_removed_directory, sizes_and_holes, mapped,
         attributes, extended, acls, other_users, temporary)


def compare_answers(part, found, expected):
    for number, (ours, theirs) in enumerate(zip(found, expected)):
        if ours != theirs:
            raise yt.Failure(f"{part}, step {number}: the mount says {ours!r}, a plain directory {theirs!r}")
    yt.equal(len(found), len(expected), f"{part}: number of steps")


def test_operations():
    volume = yt.Volume("v").init(interval="1h")
    volume.mount()
    plain = os.path.join(yt.TMP, "plain")
    os.mkdir(plain)
    for place in (plain, volume.mountpoint):
        os.chmod(place, 0o755)
    problems = []
    for part in PARTS:
        answers = []
        for place in (plain, volume.mountpoint):
            steps = Steps(place)
            part(steps)
            answers.append(steps.answers)
        try:
            compare_answers(part.__name__, answers[1], answers[0])
        except yt.Failure as failure:
            problems.append(str(failure))
    try:
        yt.same_tree(yt.tree(volume.mountpoint, times=False), yt.tree(plain, times=False), "the mount and a plain directory")
    except yt.Failure as failure:
        problems.append(str(failure))

    volume.sync()
    live = yt.tree(volume.mountpoint)
    history = yt.tree(volume.snapshot(volume.latest()))
    for what, found in (("the version in .snapshots", history),):
        try:
            yt.same_tree(found, live, what)
        except yt.Failure as failure:
            problems.append(str(failure))
    ranges = {name: yt.data_ranges(volume.path("sizes", name)) for name in ("sparse", "huge")}
    for name, here in ranges.items():
        there = yt.data_ranges(volume.snapshot("latest", "sizes", name))
        if sum(b - a for a, b in there) > sum(b - a + (2 << 20) for a, b in here):  # a chunk, at most, for each range
            problems.append(f"sizes/{name}: the version has data at {there}, the file at {here}")

    other = volume.clone("clone")
    try:
        yt.same_tree(yt.tree(other.dir), live, "the clone")
    except yt.Failure as failure:
        problems.append(str(failure))
    blocks = os.stat(os.path.join(other.dir, "sizes/huge")).st_blocks
    if blocks > 4096:
        problems.append(f"sizes/huge has {blocks} blocks in the clone")
    volume.umount()
    try:
        yt.same_tree(yt.tree(volume.dir), live, "the directory after unmounting")
    except yt.Failure as failure:
        problems.append(str(failure))
    yt.check(not problems, "\n".join(problems))


def test_many_users_at_once():
    """The identity of one request does not leak into another that runs beside it."""
    volume = yt.Volume("users").init(interval="1h")
    volume.mount()
    os.chmod(volume.mountpoint, 0o1777)
    children = []
    for uid in (1001, 1002, 1003, 0):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if uid:
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                os.umask(0o022 if uid % 2 else 0o077)
                for i in range(200):
                    os.mkdir(volume.path(f"d{uid}-{i}"))
                    fd = os.open(volume.path(f"d{uid}-{i}/f"), os.O_CREAT | os.O_WRONLY, 0o666)
                    os.write(fd, b"x")
                    os.close(fd)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    for child in children:
        yt.equal(os.waitpid(child, 0)[1], 0, "exit of a child")
    for uid in (1001, 1002, 1003, 0):
        for i in range(200):
            for name, mode in ((f"d{uid}-{i}", 0o777), (f"d{uid}-{i}/f", 0o666)):
                st = os.lstat(volume.path(name))
                wanted = mode & ~(0o022 if uid % 2 else 0o077)
                yt.equal((st.st_uid, st.st_gid, oct(stat.S_IMODE(st.st_mode))), (uid, uid, oct(wanted)), name)
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

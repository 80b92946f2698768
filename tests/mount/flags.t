#!/usr/bin/python3 -B
# timeout: 180
"""chattr +a and +i: what is immutable, or may only grow, is so on the mount, too: each operation ends as it does in a plain directory, natively on the same filesystem. Versions
have what such files hold; the flags are not part of them."""
import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import backings  # noqa: E402
import yt  # noqa: E402

MAPPED = ("mapped", "mapped-read", "mapped-late")
APPEND, WRITE, BOTH, CREATE = os.O_APPEND, os.O_WRONLY, os.O_RDWR, os.O_CREAT


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def chattr(flag, *paths):
    yt.run("chattr", flag, *paths)


def prepare(root):
    for kind in "ai":
        write(os.path.join(root, "f" + kind), b"0123456789" * 1000)
        os.makedirs(os.path.join(root, "d" + kind, "sub"))
        write(os.path.join(root, "d" + kind, "in"), b"in" * 100)
        chattr("+" + kind, os.path.join(root, "f" + kind), os.path.join(root, "d" + kind))
    write(os.path.join(root, "plain"), b"plain")
    write(os.path.join(root, "source"), b"source" * 5000)


def clear(root):
    chattr("-ai", *(path for path in (os.path.join(root, name) for name in ("fa", "fi", "da", "di", "log", *MAPPED)) if os.path.exists(path)))


def with_file(path, flags, do):
    fd = os.open(path, flags, 0o644)
    try:
        return do(fd)
    finally:
        os.close(fd)


def fallocate(fd, mode, length=8192):
    if yt.libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def copy(source, fd):
    return with_file(source, os.O_RDONLY, lambda source_fd: os.copy_file_range(source_fd, fd, 100))


def append(fd):
    return os.write(fd, b"appended")


def drop_append(fd):
    """A plain filesystem refuses the first of the two, but the kernel does not ask ours."""
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    return os.pwrite(fd, b"not at its end", 3)


def on_a_file(path, at):
    """Names and operations."""
    for name, flags in (("w", WRITE), ("rw", BOTH), ("append", WRITE | APPEND), ("rw append", BOTH | APPEND), ("append create", WRITE | APPEND | CREATE),
                        ("append excl", WRITE | APPEND | CREATE | os.O_EXCL), ("append sync", WRITE | APPEND | os.O_SYNC)):
        yield "write " + name, lambda flags=flags: with_file(path, flags, append)
    yield "pwrite append", lambda: with_file(path, WRITE | APPEND, lambda fd: os.pwrite(fd, b"at its end", 3))
    yield "drop append", lambda: with_file(path, WRITE | APPEND, drop_append)
    yield "drop append rw", lambda: with_file(path, BOTH | APPEND, drop_append)
    yield "open r", lambda: with_file(path, os.O_RDONLY, lambda fd: os.read(fd, 10))
    yield "open noatime", lambda: with_file(path, os.O_RDONLY | os.O_NOATIME, lambda fd: None)
    yield "open trunc", lambda: with_file(path, WRITE | os.O_TRUNC, lambda fd: None)
    yield "open append trunc", lambda: with_file(path, WRITE | APPEND | os.O_TRUNC, lambda fd: None)
    yield "truncate", lambda: os.truncate(path, 10)
    yield "truncate more", lambda: os.truncate(path, 100_000)
    yield "ftruncate", lambda: with_file(path, WRITE | APPEND, lambda fd: os.ftruncate(fd, 10))
    for mode in (0, yt.FALLOC_KEEP_SIZE, yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, yt.FALLOC_ZERO_RANGE):
        yield f"fallocate {mode}", lambda mode=mode: with_file(path, BOTH | APPEND, lambda fd: fallocate(fd, mode))
    yield "copy_file_range", lambda: with_file(path, BOTH | APPEND, lambda fd: copy(at("source"), fd))
    yield "fchmod", lambda: with_file(path, os.O_RDONLY, lambda fd: os.fchmod(fd, 0o600))
    yield "fchmod append", lambda: with_file(path, WRITE | APPEND, lambda fd: os.fchmod(fd, 0o600))
    yield "futimens append", lambda: with_file(path, WRITE | APPEND, lambda fd: os.utime(fd, ns=(5, 5)))
    yield "futimens now append", lambda: with_file(path, WRITE | APPEND, os.utime)
    yield "fsync append", lambda: with_file(path, WRITE | APPEND, os.fsync)
    yield "chown", lambda: os.chown(path, 1, 1)
    yield "rename over", lambda: os.rename(at("source"), path)
    yield "link", lambda: os.link(path, at("link"))
    yield "unlink", lambda: os.unlink(path)


def on_either(path, at):
    yield "chmod", lambda: os.chmod(path, 0o740)
    yield "utime", lambda: os.utime(path, ns=(1, 1))
    yield "utime now", lambda: os.utime(path)
    yield "setxattr", lambda: os.setxattr(path, "user.x", b"1")
    yield "removexattr", lambda: os.removexattr(path, "user.none")
    yield "rename", lambda: os.rename(path, at("moved"))


def in_a_directory(path, at):
    def inside(name):
        return os.path.join(path, name)
    yield "create", lambda: with_file(inside("new"), WRITE | CREATE, append)
    yield "create excl", lambda: with_file(inside("new2"), WRITE | CREATE | os.O_EXCL, append)
    yield "tmpfile", lambda: with_file(path, os.O_TMPFILE | BOTH, append)
    yield "write", lambda: with_file(inside("in"), WRITE, append)
    yield "mkdir", lambda: os.mkdir(inside("newdir"))
    yield "symlink", lambda: os.symlink("target", inside("symlink"))
    yield "mkfifo", lambda: os.mkfifo(inside("fifo"))
    yield "link", lambda: os.link(at("plain"), inside("linked"))
    yield "unlink", lambda: os.unlink(inside("in"))
    yield "unlink absent", lambda: os.unlink(inside("absent"))
    yield "rmdir in it", lambda: os.rmdir(inside("sub"))
    yield "rename in it", lambda: os.rename(inside("in"), inside("in2"))
    yield "rename out of it", lambda: os.rename(inside("in"), at("out"))
    yield "rename into it", lambda: os.rename(at("plain"), inside("plain"))
    yield "rmdir", lambda: os.rmdir(path)
    yield "list", lambda: sorted(os.listdir(path))


def outcome(operation):
    try:
        return operation()
    except OSError as problem:
        return errno.errorcode[problem.errno]


def outcomes(root):
    def at(name):
        return os.path.join(root, name)
    for kind in "ai":
        for word, operations in (("f", on_a_file), ("f", on_either), ("d", on_either), ("d", in_a_directory)):
            path = at(word + kind)
            for name, operation in operations(path, at):
                yield f"+{kind} {word}: {name}", outcome(operation), os.stat(path).st_size if word == "f" else None
    yield "the root", sorted(os.listdir(root)), None


def while_open(root, real):
    """The flag comes when the file is open already: that descriptor keeps what it has, as far as a plain filesystem lets it."""
    for kind in "ai":
        path = os.path.join(root, "late" + kind)
        fd = os.open(path, BOTH | CREATE, 0o644)
        os.write(fd, b"0123456789" * 1000)
        chattr("+" + kind, os.path.join(real, "late" + kind))
        for name, operation in (("write", lambda fd=fd: append(fd)), ("pwrite", lambda fd=fd: os.pwrite(fd, b"more", 3)), ("ftruncate", lambda fd=fd: os.ftruncate(fd, 3)),
                                ("fallocate", lambda fd=fd: fallocate(fd, 0, 20_000)), ("fsync", lambda fd=fd: os.fsync(fd)),
                                ("fchmod", lambda fd=fd: os.fchmod(fd, 0o600)), ("close", lambda fd=fd: os.close(fd))):
            yield f"+{kind} while open: {name}", outcome(operation), os.stat(path).st_size
        chattr("-" + kind, os.path.join(real, "late" + kind))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def appends_in_versions(volume, real):
    """A log that may only grow: each version has what was in it, whatever was appended meanwhile, also behind the mount."""
    path, held = volume.path("log"), []
    write(path, b"begins\n")
    chattr("+a", os.path.join(real, "log"))
    fd = os.open(path, WRITE | APPEND)
    for number in range(5):
        for _ in range(300):
            os.write(fd, b"line %d of the log\n" % number * 10)
        if number == 3:
            with_file(os.path.join(real, "log"), WRITE | APPEND, lambda real_fd: os.write(real_fd, b"behind the mount\n"))
            os.write(fd, b"after it\n")
        volume.sync()
        held.append((volume.latest(), read(os.path.join(real, "log"))))
    os.close(fd)
    for version, content in held:
        yt.check(read(volume.snapshot(version, "log")) == content, f"the log in {version} is another")
    yt.check(held[-1][1].count(b"\n") == 1 + 5 * 3000 + 2, "lines are missing")


def stores_through_a_mapping(volume, real):
    """A plain filesystem does not map such a file for that. Here the kernel does, unless it can't be opened for it; what was in the file stays all the same, also when others read it, since the flag was set or before."""
    for name in MAPPED:
        path, below = volume.path(name), os.path.join(real, name)
        write(path, b"original\n" * 1000)
        readers = [os.open(path, os.O_RDONLY)] if name == "mapped-late" else []
        chattr("+a", below)
        if name == "mapped-read":
            readers.append(os.open(path, os.O_RDONLY))
        for fd in readers:
            os.read(fd, 10)
        try:
            fd = os.open(path, BOTH | APPEND)
            try:
                mapping = mmap.mmap(fd, 4096)
                mapping[:7] = b"CHANGED"
                mapping.flush()
                mapping.close()
            finally:
                outcome(lambda fd=fd: os.close(fd))
        except OSError as problem:
            yt.check(problem.errno in (errno.EACCES, errno.EPERM, errno.EIO), f"mapping it: {problem}")
        yt.check(read(below) == b"original\n" * 1000, f"{name}: a store changed what may only grow")
        with_file(path, WRITE | APPEND, append)
        for fd in readers:
            os.close(fd)
        with_file(path, BOTH | APPEND, append)
        yt.check(read(below) == b"original\n" * 1000 + b"appended" * 2, f"{name}: what was appended is not there")


def one(mode):
    """Beside its mount, the directory shows what is on the disk."""
    volume = backings.volume("ext4", mode, interval="1h")
    native = os.path.join(volume.base, "disk", "native")
    os.mkdir(native)
    for root in (native, volume.dir):
        prepare(root)
    real, mountpoint = volume.dir, os.path.join(volume.base, "mnt")
    try:
        os.mkdir(mountpoint)
        volume.mount("-o", ",".join(("exclusive", *backings.OPTIONS[mode][1:])), mountpoint=mountpoint)
        wanted, got = list(outcomes(native)), list(outcomes(mountpoint))
        wanted += while_open(native, native)
        got += while_open(mountpoint, real)
        for want, have in zip(wanted, got, strict=True):
            yt.equal(have, want, "operation, outcome, size")
        volume.sync()
        yt.same_tree(yt.tree(volume.snapshot("latest")), yt.tree(mountpoint), "the newest version")
        appends_in_versions(volume, real)
        stores_through_a_mapping(volume, real)
        volume.sync()
        volume.umount()
        live = yt.tree(real)
        clone = volume.clone(f"clone-{mode}")
        yt.same_tree(yt.tree(clone.dir), live, "the clone")
        clone.remove()
    finally:
        for root in (native, real):
            clear(root)
    backings.remove(volume)


def test_cached():
    one("cached")


def test_default():
    one("default")


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 300
# both libfuse
"""Promise 3, I2-I5, in depth: one process changes a few files in every way there is, on the mount and on a plain directory beside it, while versions are
cut as fast as they come. Each version must be, byte by byte, the tree as it was between two of these operations; later versions later ones. The operations go on until there are enough versions."""
import hashlib
import mmap
import os
import random
import stat
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
OPERATIONS = int(os.environ.get("OPERATIONS", "2500"))  # at least
VERSIONS = 8  # at least, each of another state of the tree
NAMES = [f"f{i}" for i in range(6)]
DIRS = ["", "a", "b", "a/c"]
SIZE = int(os.environ.get("SIZE", "300000"))


def describe(root, name):
    """What one inode is; without times, and without sizes of directories."""
    path = os.path.join(root, name)
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    content = b""
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).digest()
    elif kind == stat.S_IFLNK:
        content = os.readlink(os.fsencode(path))
    xattrs = () if kind == stat.S_IFLNK else tuple((key, os.getxattr(path, key)) for key in sorted(os.listxattr(path)))
    return (name, st.st_mode, st.st_uid, st.st_gid, st.st_size if kind == stat.S_IFREG else 0, st.st_nlink, content, xattrs)


def look(root):
    entries = [describe(root, "")]
    for top, dirs, files in os.walk(root):
        entries += [describe(root, os.path.relpath(os.path.join(top, name), root)) for name in dirs + files]
    return frozenset(entries)


class Changer:
    """The same random operations on two trees."""

    def __init__(self, roots, seed):
        self.roots = roots
        self.random = random.Random(seed)
        self.unlinked = []  # descriptors, one for each root, of files without a name

    def name(self):
        return os.path.join(self.random.choice(DIRS), self.random.choice(NAMES))

    def offset(self):
        at = self.random.randrange(SIZE)
        return at if self.random.random() < 0.6 else at // 4096 * 4096

    def length(self):
        return self.random.choice((1, 100, 4096, 8192, 30_000, self.random.randrange(1, 70_000)))

    def data(self, length):
        if self.random.random() < 0.15:
            return bytes(length)
        return self.random.randbytes(min(length, 61)) * (length // 61 + 1)

    def on_both(self, function):
        """function(root) on each; both must say the same."""
        answers = []
        for root in self.roots:
            try:
                answers.append(function(root))
            except OSError as problem:
                answers.append(problem.errno)
        yt.equal(answers[0], answers[1], f"{function.__name__}: the mount, against a plain directory")

    def with_file(self, name, flags, function):
        def opened(root):
            fd = os.open(os.path.join(root, name), flags, 0o644)
            try:
                return function(fd)
            finally:
                os.close(fd)
        opened.__name__ = function.__name__
        self.on_both(opened)

    def place(self):
        """(offset, data) of a write that the kernel doesn't split into two requests: one that begins in the middle of a page may end with it
        (fuse_fill_write_pages)."""
        at, length = self.offset(), self.length()
        return at, self.data(length)[:length if at % 4096 == 0 else 4096 - at % 4096]

    # -- the operations; each is one request of the kernel, but for the opening

    def write(self):
        at, data = self.place()
        self.with_file(self.name(), os.O_WRONLY, lambda fd: os.pwrite(fd, data, at))

    def append(self):
        data = self.data(self.length())

        def appended(fd):
            room = 4096 - os.fstat(fd).st_size % 4096
            return os.write(fd, data if room == 4096 else data[:room])
        self.with_file(self.name(), os.O_WRONLY | os.O_APPEND, appended)

    def create(self):
        self.with_file(self.name(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, lambda fd: 0)

    def empty(self):
        if self.random.random() < 0.3:
            self.with_file(self.name(), os.O_WRONLY | os.O_TRUNC, lambda fd: 0)

    def truncate(self):
        size, name = self.offset(), self.name()
        if self.random.random() < 0.5:
            self.on_both(lambda root: os.truncate(os.path.join(root, name), size))
        else:
            self.with_file(name, os.O_WRONLY, lambda fd: os.ftruncate(fd, size))

    def allocate(self):
        mode = self.random.choice((0, 1, 3, 3, 16, 16, 17))
        at, length = self.offset(), self.length()
        self.with_file(self.name(), os.O_WRONLY, lambda fd: yt.fallocate(fd, mode, at, length))

    def copy_within(self):
        at, to, length = self.offset(), self.offset(), self.length()
        self.with_file(self.name(), os.O_RDWR, lambda fd: os.copy_file_range(fd, fd, length, at, to))

    def copy(self):
        at, to, length, source, target = self.offset(), self.offset(), self.length(), self.name(), self.name()

        def copied(root):
            with open(os.path.join(root, source), "rb") as file, open(os.path.join(root, target), "r+b", 0) as out:
                return os.copy_file_range(file.fileno(), out.fileno(), length, at, to)
        self.on_both(copied)

    def store(self):
        """Through a mapping: within one page, so that it is written back by one request."""
        at, data, name = self.offset(), self.data(40), self.name()

        def stored(root):
            fd = os.open(os.path.join(root, name), os.O_RDWR)
            try:
                page = at // 4096 * 4096
                if page + 4096 > os.fstat(fd).st_size:
                    return None
                with mmap.mmap(fd, 4096, offset=page) as mapping:
                    mapping[at % 4000:at % 4000 + 40] = data[:40]
                    mapping.flush()
            finally:
                os.close(fd)
            return None
        self.on_both(stored)

    def mode(self):
        mode, name = self.random.choice((0o600, 0o644, 0o4755, 0o640)), self.name()
        self.on_both(lambda root: os.chmod(os.path.join(root, name), mode))

    def owner(self):
        uid, name = self.random.randrange(3), self.name()
        self.on_both(lambda root: os.lchown(os.path.join(root, name), uid, -1))

    def xattr(self):
        name, key, value = self.name(), self.random.choice(("user.a", "user.b")), self.random.randbytes(self.random.choice((1, 30, 900)))
        if self.random.random() < 0.3:
            self.on_both(lambda root: os.removexattr(os.path.join(root, name), key))
        else:
            self.on_both(lambda root: os.setxattr(os.path.join(root, name), key, value))

    def unlink(self):
        name = self.name()
        if self.random.random() < 0.5:
            self.on_both(lambda root: os.unlink(os.path.join(root, name)))

    def unlink_open(self):
        name = self.name()
        if all(os.path.isfile(os.path.join(root, name)) for root in self.roots):
            self.unlinked.append([os.open(os.path.join(root, name), os.O_RDWR) for root in self.roots])
            self.on_both(lambda root: os.unlink(os.path.join(root, name)))

    def write_unlinked(self):
        """It may still have other names."""
        if self.unlinked:
            fds, (at, data) = self.random.choice(self.unlinked), self.place()
            self.on_both(lambda root: os.pwrite(fds[self.roots.index(root)], data, at))

    def close_unlinked(self, keep=3):
        while len(self.unlinked) > keep:
            for fd in self.unlinked.pop(0):
                os.close(fd)

    def link(self):
        old, new = self.name(), self.name()
        self.on_both(lambda root: os.link(os.path.join(root, old), os.path.join(root, new)))

    def symlink(self):
        name, target = self.name(), f"to {self.random.random()}"
        if self.random.random() < 0.2:
            self.on_both(lambda root: os.symlink(target, os.path.join(root, name)))

    def rename(self):
        old, new = self.name(), self.name()
        self.on_both(lambda root: os.rename(os.path.join(root, old), os.path.join(root, new)))

    def exchange(self):
        old, new = self.name(), self.name()
        self.on_both(lambda root: yt.renameat2(os.path.join(root, old), os.path.join(root, new), yt.RENAME_EXCHANGE))

    def directory(self):
        """Made, removed, or moved over an empty one."""
        names = [f"d{self.random.randrange(3)}" for _ in range(2)]
        what = self.random.randrange(3)
        if what == 0:
            self.on_both(lambda root: os.mkdir(os.path.join(root, names[0])))
        elif what == 1:
            self.on_both(lambda root: os.rmdir(os.path.join(root, names[0])))
        else:
            self.on_both(lambda root: os.rename(os.path.join(root, names[0]), os.path.join(root, names[1])))

    def go(self):
        kinds = {self.write: 10, self.append: 4, self.create: 8, self.empty: 2, self.truncate: 5, self.allocate: 4, self.copy_within: 3,
                 self.copy: 3, self.store: 3, self.mode: 1, self.owner: 1, self.xattr: 2, self.unlink: 3, self.unlink_open: 1,
                 self.write_unlinked: 2, self.close_unlinked: 1, self.link: 2, self.symlink: 1, self.rename: 4, self.exchange: 2,
                 self.directory: 2}
        self.random.choices(list(kinds), list(kinds.values()))[0]()


class Syncs(threading.Thread):
    """Asks for one version after the other. `count`: those before which the tree had come to another state."""

    def __init__(self, volume, states):
        super().__init__()
        self.volume, self.states, self.ending, self.problem, self.count = volume, states, False, None, 0

    def run(self):
        try:
            last = self.states[-1]
            while not self.ending:
                state = self.states[-1]
                self.volume.sync()
                self.count += state != last
                last = state
        except Exception as problem:  # pylint: disable=broad-except
            self.problem = problem


def compare(volume, states, begun, fewest):
    last, found = -1, []
    for version in (name for name in sorted(volume.versions()) if name >= begun):
        seen = look(volume.snapshot(version, "tree"))
        at = min(range(max(last, 0), len(states)), key=lambda i: len(seen ^ states[i]))
        if seen != states[at]:
            raise yt.Failure(f"version {version} is no state that the tree had at {last} operations or later; the nearest came after {at}; "
                             f"in the version {sorted(seen - states[at])}, in the tree {sorted(states[at] - seen)}; SEED={SEED}")
        last = at
        found.append(at)
    yt.check(len(set(found)) >= fewest, f"only {len(set(found))} versions differ")
    print(f"{len(states) - 1} operations, {len(found)} versions")


def test_content():
    print(f"SEED={SEED}", flush=True)
    volume = yt.Volume("v").init(interval="1s")
    volume.mount()
    plain = os.path.join(yt.TMP, "plain")
    for root in (volume.path("tree"), plain):
        os.mkdir(root)
        for name in DIRS[1:]:
            os.mkdir(os.path.join(root, name))
    changer = Changer([volume.path("tree"), plain], SEED)
    states = [look(plain)]
    volume.sync()
    begun = volume.latest()
    syncs = Syncs(volume, states)
    syncs.start()
    try:
        while not syncs.problem and (len(states) <= OPERATIONS or syncs.count < VERSIONS):
            changer.go()
            states.append(look(plain))
    finally:
        changer.close_unlinked(0)
        syncs.ending = True
        syncs.join()
    if syncs.problem:
        raise syncs.problem
    yt.equal(look(volume.path("tree")), states[-1], "the live tree, against the plain one")
    volume.sync()
    volume.umount()
    volume.drop_cache()
    volume.mount()
    compare(volume, states, begun, VERSIONS // 2)
    newest = sorted(volume.versions())[-1]
    yt.equal(look(volume.snapshot(newest, "tree")), states[-1], "the newest version, against the plain tree")
    volume.umount()


yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 240
# both libfuse
"""Twenty versions with known digests. Each is read back through .snapshots with cold caches, while the live tree is another one and when it is
gone; after a clone; by `clone --at`; and by the independent reader scripts/yester-read."""
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

VERSIONS = 20
READER = os.path.join(yt.TOP, "scripts/yester-read")


class Tree:
    """A tree that changes in a known way: the same seed, the same changes."""

    def __init__(self, root, seed, serial=0):
        self.root = root
        self.random = random.Random(seed)
        self.files, self.directories, self.serial = [], [""], serial

    def at(self, name):
        return os.path.join(self.root, name)

    def fresh(self, kind):
        self.serial += 1
        return os.path.join(self.random.choice(self.directories), f"{kind}{self.serial}")

    def data(self, most=200_000):
        size = self.random.choice((0, 1, 100, 4096, 5000, self.random.randrange(1, most)))
        return self.random.randbytes(size) if self.random.random() < .7 else b"text " * (size // 5)

    def write(self, name, data, flags, offset=0):
        fd = os.open(self.at(name), flags | os.O_WRONLY, 0o640)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def create(self):
        name = self.fresh("f")
        self.write(name, self.data(), os.O_CREAT)
        self.files.append(name)

    def overwrite(self):
        name = self.random.choice(self.files)
        size = os.path.getsize(self.at(name))
        self.write(name, self.data(9000), 0, self.random.randrange(size + 1))

    def append(self):
        name = self.random.choice(self.files)
        self.write(name, self.data(5000), 0, os.path.getsize(self.at(name)))

    def truncate(self):
        os.truncate(self.at(self.random.choice(self.files)), self.random.randrange(300_000))

    def rewrite(self):
        name = self.random.choice(self.files)
        self.write(name + ".new", self.data(), os.O_CREAT)
        os.rename(self.at(name + ".new"), self.at(name))

    def rename(self):
        name = self.random.choice(self.files)
        to = self.fresh("r")
        os.rename(self.at(name), self.at(to))
        self.files[self.files.index(name)] = to

    def link(self):
        to = self.fresh("l")
        os.link(self.at(self.random.choice(self.files)), self.at(to))
        self.files.append(to)

    def remove(self):
        if len(self.files) > 10:
            os.unlink(self.at(self.files.pop(self.random.randrange(len(self.files)))))

    def mkdir(self):
        name = self.fresh("d")
        os.mkdir(self.at(name), 0o750)
        self.directories.append(name)

    def rename_directory(self):
        if len(self.directories) > 1:
            name = self.random.choice(self.directories[1:])
            self.serial += 1
            to = f"moved{self.serial}"
            os.rename(self.at(name), self.at(to))
            for names in (self.files, self.directories):
                names[:] = [to + n[len(name):] if n == name or n.startswith(name + "/") else n for n in names]

    def symlink(self):
        os.symlink(f"target {self.random.random()}", self.at(self.fresh("s")))

    def attributes(self):
        name = self.random.choice(self.files + self.directories[1:])
        os.chmod(self.at(name), 0o700 | self.random.randrange(0o100))
        os.chown(self.at(name), self.random.randrange(3000), self.random.randrange(3000))
        os.setxattr(self.at(name), "user.number", str(self.serial).encode())
        os.utime(self.at(name), ns=(0, self.random.randrange(1 << 60)))

    def change(self, count):
        kinds = (self.create, self.create, self.overwrite, self.append, self.truncate, self.rewrite, self.rename, self.link, self.remove,
                 self.mkdir, self.rename_directory, self.symlink, self.attributes)
        for _ in range(5):
            self.create()
        for _ in range(count):
            self.random.choice(kinds)()


def make_versions(volume, seed):
    """[(version number, name in .snapshots, tree)]"""
    made = []
    work = Tree(volume.mountpoint, seed)
    for number in range(VERSIONS):
        work.change(60 if number % 5 else 5)
        volume.sync()
        made.append((volume.status()["version"], volume.latest(), yt.tree(volume.mountpoint)))
    yt.equal(len({name for _, name, _ in made}), VERSIONS, "different names")
    return made


def read_back(volume, made, what):
    listed = volume.versions()
    for _, name, expected in made:
        yt.check(name in listed, f"{what}: {name} is not listed")
        yt.same_tree(yt.tree(volume.snapshot(name)), expected, f"{what}: version {name}")


def test_versions():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}", flush=True)
    volume = yt.Volume("v").init(interval="1h")
    volume.mount()
    made = make_versions(volume, seed)

    volume.umount()
    volume.drop_cache()
    volume.mount()
    read_back(volume, made, "cold, the live tree is the last version")

    Tree(volume.mountpoint, seed + 1, 1_000_000).change(100)
    volume.umount()
    volume.drop_cache()
    volume.mount()
    read_back(volume, made, "cold, the live tree has changed")

    for name in os.listdir(volume.mountpoint):
        path = volume.path(name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    volume.sync()
    volume.umount()
    volume.drop_cache()
    volume.mount()
    read_back(volume, made, "cold, the live tree is gone")
    volume.umount()

    other = volume.clone("clone")
    yt.equal(os.listdir(other.dir), [], "the clone of an empty tree")
    other.mount("-o", "take_over")
    read_back(other, made, "in the clone")
    other.umount()

    for number, name, expected in (made[0], made[VERSIONS // 2], made[-1]):
        past = volume.clone(f"at{number}", "--at", name)
        yt.same_tree(yt.tree(past.dir), expected, f"clone --at {name}")

    if not os.path.exists(READER):
        return
    words = [READER, volume.remote_path, "--key-file", volume.key_file]
    listed = yt.run(*words, "list")
    for number, name, expected in made:
        yt.check(name in listed, f"yester-read list has no {name}:\n{listed}")
        to = os.path.join(yt.TMP, "read", str(number))
        os.makedirs(os.path.dirname(to), exist_ok=True)
        yt.run(*words, "extract", str(number), to)
        yt.same_tree(yt.tree(to), expected, f"yester-read extract {number}")


def test_subdirectories_and_times():
    """.snapshots of a directory is its own past, by identity; names that are not listed resolve."""
    volume = yt.Volume("sub").init(interval="1h")
    volume.mount()
    os.makedirs(volume.path("first/inner"))
    with open(volume.path("first/inner/file"), "w") as file:
        file.write("1")
    volume.sync()
    one = volume.latest()
    os.rename(volume.path("first"), volume.path("second"))
    with open(volume.path("second/inner/file"), "w") as file:
        file.write("2")
    volume.sync()
    two = volume.latest()
    yt.check(one < two, f"{one} and {two} are not in order")
    for where, name, content in (("second/inner", one, "1"), ("second/inner", two, "2"), ("second", one, "1"), ("", two, "2")):
        below = {"": "second/inner/file", "second": "inner/file", "second/inner": "file"}[where]
        with open(volume.path(where, ".snapshots", name, below)) as file:
            yt.equal(file.read(), content, f"{where}/.snapshots/{name}/{below}")
    date, time = one[:-1].split("T")
    samba = "@GMT-" + date.replace("-", ".") + "-" + time.replace("-", ".")
    yt.same_tree(yt.tree(volume.snapshot(samba)), yt.tree(volume.snapshot(one)), samba)
    yt.check(os.path.isdir(volume.snapshot("9998-12-31")), "the end of a day in the future is the newest version")
    # Names are a second apart at least, so that of the newest may lie a little ahead (I26).
    yt.wait_until("0s-ago", lambda: os.readlink(volume.snapshot("0s-ago")) == two)
    yt.check(not os.path.exists(volume.snapshot("1980-01-01")), "a time before all versions resolves")
    yt.check(not os.path.exists(volume.snapshot("no-such-name")), "a word that is no time resolves")
    yt.check(not os.path.exists(volume.snapshot(one, ".snapshots")), ".snapshots resolves inside itself")
    for what, attempt in (("create", lambda: os.open(volume.snapshot(one, "x"), os.O_CREAT | os.O_WRONLY)),
                          ("unlink", lambda: os.unlink(volume.snapshot(one, "first/inner/file"))),
                          ("write", lambda: os.open(volume.snapshot(one, "first/inner/file"), os.O_WRONLY)),
                          ("chmod", lambda: os.chmod(volume.snapshot(one, "first"), 0o700)),
                          ("rename", lambda: os.rename(volume.snapshot(one, "first"), volume.snapshot(one, "other")))):
        try:
            attempt()
        except OSError as problem:
            yt.equal(os.strerror(problem.errno), "Read-only file system", what)
        else:
            raise yt.Failure(f"{what} in a version succeeds")
    a, b = (os.stat(volume.snapshot(name, "first/inner/file" if name == one else "second/inner/file")).st_ino for name in (one, two))
    live = os.stat(volume.path("second/inner/file")).st_ino
    yt.equal(len({a, b, live}), 3, "different inode numbers")
    volume.umount()
    volume.mount()
    yt.equal(os.stat(volume.snapshot(one, "first/inner/file")).st_ino, a, "inode number after remounting")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

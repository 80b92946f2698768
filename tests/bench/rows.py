"""rows: what is measured, once in each system and round. A row prepares (not timed), then runs, and gives (seconds, processor seconds of the client)."""
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import time

from systems import BUILD

IO_ROW = os.path.join(BUILD, "bench/io_row")
DATA_BYTES = 128 << 20
MIB = 1 << 20
PER_DIRECTORY = 50


def timed(*arguments, cwd=None, env=None):
    """A command's time and its processor time, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    subprocess.run(arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def io_row(*words):
    out = subprocess.run([IO_ROW, *map(str, words)], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return float(out[0]), float(out[1]) + float(out[2])


def drop_pages(system, name):
    """Of a file: first those of the mount, then those of what lies below."""
    for place in (system.top, system.back):
        subprocess.run([IO_ROW, "drop", os.path.join(place, name)], check=True)


def drop_names():
    """The kernel's dentries and inodes, everywhere."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")


class Row:
    cold = False  # there is no such thing on tmpfs

    def __init__(self, name, count, unit="s"):
        self.name, self.count, self.unit = name, count, unit

    def prepare(self, system):
        pass

    def run(self, system):
        raise NotImplementedError

    def finish(self, system):
        pass


class Read(Row):
    def __init__(self, how, block, count, mode, cold=False):
        super().__init__(f"read {block // 1024} KiB {how} {mode}{' cold' if cold else ' warm'}", count, "op/s")
        self.how, self.block, self.mode, self.cold = how, block, mode, cold

    def prepare(self, system):
        if self.cold:
            drop_pages(system, "data")
        else:
            io_row("read", "seq", MIB, DATA_BYTES // MIB, self.mode, system.top + "/data")

    def run(self, system):
        return io_row("read", self.how, self.block, self.count, self.mode, system.top + "/data")


class Write(Row):
    def __init__(self, how, block, count, mode, new=False):
        super().__init__(f"write {block // 1024} KiB {how} {mode}{' new file' if new else ''}", count, "op/s")
        self.how, self.block, self.mode, self.new = how, block, mode, new

    def path(self, system):
        return system.top + ("/new" if self.new else "/data")

    def prepare(self, system):
        if not self.new:
            io_row("read", "seq", MIB, DATA_BYTES // MIB, "rw", system.top + "/data")

    def run(self, system):
        return io_row("write", self.how, self.block, self.count, self.mode, self.path(system), 0 if self.new else DATA_BYTES)

    def finish(self, system):
        if self.new:
            os.unlink(self.path(system))


class Fsync(Row):
    def run(self, system):
        return io_row("fsync", 4096, self.count, system.top + "/data")


class CreateFsync(Row):
    def prepare(self, system):
        os.mkdir(system.top + "/synced")

    def run(self, system):
        return io_row("create-fsync", system.top + "/synced", self.count, 1024)

    def finish(self, system):
        shutil.rmtree(system.top + "/synced")


class Create(Row):
    """The first of those that work on the same files: create, stat, unlink."""

    def prepare(self, system):
        os.mkdir(system.top + "/many")

    def run(self, system):
        return io_row("create", system.top + "/many", self.count, 1024)


class Stat(Row):
    def __init__(self, name, count, unit, cold):
        super().__init__(name, count, unit)
        self.cold = cold

    def prepare(self, system):
        if self.cold:
            drop_names()

    def run(self, system):
        return io_row("stat", system.top + "/many", self.count)


class Unlink(Row):
    def run(self, system):
        return io_row("unlink", system.top + "/many", self.count)

    def finish(self, system):
        shutil.rmtree(system.top + "/many")


class Untar(Row):
    """The first of those that work on the same tree."""
    tar = None

    def prepare(self, system):
        if Untar.tar is None:
            Untar.tar = make_tar(self.count)
        os.mkdir(system.top + "/tree")

    def run(self, system):
        return timed("tar", "-C", system.top + "/tree", "-xf", Untar.tar)


class Walk(Row):
    def __init__(self, name, cold, *command):
        super().__init__(name, 1)
        self.cold, self.command = cold, command

    def prepare(self, system):
        if self.cold:
            drop_names()

    def run(self, system):
        return timed(*(system.top + "/tree" if word == "TREE" else word for word in self.command))


class Git(Row):
    def prepare(self, system):
        self.env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="b", GIT_AUTHOR_EMAIL="b@b",
                        GIT_COMMITTER_NAME="b", GIT_COMMITTER_EMAIL="b@b")
        self.tree = system.top + "/tree"
        subprocess.run(["git", "init", "-q", self.tree], env=self.env, check=True)

    def run(self, system):
        directories = " ".join(f"d{i:03}" for i in range(self.count // PER_DIRECTORY))
        return timed("sh", "-c", f"git -c gc.auto=0 add -A {directories} && git -c gc.auto=0 commit -qm all", cwd=self.tree, env=self.env)


class Remove(Row):
    def run(self, system):
        return timed("rm", "-rf", system.top + "/tree")


SQLITE = """
import sqlite3, sys
path, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode=" + mode)
db.execute("PRAGMA synchronous=" + ("NORMAL" if mode == "WAL" else "FULL"))
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)")
for i in range(count):
    db.execute("INSERT INTO t(text) VALUES(?)", ("row %d " % i * 10,))
"""


class Sqlite(Row):
    def __init__(self, mode, count):
        super().__init__(f"SQLite inserts, journal_mode={mode}", count, "op/s")
        self.mode = mode

    def run(self, system):
        return timed(sys.executable, "-c", SQLITE, system.top + "/db", self.mode, str(self.count))

    def finish(self, system):
        for name in os.listdir(system.top):
            if name.startswith("db"):
                os.unlink(os.path.join(system.top, name))


def make_tar(count):
    """Source-like: texts of 1 to 8 KiB, 50 in a directory."""
    numbers = random.Random(1)
    words = [bytes(numbers.choices(b"abcdefghijklmnopqrstuvwxyz_();= \n", k=numbers.randrange(3, 12))) for _ in range(3000)]
    path = os.path.join(BUILD, "bench/tree.tar")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(count):
            data = b" ".join(numbers.choices(words, k=numbers.randrange(120, 1000)))
            member = tarfile.TarInfo(f"d{i // PER_DIRECTORY:03}/file{i}.c")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def prepare_system(system):
    """The file that reads and overwrites use; before anything is mounted."""
    block = random.Random(2).randbytes(MIB)
    with open(system.top + "/data", "wb") as file:
        for i in range(DATA_BYTES // MIB):
            file.write(i.to_bytes(8, "little") + block[8:])


def all_rows(scale):
    few = max(int(200 * scale), 20)
    many, files = int(20000 * scale), int(5000 * scale)
    whole = DATA_BYTES // MIB
    return [
        Read("seq", MIB, whole, "ro", cold=True), Read("seq", MIB, 4 * whole, "ro"), Read("seq", MIB, 4 * whole, "rw"),
        Read("random", 4096, few * 10, "ro", cold=True), Read("random", 4096, many * 5, "ro"), Read("random", 4096, many * 5, "rw"),
        Read("seq", 4096, many, "ro"),
        Write("seq", MIB, whole, "wo", new=True), Write("seq", MIB, whole, "wo"), Write("seq", MIB, whole, "rw"),
        Write("random", 4096, many, "wo"), Write("random", 4096, many, "rw"), Write("seq", 4096, many, "wo", new=True),
        Fsync("4 KiB overwrite + fdatasync", few, "op/s"), CreateFsync("create 1 KiB + fsync", few, "op/s"),
        Create("create 1 KiB", files, "op/s"), Stat("stat warm", files, "op/s", False), Stat("stat cold", files, "op/s", True),
        Unlink("unlink", files, "op/s"),
        Untar("untar", 2 * files), Walk("find warm", False, "find", "TREE", "-size", "+1M"),
        Walk("find cold", True, "find", "TREE", "-size", "+1M"),
        Walk("du warm", False, "du", "-s", "TREE"), Walk("du cold", True, "du", "-s", "TREE"), Git("git add + commit", int(3000 * scale)), Remove("rm -rf", 1),
        Sqlite("WAL", int(2000 * scale)), Sqlite("DELETE", few),
    ]

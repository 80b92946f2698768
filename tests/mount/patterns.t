#!/usr/bin/python3 -B
# timeout: 240
"""How programs write files: databases, git, linkers, archivers, rsync, downloads, logs, editors. Each does its work on a mount; after a sync the version
holds what the live tree holds, and the program finds it good there as well. In each mode of the kernel's I/O; FULL=1: on each backing filesystem."""
import dbm
import hashlib
import mmap
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import backings  # noqa: E402
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
numbers = random.Random(SEED)
PATTERNS = {}


def pattern(function):
    PATTERNS[function.__name__] = function
    return function


def shell(script, where, **env):
    return yt.run("sh", "-ec", script, cwd=where, env=dict(os.environ, **env))


def in_process(function, *arguments):
    process = multiprocessing.Process(target=function, args=arguments)
    process.start()
    return process


def ended(process):
    process.join(60)
    yt.equal(process.exitcode, 0, "exit code of a helper")


# Each returns None, or what is to be done with the same directory in a version: function(directory).

# ---- databases

def sqlite_writer(path, worker):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA wal_autocheckpoint = 20")
    for i in range(40):
        connection.execute("INSERT INTO t VALUES (?, ?)", (worker * 1000 + i, os.urandom(700)))
    os._exit(0)  # without closing: the log stays


@pattern
def sqlite(where):
    """Two processes share the index of the log through a mapping."""
    path = os.path.join(where, "db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
    writers = [in_process(sqlite_writer, path, worker) for worker in range(2)]
    for writer in writers:
        ended(writer)
    yt.equal(connection.execute("SELECT count(*) FROM t").fetchone(), (80,), "rows")
    connection.close()

    def again(there):
        copy = os.path.join(yt.TMP, "sqlite-copy")
        yt.run("cp", "-r", there, copy)
        found = sqlite3.connect(os.path.join(copy, "db"))
        yt.equal(found.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity")
        yt.equal(found.execute("SELECT count(*) FROM t").fetchone(), (80,), "rows in the version")
        found.close()
        yt.run("rm", "-r", copy)
    return again


@pattern
def gdbm(where):
    """Python's choice; gdbm maps its file, and extends it."""
    content = {b"key %d" % i: numbers.randbytes(300) for i in range(300)}
    with dbm.open(os.path.join(where, "keys"), "n") as file:
        for key, value in content.items():
            file[key] = value

    def again(there):
        copy = os.path.join(yt.TMP, "dbm-copy")
        yt.run("cp", "-r", there, copy)
        with dbm.open(os.path.join(copy, "keys"), "r") as file:
            yt.equal({key: file[key] for key in file.keys()}, content, "keys")
        yt.run("rm", "-r", copy)
    return again


def backend(where, worker, seed):
    """A server's process: pages of tables written anywhere, behind records of a log that are synced first."""
    own = random.Random(seed)
    log = os.open(os.path.join(where, "wal/1"), os.O_RDWR | os.O_DSYNC)
    tables = [os.open(os.path.join(where, f"base/{i}"), os.O_RDWR) for i in range(3)]
    for i in range(30):
        os.pwrite(log, own.randbytes(8192), (i * 2 + worker) * 8192)
        table = own.choice(tables)
        page = own.randrange(64)
        os.pwrite(table, own.randbytes(8192), page * 8192)
        os.pread(own.choice(tables), 8192, own.randrange(64) * 8192)
    for table in tables:
        os.fsync(table)
    os._exit(0)


@pattern
def postgres(where):
    """Segments of a log are filled with zeros under another name, written with O_DSYNC, used again under a new name; relations grow by fallocate and are cut short."""
    os.mkdir(os.path.join(where, "wal"))
    os.mkdir(os.path.join(where, "base"))
    fd = os.open(os.path.join(where, "wal/new"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.pwritev(fd, [bytes(65536)] * 16, 0)
    os.fsync(fd)
    os.close(fd)
    os.rename(os.path.join(where, "wal/new"), os.path.join(where, "wal/1"))
    for i in range(3):
        fd = os.open(os.path.join(where, f"base/{i}"), os.O_RDWR | os.O_CREAT)
        yt.fallocate(fd, 0, 0, 64 * 8192)
        os.close(fd)
    for worker in [in_process(backend, where, worker, numbers.randrange(1 << 30)) for worker in range(2)]:
        ended(worker)
    os.truncate(os.path.join(where, "base/2"), 40 * 8192)
    os.rename(os.path.join(where, "wal/1"), os.path.join(where, "wal/2"))
    with open(os.path.join(where, "control"), "wb") as file:
        file.write(bytes(8192))
        os.fsync(file.fileno())


# ---- programmers

@pattern
def git(where):
    """Commits, a repack (which maps packs, and replaces them) and a collection of garbage."""
    env = {"HOME": yt.TMP, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
           "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}
    for i in range(60):
        with open(os.path.join(where, f"file{i}"), "wb") as file:
            file.write(numbers.randbytes(3000))
    shell("git init -q . && git add . && git commit -qm one && git repack -adq && echo more >file1 && git commit -qam two && git gc -q && git fsck --strict", where, **env)

    def again(there):
        yt.run("git", "-c", "safe.directory=*", "--git-dir", os.path.join(there, ".git"), "fsck", "--strict", env=dict(os.environ, **env))
        # The index tells of inodes, which are others there.
        out = yt.run("git", "-c", "safe.directory=*", "--git-dir", os.path.join(there, ".git"), "rev-list", "--objects", "--all", env=dict(os.environ, **env))
        yt.check(len(out.splitlines()) > 60, "objects of the version")
    return again


@pattern
def compile_and_link(where):
    with open(os.path.join(where, "main.c"), "w") as file:
        file.write('#include <stdio.h>\nextern int number(void);\nstatic char data[300000] = {1};\n'
                   'int main(void) { printf("%d\\n", number() + data[0]); return 0; }\n')
    with open(os.path.join(where, "number.c"), "w") as file:
        file.write("int number(void) { return 41; }\n")
    shell("gcc -g -O1 -c main.c number.c && ar rcs libnumber.a number.o && gcc -g -o bfd main.o libnumber.a && gcc -g -shared -fPIC -o libn.so number.c", where)
    for linker in ("gold", "lld"):
        if subprocess.run(["gcc", f"-fuse-ld={linker}", "-o", os.path.join(where, linker), "main.o", "libnumber.a"], cwd=where,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0:
            yt.equal(yt.run(os.path.join(where, linker)), "42\n", linker)
    shell("cp bfd stripped && strip stripped && ./stripped && objcopy --only-keep-debug bfd debug", where)

    def again(there):
        for name in ("bfd", "stripped"):
            yt.equal(yt.run(os.path.join(there, name)), "42\n", f"{name}, run from the version")
    return again


@pattern
def package(where):
    """Unpacked as dpkg does it, and with tar's ways: hard links, sparse files, times."""
    root = os.path.join(yt.TMP, "package")
    os.makedirs(os.path.join(root, "DEBIAN"))
    with open(os.path.join(root, "DEBIAN/control"), "w") as file:
        file.write("Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n")
    os.makedirs(os.path.join(root, "usr/share/p"))
    for i in range(40):
        with open(os.path.join(root, f"usr/share/p/{i}"), "wb") as file:
            file.write(numbers.randbytes(i * 100))
    os.link(os.path.join(root, "usr/share/p/1"), os.path.join(root, "usr/share/p/again"))
    with open(os.path.join(root, "usr/share/p/sparse"), "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    shell(f"dpkg-deb -Zgzip --build '{root}' p.deb >&2 && dpkg-deb -x p.deb x && tar -C '{root}' -cSf t.tar usr && mkdir t && tar -C t -xSf t.tar", where)
    for name in ("x", "t"):
        yt.run("diff", "-r", os.path.join(root, "usr"), os.path.join(where, name, "usr"))
    yt.run("rm", "-r", root)


# ---- copies and downloads

@pattern
def rsync(where):
    source = os.path.join(yt.TMP, "rsync-source")
    data = bytearray(numbers.randbytes(900_000))
    for options in ("--inplace --no-whole-file", "--sparse", "--append-verify", "--no-whole-file"):
        data[500_000:500_050] = numbers.randbytes(50)
        data += numbers.randbytes(10_000)
        with open(source, "wb") as file:
            file.write(data)
        yt.run("rsync", *options.split(), "-t", "--checksum", source, os.path.join(where, "target" + options.split()[0]))
        yt.run("rsync", *options.split(), "-t", "--checksum", source, os.path.join(where, "target"))
    yt.run("cmp", source, os.path.join(where, "target"))
    os.unlink(source)


@pattern
def dd(where):
    shell("""
		dd if=/dev/urandom of=a bs=64k count=16 oflag=direct
		dd if=/dev/urandom of=a bs=4k count=3 seek=7 oflag=direct conv=notrunc
		dd if=/dev/urandom of=a bs=999 count=5 seek=70 oflag=sync conv=notrunc
		dd if=a of=b bs=64k iflag=direct oflag=direct
		dd if=a of=b bs=8k skip=3 seek=200 oflag=dsync conv=notrunc,fsync
		dd if=/dev/zero of=c bs=1M count=2 conv=sparse
		dd if=/dev/urandom of=a bs=100 count=4 oflag=append conv=notrunc
		cp --sparse=always c d
		cp --reflink=auto b e
		fallocate -d e
		truncate -s 3M e
		fallocate -p -o 5000 -l 70000 b
	""", where)


@pattern
def download(where):
    """Space first, then pieces in any order through a mapping, nobody syncs; then the whole is read again."""
    size, piece = 3_000_000, 50_000
    data = numbers.randbytes(size)
    fd = os.open(os.path.join(where, "download"), os.O_RDWR | os.O_CREAT)
    yt.fallocate(fd, 0, 0, size)
    map_ = mmap.mmap(fd, size)
    os.close(fd)
    order = list(range(0, size, piece))
    numbers.shuffle(order)
    for at in order:
        map_[at:at + piece] = data[at:at + piece]
    with open(os.path.join(where, "download"), "rb") as file:
        yt.equal(hashlib.sha256(file.read()).digest(), hashlib.sha256(data).digest(), "what was downloaded")
    map_.close()


# ---- text

@pattern
def log_rotation(where):
    """copytruncate: copied and emptied while a program goes on appending."""
    log = os.path.join(where, "log")
    stop = multiprocessing.Event()

    def write():
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        count = 0
        while not stop.is_set() or count < 500:
            os.write(fd, b"line %d\n" % count)
            count += 1
        os._exit(0)
    process = in_process(write)
    for i in range(5):
        yt.wait_until("lines", lambda: os.path.exists(log) and os.path.getsize(log) > 500)
        yt.run("cp", log, f"{log}.{i}")
        os.truncate(log, 0)
    stop.set()
    ended(process)
    last = -1
    for name in [f"{log}.{i}" for i in range(5)] + [log]:
        with open(name, "rb") as file:
            lines = file.read().splitlines()
        found = [int(line.removeprefix(b"line ")) for line in lines if line.startswith(b"line ")]
        # The last line of a copy may be cut off; some are lost between copying and emptying, none comes twice.
        yt.check(len(found) >= len(lines) - 1 and found[:-1] == sorted(set(found[:-1])), f"{name}: lines are not in order: {lines[:3]} ...")
        yt.check(not found or found[0] > last - 1, f"{name}: begins with {found[:1]}, after {last}")
        last = found[-1] if found else last


@pattern
def editors(where):
    path = os.path.join(where, "text")
    for i in range(10):
        with open(path + "~new", "w") as file:
            file.write(f"text {i}\n" * 500)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            if os.path.exists(path + "~"):
                os.unlink(path + "~")
            os.link(path, path + "~")
        os.rename(path + "~new", path)
        with open(path, "r+") as file:
            file.truncate(3000)
            file.write("in place\n")
    shell("sed -i 's/text/TEXT/' text && sort -o text text && printf '%s\\n' more >>text && : >'text~' && echo x >|'text~'", where)


def run_all(kind, mode):
    print(f"SEED={SEED}", flush=True)
    numbers.seed(SEED)
    volume = backings.volume(kind, mode, interval="1s")
    backings.mount(volume, mode)
    again = {}
    for name, function in PATTERNS.items():
        where = volume.path(name)
        os.mkdir(where)
        again[name] = function(where)
    volume.sync()
    live = yt.tree(volume.mountpoint)
    version = volume.snapshot(volume.latest())
    yt.same_tree(yt.tree(version), live, f"{kind}, {mode}: the version")
    for name, function in again.items():
        if function:
            function(os.path.join(version, name))
    volume.umount()
    yt.same_tree(yt.tree(volume.dir, times=False), yt.without_times(live), f"{kind}, {mode}: the directory itself")
    backings.remove(volume)


def define(kind, mode):
    globals()[f"test_{kind}_{mode}"] = lambda: run_all(kind, mode)


for pair in backings.each():
    if pair[0] == "ext4" or os.environ.get("FULL"):
        define(*pair)


if __name__ == "__main__":
    yt.main(globals())

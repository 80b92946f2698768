#!/usr/bin/python3 -B
# timeout: 300
"""A working day against a real S3 server: unpack sources, build, a database, git, edits and removals; then this machine is lost, and the bucket and
the key rebuild everything: contents, modes, owners, times, xattrs, links, down to what make and git think of it."""
import hashlib
import os
import random
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FILES_MOST, BYTES_MOST = 4000, 60 << 20


def source_tree():
    """An archive of some thousand real files, of which every Debian machine with a compiler has enough."""
    chosen, total = [], 0
    for top in ("/usr/include", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/doc"):
        for where, directories, names in os.walk(top):
            directories.sort()
            for name in sorted(names):
                path = os.path.join(where, name)
                size = os.lstat(path).st_size
                if size < 2 << 20 and len(chosen) < FILES_MOST and total < BYTES_MOST:
                    chosen.append(path)
                    total += size
    listing, archive = os.path.join(yt.TMP, "files"), os.path.join(yt.TMP, "sources.tar")
    with open(listing, "w") as file:
        file.write("\0".join(chosen))
    yt.run("tar", "-cf", archive, "-C", "/", "--null", "-T", listing, "-P", "--transform", "s,^/,,")
    return archive, len(chosen)


def build_project(where):
    os.mkdir(where)
    names = [f"part{i}" for i in range(12)]
    for name in names:
        with open(os.path.join(where, name + ".c"), "w") as file:
            file.write(f"#include <stdio.h>\nint {name}(int x)\n{{\n\treturn printf(\"{name} %d\\n\", x);\n}}\n")
    with open(os.path.join(where, "main.c"), "w") as file:
        file.write("".join(f"int {name}(int);\n" for name in names) + "int main(void)\n{\n" +
                   "".join(f"\t{name}(1);\n" for name in names) + "\treturn 0;\n}\n")
    with open(os.path.join(where, "Makefile"), "w") as file:
        objects = " ".join(name + ".o" for name in ["main"] + names)
        file.write(f"CFLAGS = -O1 -g\nprogram: {objects}\n\t$(CC) -o $@ $^\nlib.a: {objects}\n\t$(AR) rcs $@ $^\n")
    make(where, "-j2", "program", "lib.a")
    return yt.run(os.path.join(where, "program"))


def make(where, *goals):
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return yt.run("make", "-C", where, *goals, env=env)


def git(where, *words):
    env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@example.org",
               GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@example.org")
    return yt.run("git", "-C", where, "-c", "safe.directory=*", *words, env=env)


def make_repository(where):
    os.mkdir(where)
    git(where, "init", "-q", "-b", "main")
    for commit in range(5):
        for i in range(60):
            with open(os.path.join(where, f"file{i}"), "a") as file:
                file.write(f"line {commit} of {i}\n" * (i + 1))
        git(where, "add", "-A")
        git(where, "commit", "-q", "-m", f"commit {commit}")


def use_git(repository, where):
    git("/", "clone", "-q", "--no-hardlinks", repository, where)
    git(where, "checkout", "-q", "-b", "work")
    for i in range(0, 60, 3):
        with open(os.path.join(where, f"file{i}"), "w") as file:
            file.write("rewritten\n")
    git(where, "mv", "file1", "moved1")
    git(where, "commit", "-q", "-a", "-m", "work")
    git(where, "gc", "-q")


def use_database(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
    for n in range(300):
        with connection:
            connection.execute("INSERT INTO t VALUES (?, ?)", (n, random.randbytes(500)))
    return connection  # open: its log has not been folded in


def edit(where, numbers):
    """Edits, renames, removals, links, and attributes of all sorts on what was unpacked."""
    files = []
    for path, _, names in os.walk(where):
        files += [os.path.join(path, name) for name in names if not os.path.islink(os.path.join(path, name))]
    files.sort()
    numbers.shuffle(files)
    for path in files[:150]:
        with open(path, "ab") as file:
            file.write(b"edited\n")
    for path in files[150:250]:
        with open(path, "r+b") as file:
            file.seek(numbers.randrange(os.path.getsize(path) + 1))
            file.write(numbers.randbytes(300))
    for path in files[250:400]:
        os.rename(path, path + ".renamed")
    for path in files[400:600]:
        os.unlink(path)
    for number, path in enumerate(files[600:700]):
        os.link(path, path + ".linked")
        os.chown(path, 1000 + number % 7, 2000 + number % 5)
        os.chmod(path, numbers.choice((0o600, 0o755, 0o4711, 0o2755, 0o444)))
        os.setxattr(path, "user.number", str(number).encode())
        os.utime(path, ns=(0, numbers.randrange(-1 << 55, 1 << 61)))
    yt.run("setfacl", "-m", "u:65534:r,g:50:rw", *files[700:720])
    tops = sorted(os.listdir(where))
    os.rename(os.path.join(where, tops[0]), os.path.join(where, tops[0] + "-renamed"))
    os.mkfifo(os.path.join(where, "fifo"))
    os.symlink("nowhere/at all", os.path.join(where, "dangling"))


def test_end_to_end():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}", flush=True)
    gateway = yt.Gateway()
    volume = yt.Volume("day", gateway.bucket("day"), env=gateway.env).init(interval="2s")
    archive, count = source_tree()
    yt.check(count > 2000, f"only {count} files found to unpack")
    volume.mount()
    unpacked = volume.path("sources")
    os.mkdir(unpacked)
    yt.run("tar", "-xf", archive, "-C", unpacked)
    said = build_project(volume.path("project"))
    repository = os.path.join(yt.TMP, "repository")
    make_repository(repository)
    use_git(repository, volume.path("clone-of-git"))
    database = use_database(volume.path("day.db"))
    volume.sync()
    morning, morning_tree = volume.latest(), yt.tree(volume.mountpoint)
    edit(unpacked, random.Random(seed))
    make(volume.path("project"), "-s", "program")
    with database:
        database.execute("DELETE FROM t WHERE n % 3 = 0")
    volume.sync()
    live = yt.tree(volume.mountpoint)
    status = volume.wait_state("synced")  # the kernel may write the database's mapped pages back at any time
    yt.check(status["requests"]["put"] > 0, "no PUT counted")
    yt.same_tree(yt.tree(volume.snapshot(morning, "sources")), part_of(morning_tree, b"sources"), "the sources of the morning")
    objects = gateway.objects("day")
    for key in objects:
        yt.check(all(c in "0123456789abcdefghijklmnopqrstuvwxyz/-" for c in key), f"key {key!r}")
    yt.check(sum(objects.values()) < 1.2 * sum(item.get("size", 0) for item in live.values()) + (10 << 20), "more is stored than there is")
    database.close()

    # The machine burns down. What is left is the bucket and the key.
    volume.umount()
    key = os.path.join(yt.TMP, "key")
    shutil.copy(volume.key_file, key)
    os.chmod(key, 0o600)
    env = dict(volume.env)
    volume.remove()
    fresh = yt.Volume("fresh", volume.remote, env=gateway.env)
    yt.check(env["YESTER_STATE_DIR"] != fresh.env["YESTER_STATE_DIR"], "the new machine has the state of the old one")
    fresh.yester("clone", fresh.remote, fresh.dir, "--name", "fresh", "--key-file", key, "--at", morning)
    yt.same_tree(yt.tree(fresh.dir), morning_tree, "the clone of the morning")
    fresh.remove()
    fresh = yt.Volume("fresh", volume.remote, env=gateway.env)
    fresh.yester("clone", fresh.remote, fresh.dir, "--name", "fresh", "--key-file", key)
    found = yt.tree(fresh.dir)
    for tree in (found, live):  # closing the database changed it, and that is in the last version
        for name in (b"", b"day.db", b"day.db-wal", b"day.db-shm"):
            tree.pop(name, None)
    yt.same_tree(found, live, "the clone")
    yt.equal(yt.run(os.path.join(fresh.dir, "project/program")), said, "what the program says")
    yt.check("up to date" in make(os.path.join(fresh.dir, "project"), "program"), "make builds again: the times are wrong")
    yt.equal(git(os.path.join(fresh.dir, "clone-of-git"), "status", "--porcelain"), "", "git status")
    git(os.path.join(fresh.dir, "clone-of-git"), "fsck", "--full", "--strict")
    connection = sqlite3.connect(os.path.join(fresh.dir, "day.db"))
    yt.equal(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity of the database")
    yt.equal(connection.execute("SELECT count(*) FROM t").fetchone(), (200,), "rows")
    connection.close()

    fresh.mount("-o", "take_over")
    yt.check(morning in fresh.versions(), "the morning is not listed")
    with open(fresh.path("continues"), "w") as file:
        file.write("life goes on")
    fresh.sync()
    fresh.umount()
    fresh.yester("check", fresh.dir, "--read-data")
    print(f"{count} files unpacked, {len(objects)} objects, digest {hashlib.sha256(repr(sorted(live.items())).encode()).hexdigest()[:16]}")


def part_of(tree, top):
    """What tree() finds from the directory `top` on."""
    found = {}
    for name, item in tree.items():
        if name == top or name.startswith(top + b"/"):
            found[name[len(top) + 1:]] = item = dict(item)
            if "same as" in item:
                item["same as"] = item["same as"][len(top) + 1:]
    return found


if __name__ == "__main__":
    yt.main(globals())

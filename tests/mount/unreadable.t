#!/usr/bin/python3 -B
# timeout: 240
"""What the disk of the tree does not give (EIO of bytes, attributes, xattrs) keeps nothing else from becoming safe: versions go on, with what they had
of it or without it; status says `degraded`, which file, why and what to do; nothing newer than the last complete version is called safe (I24); and
when it can be read again, or is gone, all is as if nothing had been. The disk is a failpoint that refuses the inodes that a file lists."""
import contextlib
import json
import os
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

READER = os.path.join(yt.TOP, "scripts/yester-read")


class Disk:
    """Refuses, at some failpoints, the inodes that break() was told of."""

    def __init__(self, name, *points, error="EIO"):
        self.list = os.path.join(yt.TMP, name + ".bad")
        self.env = {"YESTER_FAILPOINT": ",".join(f"{point}={error}@{self.list}" for point in points)}
        self.numbers = []

    def break_at(self, *paths):
        self.numbers += [os.lstat(path).st_ino for path in paths]
        self.write()

    def heal(self):
        self.numbers = []
        self.write()

    def write(self):
        with open(self.list + ".new", "w") as file:
            file.write("".join(f"{number}\n" for number in self.numbers))
        os.rename(self.list + ".new", self.list)


def write(path, data, offset=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def count(volume, table):
    """Rows of a table of the database."""
    with contextlib.closing(sqlite3.connect("file:" + volume.state + "/volume.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM " + table).fetchone()[0]


def make(name, *points, error="EIO", **config):
    disk = Disk(name, *points, error=error)
    volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN, env=disk.env).init(**({"interval": "1h"} | config))
    os.mkdir(os.path.join(volume.dir, "sub"))
    for number in range(5):
        write(os.path.join(volume.dir, f"sub/f{number}"), b"%d before " % number * 3000)
    volume.mount()
    volume.sync()
    yt.equal(volume.status()["state"], "synced", "state")
    return volume, disk


def refused(volume, paths, why="Input/output error"):
    """A sync that tells of one of those files; status does too."""
    done = volume.yester("sync", volume.dir, expect=None)
    yt.equal(done.returncode, 1, f"exit code of sync: {done.stderr}")
    status = volume.status()
    yt.equal(status["state"], "degraded", "state")
    for text in (status["last_error"], done.stderr.decode()):
        yt.check(any(f"{path}: can't be read ({why})" in text for path in paths), f"it says: {text}")
    yt.check("disk" in status["last_error"], f"last_error does not say what to do: {status['last_error']}")
    return status


def the_rest_goes_on(volume, paths, safe):
    """New versions have every change of the other files, and nothing newer than `safe` is called safe."""
    for number in range(3):
        newest = volume.latest()
        write(volume.path("sub/f2"), b"version %d of it" % number)
        write(volume.path(f"fresh{number}"), b"fresh")
        os.rename(volume.path("sub", "f3" if number % 2 == 0 else "g3"), volume.path("sub", "g3" if number % 2 == 0 else "f3"))
        status = refused(volume, paths)
        yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
        yt.check(volume.latest() > newest, "no version was made")
        for path in ("sub/f2", f"fresh{number}"):
            yt.equal(read(volume.snapshot("latest", path)), read(volume.path(path)), path)
        yt.equal(sorted(os.listdir(volume.snapshot("latest/sub"))), sorted(os.listdir(volume.path("sub"))), "names")


def is_healed(volume, name):
    """All is as if nothing had been."""
    volume.sync()
    volume.wait_state("synced")
    yt.equal(volume.status()["last_error"], None, "last_error")
    live = yt.tree(volume.mountpoint)
    yt.same_tree(yt.tree(volume.snapshot("latest")), live, "the newest version")
    volume.umount()
    other = volume.clone(name)
    yt.same_tree(yt.tree(other.dir), live, "the clone")
    other.yester("check", other.dir, "--read-data")
    other.remove()


def old_and_new(name, *points, **config):
    """An old file that changed, and a new one."""
    volume, disk = make(name, *points, **config)
    before, safe = read(volume.path("sub/f1")), volume.status()["safe_until"]
    write(volume.path("sub/f1"), b"CHANGED", 5000)
    write(volume.path("new"), b"never seen" * 1000)
    disk.break_at(volume.path("sub/f1"), volume.path("new"))
    the_rest_goes_on(volume, ("sub/f1", "new"), safe)
    yt.equal(read(volume.snapshot("latest/sub/f1")), before, "the last good content")
    yt.check(not os.path.exists(volume.snapshot("latest/new")), "a file that no version could have is in one")
    yt.equal(os.getxattr(volume.path("sub/f1"), "user.yester.state"), b"pending", "state of the file")
    yt.equal(os.getxattr(volume.path("sub/f2"), "user.yester.state"), b"synced", "state of another")
    return volume, disk, safe


def test_bytes():
    volume, disk, _ = old_and_new("bytes", "io/pread")
    disk.heal()
    is_healed(volume, "bytes-clone")


def test_attributes():
    volume, disk, _ = old_and_new("attributes", "backing/attrs")
    disk.heal()
    is_healed(volume, "attributes-clone")


def test_new_directory():
    """No version can have what is in a directory that none has."""
    volume, disk = make("directory", "backing/attrs")
    safe = volume.status()["safe_until"]
    os.makedirs(volume.path("new/inner"))
    disk.break_at(volume.path("new"))
    for number in range(4):
        newest = volume.latest()
        write(volume.path(f"new/f{number}"), b"%d" % number)
        write(volume.path("new/inner/f"), b"%d again" % number)
        write(volume.path(f"other{number}"), b"other")
        os.rename(volume.path("sub" if number % 2 == 0 else "new", "moved" if number else "f2"),
                  volume.path("new" if number % 2 == 0 else "sub", "moved"))
        status = refused(volume, ["new", "new/moved"])
        yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
        yt.check(volume.latest() > newest, "no version was made")
        yt.equal(sorted(os.listdir(volume.snapshot("latest"))), [f"other{n}" for n in range(number + 1)] + ["sub"], "names")
        yt.equal("moved" in os.listdir(volume.snapshot("latest/sub")), number % 2 == 1, "the file that goes to and fro is in the version")
    disk.heal()
    is_healed(volume, "directory-clone")


def test_removed():
    """Who removes what can't be read, or replaces it, needs not wait for the next try."""
    volume, _, _ = old_and_new("removed", "io/pread")
    write(volume.path("other"), b"written anew")
    # As long as they are open nothing else gets their inode numbers, which the disk refuses.
    held = [os.open(volume.path(path), os.O_RDONLY) for path in ("new", "sub/f1")]
    os.unlink(volume.path("new"))
    os.rename(volume.path("other"), volume.path("sub/f1"))
    volume.sync()
    volume.wait_state("synced")
    yt.equal(read(volume.snapshot("latest/sub/f1")), b"written anew", "the file in its place")
    for fd in held:
        os.close(fd)


def test_written_anew():
    """In place, on a disk that takes that: needs not wait for the next try either, which is minutes away after so many."""
    volume, disk = make("anew", "io/pread", interval="1s")
    safe = volume.status()["safe_until"]
    write(volume.path("sub/f1"), b"CHANGED", 5000)
    disk.break_at(volume.path("sub/f1"))
    the_rest_goes_on(volume, ["sub/f1"], safe)
    disk.heal()
    with open(volume.path("sub/f1"), "wb") as file:
        file.write(b"written anew")
    volume.wait_state("synced")
    yt.equal(read(volume.snapshot("latest/sub/f1")), b"written anew", "the file in the newest version")
    is_healed(volume, "anew-clone")


def test_tried_again_by_itself():
    """After a mount, at once; later less and less often. And nothing that was known of it is lost by unmounting or a crash."""
    volume, disk, safe = old_and_new("again", "io/pread", interval="1s")
    volume.umount("--timeout", "5s", expect=4)
    volume.mount()
    status = volume.wait_state("degraded")
    yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
    write(volume.path("sub/f4"), b"after mounting again")
    refused(volume, ("sub/f1", "new"))
    volume.kill()
    disk.heal()
    volume.mount()
    volume.wait_state("synced")
    is_healed(volume, "again-clone")


def test_handle_that_opens_nothing():
    """So the kernel tells of an inode that the disk does not give: as of one that is gone (ESTALE)."""
    volume, disk = make("stale", "backing/open-handle", error="ESTALE")
    safe = volume.status()["safe_until"]
    before = read(volume.path("sub/f1"))
    volume.umount()  # which closes what is open of it
    write(volume.path("sub/f1"), b"CHANGED", 5000)
    disk.break_at(volume.path("sub/f1"))
    volume.mount()
    for number in range(3):
        write(volume.path(f"other{number}"), b"other")
        status = refused(volume, ["sub/f1"], "Stale file handle")
        yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
        yt.equal(sorted(os.listdir(volume.snapshot("latest/sub"))), ["f0", "f1", "f2", "f3", "f4"], "names in the version")
        yt.equal(read(volume.snapshot("latest/sub/f1")), before, "the last good content")
        yt.equal(read(volume.snapshot("latest", f"other{number}")), b"other", "another file")
        if number == 1:
            volume.umount("--timeout", "5s", expect=4)
            volume.mount()
    disk.heal()
    is_healed(volume, "stale-clone")


def test_file_and_its_directory_that_open_nothing():
    """Both inodes in the same unreadable block: that neither opens is no proof that the file is gone, whatever the disk says of the directory."""
    for error in ("ESTALE", "EIO"):
        volume, disk = make("both-" + error.lower(), "backing/open-handle", error="ESTALE")
        safe = volume.status()["safe_until"]
        before = read(volume.path("sub/f1"))
        write(volume.path("sub/f1"), b"CHANGED", 5000)
        yt.wait_until("the change to be in the journal", lambda: count(volume, "journal_inode") > 0)
        volume.kill()  # so that nothing is open of them any more
        above = Disk("above-" + error.lower(), "backing/open-handle", error=error)
        volume.env["YESTER_FAILPOINT"] += "," + above.env["YESTER_FAILPOINT"]
        disk.break_at(os.path.join(volume.dir, "sub/f1"))
        above.break_at(os.path.join(volume.dir, "sub"))
        volume.mount()
        for number in range(2):
            write(volume.path(f"other{number}"), b"other")
            done = volume.yester("sync", volume.dir, expect=None)
            yt.equal(done.returncode, 1, f"exit code of sync: {done.stderr}")
            status = volume.status()
            yt.equal(status["state"], "degraded", "state")
            yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
            yt.equal(sorted(os.listdir(volume.snapshot("latest/sub"))), ["f0", "f1", "f2", "f3", "f4"], "names in the version")
            yt.equal(read(volume.snapshot("latest/sub/f1")), before, "the last good content")
            yt.equal(read(volume.snapshot("latest", f"other{number}")), b"other", "another file")
        disk.heal()
        above.heal()
        is_healed(volume, "both-clone-" + error.lower())


def test_directory_that_opens_nothing_at_a_scan():
    """What changed in it, and what is new there or gone, has not been seen: it is not said to be safe."""
    volume, disk = make("scan", "backing/open-handle", error="ESTALE")
    safe = volume.status()["safe_until"]
    before = read(volume.path("sub/f1"))
    volume.umount()
    write(os.path.join(volume.dir, "sub/f1"), b"CHANGED", 5000)
    for path, said in ("sub", ["sub/"]), ("fresh", ["a directory", "fresh"]):  # a sealer knows its name
        if path == "fresh":  # which no version has
            os.mkdir(os.path.join(volume.dir, path))
            write(os.path.join(volume.dir, path, "inner"), b"inner" * 100)
        disk.break_at(os.path.join(volume.dir, path))
        volume.mount()
        write(volume.path("other-" + path), b"other")
        status = refused(volume, said, "Stale file handle")
        yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
        yt.equal(sorted(os.listdir(volume.snapshot("latest/sub"))), ["f0", "f1", "f2", "f3", "f4"], "names in the version")
        yt.equal(read(volume.snapshot("latest/sub/f1")), before if path == "sub" else read(volume.path("sub/f1")), "the changed file")
        volume.umount("--timeout", "5s", expect=4)
        disk.heal()
    volume.mount()
    is_healed(volume, "scan-clone")


def name_below(name, place, prepare):
    """What a scan has found in directories waits for them, if they open nothing when its turn comes."""
    volume, disk = make(name, "backing/open-handle", error="ESTALE")
    safe = volume.status()["safe_until"]
    before = read(volume.path("sub/f1"))
    volume.umount()
    write(os.path.join(volume.dir, "sub/new"), b"new file" * 100)
    write(os.path.join(volume.dir, "other"), b"another file")
    os.rename(os.path.join(volume.dir, "other"), os.path.join(volume.dir, "sub/f1"))
    os.mkdir(os.path.join(volume.dir, "fresh"))
    write(os.path.join(volume.dir, "fresh/inner"), b"inner" * 100)
    os.mkdir(os.path.join(volume.dir, "passing"))
    write(os.path.join(volume.dir, "passing/inner"), b"inner" * 100)
    prepare(volume.dir)
    latch = os.path.join(yt.TMP, name + ".latch")
    volume.env["YESTER_FAILPOINT"] += f",{place}=latch:{latch}"
    volume.mount()
    yt.wait_until("the scan to be over", lambda: os.path.exists(latch))
    disk.break_at(os.path.join(volume.dir, "sub"), os.path.join(volume.dir, "fresh"))
    os.unlink(os.path.join(volume.dir, "passing/inner"))
    os.rmdir(os.path.join(volume.dir, "passing"))
    os.unlink(latch)
    status = volume.wait_state("degraded")
    yt.check(status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
    yt.equal(read(volume.snapshot("latest/sub/f1")), before, "the file that another one took the place of")
    disk.heal()
    is_healed(volume, name + "-clone")


def test_name_in_a_directory_that_opens_nothing():
    name_below("name", "import/to-journal", lambda directory: None)


def test_name_in_a_directory_that_opens_nothing_when_it_is_imported():
    def much(directory):
        with open(os.path.join(directory, "large"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 80 << 20)

    name_below("import", "import/begin", much)


def test_removed_behind_before_it_is_imported():
    """What only changed when the scan saw it, and is gone when its turn comes, leaves nothing of itself in the catalogue."""
    volume, _ = make("behind", "backing/open-handle")
    os.mkdir(volume.path("sub/inner"))
    write(volume.path("sub/inner/file"), b"inner" * 1000)
    with open(volume.path("large"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 80 << 20)
    volume.sync()
    volume.umount()
    for path in "large", "sub/f1", "sub/inner":
        os.chmod(os.path.join(volume.dir, path), 0o750)
    latch = os.path.join(yt.TMP, "behind.latch")
    volume.env["YESTER_FAILPOINT"] += f",import/begin=latch:{latch}"
    volume.mount()
    yt.wait_until("the scan to be over", lambda: os.path.exists(latch))
    os.unlink(os.path.join(volume.dir, "sub/f1"))
    os.unlink(os.path.join(volume.dir, "sub/inner/file"))
    os.rmdir(os.path.join(volume.dir, "sub/inner"))
    os.unlink(latch)
    volume.wait_state("synced")
    yt.equal(count(volume, "extent WHERE ino NOT IN (SELECT ino FROM inode)"), 0, "extents of no inode")
    yt.equal(count(volume, "name WHERE dir NOT IN (SELECT ino FROM inode)"), 0, "names in no directory")
    is_healed(volume, "behind-clone")


def test_without_the_database():
    """I24: a machine that has lost its database calls nothing safe that its versions lack."""
    volume, disk, safe = old_and_new("lost", "io/pread")
    volume.umount("--timeout", "5s", expect=4)
    for name in os.listdir(volume.state):
        if name.startswith("volume.db"):
            os.unlink(os.path.join(volume.state, name))
    volume.mount()
    status = volume.wait_state("degraded")
    yt.check(status["safe_until"] is None or status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
    status = refused(volume, ("sub/f1", "new"))
    yt.check(status["safe_until"] is None or status["safe_until"] <= safe, f"safe_until is {status['safe_until']}, after {safe}")
    disk.heal()
    is_healed(volume, "lost-clone")


def test_at_the_first_mount():
    """An import that meets such files."""
    disk = Disk("first", "io/pread", "backing/attrs")
    volume = yt.Volume("first", binary=yt.FAILPOINTS_BIN, env=disk.env)
    os.makedirs(os.path.join(volume.dir, "sub"))
    for number in range(5):
        write(os.path.join(volume.dir, f"sub/f{number}"), b"%d " % number * 3000)
    disk.break_at(os.path.join(volume.dir, "sub/f1"))
    volume.init(interval="1h")
    volume.mount()
    status = refused(volume, ["sub/f1"])
    yt.equal(status["safe_until"], None, "safe_until")
    yt.equal(sorted(os.listdir(volume.snapshot("latest/sub"))), ["f0", "f2", "f3", "f4"], "names in the version")
    other = volume.clone("first-clone")
    yt.check("could not be read" in other.cloned, f"clone says: {other.cloned}")
    independent = os.path.join(yt.TMP, "independent")
    said = subprocess.run([READER, volume.remote_path, *volume.secret(), "extract", "latest", independent], check=True, stderr=subprocess.PIPE).stderr
    yt.check(b"could not be read" in said, f"the independent reader says: {said}")
    yt.same_tree(yt.tree(independent), yt.tree(other.dir), "what the independent reader made")
    listed = json.loads(yt.run(READER, volume.remote_path, *volume.secret(), "list", "--json"))
    yt.equal([version["lacking"] for version in listed], [True], "which versions are lacking, says the independent reader")
    other.remove()
    disk.heal()
    is_healed(volume, "first-healed")


def test_overwriting_what_can_not_be_saved():
    """I4: an operation that would have to save old bytes or attributes for a version just being made, and can't, is not held up by that; nor is the
    version."""
    volume, disk = make("saving", "io/pread", "backing/attrs", interval="1s")
    disk.break_at(volume.path("sub/f1"), volume.path("sub"))
    for number in range(60):
        write(volume.path("sub/f1"), b"%d again and again" % number * 1000)
        os.chmod(volume.path("sub/f1"), 0o600 + number % 8)
        os.truncate(volume.path("sub/f1"), 10_000 - number)
        write(volume.path(f"other{number}"), b"%d" % number)
        if number % 6 == 0:
            refused(volume, ("sub", "sub/f1"))
    refused(volume, ("sub", "sub/f1"))
    yt.equal(sum(name.startswith("other") for name in os.listdir(volume.snapshot("latest"))), 60, "other files in the version")
    disk.heal()
    is_healed(volume, "saving-clone")


if __name__ == "__main__":
    yt.main(globals())

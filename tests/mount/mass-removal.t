#!/usr/bin/python3 -B
# timeout: 120
"""Most of the tree is removed through the mount, and the daemon is killed before the next version: the journal knows that these removals were made on purpose, and
nobody is asked. What was removed within the second for which the journal gathers its rows may be missing there; then the next mount asks, and loses
nothing whatever the answer is."""
import os
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

DIRS, FILES = 6, 40
NAMES = DIRS * (FILES + 1)


def full(name):
    volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN).init(interval="1h")
    for i in range(DIRS):
        os.mkdir(os.path.join(volume.dir, f"d{i}"))
        for j in range(FILES):
            with open(os.path.join(volume.dir, f"d{i}", f"f{j}"), "w") as file:
                file.write(f"{i} {j}\n")
    volume.mount()
    volume.sync()
    return volume, volume.latest()


def remove_all(volume):
    for i in range(DIRS):
        shutil.rmtree(volume.path(f"d{i}"))
    with open(volume.path("kept"), "w") as file:
        file.write("kept\n")


def journaled_removals(volume):
    database = sqlite3.connect(f"file:{volume.state}/volume.db?mode=ro", uri=True)
    try:
        return database.execute("SELECT count(*) FROM journal_name WHERE child IS NULL").fetchone()[0]
    finally:
        database.close()


def is_removed(volume, before):
    """The newest version is empty but for one file, and the one before it is whole."""
    newest = volume.latest()
    yt.check(newest != before, "no new version")
    yt.equal(sorted(os.listdir(volume.snapshot(newest))), ["kept"], "the newest version")
    yt.equal(sum(len(names) for _, _, names in os.walk(volume.snapshot(before))), DIRS * FILES, "files in the version before")
    with open(volume.snapshot(before, "d3", "f7")) as file:
        yt.equal(file.read(), "3 7\n", "a file of the version before")


def test_journaled():
    volume, before = full("journaled")
    remove_all(volume)
    yt.wait_until("the journal to have it all", lambda: journaled_removals(volume) >= NAMES)
    volume.kill()
    volume.mount()
    volume.sync()
    is_removed(volume, before)
    volume.umount()


def test_killed_while_sealing():
    volume, before = full("sealing")
    volume.umount()
    volume.mount(env={"YESTER_FAILPOINT": "seal/cut=kill"})
    remove_all(volume)
    yt.wait_until("the journal to have it all", lambda: journaled_removals(volume) >= NAMES)
    volume.sync(expect=None)
    volume.kill()
    volume.mount()
    volume.sync()
    is_removed(volume, before)
    volume.umount()


def test_killed_at_once():
    volume, before = full("once")
    remove_all(volume)
    volume.kill()
    volume.mount()
    done = volume.sync(expect=None)
    if done.returncode != 0:
        yt.check(b"more than half of the files are gone" in done.stderr and b"accept_loss" in done.stderr, done.stderr)
        yt.equal(volume.status()["state"], "degraded", "state")
        yt.equal(volume.latest(), before, "the newest version")
        volume.umount(expect=1)
        volume.mount("-o", "accept_loss")
        volume.sync()
    is_removed(volume, before)
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

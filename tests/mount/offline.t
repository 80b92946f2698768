#!/usr/bin/python3 -B
# timeout: 240
"""Promise 1, faults 1, 13 and 26: while the remote is gone (killed, refusing, stalled), mounting, every operation, fsync, .snapshots and unmounting
work promptly; nothing is lost; and when it is back, everything goes up by itself."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

PROMPTLY = 10  # seconds: less than a try to reach the remote takes while that stalls
beside = yt.Beside()


def prompt(what, function, *arguments, **words):
    began = time.monotonic()
    answer = function(*arguments, **words)
    beside.check(what, began, PROMPTLY)
    return answer


def work(volume, name):
    """Ordinary work on the mount, each operation by the clock."""
    where = volume.path(name)
    prompt("mkdir", os.mkdir, where)
    for i in range(50):
        fd = prompt("create", os.open, os.path.join(where, str(i)), os.O_CREAT | os.O_RDWR)
        prompt("write", os.write, fd, os.urandom(20_000))
        prompt("fsync", os.fsync, fd)
        prompt("read", os.pread, fd, 20_000, 0)
        os.close(fd)
    prompt("rename", os.rename, os.path.join(where, "0"), os.path.join(where, "renamed"))
    prompt("unlink", os.unlink, os.path.join(where, "1"))
    prompt("ls", os.listdir, where)
    prompt("df", os.statvfs, where)
    prompt("stat", os.stat, where)


def while_gone(volume):
    """The remote is gone: two sessions of work, one ended by unmounting and one by a crash."""
    work(volume, "one")
    status = volume.wait_state("offline")
    yt.check(status["last_error"], "offline, and last_error is empty")
    yt.check(status["safe_until"], "safe_until is gone, though an earlier version is in the remote")
    yt.equal(volume.yester("sync", volume.dir, "--timeout", "1s", expect=None).returncode, 4, "exit code of sync")
    live = yt.tree(volume.mountpoint)
    yt.same_tree(prompt(".snapshots", yt.tree, volume.snapshot("latest")), live, "the newest version, which is in the spool")
    done = prompt("umount", volume.yester, "umount", volume.dir, "--timeout", "2s", expect=None)
    yt.equal(done.returncode, 4, "exit code of umount")
    volume.wait_gone()
    yt.same_tree(yt.tree(volume.dir), live, "the plain directory")
    prompt("mount", volume.mount)
    yt.same_tree(yt.tree(volume.mountpoint), live, "the tree after mounting")
    yt.same_tree(prompt(".snapshots", yt.tree, volume.snapshot("latest")), live, "the newest version after mounting")
    work(volume, "two")
    live = yt.tree(volume.mountpoint)
    volume.kill()
    prompt("mount after a crash", volume.mount)
    yt.same_tree(yt.tree(volume.mountpoint), live, "the tree after the crash")
    work(volume, "three")
    return yt.tree(volume.mountpoint)


def back_again(volume, live, name):
    volume.wait_state("synced", 90)
    yt.equal((volume.status()["pending_bytes"], volume.status()["pending_files"]), (0, 0), "pending bytes and files")
    other = volume.clone(name)
    yt.same_tree(yt.tree(other.dir), live, "the clone")
    other.mount("-o", "take_over")
    yt.same_tree(yt.tree(other.snapshot("latest")), live, "the newest version in the clone")
    other.umount()


def make(gateway, name):
    volume = yt.Volume(name, gateway.bucket(name), env=gateway.env).init(interval="1s")
    volume.mount()
    with open(volume.path("before"), "w") as file:
        file.write("before")
    volume.sync()
    return volume


def test_offline():
    gateway = yt.Gateway(proxy=True)
    killed, refused, stalled = (make(gateway, name) for name in ("killed", "refused", "stalled"))

    gateway.proxy("refuse")
    live = while_gone(refused)
    gateway.proxy("pass")
    back_again(refused, live, "clone-refused")
    refused.umount()

    gateway.proxy("stall")
    live = while_gone(stalled)
    gateway.proxy("pass")
    back_again(stalled, live, "clone-stalled")
    stalled.umount()

    gateway.do("kill")
    live = while_gone(killed)
    gateway.do("restart")
    back_again(killed, live, "clone-killed")
    killed.umount()


def test_missing_directory_of_a_file_store():
    """The disk that holds a file store is not there for a while."""
    volume = yt.Volume("files").init(interval="1s")
    volume.mount()
    work(volume, "one")
    volume.sync()
    os.rename(volume.remote_path, volume.remote_path + ".away")
    work(volume, "two")
    wanted = ("offline", "degraded")
    yt.wait_until("the trouble to show", lambda: volume.status()["state"] in wanted)
    yt.check(not os.path.exists(volume.remote_path), "the store was made anew")
    live = yt.tree(volume.mountpoint)
    yt.equal(prompt("umount", volume.yester, "umount", volume.dir, "--timeout", "1s", expect=None).returncode, 4, "exit code of umount")
    volume.wait_gone()
    yt.check(50 <= volume.status()["pending_files"] < 60, f"what waits, unmounted: {volume.status()}")
    prompt("mount", volume.mount)
    yt.same_tree(yt.tree(volume.mountpoint), live, "the tree after mounting")
    yt.check(50 <= volume.status()["pending_files"] < 60, f"what waits, after mounting: {volume.status()}")
    os.rename(volume.remote_path + ".away", volume.remote_path)
    back_again(volume, live, "clone-files")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

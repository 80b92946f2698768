#!/usr/bin/python3 -B
# timeout: 180
# both libfuse
"""Mounting and unmounting in each way that people do it: what was there is there afterwards, and nothing of it stays behind. Faults 29, 38."""
import errno
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402


def make(name, **config):
    volume = yt.Volume(name)
    os.makedirs(volume.dir)
    fill(volume.dir)
    return volume.init(**config)


def fill(where):
    os.makedirs(os.path.join(where, "sub"))
    for name in ("a", "sub/b"):
        with open(os.path.join(where, name), "w") as file:
            file.write("content of " + name)
    os.symlink("a", os.path.join(where, "link"))


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


def mount_of(volume):
    found = [(kind, options) for place, kind, options in yt.mounts(volume.base) if place == volume.mountpoint]
    yt.equal(len(found), 1, f"mounts on {volume.mountpoint}")
    return found[0]


def test_in_place():
    volume = make("inplace")
    before = yt.tree(volume.dir)
    volume.mount()
    yt.equal(mount_of(volume)[0], "fuse.yester", "type of the mount")
    above, below = os.statvfs(volume.dir), os.statvfs(volume.base)
    for field in ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax"):
        yt.equal(getattr(above, field), getattr(below, field), "statfs: " + field)
    yt.same_tree(yt.tree(volume.dir), before, "what shows after the mount")
    yt.check(".snapshots" not in os.listdir(volume.dir), ".snapshots is listed")
    write(volume.path("new"), "written through the mount")
    volume.sync()
    after = yt.tree(volume.dir)
    yt.same_tree(yt.tree(volume.snapshot("latest")), after, "the newest version")
    status = volume.status()
    yt.equal((status["mounted"], status["directory"], status["mountpoint"]), (True, volume.dir, volume.dir), "status")
    again = volume.mount(expect=None)
    yt.check(again.returncode == 1 and b"already" in again.stderr, f"a second mount of the same: {again}")
    volume.umount()
    yt.check(not yt.is_mounted(volume.dir), "still mounted")
    yt.same_tree(yt.tree(volume.dir), after, "the plain directory")
    yt.equal(volume.status()["state"], "unmounted", "state")
    volume.mount()
    yt.same_tree(yt.tree(volume.dir), after, "what shows after mounting again")
    yt.same_tree(yt.tree(volume.snapshot("latest")), after, "the newest version after mounting again")
    volume.umount()


def test_elsewhere():
    volume = make("elsewhere")
    before = yt.tree(volume.dir)
    place = os.path.join(volume.base, "place")
    volume.mount(mountpoint=place)
    yt.same_tree(yt.tree(place), before, "what shows on the mount point")
    write(os.path.join(place, "new"), "there")
    yt.equal(read(os.path.join(volume.dir, "new")), "there", "the backing file")
    yt.equal(volume.status()["mountpoint"], place, "status")
    volume.sync()
    yt.equal(read(volume.snapshot("latest", "new")), "there", "the file in the version")
    volume.umount()
    yt.equal(os.listdir(place), [], "the mount point after unmounting")
    volume.mount(mountpoint=place)
    volume.yester("umount", place)
    volume.wait_gone()


def test_foreground():
    volume = make("foreground")
    daemon = subprocess.Popen([yt.YESTER, "mount", volume.dir, "-f"], env=volume.env, stdin=subprocess.DEVNULL)
    try:
        yt.wait_until("the mount", lambda: yt.is_mounted(volume.dir))
        volume.note_daemon()
        yt.equal(volume.pid, daemon.pid, "the process in the lock")
        write(volume.path("new"), "x")
        daemon.send_signal(signal.SIGTERM)
        yt.equal(daemon.wait(60), 0, "exit code after SIGTERM with all uploaded")
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
    yt.check(not yt.is_mounted(volume.dir), "still mounted")
    yt.equal(read(os.path.join(volume.dir, "new")), "x", "the file")
    volume.mount()
    yt.equal(read(volume.snapshot("latest", "new")), "x", "the file in the version that was cut at the end")
    volume.umount()


def test_other_ways_to_unmount():
    volume = make("ways", interval="1h")
    for number, words in enumerate((["fusermount3", "-u", volume.dir], ["umount", volume.dir], ["umount", "-l", volume.dir])):
        volume.mount()
        write(volume.path("new"), str(number))
        yt.run(*words)
        volume.wait_gone()
        yt.check(not yt.is_mounted(volume.dir), f"still mounted after {words[0]}")
        yt.equal(read(os.path.join(volume.dir, "new")), str(number), "the file")
    volume.mount()
    volume.sync()
    yt.equal(read(volume.snapshot("latest", "new")), "2", "the file in the version")
    write(volume.path("new"), "in no version")
    os.rename(volume.remote_path, volume.remote_path + ".away")
    with open(volume.path("a")):
        done = volume.yester("umount", volume.dir, expect=1)
        yt.check(yt.is_mounted(volume.dir), "a busy mount was unmounted")
        yt.equal(volume.status()["spool_bytes"], 0, "what waits for upload: a busy mount is refused before a last version is made")
    os.rename(volume.remote_path + ".away", volume.remote_path)
    volume.umount()


def test_copy_in_another_namespace():
    """A container that is there before has a copy of the mount, which goes on when the mount is gone: without us it is dead, and it keeps nobody from
    unmounting, and mounting again."""
    volume = make("copied")
    before = yt.tree(volume.dir)
    for end in (volume.umount, lambda: os.kill(volume.pid, signal.SIGTERM)):
        volume.mount()
        container = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", "cd sub && pwd && read line && exec cat b"],
                                     cwd=volume.mountpoint, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yt.equal(container.stdout.readline().decode().strip(), os.path.join(volume.mountpoint, "sub"), "the container is in")
            end()
            volume.wait_gone()
            yt.same_tree(yt.tree(volume.dir), before, "the directory")
            container.stdin.write(b"go\n")
            out, problem = container.communicate()
            yt.check(container.returncode != 0 and b"not connected" in problem, f"the copy says {out}, {problem}")
        finally:
            container.kill()
            container.wait()
    volume.mount()
    volume.umount()


MAPPED_PAGES = 4096
MAPPER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
pages = mmap.mmap(fd, 0)
for at in range(0, len(pages), 4096):
    pages[at:at + 4] = b"new!"
print("stored", flush=True)
sys.stdin.readline()
os._exit(0)
"""


def store(volume, namespace=()):
    """A program that has stored to each page of sub/b through a mapping, and ends when its input does."""
    program = subprocess.Popen([*namespace, sys.executable, "-c", MAPPER, volume.path("sub/b")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yt.equal(program.stdout.readline().strip(), b"stored", "the program has stored")
    return program


def test_stored_through_a_mapping():
    """What a program has stored through a mapping, and nobody has written back yet, is in the directory though the mount ends under the program: it runs
    where there is a copy of the mount, or the daemon is told to end whoever uses the mount."""
    volume = make("mapped")
    alone = ["unshare", "-m", "--propagation", "private"]
    for namespace, end in ((alone, volume.umount), (alone, lambda: os.kill(volume.pid, signal.SIGTERM)), ([], lambda: os.kill(volume.pid, signal.SIGTERM))):
        below = os.path.join(volume.dir, "sub/b")
        write(below, "old." * 1024 * MAPPED_PAGES)
        volume.mount()
        program = store(volume, namespace)
        try:
            end()
            volume.wait_gone()
            yt.equal(read(below).count("new!"), MAPPED_PAGES, f"pages that a program stored to ({namespace}), in the directory")
        finally:
            program.kill()
            program.wait()
    volume.mount()
    volume.sync()
    yt.equal(read(volume.snapshot("latest", "sub/b")).count("new!"), MAPPED_PAGES, "pages that a program stored to, in the newest version")
    volume.umount()


MANY_FILES, MANY_PAGES = 60, 128
MANY_MAPPER = """
import mmap, os, sys
kept = []
for name in sorted(os.listdir(sys.argv[1])):
    pages = mmap.mmap(os.open(os.path.join(sys.argv[1], name), os.O_RDWR), 0)
    for at in range(0, len(pages), 2 * 4096):
        pages[at:at + 4] = b"new!"
    kept.append(pages)
print("stored", flush=True)
sys.stdin.readline()
os._exit(0)
"""


def test_stored_through_many_mappings():
    """As above, to so many single pages of so many files that the kernel does not write them all back at once (congestion_threshold)."""
    volume = make("many-mapped", interval="1h")
    below = os.path.join(volume.dir, "many")
    os.mkdir(below)
    for number in range(MANY_FILES):
        write(os.path.join(below, str(number)), "old." * 1024 * 2 * MANY_PAGES)
    volume.mount()
    program = subprocess.Popen([sys.executable, "-c", MANY_MAPPER, volume.path("many")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yt.equal(program.stdout.readline().strip(), b"stored", "the program has stored")
        os.kill(volume.pid, signal.SIGTERM)
        volume.wait_gone()
        found = sum(read(os.path.join(below, str(number))).count("new!") for number in range(MANY_FILES))
        yt.equal(found, MANY_FILES * MANY_PAGES, "pages that a program stored to, in the directory")
    finally:
        program.kill()
        program.wait()


def test_moved():
    """A directory above the mount point gets another name: the mount is where it was not mounted, in use as before."""
    volume = make("moved", interval="1h")
    below = os.path.join(volume.dir, "sub/b")
    one, other = (os.path.join(volume.base, name) for name in ("one", "other"))
    for end in ("umount", "SIGTERM"):
        write(below, "old." * 1024 * MAPPED_PAGES)
        volume.mount(mountpoint=os.path.join(one, "mnt"))
        os.rename(one, other)
        volume.mountpoint = os.path.join(other, "mnt")
        program = store(volume)
        try:
            if end == "umount":
                done = volume.yester("umount", volume.dir, expect=None)
                yt.check(done.returncode == 1 and b"in use" in done.stderr, f"umount of a mount that is in use: {done}")
                yt.check(volume.is_alive() and volume.mountpoint.encode() in done.stderr, f"message: {done.stderr}")
                program.communicate(b"\n")
                volume.umount()
            else:
                os.kill(volume.pid, signal.SIGTERM)
                volume.wait_gone()
            yt.equal(read(below).count("new!"), MAPPED_PAGES, f"pages that a program stored to, in the directory after {end}")
            yt.check(not yt.mounts(volume.base), f"a mount is left: {yt.mounts(volume.base)}")
        finally:
            program.kill()
            program.wait()
        os.rename(other, one)


def test_mounted_over():
    """Somebody else's mount lies over ours, or over a directory above it: it is not ours to take away."""
    if os.geteuid() != 0:
        raise yt.Skip("only root can mount a tmpfs")
    volume = make("mounted-over")
    place = os.path.join(volume.base, "place")
    for end in ("umount", "SIGTERM"):
        for above in (place + "/mnt", place):
            volume.mount(mountpoint=place + "/mnt")
            yt.run("mount", "-t", "tmpfs", "tmpfs", above)
            os.makedirs(place + "/mnt", exist_ok=True)  # what a path leads to
            if end == "umount":
                done = volume.yester("umount", volume.dir, expect=None, timeout=60)
                yt.check(done.returncode == 1 and b"is mounted over it" in done.stderr, f"umount below another mount: {done}")
                yt.check(volume.is_alive(), "the daemon has ended")
            else:
                os.kill(volume.pid, signal.SIGTERM)
                volume.wait_gone()
            yt.equal([kind for _, kind, _ in yt.mounts(place)], ["fuse.yester", "tmpfs"], f"mounts after {end}")
            yt.run("umount", above)
            if end == "umount":
                volume.umount()
            yt.detach(place + "/mnt")
            volume.mountpoint = volume.dir


def test_again_at_once():
    """umount(8) returns before the daemon has made its last version: who mounts, asks or syncs at that moment waits for it and is not refused."""
    volume = make("again")
    for number in range(6):
        volume.mount()
        for name in range(50):
            write(volume.path(f"new{name}"), f"{number} {name}")
        yt.run("umount", volume.dir)
    for number in range(3):
        volume.wait_gone()
        volume.mount()
        write(volume.path("new"), str(number))
        yt.run("umount", volume.dir)
        while volume.is_alive():  # at every moment of its end
            volume.status()
    volume.mount()
    yt.run("umount", "-l", volume.dir)
    volume.sync()
    volume.mount()
    yt.equal(read(volume.snapshot("latest", "new49")), "5 49", "the file in the version")
    volume.umount()


def test_interval():
    """Nobody asks for a version: one is made when `interval` is over since the first change that is in none, and none when nothing changes."""
    volume = make("interval", interval="1s")
    volume.mount()
    volume.sync()
    before = volume.versions()
    write(volume.path("new"), "x")
    yt.wait_until("a version", lambda: len(volume.versions()) > len(before))
    yt.equal(read(volume.snapshot("latest", "new")), "x", "the file in the version")
    status = volume.wait_state("synced")
    volume.umount()
    yt.equal(volume.status()["version"], status["version"], "the newest version after an unmount without a change")
    volume.configure(interval="1h")
    volume.mount()
    write(volume.path("new"), "y")
    volume.umount()
    yt.equal(volume.status()["version"], status["version"] + 1, "the newest version after an unmount with a change")


def test_interrupted_unmount():
    """Ctrl-C while `yester umount` waits for uploads: it stays mounted."""
    volume = make("interrupted", interval="1h")
    log = os.path.join(volume.base, "log")
    with open(log, "wb") as file:
        daemon = subprocess.Popen([yt.YESTER, "mount", volume.dir, "-f"], env=volume.env, stdin=subprocess.DEVNULL, stderr=file)
    try:
        yt.wait_until("the mount", lambda: yt.is_mounted(volume.dir))
        volume.note_daemon()
        volume.sync()
        os.rename(volume.remote_path, volume.remote_path + ".away")
        write(volume.path("new"), "x")
        asking = subprocess.Popen([yt.YESTER, "umount", volume.dir, "--timeout", "1h"], env=volume.env, stdin=subprocess.DEVNULL)
        yt.wait_until("the last version", lambda: volume.status()["spool_bytes"])
        asking.send_signal(signal.SIGINT)
        asking.wait(60)
        yt.wait_until("its end", lambda: daemon.poll() is not None or "nobody waits" in read(log))
        yt.check(daemon.poll() is None and yt.is_mounted(volume.dir), "the daemon went on and unmounted")
        os.rename(volume.remote_path + ".away", volume.remote_path)
        volume.umount()
        yt.equal(daemon.wait(60), 0, "exit code of the daemon")
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()


def test_killed_daemon():
    """Fault 29: the dead mount says ENOTCONN rather than showing the raw directory; umount -l and a new mount recover."""
    volume = make("killed", interval="1h")
    volume.mount()
    volume.sync()
    write(volume.path("written"), "before the end")
    os.rename(volume.path("a"), volume.path("renamed"))
    os.kill(volume.pid, signal.SIGKILL)
    volume.wait_gone()

    def is_dead():
        try:
            os.listdir(volume.dir)
        except OSError as problem:
            return problem.errno == errno.ENOTCONN
        raise yt.Failure("the dead mount lists a directory")
    yt.wait_until("ENOTCONN", is_dead)
    yt.detach(volume.dir)
    expected = yt.tree(volume.dir)
    volume.mount()
    yt.same_tree(yt.tree(volume.dir), expected, "the tree after recovery")
    yt.equal(read(volume.path("written")), "before the end", "the file")
    volume.sync()
    yt.same_tree(yt.tree(volume.snapshot("latest")), expected, "the version after recovery")
    yt.equal(volume.status()["state"], "synced", "state")
    volume.umount()


def test_mount_over_a_dead_mount():
    """`yester mount` may also clear the dead mount itself, or refuse and say what to do; it may not hang or hide it."""
    volume = make("over")
    volume.mount()
    os.kill(volume.pid, signal.SIGKILL)
    volume.wait_gone()
    done = volume.mount(expect=None)
    if done.returncode == 0:
        volume.note_daemon()
        yt.equal(read(volume.path("a")), "content of a", "the file")
        volume.umount()
    else:
        yt.check(b"umount" in done.stderr, f"the message does not say what to do: {done.stderr.decode()}")
        yt.detach(volume.dir)
        volume.mount()
        volume.umount()
    yt.detach(volume.dir)


def test_what_can_not_be_mounted():
    volume = make("refused")
    yt.check(volume.yester("mount", os.path.join(yt.TMP, "absent"), expect=None).returncode != 0, "an absent directory was mounted")
    os.rename(volume.dir, volume.dir + ".away")
    os.mkdir(volume.dir)
    done = volume.mount(expect=None)
    yt.check(done.returncode != 0, "another, empty directory was mounted (fault 53)")
    yt.check(done.stderr.startswith(b"yester: "), f"message: {done.stderr!r}")
    os.rmdir(volume.dir)
    os.rename(volume.dir + ".away", volume.dir)
    volume.mount()
    volume.umount()


def test_mount_that_fails_at_the_end():
    """What it has mounted already goes again: without its daemon it would be dead."""
    volume = make("half-mounted")
    done = volume.yester("mount", volume.dir, binary=yt.FAILPOINTS_BIN, env={"YESTER_FAILPOINT": "invalidate/thread=EAGAIN"}, expect=None)
    yt.check(done.returncode == 1 and b"thread" in done.stderr, f"a mount without its thread: {done}")
    yt.equal(yt.mounts(volume.base), [], "mounts")
    volume.mount()
    volume.umount()


def test_options():
    volume = make("options")
    volume.mount("-o", "ro,nosuid,nodev,noexec,noatime,snapdir=visible")
    options = mount_of(volume)[1].split(",")
    for option in ("ro", "nosuid", "nodev", "noexec", "noatime"):
        yt.check(option in options, f"{option} is not among {options}")
    try:
        write(volume.path("new"), "x")
        raise yt.Failure("a read-only mount takes writes")
    except OSError as problem:
        yt.equal(problem.errno, errno.EROFS, "errno")
    yt.check(".snapshots" in os.listdir(volume.dir), ".snapshots is not listed with snapdir=visible")
    yt.check(".snapshots" not in os.listdir(volume.path("sub")), ".snapshots is listed below the root")
    volume.umount()


def test_many_rounds():
    """Fault 38, in small: nothing leaks, neither locally nor in the remote."""
    volume = make("rounds")
    volume.mount()
    volume.umount()

    def remains():
        return sorted(os.listdir(volume.state)), sum(len(files) for _, _, files in os.walk(volume.remote_path))
    before = remains()
    rounds = int(os.environ.get("ROUNDS", "20"))
    for _ in range(rounds):
        volume.mount()
        yt.equal(read(volume.path("a")), "content of a", "the file")
        volume.umount()
    yt.equal(remains(), before, "files in the state directory, and how many objects in the remote, after rounds without a change")


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 300
# both libfuse
"""What the kernel keeps, raced: processes change a tree through the mount, as fast as they can, and look at it all the time, so that the kernel keeps something of everything; then another one changes it behind the mount.
At quiet points the mount shows exactly what is in the directory: names present and absent, listings, attributes, targets, contents. SEED chooses another sequence, ROUNDS how many quiet points there are."""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

SEED = int(os.environ.get("SEED") or time.time_ns() % 1_000_000_007)
ROUNDS = int(os.environ.get("ROUNDS") or 8)
WORKERS, STEPS = 4, 150
DIRS = ("", "a", "a/b", "c", "d0", "d1")
NAMES = tuple("n%d" % i for i in range(10)) + ("d0", "d1")


def everywhere():
    return [os.path.join(directory, name) for directory in DIRS for name in NAMES]


def one_step(place, pick):
    """One random operation, or look, below `place`."""
    def path():
        return os.path.join(place, pick.choice(DIRS), pick.choice(NAMES))
    at, to = path(), path()
    what = pick.randrange(24)
    if what < 3:
        with open(at, "ab") as file:
            file.write(b"%d " % pick.randrange(1000))
    elif what == 3:
        with open(at, "wb") as file:
            file.write(b"x" * pick.randrange(9000))
    elif what < 6:
        os.unlink(at)
    elif what == 6:
        os.mkdir(at)
    elif what == 7:
        os.rmdir(at)
    elif what < 10:
        os.rename(at, to)
    elif what == 10:
        yt.renameat2(at, to, yt.RENAME_EXCHANGE)
    elif what == 11:
        yt.renameat2(at, to, yt.RENAME_NOREPLACE)
    elif what == 12:
        os.link(at, to)
    elif what == 13:
        os.symlink(pick.choice(NAMES), at)
    elif what == 14:
        os.chmod(at, pick.choice((0o600, 0o644, 0o755, 0o777)))
    elif what == 15:
        os.truncate(at, pick.randrange(5000))
    elif what == 16:
        os.utime(at, ns=(pick.randrange(10 ** 18), pick.randrange(10 ** 18)))
    elif what == 17:
        os.setxattr(at, "user.x", b"%d" % pick.randrange(100))
    elif what == 18:
        os.readlink(at)
    elif what == 19:
        with open(at, "rb") as file:
            file.read()
    elif what == 20:
        os.listdir(os.path.dirname(at))
    elif what == 21:
        for entry in os.scandir(os.path.dirname(at)):
            entry.stat(follow_symlinks=False)
    else:
        os.lstat(at)


def work(place, seed, steps):
    pick = random.Random(seed)
    for _ in range(steps):
        try:
            one_step(place, pick)
        except OSError as problem:
            # What a plain directory answers too. ESTALE: changed behind the mount twice within one call.
            if problem.errno not in (1, 2, 16, 17, 18, 20, 21, 22, 39, 40, 31, 26, 116):
                raise


def seen(path):
    """All that can be seen of a name."""
    try:
        st = os.lstat(path)
    except OSError as problem:
        return problem.errno
    found = [st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns]
    kind = st.st_mode & 0o170000
    if kind == 0o120000:
        found.append(os.readlink(path))
    elif kind == 0o040000:
        found.append(sorted((entry.name, entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(path)))
    else:
        with open(path, "rb") as file:
            found.append(file.read())
    return found


def compare(place, directory, what):
    for name in [""] + everywhere():
        # The mount first: the other way round it might be right by having just been asked.
        mine, its = seen(os.path.join(place, name)), seen(os.path.join(directory, name))
        if isinstance(mine, list) and isinstance(its, list) and (mine[:2], mine[8:]) == (its[:2], its[8:]):
            # Times of an inode that was looked at and changed at once may lag, for as long as attributes are kept.
            yt.wait_until(f"seed {SEED}, {what}: attributes of {name!r}", lambda: seen(os.path.join(place, name)) == its, 120)
        else:
            yt.equal(mine, its, f"seed {SEED}, {what}: {name!r}")


def start(place, seed):
    return subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), "--work", place, str(seed), str(STEPS)], stderr=subprocess.PIPE)


def finish(workers):
    for worker in workers:
        _, said = worker.communicate(timeout=250)
        yt.check(worker.returncode == 0, f"seed {SEED}: a worker: {said.decode()}")


def make_dirs(place):
    for directory in DIRS:
        try:
            os.makedirs(os.path.join(place, directory), exist_ok=True)
        except OSError:  # it is something else now
            pass


def race(name, behind, *options):
    volume = yt.Volume(name).init(interval="1h")
    place = os.path.join(volume.base, "mnt")
    volume.mount("-o", ",".join(("exclusive",) + options), mountpoint=place)
    volume.sync()
    for round_ in range(ROUNDS):
        make_dirs(place)
        seeds = [SEED * 1000 + round_ * 10 + i for i in range(WORKERS)]
        workers = [start(place, seed) for seed in seeds]
        while behind and any(worker.poll() is None for worker in workers):
            volume.sync("--rescan")  # nothing to find: it tells the kernel what it knows
        finish(workers)
        if behind:
            for name in everywhere():  # what is not there is kept, too
                seen(os.path.join(place, name))
            finish([start(volume.dir, seeds[0] + 7)])
            volume.sync("--rescan")
        compare(place, volume.dir, f"round {round_}")
    volume.sync()
    yt.same_tree(yt.tree(os.path.join(place, ".snapshots/latest")), yt.tree(volume.dir), f"seed {SEED}: the version and the directory")
    volume.umount()


def test_own_changes():
    race("own", False)


def test_own_changes_cached():
    race("cached", False, "no_passthrough")


def test_changes_on_both_sides():
    race("both", True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        print(f"SEED={SEED}")
        yt.main(globals())

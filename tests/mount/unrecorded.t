#!/usr/bin/python3 -B
# timeout: 300
"""The tests of promise 3 would notice: in a build in which one kind of change isn't recorded, or frozen bytes are not saved (I4), versions are no prefix any more. Each short test here is done first with everything
recorded, and passes, and then with one thing left out, and must fail."""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import workload  # noqa: E402
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def look_for_gaps(volume, rule):
    """What the check of prefix.t says to a few versions made under that rule."""
    volume.mount()
    crew = workload.Crew(volume.path("crew"), 2, 12, SEED, workload.KINDS_LIVE)
    crew.prepare()
    volume.sync()
    volume.umount()
    volume.mount(env={"YESTER_FAILPOINT": rule} if rule else {})
    called = {}
    for _ in crew.stages(2):
        before = time.monotonic()
        volume.sync()
        called[volume.latest()] = before
    yt.wait_until("the end of the work", lambda: not crew.is_busy())
    crew.stop(hurry=False)
    before = time.monotonic()
    volume.sync()
    called[volume.latest()] = before
    for name, before in called.items():
        workload.check_prefix(crew, volume.snapshot(name, "crew"), before)
    workload.check_all_seen(crew, volume.snapshot(volume.latest(), "crew"))


def must_fail(what, work):
    try:
        work()
    except yt.Failure as failure:
        print(f"without {what}: {failure}", flush=True)
        return
    raise yt.Failure(f"nothing was noticed without {what}")


def fresh(name):
    return yt.Volume(name, binary=yt.FAILPOINTS_BIN).init(interval="1h")


def test_recording():
    print(f"SEED={SEED}", flush=True)
    look_for_gaps(fresh("all"), None)
    for what in ("data", "names", "attrs"):
        must_fail(what, lambda what=what: look_for_gaps(fresh(what), f"omit/{what}=EIO"))


def change_while_frozen(volume, rules):
    """Everything is dirty, a version is cut, and before a byte of it is read all is changed again: the version has what was there at the cut."""
    latch = os.path.join(volume.base, "latch")
    names = ["overwritten", "truncated", "grown", "renamed-over", "unlinked", "punched", "chmod"]
    volume.mount()
    volume.sync()
    volume.umount()
    volume.mount(env={"YESTER_FAILPOINT": ",".join([f"seal/cut=latch:{latch}"] + rules)})
    old, new = b"old" * 30_000, b"new" * 30_000
    for name in names:
        with open(volume.path(name), "wb") as file:
            file.write(old)
        os.chmod(volume.path(name), 0o640)
    with open(volume.path("other"), "wb") as file:
        file.write(new)
    yt.check(not os.path.exists(latch), "a cut before its time")
    with subprocess.Popen([volume.binary, "sync", volume.dir], env=volume.env) as sync:
        yt.wait_until("the cut", lambda: os.path.exists(latch))
        with open(volume.path("overwritten"), "r+b") as file:
            file.write(new)
        os.truncate(volume.path("truncated"), 5000)
        with open(volume.path("grown"), "ab") as file:
            file.write(new)
        os.rename(volume.path("other"), volume.path("renamed-over"))
        os.unlink(volume.path("unlinked"))
        with open(volume.path("punched"), "r+b") as file:
            yt.fallocate(file.fileno(), yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, 8192, 16384)
        os.chmod(volume.path("chmod"), 0o600)
        os.unlink(latch)
        yt.equal(sync.wait(60), 0, "exit code of sync")
    for name in names:
        path = volume.snapshot(volume.latest(), name)
        with open(path, "rb") as file:
            yt.check(file.read() == old, f"{name}: not what it was at the cut")
        yt.equal(os.stat(path).st_mode & 0o777, 0o640, f"mode of {name} at the cut")


def test_preimages():
    change_while_frozen(fresh("saved"), [])
    must_fail("preimages", lambda: change_while_frozen(fresh("unsaved"), ["omit/preimages=EIO"]))


if __name__ == "__main__":
    yt.main(globals())

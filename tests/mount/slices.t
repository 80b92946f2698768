#!/usr/bin/python3 -B
# timeout: 120
"""I1: an operation on more than 8 MiB is done in slices, so that a cut need not wait for its end. The one that comes between two slices holds a prefix of the operation, those before and after it none
and all of it."""
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

SLICE = 8 << 20
SIZE = 5 * SLICE + 12345
FALLOCATE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import yt
fd = os.open(sys.argv[2], os.O_RDWR)
yt.fallocate(fd, int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
"""


def made(name, env):
    volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN).init(interval="1h")
    volume.mount(env=env)
    data = random.Random(name).randbytes(SIZE)
    with open(volume.path("file"), "wb") as file:
        file.write(data)
    volume.sync()
    return volume, data, volume.latest()


def content(path):
    with open(path, "rb") as file:
        return file.read()


def zeroed(data, begin, end):
    return data[:begin] + bytes(end - begin) + data[end:]


def cut_between(name, mode):
    latch = os.path.join(yt.TMP, name + ".latch")
    volume, data, before = made(name, {"YESTER_FAILPOINT": f"fs/slice=latch:{latch}"})
    begin, end = 4096, 4 * SLICE + 4096
    with subprocess.Popen([sys.executable, "-B", "-c", FALLOCATE, yt.LIB, volume.path("file"), str(mode), str(begin),
                           str(end - begin)]) as caller:
        yt.wait_until("the first slice", lambda: os.path.exists(latch))
        volume.sync()
        between = volume.latest()
        yt.equal(caller.poll(), None, "the caller, who should wait")
        os.unlink(latch)
        yt.equal(caller.wait(60), 0, "exit code of the caller")
    volume.sync()
    after = volume.latest()
    yt.equal(len({before, between, after}), 3, "versions")
    yt.check(content(volume.path("file")) == zeroed(data, begin, end), "the live file")
    yt.check(content(volume.snapshot(after, "file")) == zeroed(data, begin, end), "the version after it")
    yt.check(content(volume.snapshot(between, "file")) == zeroed(data, begin, SLICE), "the version between is not the first slice alone")
    yt.check(content(volume.snapshot(before, "file")) == data, "the version before it")
    volume.umount()


def test_punch_hole():
    cut_between("punch", yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE)


def test_zero_range():
    cut_between("zero", yt.FALLOC_ZERO_RANGE)


def test_copy():
    """The kernel hands over the whole length; who copies is told how far it got, and asks again: each slice is an operation of its own."""
    volume, data, before = made("copy", {})
    source = os.open(volume.path("file"), os.O_RDONLY)
    target = os.open(volume.path("copy"), os.O_RDWR | os.O_CREAT)
    done = os.copy_file_range(source, target, SIZE)
    yt.check(0 < done <= SLICE, f"{done} bytes were copied at once")
    volume.sync()
    between = volume.latest()
    while done < SIZE:
        copied = os.copy_file_range(source, target, SIZE - done)
        yt.check(0 < copied <= SLICE, f"{copied} bytes were copied at once")
        done += copied
    os.close(target)
    os.close(source)
    volume.sync()
    part = content(volume.snapshot(between, "copy"))
    yt.check(0 < len(part) <= SLICE and part == data[:len(part)], "the version between has no prefix of the copy")
    yt.check(content(volume.snapshot(volume.latest(), "copy")) == data, "the version after it")
    yt.check(not os.path.exists(volume.snapshot(before, "copy")), "the version before it")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 120
"""Faults 4 and 5, promise 8, on the mount: an object of the remote has a flipped bit, is cut short or is gone. A read of the past that needs it is EIO, never
other bytes; everything else of that version stays readable; `check` names the object and the paths."""
import errno
import glob
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FILES = 12
SIZE = 700_000


def flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 0x10,)))


def cut_short(path):
    os.truncate(path, os.path.getsize(path) // 2)


def write_all(volume, numbers):
    contents = {f"file{i}": numbers.randbytes(SIZE) for i in range(FILES)}
    for name, data in contents.items():
        with open(volume.path(name), "wb") as file:
            file.write(data)
    volume.sync()
    return volume.latest(), contents


def read(path):
    """What is in a file; None: EIO."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        yt.equal(problem.errno, errno.EIO, f"errno of reading {path}")
        return None


def packs(volume):
    return set(glob.glob(os.path.join(volume.remote_path, "pack", "*", "*")))


def one_damage(name, harm):
    numbers = random.Random(name)
    volume = yt.Volume(name).init(interval="1h", pack_size="1M")
    volume.mount()
    past, contents = write_all(volume, numbers)
    of_the_past = sorted(packs(volume))
    yt.check(len(of_the_past) > 4, f"only {len(of_the_past)} packs")
    write_all(volume, numbers)
    volume.umount()
    fresh = volume.clone(name + "-clone")  # has read nothing of the past
    victim = of_the_past[len(of_the_past) // 2]
    os.chmod(victim, 0o600)
    harm(victim)
    fresh.mount("-o", "take_over")
    bad = set()
    for file, data in contents.items():
        found = read(fresh.snapshot(past, file))
        yt.check(found is None or found == data, f"{file}: {len(found or b'')} bytes that were never in it")
        if found is None:
            bad.add(file)
    yt.check(0 < len(bad) < FILES // 2, f"{harm.__name__}: {len(bad)} files of {FILES} can't be read: {sorted(bad)}")
    yt.equal(read(fresh.path("file0")) is None, False, "the live file")
    fresh.umount()
    done = fresh.yester("check", fresh.dir, "--read-data", expect=5)
    yt.check(os.path.basename(victim) in done, f"check does not name {victim}:\n{done}")
    named = {file for file in contents if file + "\n" in done or file + " " in done or file + "," in done}
    yt.check(bad <= named, f"check names {sorted(named)}, and {sorted(bad)} can't be read:\n{done}")
    print(f"{harm.__name__}: {sorted(bad)}", flush=True)


def test_flipped_bit():
    one_damage("flip", flip)


def test_cut_short():
    one_damage("short", cut_short)


def test_gone():
    one_damage("gone", os.unlink)


if __name__ == "__main__":
    yt.main(globals())

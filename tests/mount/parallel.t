#!/usr/bin/python3 -B
# timeout: 180
"""Several sealers work on one version at once, and several packs travel at once: two threads must be at one place at the same time, or the program
aborts after a minute. No clock is read here: a slow machine passes, and one thread alone never does."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FILES, SIZE = 6, 6_000_000


def both(name, place, write_before):
    volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN).init(interval="1h", pack_size="1M", uploads="4")
    numbers = random.Random(name)
    log = os.path.join(volume.base, "log")

    def write():
        for i in range(FILES):
            with open(os.path.join(volume.dir, f"file{i}"), "wb") as file:
                file.write(numbers.randbytes(SIZE))

    if write_before:
        write()
    volume.mount(env={"YESTER_FAILPOINT": f"{place}=meet:2", "YESTER_FAILPOINT_LOG": log})
    if not write_before:
        volume.sync()
        write()
    volume.sync()
    with open(log) as file:
        yt.check(place in file.read().split(), f"nobody came to {place}")
    yt.equal(len(os.listdir(volume.snapshot(volume.latest()))), FILES, "files in the newest version")
    volume.umount()
    volume.yester("check", volume.dir, "--read-data")


def test_sealers_of_a_cut():
    both("cut", "seal/beside", False)


def test_sealers_of_an_import():
    both("import", "seal/beside", True)


def test_uploaders():
    both("upload", "upload/before-pack", False)


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 120
"""Promise 1: many processes wait for old data that only a stalled remote has. Live operations don't wait with them, and when the remote
is back, they get what they asked for."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

READERS = 60  # more than the daemon has threads for requests or for history
SIZE = 700_000
PROMPTLY = 5


def make(gateway):
    volume = yt.Volume("stalled-history", gateway.bucket("stalled-history"), env=gateway.env).init(interval="1s")
    volume.mount()
    for i in range(READERS):
        with open(volume.path("f%d" % i), "wb") as file:
            file.write(bytes([i]) * 1000 + os.urandom(SIZE - 1000))
    volume.sync()
    version = volume.latest()
    wanted = {i: open(volume.path("f%d" % i), "rb").read() for i in range(READERS)}
    for i in range(READERS):  # the live bytes must not be able to serve
        with open(volume.path("f%d" % i), "wb") as file:
            file.write(b"now")
    volume.sync()
    volume.umount()
    volume.drop_cache()
    volume.mount()
    volume.wait_state("synced")
    return volume, version, wanted


def live_work(volume):
    longest = 0
    for i in range(200):
        began = time.monotonic()
        path = volume.path("live%d" % i)
        fd = os.open(path, os.O_CREAT | os.O_RDWR)
        os.write(fd, b"x" * 5000)
        if i % 10 == 0:
            os.fsync(fd)
        os.close(fd)
        with open(volume.path("f%d" % (i % READERS)), "rb") as file:
            yt.equal(file.read(), b"now", "a live file")
        os.rename(path, path + "r")
        os.listdir(volume.mountpoint)
        os.statvfs(volume.mountpoint)
        os.unlink(path + "r")
        longest = max(longest, time.monotonic() - began)
    return longest


def test_stalled_history():
    gateway = yt.Gateway(proxy=True)
    volume, version, wanted = make(gateway)
    gateway.proxy("stall")
    readers = [
        subprocess.Popen(["cat", volume.snapshot(version, "f%d" % i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(READERS)
    ]
    longest = live_work(volume)
    yt.check(longest < PROMPTLY, f"live operations took up to {longest:.1f} s while history waited")
    os.listdir(volume.snapshot(version))
    waiting = sum(reader.poll() is None for reader in readers)
    yt.check(waiting > READERS // 2, f"only {waiting} readers wait: nothing was tested")
    print(f"{waiting} readers waiting, longest round of live operations {longest:.2f} s")
    gateway.proxy("pass")
    for i, reader in enumerate(readers):
        out, err = reader.communicate(timeout=60)
        # A reader whose tries were used up while the remote stalled has EIO: never short data without it, never wrong data.
        yt.check(wanted[i].startswith(out), f"reader {i} has wrong data")
        yt.check(out == wanted[i] or (reader.returncode != 0 and b"Input/output error" in err), f"reader {i}: {len(out)} bytes, {err}")
    for i in range(READERS):
        with open(volume.snapshot(version, "f%d" % i), "rb") as file:
            yt.equal(file.read() == wanted[i], True, f"file {i} of the version, read again")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

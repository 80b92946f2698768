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


class Reader:
    """A process that reads a file of a version."""

    def __init__(self, volume, version, number, wanted):
        self.path, self.number, self.wanted = volume.snapshot(version, "f%d" % number), number, wanted
        self.start()

    def start(self):
        self.process = subprocess.Popen(["cat", self.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self):
        out, err = self.process.communicate(timeout=120)
        # A reader whose tries were used up while the remote stalled has EIO: never short data without it, never wrong data.
        yt.check(self.wanted.startswith(out), f"reader {self.number} has wrong data")
        yt.check(out == self.wanted or (self.process.returncode != 0 and b"Input/output error" in err),
                 f"reader {self.number}: {len(out)} bytes, {err}")

    def go_on(self):
        """As long as the remote stalls, somebody waits for it."""
        if self.process.poll() is not None:
            self.finish()
            self.start()


def live_work(volume, readers, beside):
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
        beside.check("a round of live operations", began, PROMPTLY)
        for reader in readers:
            reader.go_on()


def test_stalled_history():
    gateway = yt.Gateway(proxy=True)
    volume, version, wanted = make(gateway)
    gateway.proxy("stall")
    before = len(gateway.requests())
    readers = [Reader(volume, version, i, wanted[i]) for i in range(READERS)]
    yt.wait_until("requests that stall", lambda: len(gateway.requests()) >= before + 4)
    live_work(volume, readers, yt.Beside())
    os.listdir(volume.snapshot(version))
    gateway.proxy("pass")
    for reader in readers:
        reader.finish()
    for i in range(READERS):
        with open(volume.snapshot(version, "f%d" % i), "rb") as file:
            yt.equal(file.read() == wanted[i], True, f"file {i} of the version, read again")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

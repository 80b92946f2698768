#!/usr/bin/python3 -B
# timeout: 900
"""What one small change costs: 4 KiB written at a random offset of a large file, in a volume of many files, after a remount: at most 12 KiB and one
PUT each, as a proxy in front of the real server counts them, in the mean over all. FULL=1: a file of 1 GiB, 100,000 small ones, 100 changes."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FULL = bool(os.environ.get("FULL"))
SIZE = (1024 if FULL else 192) << 20
FILES = 100_000 if FULL else 5000
CHANGES = 100 if FULL else 20
BYTES_MOST = 12 << 10


def fill(where, numbers):
    with open(os.path.join(where, "large"), "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(numbers.randbytes(1 << 20))
    for i in range(FILES):
        if i % 1000 == 0:
            os.mkdir(os.path.join(where, f"d{i // 1000}"))
        with open(os.path.join(where, f"d{i // 1000}", str(i)), "wb") as file:
            file.write(b"%d\n" % i * 20)


def test_overwrite():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}", flush=True)
    numbers = random.Random(seed)
    gateway = yt.Gateway(proxy=True)
    volume = yt.Volume("v", gateway.bucket("overwrite"), env=gateway.env)
    os.makedirs(volume.dir)
    fill(volume.dir, numbers)
    volume.init(interval="1h")
    volume.mount()
    volume.sync(timeout=600)
    volume.umount()
    volume.mount()
    volume.wait_state("synced")
    before = len(gateway.requests())
    expected = {}
    fd = os.open(volume.path("large"), os.O_WRONLY)
    for _ in range(CHANGES):
        offset, data = numbers.randrange(SIZE - 4096), numbers.randbytes(4096)
        os.pwrite(fd, data, offset)
        volume.sync()
        expected[volume.latest()] = (offset, data)
    os.close(fd)
    requests = gateway.requests()[before:]
    puts = [request for request in requests if request[0] in ("PUT", "POST")]
    sent = sum(request[3] for request in requests)
    print(f"{CHANGES} changes: {len(puts)} PUTs, {sent / CHANGES:.0f} bytes each; requests of all kinds: {len(requests)}")
    for name, (offset, data) in expected.items():
        with open(volume.snapshot(name, "large"), "rb") as file:
            file.seek(offset)
            yt.check(file.read(4096) == data, f"version {name} lacks its change")
    yt.check(sent / CHANGES <= BYTES_MOST, f"{sent / CHANGES:.0f} bytes for each change, more than {BYTES_MOST}:\n{puts}")
    yt.check(len(puts) <= CHANGES, f"{len(puts)} PUTs for {CHANGES} changes:\n{puts}")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 300
"""How often the store is asked: what lies together is fetched together, by a clone, by a restore and by whoever reads a version from one end to the other; and who reads here and there doesn't pay for the rest."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FILES, LARGE = 2500, 64 << 20


def gets(gateway, bucket, function, *arguments):
    """(what function returns, GETs of objects, bytes that they brought)"""
    before = len(gateway.requests())
    result = function(*arguments)
    found = [down for method, url, _, _, down in gateway.requests()[before:]
             if method == "GET" and url.startswith(f"/{bucket}/") and "?" not in url and ("/pack/" in url or "/log/" in url)]
    return result, len(found), sum(found)


def make_small(volume):
    numbers = random.Random(7)
    total = 0
    for i in range(FILES):
        where = volume.path("small", str(i % 50))
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(where, str(i)), "wb") as file:
            total += file.write(numbers.randbytes(numbers.randrange(200, 16000)))
    return total


def test_gets():
    gateway = yt.Gateway(proxy=True)
    volume = yt.Volume("gets", gateway.bucket("gets"), env=gateway.env).init(interval="1h", cache_limit="64K")
    volume.mount()
    small = make_small(volume)
    volume.sync()
    with open(volume.path("large"), "wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    volume.sync()
    name, live = volume.latest(), yt.tree(volume.mountpoint)

    other, count, down = gets(gateway, "gets", volume.clone, "clone")
    yt.same_tree(yt.tree(other.dir), live, "the clone")
    print(f"clone of {FILES} small files and {LARGE} bytes: {count} GETs")
    yt.check(count < 30 + LARGE // (1 << 20), f"{count} GETs for a clone")
    yt.check(down < 1.1 * (small + LARGE), f"{down} bytes for a clone of {small + LARGE}")

    # A version that neither the tree nor the spool has, read through .snapshots.
    large = yt.read_all(volume.path("large"))
    os.truncate(volume.path("large"), 0)
    for i in range(FILES):
        os.truncate(volume.path("small", str(i % 50), str(i)), 0)
    volume.sync()
    volume.umount()
    volume.drop_cache()
    volume.configure(cache_limit="1G")
    volume.mount()
    found, count, down = gets(gateway, "gets", yt.read_all, volume.snapshot(name, "large"))
    yt.equal(found, large, "the large file in the version")
    print(f"reading {LARGE} bytes: {count} GETs")
    yt.check(count < LARGE // (1 << 20) * 2 // 3, f"{count} GETs for reading {LARGE} bytes")
    _, count, down = gets(gateway, "gets", yt.run, "cat", volume.snapshot(name, "small", "7", "1207"))
    yt.check(count == 1 and down < 20000, f"{count} GETs and {down} bytes for one small file")
    _, count, down = gets(gateway, "gets", yt.run, "head", "-c", "100000", volume.snapshot(name, "large"))
    yt.check(down < 12 << 20, f"{count} GETs and {down} bytes for the beginning of a file")
    found, count, _ = gets(gateway, "gets", yt.tree, volume.snapshot(name, "small"))
    print(f"reading {FILES} small files by their names: {count} GETs")
    yt.check(count < FILES // 10, f"{count} GETs for reading {FILES} small files")
    yt.equal(len([item for item in found.values() if item.get("size")]), FILES, "files in the version")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

#!/usr/bin/python3 -B
# timeout: 600
"""A version that is much larger than what the state directory has room for passes through the spool: packs leave it as soon as the remote has them. So
also when the daemon is killed on the way, when the store refuses for a while, and when the history of a version is read whose packs are in the remote and whose record is not."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

DISK = 40 << 20    # of the state directory, of which a quarter is kept free
LARGE = 100 << 20  # bytes that can't be compressed


def fill(path, size=LARGE):
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def small_disk(volume):
    """The state directory on a small filesystem of its own."""
    place = os.path.join(volume.base, "state")
    os.makedirs(place, mode=0o700)
    yt.run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "yester-test", place)
    return volume


def make(name, remote=None, env=None, binary=None, size=LARGE, interval="1s"):
    """A volume with a large file and some small ones, not mounted yet."""
    volume = small_disk(yt.Volume(name, remote, env=env, binary=binary))
    os.makedirs(os.path.join(volume.dir, "small"))
    if size:
        fill(os.path.join(volume.dir, "large"), size)
    for i in range(40):
        with open(os.path.join(volume.dir, "small", str(i)), "wb") as file:
            file.write(os.urandom(5000))
    return volume.init(interval=interval)


def finish(volume, expected=None):
    """All of it is in the remote: a clone has it, and nothing of what the machine uploaded is missing or damaged."""
    volume.sync(timeout=300)
    status = volume.wait_state("synced")
    yt.equal(status["spool_bytes"], 0, "bytes in the spool")
    live = yt.tree(volume.mountpoint)
    yt.same_tree(live, expected or live, "the tree")
    yt.same_tree(yt.tree(volume.snapshot("latest")), live, "the newest version")
    volume.umount()
    volume.yester("check", volume.dir, "--read-data")
    other = volume.clone(volume.name + "-clone")
    yt.same_tree(yt.tree(other.dir), live, "the clone")
    other.remove()
    volume.remove()


def test_import():
    """What was there before the volume."""
    volume = make("import")
    volume.mount()
    finish(volume)


def test_change():
    """What was written in one interval."""
    volume = make("change", size=0)
    volume.mount()
    volume.sync()
    fill(volume.path("large"))
    finish(volume)


def test_limit():
    """On a disk that is large enough, spool_limit bounds what lies there."""
    volume = yt.Volume("limit")
    os.makedirs(volume.dir)
    fill(os.path.join(volume.dir, "large"))
    volume.init(interval="1s", spool_limit="8M", cache_limit="1M")
    volume.mount()
    most = 0

    def synced():
        nonlocal most
        most = max(most, sum(entry.stat().st_size for entry in os.scandir(os.path.join(volume.state, "spool")) if entry.is_file()))
        return volume.status()["state"] == "synced"
    yt.wait_until("synced", synced, 120)
    yt.check(most < 32 << 20, f"{most} bytes were in the spool at once")
    finish(volume)


KILLS = (
    ("upload/pack-acknowledged", 6),  # some packs are in the remote, no version is
    ("spool/pack-fsynced", 8),
    ("spool/before-commit", 1),       # all packs but the last ones are in the remote, and the version does not exist
    ("spool/after-commit", 1),        # the version exists, and most of its packs have no file
    ("upload/attempted", 1),
    ("upload/after-log", 1),
)


def test_kill():
    for number, (name, hit) in enumerate(KILLS):
        volume = make(f"kill{number}", binary=yt.FAILPOINTS_BIN)
        volume.mount(env={"YESTER_FAILPOINT": f"{name}=kill:{hit}"})
        volume.wait_gone(120)
        yt.detach(volume.mountpoint)
        live = yt.tree(volume.dir)
        volume.mount()
        finish(volume, live)
    print(f"{len(KILLS)} kills")


def test_gateway():
    gateway = yt.Gateway(proxy=True)

    # The store refuses for a while, in the middle of the large version.
    volume = make("refused", gateway.bucket("refused"), gateway.env)
    gateway.proxy("503", "method=PUT", "match=/pack/", "after=4", "first=8")
    volume.mount()
    finish(volume)
    gateway.proxy("pass")

    # The version is given up half-way, because what it was to hold is written again and the disk has no room for the old bytes; what was uploaded is not uploaded again.
    volume = make("given-up", gateway.bucket("given-up"), gateway.env, size=0, interval="1h")
    volume.mount()
    volume.sync()
    versions = len(volume.versions())
    gateway.proxy("503", "method=PUT", "match=/pack/", "after=5")
    fill(volume.path("large"), LARGE * 3 // 2)
    yt.equal(volume.sync("--timeout", "1s", expect=None).returncode, 4, "exit code of sync")
    yt.wait_until("the store's refusal", lambda: any(status == "503" for _, _, status, _, _ in gateway.requests("given-up")), 120)
    with open(volume.path("large"), "r+b", buffering=0) as file:
        file.seek(-60 << 20, os.SEEK_END)
        while data := file.read(1 << 20):
            file.seek(-len(data), os.SEEK_CUR)
            file.write(data)
    gateway.proxy("pass")
    volume.sync(timeout=300)
    sent = sum(up for method, url, status, up, _ in gateway.requests("given-up") if method == "PUT" and "/pack/" in url and status == "200")
    yt.equal(len(volume.versions()), versions + 1, "versions")  # what is kept of the one that was given up is not listed
    yt.check(sent < LARGE * 1.65, f"{sent} bytes were sent for {LARGE * 3 // 2}")
    finish(volume)

    # All packs are in the remote, and the record can't get there: the version is in the history all the same.
    volume = make("unconfirmed", gateway.bucket("unconfirmed"), gateway.env, size=0, interval="1h")
    volume.mount()
    volume.sync()
    gateway.proxy("503", "method=PUT", "match=/log/")
    fill(volume.path("large"))
    before = yt.read_all(volume.path("large"))
    versions = volume.versions()
    yt.equal(volume.sync("--timeout", "1s", expect=None).returncode, 4, "exit code of sync")
    yt.wait_until("the version in the spool", lambda: len(volume.versions()) > len(versions), 180)
    name = volume.versions()[-1]
    os.truncate(volume.path("large"), 1000)
    yt.equal(yt.read_all(volume.snapshot(name, "large")), before, "the large file as it was")
    volume.kill()  # and the next start does not take the packs for lost
    gateway.proxy("pass")
    volume.mount()
    yt.check(name in volume.versions(), "the version was taken back")
    yt.equal(yt.read_all(volume.snapshot(name, "large")), before, "the large file as it was, after the crash")
    finish(volume)


if __name__ == "__main__":
    yt.main(globals())

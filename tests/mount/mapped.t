#!/usr/bin/python3 -B
# alone
# timeout: 240
"""Files that change through shared mappings, and nothing else tells of it: mappings that outlive their descriptor, the process that made them, the
daemon, the mount; stores to pages that are dirty already; files read, renamed, linked, removed and cut short meanwhile. Each page of each version is
one that there was, later versions have later ones, what was msync'ed before a sync is in its version; and once nobody can store any more, the volume
gets synced by itself, its last version is the live tree, and so is a clone. On each kind of backing filesystem, in each mode of the kernel's I/O."""
import os
import random
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import backings  # noqa: E402
import mapper  # noqa: E402
import yt  # noqa: E402

PAGES = 24
ROUNDS = int(os.environ.get("ROUNDS", "40" if os.environ.get("FULL") else "3"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
CASES = ("closed", "kept", "protected", "twice", "renamed", "linked", "punched", "child", "nameless", "removed", "replaced")
# Who has it open when it is opened to be mapped.
HOLDERS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, None)


class Files:
    def __init__(self, volume, mode, numbers):
        self.volume, self.mode, self.random = volume, mode, numbers
        self.words = mapper.Words(len(CASES), PAGES)
        self.mapper = mapper.Mapper(self.words)
        self.names = {number: case for number, case in enumerate(CASES)}
        self.holders, self.seen = [], {}
        self.child = None

    def path(self, number):
        return self.volume.path("files", self.names[number])

    def make(self):
        os.mkdir(self.volume.path("files"))
        for number, case in self.names.items():
            if case != "nameless":
                with open(self.path(number), "wb") as file:
                    file.truncate(PAGES * mapper.PAGE)

    def map(self):
        for number, case in list(self.names.items()):
            holder = self.random.choice(HOLDERS)
            if holder is not None and case != "nameless":
                self.holders.append(os.open(self.path(number), holder))
            if case == "nameless":
                if os.environ.get("YESTER_LIBFUSE") == "system":
                    del self.names[number]
                    continue
                self.mapper.do("nameless", number, self.volume.path("files"), self.path(number))
            else:
                self.mapper.do("map", number, self.path(number), keep=case == "kept", protect=case == "protected")
        self.child = self.mapper.do("fork")

    def let_go(self):
        for fd in self.holders:
            os.close(fd)
        self.holders = []

    # -- what is in a version

    def look(self, name):
        """Pages only grow, and none is of the future."""
        for number in self.names:
            path = self.volume.snapshot(name, "files", self.names[number])
            if not os.path.exists(path):
                continue
            numbers = mapper.read(path, PAGES)
            announced = self.words.of(self.words.announced, number)
            before = self.seen.get(number, [0] * PAGES)
            for page, (found, low, high) in enumerate(zip(numbers, before, announced)):
                yt.check(low <= found <= high, f"{path}: page {page} holds {found}; an earlier version has {low}, the last one stored is {high}")
            self.seen[number] = numbers

    def look_at_all(self):
        """The versions that were made by themselves, too. The others were cut short, renamed or removed."""
        for number, case in self.names.items():
            before = [0] * PAGES
            for name in self.volume.versions():
                path = self.volume.snapshot(name, "files", case)
                if case not in ("closed", "kept", "protected", "twice", "linked", "child", "nameless") or not os.path.exists(path):
                    continue
                if os.path.getsize(path) == 0:
                    continue
                found = mapper.read(path, PAGES)
                yt.check(all(low <= here for low, here in zip(before, found)), f"{path}: {found}, but an earlier version has {before}")
                before = found

    def look_synced(self):
        """A version made by sync, after msync."""
        for number in self.names:
            self.mapper.do("sync", number)
        durable = {number: self.words.of(self.words.durable, number) for number in self.names}
        self.volume.sync()
        name = self.volume.latest()
        self.look(name)
        for number, numbers in durable.items():
            found = self.seen[number]
            yt.check(all(have >= want for have, want in zip(found, numbers)),
                     f"{name}, {self.names[number]}: holds {found}, but {numbers} was synced before")

    def check_suspect(self):
        """What may change unseen is not synced (I24)."""
        status = self.volume.status()
        if not status["features"]["passthrough"]:
            return
        yt.check(status["suspect_files"] > 0, "no file became suspect")
        yt.check(status["state"] != "synced", "synced, though files may change unseen")

    def wait_same(self, what):
        """Without a sync of ours."""
        self.volume.wait_state("synced")
        live = yt.tree(self.volume.path("files"))
        yt.same_tree(yt.tree(self.volume.snapshot(self.volume.latest(), "files")), live, f"{what}: the last version")
        return live


def change_meanwhile(files):
    """Other things happen to files that are mapped."""
    for number, case in list(files.names.items()):
        path = files.path(number)
        if case == "renamed":
            files.names[number] = "renamed-again"
            os.rename(path, files.path(number))
            files.seen.pop(number, None)
        elif case == "linked":
            os.link(path, files.volume.path("files/another-name"))
        elif case == "removed":
            os.unlink(path)
            del files.names[number]
        elif case == "replaced":
            with open(path + ".new", "wb") as file:
                file.write(b"another file")
            os.rename(path + ".new", path)
            del files.names[number]
        elif case == "punched":
            # The numbers in the hole are stored again before anybody looks.
            fd = os.open(path, os.O_RDWR)
            yt.fallocate(fd, yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, 3 * mapper.PAGE, 5 * mapper.PAGE)
            os.ftruncate(fd, 20 * mapper.PAGE)
            os.ftruncate(fd, PAGES * mapper.PAGE)
            os.close(fd)
            files.seen.pop(number, None)


def live_mapping(files):
    """Versions while somebody stores as fast as he can and others read."""
    files.mapper.do("keep_storing", True)
    for _ in range(ROUNDS):
        for number in list(files.names):
            with open(files.path(number), "rb") as file:
                file.read()
        files.look_synced()
    files.mapper.do("keep_storing", False)
    change_meanwhile(files)
    # Twice, so that the second finds dirty pages.
    for _ in range(2):
        for number in files.mapper.do("mapped"):
            files.mapper.do("store", number)
    files.check_suspect()
    files.volume.sync()
    files.look(files.volume.latest())
    files.check_suspect()


def run_case(kind, mode):
    print(f"SEED={SEED}", flush=True)
    volume = backings.volume(kind, mode, interval="1s")
    backings.mount(volume, mode)
    files = Files(volume, mode, random.Random(SEED))
    files.make()
    files.map()
    try:
        live_mapping(files)
        # The process that stores ends; its child still has the mappings; then the child.
        for number in files.mapper.do("mapped"):
            files.mapper.do("store", number)
        child = files.child
        files.mapper.end()
        files.check_suspect()
        files.let_go()
        os.kill(child, signal.SIGKILL)
        files.wait_same(f"{kind}, {mode}, the writers have ended")
        for number in files.names:
            yt.equal(mapper.read(files.path(number), PAGES), files.words.of(files.words.announced, number), f"{files.path(number)}: live")
        files.look_at_all()
        daemon_dies(volume, mode, kind, files)
        mount_goes(volume, mode, kind, files)
        live = files.wait_same(f"{kind}, {mode}, at the end")
        volume.umount()
        clone = volume.clone(volume.name + "-clone")
        yt.same_tree(yt.tree(os.path.join(clone.dir, "files")), live, f"{kind}, {mode}: the clone")
        clone.remove()
        backings.remove(volume)
    finally:
        mapper.Mapper.kill_all()


def map_again(files):
    files.mapper = mapper.Mapper(files.words)
    files.holders = [os.open(files.path(number), files.random.choice((os.O_RDONLY, os.O_WRONLY))) for number in files.names]
    for number in files.names:
        files.mapper.do("map", number, files.path(number))
        files.mapper.do("store", number)


def daemon_dies(volume, mode, kind, files):
    """The mapping lives on. In passthrough it still changes the file; pages that the kernel kept of a dead daemon are lost."""
    map_again(files)
    files.check_suspect()
    files.let_go()
    os.kill(volume.pid, signal.SIGKILL)
    volume.wait_gone()
    for number in files.names:
        files.mapper.do("store", number)
    backings.mount(volume, mode)
    files.check_suspect()
    for number in files.names:
        files.mapper.do("store", number)
    volume.sync()
    files.check_suspect()
    files.mapper.kill()
    files.wait_same(f"{kind}, {mode}, after a daemon died and the writer ended")


def mount_goes(volume, mode, kind, files):
    """Unmounting is refused while it is mapped; after umount -l the daemon ends with the last mapping."""
    map_again(files)
    files.let_go()
    refused = volume.yester("umount", volume.dir, expect=None)
    yt.equal(refused.returncode, 1, f"exit code of umount of what is mapped: {refused.stderr.decode()}")
    yt.run("umount", "-l", volume.mountpoint)
    for number in files.names:
        files.mapper.do("store", number)
    expected = {number: files.words.of(files.words.announced, number) for number in files.names}
    files.mapper.end()
    volume.wait_gone()
    backings.mount(volume, mode)
    for number in files.names:
        yt.equal(mapper.read(files.path(number), PAGES), expected[number], f"{files.path(number)}, stored while the mount was going")


def define(kind, mode):
    globals()[f"test_{kind}_{mode}"] = lambda: run_case(kind, mode)


for pair in backings.each():
    define(*pair)


if __name__ == "__main__":
    yt.main(globals())

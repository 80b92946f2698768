#!/usr/bin/python3 -B
# timeout: 240
# both libfuse
"""The kernel reads and maps the files below by itself, where it can (fs/io_mode.h): it is in force, or a reason is known; whatever was opened how, by whom, in
which order, everybody sees the same bytes; and what only a mapping shows is found, also after a crash (I10, I24)."""
import errno
import fcntl
import glob
import mmap
import os
import random
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import backings  # noqa: E402
import mapper  # noqa: E402
import yt  # noqa: E402

PAGE = 4096
SIZE = 24 * PAGE
SYSTEM = os.environ.get("YESTER_LIBFUSE") == "system"
EXPECTED = not SYSTEM and backings.kernel() >= (6, 9)
ACCESS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "rd": os.O_RDONLY | os.O_DIRECT, "a": os.O_WRONLY | os.O_APPEND,
          "ws": os.O_WRONLY | os.O_SYNC}


def in_force(volume):
    return volume.status()["features"]["passthrough"]


def mounted(name, *arguments, **config):
    volume = yt.Volume(name).init(interval="3600s", **config)
    volume.mount(*arguments)
    return volume


# ---- whether

def test_in_force():
    """A fallback that nobody asked for is a failure."""
    for kind in backings.KINDS:
        volume = backings.volume(kind, "default", f"force-{kind}")
        volume.mount()
        yt.equal(in_force(volume), EXPECTED, f"on {kind}: passthrough")
        volume.umount()
        yt.equal(in_force(volume), False, "not mounted: passthrough")
        volume.mount("-o", "no_passthrough")
        yt.equal(in_force(volume), False, f"on {kind}, with -o no_passthrough: passthrough")
        volume.umount()
        backings.remove(volume)


def test_overlay_is_cached():
    """A lease does not tell there what is mapped: nobody could say when a file is no more suspect."""
    made = yt.Volume("overlay")
    layers = [os.path.join(made.base, name) for name in ("lower", "upper", "work", "merged")]
    disk = os.path.join(made.base, "disk")
    backings.make("tmpfs", disk)
    for place in layers[:3]:
        os.makedirs(place.replace(made.base, disk))
    os.makedirs(layers[3])
    lower, upper, work = (place.replace(made.base, disk) for place in layers[:3])
    yt.run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", layers[3])
    made.dir = made.mountpoint = os.path.join(layers[3], "dir")
    made.init()
    made.mount()
    yt.equal(in_force(made), False, "on overlayfs: passthrough")
    with open(made.path("f"), "wb") as file:
        file.write(b"content")
    with open(made.path("f"), "rb") as reader, open(made.path("f"), "r+b") as writer:
        bytes_ = mmap.mmap(writer.fileno(), 7)
        bytes_[:3] = b"CON"
        bytes_.flush()
        yt.equal(reader.read(), b"CONtent", "what is read beside a mapping")
        bytes_.close()
    made.sync()
    made.umount()
    yt.run("umount", layers[3])
    backings.remove(made)


# ---- everybody sees the same

class File:
    """What it should hold, and who has it open."""
    def __init__(self, path, numbers):
        self.path, self.random = path, numbers
        self.bytes = bytearray(numbers.randbytes(SIZE))
        with open(path, "wb") as file:
            file.write(self.bytes)

    def change(self, fd, access):
        data = self.random.randbytes(self.random.randrange(1, 2 * PAGE))
        if access == "a":
            yt.equal(os.write(fd, data), len(data), "bytes appended")
            self.bytes += data
        else:
            at = self.random.randrange(SIZE)
            yt.equal(os.pwrite(fd, data, at), len(data), "bytes written")
            self.bytes[at:at + len(data)] = data

    def store(self, mapping):
        at = self.random.randrange(SIZE - 100)
        data = self.random.randbytes(100)
        mapping[at:at + 100] = data
        self.bytes[at:at + 100] = data

    def look(self, fd, access, mappings, what):
        size = len(self.bytes)
        yt.equal(os.stat(self.path).st_size, size, f"{what}: size")
        if access == "rd":
            buffer = mmap.mmap(-1, SIZE)
            yt.equal(os.preadv(fd, [buffer], 0), SIZE, f"{what}: direct read")
            yt.check(buffer[:] == self.bytes[:SIZE], f"{what}: direct read: other bytes")
            buffer.close()
        elif access in ("r", "rw"):
            yt.check(os.pread(fd, size + 1, 0) == self.bytes, f"{what}: read: other bytes")
            at = self.random.randrange(SIZE - PAGE)
            found = splice(fd, at, PAGE)
            yt.check(found is None and access == "rw" or found == self.bytes[at:at + PAGE], f"{what}: splice: other bytes")
        for mapping in mappings:
            yt.check(mapping[:SIZE] == self.bytes[:SIZE], f"{what}: mapping: other bytes")


def splice(fd, at, length):
    """None: not by this descriptor."""
    ends = os.pipe()
    try:
        count = os.splice(fd, ends[1], length, offset_src=at) if hasattr(os, "splice") else os.sendfile(ends[1], fd, at, length)
        return os.read(ends[0], count)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        return None
    finally:
        os.close(ends[0])
        os.close(ends[1])


def everybody(volume, numbers, first, second, third):
    file = File(volume.path(f"{first}-{second}-{third}"), numbers)
    what = f"opened as {first}, {second}, {third}"
    opened, mappings = [], []
    for access in (first, second, third):
        fd = os.open(file.path, ACCESS[access])
        opened.append((fd, access))
        if access in ("r", "rw"):
            mappings.append(mmap.mmap(fd, SIZE, prot=mmap.PROT_READ | (mmap.PROT_WRITE if access == "rw" else 0)))
        for fd, one in opened:
            if ACCESS[one] & (os.O_WRONLY | os.O_RDWR):
                file.change(fd, one)
        # Pages of the kernel that are stored to show at once to who reads through them; where it is not the page cache (O_DIRECT), when they are written back.
        for mapping, (_, one) in zip(mappings, [entry for entry in opened if entry[1] in ("r", "rw")]):
            if one == "rw":
                file.store(mapping)
                mapping.flush()
        for fd, one in opened:
            file.look(fd, one, mappings, what)
    for mapping in mappings:
        mapping.close()
    for fd, _ in opened:
        os.close(fd)
    with open(file.path, "rb") as again:
        yt.check(again.read() == file.bytes, f"{what}: after all were closed: other bytes")
    return file


def test_everybody_sees_the_same():
    """Three opens of every access, in every order."""
    numbers = random.Random(7)
    volume = mounted("same")
    files = [everybody(volume, numbers, first, second, third) for first in ACCESS for second in ACCESS for third in ACCESS]
    volume.sync()
    status = volume.wait_state("synced")
    yt.equal(status["suspect_files"], 0, "files that nobody has open")
    for file in files:
        with open(volume.snapshot("latest", os.path.basename(file.path)), "rb") as version:
            yt.check(version.read() == file.bytes, f"{file.path}: the version has other bytes")
    volume.umount()


def test_appenders_side_by_side():
    """Each through descriptors of another kind; none writes over another."""
    volume = mounted("append")
    path = volume.path("log")
    program = ("import os, sys\n"
               "path, access, me = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()\n"
               "for i in range(150):\n"
               "    if i % 10 == 0:\n"
               "        fd = os.open(path, access | os.O_APPEND | os.O_CREAT)\n"
               "    line = b'%s %d\\n' % (me, i)\n"
               "    assert os.write(fd, line) == len(line)\n"
               "    if i % 10 == 9:\n"
               "        os.close(fd)\n")
    kinds = [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_SYNC, os.O_WRONLY]
    reader = os.open(path, os.O_RDONLY | os.O_CREAT)
    crew = [subprocess.Popen([sys.executable, "-c", program, path, str(kind), f"writer{i}"]) for i, kind in enumerate(kinds)]
    for process in crew:
        yt.equal(process.wait(120), 0, "a process that appends")
    os.close(reader)
    with open(path, "rb") as file:
        lines = file.read().splitlines()
    for i in range(len(kinds)):
        mine = [line for line in lines if line.startswith(b"writer%d " % i)]
        yt.equal(mine, [b"writer%d %d" % (i, k) for k in range(150)], f"the lines of writer {i}")
    yt.equal(len(lines), 150 * len(kinds), "lines")
    volume.umount()


# ---- what a write takes away

def attributes(path):
    return oct(os.stat(path).st_mode), "security.capability" in os.listxattr(path)


def test_what_a_write_takes_away_is_recorded():
    """Set-id bits and capabilities go with a write, by the filesystem below: a version has them as they were at its cut, also where they go before it is sealed."""
    if os.geteuid() != 0:
        raise yt.Skip("only root can give set-id bits to others")
    volume = mounted("taken")
    os.chmod(volume.mountpoint, 0o777)
    names = []
    for access in ("w", "rw", "ws", "a"):
        for by_user in (True, False):
            name = f"{access}-{by_user}"
            names.append((name, access, by_user))
            with open(volume.path(name), "wb") as file:
                file.write(b"x" * PAGE)
            os.chmod(volume.path(name), 0o6777)
            os.setxattr(volume.path(name), "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    volume.sync()
    first = volume.versions()[-1]
    for name, access, by_user in names:
        program = f"import os; fd = os.open({name!r}, {ACCESS[access]}); os.write(fd, b'y')"
        yt.run(sys.executable, "-c", program, cwd=volume.mountpoint, **({"user": 12345, "group": 12345, "extra_groups": []} if by_user else {}))
    volume.sync()
    for name, access, by_user in names:
        now = attributes(volume.path(name))
        yt.equal(now[1], False, f"{name}: has capabilities")
        yt.check(not by_user or now[0] == "0o100777", f"{name}: {now[0]}")
        yt.equal(attributes(volume.snapshot("latest", name)), now, f"{name}: in the version")
        yt.equal(attributes(volume.snapshot(first, name)), ("0o106777", True), f"{name}: in the version before")
    volume.umount()


# ---- what only a mapping shows

def suspects(volume):
    return volume.status()["suspect_files"]


def version_of(volume, name):
    with open(volume.snapshot("latest", name), "rb") as file:
        return file.read()


def test_a_mapping_makes_it_suspect():
    if not EXPECTED:
        return
    volume = mounted("suspect")
    File(volume.path("f"), random.Random(1))
    volume.sync()
    volume.wait_state("synced")
    mapping = mapper.Unseen(volume.path("f"), SIZE)
    yt.equal(suspects(volume), 1, "suspect files")
    for i in range(3):
        mapping.add(100)
        volume.sync()
        yt.check(version_of(volume, "f") == mapping.all(), f"store {i} is not in the version")
        status = volume.status()
        yt.check(status["state"] != "synced", f"a file that is mapped for writing, and {status}")
        yt.equal(status["state"], "syncing", "the state")
    before = volume.versions()
    volume.sync()
    yt.equal(volume.versions(), before, "versions, when nothing was stored")
    # Attributes that a store changes are not kept.
    changed = os.stat(volume.path("f")).st_mtime_ns
    fd = os.open(volume.path("f"), os.O_RDONLY)
    os.fsync(fd)  # so that the page is clean, and the next store is told to the filesystem
    os.close(fd)
    mapping.add(200)
    yt.wait_until("a store shows in the time of the last change", lambda: os.stat(volume.path("f")).st_mtime_ns > changed)
    mapping.close()
    volume.sync()
    volume.wait_state("synced")
    yt.equal(suspects(volume), 0, "suspect files")
    volume.umount()


def test_a_mapping_outlives_the_daemon():
    """Kill, remount, store; then unmount while it is still mapped, store again. (A mapping from this mount would keep it busy, as anywhere.)"""
    if not EXPECTED:
        return
    volume = mounted("outlives")
    File(volume.path("f"), random.Random(2))
    mapping = mapper.Unseen(volume.path("f"), SIZE)
    mapping.add(0)
    volume.sync()
    volume.kill()
    mapping.add(0)
    volume.mount()
    yt.equal(suspects(volume), 1, "suspect files after a kill")
    volume.sync()
    yt.check(version_of(volume, "f") == mapping.all(), "what was stored after the kill is not in the version")
    # Who opens it now sees what is stored through the old mapping, and it what he writes.
    with open(volume.path("f"), "r+b", buffering=0) as file:
        mapping.bytes[5000] = 77
        yt.equal(os.pread(file.fileno(), 1, 5000), b"M", "what is read of the store")
        os.pwrite(file.fileno(), b"x", 5001)
        yt.equal(mapping.bytes[5001], ord("x"), "what the mapping shows of a write")
    done = volume.umount(expect=None)
    yt.equal(done.returncode, 4, "umount's exit code")
    yt.check(b"mapped for writing" in done.stderr, f"umount does not say why: {done.stderr}")
    mapping.add(0)
    content = mapping.all()
    mapping.close()
    volume.mount("-o", "no_passthrough")
    volume.sync()
    volume.wait_state("synced")
    yt.check(version_of(volume, "f") == content, "what was stored while it was not mounted is not in the version")
    volume.umount()


def test_a_mapping_outlives_the_database():
    """What is suspect was in the database that is gone: the next mount asks for each file."""
    if not EXPECTED:
        return
    for what, lose in (("database", "volume.db*"), ("state directory", "*")):
        volume = mounted("lost-" + what.split()[0])
        File(volume.path("f"), random.Random(4))
        File(volume.path("other"), random.Random(5))
        mapping = mapper.Unseen(volume.path("f"), SIZE)
        mapping.add(0)
        volume.sync()
        volume.kill()
        for path in glob.glob(os.path.join(volume.state, lose)):
            yt.run("rm", "-r", path)
        volume.mount()
        volume.sync()
        for _ in range(2):
            mapping.add(0)  # the page is dirty already: no timestamp changes
            volume.sync()
            yt.check(version_of(volume, "f") == mapping.all(), f"without the {what}: what was stored is not in the version")
            yt.equal(suspects(volume), 1, f"without the {what}: suspect files")
            yt.check(volume.status()["state"] != "synced", f"without the {what}: synced while a file is mapped")
        mapping.close()
        volume.sync()
        volume.wait_state("synced")
        yt.equal(suspects(volume), 0, "suspect files when it is closed")
        volume.umount()


def test_a_mapping_to_read_sees_stores():
    """It has outlived its descriptor, which was passed through, and others store through a mapping made later."""
    volume = mounted("reader")
    for case, first in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)):
        path = volume.path(f"f{case}")
        with open(path, "wb") as file:
            file.write(bytes(SIZE))
        opened = os.open(path, first)
        reader = mapper.Unseen(path, SIZE, store=False)
        os.close(opened)
        volume.sync()
        with open(path, "r+b", buffering=0) as file, mmap.mmap(file.fileno(), SIZE) as writer:
            for i in range(1, 4):
                writer[5000] = i
                yt.equal(reader.bytes[5000], i, f"what a mapping to read shows of a store, first opened with {first}")
        reader.close()
        yt.equal(suspects(volume), int(EXPECTED and first != os.O_RDWR), f"suspect files while it is mapped, first opened with {first}")
        volume.sync()
        yt.wait_until("nothing suspect", lambda: volume.sync() is not None and suspects(volume) == 0)
        with open(path, "rb") as file:
            file.read()
        with open(path, "r+b") as file:
            yt.equal(suspects(volume), 0, "suspect files when nobody else has it open")
    volume.umount()


def test_a_file_without_a_name_that_gets_one():
    """Made by O_TMPFILE, closed, opened again by its O_PATH descriptor and mapped; what is stored when it has a name is in the versions."""
    if not EXPECTED:
        return
    volume = mounted("nameless")
    made = os.open(volume.mountpoint, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(made, bytes(SIZE))
    path = f"/proc/self/fd/{os.open(f'/proc/self/fd/{made}', os.O_PATH)}"
    os.close(made)
    mapping = mapper.Unseen(path, SIZE)
    mapping.add(5000)
    volume.sync()
    yt.equal(suspects(volume), 0, "suspect files, when the only one has no name")
    yt.link_descriptor(int(os.path.basename(path)), volume.path("f"))
    volume.sync()
    for i in range(3):
        mapping.add(5000)
        mapping.flush()
        volume.sync()
        yt.check(version_of(volume, "f") == mapping.all(), f"store {i} is not in the version")
    os.close(int(os.path.basename(path)))
    mapping.close()
    volume.sync()
    volume.wait_state("synced")
    volume.umount()


def test_a_removed_file_that_is_opened_again():
    """By an O_PATH descriptor, beside a mapping that has outlived its own, and is no more suspect: nobody can give the file a name."""
    volume = mounted("removed")
    for first in (os.O_RDONLY, os.O_WRONLY):
        path = volume.path("f")
        with open(path, "wb") as file:
            file.write(bytes(SIZE))
        again = f"/proc/self/fd/{os.open(path, os.O_PATH)}"
        mapping = mapper.Unseen(path, SIZE, beside=first)
        os.unlink(path)
        yt.wait_until("nothing suspect", lambda: volume.sync() is not None and suspects(volume) == 0)
        for access in (os.O_RDWR, os.O_RDONLY):
            fd = os.open(again, access)
            for _ in range(3):
                mapping.add(5000)
                yt.check(os.pread(fd, SIZE, 0) == mapping.all(), f"a store is not read; beside it was opened with {first}, now with {access}")
            os.close(fd)
        os.close(int(os.path.basename(again)))
        mapping.close()
    volume.sync()
    volume.wait_state("synced")
    volume.umount()


def is_open_below(volume, path):
    """The daemon has it open, but for O_PATH: RELEASE comes after close(2)."""
    for fd in os.listdir(f"/proc/{volume.pid}/fd"):
        try:
            with open(f"/proc/{volume.pid}/fdinfo/{fd}") as info:
                flags = int(next(line for line in info if line.startswith("flags:")).split()[1], 8)
            if os.stat(f"/proc/{volume.pid}/fd/{fd}").st_ino == os.stat(path).st_ino and not flags & os.O_PATH:
                return True
        except FileNotFoundError:
            pass
    return False


def held(name, latch):
    """A volume whose daemon waits at that place, the first time, while the file exists that is returned."""
    path = os.path.join(yt.TMP, name + ".latch")
    volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN).init(interval="3600s")
    volume.mount()
    volume.sync()  # or the first version would come by itself, while the file is written
    volume.umount()
    volume.mount(env={"YESTER_FAILPOINT": f"{latch}=latch:{path}"})
    with open(volume.path("f"), "wb") as file:
        file.write(bytes(SIZE))
    with open(volume.path("f"), "rb") as file:  # passed through
        file.read()
        yt.check(is_open_below(volume, volume.path("f")), "an open file does not show among the daemon's")
    yt.wait_until("RELEASE", lambda: not is_open_below(volume, volume.path("f")))
    return volume, path


def test_a_sealer_does_not_make_it_suspect():
    """Who opens a file for reading and writing while its content is read for a version is alone with it, unless a mapping was left that can tell the difference."""
    if not EXPECTED:
        return
    for mapped in (False, True):
        volume, latch = held("sealer-mapped" if mapped else "sealer", "frozen/read")
        reader = mapper.Unseen(volume.path("f"), SIZE, store=False) if mapped else None
        sync = threading.Thread(target=volume.sync)
        sync.start()
        yt.wait_until("the sealer", lambda: os.path.exists(latch))
        with open(volume.path("f"), "r+b", buffering=0) as file, mmap.mmap(file.fileno(), SIZE) as writer:
            yt.equal(suspects(volume), int(mapped), f"suspect files, mapped by another: {mapped}")
            writer[5000] = 7
            yt.check(not mapped or reader.bytes[5000] == 7, "a mapping to read does not show a store")
            os.unlink(latch)
            sync.join()
        if reader:
            reader.close()
        volume.sync()
        volume.wait_state("synced")
        yt.equal(version_of(volume, "f")[5000], 7, "what was stored, in the version")
        volume.umount()


def test_two_at_once_do_not_make_it_suspect():
    """One has opened the file below, and is not counted yet."""
    if not EXPECTED:
        return
    volume, latch = held("two", "fs/opened-below")
    opened = []
    one = threading.Thread(target=lambda: opened.append(os.open(volume.path("f"), os.O_RDWR)))
    one.start()
    yt.wait_until("the one", lambda: os.path.exists(latch))
    opened.append(os.open(volume.path("f"), os.O_RDWR))
    os.unlink(latch)
    one.join()
    yt.equal(suspects(volume), 0, "suspect files")
    for fd in opened:
        os.close(fd)
    volume.umount()


def test_a_lease_does_not_hide_the_live_file():
    """What asks who has a file in use keeps others from opening it for that moment (F_WRLCK); here it is somebody else, for longer. Versions are read from the live file all the same: there is nothing else, with
    the remote away."""
    volume = yt.Volume("lease").init(interval="3600s")
    content = random.Random(6).randbytes(SIZE)
    below = os.path.join(volume.dir, "f")
    with open(below, "wb") as file:
        file.write(content)
    volume.mount()
    volume.sync()
    volume.wait_state("synced")
    volume.umount()
    volume.drop_cache()
    os.rename(volume.remote_path, volume.remote_path + ".away")
    volume.mount(mountpoint=os.path.join(volume.base, "mnt"))
    path = volume.snapshot("latest", "f")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
    fd = os.open(below, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    yt.check(signal.sigtimedwait([signal.SIGIO], 60), "nobody opens the live file")
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    yt.check(reader.communicate(timeout=60)[0] == content, "the version has other bytes, or none")
    yt.equal(reader.returncode, 0, "cat's exit code")
    os.close(fd)
    os.rename(volume.remote_path + ".away", volume.remote_path)
    volume.umount()


def test_without_passthrough_an_old_mapping_is_seen():
    """The inode is suspect from an earlier mount, and this one can't pass anything through: no pages of its own then."""
    if not EXPECTED:
        return
    volume = mounted("old")
    File(volume.path("f"), random.Random(3))
    mapping = mapper.Unseen(volume.path("f"), SIZE)
    volume.kill()
    volume.mount("-o", "no_passthrough")
    with open(volume.path("f"), "r+b", buffering=0) as file:
        for i in range(4):
            mapping.bytes[5000] = i
            yt.equal(os.pread(file.fileno(), 1, 5000), bytes([i]), "what is read of the store")
        with mmap.mmap(file.fileno(), SIZE) as another:  # may
            another[6000] = 99
    with open(volume.path("f"), "rb") as file:
        yt.equal(file.read(), mapping.all(), "what was stored through a mapping of this mount")
    mapping.close()
    volume.sync()
    volume.wait_state("synced")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

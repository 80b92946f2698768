#!/usr/bin/python3 -B
# timeout: 300
"""What the kernel keeps of the tree (fs/invalidate.h): it costs no request, own changes correct it, and `yester sync --rescan` corrects what was changed behind the mount. Volumes are mounted beside their
directory, which is the second path to the tree, with -o exclusive, so that the kernel keeps all the same what it would in place. The kernel's tracepoint counts requests (fusetrace). Attributes of files that were changed lately are kept for seconds only: the daemon believes that it is next year."""
import ctypes
import errno
import mmap
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402
from fusetrace import Trace  # noqa: E402

NEXT_YEAR = {"YESTER_CLOCK_OFFSET_S": str(365 * 86400)}
NOBODY = 65534
LISTING = "OPENDIR", "RELEASEDIR", "GETATTR"  # opendir(3) asks for the access time, which reading has changed


class Pair:
    """A volume mounted beside its directory. at(): through the mount; behind(): the directory itself."""

    def __init__(self, name, prepare=None, **config):
        self.volume = yt.Volume(name, binary=yt.FAILPOINTS_BIN, env=NEXT_YEAR).init(**dict({"interval": "1h"}, **config))
        if prepare:
            prepare(self.volume.dir)
        self.place = os.path.join(self.volume.base, "mnt")
        self.mount()
        self.volume.sync()

    def mount(self):
        self.volume.mount("-o", "exclusive", mountpoint=self.place)

    def at(self, name=""):
        return os.path.join(self.place, name)

    def behind(self, name=""):
        return os.path.join(self.volume.dir, name)

    def trace(self):
        return Trace(self.place)

    def sync(self):
        self.volume.sync("--rescan")

    def close(self):
        self.volume.umount()


def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    fd = os.open(path, flags, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except OSError as problem:
        return errno.errorcode[problem.errno]


def costs_nothing(pair, what, function, *but):
    """The second time; the answer. `but`: requests that belong to the way of asking."""
    first = function()
    with pair.trace() as trace:
        yt.equal(function(), first, f"{what}, again")
    yt.equal(trace.total(*but), 0, f"{what}: requests for what is kept ({trace})")
    return first


def listing(path):
    return sorted(outcome(os.listdir, path))


def attributes(path):
    st = os.lstat(path)
    return {name: getattr(st, name) for name in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_mtime_ns",
                                                  "st_ctime_ns", "st_rdev")}


def fill(root):
    os.makedirs(os.path.join(root, "d/sub"))
    for name in ("file", "other", "d/one", "d/two", "d/three", "d/sub/deep"):
        write(os.path.join(root, name), name.encode())
    os.symlink("file", os.path.join(root, "link"))
    os.link(os.path.join(root, "file"), os.path.join(root, "d/hard"))


# ---- what is kept costs nothing

def test_kept():
    pair = Pair("kept", fill)
    costs_nothing(pair, "stat of a file", lambda: attributes(pair.at("d/sub/deep")))
    costs_nothing(pair, "stat of a directory", lambda: attributes(pair.at("d/sub")))
    costs_nothing(pair, "a name that is not there", lambda: os.path.lexists(pair.at("d/nothing")))
    costs_nothing(pair, "the target of a symlink", lambda: os.readlink(pair.at("link")))
    costs_nothing(pair, "a way through a symlink", lambda: os.stat(pair.at("link")).st_size)
    costs_nothing(pair, "access", lambda: os.access(pair.at("d/sub/deep"), os.R_OK))
    costs_nothing(pair, "ACLs", lambda: outcome(os.getxattr, pair.at("d/one"), "system.posix_acl_access"))
    costs_nothing(pair, "the listing of a directory", lambda: sorted(os.listdir(pair.at("d"))), *LISTING)
    costs_nothing(pair, "the content of a file", lambda: read(pair.at("d/one")), "OPEN", "RELEASE")
    with pair.trace() as trace:
        for name in ("one", "two", "three"):
            os.close(os.open(pair.at("d/" + name), os.O_RDWR))
    yt.equal(trace.count["FLUSH"], 0, f"requests of close ({trace})")
    # One READDIRPLUS brings names and attributes: no LOOKUP, no GETATTR of what is in the directory.
    pair.close()
    pair.mount()
    with pair.trace() as trace:
        for entry in os.scandir(pair.at("d")):
            entry.stat(follow_symlinks=False)
    yt.equal(trace.count["READDIRPLUS"], 2, f"readdirplus ({trace})")
    yt.check(trace.count["LOOKUP"] <= 1 and trace.count["GETATTR"] <= 2, f"more than the way to the directory: {trace}")
    pair.close()


def test_lookups_in_one_directory_go_together():
    """FUSE_PARALLEL_DIROPS: two lookups in a directory are on their way at once, while nobody answers."""
    pair = Pair("parallel", fill)
    if tuple(map(int, pair.volume.status()["features"]["libfuse"].split(".")[:2])) < (3, 17):
        raise yt.Skip("libfuse before 3.17 does not pass FUSE_PARALLEL_DIROPS on to the kernel")
    os.listdir(pair.at("d"))
    lookers = []
    try:
        with pair.trace() as trace:
            os.kill(pair.volume.pid, 19)
            for name in ("a", "b"):
                lookers.append(subprocess.Popen(["stat", pair.at("d/" + name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            def wait_channel(looker):
                with open(f"/proc/{looker.pid}/wchan") as file:
                    return file.read()
            yt.wait_until("two lookups", lambda: all(wait_channel(looker) == "request_wait_answer" for looker in lookers))
        yt.equal(trace.count["LOOKUP"], 2, f"requests under way ({trace})")
    finally:
        os.kill(pair.volume.pid, 18)
    for looker in lookers:
        yt.equal(looker.wait(60), 1, "stat of nothing")
    pair.close()


# ---- own changes

def same_attributes(pair, *names):
    for name in names:
        yt.equal(outcome(attributes, pair.at(name)), outcome(attributes, pair.behind(name)), f"attributes of {name!r}")


def test_own_changes():
    """After each operation the attributes of all that it touches are those of the directory behind: what was kept before was corrected."""
    pair = Pair("own", fill)
    everything = ("", "d", "d/sub", "file", "d/hard", "other", "d/one", "d/two", "d/three", "d/sub/deep", "link", "new", "d/new", "new2", "d/moved")
    at = pair.at

    def with_fd(name, flags, function):
        fd = os.open(at(name), flags)
        try:
            return function(fd)
        finally:
            os.close(fd)

    def map_and_store():
        def store(fd):
            with mmap.mmap(fd, 0) as memory:
                memory[:3] = b"MAP"
                memory.flush()
        with_fd("other", os.O_RDWR, store)

    def copy_range():
        source, target = os.open(at("other"), os.O_RDONLY), os.open(at("d/one"), os.O_WRONLY)
        yt.equal(os.copy_file_range(source, target, 5, 0, 2), 5, "copy_file_range")
        os.close(source)
        os.close(target)

    def as_nobody(*command):
        yt.run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command)

    def temporary():
        try:
            fd = os.open(at(), os.O_TMPFILE | os.O_RDWR)
        except OSError as problem:
            yt.equal(problem.errno, errno.EOPNOTSUPP, "O_TMPFILE")  # libfuse before 3.17
            return
        yt.link_descriptor(fd, at("d/new"))
        os.close(fd)
        same_attributes(pair, *everything)
        os.unlink(at("d/new"))

    steps = [
        ("link", lambda: os.link(at("other"), at("d/new"))),
        ("unlink of one of two names", lambda: os.unlink(at("d/new"))),
        ("unlink of a hard link", lambda: os.unlink(at("d/hard"))),
        ("create", lambda: write(at("d/new"), b"new")),
        ("write", lambda: write(at("d/new"), b"more and more", os.O_WRONLY)),
        ("append", lambda: write(at("d/new"), b"!", os.O_WRONLY | os.O_APPEND)),
        ("O_TRUNC", lambda: write(at("d/new"), b"x", os.O_WRONLY | os.O_TRUNC)),
        ("truncate", lambda: os.truncate(at("d/new"), 70000)),
        ("ftruncate", lambda: with_fd("d/new", os.O_WRONLY, lambda fd: os.ftruncate(fd, 3))),
        ("fallocate", lambda: with_fd("d/new", os.O_WRONLY, lambda fd: yt.fallocate(fd, 0, 0, 1 << 16))),
        ("punch", lambda: with_fd("d/new", os.O_WRONLY, lambda fd: yt.fallocate(fd, yt.FALLOC_KEEP_SIZE | yt.FALLOC_PUNCH_HOLE, 0, 1 << 15))),
        ("store through a mapping", map_and_store),
        ("copy_file_range", copy_range),
        ("rename", lambda: os.rename(at("d/new"), at("new"))),
        ("rename over", lambda: os.rename(at("new"), at("d/two"))),
        ("exchange of files", lambda: yt.renameat2(at("other"), at("d/one"), yt.RENAME_EXCHANGE)),
        ("exchange of a file and a directory", lambda: yt.renameat2(at("other"), at("d/sub"), yt.RENAME_EXCHANGE)),
        ("and back", lambda: yt.renameat2(at("other"), at("d/sub"), yt.RENAME_EXCHANGE)),
        ("mkdir", lambda: os.mkdir(at("new2"))),
        ("rename of a directory", lambda: os.rename(at("new2"), at("d/moved"))),
        ("rmdir", lambda: os.rmdir(at("d/moved"))),
        ("symlink", lambda: os.symlink("x" * 100, at("d/moved"))),
        ("unlink of a symlink", lambda: os.unlink(at("d/moved"))),
        ("mknod", lambda: os.mknod(at("d/moved"), stat.S_IFIFO | 0o600)),
        ("rename over another kind", lambda: os.rename(at("d/moved"), at("link"))),
        ("temporary file", temporary),
        ("chmod", lambda: os.chmod(at("d/one"), 0o640)),
        ("chmod of a directory", lambda: os.chmod(at("d"), 0o777)),
        ("chown", lambda: os.chown(at("d/one"), NOBODY, NOBODY)),
        ("utimes", lambda: os.utime(at("d/one"), ns=(123456789, 987654321))),
        ("setxattr", lambda: os.setxattr(at("d/one"), "user.x", b"y")),
        ("removexattr", lambda: os.removexattr(at("d/one"), "user.x")),
        ("setfacl", lambda: yt.run("setfacl", "-m", "u:nobody:rw,m::r", at("d/one"))),
        ("setfacl -b", lambda: yt.run("setfacl", "-b", at("d/one"))),
        ("suid", lambda: (os.chmod(at("d/three"), 0o6777), os.chmod(at("d"), 0o755), os.chmod(pair.volume.base, 0o755))),
        ("write of another user to a suid file", lambda: as_nobody("sh", "-c", f"echo x >>{at('d/three')}")),
        ("suid again", lambda: os.chmod(at("d/three"), 0o6777)),
        ("O_TRUNC of another user", lambda: as_nobody("sh", "-c", f": >{at('d/three')}")),
        ("suid once more", lambda: os.chmod(at("d/three"), 0o6777)),
        ("truncate of another user", lambda: as_nobody("truncate", "-s", "5", at("d/three"))),
        ("suid a last time", lambda: os.chmod(at("d/three"), 0o6777)),
        ("chown of a suid file", lambda: os.chown(at("d/three"), 0, NOBODY)),
    ]
    for what, step in steps:
        for name in everything:  # so that the kernel has it, present or not
            outcome(os.lstat, at(name))
        for name in ("", "d", "d/sub"):
            listing(at(name))
        step()
        try:
            same_attributes(pair, *everything)
            for name in ("", "d", "d/sub"):
                yt.equal(listing(at(name)), listing(pair.behind(name)), f"listing of {name!r}")
        except yt.Failure as failure:
            raise yt.Failure(f"after {what}: {failure}") from None
    pair.close()


def test_mode_that_execve_goes_by():
    """stat(2) asks anew after every write, execve(2) does not: a set-id bit that a write of another user took away must be gone for it too."""
    pair = Pair("execve", fill)
    os.chmod(pair.volume.base, 0o755)
    for way in ("truncate", "append"):
        program = pair.at("as-root-" + way)
        with open("/usr/bin/id", "rb") as file:
            code = file.read()
        write(program, code)
        os.chmod(program, 0o4777)
        yt.equal(yt.run("setpriv", "--reuid", "65534", "--clear-groups", program, "-u").strip(), "0", "a suid program")
        flags = "os.O_TRUNC" if way == "truncate" else "os.O_APPEND"
        body = "code" if way == "truncate" else "b'#'"
        yt.run("setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", f"""
import os
code = open('/usr/bin/id', 'rb').read()
fd = os.open({program!r}, os.O_WRONLY | {flags})
os.write(fd, {body})
os.close(fd)
""")
        yt.equal(yt.run("setpriv", "--reuid", "65534", "--clear-groups", program, "-u").strip(), "65534", f"after {way}")
    pair.close()


def test_snapshots_are_not_kept():
    """`.snapshots` changes without an operation: links, names and listing are always those of now."""
    pair = Pair("snapshots", fill)
    snapshots = pair.at("d/.snapshots")
    for round_ in range(3):
        before = os.readlink(os.path.join(snapshots, "latest"))
        yt.equal(os.readlink(os.path.join(snapshots, "latest")), before, "latest, again")
        seen = sorted(os.listdir(snapshots))
        yt.equal(seen[-1], before, "the newest in the list")
        ahead = [name for name in ("2100-01-01", "2100-01-01T00-00-00Z") if os.path.lexists(os.path.join(snapshots, name, "one"))]
        write(pair.at("d/one"), b"round %d" % round_)
        pair.sync()
        after = os.readlink(os.path.join(snapshots, "latest"))
        yt.check(after != before, f"latest is still {before}")
        yt.equal(sorted(os.listdir(snapshots)), seen + [after], "the list")
        yt.equal(read(os.path.join(snapshots, "latest", "one")), b"round %d" % round_, "content by the link")
        yt.equal(read(os.path.join(snapshots, before, "one")), read(os.path.join(snapshots, seen[-1], "one")), "the version before")
        for name in ahead:
            yt.equal(read(os.path.join(snapshots, name, "one")), b"round %d" % round_, name)
    os.mkdir(pair.at("fresh"))
    yt.check(not os.path.lexists(pair.at("fresh/.snapshots/latest")), "a version of a directory that is in none")
    pair.sync()
    yt.check(os.path.lexists(pair.at("fresh/.snapshots/latest")), "no version of a directory that is in one now")
    pair.close()


# ---- changes behind the mount

def behind_changes(pair):
    """(what, look, change): look() through the mount; change() behind it."""
    at, behind = pair.at, pair.behind
    now = os.stat(behind("d/two"))
    # Of the same size and with the same times: only st_ctime tells.
    disguise = (lambda: write(behind("d/two"), b"D/TWO"), lambda: os.utime(behind("d/two"), ns=(now.st_atime_ns, now.st_mtime_ns)))
    return [
        ("a name comes", lambda: os.path.lexists(at("d/nothing")), lambda: write(behind("d/nothing"), b"")),
        ("a name goes", lambda: os.path.lexists(at("gone")), lambda: os.unlink(behind("gone"))),
        ("a name means another file", lambda: read(at("replaced")),
         lambda: (write(behind("x"), b"another"), os.rename(behind("x"), behind("replaced")))),
        ("a file gets another name", lambda: (os.path.lexists(at("before")), outcome(read, at("after"))),
         lambda: os.rename(behind("before"), behind("after"))),
        ("a file becomes a directory", lambda: stat.S_IFMT(os.lstat(at("kind")).st_mode),
         lambda: (os.unlink(behind("kind")), os.mkdir(behind("kind")))),
        ("a directory goes with what is in it", lambda: (os.path.lexists(at("tree/a/b")), os.path.lexists(at("tree"))),
         lambda: yt.run("rm", "-r", behind("tree"))),
        ("a directory moves", lambda: (os.path.lexists(at("from/x")), outcome(read, at("to/x"))),
         lambda: os.rename(behind("from"), behind("to"))),
        ("two names are exchanged", lambda: (read(at("left")), read(at("right"))),
         lambda: yt.renameat2(behind("left"), behind("right"), yt.RENAME_EXCHANGE)),
        ("mode", lambda: stat.S_IMODE(os.stat(at("mode")).st_mode), lambda: os.chmod(behind("mode"), 0o600)),
        ("mode of a directory", lambda: stat.S_IMODE(os.stat(at("modes")).st_mode), lambda: os.chmod(behind("modes"), 0o700)),
        ("owner", lambda: os.stat(at("owner")).st_uid, lambda: os.chown(behind("owner"), NOBODY, -1)),
        ("times", lambda: os.stat(at("times")).st_mtime_ns, lambda: os.utime(behind("times"), ns=(5, 5))),
        ("size", lambda: os.stat(at("size")).st_size, lambda: os.truncate(behind("size"), 12345)),
        ("the count of names", lambda: os.stat(at("count")).st_nlink, lambda: os.link(behind("count"), behind("d/count"))),
        ("an ACL", lambda: outcome(os.getxattr, at("acl"), "system.posix_acl_access"),
         lambda: yt.run("setfacl", "-m", "u:nobody:rw", behind("acl"))),
        ("the target of a symlink", lambda: os.readlink(at("points")),
         lambda: (os.unlink(behind("points")), os.symlink("elsewhere", behind("points")))),
        ("where a symlink leads", lambda: outcome(read, at("points2")),
         lambda: (os.symlink("right2", behind("x2")), os.rename(behind("x2"), behind("points2")))),
        ("the listing of a directory: comes", lambda: sorted(os.listdir(at("list1"))), lambda: write(behind("list1/new"), b"")),
        ("the listing of a directory: goes", lambda: sorted(os.listdir(at("list2"))), lambda: os.unlink(behind("list2/a"))),
        ("content, longer", lambda: read(at("content1")), lambda: write(behind("content1"), b"longer than before")),
        ("content, in place", lambda: read(at("content2")), lambda: write(behind("content2"), b"CONTENT2", os.O_WRONLY)),
        ("content under the same times", lambda: read(at("d/two")), lambda: [step() for step in disguise]),
    ]


def fill_for_changes(root):
    fill(root)
    for name in ("gone", "replaced", "before", "kind", "left", "right", "mode", "owner", "times", "size", "count", "acl", "content1", "content2",
                 "left2", "right2"):
        write(os.path.join(root, name), name.encode())
    for name in ("tree/a", "from", "modes", "list1", "list2"):
        os.makedirs(os.path.join(root, name))
    for name in ("tree/a/b", "from/x", "list1/a", "list2/a"):
        write(os.path.join(root, name), name.encode())
    os.symlink("somewhere", os.path.join(root, "points"))
    os.symlink("left2", os.path.join(root, "points2"))


def test_changes_behind_the_mount():
    pair = Pair("behind", fill_for_changes)
    changes = behind_changes(pair)
    before = [costs_nothing(pair, what, look, "OPEN", "RELEASE", *LISTING) for what, look, _ in changes]
    opened = os.open(pair.at("content1"), os.O_RDONLY)  # what is open sees new content as well
    held = os.open(pair.at("tree"), os.O_RDONLY)        # and may be in a directory that is gone
    mapped = mmap.mmap(opened, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    yt.equal(mapped[:8], b"content1", "mapped")
    for _, _, change in changes:
        change()
    pair.sync()
    for (what, look, _), old in zip(changes, before):
        new = look()
        yt.check(new != old, f"{what}: still {old!r} after the change and a sync")
    yt.equal(os.pread(opened, 100, 0), b"longer than before", "through a descriptor from before")
    yt.equal(mapped[:6], b"longer", "through a mapping from before")
    yt.same_tree(yt.tree(pair.place), yt.tree(pair.volume.dir), "the mount and its directory")
    yt.same_tree(yt.tree(pair.at(".snapshots/latest")), yt.tree(pair.volume.dir), "the version and the directory")
    mapped.close()
    os.close(opened)
    os.close(held)
    # What no version has seen yet: the next one finds that it is gone when it is to be captured.
    write(pair.at("fresh"), b"fresh")
    os.mkdir(pair.at("freshdir"))
    write(pair.at("freshdir/x"), b"fresh")
    yt.check(os.path.lexists(pair.at("fresh")) and os.path.lexists(pair.at("freshdir/x")), "what was just made")
    os.unlink(pair.behind("fresh"))
    os.rename(pair.behind("freshdir/x"), pair.behind("freshdir/y"))
    pair.sync()
    yt.equal([os.path.lexists(pair.at(name)) for name in ("fresh", "freshdir/x", "freshdir/y")], [False, False, True], "names that no version had")
    # And once more, from the new state back.
    os.unlink(pair.behind("d/nothing"))
    write(pair.behind("gone"), b"gone")
    os.rename(pair.behind("after"), pair.behind("before"))
    os.rmdir(pair.behind("kind"))
    write(pair.behind("kind"), b"kind")
    pair.sync()
    yt.same_tree(yt.tree(pair.place), yt.tree(pair.volume.dir), "the mount and its directory, again")
    pair.close()


def test_dirty_pages():
    """The mount's dirty pages are not held to 1 % of memory, strictly, as those of a daemon that nobody trusts."""
    pair = Pair("dirty")
    with open("/proc/self/mountinfo") as file:
        device = [line.split()[2] for line in file if line.split()[4] == pair.place][0]
    for name, value in (("strict_limit", "0"), ("max_ratio", "20")):
        with open(f"/sys/class/bdi/{device}/{name}") as file:
            yt.equal(file.read().strip(), value, name)
    pair.close()


def test_in_place_by_an_old_descriptor():
    """Mounted in place, only who was there before the mount can change the directory: `sync --rescan` looks for that, `sync` does not."""
    volume = yt.Volume("inplace", binary=yt.FAILPOINTS_BIN, env=NEXT_YEAR).init(interval="1h")
    fill(volume.dir)
    before = os.open(volume.dir, os.O_RDONLY | os.O_DIRECTORY)
    volume.mount()
    volume.sync()
    yt.equal(os.path.lexists(volume.path("d/nothing")), False, "a name")
    yt.equal(sorted(os.listdir(volume.path("d"))), ["hard", "one", "sub", "three", "two"], "listing")
    fd = os.open("d/nothing", os.O_WRONLY | os.O_CREAT, dir_fd=before)
    os.write(fd, b"from before")
    os.close(fd)
    volume.sync()
    yt.equal(os.path.lexists(volume.path(".snapshots/latest/d/nothing")), False, "in the version of a plain sync")
    volume.sync("--rescan")
    yt.equal(read(volume.path("d/nothing")), b"from before", "content")
    yt.check("nothing" in os.listdir(volume.path("d")), "it is not listed")
    yt.equal(read(volume.path(".snapshots/latest/d/nothing")), b"from before", "in the version")
    os.close(before)
    volume.umount()


def test_a_rescan_seals_only_what_changed():
    """A sync with a rescan does not take what the mount itself has just written for a change behind it, and read all of it again."""
    pair = Pair("only", lambda root: write(os.path.join(root, "large"), os.urandom(1 << 20) * 24))
    sizes = []
    for round_ in range(3):
        before = pair.volume.status()
        fd = os.open(pair.at("large"), os.O_WRONLY)
        os.pwrite(fd, os.urandom(4096), 8192 * (round_ + 1))
        os.close(fd)
        pair.sync()
        after = pair.volume.status()
        yt.equal(after["version"], before["version"] + 1, "versions")
        sizes.append(after["uploaded_bytes"] - before["uploaded_bytes"])
    yt.check(max(sizes) < 64 << 10, f"4 KiB were overwritten, {sizes} bytes went up")
    before = pair.volume.status()["version"]
    pair.sync()
    yt.equal(pair.volume.status()["version"], before, "a version without a change")
    pair.close()


def test_tripping_over_a_change():
    """Before any rescan: an operation that meets what the kernel does not know answers what it would on the directory itself."""
    names = ("unlink", "rmdir/", "rename", "target", "replaced", "swap", "noreplace", "exchange", "open", "opendir/", "link")

    def prepare(root):
        for name in names:
            if name.endswith("/"):
                os.mkdir(os.path.join(root, name))
            else:
                write(os.path.join(root, name), name.encode())
    pair = Pair("trip", prepare)
    at, behind = pair.at, pair.behind
    absent = ("mkdir", "create", "excl", "mknod", "symlink", "hardlink", "new")
    for name in names + absent + ("gone", "place"):
        outcome(os.stat, at(name))
    for name in names:
        if name not in ("target", "replaced", "swap", "noreplace", "link"):
            (os.rmdir if name.endswith("/") else os.unlink)(behind(name))
    for name in absent:
        write(behind(name), b"theirs")
    for name in ("replaced", "swap", "noreplace"):
        write(behind("tmp"), b"theirs")
        os.rename(behind("tmp"), behind(name))
    steps = [
        ("unlink", lambda: os.unlink(at("unlink")), "ENOENT"),
        ("rmdir", lambda: os.rmdir(at("rmdir/")), "ENOENT"),
        ("rename", lambda: os.rename(at("rename"), at("gone")), "ENOENT"),
        ("exchange", lambda: yt.renameat2(at("exchange"), at("target"), yt.RENAME_EXCHANGE), "ENOENT"),
        ("exchange", lambda: yt.renameat2(at("target"), at("exchange"), yt.RENAME_EXCHANGE), "ENOENT"),
        ("noreplace", lambda: yt.renameat2(at("target"), at("noreplace"), yt.RENAME_NOREPLACE), "EEXIST"),
        ("open", lambda: read(at("open")), "ENOENT"),
        ("opendir", lambda: os.listdir(at("opendir/")), "ENOENT"),
        ("mkdir", lambda: os.mkdir(at("mkdir")), "EEXIST"),
        ("open of another", lambda: read(at("replaced")), b"theirs"),
        ("create", lambda: (write(at("create"), b"ours", os.O_WRONLY | os.O_CREAT), read(at("create")))[1], b"oursrs"),
        ("excl", lambda: os.open(at("excl"), os.O_WRONLY | os.O_CREAT | os.O_EXCL), "EEXIST"),
        ("mknod", lambda: os.mknod(at("mknod")), "EEXIST"),
        ("symlink", lambda: os.symlink("x", at("symlink")), "EEXIST"),
        ("link", lambda: os.link(at("link"), at("hardlink")), "EEXIST"),
        ("unlink of another", lambda: os.unlink(at("swap")), None),
        ("rename of another", lambda: os.rename(at("replaced"), at("place")), None),
        ("what came with it", lambda: read(at("place")), b"theirs"),
        ("what was there", lambda: os.path.lexists(at("replaced")), False),
        ("rename over one unseen", lambda: os.rename(at("target"), at("new")), None),
        ("what is there", lambda: read(at("new")), b"target"),
    ]
    for what, step, expected in steps:
        yt.equal(outcome(step), expected, what)
    pair.sync()
    yt.same_tree(yt.tree(pair.place), yt.tree(pair.volume.dir), "the mount and its directory")
    yt.same_tree(yt.tree(pair.at(".snapshots/latest")), yt.tree(pair.volume.dir), "the version and the directory")
    pair.close()


def test_mounts_on_the_mount_stay():
    """Somebody else's mount on a directory of ours is not taken away because something was found changed there."""
    pair = Pair("nested", fill)
    yt.run("mount", "-t", "tmpfs", "yester-test", pair.at("d/sub"))
    try:
        write(pair.at("d/sub/file"), b"on tmpfs")
        os.rename(pair.behind("d"), pair.behind("e"))
        os.rename(pair.behind("e"), pair.behind("d"))
        os.chmod(pair.behind("d"), 0o700)
        os.chmod(pair.behind("d/sub"), 0o700)
        write(pair.behind("d/sub/new"), b"beneath")
        pair.sync()
        yt.equal(read(pair.at("d/sub/file")), b"on tmpfs", "what is mounted there")
    finally:
        yt.run("umount", pair.at("d/sub"))
    yt.same_tree(yt.tree(pair.place), yt.tree(pair.volume.dir), "the mount and its directory")
    pair.close()


def test_beside_its_directory():
    """Mounted elsewhere, and nothing said of the directory: what is changed there shows soon, and every sync takes it in."""
    volume = yt.Volume("beside", binary=yt.FAILPOINTS_BIN, env=NEXT_YEAR).init(interval="1h")
    fill(volume.dir)
    place = os.path.join(volume.base, "mnt")
    volume.mount(mountpoint=place)
    volume.sync()
    for _ in range(2):
        with Trace(place) as trace:
            yt.check(not os.path.lexists(os.path.join(place, "d/nothing")), "nothing is there")
        yt.check(trace.count["LOOKUP"] >= 1, f"that nothing is there was kept ({trace})")
    yt.equal(read(os.path.join(place, "file")), b"file", "content")
    names = sorted(os.listdir(os.path.join(place, "d")))
    write(os.path.join(volume.dir, "d/nothing"), b"now")
    write(os.path.join(volume.dir, "x"), b"replaced")
    os.rename(os.path.join(volume.dir, "x"), os.path.join(volume.dir, "file"))
    yt.equal(read(os.path.join(place, "d/nothing")), b"now", "what has come")
    yt.wait_until("the other file", lambda: read(os.path.join(place, "file")) == b"replaced")
    yt.wait_until("the other listing", lambda: sorted(os.listdir(os.path.join(place, "d"))) == sorted(names + ["nothing"]))
    volume.sync()
    yt.same_tree(yt.tree(os.path.join(place, ".snapshots/latest")), yt.tree(volume.dir), "the version and the directory")
    volume.umount()


def test_sync_under_load():
    """Rescans tell the kernel while processes work in the very directories: nobody waits for ever, and all is right in the end."""
    pair = Pair("load", fill)
    worker = r"""
import os, sys, random
place, behind, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
for i in range(1500):
    root = behind if random.random() < .2 else place
    name = os.path.join(root, "d", "w%d" % random.randrange(8))
    try:
        what = random.randrange(6)
        if what == 0:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        elif what == 1:
            os.unlink(name)
        elif what == 2:
            os.listdir(os.path.join(place, "d"))
        elif what == 3:
            os.lstat(name)
        elif what == 4:
            os.rename(name, name[:-1] + str(random.randrange(8)))
        else:
            with open(name, "r+b") as file:
                file.write(b"%d" % i)
                os.fsync(file.fileno()) if i % 50 == 0 else None
    except (FileNotFoundError, FileExistsError):
        pass
    except OSError as problem:
        if problem.errno != 116:  # twice changed behind our back within one call
            raise
"""
    workers = [subprocess.Popen([sys.executable, "-c", worker, pair.place, pair.volume.dir, str(seed)], stderr=subprocess.PIPE) for seed in range(3)]
    while any(process.poll() is None for process in workers):
        pair.sync()
    for process in workers:
        _, said = process.communicate(timeout=60)
        yt.check(process.returncode == 0, f"a worker: {said.decode()}")
    pair.sync()
    yt.same_tree(yt.tree(pair.place), yt.tree(pair.volume.dir), "the mount and its directory")
    yt.same_tree(yt.tree(pair.at(".snapshots/latest")), yt.tree(pair.volume.dir), "the version and the directory")
    pair.close()


if __name__ == "__main__":
    yt.main(globals())

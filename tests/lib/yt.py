"""yt: what the tests of mounted volumes share. Nothing but Python's library.

A test is a script with functions named test_*; yt.main(globals()) runs them in the order of the file, cleans up what they left mounted or
running (by process id), and exits with 0, 77 (some were skipped) or 1. The environment is what tests/run gives: YESTER, YESTER_FAILPOINTS_BIN, TEST_TMP.
Nothing here sleeps for an effect: wait_until() asks again until an answer comes, with a deadline.
"""
import atexit
import collections
import ctypes
import errno
import hashlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback

import autopsy

LIB = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(LIB))
YESTER = os.path.abspath(os.environ.get("YESTER", os.path.join(TOP, "build/yester")))
FAILPOINTS_BIN = os.path.abspath(os.environ.get("YESTER_FAILPOINTS_BIN", os.path.join(TOP, "build/failpoints/yester")))
TMP = os.environ.get("TEST_TMP") or os.path.join("/tmp", "yester-by-hand.%d" % os.getpid())
os.makedirs(TMP, exist_ok=True)
os.chmod(TMP, 0o755)  # other users' processes come in too

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE_RANGE, FALLOC_ZERO_RANGE = 1, 2, 8, 16


class Failure(Exception):
    """A test found what should not be."""


class Late(Failure):
    """It may have been about to be found: something took too long."""


class Skip(Exception):
    """A test can't run here; says why."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def equal(found, expected, what):
    if found != expected:
        raise Failure(f"{what}: found {found!r}, expected {expected!r}")


def pause():
    """Between two looks of a polling loop."""
    select.select([], [], [], 0.02)


def wait_until(what, condition, seconds=60):
    """The first true value of condition(); a Failure after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Late(f"waited {seconds} s for: {what}")
        pause()


def run(*arguments, expect=0, env=None, timeout=180, **others):
    """Runs a program; what it wrote to standard output. `expect`: its exit code, or None for any (then the CompletedProcess is the result)."""
    done = subprocess.run([os.fspath(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=env, timeout=timeout, **others)
    if expect is None:
        return done
    if done.returncode != expect:
        raise Failure("%s: exit code %d, not %d\n%s%s" % (
            " ".join(map(os.fsdecode, map(os.fspath, arguments))), done.returncode, expect,
            done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")))
    return done.stdout.decode("utf-8", "replace")


class Beside(threading.Thread):
    """Works on a plain directory all the time, so that a test can tell a mount that waits for something from a slow machine."""

    def __init__(self):
        super().__init__(daemon=True)
        self.path = os.path.join(TMP, "beside")
        self.rounds = collections.deque(maxlen=10_000)  # (began, took)
        self.began = time.monotonic()
        self.start()

    def run(self):
        while True:
            self.began = time.monotonic()
            with open(self.path, "wb") as file:
                file.write(bytes(20_000))
                file.flush()
                os.fsync(file.fileno())
            os.rename(self.path, self.path + ".renamed")
            run("true")
            self.rounds.append((self.began, time.monotonic() - self.began))
            pause()

    def check(self, what, began, seconds):
        """A Failure if what began then took so long that the machine is no excuse."""
        took = time.monotonic() - began
        plain = max([time.monotonic() - self.began] + [took for at, took in list(self.rounds) if at + took >= began])
        check(took < seconds + 10 * plain, f"{what} took {took:.1f} s; a round of plain work beside it {plain:.1f} s at most")


# ---- system calls that os lacks

def _checked(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(old, new, flags):
    _checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)))


def link_descriptor(fd, new):
    """A name for an open file without one. (os.link does not follow /proc's links.)"""
    _checked(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(new), AT_SYMLINK_FOLLOW))


def fallocate(fd, mode, offset, length):
    _checked(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


# ---- processes and mounts

def start_time(pid):
    """When a process began, to tell it from a later one with the same id; None: there is none (or a dead one that nobody waited for)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _unescape(text):
    for code in ("040", "011", "012", "134"):
        text = text.replace("\\" + code, chr(int(code, 8)))
    return text


def mounts(below=None):
    """(mount point, type, options) of each mount, in the order in which they were made."""
    found = []
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            kind = fields[fields.index("-") + 1]
            place = _unescape(fields[4])
            if below is None or place == below or place.startswith(below.rstrip("/") + "/"):
                found.append((place, kind, fields[5]))
    return found


def is_mounted(place):
    return any(found == place for found, _, _ in mounts())


def detach(place):
    """umount -l of all that is mounted there."""
    while is_mounted(place):
        run("umount", "-l", place)


class Volume:
    """A volume on a directory and a remote of its own, below TMP/NAME."""
    everyone = []

    def __init__(self, name="v", remote=None, binary=None, env=None):
        self.name = name
        self.base = os.path.join(TMP, name)
        self.dir = os.path.join(self.base, "dir")
        self.remote = remote or "file://" + os.path.join(self.base, "remote")
        self.binary = binary or YESTER
        self.env = dict(os.environ, YESTER_CONFIG_DIR=os.path.join(self.base, "config"), LC_ALL="C.UTF-8",
                        YESTER_STATE_DIR=os.path.join(self.base, "state"), HOME=self.base)
        self.env.pop("YESTER_FAILPOINT", None)
        self.env.pop("YESTER_FAILPOINT_LOG", None)
        self.env.pop("YESTER_PASSPHRASE_FILE", None)
        self.env.update(env or {})
        self.mountpoint = self.dir
        self.daemon = None
        os.makedirs(self.base, exist_ok=True)
        Volume.everyone.append(self)

    # -- files

    @property
    def state(self):
        return os.path.join(self.base, "state", self.name)

    @property
    def config(self):
        return os.path.join(self.base, "config", self.name + ".conf")

    @property
    def remote_path(self):
        return self.remote.removeprefix("file://")

    @property
    def key_file(self):
        with open(self.config) as file:
            for line in file:
                key, _, value = line.partition("=")
                if key.strip() == "key_file":
                    return value.strip()
        raise Failure(f"{self.config} names no key file")

    def path(self, *parts):
        return os.path.join(self.mountpoint, *parts)

    # -- verbs

    def yester(self, *arguments, expect=0, env=None, timeout=180, binary=None):
        return run(binary or self.binary, *arguments, expect=expect, env=dict(self.env, **(env or {})), timeout=timeout)

    def init(self, *arguments, **config):
        """yester init; `config`: keys for the config file, e.g. interval="1s"."""
        os.makedirs(self.dir, exist_ok=True)
        if self.remote.startswith("file://"):
            os.makedirs(self.remote_path, exist_ok=True)
        self.yester("init", self.dir, self.remote, "--name", self.name, *arguments)
        self.configure(**config)
        return self

    def configure(self, **config):
        with open(self.config) as file:
            lines = [line for line in file if line.partition("=")[0].strip() not in config]
        with open(self.config, "w") as file:
            file.writelines(lines)
            file.writelines(f"{key} = {value}\n" for key, value in config.items())

    def mount(self, *arguments, mountpoint=None, env=None, expect=0, timeout=60):
        self.mountpoint = mountpoint or self.dir
        if mountpoint:
            os.makedirs(mountpoint, exist_ok=True)
        done = self.yester("mount", self.dir, *([mountpoint] if mountpoint else []), *arguments, env=env, expect=expect,
                           timeout=timeout)
        if expect == 0:
            self.note_daemon()
        return done

    def note_daemon(self):
        """Remembers the daemon that holds the volume's lock."""
        with open(os.path.join(self.state, "lock")) as file:
            pid = int(file.read().split()[0])
        began = start_time(pid)
        check(began, f"no process {pid}, which {self.state}/lock names")
        self.daemon = (pid, began)

    @property
    def pid(self):
        return self.daemon[0]

    def is_alive(self):
        return self.daemon is not None and start_time(self.daemon[0]) == self.daemon[1]

    def umount(self, *arguments, expect=0, timeout=120):
        done = self.yester("umount", self.dir, *arguments, expect=expect, timeout=timeout)
        self.wait_gone()
        return done

    def wait_gone(self, seconds=60):
        wait_until("the daemon's end", lambda: not self.is_alive(), seconds)

    def kill(self):
        """SIGKILL to the daemon, and the dead mount taken away."""
        if self.is_alive():
            os.kill(self.daemon[0], signal.SIGKILL)
        self.wait_gone()
        detach(self.mountpoint)

    def sync(self, *arguments, expect=0, timeout=180):
        return self.yester("sync", self.dir, *arguments, expect=expect, timeout=timeout)

    def status(self):
        return json.loads(self.yester("status", self.dir, "--json"))

    def wait_state(self, state, seconds=60):
        last = {}

        def looks():
            last.clear()
            last.update(self.status())
            return last["state"] == state
        try:
            wait_until(state, looks, seconds)
        except Late as late:
            raise Late(f"{late}; status is {json.dumps(last)}") from None
        return last

    def latest(self):
        """Name of the newest version."""
        return os.readlink(self.path(".snapshots/latest"))

    def snapshot(self, name, *parts):
        return os.path.join(self.mountpoint, ".snapshots", name, *parts)

    def versions(self):
        return sorted(os.listdir(self.path(".snapshots")))

    def drop_cache(self):
        """What is only a copy of the remote goes away. The volume must not be mounted, and all of it be in the remote: sent files of the spool
        stay there as a cache, too."""
        for name in ("cache", "spool"):
            shutil.rmtree(os.path.join(self.state, name))
            os.makedirs(os.path.join(self.state, name), 0o700)

    def clone(self, name, *arguments, expect=0, timeout=300, binary=None, env=None):
        """The same remote on another machine: a Volume with its own config, state and directory."""
        other = Volume(name, self.remote, binary or self.binary, {})
        other.env = dict(self.env, **{key: other.env[key] for key in ("YESTER_CONFIG_DIR", "YESTER_STATE_DIR", "HOME")})
        other.cloned = other.yester("clone", self.remote, other.dir, "--name", name, *self.secret(), *arguments,
                                    expect=expect, timeout=timeout, env=env)
        return other

    def secret(self):
        """The words that give `clone` this volume's key."""
        try:
            return ["--key-file", self.key_file]
        except Failure:
            return []

    def remove(self):
        """Ends the daemon and removes all that belongs to the volume on this machine and, for a file store, of the remote."""
        self.clean_up()
        Volume.everyone.remove(self)
        shutil.rmtree(self.base, ignore_errors=True)

    def clean_up(self):
        for place in {place for place, _, _ in mounts(self.base)}:
            subprocess.run(["umount", "-l", place], stderr=subprocess.DEVNULL, check=False)
        if not self.is_alive():
            return
        try:
            os.kill(self.daemon[0], signal.SIGKILL)
        except ProcessLookupError:
            pass


class Gateway:
    """A real S3 server (tests/lib/gateway), and with proxy=True a proxy (tests/lib/proxy.py) in front of it."""

    def __init__(self, name="gateway", proxy=False):
        self.dir = os.path.join(TMP, name)
        self.program = os.path.join(LIB, "gateway")
        self.proxy_dir = os.path.join(TMP, name + "-proxy") if proxy else None
        done = run(self.program, "start", self.dir, expect=None, timeout=170)
        if done.returncode == 77:
            raise Skip(done.stderr.decode().strip())
        check(done.returncode == 0, f"gateway start: {done.stderr.decode()}")
        atexit.register(self.stop)
        text = run("sh", "-c", '. "$1/env"; env -0', "sh", self.dir)
        words = dict(item.split("=", 1) for item in text.split("\0") if item)
        self.env = {key: value for key, value in words.items() if key.startswith("AWS_")}
        self.direct = dict(self.env)
        if proxy:
            run(os.path.join(LIB, "proxy.py"), "start", self.proxy_dir, self.env["AWS_ENDPOINT_URL"])
            with open(os.path.join(self.proxy_dir, "url")) as file:
                self.env["AWS_ENDPOINT_URL"] = file.read().strip()

    def bucket(self, name):
        run(os.path.join(LIB, "s3curl.py"), "make-bucket", name, env=dict(os.environ, **self.direct))
        return f"s3://{name}/volume"

    def objects(self, bucket):
        """{key: size}"""
        text = run(os.path.join(LIB, "s3curl.py"), "list", bucket, env=dict(os.environ, **self.direct))
        return {key: int(size) for size, key in (line.split(" ", 1) for line in text.splitlines())}

    def do(self, verb):
        run(self.program, verb, self.dir, timeout=170)

    def proxy(self, *words):
        run(os.path.join(LIB, "proxy.py"), "set", self.proxy_dir, *words)

    def requests(self, bucket=""):
        """(method, url, status, bytes up, bytes down) of each request that the proxy saw; of one bucket, if it is given."""
        try:
            with open(os.path.join(self.proxy_dir, "log")) as file:
                lines = [line.split() for line in file]
        except FileNotFoundError:
            return []
        return [(f[0], f[1], f[2], int(f[3]), int(f[4])) for f in lines if f[1].startswith("/" + bucket)]

    def stop(self):
        if self.proxy_dir:
            subprocess.run([os.path.join(LIB, "proxy.py"), "stop", self.proxy_dir], check=False)
        subprocess.run([self.program, "stop", self.dir], stderr=subprocess.DEVNULL, check=False)


# ---- trees

SPARSE = 64 << 20


def read_all(path):
    """A digest of what is in a file. Large ones are read by their data only; zeros count as holes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        digest = hashlib.sha256()
        size = os.fstat(fd).st_size
        if size < SPARSE:
            while True:
                data = os.read(fd, 1 << 20)
                if not data:
                    return digest.hexdigest()
                digest.update(data)
        digest.update(b"%d" % size)
        done = 0
        for begin, end in data_ranges(path):
            at = max(begin & ~0xffff, done)
            while at < end:
                data = os.pread(fd, 1 << 16, at)
                if data.strip(b"\0"):
                    digest.update(b"%d:" % at + data)
                at += 1 << 16
            done = at
        return digest.hexdigest()
    finally:
        os.close(fd)


def data_ranges(path):
    """Where a file has data and not holes, by SEEK_DATA and SEEK_HOLE."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found, at, size = [], 0, os.fstat(fd).st_size
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as problem:
                if problem.errno == errno.ENXIO:
                    break
                raise
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            found.append((begin, at))
        return tuple(found)
    finally:
        os.close(fd)


def xattrs(path):
    return tuple(sorted((name, os.getxattr(path, name, follow_symlinks=False))
                        for name in os.listxattr(path, follow_symlinks=False)))


def entry(path, data=True, times=True):
    st = os.lstat(path)
    found = {"type": stat.S_IFMT(st.st_mode), "mode": oct(stat.S_IMODE(st.st_mode)), "uid": st.st_uid, "gid": st.st_gid}
    if times:
        found["mtime"] = st.st_mtime_ns
    found["xattrs"] = xattrs(path)
    if stat.S_ISLNK(st.st_mode):
        found["target"] = os.readlink(path)
    elif stat.S_ISREG(st.st_mode):
        found["size"] = st.st_size
        if data:
            found["data"] = read_all(path)
    elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        found["rdev"] = st.st_rdev
    return found, st


def tree(root, data=True, times=True):
    """{path below root, as bytes: what can be seen of it}: type, mode, owners, mtime, xattrs and ACLs, content, link target, device, and the
    first of the names of the same inode."""
    root = os.path.realpath(os.fsencode(root))
    found, first = {}, {}

    def visit(path, name):
        item, st = entry(path, data, times)
        if not stat.S_ISDIR(st.st_mode):
            item["links"] = st.st_nlink
            item["same as"] = first.setdefault((st.st_dev, st.st_ino), name)
        found[name] = item
        if stat.S_ISDIR(st.st_mode):
            for child in sorted(os.listdir(path)):
                visit(os.path.join(path, child), os.path.join(name, child) if name else child)
    visit(root, b"")
    return found


def without_times(found):
    """A tree of tree() as it would be with times=False."""
    return {name: {key: value for key, value in item.items() if key != "mtime"} for name, item in found.items()}


def same_tree(found, expected, what):
    """A Failure that shows the first differences."""
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            lines.append(f"missing: {name!r}")
        elif name not in expected:
            lines.append(f"too much: {name!r}")
        elif found[name] != expected[name]:
            keys = [key for key in expected[name] | found[name] if found[name].get(key) != expected[name].get(key)]
            lines.append(f"{name!r}: " + ", ".join(
                f"{key} is {found[name].get(key)!r}, should be {expected[name].get(key)!r}" for key in keys))
    if lines:
        more = f"\n  ... {len(lines)} differences" if len(lines) > 20 else ""
        raise Failure(f"{what}:\n  " + "\n  ".join(lines[:20]) + more)


# ---- the frame of a test

def _leave(number, _frame):
    sys.exit(128 + number)


def _clean_up():
    for volume in list(Volume.everyone):
        try:
            volume.clean_up()
        except Exception:  # the others have their turn all the same
            traceback.print_exc()


def _autopsy():
    """Where all processes of this test are: text. subprocess has killed the program that took too long."""
    lines = []
    for volume in Volume.everyone:
        if volume.is_alive():
            lines += autopsy.process(volume.pid)
            try:
                lines.append("status: " + volume.yester("status", volume.dir, "--json", expect=None, timeout=20).stdout.decode())
            except subprocess.TimeoutExpired:
                lines.append("status gives no answer")
    for pid in autopsy.descendants(os.getpid()):
        lines += autopsy.process(pid)
    return "\n".join(lines)


def main(names):
    """Runs the functions test_* of a script; arguments of the command line choose among them."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    atexit.register(_clean_up)
    wanted = sys.argv[1:]
    passed = failed = skipped = 0
    for name, function in list(names.items()):
        if not name.startswith("test_") or not callable(function) or (wanted and name not in wanted):
            continue
        began = time.monotonic()
        try:
            function()
            passed += 1
            word = "ok"
        except Skip as reason:
            skipped += 1
            word = f"skip: {reason}"
        except (Late, subprocess.TimeoutExpired) as late:
            failed += 1
            word = f"FAILED: {late}\n{_autopsy()}\n" + traceback.format_exc()
        except Failure as failure:
            failed += 1
            word = f"FAILED: {failure}"
        except Exception:
            failed += 1
            word = "FAILED: " + traceback.format_exc()
        print(f"{name} ({time.monotonic() - began:.1f} s): {word}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed or not passed + skipped else 77 if skipped else 0)

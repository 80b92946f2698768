#!/usr/bin/python3 -B
# timeout: 120
# both libfuse
"""The daemon is killed while a thread of it waits in the kernel for the lock of a directory of the mount (invalidate.h). That thread keeps the
connection open: others' requests would wait for ever. Here a process keeps the lock for ever itself, by a buffer for getdents(2) that never gets its page."""
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

USERFAULTFD, GETDENTS64 = 323, 217  # of x86_64
if os.uname().machine == "aarch64":
    USERFAULTFD, GETDENTS64 = 282, 61
UFFDIO_API, UFFDIO_REGISTER, UFFD_API, MISSING = 0xC018AA3F, 0xC020AA00, 0xAA, 1
# fuse_abort_conn() ends what was on its way with ECONNABORTED; what comes afterwards gets ENOTCONN (fs/fuse/dev.c).
DEAD = (os.strerror(errno.ENOTCONN).encode(), os.strerror(errno.ECONNABORTED).encode())


def list_for_ever(path, ready):
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    faults = yt._checked(yt.libc.syscall(USERFAULTFD, os.O_CLOEXEC))
    fcntl.ioctl(faults, UFFDIO_API, struct.pack("QQQ", UFFD_API, 0, 0))
    fcntl.ioctl(faults, UFFDIO_REGISTER, struct.pack("QQQQ", address, mmap.PAGESIZE, MISSING, 0))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    ready.set()
    yt.libc.syscall(GETDENTS64, fd, ctypes.c_void_p(address), mmap.PAGESIZE)


def waits_in(pid, function):
    """A thread of it does."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stack", encoding="ascii") as file:
            if function in file.read():
                return True
    return False


def breaker_of(daemon):
    """The process that breaks the connection when the daemon is dead."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                name, _, rest = file.read().partition(" (")[2].rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name == "yester-breaker" and int(rest.split()[1]) == daemon:
            return int(pid)
    raise yt.Failure("the daemon has no yester-breaker")


def waiting_signals(pid):
    """Numbers of those that were sent to it and that it has not taken."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        bits = int(file.read().partition("ShdPnd:")[2].split()[0], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


def test_signals_to_the_breaker():
    """Anybody may send it any, `systemctl kill` to each process of a unit: the connection breaks only when the daemon is dead."""
    if os.geteuid() != 0:
        raise yt.Skip("only root can break a connection")
    volume = yt.Volume("signals").init(interval="1h")
    volume.mount()
    breaker = breaker_of(volume.pid)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if yt.start_time(breaker):
            os.kill(breaker, number)
    # By one of them it hears of the daemon's end.
    yt.wait_until("the breaker has seen its signal", lambda: not yt.start_time(breaker) or (
        signal.SIGRTMIN not in waiting_signals(breaker) and waits_in(breaker, "sigtimedwait")))
    yt.equal(os.listdir(volume.mountpoint), [], "the live mount lists")
    yt.check(yt.start_time(breaker), "the breaker has ended")
    os.kill(volume.pid, signal.SIGKILL)
    yt.wait_until("the breaker's end", lambda: not yt.start_time(breaker))
    volume.kill()


def test_killed_while_a_directory_is_locked():
    end_while_a_directory_is_locked(yt.Volume("locked"), signal.SIGKILL)


def test_crashed_while_a_directory_is_locked():
    """A core dump would wait for the thread that can't end; and it would have the keys in it. What forbids it is undone by the kernel when a thread acts as
    somebody else, where fs.suid_dumpable is 2 (systemd); here it is left out."""
    volume = yt.Volume("crashed", binary=yt.FAILPOINTS_BIN, env={"YESTER_FAILPOINT": "main/dumpable=EPERM"})
    end_while_a_directory_is_locked(volume, signal.SIGSEGV)


def end_while_a_directory_is_locked(volume, how):
    if os.geteuid() != 0:
        raise yt.Skip("only root can break a connection")
    volume.init(interval="1h")
    os.makedirs(os.path.join(volume.dir, "d"))
    for name in ("d/one", "other"):
        with open(os.path.join(volume.dir, name), "wb") as file:
            file.write(b"content")
    before = os.open(volume.dir, os.O_RDONLY | os.O_DIRECTORY)
    volume.mount()
    volume.sync()
    yt.equal(os.path.lexists(volume.path("d/nothing")), False, "a name")
    ready = multiprocessing.Event()
    lister = multiprocessing.Process(target=list_for_ever, args=(volume.path("d"), ready))
    lister.start()
    ready.wait()
    yt.wait_until("somebody lists the directory", lambda: waits_in(lister.pid, "handle_userfault"))
    os.close(os.open("d/nothing", os.O_WRONLY | os.O_CREAT, dir_fd=before))
    sync = subprocess.Popen([yt.YESTER, "sync", volume.dir, "--rescan"], env=volume.env, stderr=subprocess.DEVNULL)
    daemon = volume.pid
    yt.wait_until("the daemon waits for the directory", lambda: waits_in(daemon, "fuse_reverse_inval_entry"))
    os.kill(daemon, how)
    try:
        done = yt.run("stat", volume.path("nobody knows it yet"), expect=None, timeout=60)
        yt.check(any(text in done.stderr for text in DEAD), f"a dead mount: {done.stderr}")
        yt.check(done.returncode != 0, "a dead mount answers")
    finally:
        lister.kill()
        lister.join()
        sync.wait()
        os.close(before)
        volume.kill()
    volume.mount()
    volume.sync()
    yt.equal(sorted(os.listdir(volume.snapshot("latest", "d"))), ["nothing", "one"], "the directory afterwards")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

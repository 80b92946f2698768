"""fusetrace: which requests the kernel sends to a FUSE daemon, counted by the kernel's own tracepoint (Linux 6.10, as root): the daemon is not touched, whatever
its transport, and other mounts are not counted.

    with Trace(mountpoint) as trace:
        os.stat(...)
    trace.count["LOOKUP"], trace.total()

FORGET and the like need no answer and are left out, as are releases of what was open before.
"""
import atexit
import collections
import os
import re
import subprocess

import yt

NO_ANSWER = {"FORGET", "BATCH_FORGET", "INTERRUPT", "NOTIFY_REPLY"}
_place = None


def _tracefs():
    """Where tracefs is; mounted for this test if it is nowhere."""
    global _place
    if _place is None:
        found = [place for place, kind, _ in yt.mounts() if kind == "tracefs"]
        if found:
            _place = found[0]
        else:
            _place = os.path.join(yt.TMP, "tracefs")
            os.makedirs(_place, exist_ok=True)
            yt.run("mount", "-t", "tracefs", "tracefs", _place)
            atexit.register(subprocess.run, ["umount", "-l", _place], check=False)
    if not os.path.isdir(os.path.join(_place, "events/fuse/fuse_request_send")):
        raise yt.Skip("the kernel has no tracepoint for FUSE requests (Linux 6.10, CONFIG_FTRACE)")
    return _place


class Trace:
    def __init__(self, mountpoint):
        self.dir = os.path.join(_tracefs(), "instances", "yester-%d-%d" % (os.getpid(), id(self)))
        with open("/proc/self/mountinfo") as file:
            lines = [line.split() for line in file]
        device = [line[2] for line in lines if line[4] == mountpoint][-1]
        major, minor = map(int, device.split(":"))
        self.device = major << 20 | minor
        self.count = collections.Counter()

    def _write(self, path, text):
        with open(os.path.join(self.dir, path), "w") as file:
            file.write(text)

    def __enter__(self):
        os.mkdir(self.dir)
        self._write("buffer_size_kb", "4096")
        self._write("events/fuse/fuse_request_send/filter", f"connection == {self.device}")
        self._write("events/fuse/fuse_request_send/enable", "1")
        self._write("tracing_on", "1")
        return self

    def __exit__(self, *_):
        self._write("tracing_on", "0")
        with open(os.path.join(self.dir, "trace")) as file:
            for line in file:
                found = re.search(r"fuse_request_send: .*\(FUSE_([A-Z0-9_]+)\)", line)
                if found and found[1] not in NO_ANSWER:
                    self.count[found[1]] += 1
        lost = 0
        for cpu in os.listdir(os.path.join(self.dir, "per_cpu")):
            with open(os.path.join(self.dir, "per_cpu", cpu, "stats")) as file:
                lost += sum(int(line.split(":")[1]) for line in file if line.startswith(("overrun", "dropped")))
        os.rmdir(self.dir)
        yt.check(lost == 0, f"{lost} events of the trace were lost")

    def total(self, *but):
        return sum(number for name, number in self.count.items() if name not in but)

    def __str__(self):
        return ", ".join(f"{number} {name}" for name, number in sorted(self.count.items())) or "none"

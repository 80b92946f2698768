"""systems: what `make bench` compares. Each is a directory to work in, top, whose data lies in another, back, on the filesystem under test."""
import json
import os
import shutil
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("YESTER_BUILD") or os.path.join(os.path.dirname(os.path.dirname(HERE)), "build")
YESTER = os.environ.get("YESTER", os.path.join(BUILD, "yester"))
PASSTHROUGH_HP = os.path.join(BUILD, "bench/passthrough_hp")
FEED_BYTES = 256 << 20


class Missing(Exception):
    """A system can't be had here; says why."""


def quiet(*arguments, **others):
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **others)
    if done.returncode != 0:
        raise Missing(f"{' '.join(arguments)}: {done.stdout.strip() or done.returncode}")
    return done.stdout


def wait_until(what, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Missing(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class System:
    """Native: nothing in between."""
    pid = None
    about = "the filesystem itself"

    def __init__(self, name, disk):
        self.name = name
        self.base = os.path.join(disk, name)
        self.back = self.top = os.path.join(self.base, "data")

    def start(self):
        os.makedirs(self.back)

    def stop(self):
        pass

    def before_row(self):
        """What belongs to the system's state, outside of the time measured."""

    def after_row(self):
        """A remark, or None."""

    def processor_seconds(self):
        """Of the daemon, so far."""
        if self.pid is None:
            return 0.0
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class PassthroughHp(System):
    def __init__(self, name, disk, *options):
        super().__init__(name, disk)
        self.options = options
        self.top = os.path.join(self.base, "mount")
        self.about = "libfuse's passthrough_hp " + " ".join(options)
        self.process = None

    def start(self):
        super().start()
        os.makedirs(self.top)
        if not os.path.exists(PASSTHROUGH_HP):
            raise Missing("it is not built: scripts/setup --bench, then make bench")
        self.process = subprocess.Popen([PASSTHROUGH_HP, "--foreground", *self.options, self.back, self.top],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.pid = self.process.pid
        try:
            wait_until(f"the mount of {self.name}", lambda: os.path.ismount(self.top) or self.process.poll() is not None, 10)
        except Missing:
            self.stop()
            raise
        if self.process.poll() is not None:
            raise Missing(self.process.stderr.read().decode().strip())

    def stop(self):
        subprocess.run(["umount", self.top], stderr=subprocess.DEVNULL, check=False)
        if self.process:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Yester(System):
    """busy: while each row runs, some hundred megabytes are sealed and uploaded, and versions follow each other every second. Otherwise the journal is on
    as always, and the sync thread sleeps."""

    def __init__(self, name, disk, options=(), busy=False):
        super().__init__(name, disk)
        self.options, self.busy = options, busy
        self.top = os.path.join(self.base, "mount")
        self.about = " ".join(["yester mount", *(f"-o {option}" for option in options)]) + (", uploading meanwhile" if busy else "")
        self.env = dict(os.environ, YESTER_CONFIG_DIR=self.base + "/config", YESTER_STATE_DIR=self.base + "/state",
                        HOME=self.base)

    def yester(self, *arguments):
        return quiet(YESTER, *arguments, env=self.env)

    def start(self):
        super().start()
        os.makedirs(self.top)
        os.makedirs(self.base + "/remote")
        self.yester("init", self.back, f"file://{self.base}/remote", "--name", "v")
        with open(self.base + "/config/v.conf", "a") as file:
            file.write("interval = %s\n" % ("1s" if self.busy else "365d"))
        self.yester("mount", self.back, self.top, *(word for option in self.options for word in ("-o", option)))
        with open(self.base + "/state/v/lock") as file:
            self.pid = int(file.read().split()[0])
        self.yester("sync", self.back)

    def status(self):
        return json.loads(self.yester("status", self.back, "--json"))

    def features(self):
        return self.status()["features"]

    def stop(self):
        if os.path.ismount(self.top):
            subprocess.run([YESTER, "umount", self.back], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        if os.path.ismount(self.top):
            subprocess.run(["umount", "-l", self.top], check=False)

    def before_row(self):
        if not self.busy:
            return
        with open(self.top + "/feed", "wb") as file:
            for _ in range(FEED_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        wait_until("an upload to begin", lambda: self.status()["state"] == "syncing")

    def after_row(self):
        if self.busy and self.status()["state"] != "syncing":
            return "the upload ended before the row"
        return None


def clean(disk):
    for name in os.listdir(disk):
        if name != "lost+found":
            shutil.rmtree(os.path.join(disk, name))


def all_systems(disk):
    uring = ["-o", "io_uring"]
    return [
        System("native", disk),
        PassthroughHp("hp", disk, "--clone-fd", *uring),
        PassthroughHp("hp-cached", disk, "--clone-fd", "--nopassthrough", *uring),
        PassthroughHp("hp-dev-fuse", disk, "--clone-fd"),
        Yester("yester", disk),
        Yester("yester-cached", disk, ["no_passthrough"]),
        Yester("yester-syncing", disk, busy=True),
    ]

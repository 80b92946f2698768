#!/usr/bin/python3 -B
# timeout: 900
"""Fault 24: the daemon is killed, at each failpoint of the program and at random moments, under a workload. After each: the tree is what the
applications saw, every version is a prefix, the volume comes to `synced`, and a clone equals the tree.

A dry run of each scenario below tells which failpoints it passes; each failpoint is killed at in the first scenario that passes it, at the first hit
and (one in three of them; ALL=1: every one) at a later hit. A failpoint that no scenario passes fails the test. KILL_ROUNDS: how many random moments
(default 24). SEED chooses them."""
import os
import random
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import mapper  # noqa: E402
import workload  # noqa: E402
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "24"))
WORKERS, LIMIT = 2, 12
STAGES = 5  # enough versions for a checkpoint
ENV = {"YESTER_CHECKPOINT_RECORDS": "3"}
numbers = random.Random(SEED)


def failpoints():
    """The names in the section `failpoints` of the program."""
    section = os.path.join(yt.TMP, "section")
    yt.run("objcopy", "-O", "binary", "--only-section=failpoints", "--set-section-flags", "failpoints=alloc", yt.FAILPOINTS_BIN, section)
    with open(section, "rb") as file:
        found = {name.decode() for name in file.read().split(b"\0") if name}
    yt.check(found, f"{yt.FAILPOINTS_BIN} has no failpoints")
    return sorted(found)


class Round:
    """A volume with some history, ready for one scenario."""
    count = 0

    def __init__(self, strict=False):
        Round.count += 1
        self.strict = strict  # nothing is killed: everything must succeed
        self.name = f"r{Round.count}"
        self.volume = yt.Volume(self.name, binary=yt.FAILPOINTS_BIN, env=ENV)
        self.crew = None
        self.calls = {}       # version: when the sync that made it was called
        self.others = []      # what else is to be removed
        self.clone = None

    def init(self, prepared=True):
        """`prepared`: the crew's files are in a version already."""
        self.volume.init(interval="1s", cache_limit="20K")  # so small that the spool is cleared too
        if prepared:
            self.volume.mount()
            self.new_crew()
            self.volume.sync()
            self.volume.umount("--timeout", "60s")

    def new_crew(self, name="crew"):
        self.crew = workload.Crew(self.volume.path(name), WORKERS, LIMIT, numbers.randrange(1 << 30))
        try:
            self.crew.prepare()
        except OSError as problem:
            if problem.errno not in workload.DEAD:
                raise
            self.crew = None

    # -- what may be cut short at any place: failures count only while the daemon lives

    def quiet(self, *words, env=None, timeout=120):
        return self.volume.yester(*words, expect=0 if self.strict else None, env=env, timeout=timeout)

    def mount(self, env, *words):
        volume = self.volume
        volume.mountpoint = volume.dir
        done = self.quiet("mount", volume.dir, *words, env=env)
        try:
            volume.note_daemon()
        except (yt.Failure, OSError, ValueError, IndexError):
            volume.daemon = None
        return (self.strict or done.returncode == 0) and volume.is_alive()

    def sync(self, *words):
        before = time.monotonic()
        done = self.quiet("sync", self.volume.dir, *words)
        if (self.strict or done.returncode == 0) and self.volume.is_alive():
            try:
                self.calls.setdefault(self.volume.latest(), before)
            except OSError:
                pass  # killed meanwhile

    def work(self, hurry_after=None):
        """The crew works while versions are made, to its end or until the daemon dies; or for so many seconds, and then we kill it in the
        middle of work."""
        volume, crew = self.volume, self.crew
        if hurry_after is None:
            for _ in crew.stages(STAGES):
                self.sync()
        else:
            crew.start(crew.share)
            deadline = time.monotonic() + hurry_after
            while crew.is_busy() and time.monotonic() < deadline:
                yt.pause()
            if volume.is_alive():
                os.kill(volume.pid, 9)
                volume.wait_gone()
        crew.stop(not volume.is_alive(), volume.is_alive)

    def umount(self):
        if self.volume.is_alive():
            self.quiet("umount", self.volume.dir)
            if self.volume.is_alive():
                self.volume.wait_gone()

    # -- afterwards

    def check(self):
        volume = self.volume
        crew = self.crew if self.crew and self.crew.stamps else None
        if volume.daemon is not None:
            volume.wait_gone()
        yt.detach(volume.dir)
        if crew:
            workload.check_all_seen(crew, crew.root)
        live = yt.tree(volume.dir)
        volume.mount(*(["-o", "take_over"] if self.name.startswith("c") else []))
        yt.same_tree(yt.tree(volume.dir), live, "the tree after mounting again")
        volume.sync()
        status = volume.wait_state("synced")
        yt.check(status["safe_until"], f"no safe_until: {status}")
        names = volume.versions()
        if crew:
            for name in names:
                there = volume.snapshot(name, os.path.basename(crew.root))
                if os.path.exists(there + ".ready"):
                    workload.check_prefix(crew, there, self.calls.get(name))
        yt.check(set(self.calls) <= set(names), f"versions went away: {sorted(set(self.calls) - set(names))}")
        yt.same_tree(yt.tree(volume.snapshot("latest")), live, "the newest version")
        volume.umount()
        fresh = volume.clone("c" + self.name)
        self.others.append(fresh)
        yt.same_tree(yt.tree(fresh.dir), live, "the clone")
        fresh.yester("check", fresh.dir, "--read-data")

    def remove(self):
        for volume in self.others + [self.volume]:
            volume.remove()


# ---- scenarios: each gets a Round with init() not yet called, and the environment for the part of it that may be killed

def scenario_work(around, env):
    """Operations of every kind while versions and checkpoints are made; unmount."""
    around.init()
    if around.mount(env):
        around.work()
        around.sync()
    around.umount()


def scenario_work_on_s3(around, env):
    """The same, on a real S3 server."""
    around.volume.remote = the_gateway().bucket("yester-" + around.name)
    around.volume.env.update(the_gateway().env)
    scenario_work(around, env)


def scenario_import(around, env):
    """The first mount of a directory that is full already, with operations from the first moment on."""
    os.makedirs(around.volume.dir, exist_ok=True)
    around.new_crew()
    for i in range(30):
        with open(os.path.join(around.volume.dir, f"old{i}"), "wb") as file:
            file.write(numbers.randbytes(numbers.randrange(300_000)))
    around.init(prepared=False)
    if around.mount(env):
        around.work()
    around.umount()


def scenario_import_of_many(around, env):
    """The same with more names than one version takes at once."""
    os.makedirs(os.path.join(around.volume.dir, "many"))
    with open(os.path.join(around.volume.dir, "file"), "wb") as file:
        file.write(b"many names")
    for i in range(5100):
        os.link(os.path.join(around.volume.dir, "file"), os.path.join(around.volume.dir, "many", str(i)))
    scenario_import(around, env)


def scenario_edited_while_unmounted(around, env):
    """The rescan finds changes; `sync` on the unmounted volume uploads them."""
    around.init()
    for i in range(40):
        with open(os.path.join(around.volume.dir, f"edited{i}"), "wb") as file:
            file.write(numbers.randbytes(3000))
    shutil.rmtree(os.path.join(around.volume.dir, "crew/1"))
    around.crew = None
    around.quiet("sync", around.volume.dir, env=env)
    if around.mount(env):
        around.sync()
    around.umount()


def spooled_and_unsent(around):
    """A volume with versions in the spool that the remote doesn't have; not mounted."""
    volume = around.volume
    around.init()
    away = volume.remote_path + ".away"
    volume.mount()
    os.rename(volume.remote_path, away)
    for i in range(3):
        with open(volume.path(f"spooled{i}"), "wb") as file:
            file.write(numbers.randbytes(700_000))
        volume.sync("--timeout", "0", expect=None)
    volume.umount("--timeout", "0", expect=None)
    os.rename(away, volume.remote_path)


def scenario_spool_sent_later(around, env):
    spooled_and_unsent(around)
    if around.mount(env):
        around.sync()
    around.umount()


def scenario_rollback(around, env):
    """A spooled object is damaged: from there on, versions are rolled back and made again."""
    spooled_and_unsent(around)
    spool = os.path.join(around.volume.state, "spool")
    files = sorted((os.lstat(os.path.join(where, name)).st_mtime_ns, os.path.join(where, name))
                   for where, _, names in os.walk(spool) for name in names)
    yt.check(files, "nothing is in the spool")
    with open(files[len(files) // 2][1], "r+b") as file:
        file.seek(10)
        file.write(b"damaged")
    if around.mount(env):
        around.sync()
    around.umount()


def scenario_unclean_start(around, env):
    """A start after a crash."""
    around.init()
    around.volume.mount()
    around.work(hurry_after=0.5)
    around.volume.wait_gone()
    yt.detach(around.volume.dir)
    if around.mount(env):
        around.sync()
    around.umount()


def scenario_clone(around, env):
    """`clone` itself, and the take-over at the clone's first mount."""
    around.init()
    source = around.volume
    fresh = yt.Volume("c" + around.name + "x", source.remote, yt.FAILPOINTS_BIN, ENV)
    words = ["clone", source.remote, fresh.dir, "--name", fresh.name, *source.secret()]
    if fresh.yester(*words, expect=None, env=env).returncode != 0:
        fresh.remove()
        return  # killed; the source is checked
    around.others.append(source)
    around.volume, around.name, around.crew = fresh, fresh.name, None
    if around.mount(env, "-o", "take_over"):
        around.new_crew("crew in the clone")
        if around.crew:
            around.work()
        around.sync()
    around.umount()


def scenario_damaged_database(around, env):
    """Faults 20 and 21: the local database is rebuilt from the remote and a rescan."""
    around.init()
    around.crew = None
    with open(os.path.join(around.volume.state, "volume.db"), "r+b") as file:
        file.write(b"no database " * 1000)
    for name in ("volume.db-wal", "volume.db-shm"):
        if os.path.exists(os.path.join(around.volume.state, name)):
            os.unlink(os.path.join(around.volume.state, name))
    if around.mount(env):
        around.sync()
    around.umount()


def scenario_mapped(around, env):
    """A file is stored to through a mapping that nobody sees, and that outlives the daemon: each time to a page that is dirty already, which no timestamp shows."""
    around.init(prepared=False)
    size = 50_000
    with open(os.path.join(around.volume.dir, "mapped"), "wb") as file:
        file.write(numbers.randbytes(size))
    mapping = None
    if around.mount(env):
        try:
            around.volume.sync(expect=None)
            mapping = mapper.Unseen(around.volume.path("mapped"), size)
            for _ in range(3):
                mapping.add(1000)
                around.sync()
        except OSError as problem:
            if problem.errno not in workload.DEAD:
                raise
    if mapping:
        mapping.add(1000)
        mapping.close()
    if around.volume.is_alive():
        around.sync()
    around.umount()


SCENARIOS = (scenario_work, scenario_import, scenario_import_of_many, scenario_edited_while_unmounted, scenario_spool_sent_later, scenario_unclean_start,
             scenario_mapped, scenario_clone, scenario_rollback, scenario_damaged_database, scenario_work_on_s3)
AGAIN = {scenario_rollback: "rollback/", scenario_mapped: "suspect/"}  # these are what such failpoints are for
gateway = None


def the_gateway():
    global gateway
    gateway = gateway or yt.Gateway()
    return gateway


def hits_of(scenario):
    """The failpoints that a scenario passes; it must also come to a good end by itself."""
    log = os.path.join(yt.TMP, scenario.__name__ + ".log")
    around = Round(strict=True)
    scenario(around, {"YESTER_FAILPOINT_LOG": log})
    around.check()
    around.remove()
    if not os.path.exists(log):
        return set()
    with open(log) as file:
        return set(file.read().split())


def kill_at(scenario, name, hit):
    around = Round()
    what = f"{scenario.__name__} killed at {name}, hit {hit}"
    try:
        scenario(around, {"YESTER_FAILPOINT": f"{name}=kill:{hit}"})
        around.check()
    except (yt.Failure, OSError, subprocess.TimeoutExpired) as failure:
        raise yt.Failure(f"{what}: {type(failure).__name__}: {failure}; the volume is {around.volume.base}") from None
    around.remove()
    return what


def test_each_failpoint():
    print(f"SEED={SEED}", flush=True)
    wanted = os.environ.get("FAILPOINT")
    left = set(failpoints())
    killed, problems = 0, []
    for scenario in SCENARIOS:
        try:
            passed = hits_of(scenario)
        except (yt.Failure, OSError, subprocess.TimeoutExpired) as failure:
            problems.append(f"{scenario.__name__}: {failure}")
            print(problems[-1], flush=True)
            continue
        mine = sorted(name for name in passed if name in left or AGAIN.get(scenario, " ") in name)
        left -= passed
        print(f"{scenario.__name__}: {' '.join(mine)}", flush=True)
        for name in mine:
            later = numbers.randrange(2, 6) if wanted or os.environ.get("ALL") or numbers.randrange(3) == 0 else None
            for hit in (1, later):
                if hit is None or wanted and name != wanted:
                    continue
                try:
                    kill_at(scenario, name, hit)
                    killed += 1
                except yt.Failure as failure:
                    problems.append(str(failure))
                    print(failure, flush=True)
    print(f"killed {killed} times", flush=True)
    if left:
        problems.append(f"no scenario passes these failpoints: {' '.join(sorted(left))}")
    yt.check(not problems, f"{len(problems)} problems:\n" + "\n".join(problems))


def test_random_moments():
    print(f"SEED={SEED}, KILL_ROUNDS={ROUNDS}", flush=True)
    problems = []
    for number in range(0, ROUNDS, 2):
        around = Round()
        around.init()
        for again in range(2):  # the second crash of the same volume
            seconds = numbers.random() ** 2 * 2
            try:
                around.volume.mount()
                if again:
                    around.calls = {}
                    around.new_crew("another crew")
                around.work(hurry_after=seconds)
                if around.volume.is_alive():
                    os.kill(around.volume.pid, 9)
                around.check()
            except (yt.Failure, OSError, subprocess.TimeoutExpired) as failure:
                problems.append(f"round {number}.{again}, killed after {seconds:.3f} s: {type(failure).__name__}: {failure}; {around.volume.base}")
                print(problems[-1], flush=True)
                break
            for volume in around.others:
                volume.remove()
            around.others = []
        else:
            around.remove()
    yt.check(not problems, f"{len(problems)} problems:\n" + "\n".join(problems))


if __name__ == "__main__":
    yt.main(globals())

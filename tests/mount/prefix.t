#!/usr/bin/python3 -B
# timeout: 900
# both libfuse
"""Promise 3 (I1-I5): every version is a prefix. Processes do numbered operations of every kind, side by side, while versions are cut; then for
each version: whoever sees an operation also sees all that had ended before that one began, all that had ended before the sync that
made it, nothing torn, and nothing that never was."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import workload  # noqa: E402
import yt  # noqa: E402

WORKERS = 4
LIMIT = int(os.environ.get("LIMIT", "250"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def cut_and_check(volume, crew, seed, stages):
    called = {}

    def sync():
        before = time.monotonic()
        volume.sync()
        called.setdefault(volume.latest(), before)

    for _ in crew.stages(stages):
        sync()
    in_the_middle = sorted(called)
    yt.equal(len(in_the_middle), stages, "versions that a sync made in the middle of the work")
    while crew.is_busy():
        sync()
    crew.stop(hurry=False)
    sync()
    volume.umount()
    volume.drop_cache()
    volume.mount()
    # Versions of the time when the files were made tell nothing.
    complete = [name for name in volume.versions() if os.path.isdir(volume.snapshot(name, "crew.ready"))]
    yt.check(set(called) <= set(complete), f"versions went away: {sorted(set(called) - set(complete))}")
    others = sorted(set(complete[:-1]) - set(in_the_middle))
    chosen = sorted(in_the_middle + random.Random(seed).sample(others, min(len(others), 8))) + complete[-1:]
    counts = {name: workload.check_prefix(crew, volume.snapshot(name, "crew"), called.get(name)) for name in chosen}
    yt.equal(list(counts.values()), sorted(counts.values()), "operations seen, in the order of versions")
    yt.equal(counts[complete[-1]], crew.count(), "operations in the last version")
    workload.check_all_seen(crew, volume.path("crew"))
    for name in in_the_middle:
        yt.check(0 < counts[name] < crew.count(), f"{name} has {counts[name]} of {crew.count()} operations, but was made in the middle of the work")
    print(f"{crew.count()} operations, {len(complete)} versions, seen in those looked at: {list(counts.values())}")
    volume.umount()


def test_prefix():
    print(f"SEED={SEED}", flush=True)
    volume = yt.Volume("v").init(interval="1s")
    volume.mount()
    crew = workload.Crew(volume.path("crew"), WORKERS, LIMIT, SEED, workload.KINDS_LIVE)
    crew.prepare()
    volume.sync()
    cut_and_check(volume, crew, SEED, 8)


def test_prefix_of_an_imported_tree():
    """The same on files that were there before the first mount, and while they are still being imported."""
    print(f"SEED={SEED}", flush=True)
    volume = yt.Volume("imported")
    os.makedirs(volume.dir)
    crew = workload.Crew(os.path.join(volume.dir, "crew"), WORKERS, LIMIT // 2, SEED + 1, workload.KINDS_LIVE)
    crew.prepare()
    with open(os.path.join(volume.dir, "bulk"), "wb") as file:
        for _ in range(30):
            file.write(random.Random(SEED).randbytes(1 << 20))
    volume.init(interval="1s")
    volume.mount()
    cut_and_check(volume, crew, SEED, 4)


if __name__ == "__main__":
    yt.main(globals())

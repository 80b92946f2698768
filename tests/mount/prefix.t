#!/usr/bin/python3 -B
# timeout: 400
"""Promise 3 (I1-I5): every version is a prefix. Processes do numbered operations of every kind, side by side, while versions are cut as fast as they
come; then for each version: whoever sees an operation also sees all that had ended before that one began, all that had ended before the sync that
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


def cut_and_check(volume, crew, seed, fewest):
    crew.start()
    called = {}
    while crew.is_busy():
        before = time.monotonic()
        volume.sync()
        called.setdefault(volume.latest(), before)
    crew.stop(hurry=False)
    before = time.monotonic()
    volume.sync()
    called[volume.latest()] = before
    volume.umount()
    volume.drop_cache()
    volume.mount()
    # Versions of the time when the files were made tell nothing.
    complete = [name for name in volume.versions() if os.path.isdir(volume.snapshot(name, "crew.ready"))]
    yt.check(len(complete) >= fewest, f"only {len(complete)} versions to look at")
    chosen = sorted(random.Random(seed).sample(complete[:-1], min(len(complete) - 1, 24))) + complete[-1:]
    counts = [workload.check_prefix(crew, volume.snapshot(name, "crew"), called.get(name)) for name in chosen]
    yt.equal(counts, sorted(counts), "operations seen, in the order of versions")
    yt.equal(counts[-1], crew.count(), "operations in the last version")
    workload.check_all_seen(crew, volume.path("crew"))
    partly = sum(1 for count in counts if 0 < count < crew.count())
    yt.check(partly >= fewest // 2 - 1, f"only {partly} versions were cut in the middle of the work")
    print(f"{crew.count()} operations, {len(complete)} versions, seen in those looked at: {counts}")
    volume.umount()


def test_prefix():
    print(f"SEED={SEED}", flush=True)
    volume = yt.Volume("v").init(interval="1s")
    volume.mount()
    crew = workload.Crew(volume.path("crew"), WORKERS, LIMIT, SEED)
    crew.prepare()
    volume.sync()
    cut_and_check(volume, crew, SEED, 4)


def test_prefix_of_an_imported_tree():
    """The same on files that were there before the first mount, and while they are still being imported."""
    print(f"SEED={SEED}", flush=True)
    volume = yt.Volume("imported")
    os.makedirs(volume.dir)
    crew = workload.Crew(os.path.join(volume.dir, "crew"), WORKERS, LIMIT // 2, SEED + 1)
    crew.prepare()
    with open(os.path.join(volume.dir, "bulk"), "wb") as file:
        for _ in range(30):
            file.write(random.Random(SEED).randbytes(1 << 20))
    volume.init(interval="1s")
    volume.mount()
    cut_and_check(volume, crew, SEED, 2)


if __name__ == "__main__":
    yt.main(globals())

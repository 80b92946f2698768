#!/usr/bin/python3 -B
# timeout: 240
"""I24, promise 11: whatever moment `status` calls safe, this machine can be destroyed after it was printed, and what comes out of the remote and the key holds
every operation that had ended by then. While everything goes well, and while the remote is away, which is when a wrong answer would be cheap."""
import calendar
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import workload  # noqa: E402
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("ROUNDS", "2"))  # of each kind


def look(volume):
    """What status prints as safe now: a moment of the monotonic clock; None: nothing is."""
    shift = time.monotonic() - time.time()
    status = volume.status()
    if not status["safe_until"]:
        return None, status
    return calendar.timegm(time.strptime(status["safe_until"], "%Y-%m-%dT%H:%M:%SZ")) + shift, status


def looks_for(volume, seconds, crew):
    """Looks again and again, for so long and while there is work."""
    safe, first = 0, time.monotonic()
    while time.monotonic() < first + seconds and crew.is_busy():
        safe = max(safe, look(volume)[0] or 0)
    return safe


def destroy(volume, name):
    """The daemon, the state and the tree; what the remote has is cloned."""
    volume.kill()
    shutil.rmtree(volume.dir)
    shutil.rmtree(os.path.join(volume.base, "state"))
    return volume.clone(name)


def prepare(name, seed):
    volume = yt.Volume(name).init(interval="1s")
    volume.mount()
    crew = workload.Crew(volume.path("crew"), 2, 60, seed)
    crew.prepare()
    volume.sync()
    return volume, crew


def one_round(name, seed, away):
    volume, crew = prepare(name, seed)
    crew.start(0 if away else None)  # they mark time for ever, or come to their end
    safe = looks_for(volume, 2, crew)
    hidden = volume.remote_path + ".away"
    if away:
        os.rename(volume.remote_path, hidden)
        safe = max(safe, looks_for(volume, 3, crew))
    last, status = look(volume)
    volume.kill()
    if away:
        os.rename(hidden, volume.remote_path)
    crew.stop(True, volume.is_alive)
    fresh = destroy(volume, name + "-clone")
    there = os.path.join(fresh.dir, "crew")
    seen = workload.check_prefix(crew, there, max(safe, last or 0))
    print(f"{name}: {crew.count()} operations, {seen} in the clone, state {status['state']}", flush=True)
    yt.check(safe > 0, "nothing was ever called safe")
    volume.remove()
    fresh.remove()


def test_safe_is_safe():
    print(f"SEED={SEED}", flush=True)
    for i in range(ROUNDS):
        one_round(f"fine{i}", SEED + i, False)


def test_safe_without_the_remote():
    for i in range(ROUNDS):
        one_round(f"away{i}", SEED + 100 + i, True)


def test_now_is_now():
    """`synced`: everything that had ended when the question was asked is there."""
    volume, crew = prepare("now", SEED + 200)
    crew.start(10)
    crew.stop()
    volume.wait_state("synced")
    asked, state = time.monotonic(), volume.status()["state"]
    fresh = destroy(volume, "now-clone")
    yt.equal(state, "synced", "state with nobody at work")
    workload.check_prefix(crew, os.path.join(fresh.dir, "crew"), asked)
    workload.check_all_seen(crew, os.path.join(fresh.dir, "crew"))


if __name__ == "__main__":
    yt.main(globals())

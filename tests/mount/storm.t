#!/usr/bin/python3 -B
# timeout: 240
"""Faults 2, 11 and 12, I15: a server that fails a third of the requests, in every way, while versions are made without a pause. Nothing happens twice, nothing is
lost; and the order in which the server saw the log and the packs is one in which every version was whole when its record came."""
import os
import random
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import workload  # noqa: E402
import yt  # noqa: E402

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
HARM = ("500", "drop-answer", "503", "reset", "error-in-200", "drop-answer", "truncate")
LARGE = 1_300_000  # a pack of its own


def packs_of(volume):
    """{key: the version that brought it}"""
    database = sqlite3.connect(f"file:{volume.state}/volume.db?mode=ro", uri=True)
    found = {f"{bytes(name).hex()}": version for name, version in database.execute("SELECT id, vfrom FROM pack WHERE record = 0")}
    database.close()
    return found


def requests(gateway):
    """(method, key, status, bytes) of those that came to the server, and how many did not."""
    found, lost = [], 0
    with open(os.path.join(gateway.proxy_dir, "log")) as file:
        for line in file:
            method, url, status, up, _, mode = line.split()
            if status == "0" or mode in ("500", "503", "error-in-200"):
                lost += 1
            else:
                found.append((method, url.partition("?")[0].partition("/volume/")[2], status, int(up)))
    return found, lost


def check_order(requests, packs, head):
    done, newest, sizes, there = {}, 0, {}, set()
    for method, key, status, up in requests:
        if method != "PUT":
            continue
        if key.startswith("pack/"):
            there.add(key.rpartition("/")[2])
        if not key.startswith("log/"):
            continue
        version = int(key[4:], 16)
        yt.check(version >= newest, f"log/{version} came after log/{newest}")
        yt.check(version == newest or newest == 0 or done.get(newest), f"log/{version} came before log/{newest} was there")
        newest = version
        yt.equal(sizes.setdefault(version, up), up, f"bytes of one more try of log/{version}")
        late = [name for name, brought in packs.items() if brought <= version and name not in there]
        yt.check(not late, f"log/{version} came before the packs {late}")
        done[version] = done.get(version, 0) + (status == "200")
    yt.equal(newest, head, "the last record that the server saw")
    yt.equal({version for version, count in done.items() if count != 1}, set(), "versions that were made more than once, or never")


def connections(gateway):
    """To the proxy, that are open."""
    with open(os.path.join(gateway.proxy_dir, "url")) as file:
        port = int(file.read().strip().rpartition(":")[2])
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file][1:]
    return sum(words[3] == "01" and int(words[2].rpartition(":")[2], 16) == port for words in lines)


def test_uploads_in_parallel():
    """Packs that the server does not take at once keep no other waiting; the record comes after the last of them."""
    gateway = yt.Gateway("parallel", proxy=True)
    volume = yt.Volume("p", gateway.bucket("parallel"), env=gateway.env).init(interval="1h", pack_size="1M", uploads="5")
    volume.mount()
    volume.sync()
    gateway.proxy("stall", "method=PUT", "match=/pack/")
    with open(volume.path("large"), "wb") as file:
        file.write(random.Random(SEED).randbytes(12 << 20))
    volume.sync("--timeout", "0")
    yt.wait_until("five uploads at a time", lambda: connections(gateway) >= 5)
    arrived, _ = requests(gateway)
    gateway.proxy("pass")
    volume.sync()
    packs = packs_of(volume)
    yt.check(len(packs) > 8, f"only {len(packs)} packs")
    check_order(requests(gateway)[0], packs, volume.status()["version"])
    yt.check(not any(key.startswith("pack/") for method, key, _, _ in arrived if method == "PUT"), "a stalled pack arrived")
    volume.umount()


def test_storm():
    print(f"SEED={SEED}", flush=True)
    numbers = random.Random(SEED)
    gateway = yt.Gateway(proxy=True)
    volume = yt.Volume("v", gateway.bucket("storm"), env=gateway.env).init(interval="1s", pack_size="1M")
    volume.mount()
    crew = workload.Crew(volume.path("crew"), 2, 12, SEED)
    crew.prepare()
    volume.sync()
    for stage, _ in enumerate(crew.stages(2 * len(HARM))):
        gateway.proxy(HARM[stage % len(HARM)], "percent=40")
        with open(volume.path(f"large{stage % 3}"), "wb") as file:
            file.write(numbers.randbytes(LARGE * numbers.choice((1, 1, 3))))
        volume.sync("--timeout", "0")
    crew.stop()
    gateway.proxy("pass")
    volume.sync()
    status = volume.wait_state("synced")
    live = yt.tree(volume.mountpoint)
    packs = packs_of(volume)
    yt.check(len(packs) > 5, f"only {len(packs)} packs")
    arrived, lost = requests(gateway)
    print(f"{status['version']} versions, {len(packs)} packs, {len(arrived)} requests came to the server, {lost} did not")
    yt.check(lost > 5, "the storm was none")
    check_order(arrived, packs, status["version"])
    for name in volume.versions():
        there = volume.snapshot(name, "crew")
        if os.path.exists(there + ".ready"):
            workload.check_prefix(crew, there)
    yt.same_tree(yt.tree(volume.snapshot("latest")), live, "the newest version")
    volume.umount()
    fresh = volume.clone("fresh")
    yt.same_tree(yt.tree(fresh.dir), live, "the clone")
    fresh.yester("check", fresh.dir, "--read-data")


if __name__ == "__main__":
    yt.main(globals())

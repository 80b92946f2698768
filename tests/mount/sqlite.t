#!/usr/bin/python3 -B
# timeout: 180
"""SQLite under constant writes, with a write-ahead log and with a rollback journal, while versions are made: the database of every version is whole,
and every transaction that had committed before a sync is in the version that it made."""
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

SECONDS = float(os.environ.get("SECONDS_OF_WRITES", "12"))
PAUSE = 0.25  # between syncs
# name: journal mode, synchronous
DATABASES = {"wal": ("wal", "normal"), "walfull": ("wal", "full"), "rollback": ("delete", "full"), "persist": ("persist", "normal")}


def connect(path, mode=None, synchronous="normal"):
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA cache_size = 20")  # so that it spills in the middle of transactions
    if mode:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 50")
    return connection


def writer(path, mode, synchronous, seed, committed, stop):
    """Transactions that keep a balance: `number` counts them, and the sum of all accounts is always 0."""
    numbers = random.Random(seed)
    connection = connect(path, mode, synchronous)
    connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, padding BLOB)")
    connection.execute("CREATE TABLE done (number INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO account VALUES (?, 0, zeroblob(300))", [(i,) for i in range(500)])
    number = 0
    while not stop.value:
        number += 1
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(numbers.randrange(1, 30)):
            amount = numbers.randrange(1000)
            for sign in (1, -1):
                connection.execute("UPDATE account SET amount = amount + ?, padding = ? WHERE id = ?",
                                   (sign * amount, numbers.randbytes(numbers.randrange(600)), numbers.randrange(500)))
        connection.execute("INSERT INTO done VALUES (?)", (number,))
        connection.execute("COMMIT")
        committed.value = number
    connection.close()


def check_copy(version, name, committed):
    """The database of a version, as a program would find it after a power cut."""
    where = os.path.join(yt.TMP, "copy")
    shutil.rmtree(where, ignore_errors=True)
    os.mkdir(where)
    for file in os.listdir(version):
        if file.startswith(name + "."):
            shutil.copy(os.path.join(version, file), where)
    path = os.path.join(where, name + ".db")
    if not os.path.exists(path):
        yt.equal(committed, 0, f"{version}: {name} is not there; transactions committed before")
        return 0
    connection = connect(path)
    try:
        if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'done'").fetchone()[0] == 0:
            yt.equal(committed, 0, f"{version}: {name} is empty; transactions committed before")
            return 0
        yt.equal(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)], f"{version}: integrity of {name}")
        count, last = connection.execute("SELECT count(*), coalesce(max(number), 0) FROM done").fetchone()
        yt.equal(count, last, f"{version}: {name} has gaps")
        yt.equal(connection.execute("SELECT coalesce(sum(amount), 0) FROM account").fetchone()[0], 0, f"{version}: balance of {name}")
        yt.check(last >= committed, f"{version}: {name} ends at transaction {last}, but {committed} had committed before the sync")
        return last
    except sqlite3.DatabaseError as problem:
        raise yt.Failure(f"{version}: {name}: {problem}") from None
    finally:
        connection.close()


def test_sqlite():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}", flush=True)
    volume = yt.Volume("v").init(interval="1s")
    volume.mount()
    stop = multiprocessing.Value("b", 0)
    committed = {name: multiprocessing.Value("q", 0) for name in DATABASES}
    workers = [multiprocessing.Process(target=writer, args=(volume.path(name + ".db"), mode, synchronous, seed + i, committed[name], stop))
               for i, (name, (mode, synchronous)) in enumerate(DATABASES.items())]
    for worker in workers:
        worker.start()
    versions = {}
    try:
        deadline = time.monotonic() + SECONDS
        # However slow the disk: enough transactions, and versions between them.
        while time.monotonic() < deadline or len(versions) < 6 or min(value.value for value in committed.values()) < 20:
            yt.check(all(worker.is_alive() for worker in workers), "a writer has ended")
            before = {name: value.value for name, value in committed.items()}
            volume.sync()
            # `latest` may by now be a later version, which holds no less.
            versions[volume.latest()] = before
            again = time.monotonic() + PAUSE
            while time.monotonic() < again:
                yt.pause()
    finally:
        stop.value = 1
        for worker in workers:
            worker.join(60)
            if worker.is_alive():
                worker.kill()
    for worker in workers:
        yt.equal(worker.exitcode, 0, "exit code of a writer")
    final = {name: value.value for name, value in committed.items()}
    volume.sync()
    versions[volume.latest()] = final
    yt.check(len(versions) >= 5, f"only {len(versions)} versions were made")
    yt.check(min(final.values()) >= 20, f"too few transactions to say anything: {final}")
    volume.umount()
    volume.drop_cache()
    volume.mount()
    ends = []
    for name in volume.versions():
        ends.append({database: check_copy(volume.snapshot(name), database, versions.get(name, {}).get(database, 0))
                     for database in DATABASES})
    for database in DATABASES:
        series = [end[database] for end in ends]
        yt.equal(series, sorted(series), f"last transactions of {database} in the order of versions")
    yt.equal(ends[-1], final, "last transactions in the newest version")
    volume.umount()
    other = volume.clone("clone")
    for database in DATABASES:
        yt.equal(check_copy(other.dir, database, final[database]), final[database], f"{database} in the clone")
    print(f"{len(ends)} versions, transactions {final}")


if __name__ == "__main__":
    yt.main(globals())

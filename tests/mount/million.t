#!/usr/bin/python3 -B
# timeout: 600
"""Very many files with few descriptors: all are looked at, changed and removed through the mount, while versions are made; the daemon may have far fewer
descriptors than there are files, and its memory is bounded. FULL=1: a million files with 4,096 descriptors (twenty minutes; 10 GB in TMP)."""
import concurrent.futures
import os
import resource
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

FULL = bool(os.environ.get("FULL"))
FILES = 1_000_000 if FULL else 20_000
DESCRIPTORS = 4096 if FULL else 256
DIRECTORIES = FILES // 1000
SLOW = 3600 if FULL else 300
MEMORY = 200 if FULL else 64  # MB resident, at most and at any time


def few_descriptors():
    """A program that is yester with no more descriptors than that: not even root can give itself more everywhere."""
    program = os.path.join(yt.TMP, "few")
    with open(program, "w") as file:
        file.write(f'#!/bin/sh\nulimit -n {DESCRIPTORS} || exit 1\nexec {yt.YESTER} "$@"\n')
    os.chmod(program, 0o755)
    return program


def path(top, i):
    return f"{top}/d{i % DIRECTORIES}/file {i}"


def make(top, numbers):
    for i in numbers:
        with open(path(top, i), "wb") as file:
            file.write(b"%d\n" % i)


def change(top, numbers):
    """In three ways."""
    for i in numbers:
        name = path(top, i)
        if i % 3 == 0:
            with open(name, "ab") as file:
                file.write(b"more\n")
        elif i % 3 == 1:
            os.truncate(name, 1)
        else:
            os.rename(name, name + ".new")
            with open(name + ".new", "wb") as file:
                file.write(b"new %d\n" % i)


def expected(i):
    """Name and content after change()."""
    text = b"%d\n" % i
    return (("", text + b"more\n"), ("", text[:1]), (".new", b"new %d\n" % i))[i % 3]


def count(top):
    """Files below it, each of which was looked at."""
    found = 0
    for directory, _, names in os.walk(top):
        for name in names:
            os.lstat(os.path.join(directory, name))
        found += len(names)
    return found


def check_version(top, step):
    yt.equal(count(top), FILES, "files in the version")
    for i in range(0, FILES, step):
        suffix, text = expected(i)
        with open(path(top, i) + suffix, "rb") as file:
            yt.equal(file.read(), text, f"content of file {i}")


def in_parts(work, top, parts=4):
    """work(top, numbers) in threads; each takes every fourth directory."""
    with concurrent.futures.ThreadPoolExecutor(parts) as pool:
        jobs = [pool.submit(work, top, [i for i in range(FILES) if i % DIRECTORIES % parts == part]) for part in range(parts)]
        for job in jobs:
            job.result()


class Versions(threading.Thread):
    """Makes versions, one after the other, until it is told to end."""

    def __init__(self, volume):
        super().__init__()
        self.volume, self.over, self.made, self.problem = volume, threading.Event(), 0, None

    def run(self):
        try:
            while not self.over.is_set():
                self.volume.sync("--timeout", f"{SLOW}s", timeout=SLOW + 60)
                self.made += 1
        except yt.Failure as problem:
            self.problem = problem

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def while_versions_are_made(volume, work, *arguments):
    with Versions(volume) as versions:
        work(*arguments)
    if versions.problem:
        raise versions.problem
    yt.check(versions.made >= 2, f"only {versions.made} versions meanwhile")


def memory(volume, what):
    """Checks the most that was resident since the last call."""
    with open(f"/proc/{volume.pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    most, now = (int(fields[key].split()[0]) // 1024 for key in ("VmHWM", "VmRSS"))
    descriptors = len(os.listdir(f"/proc/{volume.pid}/fd"))
    with open(f"/proc/{volume.pid}/clear_refs", "w") as file:
        file.write("5")
    print(f"{what}: {most} MB at most, {now} MB now, {descriptors} descriptors", flush=True)
    yt.check(most <= MEMORY, f"{what}: {most} MB were resident, more than {MEMORY}")


def unlink_all(top, numbers):
    for i in numbers:
        os.unlink(path(top, i) + expected(i)[0])


def test_few_descriptors():
    volume = yt.Volume("v", binary=few_descriptors()).init()
    for d in range(DIRECTORIES):
        os.mkdir(f"{volume.dir}/d{d}")
    make(volume.dir, range(0, FILES, 2))
    volume.mount()
    yt.equal(resource.prlimit(volume.pid, resource.RLIMIT_NOFILE), (DESCRIPTORS, DESCRIPTORS), "limit of the daemon")
    memory(volume, "mounted")
    make(volume.dir, range(1, FILES, 2))
    memory(volume, "the other half made")
    volume.wait_state("synced", SLOW)
    memory(volume, "synced")
    yt.equal(count(volume.dir), FILES, "files in the mount")
    memory(volume, "all looked at")
    # Open files, more and more of which have no name any more, and versions in which they still have.
    held = [os.open(path(volume.dir, i) + "", os.O_RDWR) for i in range(0, DESCRIPTORS // 4 * 3, 3)]
    while_versions_are_made(volume, in_parts, change, volume.dir)
    memory(volume, "all changed")
    volume.sync("--timeout", f"{SLOW}s", timeout=SLOW + 60)
    whole = volume.latest()
    memory(volume, "synced")
    check_version(volume.dir, 97)
    check_version(volume.snapshot(whole), 997)
    memory(volume, "the version looked at")
    while_versions_are_made(volume, in_parts, unlink_all, volume.dir)
    memory(volume, "all removed")
    for number, fd in enumerate(held):
        yt.equal(os.pread(fd, 100, 0), expected(3 * number)[1], "content of an open file without a name")
        os.pwrite(fd, b"once more", 0)
        yt.equal(os.fstat(fd).st_nlink, 0, "names of an open file that was removed")
        os.close(fd)
    volume.sync("--timeout", f"{SLOW}s", timeout=SLOW + 60)
    yt.equal(count(volume.snapshot(volume.latest())), 0, "files in the last version")
    check_version(volume.snapshot(whole), 4999)
    yt.equal(volume.status()["last_error"], None, "last error")
    memory(volume, "the end")
    volume.umount(timeout=SLOW)


if __name__ == "__main__":
    yt.main(globals())

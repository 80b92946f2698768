#!/usr/bin/python3 -B
# alone
# timeout: 240
"""Opens of every mode on the same few files by several processes, with every way to read and change them, each byte compared (tests/lib/open_stress.c);
appends without locks (append_stress.c). On each kind of backing filesystem and in each mode of the kernel's I/O; the same programs on that
filesystem itself first, so that nothing is asked that it would not do. Afterwards the last version, the live tree and the backing directory are the
same, byte by byte. FULL=1: for minutes. SEED=N: the same choices again."""
import errno
import mmap
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import backings  # noqa: E402
import yt  # noqa: E402

FULL = bool(os.environ.get("FULL"))
SECONDS = float(os.environ.get("SECONDS_EACH", "60" if FULL else "2"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def attack(program, where, seconds, *arguments):
    os.makedirs(where, exist_ok=True)
    done = yt.run(backings.program(program), "-s", str(SEED), "-t", str(seconds), *arguments, where, expect=None, timeout=seconds + 120)
    text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    yt.check(done.returncode == 0, f"{program} in {where}: exit code {done.returncode}\n{text}")
    return text.splitlines()


def abilities(lines):
    return set(next(line for line in lines if line.startswith("can:")).split()[1:])


def attack_both(where, seconds, kind, volume=None):
    """What open_stress says the filesystem can do. For the words see open_stress.c and append_stress.c; volume None: it is the filesystem itself."""
    native, passthrough = volume is None, volume is not None and volume.status()["features"]["passthrough"]
    words = ["-c"] if (native or passthrough) and kind == "xfs" else []
    if passthrough:
        words.append("-r")
    if not native and backings.kernel() >= (6, 17):
        words.append("-w")
    lines = attack("open_stress", os.path.join(where, "open"), seconds * 0.7, *words)
    attack("append_stress", os.path.join(where, "append"), seconds * 0.3, *(["-n"] if native and kind == "xfs" else []))
    return abilities(lines)


def attack_volume(kind, mode):
    volume = backings.volume(kind, mode, interval="1s")
    native = attack_both(os.path.join(volume.base, "disk/native"), SECONDS / 4, kind)
    backings.mount(volume, mode)
    mounted = attack_both(volume.path("files"), SECONDS, kind, volume)
    if os.environ.get("YESTER_LIBFUSE") == "system":
        native.discard("tmpfile")
    yt.equal(mounted, native, "what the mount can do, against the filesystem itself")
    volume.sync()
    live = yt.tree(volume.path("files"))
    yt.same_tree(yt.tree(volume.snapshot(volume.latest(), "files")), live, f"{kind}, {mode}: the version")
    volume.umount()
    yt.same_tree(yt.tree(os.path.join(volume.dir, "files"), times=False), yt.without_times(live), f"{kind}, {mode}: the directory itself")
    backings.remove(volume)


def define(kind, mode):
    def test():
        print(f"SEED={SEED}", flush=True)
        attack_volume(kind, mode)
    globals()[f"test_{kind}_{mode}"] = test


for pair in backings.each():
    define(*pair)


# ---- one at a time

def with_volume(function):
    for mode in backings.MODES:
        volume = backings.volume("ext4", mode, f"one-{mode}-{function.__name__}")
        backings.mount(volume, mode)
        function(volume)
        volume.umount()
        backings.remove(volume)


def data_while_mapped(volume):
    path, size = volume.path("sparse"), 1 << 20
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    bytes_ = mmap.mmap(fd, size)
    os.close(fd)
    bytes_[500_000:500_005] = b"hello"
    yt.check(any(begin <= 500_000 and end >= 500_005 for begin, end in yt.data_ranges(path)),
             f"what was stored lies in a hole: {yt.data_ranges(path)}")
    yt.run("cp", "--sparse=auto", path, volume.path("copy"))
    with open(volume.path("copy"), "rb") as file:
        yt.equal(file.read(), bytes(bytes_), "the copy")
    bytes_.close()
    yt.wait_until("holes are told again", lambda: sum(end - begin for begin, end in yt.data_ranges(path)) < size // 2)


def test_data_while_mapped():
    """What is stored through a mapping is no hole, also while the kernel has not written it back."""
    with_volume(data_while_mapped)


def text_busy(volume):
    path = volume.path("sleeper")
    with open("/bin/cat", "rb") as source, open(path, "wb") as file:
        file.write(source.read())
    os.chmod(path, 0o755)
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"x")
        process.stdin.flush()
        yt.equal(process.stdout.read(1), b"x", "the program runs")
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_DIRECT):
            try:
                os.close(os.open(path, flags))
                raise yt.Failure("a program that runs was opened for writing")
            except OSError as problem:
                yt.equal(problem.errno, errno.ETXTBSY, "opening a program that runs for writing")
        os.close(os.open(path, os.O_RDONLY))
        process.stdin.close()
        process.wait(30)
    fd = os.open(path, os.O_RDWR)
    try:
        subprocess.run([path], stdin=subprocess.DEVNULL, check=False)
        raise yt.Failure("a program that is open for writing was run")
    except OSError as problem:
        yt.equal(problem.errno, errno.ETXTBSY, "running a program that is open for writing")
    finally:
        os.close(fd)
    subprocess.run([path], stdin=subprocess.DEVNULL, check=True)


def test_text_busy():
    """Only where ext4 says so too."""
    with_volume(text_busy)


if __name__ == "__main__":
    yt.main(globals())

"""workload: numbered operations of every kind, by several processes, such that one can tell from a tree which of them it has seen.

Each operation is one FUSE request that changes something, and leaves an effect of its own. A worker does its operations one after the other and
notes for each when it began and when it had ended (monotonic clock, in memory). A version is a prefix when no operation that it lacks had ended
before one began that it holds (promise 3, I1-I4). After a crash the tree must hold every operation that was acknowledged.

    crew = Crew(root, workers, limit, seed)   limit: operations of each kind a worker can do
    crew.prepare()                            makes what they work on, and last the directory ROOT.ready
    crew.start(); ...; crew.stop()            stop() returns when all have ended; a worker also ends when the mount dies
    for _ in crew.stages(n): ...; crew.stop() the same, but how far the workers come depends on the loop and not on anyone's speed
    check_prefix(crew, root_of_a_version)     Failure unless it is one
    check_all_seen(crew, root)                Failure unless every acknowledged operation shows
"""
import errno
import mmap
import multiprocessing
import os
import pickle
import random
import time

import yt

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED)
SLOTS = 40
BLOCK = 4096


def number(value, size=16):
    return b"%0*d" % (size, value)


class Kind:
    """One kind of operation of one worker, below the directory root/NAME."""
    name = ""
    endless = False  # can be done more often than the limit says

    def __init__(self, root, worker, limit):
        self.root, self.worker, self.limit = root, worker, limit
        self.fd = -1

    def at(self, *parts):
        return os.path.join(self.root, self.name, *map(str, parts))

    def below(self, root):
        """The same, in another tree."""
        return type(self)(root, self.worker, self.limit)

    def prepare(self):
        os.mkdir(self.at())

    def make(self, name, data=b"", mode=0o666):
        fd = os.open(self.at(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        if data:
            os.write(fd, data)
        os.close(fd)

    def file(self, name, flags=os.O_WRONLY):
        """A descriptor that stays open from operation to operation."""
        if self.fd < 0:
            self.fd = os.open(self.at(name), flags)
        return self.fd

    def do(self, k):
        raise NotImplementedError

    def seen(self):
        """For each operation whether the tree shows it; a Failure when the tree shows what never was."""
        raise NotImplementedError

    def names(self):
        return set(os.listdir(self.at()))

    def first(self, count):
        """So many of the first operations are seen."""
        yt.check(0 <= count <= self.limit, f"{self.at()}: shows {count} operations of {self.limit}")
        return [k < count for k in range(self.limit)]

    def complain(self, text):
        raise yt.Failure(f"{self.at()}: {text}")


class Appears(Kind):
    """Operation k makes the name k."""

    def seen(self):
        names = self.names()
        return [str(k) in names for k in range(self.limit)]


class Create(Appears):
    name = "create"

    def do(self, k):
        os.close(os.open(self.at(k), os.O_WRONLY | os.O_CREAT | os.O_EXCL))


class Mkdir(Appears):
    name = "mkdir"

    def do(self, k):
        os.mkdir(self.at(k))


class Mknod(Appears):
    name = "mknod"

    def do(self, k):
        os.mkfifo(self.at(k))


class Symlink(Appears):
    name = "symlink"

    def do(self, k):
        os.symlink(f"target {k}", self.at(k))

    def seen(self):
        shown = super().seen()
        for k in range(self.limit):
            if shown[k] and os.readlink(self.at(k)) != f"target {k}":
                self.complain(f"link {k} leads to {os.readlink(self.at(k))}")
        return shown


class Link(Kind):
    name = "link"

    def prepare(self):
        super().prepare()
        self.make("base", b"linked")

    def do(self, k):
        os.link(self.at("base"), self.at(k))

    def seen(self):
        names = self.names()
        yt.equal(os.stat(self.at("base")).st_nlink, len(names), f"{self.at('base')}: st_nlink, against the names")
        return [str(k) in names for k in range(self.limit)]


class Vanishes(Kind):
    """Operation k removes the name k."""
    content = bytes(range(250)) * 20

    def seen(self):
        names = self.names()
        return [str(k) not in names for k in range(self.limit)]


class Unlink(Vanishes):
    name = "unlink"

    def prepare(self):
        super().prepare()
        for k in range(self.limit):
            self.make(k, self.content)

    def do(self, k):
        os.unlink(self.at(k))

    def seen(self):
        shown = super().seen()
        for k in range(0, self.limit, 3):
            if not shown[k]:
                with open(self.at(k), "rb") as file:
                    if file.read() != self.content:
                        self.complain(f"{k} is there without its content")
        return shown


class UnlinkName(Vanishes):
    """Removes one of two names of an inode."""
    name = "unlink-name"

    def prepare(self):
        super().prepare()
        os.mkdir(self.at("others"))
        for k in range(self.limit):
            self.make(k, b"two names")
            os.link(self.at(k), self.at("others", k))

    def do(self, k):
        os.unlink(self.at(k))

    def seen(self):
        shown = super().seen()
        for k in range(self.limit):
            yt.equal(os.stat(self.at("others", k)).st_nlink, 1 if shown[k] else 2, f"{self.at('others', k)}: st_nlink")
        return shown


class Rmdir(Vanishes):
    name = "rmdir"

    def prepare(self):
        super().prepare()
        for k in range(self.limit):
            os.mkdir(self.at(k))

    def do(self, k):
        os.rmdir(self.at(k))


class Append(Kind):
    name = "append"

    def prepare(self):
        super().prepare()
        self.make("file")

    def do(self, k):
        os.write(self.file("file", os.O_WRONLY | os.O_APPEND), number(k))

    def seen(self):
        with open(self.at("file"), "rb") as file:
            data = file.read()
        count = len(data) // 16
        if data != b"".join(number(k) for k in range(count)):
            self.complain("the appended records are not 0, 1, 2, ...")
        return self.first(count)


class SharedAppend(Kind):
    """All workers append to one file."""
    name = "../shared"

    def prepare(self):
        os.makedirs(self.at(), exist_ok=True)
        if not os.path.exists(self.at("file")):
            self.make("file")

    def do(self, k):
        os.write(self.file("file", os.O_WRONLY | os.O_APPEND), number(self.worker * 1_000_000 + k))

    def seen(self):
        with open(self.at("file"), "rb") as file:
            data = file.read()
        try:
            values = {int(data[i:i + 16]) for i in range(0, len(data), 16)}
        except ValueError:
            self.complain("a torn record")
        return [self.worker * 1_000_000 + k in values for k in range(self.limit)]


class Overwrite(Kind):
    """Slots of one file, each written again and again in one piece: a torn one is no version of it. Whole pages: at the end of a part of a page
    that it has not cached, the kernel ends a request and begins another (fuse_fill_write_pages), which a cut may come between."""
    name = "overwrite"
    endless = True
    slot = 2 * BLOCK

    def prepare(self):
        super().prepare()
        self.make("file", number(0) * (self.slot * SLOTS // 16))

    def do(self, k):
        os.pwrite(self.file("file"), number(k + 1) * (self.slot // 16), k % SLOTS * self.slot)

    def seen(self):
        with open(self.at("file"), "rb") as file:
            data = file.read()
        yt.equal(len(data), self.slot * SLOTS, f"{self.at('file')}: size")
        latest = []
        for slot in range(SLOTS):
            part = data[slot * self.slot:(slot + 1) * self.slot]
            if part != part[:16] * (self.slot // 16):
                self.complain(f"slot {slot} is torn")
            value = int(part[:16])
            if value and (value - 1) % SLOTS != slot:
                self.complain(f"slot {slot} holds {value}")
            latest.append(value - 1)
        return [k <= latest[k % SLOTS] for k in range(self.limit)]


class OverwriteParts(Overwrite):
    """Slots of which four share a page."""
    name = "overwrite-parts"
    slot = BLOCK // 4


class Named(Kind):
    """The number of operations stands in the one name that there is."""
    endless = True

    def prepare(self):
        super().prepare()
        self.make(0, b"moves")

    def do(self, k):
        os.rename(self.at(k), self.at(k + 1))

    def seen(self):
        names = self.names()
        yt.equal(len(names), 1, f"{self.at()}: names {names}")
        return self.first(int(names.pop()))


class Rename(Named):
    name = "rename"


class RenameDirectory(Named):
    name = "rename-directory"

    def prepare(self):
        Kind.prepare(self)
        os.mkdir(self.at(0))


class Hop(Named):
    """Renames from one directory into another and back."""
    name = "hop"

    def prepare(self):
        Kind.prepare(self)
        os.mkdir(self.at("even"))
        os.mkdir(self.at("odd"))
        self.make("even/0")

    def place(self, k):
        return self.at("odd" if k % 2 else "even", k)

    def do(self, k):
        os.rename(self.place(k), self.place(k + 1))

    def names(self):
        return {name for side in ("odd", "even") for name in os.listdir(self.at(side))}


class Replace(Kind):
    """Renames over a file."""
    name = "replace"

    def prepare(self):
        super().prepare()
        self.make("file", number(0))
        os.mkdir(self.at("new"))
        for k in range(self.limit):
            self.make(f"new/{k}", number(k + 1))

    def do(self, k):
        os.rename(self.at("new", k), self.at("file"))

    def seen(self):
        with open(self.at("file"), "rb") as file:
            count = int(file.read())
        left = {int(name) for name in os.listdir(self.at("new"))}
        if left != set(range(count, self.limit)):
            self.complain(f"the file is number {count}, but of those to come there are {sorted(left)}")
        return self.first(count)


class Exchange(Kind):
    name = "exchange"

    def prepare(self):
        super().prepare()
        for k in range(self.limit):
            self.make(f"{k}-a", b"1")
            self.make(f"{k}-b", b"22")

    def do(self, k):
        yt.renameat2(self.at(f"{k}-a"), self.at(f"{k}-b"), yt.RENAME_EXCHANGE)

    def seen(self):
        found = []
        for k in range(self.limit):
            sizes = tuple(os.stat(self.at(f"{k}-{side}")).st_size for side in "ab")
            if sizes not in ((1, 2), (2, 1)):
                self.complain(f"pair {k} has the sizes {sizes}")
            found.append(sizes == (2, 1))
        return found


class Chmod(Kind):
    name = "chmod"
    each = 400

    def prepare(self):
        super().prepare()
        for i in range(self.limit // self.each + 1):
            self.make(i, mode=0)

    def do(self, k):
        os.chmod(self.at(k // self.each), k % self.each + 1)

    def seen(self):
        modes = [os.stat(self.at(i)).st_mode & 0o7777 for i in range(self.limit // self.each + 1)]
        return [modes[k // self.each] > k % self.each for k in range(self.limit)]


class OneFile(Kind):
    """The number of operations is an attribute of one file."""

    def prepare(self):
        super().prepare()
        self.make("file", b"x" * 100)

    def value(self):
        raise NotImplementedError

    def seen(self):
        return self.first(self.value())


class Chown(OneFile):
    name = "chown"

    def do(self, k):
        os.chown(self.at("file"), k + 1, -1)

    def value(self):
        return os.stat(self.at("file")).st_uid


class Utimens(OneFile):
    name = "utimens"
    endless = True

    def prepare(self):
        super().prepare()
        os.utime(self.at("file"), ns=(0, 0))

    def do(self, k):
        os.utime(self.at("file"), ns=(0, k + 1))

    def value(self):
        return os.stat(self.at("file")).st_mtime_ns


class Setxattr(OneFile):
    name = "setxattr"
    endless = True

    def prepare(self):
        super().prepare()
        os.setxattr(self.at("file"), "user.number", b"0")

    def do(self, k):
        os.setxattr(self.at("file"), "user.number", b"%d" % (k + 1))

    def value(self):
        return int(os.getxattr(self.at("file"), "user.number"))


class Grow(OneFile):
    name = "grow"

    def do(self, k):
        os.truncate(self.at("file"), (k + 2) * 100)

    def value(self):
        return os.stat(self.at("file")).st_size // 100 - 1


class Shrink(Kind):
    name = "shrink"
    content = bytes(range(1, 251)) * 20

    def prepare(self):
        super().prepare()
        self.make("file", self.content[:1000] * self.limit)

    def do(self, k):
        os.truncate(self.at("file"), (self.limit - k - 1) * 1000)

    def seen(self):
        with open(self.at("file"), "rb") as file:
            data = file.read()
        if len(data) % 1000 or data != self.content[:1000] * (len(data) // 1000):
            self.complain("not the first part of what it was")
        return self.first(self.limit - len(data) // 1000)


class RemoveXattr(Kind):
    name = "removexattr"

    def prepare(self):
        super().prepare()
        for k in range(self.limit):
            self.make(k)
            os.setxattr(self.at(k), "user.here", b"yes")

    def do(self, k):
        os.removexattr(self.at(k), "user.here")

    def seen(self):
        return [not os.listxattr(self.at(k)) for k in range(self.limit)]


class OpenTruncate(Kind):
    name = "open-truncate"
    content = b"to be cut off " * 300

    def prepare(self):
        super().prepare()
        for k in range(self.limit):
            self.make(k, self.content)

    def do(self, k):
        os.close(os.open(self.at(k), os.O_WRONLY | os.O_TRUNC))

    def seen(self):
        found = []
        for k in range(self.limit):
            size = os.stat(self.at(k)).st_size
            if size not in (0, len(self.content)):
                self.complain(f"{k} has {size} bytes")
            if size and k % 3 == 0:
                with open(self.at(k), "rb") as file:
                    if file.read() != self.content:
                        self.complain(f"{k} has its size, but not its content")
            found.append(size == 0)
        return found


class Blocks(Kind):
    """Operation k changes block k of a file from one known content to another."""
    before, after = b"b", b"\0"

    def prepare(self):
        super().prepare()
        self.make("file", self.before * BLOCK * self.limit)

    def seen(self):
        with open(self.at("file"), "rb") as file:
            data = file.read()
        yt.equal(len(data), BLOCK * self.limit, f"{self.at('file')}: size")
        found = []
        for k in range(self.limit):
            block = data[k * BLOCK:(k + 1) * BLOCK]
            if block not in (self.before * BLOCK, self.after * BLOCK):
                self.complain(f"block {k} is torn")
            found.append(block == self.after * BLOCK)
        return found


class Punch(Blocks):
    name = "punch"

    def do(self, k):
        yt.fallocate(self.file("file", os.O_RDWR), yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, k * BLOCK, BLOCK)


class Zero(Blocks):
    name = "zero"

    def do(self, k):
        yt.fallocate(self.file("file", os.O_RDWR), yt.FALLOC_ZERO_RANGE, k * BLOCK, BLOCK)


class Copy(Blocks):
    name = "copy"
    after = b"c"

    def prepare(self):
        super().prepare()
        self.make("source", self.after * BLOCK)

    def do(self, k):
        source = os.open(self.at("source"), os.O_RDONLY)
        try:
            done = os.copy_file_range(source, self.file("file", os.O_RDWR), BLOCK, 0, k * BLOCK)
            yt.equal(done, BLOCK, "copy_file_range")
        finally:
            os.close(source)


class Synced(Blocks):
    """Writes followed by fsync, which changes nothing more."""
    name = "synced"
    after = b"s"

    def do(self, k):
        os.pwrite(self.file("file", os.O_RDWR), self.after * BLOCK, k * BLOCK)
        os.fdatasync(self.fd)


class WhileRead(Blocks):
    """Reads back what it writes, through one descriptor, while another is open for reading: how the kernel does the I/O depends on both."""
    name = "while-read"
    after = b"r"

    def do(self, k):
        if self.fd < 0:
            self.reader = os.open(self.at("file"), os.O_RDONLY)
        os.pwrite(self.file("file", os.O_RDWR), self.after * BLOCK, k * BLOCK)
        yt.equal(os.pread(self.fd, BLOCK, k * BLOCK), self.after * BLOCK, "read by the writer")
        yt.equal(os.pread(self.reader, BLOCK, k * BLOCK), self.after * BLOCK, "read by the reader")


class Direct(Blocks):
    """Direct I/O."""
    name = "direct"
    after = b"d"

    def do(self, k):
        if self.fd < 0:
            self.page = mmap.mmap(-1, BLOCK)
            self.page[:] = self.after * BLOCK
        os.pwritev(self.file("file", os.O_WRONLY | os.O_DIRECT), [self.page], k * BLOCK)


class Mapped(Blocks):
    """A store through a shared mapping and msync(2). Nobody else has the file open: there are ways to open it first that make such a store unseen."""
    name = "mapped"
    after = b"m"

    def do(self, k):
        if self.fd < 0:
            self.map = mmap.mmap(self.file("file", os.O_RDWR), BLOCK * self.limit)
        self.map[k * BLOCK:(k + 1) * BLOCK] = self.after * BLOCK
        self.map.flush(k * BLOCK, BLOCK)


KINDS = (Create, Mkdir, Mknod, Symlink, Link, Unlink, UnlinkName, Rmdir, Append, SharedAppend, Overwrite, OverwriteParts, Rename,
         RenameDirectory, Hop, Replace, Exchange, Chmod, Chown, Utimens, Setxattr, Grow, Shrink, RemoveXattr, OpenTruncate, Punch, Zero,
         Copy, Synced, WhileRead, Direct)
# Not with a daemon that dies: a fault on a page that the kernel lost is a SIGBUS.
KINDS_LIVE = KINDS + (Mapped,)


class Crew:
    def __init__(self, root, workers, limit, seed, kinds=KINDS):
        self.root, self.limit, self.seed, self.kinds = root, limit, seed, kinds
        self.workers = range(workers)
        self.processes, self.pipes = [], []
        self.flag = multiprocessing.Value("b", 0)
        # how many of its operations a worker may do before it marks time, and how many each has done (of those that are not endless)
        self.allowed = multiprocessing.Value("q", 0, lock=False)
        self.progress = multiprocessing.Array("q", workers, lock=False)
        # per (worker, kind): [(began, ended or None)] by number of the operation
        self.stamps = {}

    @property
    def share(self):
        """How many operations a worker does, besides those with which it marks time."""
        return self.limit * len(self.kinds)

    def kind(self, root, worker, kind, limit=None):
        return kind(os.path.join(root, str(worker)), worker, limit or self.limit)

    def prepare(self):
        os.makedirs(self.root)
        for worker in self.workers:
            os.mkdir(os.path.join(self.root, str(worker)))
            for kind in self.kinds:
                self.kind(self.root, worker, kind).prepare()
        os.mkdir(self.root + ".ready")

    def start(self, allowed=None):
        """`allowed`: how many of its operations a worker does before it marks time with endless ones; None: it comes to its end."""
        self.allowed.value = self.share + 1 if allowed is None else allowed
        self.progress[:] = [0] * len(self.progress)
        for worker in self.workers:
            reads, writes = multiprocessing.Pipe(False)
            process = multiprocessing.Process(target=self.work, args=(worker, writes))
            process.start()
            writes.close()
            self.processes.append(process)
            self.pipes.append(reads)

    def stages(self, count):
        """Starts the workers and yields so many times, each time in the middle of work on any machine: all have done something since the last
        time, all go on doing operations, and none comes to its end. When the caller has had its last turn, they may. Ends early when they
        have ended."""
        bounds = [self.share * stage // (count + 1) for stage in range(count + 1)]
        self.start(0)
        for before, allowed in zip(bounds, bounds[1:]):
            self.allowed.value = allowed
            yt.wait_until("work", lambda: not self.is_busy() or min(self.progress) > before, 120)
            if not self.is_busy():
                return
            yield
        self.allowed.value = self.share + 1

    def order(self, numbers, kinds):
        """The kinds in the order in which a worker does them; endless ones while it is not allowed to go on."""
        endless = [kind for kind in kinds if kind.endless]
        order = [kind for kind in kinds for _ in range(self.limit)]
        numbers.shuffle(order)
        done = 0
        while not self.flag.value:
            if done >= self.allowed.value:
                yield numbers.choice(endless)
            elif done == len(order):
                return
            else:
                yield order[done]
                done += 1
                self.progress[kinds[0].worker] = done

    def work(self, worker, pipe):
        kinds = [self.kind(self.root, worker, kind) for kind in self.kinds]
        stamps = {kind.name: [] for kind in kinds}
        trouble = None
        for kind in self.order(random.Random(self.seed * 1000 + worker), kinds):
            done = stamps[kind.name]
            began = time.monotonic()
            try:
                kind.do(len(done))
            except OSError as problem:
                done.append((began, None))
                if problem.errno not in DEAD:
                    trouble = problem.errno, f"worker {worker}, {kind.name} {len(done) - 1}: {problem}"
                break
            except yt.Failure as failure:
                done.append((began, None))
                trouble = 0, str(failure)
                break
            done.append((began, time.monotonic()))
        pipe.send_bytes(pickle.dumps((stamps, trouble)))
        pipe.close()
        os._exit(0)

    def is_busy(self):
        # Who is done has begun to say what was done, and may wait for stop() to hear it out.
        return any(process.is_alive() and not pipe.poll() for process, pipe in zip(self.processes, self.pipes))

    def stop(self, hurry=True, is_alive=lambda: True):
        """Waits for the workers: to come to their end, or with `hurry` to their next operation. When the daemon was killed, a request that it
        was just reading ends with EIO (fuse_dev_do_read)."""
        if hurry:
            self.flag.value = 1
        problems = []
        for worker, (process, pipe) in enumerate(zip(self.processes, self.pipes)):
            if not pipe.poll(120):
                process.kill()
                raise yt.Failure(f"worker {worker} does not end")
            stamps, trouble = pickle.loads(pipe.recv_bytes())
            process.join()
            for kind in self.kinds:
                self.stamps[worker, kind.name] = stamps[kind.name]
            if trouble and not (trouble[0] == errno.EIO and not is_alive()):
                problems.append(trouble[1])
        yt.check(not problems, "\n".join(problems))

    def count(self):
        return sum(len(stamps) for stamps in self.stamps.values())

    def looks(self, root):
        """(began, ended, seen, label) of every operation that was begun, as the tree below `root` shows it; a Failure also where it shows one
        that never began."""
        found = []
        for worker in self.workers:
            for kind in self.kinds:
                stamps = self.stamps[worker, kind.name]
                shown = self.kind(root, worker, kind, max(self.limit, len(stamps))).seen()
                for k, seen in enumerate(shown):
                    if k < len(stamps):
                        found.append((*stamps[k], seen, f"worker {worker}, {kind.name} {k}"))
                    elif seen:
                        raise yt.Failure(f"{root}: shows worker {worker}, {kind.name} {k}, which never began")
        return found


def check_prefix(crew, root, before=None):
    """`before`: when the sync that made the version was called; what had ended by then must be in it."""
    looks = crew.looks(root)
    seen = [look for look in looks if look[2]]
    last = max(seen, key=lambda look: look[0], default=None)
    for began, ended, shown, label in looks:
        if shown or ended is None:
            continue
        if last and ended < last[0]:
            raise yt.Failure(f"{root} is no prefix: it lacks {label}, which ended {last[0] - ended:.6f} s before {last[3]} began, which it holds")
        if before is not None and ended < before:
            raise yt.Failure(f"{root}: lacks {label}, which ended {before - ended:.6f} s before the sync")
    return len(seen)


def check_all_seen(crew, root):
    for _, ended, shown, label in crew.looks(root):
        if ended is not None and not shown:
            raise yt.Failure(f"{root}: lacks {label}, which was acknowledged")

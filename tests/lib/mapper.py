"""mapper: a process with shared mappings of files, to which it stores when told; for tests of what a version holds of such stores.

    words = mapper.Words(names, pages)           what was stored, in memory that processes share
    one = mapper.Mapper(words)
    one.do("map", 0, path, keep=False)           open, map; keep: the descriptor stays open
    one.do("store", 0)                           a new number in the first word of each page
    one.do("keep_storing", True)                 as fast as it can, until False
    one.do("sync", 0); one.do("unmap", 0); one.end(); one.kill()

    one = mapper.Unseen(path, size)              in this process; one.add(at), one.flush(), one.bytes, one.all(), one.close()

Each page holds one number, 8 bytes aligned, that only grows: so one can tell of each page of a version when it was read, and a store is never torn."""
import contextlib
import ctypes
import mmap
import multiprocessing
import os
import signal

import yt

PAGE = 4096
MS_SYNC = 4
libc = yt.libc
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
for _name, _last in (("munmap", ()), ("msync", (ctypes.c_int,)), ("mprotect", (ctypes.c_int,))):
    getattr(libc, _name).argtypes = (ctypes.c_void_p, ctypes.c_size_t) + _last


class Words:
    """By file and page: the number that is about to be stored, and the one that msync(2) was done for."""

    def __init__(self, files, pages):
        self.files, self.pages = files, pages
        self.announced = multiprocessing.RawArray(ctypes.c_uint64, files * pages)
        self.durable = multiprocessing.RawArray(ctypes.c_uint64, files * pages)

    def of(self, array, file):
        return list(array[file * self.pages:(file + 1) * self.pages])


def read(path, pages):
    """The numbers that a file holds. What else it holds must be zeros."""
    with open(path, "rb") as file:
        data = file.read()
    yt.equal(len(data), pages * PAGE, f"{path}: size")
    found = []
    for page in range(pages):
        part = data[page * PAGE:(page + 1) * PAGE]
        yt.check(not part[8:].strip(b"\0"), f"{path}: page {page} holds what nobody stored")
        found.append(int.from_bytes(part[:8], "little"))
    return found


class Unseen:
    """A mapping, in this process, without a descriptor (Python's own keeps one) of a file that somebody else had open (`beside`) when it was opened: where the kernel passes I/O through, nobody sees
    what is stored."""

    def __init__(self, path, size, store=True, beside=os.O_RDONLY):
        self.size = size
        opened = [os.open(path, beside)]
        try:
            opened.append(os.open(path, os.O_RDWR if store else os.O_RDONLY))
            self.address = libc.mmap(None, size, mmap.PROT_READ | (mmap.PROT_WRITE if store else 0), mmap.MAP_SHARED, opened[1], 0)
        finally:
            for fd in opened:
                with contextlib.suppress(OSError):  # the daemon died meanwhile; it is closed all the same
                    os.close(fd)
        yt.check(self.address != ctypes.c_void_p(-1).value, f"{path} can't be mapped")
        self.bytes = (ctypes.c_ubyte * size).from_address(self.address)

    def all(self):
        return bytes(self.bytes)

    def add(self, at):
        self.bytes[at] = (self.bytes[at] + 1) % 256

    def flush(self):
        yt._checked(libc.msync(self.address, self.size, MS_SYNC))

    def close(self):
        yt._checked(libc.munmap(self.address, self.size))


class Mapper:
    everyone = []

    def __init__(self, words):
        self.words = words
        self.here, there = multiprocessing.Pipe()
        self.life = os.pipe()  # for a child that outlives the process: it ends with the test
        self.process = multiprocessing.Process(target=self._serve, args=(there,))
        self.process.start()
        there.close()
        Mapper.everyone.append(self)

    # -- from outside

    def do(self, name, *arguments, **more):
        self.here.send((name, arguments, more))
        if not self.here.poll(60):
            raise yt.Failure(f"the process that maps does not {name}")
        answer = self.here.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self):
        """It ends, and so do its mappings, but for those of a child."""
        if self.process.is_alive():
            self.here.send(None)
        self._wait()
        yt.equal(self.process.exitcode, 0, "exit code of the process that maps")
        Mapper.everyone.remove(self)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self._wait()
        Mapper.everyone.remove(self)

    def _wait(self):
        # Not join(60): that waits for the end of all who inherited a certain pipe, children too.
        yt.wait_until("the end of the process that maps", lambda: self.process.exitcode is not None)

    @classmethod
    def kill_all(cls):
        for one in list(cls.everyone):
            one.kill()

    # -- inside

    def _serve(self, pipe):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.close(self.life[1])
        self.maps, self.storing = {}, False
        while True:
            while self.storing and not pipe.poll():
                for file in self.maps:
                    self.op_store(file)
            try:
                command = pipe.recv()
            except EOFError:
                os._exit(1)
            if command is None:
                os._exit(0)
            name, arguments, more = command
            try:
                pipe.send(getattr(self, "op_" + name)(*arguments, **more))
            except Exception as problem:  # the test's to judge
                pipe.send(problem)

    def op_map(self, file, path, keep=False, protect=False, fd=-1):
        """protect: writable only by mprotect(2), later."""
        length = self.words.pages * PAGE
        fd = fd if fd >= 0 else os.open(path, os.O_RDWR)
        protection = mmap.PROT_READ | (0 if protect else mmap.PROT_WRITE)
        address = libc.mmap(None, length, protection, mmap.MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        if not keep:
            os.close(fd)
        if protect:
            yt._checked(libc.mprotect(address, length, mmap.PROT_READ | mmap.PROT_WRITE))
        self.maps[file] = address

    def op_nameless(self, file, directory, path):
        """A file made without a name, mapped, and then given one."""
        fd = os.open(directory, os.O_RDWR | os.O_TMPFILE)
        os.ftruncate(fd, self.words.pages * PAGE)
        self.op_map(file, path, keep=True, fd=fd)
        yt.link_descriptor(fd, path)
        os.close(fd)

    def op_store(self, file, pages=None):
        for page in pages if pages is not None else range(self.words.pages):
            at = file * self.words.pages + page
            number = self.words.announced[at] + 1
            self.words.announced[at] = number
            ctypes.c_uint64.from_address(self.maps[file] + page * PAGE).value = number

    def op_mapped(self):
        return list(self.maps)

    def op_keep_storing(self, yes):
        self.storing = yes

    def op_sync(self, file):
        numbers = self.words.of(self.words.announced, file)
        yt._checked(libc.msync(self.maps[file], self.words.pages * PAGE, MS_SYNC))
        self.words.durable[file * self.words.pages:(file + 1) * self.words.pages] = numbers

    def op_unmap(self, file):
        yt._checked(libc.munmap(self.maps.pop(file), self.words.pages * PAGE))

    def op_fork(self):
        """A child keeps the mappings when this process ends, until it is killed; its process id."""
        child = os.fork()
        if child == 0:
            os.read(self.life[0], 1)
            os._exit(0)
        return child

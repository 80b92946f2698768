#!/usr/bin/python3 -B
# timeout: 180
"""scripts/yester-read, which was written from man/yester-format.5 alone, reads what the program writes: each version as the tree was when
`yester sync` came back, with a key file, a passphrase and no encryption, from records alone and on top of a checkpoint, after an import in parts and
after a take-over. What is damaged is called damaged, a wrong secret wrong."""
import glob
import importlib.machinery
import importlib.util
import os
import random
import re
import shutil
import sqlite3
import stat
import struct
import sys
import tempfile
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

READER = os.path.join(yt.TOP, "scripts/yester-read")
WRONG_SECRET, DAMAGE = 3, 5
ODD = b"odd \xff\xfe\x80 \n\t\\"
LONG = b"n" * 255
RANDOM = random.Random(23)


def passphrase_file(name, text):
    path = os.path.join(yt.TMP, name)
    with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(text + "\n")
    return path


class Recorded:
    """A volume, and what its tree was at each `yester sync`."""

    def __init__(self, volume, secret=None):
        self.volume = volume
        self.secret = volume.secret() if secret is None else secret
        self.made = []

    @property
    def store(self):
        return self.volume.remote_path

    def sync(self):
        self.volume.sync()
        self.made.append((self.volume.status()["version"], self.volume.latest(), yt.tree(self.volume.mountpoint)))

    def read(self, *words, secret=None, expect=0, store=None):
        return yt.run(READER, store or self.store, *(self.secret if secret is None else secret), *words, expect=expect)

    def extract(self, version):
        to = os.path.join(yt.TMP, "read")
        shutil.rmtree(to, ignore_errors=True)
        self.read("extract", str(version), to)
        return to

    def compare(self, versions=None):
        """All of it: the list, each recorded version or some of them, and every byte."""
        listed = [line.split()[0] for line in self.read("list").splitlines()]
        yt.equal(listed, self.volume.versions(), "the list of versions")
        for number, name, expected in versions or self.made:
            to = self.extract(name)
            yt.same_tree(yt.tree(to), expected, f"extract {number}, {name}")
            for path, item in expected.items():
                if item.get("size", 0) >= yt.SPARSE:
                    yt.check(os.stat(os.path.join(os.fsencode(to), path)).st_blocks < 4096, f"{path!r} has lost its holes")
        words = self.read("verify")
        yt.check(words.endswith("no damage\n"), words)
        self.volume.yester("check", self.volume.dir, "--read-data")
        return words


class Headers:
    """The clear headers of the log."""

    def __init__(self, store):
        self.base, self.flags = [], []
        for name in sorted(glob.glob(store + "/log/*")):
            with open(name, "rb") as file:
                header = file.read(256)
            self.base.append(struct.unpack_from("<Q", header, 96)[0])
            self.flags.append(struct.unpack_from("<I", header, 224)[0])


# ---- a tree with a bit of everything, and changes of it

def put(root, name, data, offset=0, mode=0o640):
    fd = os.open(os.path.join(os.fsencode(root), os.fsencode(name)), os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def begin(root):
    at = lambda name: os.path.join(os.fsencode(root), os.fsencode(name))
    for name in ("d", "d/e", "d/e/f", "bare", "gone", "gone/deep", "swap1", "swap2"):
        os.mkdir(at(name), 0o751)
    put(root, "big", RANDOM.randbytes(4_000_000))
    put(root, "text", b"the same line again\n" * 60_000)
    put(root, "empty", b"")
    put(root, "d/e/f/small", b"small")
    put(root, "gone/deep/file", b"to be deleted")
    put(root, "swap1/one", b"1")
    put(root, "swap2/two", b"2")
    put(root, ODD, b"a name that is no text")
    put(root, LONG, b"a long name")
    put(root, "sparse", b"in the middle", 150_000_001)
    os.truncate(at("sparse"), 300_000_000)
    os.link(at("big"), at("d/link"))
    os.link(at(ODD), at("d/e/other"))
    os.symlink("d/e/f/small", at("symlink"))
    os.symlink(b"\xfe" * 1000, at("dangling"))
    os.mkfifo(at("fifo"), 0o600)
    os.mknod(at("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at("disk"), stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    os.mknod(at("socket"), stat.S_IFSOCK | 0o600)
    os.setxattr(at("text"), "user.long", b"v" * 1500)
    os.setxattr(at("text"), "user.empty", b"")
    os.setxattr(at("text"), "user.bytes", bytes(range(256)))
    os.setxattr(at("d"), "trusted.of", b"root")
    os.setxattr(at("symlink"), "trusted.link", b"itself", follow_symlinks=False)
    yt.run("setfacl", "-m", "u:65534:rw,g:50:r,m:rw", at("d/e/f/small"))
    yt.run("setfacl", "-d", "-m", "u:65534:rwx,o:-", at("bare"))
    put(root, "bare/inherits", b"an access control list")
    os.chown(at("text"), 4_000_000_000, 70_000)
    os.chmod(at("text"), 0o4751)
    os.chown(at("symlink"), 12, 13, follow_symlinks=False)
    os.chmod(at("d/e"), 0o3777)
    os.utime(at("text"), ns=(-1, -999_999_999))
    os.utime(at("bare"), ns=(0, -2_000_000_000_123_456_789))
    os.utime(at("symlink"), ns=(1, 6_000_000_000_987_654_321), follow_symlinks=False)
    os.chmod(root, 0o1775)
    os.setxattr(root, "user.root", b"of the volume")


def middle(root):
    """Overwrites, truncations, renames of directories, deletions."""
    at = lambda name: os.path.join(os.fsencode(root), os.fsencode(name))
    put(root, "big", RANDOM.randbytes(10_000), 2_000_001)
    put(root, "big", b"x", 3_999_999)
    os.truncate(at("text"), 700_001)
    os.truncate(at("text"), 900_000)
    put(root, "text", b"at the new end", 900_000)
    put(root, "sparse", b"more", 290_000_000)
    os.rename(at("d/e"), at("moved"))
    os.mkdir(at("d/e"))
    put(root, "d/e/new", b"another directory under an old name")
    yt.renameat2(at("swap1"), at("swap2"), yt.RENAME_EXCHANGE)
    os.unlink(at("gone/deep/file"))
    os.rmdir(at("gone/deep"))
    os.rename(at("d/link"), at("gone/link"))
    os.removexattr(at("text"), "user.long")
    os.setxattr(at("text"), "user.bytes", b"fewer")
    os.utime(at(LONG), ns=(5, -5))


def later(root):
    at = lambda name: os.path.join(os.fsencode(root), os.fsencode(name))
    fd = os.open(at("big"), os.O_RDWR)
    yt.fallocate(fd, yt.FALLOC_PUNCH_HOLE | yt.FALLOC_KEEP_SIZE, 1_000_000, 1_500_000)
    os.close(fd)
    put(root, "text.new", b"replaced")
    os.rename(at("text.new"), at("text"))
    os.unlink(at("empty"))
    os.mkdir(at("empty"))
    os.rename(at("moved"), at("empty/moved deeper"))
    os.rename(at("swap1"), at("empty/swap"))
    os.rename(at("swap2"), at("swap1"))
    os.unlink(at("symlink"))
    os.symlink("elsewhere", at("symlink"))
    os.chmod(at(ODD), 0o000)
    os.truncate(at("sparse"), 0)
    yt.run("setfacl", "-b", at("bare/inherits"))
    os.chmod(root, 0o755)


def last(root):
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name == "big":
            os.truncate(path, 100)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


CHANGES = begin, middle, later, last


def make_all(recorded):
    for change in CHANGES:
        change(recorded.volume.mountpoint)
        recorded.sync()


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def packs(store):
    return sorted(glob.glob(store + "/pack/*/*"), key=os.path.getsize)


# ---- databases by hand

def load_reader():
    loader = importlib.machinery.SourceFileLoader("yester_read", READER)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("yester_read", loader))
    loader.exec_module(module)
    return module


def attacks_of(function):
    """The statements with which a function of tests/unit/test_delta.c makes an image that the program must refuse."""
    with open(os.path.join(yt.TOP, "tests/unit/test_delta.c")) as file:
        text = file.read()
    table = re.search(function + r"\(void \*\*state\).*?attacks\[\] = \{(.*?)\n\t\};", text, re.S)[1]
    return ["".join(re.findall(r'"((?:[^"\\]|\\.)*)"', words)) for words in re.findall(r'(?:"(?:[^"\\]|\\.)*"\s*)+', table)]


class Images:
    """Deltas as the program could have made them, applied by the reader to one catalogue."""

    def __init__(self):
        self.reader = load_reader()
        self.db = self.reader.open_database(":memory:")
        self.db.execute("PRAGMA journal_mode=MEMORY")   # so that what was refused can be undone
        for name, text in self.reader.CHECKPOINT_TABLES.items():
            self.db.execute(f"CREATE TABLE {name}{text}")

    def new(self, tables, statements):
        path = tempfile.mktemp(dir=yt.TMP)
        db = sqlite3.connect(path)
        db.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=OFF")
        for name, text in tables.items():
            db.execute(f"CREATE TABLE {name}{text}")
        for statement, *values in statements:
            db.execute(statement, values)
        db.commit()
        db.close()
        return path

    def delta(self, seq, *statements):
        return self.new(self.reader.DELTA_TABLES, (("INSERT INTO version VALUES(?, ?, 5, 0, 0)", seq, 1000 + seq), *statements))

    def apply(self, seq, path):
        self.reader.apply_delta(self.db, types.SimpleNamespace(seq=seq, time=5, flags=0), path)

    def is_refused(self, function, *arguments):
        try:
            self.reader.Catalogue.guard("image", function, *arguments)
        except self.reader.Damage:
            return True
        finally:
            self.forget()
        return False

    def forget(self):
        """What a refused delta leaves behind."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        if len(self.db.execute("PRAGMA database_list").fetchall()) > 1:
            self.db.execute("DETACH d")

    def names(self, version):
        return sorted(self.db.execute(
            "SELECT dir, name, ino FROM name WHERE vfrom <= ? UNION ALL SELECT dir, name, ino FROM name_past "
            "WHERE vfrom <= ? AND vto > ?", (version,) * 3))


def inode(ino, seq, mode):
    return "INSERT INTO inode VALUES(?, ?, ?, 0, 0, 1, 100, 0, 0, 0, 0, 0, NULL, NULL)", ino, seq, mode


def name(directory, text, seq, ino):
    return "INSERT INTO name VALUES(?, ?, ?, ?)", directory, text, seq, ino


def extent(ino, start, seq, length):
    return "INSERT INTO extent VALUES(?, ?, ?, ?, 1, 0)", ino, start, seq, length


CHUNK = "INSERT INTO chunk VALUES(1, zeroblob(16), 1, 0, 0, 50, 100000, 0, 0)",
PACK = "INSERT INTO pack VALUES(1, zeroblob(16), zeroblob(32), zeroblob(32), 100, ?, ?)"


def first_delta(images):
    """As first_version() of tests/unit/test_delta.c."""
    return images.delta(1, inode(1, 1, 0o40755), inode(2, 1, 0o100644), inode(3, 1, 0o40755), inode(4, 1, 0o40755),
                        name(1, b"file", 1, 2), name(1, b"d", 1, 3), name(3, b"e", 1, 4), CHUNK, (PACK, 1, 1),
                        extent(2, 0, 1, 1000), extent(2, 1000, 1, 500), ("INSERT INTO pin VALUES('keep', 1)",))


def test_a_directory_has_one_name():
    """As test_directory_keeps_one_name of tests/unit/test_delta.c, and more."""
    images = Images()
    images.apply(1, first_delta(images))
    before = images.names(1)
    images.apply(2, images.delta(2, name(4, b"loop", 2, 3), name(1, b"z1", 2, 4), name(1, b"z2", 2, 4), name(1, b"z", 2, 4),
                                 name(1, b"hard", 2, 2)))
    yt.equal(images.names(1), before, "the names in the version before")
    yt.equal(images.names(2), [(1, b"file", 2), (1, b"hard", 2), (1, b"z2", 4), (4, b"loop", 3)], "a directory has its last name")
    yt.check(images.is_refused(images.apply, 3, images.delta(3, inode(2, 3, 0o40755))), "a directory with two names")
    images.apply(3, images.delta(3, inode(5, 3, 0o40755), name(1, b"file", 3, 5), name(1, b"z2", 3, 3),
                                 ("INSERT INTO name_end VALUES(4, x'ff')",), ("INSERT INTO pin VALUES('keep', 3)",)))
    yt.equal(images.names(3), [(1, b"file", 5), (1, b"hard", 2), (1, b"z2", 3)], "names of directories over others")
    yt.equal(images.db.execute("SELECT * FROM pin").fetchall(), [("keep", 3)], "a pin that moves")
    for what, statement in (("a chunk number used twice", ("INSERT INTO chunk VALUES(1, zeroblob(16), 1, 0, 0, 50, 99999, 0, 0)",)),
                            ("a pack number used twice", (PACK, 0, 4)), ("extents that overlap", extent(2, 500, 4, 1000))):
        yt.check(images.is_refused(images.apply, 4, images.delta(4, statement)), what)
    yt.check(images.is_refused(images.apply, 5, images.delta(5)) is False, "nothing is wrong with a later version")
    late = images.delta(6)
    db = sqlite3.connect(late)
    db.execute("UPDATE version SET time_s=1005")
    db.commit()
    yt.check(images.is_refused(images.apply, 6, late), "two versions of one second")


def tampered(path, statement):
    bad = path + ".bad"
    shutil.copyfile(path, bad)
    db = sqlite3.connect(bad, isolation_level=None)
    db.executescript(statement)
    db.close()
    return bad


def test_what_the_program_refuses():
    """The reader refuses the images that the program's unit tests say it must refuse."""
    images = Images()
    good = images.delta(
        5, inode(1, 5, 0o40755), inode(2, 5, 0o100644), ("INSERT INTO inode VALUES(7, 5, 41471, 0, 0, 1, 0, 0, 0, 0, 0, 0, x'78', NULL)",),
        name(1, b"file", 5, 2), ("INSERT INTO name_end VALUES(1, x'676f6e65')",), ("INSERT INTO inode_end VALUES(33)",), CHUNK,
        (PACK, 5, 5), ("INSERT INTO pin VALUES('keep', 4)",), ("INSERT INTO version_server VALUES(4, 1000)",), extent(2, 0, 5, 600),
        extent(2, 600, 5, 400))
    attacks = attacks_of("test_hostile_rows") + attacks_of("test_hostile_schema")
    yt.check(len(attacks) > 80, f"only {len(attacks)} statements found")
    for attack in attacks:
        bad = tampered(good, attack)
        yt.check(images.is_refused(images.apply, 5, bad), f"accepted: {attack}")
    images.apply(5, good)

    images = Images()
    images.apply(1, first_delta(images))
    images.apply(2, images.delta(2, ("INSERT INTO name_end VALUES(1, x'66696c65')",), inode(2, 2, 0o100600), extent(2, 0, 2, 900)))
    images.apply(3, images.delta(3))
    for table in ("name_past", "extent_past"):      # the reader leaves it at 0
        images.db.execute(f"UPDATE {table} SET fork=fork_of(vfrom, vto)")
    tables = images.reader.CHECKPOINT_TABLES
    good = images.new(tables, [(f"INSERT INTO {table} VALUES({', '.join('?' * len(row))})", *row)
                               for table in tables for row in images.db.execute(f"SELECT * FROM {table}")])

    def check(path):
        images.reader.check_file(path, "image")
        images.reader.check_checkpoint(images.reader.open_database(path), 3, "image")
    check(good)
    attacks = attacks_of("test_hostile_checkpoint")
    yt.check(len(attacks) > 15, f"only {len(attacks)} statements found")
    for attack in attacks:
        yt.check(images.is_refused(check, tampered(good, attack)), f"accepted: {attack}")


# ---- tests

def test_key_file():
    volume = yt.Volume("key")
    os.makedirs(volume.dir)
    text = volume.yester("init", volume.dir, volume.remote, "--name", "key")
    volume.configure(interval="1h")
    recorded = Recorded(volume)
    recovery = ["--recovery-key-file", passphrase_file("recovery", re.search("([A-Z2-7]{5}-){7}[A-Z2-7]{5}", text)[0].lower())]
    yt.equal(recorded.read("list"), "", "the list of a volume that has no version yet")
    yt.check("no version yet" in recorded.read("verify"), "verify says nothing of a volume without a version")
    done = recorded.read("extract", "latest", os.path.join(yt.TMP, "nothing"), expect=None)
    yt.check(done.returncode == 1 and b"no version yet" in done.stderr, f"extract of no version: {done}")
    recorded.volume.mount()
    make_all(recorded)
    recorded.compare()
    number, name, tree = recorded.made[1]
    yt.equal(recorded.read("list", secret=recovery), recorded.read("list"), "list with the recovery key")
    yt.equal(recorded.read("cat", str(number), os.fsdecode(ODD)), "a name that is no text", "cat")
    yt.equal(len(recorded.read("ls", name).splitlines()), sum(b"/" not in path for path in tree if path), "lines of ls")

    wrong = os.path.join(yt.TMP, "wrong.key")
    with open(wrong, "w") as file:
        file.write("ab" * 32 + "\n")
    for secret in (["--key-file", wrong], ["--passphrase-file", passphrase_file("p", "a guess")], []):
        done = recorded.read("list", secret=secret, expect=None)
        yt.equal(done.returncode, WRONG_SECRET, f"exit code with {secret}")
    recorded.volume.umount()
    damage(recorded)


def both(recorded, what, expect, data=True):
    """The reader and the program think the same of the store, or only of its log."""
    done = recorded.read("verify" if data else "list", expect=None)
    program = recorded.volume.yester("check", recorded.volume.remote, *recorded.secret, *["--read-data"] * data, expect=None)
    yt.equal((done.returncode, program.returncode), (expect, expect),
             f"{what}: exit codes of verify and check\n{done.stderr.decode()}{program.stderr.decode()}")
    return done


def later_format(recorded, newest):
    """What a later program might write is refused as such, not as damage; bits that no program sets are damage."""
    for offset, code in ((8, 1), (12, 1), (224, DAMAGE), (232, DAMAGE), (236, DAMAGE), (240, 1), (243, 1), (244, DAMAGE)):
        with open(newest, "rb") as file:
            whole = file.read()
        with open(newest, "r+b") as file:
            file.seek(offset)
            file.write(bytes([whole[offset] | 0x40]))
        both(recorded, f"byte {offset} of the header of a record", code, False)
        with open(newest, "wb") as file:
            file.write(whole)
    slot, = [name for name in glob.glob(recorded.store + "/key/*") if b"\nkind file\n" in open(name, "rb").read()]
    for name, old, new, code in (
            (slot, b"generation 1", b"generation 2", 1), (slot, b"format 1", b"format 2", 1),
            (slot, b"generation 1", b"generation 0", DAMAGE), (slot, b"kind file", b"kind fish", DAMAGE),
            (recorded.store + "/volume", b"\nincompatible 0", b"\nincompatible 4", 1),
            (recorded.store + "/volume", b"format 1", b"format 2", 1),
            (recorded.store + "/volume", b"\nread-only-compatible 0", b"\nread-only-compatible 4", DAMAGE),
            (recorded.store + "/volume", b"\nmac", b"\nmore 1\nmac", DAMAGE)):
        with open(name, "rb") as file:
            whole = file.read()
        yt.check(old in whole, f"{name} has no {old}")
        with open(name, "wb") as file:
            file.write(whole.replace(old, new))
        both(recorded, f"{name} with {new}", code, False)
        with open(name, "wb") as file:
            file.write(whole)


def damage(recorded):
    """One object at a time is damaged or gone."""
    newest = sorted(glob.glob(recorded.store + "/log/*"))[-1]
    middle_name = recorded.made[1][1]
    big = packs(recorded.store)[-1]
    for path, offset in ((big, 40), (big, 70_000), (big, -30), (newest, 230), (newest, 70), (newest, -1),
                         (recorded.store + "/volume", -5), (recorded.store + "/volume", -100)):
        flip(path, offset)
        done = both(recorded, f"byte {offset} of {path} flipped", DAMAGE)
        flip(path, offset)
        yt.check(os.path.relpath(path, recorded.store).encode() in done.stderr, f"{path} is not named: {done.stderr}")
    for path in (big, newest, glob.glob(recorded.store + "/log/*2")[0], recorded.store + "/volume"):
        os.rename(path, path + ".away")
        # Without its newest record the store is that of an hour ago. To the program, what has no descriptor is no volume.
        done = recorded.read("verify", expect=None)
        if path != recorded.store + "/volume":
            both(recorded, f"without {path}", 0 if path == newest else DAMAGE)
        yt.equal(done.returncode, 0 if path == newest else DAMAGE, f"verify without {path}: {done.stderr}")
        os.rename(path + ".away", path)
    later_format(recorded, newest)
    flip(big, 70_000)
    to = os.path.join(yt.TMP, "damaged")
    done = recorded.read("extract", "--keep-going", middle_name, to, expect=None)
    yt.equal(done.returncode, DAMAGE, "extract of a damaged version")
    yt.check(not os.path.exists(to + "/big") and os.path.exists(to + "/text"), "only what is damaged is left out")
    flip(big, 70_000)
    yt.check(recorded.read("verify").endswith("no damage\n"), "all is well again")


def test_passphrase():
    secret = ["--passphrase-file", passphrase_file("secret", "correct horse \u00e4")]
    recorded = Recorded(yt.Volume("passphrase").init(*secret, interval="1h"), secret)
    recorded.volume.mount()
    make_all(recorded)
    recorded.compare(recorded.made[2:3])
    done = recorded.read("list", secret=["--passphrase-file", passphrase_file("wrong", "wrong horse")], expect=None)
    yt.equal(done.returncode, WRONG_SECRET, "exit code with a wrong passphrase")
    recorded.volume.umount()


def test_unencrypted_then_taken_over():
    recorded = Recorded(yt.Volume("clear").init("--no-encryption", interval="1h"), [])
    recorded.volume.mount()
    for change in CHANGES[:3]:
        change(recorded.volume.mountpoint)
        recorded.sync()
    recorded.compare()
    key = os.path.join(yt.TMP, "some.key")
    with open(key, "w") as file:
        file.write("ab" * 32 + "\n")
    done = recorded.read("list", secret=["--key-file", key], expect=None)
    yt.equal(done.returncode, WRONG_SECRET, "exit code with a key for what says that it is not encrypted")
    recorded.volume.umount()

    other = recorded.volume.clone("other")
    other.mount("-o", "take_over")
    recorded.volume = other
    put(other.mountpoint, "big", b"by another writer", 3_000_000)
    os.rename(other.path("d"), other.path("d2"))
    recorded.sync()
    put(other.mountpoint, "d2/more", b"and on")
    recorded.sync()
    flags = Headers(recorded.store).flags
    yt.check(sum(flags) == 1 and flags[0] == 0, f"which records are take-overs: {flags}")
    recorded.compare()
    big = packs(recorded.store)[-1]
    flip(big, 70)
    yt.equal(recorded.read("verify", expect=None).returncode, DAMAGE, "verify with a byte of a clear pack flipped")
    flip(big, 70)
    other.umount()


def test_checkpoints():
    """Versions below, at and above a base, several bases long."""
    volume = yt.Volume("base", binary=yt.FAILPOINTS_BIN, env={"YESTER_CHECKPOINT_RECORDS": "5"}).init(interval="1h")
    recorded = Recorded(volume)
    volume.mount()
    make_all(recorded)

    def one_more():
        number = len(recorded.made)
        put(volume.mountpoint, f"file{number}", b"%d" % number)
        os.makedirs(volume.path("dirs", str(number)))
        if number > 5:
            os.rename(volume.path("dirs", str(number - 1)), volume.path("dirs", str(number), "the one before"))
        put(volume.mountpoint, "big", RANDOM.randbytes(5000), 5000 * number)
        recorded.sync()
        base = Headers(recorded.store).base
        return base[-1] > base[-3] > 0
    while not one_more():
        yt.check(len(recorded.made) < 400, "no checkpoint comes into force")
    one_more()
    one_more()
    words = recorded.compare(recorded.made[:3] + recorded.made[-6:])
    base = Headers(recorded.store).base[-1]
    yt.check(f"checkpoint of {base}\n" in words, words)

    kept = recorded.volume.clone("kept")
    name = glob.glob(f"{recorded.store}/checkpoint/{base:016x}-*")[0]
    flip(name, 1000)
    done = recorded.read("list", expect=None)
    yt.check(done.returncode == DAMAGE and b"checkpoint/" in done.stderr, f"list with a damaged checkpoint: {done}")
    flip(name, 1000)
    volume.umount()
    yt.same_tree(yt.tree(recorded.extract("latest")), yt.tree(kept.dir), "yester-read and yester clone")

    # A checkpoint, and no log: that is not a volume without versions.
    os.rename(recorded.store + "/log", recorded.store + "/away")
    yt.equal(recorded.read("list", expect=None).returncode, DAMAGE, "list without the log")
    volume.clone("lost", expect=DAMAGE)
    os.rename(recorded.store + "/away", recorded.store + "/log")


def test_import():
    volume = yt.Volume("import").init(interval="1h")
    begin(volume.dir)
    for number in range(5200):
        if number % 500 == 0:
            os.mkdir(f"{volume.dir}/many{number // 500}")
        put(volume.dir, f"many{number // 500}/{number}", b"file %d" % number)
    os.link(f"{volume.dir}/many0/0", f"{volume.dir}/many10/link")
    recorded = Recorded(volume)
    volume.mount()
    recorded.sync()
    partial = [bool(flags & 2) for flags in Headers(recorded.store).flags]
    yt.check(any(partial) and not partial[-1], f"which versions are partial: {partial}")
    for change in CHANGES[1:3]:
        change(volume.mountpoint)
        shutil.rmtree(volume.path("many3"), ignore_errors=True)
        os.rename(volume.path("many5"), volume.path("d", "many5")) if change is middle else None
        recorded.sync()
    yt.equal([number for number, _, _ in recorded.made], [n + 1 for n, hidden in enumerate(
        [bool(flags & 2) for flags in Headers(recorded.store).flags]) if not hidden], "numbers of the versions that are whole")
    done = recorded.read("extract", "1", os.path.join(yt.TMP, "partial"), expect=None)
    yt.check(not partial[0] or done.returncode == 1, "a partial version is offered")
    recorded.compare(recorded.made[::2])
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

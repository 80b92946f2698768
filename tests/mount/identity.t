#!/usr/bin/python3 -B
# timeout: 120
# both libfuse
"""Who owns what is made, which modes it gets, and when set-id bits go: a few hundred cases, done by another user and by root, on the mount and beside
it on the plain filesystem. Both must say the same. A difference here may be a privilege escalation."""
import ctypes
import mmap
import os
import resource
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

USER, GROUP, EXTRA, OTHER = 12345, 12346, 12347, 55555


def as_user(function, uid=USER, gid=GROUP, groups=(EXTRA,), umask=0o022):
    """What function() returns (or its errno) in a process of that user."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(umask)
            answer = repr(function())
        except OSError as error:
            answer = f"errno {error.errno}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


CAP_FSETID, PR_CAPBSET_DROP, CLONE_NEWUSER = 4, 24, 0x10000000


def as_bare_root(function):
    """The same for a root without CAP_FSETID (a service whose capabilities are bounded), who may not keep set-id bits."""
    def bare():
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        yt._checked(yt.libc.capget(header, sets))
        for i in range(3):
            sets[i] &= ~(1 << CAP_FSETID)
        yt._checked(yt.libc.prctl(PR_CAPBSET_DROP, CAP_FSETID, 0, 0, 0))
        yt._checked(yt.libc.capset(header, sets))
        return function()
    return as_user(bare, uid=0, gid=0, groups=())


def as_namespace_root(function):
    """The same for a root who is one in a user namespace only: he has all capabilities there, and none here."""
    def inside():
        yt._checked(yt.libc.unshare(CLONE_NEWUSER))
        for name, line in (("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(line)
        return function()
    return as_user(inside, uid=0, gid=0, groups=())


def runs_as(name):
    """Who a program is, that says so: execve(2) goes by the mode that the kernel has, and does not ask."""
    done = subprocess.run([name], stdout=subprocess.PIPE, check=True, user=USER, group=GROUP, extra_groups=[])
    return done.stdout


def make_program(name, mode):
    with open("/usr/bin/id", "rb") as program:
        content = program.read()
    if os.path.lexists(name):
        os.unlink(name)
    with open(name, "wb") as file:
        file.write(content)
    os.chmod(name, mode)
    return len(content)


def show(path):
    st = os.lstat(path)
    return oct(st.st_mode), st.st_uid, st.st_gid, 0 if os.path.isdir(path) else st.st_size


def make(name, mode, uid=0, gid=0):
    if os.path.lexists(name):
        os.unlink(name)
    with open(name, "wb") as file:
        file.write(b"x" * 20000)
    os.chown(name, uid, gid)
    os.chmod(name, mode)


def create(name, mode=0o666):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def write(name, flags=0):
    fd = os.open(name, os.O_WRONLY | flags)
    os.write(fd, b"y")
    os.close(fd)


def with_fd(name, function, flags=os.O_RDWR):
    fd = os.open(name, flags)
    try:
        return function(fd)
    finally:
        os.close(fd)


def direct(fd):
    with mmap.mmap(-1, 4096) as page:
        return os.write(fd, page)


def mapped(fd):
    with mmap.mmap(fd, 4096) as page:
        page[0] = 65
        page.flush()


def copy_into(fd):
    source = os.open("source", os.O_RDONLY)
    return os.copy_file_range(source, fd, 100, 0, 0)


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service

CHANGES = {
    "write": write,
    "append": lambda name: write(name, os.O_APPEND),
    "O_SYNC": lambda name: write(name, os.O_SYNC),
    "O_TRUNC": lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)),
    "O_TRUNC, reading": lambda name: os.close(os.open(name, os.O_RDONLY | os.O_TRUNC)),
    "truncate": lambda name: os.truncate(name, 5),
    "truncate to the same": lambda name: os.truncate(name, 20000),
    "ftruncate": lambda name: with_fd(name, lambda fd: os.ftruncate(fd, 10)),
    "fallocate": lambda name: with_fd(name, lambda fd: yt.fallocate(fd, 0, 0, 4096)),
    "keep size": lambda name: with_fd(name, lambda fd: yt.fallocate(fd, yt.FALLOC_KEEP_SIZE, 0, 4096)),
    "punch": lambda name: with_fd(name, lambda fd: yt.fallocate(fd, yt.FALLOC_KEEP_SIZE | yt.FALLOC_PUNCH_HOLE, 0, 4096)),
    "zero": lambda name: with_fd(name, lambda fd: yt.fallocate(fd, yt.FALLOC_ZERO_RANGE, 0, 4096)),
    "copy_file_range": lambda name: with_fd(name, copy_into),
    "O_DIRECT": lambda name: with_fd(name, direct, os.O_WRONLY | os.O_DIRECT),
    "mapping": lambda name: with_fd(name, mapped),
}


def new_inodes(say):
    for umask in (0, 0o022, 0o077, 0o777):
        say("file", umask, as_user(lambda u=umask: create(f"f{u:o}", 0o7777), umask=umask), show(f"f{umask:o}"))
        say("directory", umask, as_user(lambda u=umask: os.mkdir(f"d{u:o}", 0o7777), umask=umask), show(f"d{umask:o}"))
        say("fifo", umask, as_user(lambda u=umask: os.mkfifo(f"p{u:o}", 0o666), umask=umask), show(f"p{umask:o}"))
    say("symlink", as_user(lambda: os.symlink("x", "sl")), show("sl"))
    say("device", as_user(lambda: os.mknod("dev", 0o60600, os.makedev(7, 1))))
    for group in (GROUP, EXTRA, OTHER):
        name = f"sgid{group}"
        os.mkdir(name)
        os.chown(name, 0, group)
        os.chmod(name, 0o2777)
        say("in sgid", group, as_user(lambda n=name: create(n + "/f", 0o2775), umask=0), show(name + "/f"))
        say("in sgid", group, as_user(lambda n=name: create(n + "/g", 0o2745), umask=0), show(name + "/g"))
        say("in sgid", group, as_user(lambda n=name: os.mkdir(n + "/d", 0o2775), umask=0), show(name + "/d"))
    os.mkdir("shared")
    os.chown("shared", 0, EXTRA)
    os.chmod("shared", 0o770)
    say("by group", as_user(lambda: create("shared/f")), show("shared/f"), as_user(lambda: create("shared/g"), groups=()))
    say("root with a group", as_user(lambda: create("rootfile"), uid=0, gid=GROUP, groups=()), show("rootfile"))


def set_id_bits(say):
    make("source", 0o644)
    for what, change in CHANGES.items():
        for mode in (0o6777, 0o4777, 0o2776, 0o2766, 0o6666):
            for owner in ((0, 0), (USER, GROUP), (0, EXTRA)):
                make("s", mode, *owner)
                say(what, oct(mode), owner, as_user(lambda c=change: c("s")), show("s"))
        make("s", 0o6777)
        say(what, "by root", as_user(lambda c=change: c("s"), uid=0, gid=0, groups=()), show("s"))
        make("s", 0o6777)
        say(what, "by root without CAP_FSETID", as_bare_root(lambda c=change: c("s")), show("s"))
        for mode, owner in ((0o6777, (0, 0)), (0o6777, (USER, GROUP)), (0o2766, (0, GROUP))):
            make("s", mode, *owner)
            say(what, oct(mode), owner, "by root of a namespace", as_namespace_root(lambda c=change: c("s")), show("s"))
    for mode in (0o6777, 0o2766):
        make("s", mode, USER, GROUP)
        say("chgrp", as_user(lambda: os.chown("s", -1, EXTRA)), show("s"))
        say("chgrp to another's", as_user(lambda: os.chown("s", -1, OTHER)), show("s"))
        make("s", mode)
        os.chown("s", 1, 1)
        say("chown by root", show("s"))
        for who, owner in ((as_user, (USER, GROUP)), (as_user, (USER, EXTRA)), (as_user, (USER, OTHER)), (as_bare_root, (0, 0)), (as_bare_root, (USER, GROUP))):
            make("s", mode, *owner)
            say("chown to nobody", oct(mode), owner, who.__name__, who(lambda: os.chown("s", -1, -1)), show("s"))
            make("s", mode, *owner)
            say("chown to the same", oct(mode), owner, who.__name__, who(lambda o=owner: os.chown("s", *o)), show("s"))
    for group in (GROUP, EXTRA, OTHER):
        make("s", 0o644, USER, group)
        say("chmod", group, as_user(lambda: os.chmod("s", 0o2755)), show("s"))
        make("s", 0o2775, USER, group)
        say("setfacl", group, as_user(lambda: set_acl("u:1:rwx", "s")), show("s"), get_acl("s"))
        make("s", 0o2775, USER, group)
        say("setfacl", group, as_user(lambda: set_acl("g::r", "s")), show("s"), get_acl("s"))
        make("s", 0o2775, USER, group)
        say("setfacl", group, as_bare_root(lambda: set_acl("u:1:rwx", "s")), show("s"), get_acl("s"))
    for what, change in CHANGES.items():
        if what == "mapping":
            continue  # the page is written back by a write, which takes capabilities away; elsewhere they stay
        for mode in (0o777, 0o4777):
            for who in (as_user, as_bare_root, lambda function: as_user(function, uid=0, gid=0, groups=())):
                if mode & 0o4000 and who not in (as_user, as_bare_root):
                    continue  # ops_attr.c, takes_bits()
                make("s", mode)
                os.setxattr("s", "security.capability", CAPABILITY)
                say("capability", what, os.listxattr("s"), who(lambda c=change: c("s")), os.listxattr("s"), show("s"))


RUNNABLE = {  # that leave the program as it is
    "write": lambda name, size: with_fd(name, lambda fd: os.pwrite(fd, b"\x7f", 0), os.O_WRONLY),
    "read and write": lambda name, size: with_fd(name, lambda fd: os.pwrite(fd, b"\x7f", 0)),
    "append": lambda name, size: write(name, os.O_APPEND),
    "O_SYNC": lambda name, size: with_fd(name, lambda fd: os.pwrite(fd, b"\x7f", 0), os.O_WRONLY | os.O_SYNC),
    "truncate": lambda name, size: os.truncate(name, size),
    "fallocate": lambda name, size: with_fd(name, lambda fd: yt.fallocate(fd, 0, size, 4096)),
    "keep size": lambda name, size: with_fd(name, lambda fd: yt.fallocate(fd, yt.FALLOC_KEEP_SIZE, size, 4096)),
    "zero": lambda name, size: with_fd(name, lambda fd: yt.fallocate(fd, yt.FALLOC_ZERO_RANGE, size, 4096)),
    "copy_file_range": lambda name, size: with_fd(name, lambda fd: os.copy_file_range(os.open("template", os.O_RDONLY), fd, 4096, 0, 0)),
}


def programs(say):
    """Changed by another, then run: nobody has asked for its mode in between."""
    make_program("template", 0o755)
    for what, change in RUNNABLE.items():
        for who in (as_user, as_bare_root, as_namespace_root):
            size = make_program("program", 0o6777)
            say(what, runs_as("./program"))
            say(what, who.__name__, who(lambda c=change, s=size: c("program", s)), runs_as("./program"))


def set_acl(entry, name):
    return subprocess.run(["setfacl", "-m", entry, name], stderr=subprocess.DEVNULL, check=False).returncode


def get_acl(name):
    return subprocess.run(["getfacl", "-cpn", name], capture_output=True, text=True, check=True).stdout


def limited():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    fd = os.open("limited", os.O_CREAT | os.O_WRONLY, 0o666)
    return os.write(fd, b"z" * 5000), os.write(fd, b"z")


def permissions(say):
    os.mkdir("acl")
    say(set_acl(f"u:{USER}:rwx", "acl"), set_acl(f"d:u:{USER}:rwx", "acl"), set_acl("d:g:777:rx", "acl"), get_acl("acl"))
    for umask in (0, 0o077):
        say("default ACL", as_user(lambda u=umask: create(f"acl/f{u:o}"), umask=umask), get_acl(f"acl/f{umask:o}"))
        say("default ACL", as_user(lambda u=umask: os.mkdir(f"acl/d{u:o}"), umask=umask), get_acl(f"acl/d{umask:o}"))
    make("secret", 0o640)
    say(as_user(lambda: with_fd("secret", lambda fd: os.read(fd, 1), os.O_RDONLY)))
    set_acl(f"u:{USER}:r", "secret")
    say(as_user(lambda: with_fd("secret", lambda fd: os.read(fd, 1), os.O_RDONLY)), get_acl("secret"))
    os.chmod("secret", 0o600)
    say(as_user(lambda: with_fd("secret", lambda fd: os.read(fd, 1), os.O_RDONLY)), get_acl("secret"))
    make("open", 0o666)
    say("times", as_user(lambda: os.utime("open")), as_user(lambda: os.utime("open", (1, 1))))
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    make("sticky/root", 0o666)
    make("sticky/own", 0o666, USER, GROUP)
    say("sticky", as_user(lambda: os.unlink("sticky/root")), as_user(lambda: os.rename("sticky/root", "sticky/x")), as_user(lambda: os.unlink("sticky/own")))
    make("mine", 0o600, USER, GROUP)
    say("link", as_user(lambda: os.link("secret", "l1")), as_user(lambda: os.link("mine", "l2")), show("l2"))
    make("x", 0o644)
    os.setxattr("x", "trusted.t", b"1")
    say("xattrs", as_user(lambda: os.setxattr("x", "user.a", b"1")), as_user(lambda: os.setxattr("x", "trusted.a", b"1")), as_user(lambda: os.listxattr("x")), os.listxattr("x"))
    say("limit", as_user(limited))


def all_cases(where):
    said = []
    os.chdir(where)
    os.chmod(".", 0o777)
    for part in (new_inodes, set_id_bits, programs, permissions):
        part(lambda *what: said.append(what))
    os.chdir("/")
    return said


def compare(name, *options):
    if os.geteuid() != 0:
        raise yt.Skip("only root can be other users")
    volume = yt.Volume(name).init()
    plain = os.path.join(volume.base, "plain")
    os.mkdir(plain)
    volume.mount(*options)
    wanted = all_cases(plain)
    found = all_cases(volume.mountpoint)
    yt.equal(len(found), len(wanted), "number of cases")
    for one, other in zip(found, wanted):
        yt.equal(one, other, f"case {other[:3]}")
    print(f"{len(wanted)} cases")
    volume.umount()


def test_identity():
    compare("identity")


def test_identity_without_passthrough():
    compare("cached", "-o", "no_passthrough")


if __name__ == "__main__":
    yt.main(globals())

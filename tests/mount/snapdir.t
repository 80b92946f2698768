#!/usr/bin/python3 -B
# timeout: 120
"""`.snapshots`: what names resolve, that nothing can be changed there, and that the permissions of then hold, parents included (fault 48)."""
import errno
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

USER, GROUP, EXTRA = 12345, 12346, 12347


def as_user(function, uid=USER, gid=GROUP, groups=()):
    """True, or the errno, of function() done by that user."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            function()
        except OSError as error:
            code = error.errno
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or True


def fails(wanted, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        yt.equal(error.errno, wanted, f"errno of {function.__name__}{arguments}")
        return
    raise yt.Failure(f"{function.__name__}{arguments} succeeded")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_read_only():
    volume = yt.Volume("readonly").init(interval="1h")
    os.makedirs(os.path.join(volume.dir, "d"))
    volume.mount()
    volume.sync()  # else the import may take the file into a version before that with the link
    with open(volume.path("d/f"), "w") as file:
        file.write("then")
    os.symlink("f", volume.path("d/l"))
    volume.sync()
    there = volume.snapshot(volume.latest())
    live = volume.path("d/f")
    for function, arguments in (
        (os.open, (there + "/d/f", os.O_WRONLY)), (os.open, (there + "/d/f", os.O_RDWR)),
        (os.open, (there + "/d/f", os.O_RDONLY | os.O_TRUNC)), (os.open, (there + "/d/new", os.O_CREAT | os.O_WRONLY)),
        (os.mkdir, (there + "/d/new",)), (os.rmdir, (there + "/d",)), (os.unlink, (there + "/d/f",)), (os.rmdir, (there,)),
        (os.rename, (there + "/d/f", there + "/d/g")), (os.rename, (there + "/d/f", volume.path("g"))), (os.rename, (live, there + "/g")),
        (os.link, (there + "/d/f", volume.path("g"))), (os.link, (live, there + "/g")), (os.symlink, ("x", there + "/g")),
        (os.mkfifo, (there + "/g",)), (os.chmod, (there + "/d/f", 0)), (os.chown, (there + "/d/f", 1, 1)), (os.utime, (there + "/d/f",)),
        (os.truncate, (there + "/d/f", 0)), (os.setxattr, (there + "/d/f", "user.a", b"1")), (os.removexattr, (there + "/d/f", "user.a")),
        (os.rename, (volume.path("d"), volume.path(".snapshots"))), (os.rename, (volume.path(".snapshots"), volume.path("x"))),
        (os.rmdir, (volume.path(".snapshots"),)), (os.chmod, (volume.path(".snapshots"), 0)),
    ):
        fails(errno.EROFS, function, *arguments)
    fails(errno.EEXIST, os.mkdir, volume.path(".snapshots"))
    fails(errno.EEXIST, os.symlink, "x", volume.path("d/.snapshots"))
    yt.equal(read(there + "/d/f"), b"then", "the file of then")
    yt.equal(os.readlink(there + "/d/l"), "f", "the link of then")
    fails(errno.EPERM, os.setxattr, live, "user.yester.state", b"x")
    yt.equal(os.getxattr(live, "user.yester.state"), b"synced", "state")
    yt.equal(os.getxattr(there + "/d/f", "user.yester.version"), os.getxattr(live, "user.yester.version"), "version")
    with open(live, "a") as file:
        file.write("x")
    yt.equal(os.getxattr(live, "user.yester.state"), b"pending", "state after a change")
    yt.equal(os.listxattr(live), [], "names of xattrs")
    volume.umount()


def test_names():
    volume = yt.Volume("names").init(interval="1h")
    os.makedirs(os.path.join(volume.dir, "d/e"))
    volume.mount("-o", "snapdir=visible")
    volume.sync()
    first = volume.latest()
    os.mkdir(volume.path("young"))
    yt.equal(os.listdir(volume.path("young/.snapshots")), [], "versions of a directory that is in none")
    os.rename(volume.path("d/e"), volume.path("moved"))
    volume.sync()
    last = volume.latest()
    yt.check(first != last, "one version")
    yt.equal(volume.versions(), [first, last], "versions")
    yt.equal(os.listdir(volume.path("young/.snapshots")), [last], "versions of a young directory")
    yt.equal(sorted(os.listdir(volume.path("moved/.snapshots"))), [first, last], "versions of a moved directory")
    fails(errno.ENOENT, os.stat, volume.path("young/.snapshots", first))
    yt.check(".snapshots" in os.listdir(volume.mountpoint), "it is not visible")
    yt.check(".snapshots" not in os.listdir(volume.path("moved")), "it is visible below the root")
    for inside in (".snapshots", first + "/.snapshots", first + "/d/.snapshots", "nonsense", "2001-01-01", "3w-ago"):
        fails(errno.ENOENT, os.stat, volume.snapshot(inside))
    clock = time.strptime(first, "%Y-%m-%dT%H-%M-%SZ")
    far = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400))
    for name, version in ((time.strftime("@GMT-%Y.%m.%d-%H.%M.%S", clock), first), (far, last), ("latest", last)):
        yt.equal(os.stat(volume.snapshot(name)).st_ino, os.stat(volume.snapshot(version)).st_ino, f"version of {name}")
    # Its name may be of the next second (I26).
    yt.wait_until("0s-ago", lambda: os.readlink(volume.snapshot("0s-ago")) == last)
    os.chdir(volume.snapshot(first, "d/e"))  # a second way to a directory must not move it from under a process
    os.listdir(volume.path("moved/.snapshots", first))
    os.listdir(volume.snapshot(time.strftime("@GMT-%Y.%m.%d-%H.%M.%S", clock), "d/e"))
    yt.equal(os.getcwd(), volume.snapshot(first, "d/e"), "working directory")
    os.chdir("/")
    numbers = [os.stat(volume.snapshot(first, "d")).st_ino, os.stat(volume.path("d")).st_ino]
    yt.check(numbers[0] != numbers[1], "a version shares an inode number with the live tree")
    volume.umount()
    volume.mount()
    yt.equal(os.stat(volume.snapshot(first, "d")).st_ino, numbers[0], "inode number after mounting again")
    yt.check(".snapshots" not in os.listdir(volume.mountpoint), "it is visible")
    volume.umount()


def test_permissions_of_then():
    if os.geteuid() != 0:
        raise yt.Skip("only root can be other users")
    volume = yt.Volume("permissions").init(interval="1h")
    os.makedirs(os.path.join(volume.dir, "closed/open/inner"))
    volume.mount()
    for name, mode in (("closed/open/inner/f", 0o644), ("private", 0o600), ("group", 0o640), ("acl", 0o600)):
        with open(volume.path(name), "w") as file:
            file.write("x")
        os.chmod(volume.path(name), mode)
    os.chown(volume.path("group"), 0, EXTRA)
    subprocess.run(["setfacl", "-m", f"u:{USER}:r", volume.path("acl")], check=True)
    os.chmod(volume.path("closed"), 0o700)
    volume.sync()
    then = volume.latest()
    os.chmod(volume.path("closed"), 0o711)
    os.chmod(volume.path("private"), 0o644)
    volume.sync()
    now = volume.latest()
    for version, closed in ((then, errno.EACCES), (now, True)):
        for way in (volume.snapshot(version, "closed/open/inner/f"), volume.path("closed/.snapshots", version, "open/inner/f"),
                    volume.path("closed/open/.snapshots", version, "inner/f"), volume.path("closed/open/inner/.snapshots", version, "f")):
            read(way)  # root, first: what the kernel keeps for root must not serve others
            yt.equal(as_user(lambda w=way: read(w)), closed, f"{way} by another user")
    yt.equal(as_user(lambda: read(volume.snapshot(then, "private"))), errno.EACCES, "private then")
    yt.equal(as_user(lambda: read(volume.snapshot(now, "private"))), True, "not private now")
    yt.equal(as_user(lambda: read(volume.snapshot(now, "group"))), errno.EACCES, "of a group")
    yt.equal(as_user(lambda: read(volume.snapshot(now, "group")), groups=(EXTRA,)), True, "by the group")
    yt.equal(as_user(lambda: read(volume.snapshot(now, "acl"))), True, "by ACL")
    yt.equal(as_user(lambda: read(volume.snapshot(now, "acl")), uid=USER + 1), errno.EACCES, "not by ACL")
    # The closed directory of then opens for a group by an ACL only.
    subprocess.run(["setfacl", "-m", f"g:{EXTRA}:x", volume.path("closed")], check=True)
    os.chmod(volume.path("closed"), 0o710)
    volume.sync()
    acl = volume.latest()
    os.chmod(volume.path("closed"), 0o711)
    way = volume.path("closed/open/.snapshots", acl, "inner/f")
    yt.equal(as_user(lambda: read(way)), errno.EACCES, "ACL of a parent, another user")
    yt.equal(as_user(lambda: read(way), groups=(EXTRA,)), True, "ACL of a parent, the group")
    volume.umount()


if __name__ == "__main__":
    yt.main(globals())

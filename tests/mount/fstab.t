#!/usr/bin/python3 -B
# timeout: 90
"""fstab and mount(8): `mount DIR`, `mount -a`, `umount DIR` for type fuse.yester, and `mount -t yester`, in a mount namespace of our own, with an
/etc/fstab and the helpers of mount(8) that only this namespace sees."""
import ctypes
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

CLONE_NEWNS = 0x20000
HELPERS = "/usr/sbin" if os.path.islink("/sbin") else "/sbin"


def private_namespace():
    if yt.libc.unshare(CLONE_NEWNS) != 0:
        raise yt.Skip("unshare: " + os.strerror(ctypes.get_errno()))
    yt.run("mount", "--make-rprivate", "/")
    yt.run("umount", "-l", "-a", "-i", "-t", "fuse.yester")  # our copies of other tests' mounts, which would outlive these


def install(place):
    """`place`, over the directory of mount(8)'s helpers: what is there, and ours as `make install` puts them."""
    originals = place + ".originals"
    os.makedirs(place)
    os.makedirs(originals)
    yt.run("mount", "--bind", HELPERS, originals)
    for name in os.listdir(originals):
        os.symlink(os.path.join(originals, name), os.path.join(place, name))
    for name in ("mount.yester", "mount.fuse.yester", "yester"):
        if os.path.lexists(os.path.join(place, name)):
            os.unlink(os.path.join(place, name))
    shutil.copy(os.path.join(yt.TOP, "scripts/mount.yester"), os.path.join(place, "mount.yester"))
    os.symlink("mount.yester", os.path.join(place, "mount.fuse.yester"))
    os.symlink(yt.YESTER, os.path.join(place, "yester"))
    yt.run("mount", "--bind", place, HELPERS)
    for installed in ("/usr/local/sbin/yester", "/usr/local/bin/yester"):  # found first: mount(8) of Debian 13 gives its helpers a PATH of its own
        if os.path.exists(installed):
            yt.run("mount", "--bind", yt.YESTER, installed)


def test_fstab():
    private_namespace()
    install(os.path.join(yt.TMP, "sbin"))
    one, two = yt.Volume("one"), yt.Volume("two")
    for volume in (one, two):
        volume.init()
        with open(volume.path("file"), "w") as file:
            file.write(volume.name)
        # The helpers get the environment of mount(8), which is not the volume's own: both volumes share their directories.
    shared = {"YESTER_CONFIG_DIR": os.path.join(yt.TMP, "config"), "YESTER_STATE_DIR": os.path.join(yt.TMP, "state")}
    for volume in (one, two):
        shutil.copytree(os.path.join(volume.base, "config"), shared["YESTER_CONFIG_DIR"], dirs_exist_ok=True)
        shutil.copytree(os.path.join(volume.base, "state"), shared["YESTER_STATE_DIR"], dirs_exist_ok=True)
        volume.env.update(shared)
    os.chmod(shared["YESTER_STATE_DIR"], 0o700)
    place = os.path.join(yt.TMP, "place")
    os.mkdir(place)
    fstab = os.path.join(yt.TMP, "fstab")
    with open(fstab, "w") as file:
        file.write(f"{one.dir} {one.dir} fuse.yester nofail,noatime,x-systemd.automount 0 0\n"
                   f"{two.dir} {place} fuse.yester defaults,nosuid,comment=x 0 0\n")
    yt.run("mount", "--bind", fstab, "/etc/fstab")
    env = dict(one.env, PATH=HELPERS + ":/usr/bin:/bin")

    def alive(where, name, options=()):
        kinds = [(kind, words) for found, kind, words in yt.mounts(yt.TMP) if found == where]
        yt.equal([kind for kind, _ in kinds], ["fuse.yester"], f"mounts on {where}")
        for option in options:
            yt.check(option in kinds[0][1].split(","), f"{option} is not among {kinds[0][1]}")
        with open(os.path.join(where, "file")) as opened:
            yt.equal(opened.read(), name, "content")

    def lock_holder(volume):
        with open(os.path.join(yt.TMP, "state", volume.name, "lock")) as lock:
            pid = int(lock.read().split()[0])
        volume.daemon = (pid, yt.start_time(pid))

    def gone(volume, where):
        volume.wait_gone()
        yt.check(not yt.is_mounted(where), f"{where} is still mounted")

    yt.run("mount", one.dir, env=env)
    alive(one.dir, "one", ["noatime"])
    lock_holder(one)
    with open(os.path.join(one.dir, "new"), "w") as file:
        file.write("through fstab")
    yt.run("umount", one.dir, env=env)
    gone(one, one.dir)

    yt.run("mount", "-a", "-t", "fuse.yester", env=env)
    alive(one.dir, "one")
    alive(place, "two", ["nosuid"])
    lock_holder(one)
    lock_holder(two)
    yt.run("mount", "-a", "-t", "fuse.yester", env=env)
    yt.equal(len([1 for found, _, _ in yt.mounts(yt.TMP) if found in (one.dir, place)]), 2, "mounts after a second mount -a")
    yt.run(yt.YESTER, "umount", two.dir, env=env)
    gone(two, place)
    yt.run("umount", one.dir, env=env)
    gone(one, one.dir)

    yt.run("mount", "-t", "yester", two.dir, place, env=env)
    alive(place, "two")
    lock_holder(two)
    yt.run("umount", place, env=env)
    gone(two, place)
    yt.run("mount", "-t", "yester", "-o", "ro,noexec", one.dir, one.dir, env=env)
    alive(one.dir, "one", ["ro", "noexec"])
    lock_holder(one)
    yt.run("umount", one.dir, env=env)
    gone(one, one.dir)
    with open(os.path.join(one.dir, "new")) as file:
        yt.equal(file.read(), "through fstab", "content")


if __name__ == "__main__":
    yt.main(globals())

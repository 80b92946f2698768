"""backings: volumes on filesystems of their own: ext4, XFS and btrfs on loop devices, tmpfs; and the modes in which the kernel does the I/O of a mount.

    for kind, mode in backings.each():            every pair of KINDS and MODES
        volume = backings.volume(kind, mode)      initialised, not mounted, its directory on a new filesystem
        backings.mount(volume, mode)
        ...
        volume.umount()
        volume.remove()

KINDS=ext4,xfs and MODES=cached in the environment choose among them."""
import os
import subprocess

import yt

KINDS = tuple(os.environ.get("KINDS", "ext4,xfs,btrfs,tmpfs").split(","))
# What mount is given. default: passthrough where the machine has it.
OPTIONS = {"cached": ("-o", "no_passthrough"), "default": ()}
MODES = tuple(os.environ.get("MODES", "cached,default").split(","))
IMAGE_BYTES = 512 << 20
# mkfs.btrfs looks at the source of every mount, and gives up where a daemon is dead (check_mounted_where): the tests that make one run alone, as others kill daemons.
MKFS = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q")}


def each():
    return [(kind, mode) for mode in MODES for kind in KINDS]


def kernel():
    """(major, minor)"""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def make(kind, place, size=IMAGE_BYTES):
    """A new filesystem, mounted at `place`, which is made. It is on no disk that matters: the image goes when it is unmounted."""
    os.makedirs(place)
    if kind == "tmpfs":
        yt.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
        return
    image = place + ".img"
    with open(image, "wb") as file:
        file.truncate(size)
    yt.run(*MKFS[kind], image)
    yt.run("mount", "-o", "loop", image, place)
    os.unlink(image)


def volume(kind, mode, name=None, **config):
    made = yt.Volume(name or f"{kind}-{mode}")
    disk = os.path.join(made.base, "disk")
    make(kind, disk)
    made.dir = made.mountpoint = os.path.join(disk, "dir")
    return made.init(**config)


def mount(made, mode, *arguments):
    made.mount(*OPTIONS[mode], *arguments)


def remove(made):
    """The volume and its filesystem; it is not mounted any more."""
    subprocess.run(["umount", os.path.join(made.base, "disk")], check=True)
    made.remove()


def program(name):
    """One of tests/lib that was built."""
    return os.path.join(os.environ.get("YESTER_BUILD", os.path.join(yt.TOP, "build")), "lib", name)

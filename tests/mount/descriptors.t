#!/bin/bash
# timeout: 120
# Fault 28: an application opens more files than the daemon may have descriptors. It is told; everything else goes on, versions too.

# shellcheck source=tests/lib/lib.sh
. tests/lib/lib.sh
need_mount

new_volume many
(ulimit -n 200 && y mount "$DIR" </dev/null) || fail "mount"
at_end "force_umount $(printf %q "$DIR")"

python3 -B - "$DIR" "$YESTER" <<'END' || fail "see above"
import errno, os, subprocess, sys
top, yester = sys.argv[1:]

def count(numbers, function):
    """Errors of function(i), by name."""
    found = {}
    for i in numbers:
        try:
            function(i)
        except OSError as problem:
            name = errno.errorcode[problem.errno]
            found[name] = found.get(name, 0) + 1
    return found

files = []
refused = count(range(500), lambda i: files.append(os.open(f"{top}/f{i}", os.O_CREAT | os.O_RDWR)))
assert len(files) > 50 and refused == {"ENFILE": 500 - len(files)}, (len(files), refused)
for fd in files:
    os.write(fd, b"written")
opened = len(files)
refused = count(range(opened), lambda i: os.rename(f"{top}/f{i}", f"{top}/g{i}"))
assert not refused, refused
refused = count(range(0, opened, 2), lambda i: os.unlink(f"{top}/g{i}"))
assert not refused, refused
subprocess.run([yester, "sync", top, "--timeout", "30s"], check=True, timeout=60)
refused = count(files, os.fstat)
assert not refused, refused
refused = count(range(1, opened, 2), lambda i: os.chmod(f"{top}/g{i}", 0o600))
assert not refused, refused
for fd in files:
    os.close(fd)
for i in range(500):
    with open(f"{top}/h{i}", "w") as file:
        file.write("works again")
END

y sync "$DIR" || fail "sync"
diff -r "$DIR" "$DIR/.snapshots/latest" || fail "the version is not the tree"
umount_volume "$DIR" || fail "umount"

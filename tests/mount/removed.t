#!/bin/bash
# timeout: 120
# What was removed is gone: its space is free and no descriptor of the daemon keeps it, before the next version and even if that has to wait
# (faults 28, 30; I13). What is removed but still open goes on working.

# shellcheck source=tests/lib/lib.sh
. tests/lib/lib.sh
need_mount

new_volume removed
sed -i '/^interval/d' "$YESTER_CONFIG_DIR/removed.conf"
echo "interval = 1h" >>"$YESTER_CONFIG_DIR/removed.conf"
ulimit -Sn 1024
ulimit -Hn 1024
mount_volume "$DIR"
pid=$(daemon_pid "$DIR")

deleted_descriptors() {
	find "/proc/$pid/fd" -lname '* (deleted)' | wc -l
}
none_deleted() {
	[ "$(deleted_descriptors)" -eq "$before" ]
}
y sync "$DIR" || fail "first sync"
before=$(deleted_descriptors)

echo "one large file"
fallocate -l 8M "$DIR/large" || fail "fallocate"
rm "$DIR/large"
wait_for 60 none_deleted || fail "a removed file is kept by a descriptor"

echo "more files than descriptors"
mkdir "$DIR/many"
(cd "$DIR/many" && seq 1 3000 | xargs touch) || fail "touch"
rm -r "$DIR/many" || fail "rm -r"
echo still >"$DIR/works" || fail "out of descriptors"
wait_for 60 none_deleted || fail "removed files are kept by descriptors: $(deleted_descriptors)"

echo "removed while open"
exec 7<>"$DIR/open" || fail "open"
echo "before" >&7
rm "$DIR/open"
mkdir "$DIR/here"
(
	cd "$DIR/here" || exit 1
	rmdir "$DIR/here"
	[ "$(stat -c %F .)" = directory ]
) || fail "a removed directory that somebody is in"
y sync "$DIR" || fail "sync"
echo "after" >&7 || fail "write to a removed file"
chmod 600 /proc/self/fd/7 || fail "chmod of a removed file"
[ "$(stat -Lc %s:%a /proc/self/fd/7)" = 13:600 ] || fail "stat of a removed file: $(stat -Lc %s:%a /proc/self/fd/7)"
[ "$(cat /proc/self/fd/7)" = $'before\nafter' ] || fail "content of a removed file"
exec 7>&-
wait_for 60 none_deleted || fail "a removed file is kept after its last close"
umount_volume "$DIR" || fail "umount"
[ "$(ls "$DIR")" = works ] || fail "left: $(ls "$DIR")"

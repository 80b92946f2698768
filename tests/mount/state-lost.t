#!/bin/bash
# Faults 20, 21: the local database is damaged or deleted, or the whole state directory is: the next session fills a new one from the remote, history
# is complete, and what was never uploaded is still in the tree. The remote is never overwritten.
# timeout: 200

. tests/lib/lib.sh
need_mount
new_volume v
mkdir "$DIR/sub"
for i in 1 2 3; do
	echo "$i" >"$DIR/sub/file"
	expect 0 sync "$DIR"
done
state=$YESTER_STATE_DIR/v
history_is() { # WANTED: the contents of sub/file in all versions, oldest first, without repetitions
	local got
	got=$(cat "$DIR"/.snapshots/*/sub/file | uniq | tr '\n' ' ')
	[ "$got" = "$1" ] || fail "history is \"$got\" instead of \"$1\""
}

round() { # NAME: damage is done; something was changed that no version has
	local old
	old=$(cd "$STORE" && find . -type f -exec sha256sum {} +)
	mount_volume "$DIR"
	expect 0 sync "$DIR"
	[ "$(cat "$DIR/sub/file")" = "unsent $1" ] || fail "$1: the tree has changed"
	before+="unsent $1 "
	history_is "$before"
	umount_volume "$DIR" || fail "$1: umount"
	(cd "$STORE" && sha256sum --quiet -c) <<<"$old" || fail "$1: objects of the remote were changed"
	expect 0 check "$DIR" --read-data
}
before="1 2 3 "

echo "unsent deleted" >"$DIR/sub/file"
rm "$state"/volume.db*
expect_line 1 'database is gone; the next yester mount' status "$DIR"
round deleted

echo "unsent all" >"$DIR/sub/file"
rm -r "$state"
round all

echo "unsent damaged" >"$DIR/sub/file"
python3 - "$state/volume.db" <<'PY'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(0, 2)
    size = file.tell()
    for at in range(4096, size, 4096):
        file.seek(at)
        file.write(b"\xa5" * 2048)
PY
round damaged
ls "$state"/volume.db.damaged-* >/dev/null || fail "the damaged database was not set aside"

# Found damaged in use: who only reads is told what to do.
: >"$state/rebuild"
expect_line 5 'found damaged.*; the next yester mount or yester sync fills a new one from' restore "$DIR/sub/file" --at latest --to "$TEST_TMP/elsewhere"
expect_line 5 'found damaged.*; the next yester mount or yester sync fills a new one from' status "$DIR"
echo "unsent marked" >"$DIR/sub/file"
round marked

# With the remote away there is nothing to fill it from: refused, and nothing is recorded.
echo "unsent away" >"$DIR/sub/file"
rm "$state"/volume.db*
mv "$STORE" "$STORE.away"
expect 1 mount "$DIR"
mv "$STORE.away" "$STORE"
round away

# Removed under a running daemon: a verb that finds no daemon must not take the mount for the plain directory, and record its identity as the root's.
mount_volume "$DIR"
daemon=$(cat "$state/lock")
rm -r "$state"
expect_line 1 'mounted, but its daemon can.t be reached .*; umount' sync "$DIR"
expect_line 1 'mounted, but its daemon can.t be reached .*; umount' restore "$DIR/sub/file" --at latest
umount -l "$DIR"
is_gone() {
	! kill -0 "$1"
}
wait_for 30 is_gone "$daemon" || fail "the daemon stays after the unmount"
echo "unsent beneath" >"$DIR/sub/file"
round beneath

# Another machine has taken the volume over meanwhile: a database made anew here does not take it back unasked (I17), and says so.
here() { export YESTER_CONFIG_DIR=$TEST_TMP/config YESTER_STATE_DIR=$TEST_TMP/state; }
there() { export YESTER_CONFIG_DIR=$TEST_TMP/config2 YESTER_STATE_DIR=$TEST_TMP/state2; }
key=$YESTER_CONFIG_DIR/v.key
there
expect 0 clone "file://$STORE" "$TEST_TMP/there" --key-file "$key"
echo theirs >"$TEST_TMP/there/theirs"
expect 0 sync "$TEST_TMP/there"
here
echo "unsent fenced" >"$DIR/sub/file"
rm "$state"/volume.db*
mount_volume "$DIR"
expect_line 6 'take_over' sync "$DIR"
[ "$(status_field "$DIR" state)" = fenced ] || fail "state is $(status_field "$DIR" state)"
[ "$(cd "$DIR" && find . -type f -exec cat {} +)" = "unsent fenced" ] || fail "the tree has changed"
[ "$(cat "$DIR/.snapshots/latest/theirs")" = theirs ] || fail "the other machine's version can't be read here"
umount_volume "$DIR"
there
echo more >>"$TEST_TMP/there/theirs"
expect 0 sync "$TEST_TMP/there"
here
mount_volume "$DIR" -o take_over
expect 0 sync "$DIR"
[ ! -e "$DIR/.snapshots/latest/theirs" ] || fail "the newest version is not this machine's"
umount_volume "$DIR" || fail "umount after the take-over"
there
expect_line 6 'take_over' sync "$TEST_TMP/there"
here
expect 0 check "$DIR" --read-data

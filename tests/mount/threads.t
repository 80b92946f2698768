#!/bin/bash
# The whole program under ThreadSanitizer: several writers, cuts under them, readers of versions, opens and mappings of every kind, a rescan, an unclean end.
# timeout: 600
# alone
. tests/lib/lib.sh
need_mount

top=$(cd "$YESTER_BUILD" && while [ ! -e Makefile ] && [ "$PWD" != / ]; do cd ..; done && pwd)
make -s -C "$top" SAN=thread WERROR=1 build/san-thread/yester >"$TEST_TMP/build.log" 2>&1 ||
	fail "make SAN=thread: $(tail -n 20 "$TEST_TMP/build.log")"
YESTER=$top/build/san-thread/yester
export TSAN_OPTIONS="log_path=$TEST_TMP/race suppressions=$top/tests/lib/tsan.supp history_size=4 exitcode=0 die_after_fork=0"

no_races() {
	local report
	for report in "$TEST_TMP"/race.*; do
		[ ! -e "$report" ] || fail "ThreadSanitizer: $(head -n 60 "$report")"
	done
}

new_volume threads
for i in $(seq 300); do echo "$i" >"$DIR/before-$i"; done
mount_volume "$DIR"

writer() ( # N: creates, overwrites, renames, links, truncates, removes
	set -e
	for i in $(seq 120); do
		file=$DIR/w$1-$((i % 12))
		echo "$1 $i" >>"$file"
		dd if=/dev/zero of="$file" bs=4096 seek=$((i % 7)) count=1 conv=notrunc status=none
		chmod $((600 + i % 7)) "$file"
		ln -f "$file" "$DIR/link$1"
		mv -f "$DIR/link$1" "$DIR/moved$1"
		mkdir -p "$DIR/d$1/$((i % 5))"
		rmdir "$DIR/d$1/$((i % 5))"
		truncate -s $((i * 37)) "$file"
		if [ $((i % 9)) -eq 0 ]; then rm -f "$file"; fi
		if [ $((i % 20)) -eq 0 ]; then sync "$DIR/moved$1"; fi
	done
)
reader() ( # what it looks for may be gone by then
	for _ in $(seq 25); do
		ls "$DIR/.snapshots" >/dev/null || exit 1
		cat "$DIR"/.snapshots/latest/before-* >/dev/null || exit 1
		find "$DIR/.snapshots/latest/" -name 'w*' -exec cat {} + >/dev/null 2>&1
	done
	exit 0
)
writers=()
for n in 1 2 3; do
	writer $n &
	writers+=($!)
done
y sync "$DIR" >/dev/null || fail "sync"
reader &
reader=$!
for _ in $(seq 12); do
	y sync "$DIR" >/dev/null || fail "sync under load"
	y status "$DIR" --json >/dev/null || fail "status"
done
for pid in "${writers[@]}"; do
	wait "$pid" || fail "a writer failed"
done
wait "$reader" || fail "the reader failed"
y sync "$DIR" >/dev/null || fail "the last sync"
diff -r "$DIR" "$DIR/.snapshots/latest" || fail "the newest version differs from the tree"
no_races

# Modes of I/O that change, files that are suspect.
mkdir "$DIR/open"
"$YESTER_BUILD/lib/open_stress" -t 5 -r -w "$DIR/open" >"$TEST_TMP/stress.log" 2>&1 &
stress=$!
while kill -0 $stress 2>/dev/null; do
	y sync "$DIR" >/dev/null || fail "sync beside opens of every kind"
done
wait $stress || fail "open_stress: $(tail -n 30 "$TEST_TMP/stress.log")"
y sync "$DIR" >/dev/null || fail "sync after opens of every kind"
diff -r "$DIR/open" "$DIR/.snapshots/latest/open" || fail "the newest version differs from the tree after opens of every kind"
no_races

# An unclean end, a rescan beside work, a clean end.
echo more >"$DIR/more"
kill_daemon "$DIR"
mount_volume "$DIR"
writer 4
y sync "$DIR" >/dev/null || fail "sync after the kill"
diff -r "$DIR" "$DIR/.snapshots/latest" || fail "the newest version differs from the tree after the kill"
umount_volume "$DIR"
no_races

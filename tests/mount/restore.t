#!/bin/bash
# yester restore: files, directories, links, what was deleted; mounted, unmounted, mounted elsewhere; --to; undo; and PATH is at every moment either
# the old or the new one, whole.
# timeout: 300

. tests/lib/lib.sh
need_mount
new_volume v
tree() { # everything that restore has to bring back
	(cd "$1" && find . -mindepth 1 -not -path './.yester-restore-*' -printf '%P %y %m %U:%G %T@ %l\n' -type f -exec sha256sum {} \; | sort)
	(cd "$1" && getfattr -h -d -m - -R . 2>/dev/null | sort)
}
version() { # INDEX: name of a version; 0 is the oldest, -1 the newest
	local names=("$DIR"/.snapshots/*)
	echo "${names[$1]##*/}"
}

mkdir -p "$DIR/project/src" "$DIR/other"
head -c 3000000 /dev/urandom >"$DIR/project/src/big"
truncate -s 5M "$DIR/project/sparse"
printf 'end' >>"$DIR/project/sparse"
echo one >"$DIR/file"
ln -s file "$DIR/link"
ln -s nowhere "$DIR/project/dangling"
ln "$DIR/project/src/big" "$DIR/project/hard"
mkfifo "$DIR/project/fifo"
printf 'x' >"$DIR/project/$(printf 'odd\nname\xff')"
chmod 4711 "$DIR/project/src/big"
chown 1234:2345 "$DIR/project/sparse"
setfattr -n user.color -v blue "$DIR/project/src/big"
touch -d '1969-07-20 20:17:40 UTC' "$DIR/project/src"
mount_volume "$DIR"
expect 0 sync "$DIR"
first=$(version 0)
want=$(tree "$DIR/project")

# ---- a file, and back
echo two >"$DIR/file"
expect 0 restore "$DIR/file" --at "$first"
[ "$(cat "$DIR/file")" = one ] || fail "file: $(cat "$DIR/file")"
undo=$(sed -n 's/^Undo:  yester //p' <<<"$OUT")
[ -n "$undo" ] || fail "no undo: $OUT"
eval "expect 0 $undo"
[ "$(cat "$DIR/file")" = two ] || fail "undo: $(cat "$DIR/file")"

# ---- a file that is gone; one that was not there then
rm "$DIR/file"
expect 0 restore "$DIR/file" --at "$first"
[ "$(cat "$DIR/file")" = one ] || fail "deleted file: $(cat "$DIR/file")"
echo new >"$DIR/new"
expect 0 sync "$DIR"
rm "$DIR/new"
expect_line 1 'did not exist at .*the nearest version that has it is --at 2' restore "$DIR/new" --at "$first"
eval "expect 0 restore $(printf %q "$DIR/new") ${ERR##*has it is }"
[ "$(cat "$DIR/new")" = new ] || fail "nearest version: $(cat "$DIR/new")"

# ---- a link itself, not what it points to
rm "$DIR/link"
echo regular >"$DIR/link"
expect 0 restore "$DIR/link" --at "$first"
[ "$(readlink "$DIR/link")" = file ] || fail "link"
ln -sfn other "$DIR/link"
expect 0 restore "$DIR/link" --at "$first"
[ "$(readlink "$DIR/link")" = file ] || fail "link over link"

# ---- a directory: changed, gone, a file in its place
echo more >"$DIR/project/src/more"
rm "$DIR/project/hard" "$DIR/project/dangling"
expect 0 restore "$DIR/project/" --at "$first"
[ "$(tree "$DIR/project")" = "$want" ] || fail "directory: $(diff <(tree "$DIR/project") <(echo "$want"))"
[ "$(stat -c %i "$DIR/project/hard")" = "$(stat -c %i "$DIR/project/src/big")" ] || fail "hard link"
rm -r "$DIR/project"
(cd "$DIR" && expect 0 restore project --at "$first") || exit 1
[ "$(tree "$DIR/project")" = "$want" ] || fail "deleted directory"
rm -r "$DIR/project"
echo >"$DIR/project"
expect 0 restore "$DIR/project" --at "$first"
[ "$(tree "$DIR/project")" = "$want" ] || fail "directory over a file"

# ---- elsewhere
expect 0 restore "$DIR/project" --at "$first" --to "$TEST_TMP/copy"
[ "$(tree "$TEST_TMP/copy")" = "$want" ] || fail "--to"
mkdir "$TEST_TMP/into"
expect 0 restore "$DIR/project" --at "$first" --to "$TEST_TMP/into"
[ "$(tree "$TEST_TMP/into/project")" = "$want" ] || fail "--to an existing directory"
expect 0 restore "$DIR" --at "$first" --to "$TEST_TMP/whole"
[ "$(cat "$TEST_TMP/whole/file")" = one ] || fail "--to of the whole volume"
expect_line 1 'directory is not there any more' restore "$DIR/nix/file" --at "$first"

# ---- all or nothing, seen by a reader that never stops
echo a >"$DIR/flip"
expect 0 sync "$DIR"
a=$(version -1)
echo b >"$DIR/flip"
: >"$TEST_TMP/run"
(
	while [ -e "$TEST_TMP/run" ]; do
		content=$(cat "$DIR/flip" 2>&1) || { echo "unreadable: $content"; break; }
		case $content in
		a | b) ;;
		*) echo "saw $content" && break ;;
		esac
	done
) >"$TEST_TMP/seen" &
reader=$!
for _ in 1 2 3 4 5; do
	expect 0 restore "$DIR/flip" --at "$a"
	echo b >"$TEST_TMP/b" && mv "$TEST_TMP/b" "$DIR/.b" && mv "$DIR/.b" "$DIR/flip"
done
rm "$TEST_TMP/run"
wait $reader
[ ! -s "$TEST_TMP/seen" ] || fail "not atomic: $(cat "$TEST_TMP/seen")"
[ -z "$(find "$DIR" -name '.yester-restore-*')" ] || fail "left behind: $(find "$DIR" -name '.yester-restore-*')"

# ---- the volume itself
whole() {
	tree "$DIR" | grep -av '^flip '
}
cd "$DIR" || fail "cd"
chmod 2751 .
setfattr -n user.root -v yes .
cd - >/dev/null || fail "cd"
expect 0 sync "$DIR"
now=$(version -1)
before=$(whole)
rm -r "$DIR/project/src"
echo other >"$DIR/file"
mv "$DIR/link" "$DIR/renamed"
mkdir "$DIR/fresh"
chmod 00755 "$DIR"
setfattr -x user.root "$DIR"
expect 0 restore "$DIR" --at "$now"
[ "$(whole)" = "$before" ] || fail "the volume itself: $(diff <(whole) <(echo "$before"))"
[ "$(stat -c %a "$DIR")" = 2751 ] || fail "mode of the root: $(stat -c %a "$DIR")"
[ "$(getfattr --only-values -n user.root "$DIR" 2>/dev/null)" = yes ] || fail "xattr of the root"
undo=$(sed -n 's/^Undo:  yester //p' <<<"$OUT")
eval "expect 0 $undo"
if [ "$(cat "$DIR/file")" != other ] || [ ! -d "$DIR/fresh" ] || [ ! -L "$DIR/renamed" ] || [ -e "$DIR/link" ]; then
	fail "undo of the whole"
fi
[ "$(stat -c %a "$DIR")" = 755 ] || fail "mode of the root after undo"
expect 0 restore "$DIR" --at "$now"
[ -z "$(find "$DIR" -name '.yester-restore-*')" ] || fail "left behind: $(find "$DIR" -name '.yester-restore-*')"

# ---- unmounted
umount_volume "$DIR" || fail "umount"
rm -r "$DIR/project"
echo three >"$DIR/file"
expect 0 restore "$DIR/project" --at "$first"
[ "$(tree "$DIR/project")" = "$want" ] || fail "unmounted"
expect 0 restore "$DIR/file" --at "$first"
[ "$(cat "$DIR/file")" = one ] || fail "unmounted file"
undo=$(sed -n 's/^Undo:  yester //p' <<<"$OUT")
eval "expect 0 $undo"
[ "$(cat "$DIR/file")" = three ] || fail "unmounted undo: the edit was not recorded first"

# ---- mounted elsewhere: by either path the change goes through the mount
mkdir "$TEST_TMP/mnt"
mount_volume "$DIR" "$TEST_TMP/mnt"
for path in "$TEST_TMP/mnt/file" "$DIR/file"; do
	echo four >"$TEST_TMP/mnt/file"
	expect 0 restore "$path" --at "$first"
	[ "$(cat "$TEST_TMP/mnt/file")" = one ] || fail "mounted elsewhere, $path"
done
umount_volume "$DIR" || fail "umount"

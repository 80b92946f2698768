#!/bin/bash
# The first of README's two commands, scripts/quickstart DIR: from a checkout to a mounted volume, asking nothing; what it prints to try works; a second
# run finds everything done. In a mount namespace with /usr/local, /var/lib and the helpers of mount(8) of our own.
# timeout: 200

if [ "${1-}" != inside ]; then
	exec unshare -m --propagation private "$0" inside
fi
. tests/lib/lib.sh
need_mount
umount -l -a -i -t fuse.yester # our copies of other tests' mounts, which would outlive these
# As long as root may mount.
helpers=$(readlink -f /sbin)
mkdir -p "$TEST_TMP"/{local,helpers,originals} "$TEST_TMP/lib/dpkg"
for pair in "local /usr/local" "/var/lib/dpkg lib/dpkg" "lib /var/lib" "$helpers originals"; do
	read -r from to <<<"$pair"
	(cd "$TEST_TMP" && mount --rbind "$from" "$to") || fail "no $to of our own"
done
for file in "$TEST_TMP"/originals/*; do
	[[ $file = */mount*.yester ]] || ln -s "$file" "$TEST_TMP/helpers/"
done
mount --bind "$TEST_TMP/helpers" "$helpers" || fail "no helpers of our own"
export PATH=/usr/local/bin:$PATH
hash -r

quickstart() { # CODE WORDS...
	local want=$1 code=0
	shift
	timeout -k 5 150 scripts/quickstart "$@" >"$TEST_TMP/out" 2>&1 </dev/null || code=$?
	[ $code -eq "$want" ] || fail "quickstart $*: exit code $code"$'\n'"$(cat "$TEST_TMP/out")"
}

quickstart 2
quickstart 2 --help
: >"$TEST_TMP/file"
quickstart 1 "$TEST_TMP/file"

dir="$TEST_TMP/My Docs"
mkdir "$dir"
echo 'was here' >"$dir/before"
at_end "umount -l $(printf %q "$dir") 2>/dev/null"
quickstart 0 "$dir"
grep -q 'Recovery key, shown this once' "$TEST_TMP/out" || fail "no recovery key: $(cat "$TEST_TMP/out")"
[ "$(status_field "$dir" mountpoint)" = "$dir" ] || fail "it is not mounted"
[ "$(status_field "$dir" volume)" = my-docs ] || fail "the volume's name"
[ "$(command -v yester)" = /usr/local/bin/yester ] || fail "it is not installed"
[ "$(cat "$dir/.snapshots/latest/before")" = 'was here' ] || fail "what was there is in no version"

# What it says to try.
sed -n '/Try:$/,/^To mount it/p' "$TEST_TMP/out" | sed '1d;$d' >"$TEST_TMP/try"
[ "$(grep -c . "$TEST_TMP/try")" -ge 5 ] || fail "what is there to try? $(cat "$TEST_TMP/out")"
bash -eo pipefail "$TEST_TMP/try" >"$TEST_TMP/tried" 2>&1 || fail "what it says to try fails: $(cat "$TEST_TMP/tried")"
[ "$(cat "$dir/note.txt")" = one ] || fail "after the restore, note.txt is $(cat "$dir/note.txt")"
for line in one two; do
	grep -qx "$line" "$TEST_TMP/tried" || fail "head does not show the version with $line: $(cat "$TEST_TMP/tried")"
done

# Again: nothing to do. And the line for fstab.
quickstart 0 "$dir"
for words in 'is a volume already' 'is mounted already'; do
	grep -q "$words" "$TEST_TMP/out" || fail "the second run: $(cat "$TEST_TMP/out")"
done
grep 'fuse\.yester' "$TEST_TMP/out" >"$TEST_TMP/fstab"
expect 0 umount "$dir"
mount -T "$TEST_TMP/fstab" "$dir" || fail "mount by $(cat "$TEST_TMP/fstab")"
[ "$(cat "$dir/note.txt")" = one ] || fail "after the mount by fstab"
umount "$dir" || fail "umount(8)"

# A second directory of that name.
mkdir -p "$TEST_TMP/other"
other="$TEST_TMP/other/my docs"
at_end "umount -l $(printf %q "$other") 2>/dev/null"
quickstart 0 "$other"
[ "$(status_field "$other" volume)" = my-docs-2 ] || fail "the second volume's name"
expect 0 umount "$other"

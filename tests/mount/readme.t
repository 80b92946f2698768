#!/bin/bash
# The session that README.md shows is what happens: its commands are run, in order, in a directory of their own, and what they print is compared with what
# stands there, but for times, ids and keys. SHOW=1 prints the session as it is now.
# timeout: 120

. tests/lib/lib.sh
need_mount
unset YESTER_CONFIG_DIR YESTER_STATE_DIR
mkdir -p "$TEST_TMP/bin" "$TEST_TMP/usb"
ln -s "$YESTER" "$TEST_TMP/bin/yester"
# Places of the README, and where they are here.
places=(/data /usb /etc/yester /var/lib/yester /root)
there() {
	local text=$1 place
	for place in "${places[@]}"; do
		text=${text//"$place"/"$TEST_TMP$place"}
	done
	printf '%s' "$text"
}
back() {
	sed "s#$TEST_TMP##g"
}
# What differs from run to run.
normal() {
	sed -E -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}Z/VERSION/g' \
		-e 's/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC( \([^)]*\))?/TIME/g' \
		-e 's/([A-Z2-7]{5}-){7}[A-Z2-7]{5}/RECOVERY-KEY/g' -e 's/\b[0-9a-f]{32}\b/ID/g' -e 's/[0-9.]+ [KMG]?i?B sent/SIZE sent/' \
		-e 's/version [0-9]+/version N/g'
}

# shellcheck disable=SC2016 # the marks of Markdown
sed -n '/^```console$/,/^```$/p' README.md | grep -v '^```' >"$TEST_TMP/wanted"
grep -q '^# yester mount' "$TEST_TMP/wanted" || fail "README.md shows no session"
export PATH=$TEST_TMP/bin:$PATH
export YESTER_CONFIG_DIR=$TEST_TMP/etc/yester YESTER_STATE_DIR=$TEST_TMP/var/lib/yester
mkdir -p "$TEST_TMP/root" "$TEST_TMP/var/lib"
at_end "force_umount $(printf %q "$TEST_TMP/data/docs")"

while IFS= read -r line; do
	[[ $line = '# '* ]] || continue
	command=${line#\# }
	# The key that init printed is what a person types.
	key=$(grep -ohE '([A-Z2-7]{5}-){7}[A-Z2-7]{5}' "$TEST_TMP/got" 2>/dev/null | head -n 1)
	run=$(there "$command")
	[ -z "$key" ] || run=$(sed -E "s/([A-Z2-7]{5}-){7}[A-Z2-7]{5}/$key/" <<<"$run")
	echo "$line" >>"$TEST_TMP/got"
	bash -c "cd $(printf %q "$TEST_TMP") && $run" </dev/null >"$TEST_TMP/part" 2>&1 || fail "$command: $(cat "$TEST_TMP/part")"
	back <"$TEST_TMP/part" >>"$TEST_TMP/got"
done <"$TEST_TMP/wanted"

[ -z "${SHOW-}" ] || cat "$TEST_TMP/got"
diff -u <(grep -v '^$' "$TEST_TMP/wanted" | normal) <(grep -v '^$' "$TEST_TMP/got" | normal) || fail "the session in README.md is not what happens"

# Files that the README names are there.
grep -oE '\]\([^)#:]+\)' README.md | tr -d '])(' | while read -r file; do
	[ -e "$file" ] || fail "README.md names $file, which does not exist"
done || exit 1

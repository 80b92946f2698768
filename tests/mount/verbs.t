#!/bin/bash
# status, sync, check, clone as a script uses them: JSON fields, exit codes, several volumes, what the completion offers, and that no secret appears anywhere.
# timeout: 300

. tests/lib/lib.sh
need_mount

# ---- status: nothing, one, several
expect 0 status
[[ $OUT = "No volume yet"* ]] || fail "status without a volume: $OUT"
expect 0 status --json
[ "$OUT" = "[]" ] || fail "status --json without a volume: $OUT"

new_volume a
A=$DIR A_STORE=$STORE
echo one >"$A/file"
expect 0 status "$A"
[[ $OUT = *unmounted*"nothing yet"* ]] || fail "status of a new volume: $OUT"
[ "$(status_field "$A" safe_until)" = null ] || fail "safe_until of a new volume"

fields() {
	y status "$1" --json | python3 -c '
import json, sys
status = json.load(sys.stdin)
for name in """schema volume directory mountpoint remote mounted state version safe_until pending_bytes pending_files oldest_pending_seconds
    spool_bytes uploaded_bytes requests features last_error""".split():
    assert name in status, name
assert sorted(status["requests"]) == sorted(["put", "get", "list", "delete", "head"]), status["requests"]
assert sorted(status["features"]) == sorted(["passthrough", "io_uring", "libfuse"]), status["features"]
states = "synced syncing scanning offline degraded fenced unmounted".split()
assert status["state"] in states, status["state"]
' || fail "status --json of $1"
}
fields "$A"
mount_volume "$A"
fields "$A"
expect 0 sync "$A"
wait_for 30 state_is "$A" synced || fail "not synced: $(y status "$A")"
[ "$(status_field "$A" mounted)" = true ] || fail "mounted"
[ "$(status_field "$A" mountpoint)" = "$A" ] || fail "mountpoint"
[ "$(status_field "$A" pending_bytes)" = 0 ] || fail "pending_bytes"
[ "$(status_field "$A/." volume)" = a ] || fail "status by another path"

new_volume b --no-encryption
B=$DIR B_STORE=$STORE
grep -q 'encrypted    nothing' "$TEST_TMP/b.init" || fail "init --no-encryption says: $(cat "$TEST_TMP/b.init")"
echo two >"$B/file"
expect 0 sync "$B" --timeout 60s
[[ $OUT = *"version "*" is in file://$B_STORE"* ]] || fail "sync: $OUT"
expect 0 status
[[ $OUT = *"$A: synced"*"$B: unmounted"* ]] || fail "status of two: $OUT"
expect 0 status --json
python3 -c 'import json, sys; a, b = json.loads(sys.argv[1]); assert a["mounted"] and not b["mounted"]' "$OUT" || fail "status --json of two: $OUT"
rm -r "$YESTER_STATE_DIR/b"
expect 1 status
[[ $OUT = *"$A: synced"* && $ERR = *"$B"* ]] || fail "one bad volume hides the other: $OUT $ERR"
expect 0 sync "$B"

# One line a second, each a whole object; ends with its reader.
lines=$(head -n 2 < <(timeout 20 "$YESTER" status "$A" --json --watch))
[ "$(wc -l <<<"$lines")" -eq 2 ] || fail "status --watch: $lines"
python3 -c 'import json, sys; [json.loads(line) for line in sys.argv[1].splitlines()]' "$lines" || fail "status --json --watch: $lines"

# ---- sync: nothing to do is quick, and changes nothing
objects=$(find "$A_STORE" -type f | sort)
expect 0 sync "$A"
[ "$(find "$A_STORE" -type f | sort)" = "$objects" ] || fail "a sync without a change made objects"
echo more >>"$A/file"
expect 0 sync "$A" --timeout 0
[[ $OUT = *"on its way"* ]] || fail "sync --timeout 0: $OUT"
expect 0 sync "$A"

# ---- check
expect 0 check "$A"
[[ $OUT = *"no damage"* ]] || fail "check: $OUT"
expect 0 check "file://$A_STORE" --key-file "$YESTER_CONFIG_DIR/a.key" --read-data=50
umount_volume "$A" || fail "umount"
expect 0 check "$A" --read-data
largest=$(find "$A_STORE/log" -type f -printf '%s %p\n' | sort -n | tail -n 1)
largest=${largest#* }
cp "$largest" "$TEST_TMP/intact"
python3 - "$largest" <<'PY'
import os, sys
path = sys.argv[1]
os.chmod(path, 0o600)
with open(path, "r+b") as file:
    file.seek(-40, 2)
    byte = file.read(1)
    file.seek(-40, 2)
    file.write(bytes([byte[0] ^ 1]))
PY
expect 5 check "$A" --read-data
[[ $OUT$ERR = *"${largest#"$A_STORE/"}"* ]] || fail "check does not name the damaged object: $OUT $ERR"
cp "$TEST_TMP/intact" "$largest"
expect 0 check "$A" --read-data

# ---- clone: another machine, with each kind of secret; the newest version and an older one
recovery=$(grep -oE '([A-Z2-7]{5}-){7}[A-Z2-7]{5}' "$TEST_TMP/a.init")
(umask 077 && echo "$recovery" >"$TEST_TMP/recovery")
key=$YESTER_CONFIG_DIR/a.key
export YESTER_CONFIG_DIR=$TEST_TMP/config2 YESTER_STATE_DIR=$TEST_TMP/state2
expect 0 clone "file://$A_STORE" "$TEST_TMP/clone1" --key-file "$key"
diff -r "$A" "$TEST_TMP/clone1" || fail "clone with the key file"
[ -f "$YESTER_CONFIG_DIR/clone1.key" ] || fail "the clone has no key file of its own"
expect 0 clone "file://$A_STORE/" "$TEST_TMP/clone2" --recovery-key-file "$TEST_TMP/recovery" --name second
diff -r "$A" "$TEST_TMP/clone2" || fail "clone with the recovery key"
[ -f "$YESTER_CONFIG_DIR/second.conf" ] || fail "clone --name"
mount_volume "$TEST_TMP/clone2"
oldest=("$TEST_TMP"/clone2/.snapshots/*)
expect 0 clone "file://$A_STORE" "$TEST_TMP/clone3" --key-file "$key" --at "${oldest[0]##*/}"
[ "$(cat "$TEST_TMP/clone3/file")" = one ] || fail "clone --at: $(cat "$TEST_TMP/clone3/file")"
expect 0 sync "$TEST_TMP/clone2"
umount_volume "$TEST_TMP/clone2" || fail "umount of the clone"
expect 0 clone "file://$B_STORE" "$TEST_TMP/clone4"
diff -r "$B" "$TEST_TMP/clone4" || fail "clone without encryption"
# The first machine is fenced from here on.
export YESTER_CONFIG_DIR=$TEST_TMP/config YESTER_STATE_DIR=$TEST_TMP/state
echo late >"$A/late"
expect_line 6 'take_over' sync "$A"

# ---- secrets: nowhere but in their files
text=$(cat "$key")
for secret in "$recovery" "$text"; do
	found=$(grep -rlF -- "$secret" "$TEST_TMP" --exclude-dir=store 2>/dev/null | grep -vE '/(recovery|a\.init|a\.key|clone1\.key|clone3\.key)$')
	[ -z "$found" ] || fail "a secret stands in: $found"
done
[ -z "$(find "$TEST_TMP/config" "$TEST_TMP/config2" "$TEST_TMP/state" "$TEST_TMP/state2" -perm /077 -not -type s -not -type l)" ] ||
	fail "open to others: $(find "$TEST_TMP/config" "$TEST_TMP/config2" "$TEST_TMP/state" "$TEST_TMP/state2" -perm /077)"

# ---- completion
# shellcheck disable=SC1091
. scripts/completions/yester.bash
completions() {
	COMP_WORDS=(yester "$@") COMP_CWORD=$#
	_yester 2>/dev/null
	echo " ${COMPREPLY[*]} "
}
[[ $(completions re) = " restore " ]] || fail "completion of re: $(completions re)"
[[ $(completions sync "") = *" $A "* ]] || fail "completion of volumes: $(completions sync "")"
[[ $(completions init --n) = " --name --no-encryption " ]] || fail "completion of options: $(completions init --n)"
for verb in init mount umount status sync restore clone check; do
	for option in $(_yester_options $verb); do
		[ "$option" = --help ] || [[ $option = *= ]] || y $verb --help | grep -qF -- "$option" ||
			[[ $option = --foreground || $option = --options ]] || fail "completion offers $verb $option, its help does not"
	done
done

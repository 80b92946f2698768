# shellcheck shell=bash
# lib: what scripts of tests/ share. Sourced with bash from the top directory, where tests/run starts them:
#
#	. tests/lib/lib.sh
#	need_mount
#	new_volume docs              # $DIR, on a store of files $STORE
#	mount_volume "$DIR"
#	echo hello >"$DIR/file"
#	y sync "$DIR" || fail "sync"
#	umount_volume "$DIR"
#
# Everything lies in $TEST_TMP. What was mounted and started here is unmounted and ended when the script ends, however it ends; the scripts may add
# to that with at_end. Nothing here sleeps: wait_for asks until there is an answer.

set -uo pipefail
: "${YESTER:?run this by tests/run}" "${TEST_TMP:?}"
export YESTER_CONFIG_DIR=$TEST_TMP/config YESTER_STATE_DIR=$TEST_TMP/state
export NO_COLOR=1 LC_ALL=C.UTF-8 TZ=UTC
unset YESTER_PASSPHRASE_FILE "${!AWS_@}" http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
# Nothing of the user's own S3 configuration.
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

fail() {
	local frame=0 where=
	while read -r line _ file < <(caller $frame); do
		where+=" ${file##*/}:$line"
		frame=$((frame + 1))
	done
	echo "FAIL: $*"
	echo "  at$where"
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

need_root() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
}

# Root, a kernel with FUSE, and a program.
need_mount() {
	need_root
	(: <>/dev/fuse) 2>/dev/null || skip "/dev/fuse can't be opened"
	[ -x "$YESTER" ] || fail "$YESTER is not built"
}

# ---- at the end

end_commands=()
# Adds a command (one word, evaluated) that runs when the script ends; the last one first.
at_end() {
	end_commands+=("$1")
}

# shellcheck disable=SC2317,SC2329 # the trap calls it
run_end() {
	local code=$? i
	trap - EXIT
	trap '' INT TERM
	for ((i = ${#end_commands[@]} - 1; i >= 0; i--)); do
		eval "${end_commands[i]}"
	done
	exit "$code"
}
trap run_end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# ---- waiting

pause() { # the blink between two looks of a polling loop
	read -r -t 0.03 <> <(:) || true
}

# wait_for SECONDS COMMAND...: runs the command until it succeeds; fails after the time.
wait_for() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || return 1
		pause
	done
}

# ---- running yester

# Every call ends: a test that hangs says nothing.
y() {
	timeout -k 5 "${Y_TIMEOUT:-120}" "$YESTER" "$@"
}

# expect CODE WORDS...: runs yester WORDS; output in $OUT, errors in $ERR; fails on another exit code.
expect() {
	local want=$1 code=0
	shift
	y "$@" >"$TEST_TMP/out" 2>"$TEST_TMP/err" </dev/null || code=$?
	OUT=$(cat "$TEST_TMP/out") ERR=$(cat "$TEST_TMP/err")
	[ "$code" -eq "$want" ] || fail "yester $*: exit code $code instead of $want"$'\n'"$OUT"$'\n'"$ERR"
}

# expect_line CODE PATTERN WORDS...: the same, and stderr is one line `yester: ...` that matches the extended pattern.
expect_line() {
	local want=$1 pattern=$2
	shift 2
	expect "$want" "$@"
	[ "$(wc -l <"$TEST_TMP/err")" -eq 1 ] || fail "yester $*: not one line of error:"$'\n'"$ERR"
	[[ $ERR = "yester: "* ]] || fail "yester $*: the error does not begin with yester: $ERR"
	grep -qE -- "$pattern" <<<"$ERR" || fail "yester $*: the error does not match $pattern: $ERR"
}

# status_field DIR FIELD[.FIELD]: one value of status --json.
status_field() {
	y status "$1" --json | python3 -c '
import json, sys
value = json.load(sys.stdin)
if isinstance(value, list): value = value[0]
for name in sys.argv[1].split("."): value = value[name]
print("null" if value is None else str(value).lower() if isinstance(value, bool) else value)' "$2"
}

state_is() { # DIR STATE
	[ "$(status_field "$1" state)" = "$2" ]
}

# ---- volumes

# new_volume NAME [INIT OPTIONS...]: makes $DIR = $TEST_TMP/NAME and a volume for it on the store $STORE; init's output is in $TEST_TMP/NAME.init.
new_volume() {
	local name=$1
	shift
	DIR=$TEST_TMP/$name
	STORE=$TEST_TMP/store/$name
	mkdir -p "$DIR" "$TEST_TMP/store"
	y init "$DIR" "${REMOTE:-file://$STORE}" --name "$name" "$@" >"$TEST_TMP/$name.init" 2>&1 </dev/null ||
		fail "init $name: $(cat "$TEST_TMP/$name.init")"
}

volume_name() { # DIR: from its config file
	local file
	for file in "$YESTER_CONFIG_DIR"/*.conf; do
		grep -qxF "directory = $1" "$file" || continue
		file=${file##*/}
		echo "${file%.conf}"
		return
	done
	return 1
}

# The process that holds a volume's lock, if one does.
daemon_pid() { # DIR
	local lock pid
	lock=$YESTER_STATE_DIR/$(volume_name "$1")/lock
	[ -e "$lock" ] || return 1
	flock -n "$lock" true && return 1
	read -r pid <"$lock" && [ -n "$pid" ] && echo "$pid"
}

is_mounted() { # PLACE; also when its daemon is dead
	awk -v place="$1" '$5 == place { found = 1 } END { exit !found }' /proc/self/mountinfo
}

is_unlocked() {
	! daemon_pid "$1" >/dev/null
}

# mount_volume DIR [WORDS...]: as `yester mount` does it.
mount_volume() {
	at_end "force_umount $(printf %q "$1") $(printf %q "${2-}")"
	y mount "$@" </dev/null || fail "mount $*"
}

# mount_logged DIR [WORDS...]: in the foreground behind our back, its messages in $TEST_TMP/daemon.log.
mount_logged() {
	local dir=$1 place=$1
	[[ ${2-} = /* ]] && place=$2
	at_end "force_umount $(printf %q "$dir") $(printf %q "$place")"
	"$YESTER" mount "$@" -f </dev/null >>"$TEST_TMP/daemon.log" 2>&1 &
	wait_for 30 is_mounted "$place" || fail "mount $*: $(cat "$TEST_TMP/daemon.log")"
}

# Unmounts and waits until the daemon has gone; yester's exit code.
umount_volume() { # DIR [WORDS...]
	local code=0
	y umount "$@" </dev/null || code=$?
	wait_for 30 is_unlocked "$1" || fail "umount $*: the daemon does not end"
	return $code
}

# As a crash: SIGKILL to the daemon, and its dead mount removed.
kill_daemon() { # DIR [MOUNTPOINT]
	local pid
	pid=$(daemon_pid "$1") || fail "kill_daemon $1: no daemon"
	kill -KILL "$pid"
	wait_for 30 is_unlocked "$1" || fail "kill_daemon $1: it does not end"
	umount -l "${2:-$1}" || fail "kill_daemon $1: umount -l"
}

force_umount() { # DIR [MOUNTPOINT]: whatever state it is in
	local place=$1 pid
	[[ ${2-} = /* ]] && place=$2
	pid=$(daemon_pid "$1")
	while is_mounted "$place"; do
		umount -l "$place" 2>/dev/null || break
	done
	[ -n "$pid" ] || return 0
	wait_for 10 is_unlocked "$1" || kill -KILL "$pid" 2>/dev/null
	wait_for 10 is_unlocked "$1"
}

# ---- a real S3 server

# start_gateway: sets the AWS_ variables; a bucket is made with gateway_bucket.
start_gateway() {
	local code=0
	GATEWAY=$TEST_TMP/gw
	tests/lib/gateway start "$GATEWAY" || code=$?
	[ $code -ne 77 ] || skip "no Ceph here"
	[ $code -eq 0 ] || fail "the gateway does not start"
	at_end "tests/lib/gateway stop $(printf %q "$GATEWAY")"
	# shellcheck disable=SC1091
	. "$GATEWAY/env"
}

gateway_bucket() { # NAME
	tests/lib/s3curl.py make-bucket "$1" || fail "cannot make the bucket $1"
}

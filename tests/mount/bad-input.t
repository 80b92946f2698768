#!/bin/bash
# Each bad input gets one clear line `yester: what: why; what to do` and the right exit code, and changes nothing.
# timeout: 300

. tests/lib/lib.sh
need_mount
S=file://$TEST_TMP/store
mkdir -p "$TEST_TMP/store" "$TEST_TMP/plain"

# ---- words
expect_line 2 'nit: there is no such verb; the nearest is init' nit
expect_line 2 'there is no such option; the nearest is --name' init a b --nam x
expect_line 2 'value is missing' init a b --name
expect_line 2 'wants DIR REMOTE; see yester init --help' init
expect_line 2 'one word too many' sync a b
expect_line 2 'takes no value' status --json=1
expect_line 2 '--timeout soon: that is no time; write it as' sync "$TEST_TMP/plain" --timeout soon
expect_line 2 '--at TIME is missing' restore "$TEST_TMP/plain"
expect_line 2 'percentage from 1 to 100' check "$TEST_TMP/plain" --read-data=200
expect_line 2 'exclude each other' check "$S/x" --key-file a --passphrase-file b
expect_line 2 'exclude each other' init "$TEST_TMP/plain" "$S/x" --no-encryption --passphrase-file b
for verb in init mount umount status sync restore clone check; do
	expect 0 $verb --help
	[[ $OUT = "usage: yester $verb "* ]] || fail "$verb --help: $OUT"
	expect 0 help $verb
done
expect 0 --help
expect 0 --version
[[ $OUT = "yester "[0-9]* ]] || fail "--version: $OUT"
code=0
"$YESTER" >"$TEST_TMP/out" 2>&1 || code=$?
[ $code -eq 2 ] || fail "no words: exit code $code"

# Output that can't be written is no success.
if [ -c /dev/full ]; then
	code=0
	"$YESTER" --help >/dev/full 2>"$TEST_TMP/err" || code=$?
	[ $code -eq 1 ] || fail "--help >/dev/full: exit code $code"
fi

# ---- places for init
expect_line 1 'there is no such directory; make it' init "$TEST_TMP/absent" "$S/x"
: >"$TEST_TMP/file"
expect_line 2 'is not a directory' init "$TEST_TMP/file" "$S/x"
expect_line 2 'the remote would lie in it' init "$TEST_TMP/plain" "file://$TEST_TMP/plain/store"
expect_line 2 'the config directory would lie in it|the state directory would lie in it' init "$TEST_TMP" "file:///nowhere/x"
mkdir -p "$TEST_TMP/real/.snapshots"
expect_line 2 'real one, which would hide the history; rename it' init "$TEST_TMP/real" "$S/x"
for name in $'new\nline' 'blank '; do
	mkdir "$TEST_TMP/$name"
	expect_line 2 "can't stand in a config; rename it" init "$TEST_TMP/$name" "$S/x"
done
[ ! -e "$TEST_TMP/store/x" ] || fail "a refused init made the store"
expect_line 2 'no files to keep; choose another' init /proc "$S/x"
expect_line 2 '--name A/B: a name has' init "$TEST_TMP/plain" "$S/x" --name A/B

# ---- remotes
for remote in nonsense ftp://host/x s3:// s3://bucket s3://b/x s3://bucket/../x file://relative/x file:///a/../b 's3://bucket/with blank'; do
	expect_line 2 'write it as s3://BUCKET/PREFIX or file:///PATH' init "$TEST_TMP/plain" "$remote"
	[[ $ERR = "yester: remote $remote: "* ]] || fail "the message is about another remote: $ERR"
done

# An endpoint where nobody listens: a free port of this moment.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(
	export AWS_ACCESS_KEY_ID=nobody AWS_SECRET_ACCESS_KEY=nothing AWS_ENDPOINT_URL=http://127.0.0.1:$port
	expect_line 1 "127\.0\.0\.1 port $port .*; check the network" init "$TEST_TMP/plain" s3://bucket/x
	unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
	expect_line 1 'AWS_ACCESS_KEY_ID' init "$TEST_TMP/plain" s3://bucket/x
	export AWS_ENDPOINT_URL=http://192.0.2.1:$port
	expect_line 2 'https.*--allow-http' init "$TEST_TMP/plain" s3://bucket/x
	unset AWS_ENDPOINT_URL
	export AWS_ACCESS_KEY_ID=nobody AWS_SECRET_ACCESS_KEY=nothing
	# No loopback address by its looks, but one.
	expect_line 2 'https.*--allow-http' init "$TEST_TMP/plain" s3://bucket/x --endpoint "http://0.0.0.0:$port"
	expect_line 1 "0\.0\.0\.0 port $port .*; check the network" init "$TEST_TMP/plain" s3://bucket/x --endpoint "http://0.0.0.0:$port" --allow-http
) || exit 1
expect_line 2 'endpoint = ftp://x: it must begin with https' init "$TEST_TMP/plain" s3://bucket/x --endpoint ftp://x
expect_line 2 'addressing = up: it must be one of: auto path virtual' init "$TEST_TMP/plain" s3://bucket/x --addressing up
expect_line 2 '--ca-file .*/none: there is no such file' init "$TEST_TMP/plain" s3://bucket/x --ca-file "$TEST_TMP/none"
expect_line 2 'region = : the value is missing' clone s3://bucket/x "$TEST_TMP/clone" --region=
expect_line 2 '--region: it is for a remote s3://.*; leave it out' init "$TEST_TMP/plain" "$S/x" --region eu
# Nothing stayed behind of all this.
[ -z "$(ls "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR" 2>/dev/null)" ] || fail "left behind: $(ls -R "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR")"
[ -z "$(ls -A "$TEST_TMP/plain")" ] || fail "init wrote into the directory"

# ---- secrets
echo secret >"$TEST_TMP/pass"
chmod 644 "$TEST_TMP/pass"
expect_line 2 'chmod 600' init "$TEST_TMP/plain" "$S/x" --passphrase-file "$TEST_TMP/pass"
chmod 600 "$TEST_TMP/pass"
: >"$TEST_TMP/empty"
chmod 600 "$TEST_TMP/empty"
expect_line 3 '.' init "$TEST_TMP/plain" "$S/x" --passphrase-file "$TEST_TMP/empty"
expect_line 1 'no such file to unlock the volume with; bring it back' init "$TEST_TMP/plain" "$S/x" --passphrase-file "$TEST_TMP/absent"
expect_line 2 'is a directory; name the file' init "$TEST_TMP/plain" "$S/x" --passphrase-file "$TEST_TMP"

# ---- a volume
new_volume v --passphrase-file "$TEST_TMP/pass"
echo one >"$DIR/file"
expect_line 1 'a volume is already there; yester clone' init "$TEST_TMP/plain" "file://$STORE"
expect_line 1 'it is a volume already, v' init "$DIR" "$S/y"
mkdir "$DIR/sub"
expect_line 2 'lies in the volume v' init "$DIR/sub" "$S/y"
mkdir -p "$TEST_TMP/above/inner"
expect 0 init "$TEST_TMP/above/inner" "$S/inner"
expect_line 2 'volumes can.t be nested' init "$TEST_TMP/above" "$S/y"
expect_line 1 'there is a volume of that name|choose another --name' init "$TEST_TMP/plain" "$S/y" --name v
for verb in sync mount umount check; do
	expect_line 1 'not in a volume; make one with yester init' $verb "$TEST_TMP/plain"
done
expect_line 2 '--proxy: it is for a REMOTE; of a volume of this machine, change proxy in .*/v.conf' check "$DIR" --proxy http://127.0.0.1
expect_line 1 'not in a volume; make one with yester init' status "$TEST_TMP/plain"
expect_line 1 'not in a volume; make one with yester init' restore "$TEST_TMP/plain/x" --at latest
expect_line 1 'not mounted' umount "$DIR"
expect_line 2 'inside the volume v; mount' mount "$DIR/sub"
expect_line 1 'no version yet' restore "$DIR/file" --at latest --to "$TEST_TMP/restored"
expect_line 1 'no version yet; there is nothing to recover' clone "file://$STORE" "$TEST_TMP/clone" --passphrase-file "$TEST_TMP/pass"
expect 0 sync "$DIR"
expect_line 1 'the history begins later, at 2[-0-9T]+Z; choose' clone "file://$STORE" "$TEST_TMP/clone" --passphrase-file "$TEST_TMP/pass" --at 2001-01-01
expect_line 2 'that is no time; write it as 10m-ago' restore "$DIR/file" --at whenever
expect_line 2 'that is no time' restore "$DIR/file" --at 2026-02-30
expect_line 1 'history of the volume begins later' restore "$DIR/file" --at 2001-01-01
expect_line 1 'no version has it' restore "$DIR/nothing" --at latest
expect_line 1 'it is there already, and --to replaces nothing' restore "$DIR/file" --at latest --to "$TEST_TMP/file"
expect_line 1 'there is no such directory; make it, or choose another DEST' restore "$DIR/file" --at latest --to "$TEST_TMP/absent/file"
expect_line 2 'that is the past already' restore "$DIR/.snapshots/latest/file" --at latest
expect_line 1 'no version has it' restore "$DIR/sub/.snapshots-of-mine" --at latest

# ---- wrong secrets: 3, and nothing is written
echo wrong >"$TEST_TMP/wrong"
chmod 600 "$TEST_TMP/wrong"
before=$(find "$STORE" "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR" | sort)
expect_line 3 'wrong' clone "file://$STORE" "$TEST_TMP/clone" --passphrase-file "$TEST_TMP/wrong"
expect_line 3 'encrypted; give' clone "file://$STORE" "$TEST_TMP/clone"
expect_line 3 'encrypted; give' check "file://$STORE"
expect_line 3 'recovery key' clone "file://$STORE" "$TEST_TMP/clone" --recovery-key-file "$TEST_TMP/wrong"
chmod 644 "$TEST_TMP/wrong"
expect_line 2 'chmod 600' clone "file://$STORE" "$TEST_TMP/clone" --recovery-key-file "$TEST_TMP/wrong"
expect_line 1 'no such file to unlock the volume with; bring it back' clone "file://$STORE" "$TEST_TMP/clone" --key-file "$TEST_TMP/absent"
expect_line 1 'no such file; name the one' clone "file://$STORE" "$TEST_TMP/clone" --recovery-key-file "$TEST_TMP/absent"
[ ! -e "$TEST_TMP/clone" ] || fail "a refused clone made the directory"
[ "$(find "$STORE" "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR" | sort)" = "$before" ] || fail "a wrong secret left something behind"
mkdir "$TEST_TMP/full" && : >"$TEST_TMP/full/file"
expect_line 1 'not empty' clone "file://$STORE" "$TEST_TMP/full" --passphrase-file "$TEST_TMP/pass"
expect_line 1 'there is no such directory \(is its disk mounted' clone "file://$TEST_TMP/store/none" "$TEST_TMP/clone" --passphrase-file "$TEST_TMP/pass"
mkdir "$TEST_TMP/store/none"
expect_line 1 'no yester volume' clone "file://$TEST_TMP/store/none" "$TEST_TMP/clone" --passphrase-file "$TEST_TMP/pass"
expect_line 1 'no yester volume' check "file://$TEST_TMP/store/none"

# Of a mount too: the key file or passphrase that the config names is not the volume's any more.
cp -p "$TEST_TMP/pass" "$TEST_TMP/right"
echo wrong >"$TEST_TMP/pass"
expect_line 3 'wrong passphrase' mount "$DIR"
expect_line 3 'wrong passphrase' sync "$DIR"
cp -p "$TEST_TMP/right" "$TEST_TMP/pass"

# ---- config: file and line
config=$YESTER_CONFIG_DIR/v.conf
cp "$config" "$TEST_TMP/v.conf"
echo 'intervall = 3s' >>"$config"
line=$(wc -l <"$config")
expect_line 2 "v\.conf:$line: there is no key \"intervall\"; the nearest is interval" mount "$DIR"
cp "$TEST_TMP/v.conf" "$config"
echo 'interval = 3 fortnights' >>"$config"
expect_line 2 "v\.conf:$line: interval = 3 fortnights: it must be a time such as" sync "$DIR"
grep -v '^remote' "$TEST_TMP/v.conf" >"$config"
expect_line 2 'v\.conf: the key remote is missing' status "$DIR"
cp "$TEST_TMP/v.conf" "$config"

# ---- mounting
expect_line 2 'mount option take_ovr: there is no such option' mount "$DIR" -o take_ovr
expect_line 2 'lies inside' mount "$DIR" "$DIR/sub"
expect_line 2 'is not empty' mount "$DIR" "$TEST_TMP/full"
expect_line 1 'there is no such directory; make it' mount "$DIR" "$TEST_TMP/absent"
expect_line 2 'is not a directory; choose' mount "$DIR" "$TEST_TMP/file"
elsewhere=$YESTER_STATE_DIR
YESTER_STATE_DIR=$DIR/sub/state
mkdir -m 700 "$YESTER_STATE_DIR"
cp -a "$elsewhere/v" "$YESTER_STATE_DIR/"
expect_line 2 'the state directory .* lies below' mount "$DIR"
rm -r "$YESTER_STATE_DIR"
YESTER_STATE_DIR=$elsewhere
chmod 755 "$YESTER_STATE_DIR/v"
expect_line 1 'chmod 700' mount "$DIR"
chmod 700 "$YESTER_STATE_DIR/v"
# Another mount namespace without the device.
unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh "$YESTER" mount "$DIR" >"$TEST_TMP/out" 2>"$TEST_TMP/err" && fail "mounted without /dev/fuse"
grep -qE '^yester: /dev/fuse: .*; modprobe fuse' "$TEST_TMP/err" || fail "without /dev/fuse: $(cat "$TEST_TMP/err")"

mount_volume "$DIR"
expect_line 1 'is mounted already, by process [0-9]+; yester umount' mount "$DIR"
expect_line 1 'mounted' init "$DIR" "$S/y"
umount_volume "$DIR" || fail "umount: exit code $?"

# The disk is not there, or another one is: refused, and never recorded as a loss.
mv "$DIR" "$TEST_TMP/moved"
expect_line 1 'the directory is not there; bring it back \(is its disk mounted\?\)' mount "$DIR"
mkdir "$DIR"
expect_line 1 'not the directory it was at init' mount "$DIR"
expect_line 1 'not the directory it was at init' sync "$DIR"
rmdir "$DIR"
mv "$TEST_TMP/moved" "$DIR"
expect 0 sync "$DIR"
[ "$(cat "$DIR/file")" = one ] || fail "the file has changed"
# Moved on purpose: said once, believed from then on.
cp -a "$DIR" "$TEST_TMP/moved" && rm -rf "$DIR" && mv "$TEST_TMP/moved" "$DIR"
expect_line 1 'mount -o adopt' mount "$DIR"
mount_volume "$DIR" -o adopt
expect 0 sync "$DIR"
[ "$(cat "$DIR/.snapshots/latest/file")" = one ] || fail "the file is not in the version made after adopt"
umount_volume "$DIR" || fail "umount: exit code $?"
mount_volume "$DIR"
umount_volume "$DIR" || fail "umount: exit code $?"

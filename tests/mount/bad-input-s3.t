#!/bin/bash
# Wrong bucket, wrong credentials, wrong volume, against a real S3 server; and a mount without the environment that init had.
# timeout: 300

. tests/lib/lib.sh
need_mount
start_gateway
gateway_bucket yester-bad
mkdir "$TEST_TMP/plain"

expect_line 1 'no-such-bucket' init "$TEST_TMP/plain" s3://no-such-bucket/x
right=$AWS_SECRET_ACCESS_KEY AWS_SECRET_ACCESS_KEY=wrong
expect_line 1 '403|[Dd]enied|[Ss]ignature|credentials' init "$TEST_TMP/plain" s3://yester-bad/x
AWS_SECRET_ACCESS_KEY=$right
right=$AWS_ACCESS_KEY_ID AWS_ACCESS_KEY_ID=nobody
expect_line 1 '403|[Dd]enied|InvalidAccessKeyId|credentials' init "$TEST_TMP/plain" s3://yester-bad/x
AWS_ACCESS_KEY_ID=$right
[ -z "$(ls "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR" 2>/dev/null)" ] || fail "left behind: $(ls -R "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR")"

REMOTE=s3://yester-bad/deep/prefix new_volume v
grep -qx "endpoint = $AWS_ENDPOINT_URL" "$YESTER_CONFIG_DIR/v.conf" || fail "init did not keep the endpoint"
grep -qx "region = $AWS_REGION" "$YESTER_CONFIG_DIR/v.conf" || fail "init did not keep the region"
! grep -qF "$AWS_SECRET_ACCESS_KEY" -r "$YESTER_CONFIG_DIR" "$YESTER_STATE_DIR" "$TEST_TMP/v.init" || fail "init wrote the secret key somewhere"
expect_line 1 'a volume is already there; yester clone' init "$TEST_TMP/plain" s3://yester-bad/deep/prefix/
expect_line 1 'no yester volume' check s3://yester-bad/deep

# The same by options, which win over an environment that says something else.
by_options() {
	local endpoint=$AWS_ENDPOINT_URL region=$AWS_REGION store
	local -x AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_REGION=elsewhere-1
	store=(--endpoint "$endpoint" --region "$region" --addressing path)
	cp -- "$GATEWAY/env" "$TEST_TMP/plain.pem"
	expect 0 init "$TEST_TMP/plain" s3://yester-bad/options "${store[@]}" --allow-http --ca-file "$TEST_TMP/plain/../plain.pem"
	printf '%s\n' "endpoint = $endpoint" "region = $region" "addressing = path" "allow_http = yes" "ca_file = $TEST_TMP/plain.pem" |
		diff - <(grep -E '^(endpoint|region|addressing|allow_http|ca_file|profile|proxy)' "$YESTER_CONFIG_DIR/plain.conf") || fail "the config of init with options"
	echo one >"$TEST_TMP/plain/file"
	expect 0 sync "$TEST_TMP/plain"
	expect 0 check s3://yester-bad/options "${store[@]}" --key-file "$YESTER_CONFIG_DIR/plain.key"
	expect 0 clone s3://yester-bad/options "$TEST_TMP/other" "${store[@]}" --key-file "$YESTER_CONFIG_DIR/plain.key"
	[ "$(cat "$TEST_TMP/other/file")" = one ] || fail "the clone"
	expect 0 sync "$TEST_TMP/other"
	rm -r "$TEST_TMP/plain/file" "$TEST_TMP/other" "$YESTER_CONFIG_DIR"/{plain,other}.* "$YESTER_STATE_DIR"/{plain,other}
}
by_options

# As at boot: credentials only in the user's file, nothing else.
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$TEST_TMP/credentials"
chmod 600 "$TEST_TMP/credentials"
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL AWS_REGION
export AWS_SHARED_CREDENTIALS_FILE=$TEST_TMP/credentials
mount_volume "$DIR"
echo one >"$DIR/file"
expect 0 sync "$DIR" --timeout 60s
expect 0 check "$DIR" --read-data
[[ $OUT = *"no damage"* ]] || fail "check: $OUT"

# Credentials that stop working: local work goes on, and status says what is wrong and until when all is safe.
sed -i 's/^aws_secret_access_key.*/aws_secret_access_key = wrong/' "$TEST_TMP/credentials"
umount_volume "$DIR" || fail "umount: exit code $?"
mount_volume "$DIR"
echo two >"$DIR/file"
expect_line 4 '.' sync "$DIR" --timeout 5s
[ "$(cat "$DIR/file")" = two ] || fail "local work does not go on"
says_so() {
	local state
	state=$(status_field "$DIR" state)
	{ [ "$state" = degraded ] || [ "$state" = offline ]; } && [ "$(status_field "$DIR" last_error)" != null ]
}
wait_for 60 says_so || fail "status with wrong credentials: $(y status "$DIR" --json)"
expect 4 umount "$DIR" --timeout 2s

# Interrupted while the server does not answer: what was made so far is removed, at once.
# shellcheck disable=SC1091
. "$GATEWAY/env"
tests/lib/proxy.py start "$TEST_TMP/proxy" "$AWS_ENDPOINT_URL" || fail "the proxy does not start"
at_end "tests/lib/proxy.py stop $(printf %q "$TEST_TMP/proxy")"
AWS_ENDPOINT_URL=$(cat "$TEST_TMP/proxy/url")
mkdir "$TEST_TMP/scratch"
interrupt() { # URLS MADE WORDS...: runs yester WORDS with these requests stalled, until the glob MADE matches something; then ends it
	local urls=$1 made=$2 pid code=0
	shift 2
	tests/lib/proxy.py set "$TEST_TMP/proxy" stall "match=$urls" || fail "proxy"
	env TMPDIR="$TEST_TMP/scratch" YESTER_CONFIG_DIR="$TEST_TMP/config2" YESTER_STATE_DIR="$TEST_TMP/state2" \
		"$YESTER" "$@" >"$TEST_TMP/out" 2>"$TEST_TMP/err" </dev/null &
	pid=$!
	wait_for 30 compgen -G "$made" || fail "yester $*: nothing is made at $made"
	kill -TERM $pid
	wait $pid || code=$?
	[ $code -eq 143 ] || fail "yester $*: exit code $code after a signal"
	grep -q '^yester: .*: interrupted; ' "$TEST_TMP/err" || fail "yester $*: $(cat "$TEST_TMP/err")"
	made=$(find "$TEST_TMP/config2" "$TEST_TMP/state2" "$TEST_TMP/scratch" "$TEST_TMP/fresh" -mindepth 1 2>/dev/null)
	[ -z "$made" ] || fail "yester $*: left behind: $made"
}
interrupt /key/ "$TEST_TMP/state2/fresh" init "$TEST_TMP/plain" s3://yester-bad/fresh --name fresh
interrupt /log/ "$TEST_TMP/state2/fresh" clone s3://yester-bad/deep/prefix "$TEST_TMP/fresh" --key-file "$TEST_TMP/config/v.key"
interrupt /volume "$TEST_TMP/scratch/yester-check-*" check s3://yester-bad/deep/prefix --key-file "$TEST_TMP/config/v.key"
[ ! -e "$TEST_TMP/fresh" ] || fail "the interrupted clone made the directory"

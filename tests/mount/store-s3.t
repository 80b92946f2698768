#!/bin/bash
# The S3 store against a real server (Ceph's object gateway), directly and through a proxy that does harm.
# timeout: 420
set -u
here=$(cd "$(dirname "$0")/../lib" && pwd) || exit 1
store=$YESTER_BUILD/lib/store_exercise
clocked=$(dirname "$YESTER_FAILPOINTS_BIN")/lib/store_exercise
tmp=$TEST_TMP
gw=$tmp/gw
out=$tmp/out err=$tmp/err

finish() {
	local code=$?
	for dir in "$tmp"/proxy*; do
		[ ! -d "$dir" ] || "$here/proxy.py" stop "$dir"
	done
	"$here/gateway" stop "$gw"
	exit $code
}
trap finish EXIT
"$here/gateway" start "$gw" || exit

fail() {
	echo "FAILED: $*"
	echo "  out: $(head -c 300 "$out")"
	echo "  err: $(head -c 600 "$err")"
	exit 1
}

ok() { # ARGUMENTS...: store_exercise succeeds
	"$store" "$@" >"$out" 2>"$err" || fail "$*"
}

gives() { # WORD TEXT ARGUMENTS...: it fails with this error, whose message has this text, and writes nothing
	local word=$1 text=$2
	shift 2
	! "$store" "$@" >"$out" 2>"$err" || fail "expected $word: $*"
	grep -q "^$word: .*$text" "$err" || fail "expected $word ($text): $*"
	[ ! -s "$out" ] || fail "expected no output: $*"
}

same() { # FILE FILE
	cmp "$1" "$2" || fail "$1 differs from $2"
}

says() { # TEXT: what the last command wrote
	[ "$(cat "$out")" = "$1" ] || fail "expected output '$1'"
}

# shellcheck disable=SC1091
. "$gw/env"
direct=$AWS_ENDPOINT_URL
"$here/s3curl.py" make-bucket plain || exit 1
v=s3://plain/vol

echo "== objects"
ok $v put a/b hello + get a/b
says hello
ok $v get a/b 1 3 + get a/b 3 + get a/b 0 5 + get a/b 2 0
says elllohello
gives corrupt 'only 5 bytes' $v get a/b 2 4
gives corrupt 'ends before byte 5' $v get a/b 5
gives corrupt 'ends before byte 9' $v get a/b 9 1
gives absent 'vol/none: no such object' $v get none
ok $v put-new log/0001 one
gives exists 'log/0001: the object exists already' $v put-new log/0001 two
ok $v get log/0001
says one
ok $v put a/b '' + get a/b
says ''
gives corrupt . $v get a/b 0 1
ok $v delete a/b + delete a/b
gives absent . $v get a/b
head -c 5000001 /dev/urandom >"$tmp/big" # above the limit for "Expect: 100-continue"
ok $v put-new-file pack/00/big "$tmp/big"
ok $v get pack/00/big
same "$out" "$tmp/big"
ok $v get pack/00/big 4000000 -
tail -c +4000001 "$tmp/big" >"$tmp/tail"
same "$out" "$tmp/tail"
"$here/s3curl.py" get plain vol/pack/00/big "$tmp/seen" || fail "the object is not where it should be"
same "$tmp/seen" "$tmp/big"
ok $v probe + counts
grep -q '^put=8 .*delete=1 ' "$out" || fail "probe counts"
ok $v list ''
says "log/0001 3
pack/00/big 5000001"

echo "== names"
odd='s3://plain/my files+x/ü&%41'
ok "$odd" put a 1 + put b 22 + list '' + list '' a + get b + delete a + list ''
says "a 1
b 2
b 2
22b 2"
ok s3://plain list vol/log/
says "vol/log/0001 3"
ok -o "endpoint=http://localhost:${direct##*:}" -o addressing=virtual $v get log/0001
says one

echo "== listings of more than a page"
ok $v fill many/ 2345 16
ok $v list many/ + counts
[ "$(grep -c ^many/ "$out")" = 2345 ] || fail "2345 keys listed"
grep -q 'list=3 ' "$out" || fail "in three pages"
sed -n 's/^\(many.*\) .*/\1/p' "$out" | LC_ALL=C sort -cu || fail "sorted, each once"
ok $v list many/ many/001999
[ "$(wc -l <"$out")" = 345 ] || fail "listing from the middle"
ok $v drain many/ + list many/
says ''

echo "== refusals"
gives failed 'bucket nowhere does not exist.*create it' s3://nowhere/vol get a
gives failed 'bucket nowhere does not exist' s3://nowhere/vol put a b
gives failed 'bucket nowhere does not exist' s3://nowhere/vol list ''
AWS_SECRET_ACCESS_KEY=wrong gives denied SignatureDoesNotMatch $v get log/0001
AWS_ACCESS_KEY_ID=wrong gives denied InvalidAccessKeyId $v put x y
AWS_ACCESS_KEY_ID='' gives denied 'AWS_ACCESS_KEY_ID.*/dev/null' $v list ''
AWS_ENDPOINT_URL=http://192.0.2.1 gives usage 'allow_http' $v get a
AWS_ENDPOINT_URL=ftp://localhost gives usage 'https://HOST' $v get a
gives usage 'bucket' s3://x/vol get a
gives usage prefix s3://plain/a/../b get a
gives failed 'not a valid key' $v put A.B x

echo "== credentials from a file"
(
	printf '[other]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
) >"$tmp/credentials"
unset_keys=(env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY "AWS_SHARED_CREDENTIALS_FILE=$tmp/credentials")
[ "$("${unset_keys[@]}" "$store" -o profile=other $v get log/0001)" = one ] || fail "profile in the config"
[ "$("${unset_keys[@]}" AWS_PROFILE=other "$store" $v get log/0001)" = one ] || fail "profile in the environment"

echo "== a clock that is 20 minutes off"
YESTER_CLOCK_OFFSET_S=1200 "$clocked" $v get log/0001 + get log/0001 + counts >"$out" 2>"$err" || fail "clock"
grep -q '^oneoneput=0 get=3 ' "$out" || fail "one request more, once"
[ "$(grep -c 'the clock of this machine' "$err")" = 1 ] || fail "said once"
YESTER_CLOCK_OFFSET_S=-1200 "$clocked" $v fill skew/ 50 8 + drain skew/ + counts >"$out" 2>"$err" || fail "clock, threads"
[ "$(grep -c 'the clock of this machine' "$err")" = 1 ] || fail "said once"

echo "== through the proxy"
"$here/proxy.py" start "$tmp/proxy" "$direct" || exit 1
AWS_ENDPOINT_URL=$(cat "$tmp/proxy/url")
export AWS_ENDPOINT_URL
harm() { "$here/proxy.py" set "$tmp/proxy" "$@"; }
requests() { "$here/proxy.py" count "$tmp/proxy" "$@"; }

ok $v get log/0001
says one

echo "== storms of 500 and 503"
for mode in 500 503 reset; do
	harm $mode first=3
	ok $v put storm/$mode x + counts
	[ $mode = reset ] || grep -q '^put=4 ' "$out" || fail "counted as the server does"
	harm $mode first=3
	ok $v get storm/$mode
	says x
	harm $mode first=3
	ok $v list storm/$mode
	harm $mode
	gives retry . -t 2 $v get log/0001
	gives retry . -t 2 $v list ''
done
harm 503 percent=30
ok -t 20 $v fill storm/many- 200 16 + drain storm/ + list storm/
says ''

echo "== the answer to a PUT is lost"
harm drop-answer method=PUT first=1
gives exists . $v put-new log/0002 mine
harm drop-answer method=PUT
gives retry . -t 1 $v put-new log/0003 mine
harm pass
ok $v get log/0002 + get log/0003
says minemine
harm drop-answer method=PUT match=probe first=8
ok $v probe

echo "== GETs that are cut short"
harm truncate method=GET first=2
ok $v get pack/00/big
same "$out" "$tmp/big"
harm truncate method=GET
gives retry . -t 2 $v get pack/00/big
gives retry . -t 2 $v get pack/00/big 10 1000000
gives retry . -t 2 $v list ''

echo "== answers that are not the store's"
for mode in html error-in-200 502; do
	harm $mode
	gives retry . -t 2 $v get log/0001
	gives retry . -t 2 $v get log/0001 0 3
	gives retry . -t 2 $v put x y
	gives retry . -t 2 $v put-new x y
	gives retry . -t 2 $v list ''
	gives retry . -t 2 $v delete log/0001
done
harm pass
gives absent . $v get x
ok $v get log/0001
harm 403
gives denied AccessDenied $v put x y
gives denied AccessDenied $v list ''

echo "== a listing that repeats itself"
harm pass
ok $v fill many/ 1500 16
harm repeat-token method=GET
breaks_off() { # after the first page was reported
	! "$store" -t 2 $v list many/ >"$out" 2>"$err" || fail "a broken listing is an error"
	grep -q "^retry: " "$err" || fail "another error"
}
breaks_off
[ "$(wc -l <"$out")" = 1000 ] || fail "the repeated page is not reported"
harm 503 match=continuation
breaks_off
harm pass

echo "== another region"
for mode in region redirect; do
	harm $mode=eu-test-7
	ok $v get log/0001 + get log/0001 + put region x + counts
	grep -q 'get=3 ' "$out" || fail "corrected with one request more"
	[ "$(grep -c 'in region eu-test-7, not us-east-1' "$err")" = 1 ] || fail "said once"
	ok -o region=eu-test-7 $v get log/0001
	[ ! -s "$err" ] || fail "nothing to say"
done
harm 'region=../evil'
gives failed region $v get log/0001

echo "== credentials that expire while a request is on its way"
printf '[default]\naws_access_key_id = OLD\naws_secret_access_key = OLD\n' >"$tmp/credentials"
harm stall
before=$(requests)
"${unset_keys[@]}" "$store" -t 10 $v get log/0001 >"$out" 2>"$err" &
pid=$!
until [ "$(requests)" -gt "$before" ]; do read -r -t 0.05 <> <(:) || true; done # a poll, until the request has arrived
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$tmp/credentials"
harm "expired=$AWS_ACCESS_KEY_ID"
wait $pid || fail "the credentials were not read again"
says one
grep -q ' 400 .*expired' "$tmp/proxy/log" || fail "they had not expired"
AWS_ACCESS_KEY_ID=OLD gives denied 'expired; get new credentials' $v get log/0001

echo "== a stalled connection is given up; a cancelled call ends at once"
harm stall
start=$SECONDS
gives retry . -t 1 $v get log/0001
[ $((SECONDS - start)) -le 60 ] || fail "stalled for $((SECONDS - start)) s"
before=$(requests)
"$store" -t 9 $v put x y >"$out" 2>"$err" &
pid=$!
until [ "$(requests)" -gt "$before" ]; do read -r -t 0.05 <> <(:) || true; done
start=$SECONDS
kill -TERM $pid
! wait $pid || fail "cancelled, but no error"
grep -q '^abandoned: ' "$err" || fail "not abandoned"
[ $((SECONDS - start)) -le 10 ] || fail "cancelling took $((SECONDS - start)) s"

echo "== requests are counted as the server counts them"
harm pass
"$here/proxy.py" reset "$tmp/proxy"
ok $v put c/1 x + put-new c/2 y + get c/1 + get c/2 0 1 + list c/ + delete c/1 + delete c/2 + counts
grep -q "^put=$(requests PUT) get=2 list=1 delete=$(requests DELETE) up=2 " "$out" || fail counts
[ "$(requests GET)" = 3 ] || fail "GETs at the server"

echo "== TLS"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
	-keyout "$tmp/key.pem" -out "$tmp/cert.pem" 2>"$err" || fail "openssl"
cat "$tmp/key.pem" "$tmp/cert.pem" >"$tmp/both.pem"
"$here/proxy.py" start "$tmp/proxy-tls" "$direct" "$tmp/both.pem" || exit 1
AWS_ENDPOINT_URL=$(cat "$tmp/proxy-tls/url")
gives denied 'certificate is not trusted.*ca_file' $v get log/0001
[ "$("$here/proxy.py" count "$tmp/proxy-tls")" = 0 ] || fail "sent to a server that is not trusted"
ok -o "ca_file=$tmp/cert.pem" $v get log/0001
says one
gives denied 'ca_file' -o "ca_file=$tmp/none" $v get log/0001

echo "== the server dies and comes back"
AWS_ENDPOINT_URL=$direct
"$here/gateway" kill "$gw"
gives retry . -t 2 $v get log/0001
gives retry . -t 2 $v put x y
"$here/gateway" restart "$gw" || exit 1
ok $v get log/0001
says one
echo "all done"

#!/bin/bash
# timeout: 120
# What scripts/setup prepares: nothing to do and no network needed when it is done; which mirrors of Debian it finds in apt's configuration; what it
# says when the source of libfuse can't be had; and that the program was built with the libfuse that it made.

# shellcheck source=tests/lib/lib.sh
. tests/lib/lib.sh
need_root

# ---- done once, it does nothing

unshare -n scripts/setup --tests >"$TEST_TMP/out" 2>&1 || fail "without a network: $(cat "$TEST_TMP/out")"
[ ! -s "$TEST_TMP/out" ] || fail "it says something, or works, though all is there: $(cat "$TEST_TMP/out")"
scripts/libfuse || fail "there is no new libfuse, and a fallback that nobody asked for"
[ -z "$(scripts/libfuse --packages)" ] || fail "it wants packages for what is built"
ldd "$YESTER" | grep -E 'libfuse|liburing|libnuma' && fail "libfuse, or what it needs, is not linked statically"
nm "$YESTER" | grep ' io_uring_queue_init_params$' >/dev/null || fail "the program has no io_uring in it"

# ---- mirrors

tree=$TEST_TMP/tree
mkdir -p "$tree/scripts" "$TEST_TMP/etc/parts" "$TEST_TMP/lists/partial"
cp scripts/libfuse "$tree/scripts/"
cat >"$TEST_TMP/apt.conf" <<END
Dir::Etc::SourceList "$TEST_TMP/etc/sources.list";
Dir::Etc::SourceParts "$TEST_TMP/etc/parts";
Dir::State::Lists "$TEST_TMP/lists";
Acquire::Retries "0";
END
export APT_CONFIG=$TEST_TMP/apt.conf
# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")

refused() { # PATTERN: no libfuse, for that reason
	# The system's is out of sight: another machine may have a new one.
	! PKG_CONFIG_LIBDIR=/nonexistent "$tree/scripts/libfuse" >"$TEST_TMP/out" 2>&1 || fail "it built a libfuse: $(cat "$TEST_TMP/out")"
	grep -q -- "$1" "$TEST_TMP/out" || fail "it does not say $1: $(cat "$TEST_TMP/out")"
	[ ! -e "$tree/build/deps/lib" ] || fail "something is left that make would take for a libfuse"
}

: >"$TEST_TMP/etc/sources.list"
refused 'no mirror of Debian'
echo "deb http://127.0.0.1:9/elsewhere other main" >"$TEST_TMP/etc/sources.list"
refused 'no mirror of Debian'
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://127.0.0.1:9/one-line $codename main" >"$TEST_TMP/etc/sources.list"
refused "can't be had from http://127.0.0.1:9/one-line/; "
: >"$TEST_TMP/etc/sources.list"
cat >"$TEST_TMP/etc/parts/debian.sources" <<END
Types: deb
URIs: http://127.0.0.1:9/first http://127.0.0.1:9/second
Suites: $codename $codename-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
refused "can't be had from http://127.0.0.1:9/first/ http://127.0.0.1:9/second/; "

# ---- a mirror that nobody signs for

mkdir -p "$TEST_TMP/mirror/dists/unstable/main/source"
cp /dev/null "$TEST_TMP/mirror/dists/unstable/main/source/Sources"
printf 'Origin: Debian\nSuite: unstable\nCodename: sid\nDate: %s\nComponents: main\nSHA256:\n %s 0 main/source/Sources\n' "$(date -uR)" \
	"$(sha256sum </dev/null | cut -d' ' -f1)" >"$TEST_TMP/mirror/dists/unstable/Release"
sed -i "s,^URIs:.*,URIs: file:$TEST_TMP/mirror," "$TEST_TMP/etc/parts/debian.sources"
refused 'is not signed'

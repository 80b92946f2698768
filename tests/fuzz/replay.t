#!/bin/bash
# Every fuzz target survives its corpus (tests/fuzz/corpus/NAME for fuzz_NAME) and mutations of it, under sanitizers.
# FUZZ_RUNS and FUZZ_SEED choose how many, and which.
# timeout: 900
set -u
runs=${FUZZ_RUNS:-20000}
seed=${FUZZ_SEED:-1}
top=$PWD
failed=0
shopt -s nullglob
for source in tests/fuzz/fuzz_*.c; do
	target=$(basename "$source" .c)
	corpus=("tests/fuzz/corpus/${target#fuzz_}")
	[ -d "${corpus[0]}" ] && corpus=("$top/${corpus[0]}") || corpus=()
	echo "== $target"
	mkdir -p "$TEST_TMP/$target"
	if ! (cd "$TEST_TMP/$target" && timeout 120 "$YESTER_BUILD/san-address-undefined/fuzz/$target" -n "$runs" -s "$seed" "${corpus[@]}"); then
		echo "$target failed with seed $seed; a crash-input is in $TEST_TMP/$target"
		failed=1
	fi
done
exit $failed

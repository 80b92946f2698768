#!/bin/bash
# timeout: 900
# make bench works: every row runs, in yester and in what it is compared with, and the table has them all. What it measures here is nothing to go by.

# shellcheck source=tests/lib/lib.sh
. tests/lib/lib.sh
need_mount

make -s build/bench/io_row || fail "io_row"
tests/bench/bench.py --rounds 1 --scale 0.02 --on ext4,tmpfs --systems yester,yester-cached --dir "$TEST_TMP" --out "$TEST_TMP/out" \
	>"$TEST_TMP/table" 2>"$TEST_TMP/progress" || fail "bench: $(tail -n 20 "$TEST_TMP/progress")"
cmp "$TEST_TMP/table" <(cat "$TEST_TMP/out/table.md" && echo) || fail "the table is not what was printed"
tests/bench/report.py "$TEST_TMP/out/raw.json" | cmp - "$TEST_TMP/out/table.md" || fail "another table from the same data"
python3 -c '
import json, sys
raw = json.load(open(sys.argv[1]))
assert not raw["missing"], raw["missing"]
for on, least in (("ext4", 28), ("tmpfs", 23)):
    rows = {}
    for r in raw["results"]:
        if r["on"] == on:
            rows.setdefault(r["row"], set()).add(r["system"])
            assert r["seconds"] > 0, r
    assert len(rows) >= least, (on, len(rows))
    for row, systems in rows.items():
        assert systems == {"native", "yester", "yester-cached"}, (row, systems)
' "$TEST_TMP/out/raw.json" || fail "see above"
! compgen -G "$TEST_TMP/yester-bench*" >/dev/null || fail "something stayed behind"

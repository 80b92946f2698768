#!/usr/bin/python3 -B
"""report: what a run of bench.py measured, as a table in Markdown. report.py RAW.JSON writes that of an earlier run."""
import json
import statistics
import sys

HP = ("hp", "hp-cached", "hp-dev-fuse")


def by_round(results, on, row, system, field):
    return {r["round"]: r[field] for r in results if r["on"] == on and r["row"] == row and r["system"] == system}


def ratios(above, below):
    return [above[n] / below[n] for n in above if n in below and below[n] > 0]


def ratio_text(values):
    """Median, and from where to where the middle half lies."""
    if not values:
        return "-"
    if len(values) < 3:
        return f"{statistics.median(values):.2f}"
    values = sorted(values)
    quarter = len(values) // 4
    return f"{statistics.median(values):.2f} ({values[quarter]:.2f}-{values[-1 - quarter]:.2f})"


def absolute(results, on, row):
    times = by_round(results, on, row, "native", "seconds")
    if not times:
        return "-"
    one = next(r for r in results if r["on"] == on and r["row"] == row)
    median = statistics.median(times.values())
    if one["unit"] == "s":
        return f"{median:.3f} s"
    rate = one["count"] / median
    return f"{rate / 1000:.1f} k/s" if rate >= 10000 else f"{rate:.0f} /s"


def best_hp(results, on, row, field):
    """The setting of passthrough_hp that was fastest by its median, and its times."""
    found = [(statistics.median(times.values()), name, times) for name in HP
             if (times := by_round(results, on, row, name, field))]
    return min(found)[1:] if found else ("-", {})


def lines_of(raw, on, field):
    results = raw["results"]
    names = [name for name in raw["systems"] if name != "native" and any(r["system"] == name and r["on"] == on for r in results)]
    yield "| row | native | " + " | ".join(names) + " | yester / best hp |"
    yield "|---" * (len(names) + 3) + "|"
    for row in dict.fromkeys(r["row"] for r in results if r["on"] == on):
        native = by_round(results, on, row, "native", field)
        cells = [ratio_text(ratios(by_round(results, on, row, name, field), native)) for name in names]
        best, times = best_hp(results, on, row, field)
        against = ratios(by_round(results, on, row, "yester", field), times)
        verdict = f"{ratio_text(against)} {best}" if against else "-"
        if against and statistics.median(against) > 1.05:
            verdict = f"**{verdict}**"
        first = absolute(results, on, row) if field == "seconds" or not native else f"{statistics.median(native.values()):.2f} s"
        yield f"| {row} | {first} | " + " | ".join(cells) + f" | {verdict} |"


def table(raw):
    machine = raw["machine"]
    lines = ["# yester beside others, on one machine in one run", "",
             f"{machine['yester']}, Linux {machine['kernel']}, {machine['processor']}, {machine['git']}; load {machine['load']}, at the end "
             f"{machine['load at the end']}. {raw['rounds']} rounds.", "",
             "Native: the rate, or seconds. Others: their time as a multiple of the native time of the same round, median and middle half; less is better. "
             "Last column: yester's time as a multiple of that of passthrough_hp in the setting that is best for the row; bold above 1.05.", ""]
    lines += [f"- **{name}**: {about}" + (f"; {json.dumps(raw['features'][name])}" if name in raw["features"] else "")
              for name, about in raw["systems"].items()]
    lines += [f"- **{name}** is missing: {why}" for name, why in raw["missing"].items()]
    for on in dict.fromkeys(r["on"] for r in raw["results"]):
        lines += ["", f"## Time, data on {on}", "", *lines_of(raw, on, "seconds")]
        lines += ["", f"## Processor time of client and daemon, data on {on}", "", *lines_of(raw, on, "processor")]
    if raw["remarks"]:
        lines += ["", "Remarks:", *(f"- {remark}" for remark in raw["remarks"])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        print(table(json.load(source)), end="")

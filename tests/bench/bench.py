#!/usr/bin/python3 -B
"""bench: yester beside the native filesystem and libfuse's passthrough_hp, on the same data, in one run (make bench). Needs root.

    bench.py [--rounds N] [--scale X] [--on ext4,tmpfs] [--only PATTERN] [--systems NAME,...] [--dir DIR] [--out DIR]

In each round each row is run in each system before the next row, in an order that changes from round to round: what disturbs the machine disturbs all
alike. A ratio is that of two times of the same round; the table has medians of ratios. Everything is below --dir (default: a directory in /tmp), on
a filesystem in a file of its own (ext4) or in memory (tmpfs), and is gone afterwards. Writes table.md and raw.json to --out (default: build/bench), when it
is interrupted too."""
import argparse
import contextlib
import fnmatch
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import report  # noqa: E402
import rows  # noqa: E402
import systems  # noqa: E402

DISK_BYTES = 12 << 30


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything; 0.1 is a quick look")
    parser.add_argument("--on", default="ext4,tmpfs")
    parser.add_argument("--only", default="*", help="rows whose name matches, or contains it")
    parser.add_argument("--systems", default="", help="those only, separated by commas; native is always there")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--out", default=os.path.join(systems.BUILD, "bench"))
    return parser.parse_args()


@contextlib.contextmanager
def disk(kind, base):
    """A fresh filesystem, mounted."""
    place, image = os.path.join(base, kind), os.path.join(base, kind + ".img")
    os.makedirs(place)
    if kind == "tmpfs":
        systems.quiet("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "yester-bench", place)
    else:
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        systems.quiet("mkfs." + kind, "-q", image)
        systems.quiet("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=False)
        if os.path.ismount(place):
            subprocess.run(["umount", "-l", place], check=False)
        if os.path.exists(image):
            os.unlink(image)


class Run:
    """All rounds on one filesystem."""

    def __init__(self, kind, wanted, scale, only):
        self.kind, self.wanted = kind, wanted
        self.rows = [row for row in rows.all_rows(scale) if not (kind == "tmpfs" and row.cold)]
        self.only = only
        self.systems, self.missing, self.results, self.remarks = [], {}, [], set()

    def is_wanted(self, row):
        return fnmatch.fnmatch(row.name, self.only) or self.only in row.name

    def start(self, place):
        for system in systems.all_systems(place):
            if self.wanted and system.name not in self.wanted and system.name != "native":
                continue
            try:
                system.start()
                rows.prepare_system(system)
                self.systems.append(system)
            except systems.Missing as why:
                self.missing[system.name] = str(why)
                system.stop()

    def stop(self):
        for system in self.systems:
            system.stop()

    def once(self, row, system):
        system.before_row()
        row.prepare(system)
        before = system.processor_seconds()
        seconds, client = row.run(system)
        daemon = system.processor_seconds() - before
        remark = system.after_row()
        row.finish(system)
        if remark:
            self.remarks.add(f"{row.name}, {system.name}: {remark}")
        return seconds, client + daemon

    def round(self, number):
        order = self.systems[:]
        random.Random(number).shuffle(order)
        for row in self.rows:
            if not self.is_wanted(row) and not self.is_needed(row):
                continue
            for system in order:
                seconds, processor = self.once(row, system)
                self.results.append({"on": self.kind, "row": row.name, "system": system.name, "round": number, "seconds": seconds,
                                     "processor": processor, "count": row.count, "unit": row.unit})
            print(f"{self.kind} {number}: {row.name}", file=sys.stderr, flush=True)

    def is_needed(self, row):
        """Rows whose files others use."""
        uses = {rows.Create: (rows.Stat, rows.Unlink), rows.Unlink: (rows.Create, rows.Stat),
                rows.Untar: (rows.Walk, rows.Git, rows.Remove), rows.Remove: (rows.Untar, rows.Walk, rows.Git)}
        return any(self.is_wanted(other) for other in self.rows if isinstance(other, uses.get(type(row), ())))


def machine():
    def first(*command):
        try:
            return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout.split("\n")[0]
        except (OSError, subprocess.CalledProcessError):
            return "none"
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {"kernel": platform.release(), "processor": f"{os.cpu_count()} x {model}", "yester": first(systems.YESTER, "--version"),
            "git": first("git", "--version"), "load": "%.1f %.1f %.1f" % os.getloadavg()}


def main():
    options = parse()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, to mount filesystems")
    about = machine()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way what was measured is written, and nothing stays mounted
    results, missing, remarks, features, names = [], {}, set(), {}, {}
    interrupted, number = False, -1
    with tempfile.TemporaryDirectory(prefix="yester-bench.", dir=options.dir) as base:
        for kind in options.on.split(","):
            with disk(kind, base) as place:
                run = Run(kind, set(filter(None, options.systems.split(","))), options.scale, options.only)
                try:
                    run.start(place)
                    for system in run.systems:
                        names[system.name] = system.about
                        if isinstance(system, systems.Yester):
                            features[system.name] = system.features()
                    for number in range(options.rounds):
                        run.round(number)
                except KeyboardInterrupt:
                    remarks.add(f"interrupted in round {number + 1} on {kind}")
                    interrupted = True
                finally:
                    run.stop()
                results += run.results
                missing.update(run.missing)
                remarks |= run.remarks
            if interrupted:
                break
    about["load at the end"] = "%.1f %.1f %.1f" % os.getloadavg()
    os.makedirs(options.out, exist_ok=True)
    everything = {"machine": about, "rounds": options.rounds, "systems": names, "features": features, "missing": missing,
                  "remarks": sorted(remarks), "results": results}
    with open(os.path.join(options.out, "raw.json"), "w") as file:
        json.dump(everything, file, indent=1)
    table = report.table(everything)
    with open(os.path.join(options.out, "table.md"), "w") as file:
        file.write(table)
    print(table)


if __name__ == "__main__":
    main()

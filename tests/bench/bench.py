#!/usr/bin/env python3
"""Benchmarks side by side: syncd, its peers and the floors do the same work in turn, in one run on one machine.

usage: bench.py BIN [--runs N] [--scale small|full] [--files N] [--big MIB] [--without TOOL] [--out FILE] [WORK…]

Needs root: it makes a network namespace of its own, so that the loopback device's counters are the bytes on the wire, seen
from outside the programs (headers of TCP and IP are taken off by the number of packets). A real sshd listens there. CPU is that of
all processes of a control group: both sides, sshd and ssh included. Memory is the largest anonymous memory of one process.
Each work is done RUNS times, the tools in turn; medians are shown, and all runs go to FILE as JSON lines: table.py makes the goals'
table of them. The work `layers` is a program of its own, layers.c.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import table
from tools import Tools
from works import WORKS

SCALES = {  # sizes of things; rename: MiB
    "small": dict(big=256 << 20, copy=512 << 20, files=20_000, rename=100, edits=30, steps=10, kernel=False),
    "full": dict(big=2 << 30, copy=4 << 30, files=1_000_000, rename=1024, edits=100, steps=30, kernel=True),
}


def layers(binaries, scale):
    said = subprocess.run([binaries + "/../layers", scale], stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in said.splitlines():
        row = json.loads(line)
        yield row.pop("tool"), row


def show_layers(rows):
    for tool, results in rows.items():
        rate = statistics.median(r["rate"] for r in results)
        floor = [r["of_floor"] for r in results if "of_floor" in r]
        print(f"  {tool:50}{rate:14.1f} {results[0]['unit']:10}{f'{statistics.median(floor):8.2f} of its floor' if floor else ''}")


def show(rows):
    print(f"  {'':40}{'seconds':>10}{'CPU s':>9}{'bytes':>14}{'MiB':>7}{'time to syncd':>15}")
    medians = table.medians(rows)
    for tool, m in medians.items():
        part = tool.split(":")[0]
        mine = [t for t in medians if "syncd" in t and "lsyncd" not in t and (":" not in tool or t.split(":")[0] == part)]
        ratio = f"{m['seconds'] / medians[mine[0]]['seconds']:15.2f}" if mine and tool not in mine else ""
        more = "".join(f"   {k} {m[k]:.0f}" for k in ("index", "idle", "turns", "own_bytes") if k in m)
        print(f"  {tool:40}{m['seconds']:10.3f}{m['cpu']:9.2f}{m['bytes']:14.0f}{m['anonymous'] / (1 << 20):7.1f}{ratio}{more}", flush=True)


def state_of(top):
    commit = subprocess.run(["git", "-C", top, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return dict(commit=commit, cpus=len(os.sched_getaffinity(0)), processor=model[0] if model else "", linux=os.uname().release, load=os.getloadavg()[0],
                date=time.strftime("%Y-%m-%d"))


def main():
    parser = argparse.ArgumentParser(description="syncd beside its peers and the floors")
    parser.add_argument("bin")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--files", type=int, help="how many small files, whatever the scale is")
    parser.add_argument("--big", type=int, help="how many MiB a big file has")
    parser.add_argument("--without", action="append", default=[], help="leave this tool out")
    parser.add_argument("--out", default="bench.json")
    parser.add_argument("works", nargs="*", metavar="WORK", help=" ".join(["layers", *WORKS]))
    options = parser.parse_intermixed_args()
    unknown = [w for w in options.works if w not in WORKS and w != "layers"]
    if unknown:
        parser.error(f"no such work: {' '.join(unknown)}; there are layers {' '.join(WORKS)}")
    if options.works == ["layers"]:
        os.environ["SYNCD_BENCH_NAMESPACE"] = "none"
    elif os.geteuid() != 0:
        parser.error("needs root: a network namespace, and an sshd")
    if not os.environ.get("SYNCD_BENCH_NAMESPACE"):
        os.environ["SYNCD_BENCH_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, "-B", *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = dict(SCALES[options.scale])
    size.update(files=options.files or size["files"], big=options.big << 20 if options.big else size["big"])
    lab = None if options.works == ["layers"] else Tools(options.bin, size, options.without)
    try:
        with open(options.out, "w") as out:
            def note(**line):
                out.write(json.dumps(line) + "\n")
                out.flush()

            note(work="state", scale=options.scale, **size, **state_of(os.path.dirname(os.path.abspath(__file__))))
            for work in options.works or ["layers", *WORKS]:
                rows = {}
                print(f"\n{work}: {(WORKS[work].__doc__ if work in WORKS else 'Layers alone.').splitlines()[0]}", flush=True)
                for n in range(options.runs):
                    for tool, result in layers(options.bin, options.scale) if work == "layers" else WORKS[work](lab):
                        rows.setdefault(tool, []).append(result)
                        note(work=work, run=n, tool=tool, **result)
                if rows:
                    (show_layers if work == "layers" else show)(rows)
    finally:
        if lab:
            lab.close()
    print()
    table.main([options.out])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""table.py BENCH.JSON: what the goals say, what was measured, and whether they are met, as a table for README.md. What was not measured
is left out."""
import json
import statistics
import sys

MIB = 1 << 20


def medians(rows):
    """{tool: [result]} -> {tool: {key: median}}"""
    return {tool: {k: statistics.median(r[k] for r in results) for k in results[0] if isinstance(results[0][k], (int, float))} for tool, results in rows.items()}


class Measured:
    def __init__(self, path):
        works = {}
        with open(path) as f:
            lines = [json.loads(line) for line in f]
        self.state = lines[0]
        for line in lines[1:]:
            works.setdefault(line.pop("work"), {}).setdefault(line.pop("tool"), []).append(line)
        self.works = {work: medians(rows) for work, rows in works.items()}
        self.files = self.state["files"]

    def of(self, work, tool, key="seconds"):
        return self.works[work][tool][key]

    def best(self, work, tools, key="seconds"):
        """The least of those tools that were there."""
        return min(self.works[work][t][key] for t in tools if t in self.works[work])

    def ratio(self, work, mine, tools, key="seconds"):
        return self.of(work, mine, key) / self.best(work, tools, key)


PEERS = ("rsync -a", "rsync -az", "unison", "syncthing", "lsyncd")


def peers(part, live=False):
    return [f"{part}: {p}{', live' if live else ''}" for p in PEERS]


# (what, measured from a Measured, how it is shown, goal, is less better?)
def goals():
    ratio, size = "{:.3g}", "{:,.0f} B"
    for work, what in (("copy", "a source tree"), ("big", "big files")):
        yield f"initial copy of {what}: time to rsync -a, which syncs nothing", lambda m, w=work: m.ratio(w, "syncd", ["rsync -a"]), ratio, 1, True
        yield "the same, to rsync -a and a sync", lambda m, w=work: m.ratio(w, "syncd", ["rsync -a, sync"]), ratio, None, True
        yield "the same, to tar over ssh, which syncs nothing", lambda m, w=work: m.ratio(w, "syncd", ["tar over ssh"]), ratio, 1.2, True
        yield "the same, to tar, hashed on both sides, compressed, and a sync", lambda m, w=work: m.ratio(w, "syncd", ["tar, SHA-256, zstd, sync"]), ratio, None, True
        yield "the same: CPU of both sides to rsync -a", lambda m, w=work: m.ratio(w, "syncd", ["rsync -a"], "cpu"), ratio, None, True
        yield "the same: bytes to rsync -a", lambda m, w=work: m.ratio(w, "syncd", ["rsync -a"], "bytes"), ratio, None, True
    yield "nothing changed among {files} files: bytes", lambda m: m.of("nothing", "nothing: syncd", "bytes"), size, None, True
    yield "the same: time to rsync", lambda m: m.ratio("nothing", "nothing: syncd", ["nothing: rsync -a"]), ratio, 0.5, True
    yield "the same: time to a stat walk of both sides", lambda m: m.ratio("nothing", "nothing: syncd", ["nothing: stat walk of both"]), ratio, 1.3, True
    yield "the same between daemons: bytes, with SSH", lambda m: m.of("nothing", "nothing, live: syncd", "bytes"), size, 4096, True
    yield "the same: time on the wire, to rsync's", lambda m: m.of("nothing", "a round, live: syncd", "seconds") / m.of("nothing", "nothing: rsync -a", "seconds"), ratio, 0.002, True
    yield "the same: time of `flush`, which scans all of both first, to rsync's", lambda m: m.of("nothing", "nothing, live: syncd", "seconds") / m.of("nothing", "nothing: rsync -a", "seconds"), ratio, None, True
    yield "the same: turns of the direction (HELLO, the other one with DONE, DONE: 3)", lambda m: m.of("nothing", "nothing, live: syncd", "turns"), "{:.0f}", None, True
    yield "one file of {files} changed, between daemons: bytes, with SSH", lambda m: m.of("nothing", "one edit, live: syncd", "bytes"), size, 4096, True
    yield "the same, one-shot: bytes", lambda m: m.of("nothing", "one edit: syncd", "bytes"), size, None, True
    for work, most, time in (("4 KiB overwritten", 24 << 10, 0.5), ("1 byte at the front", 16 << 10, 0.5), ("1 MiB appended", None, 1), ("100 edits of 1 KiB", 600_000, 1)):
        yield f"big file, {work}, between daemons: bytes", lambda m, w=work: m.of("edits", f"{w}: syncd, live", "bytes"), size, most, True
        yield "the same: to the best peer", lambda m, w=work: m.ratio("edits", f"{w}: syncd, live", peers(w) + peers(w, True), "bytes"), ratio, 1, True
        yield "the same: time to rsync", lambda m, w=work: m.ratio("edits", f"{w}: syncd, live", [f"{w}: rsync -a"]), ratio, time, True
        yield "the same, one-shot: bytes", lambda m, w=work: m.of("edits", f"{w}: syncd", "bytes"), size, None, True
        yield "the same: time to rsync", lambda m, w=work: m.ratio("edits", f"{w}: syncd", [f"{w}: rsync -a"]), ratio, None, True
    for part in ("directory", "file"):
        yield f"{part} of 1 GiB renamed, live: bytes", lambda m, p=part: m.of("renames", f"{p}: syncd, live", "bytes"), size, 200 << 10, True
        yield "the same: time", lambda m, p=part: m.of("renames", f"{p}: syncd, live"), "{:.2f} s", 1, True
        yield "the same: time to the best peer", lambda m, p=part: m.ratio("renames", f"{p}: syncd, live", [f"{p}: syncthing, live", f"{p}: lsyncd, live"]), ratio, 1, True
    for part, most in (("median", 15), ("99 %", 60)):
        yield f"live latency, {part}", lambda m, p=part: 1000 * m.of("latency", f"{p}: syncd"), "{:.1f} ms", most, True
    yield "the same: median to write, fsync and rename through ssh", lambda m: m.ratio("latency", "median: syncd", ["median: floor"]), ratio, None, True
    yield "the same: to the best peer", lambda m: m.ratio("latency", "median: syncd", ["median: syncthing", "median: lsyncd"]), ratio, 1, True
    yield "ten edits at 50 ms: time to the best peer", lambda m: m.ratio("distance", "one-shot: syncd", [*peers("one-shot"), "one-shot: rsync -a, no-i-r"]), ratio, 1, True
    yield "the same: turns, with those of SSH", lambda m: m.of("distance", "one-shot: syncd", "turns"), "{:.0f}", None, True
    yield "the same between daemons: turns", lambda m: m.of("distance", "daemons: syncd", "turns"), "{:.0f}", 8, True
    yield "history, {steps} commits after the first: bytes to rsync -az", lambda m: m.ratio("history", "steps: syncd", ["steps: rsync -az"], "bytes"), ratio, 0.5, True
    yield "the same: time", lambda m: m.ratio("history", "steps: syncd", ["steps: rsync -az"]), ratio, 0.5, True
    yield "the first of them, which is copied: bytes to rsync -az", lambda m: m.ratio("history", "first: syncd", ["first: rsync -az"], "bytes"), ratio, None, True
    yield "pairing two copies of a source tree: time to hashing both", lambda m: m.ratio("pairing", "source tree: syncd", ["source tree: sha256sum of both"]), ratio, 1.3, True
    yield "the same: bytes", lambda m: m.of("pairing", "source tree: syncd", "bytes"), size, 600_000, True
    yield "pairing {files} files: time to hashing both", lambda m: m.ratio("pairing", "small files: syncd", ["small files: sha256sum of both"]), ratio, 1.3, True
    yield "the same: bytes a file", lambda m: m.of("pairing", "small files: syncd", "bytes") / m.files, "{:.2f}", 8, True
    yield "first scan of {files} files: time to a walk that looks at and reads all", lambda m: m.ratio("scan", "small files: syncd", ["small files: stat and read"]), ratio, 3, True
    yield "index, bytes for each of them", lambda m: m.of("scan", "small files: syncd", "index") / m.files, "{:.0f}", 450, True
    yield "the same, after two copies met", lambda m: m.of("memory", "syncd", "index") / m.files, "{:.0f}", 450, True
    yield "index of a big file, % of it", lambda m: 100 * m.of("scan", "a big file: syncd", "index") / m.state["big"], "{:.3f}", 0.2, True
    yield "memory of the daemon, {files} files", lambda m: m.of("memory", "syncd", "idle") / MIB, "{:.1f} MiB", 48, True
    yield "the same, at most from its start on", lambda m: m.of("memory", "syncd", "anonymous") / MIB, "{:.1f} MiB", 48, True
    yield "chunks and hashes of a file, two cores: rate to SHA-256 alone on one", lambda m: m.of("layers", "chunk and hash a file, two cores", "of_floor"), ratio, 0.9, False
    yield "the same on one: rate to what its two parts in a row allow", lambda m: m.of("layers", "chunk and hash a file, one core", "of_floor"), ratio, 0.9, False


def main(arguments):
    m = Measured(arguments[0])
    s = m.state
    print(f"Measured on {s['date']} at {s['commit']}, scale {s['scale']}: {s['cpus']} processors ({s['processor']}), Linux {s['linux']}; load {s['load']:.1f}.\n")
    print("| what | measured | goal | |\n|---|---|---|---|")
    for what, measure, form, goal, less in goals():
        try:
            value = measure(m)
        except (KeyError, ValueError):
            continue  # not measured
        met = "" if goal is None else "met" if (value <= goal if less else value >= goal) else "missed"
        bound = "" if goal is None else ("≤ " if less else "≥ ") + f"{goal:,}"
        print(f"| {what.format(files=f'{m.files:,}', steps=s['steps'])} | {form.format(value)} | {bound} | {met} |")


if __name__ == "__main__":
    main(sys.argv[1:])

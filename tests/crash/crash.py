#!/usr/bin/env python3
"""Kills and power losses of the real programs on real file systems; see tests/README.md.

usage: crash.py BIN TOOLS [--points N] [--seed S] [--fs ext4,xfs,btrfs] [--modes kill,power,replay,daemon] [--jobs N]
                          [--only MODE/FS/BATCH]

  kill     `syncctl reconcile` between two folders dies by SIGKILL before one of its calls that change a file system
  power    the same, and the disk of one folder loses its power at that moment; the other one stands on another disk
  replay   a reconcile of two folders on one recorded disk, replayed up to each flush, and a part of what was written since
  daemon   a daemon dies by SIGKILL before such a call while users edit; another one has the other folder

Afterwards: again, until it says "in sync", and then each object of both folders is compared with what the users did.
"""
import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback

import disks
import trees

LIMIT_S = 120
SHARES = {"kill": 0.72, "power": 0.10, "replay": 0.14, "daemon": 0.04}
BATCH = {"kill": 25, "power": 10, "replay": 25, "daemon": 6}


class Fault(Exception):
    pass


class Batch:
    """Points of one mode on one file system, one after the other."""

    def __init__(self, options, mode, fs, number, first, n, total):
        self.options, self.mode, self.fs, self.number = options, mode, fs, number
        self.first, self.n, self.total = first, n, total
        self.seed = f"{options.seed}/{mode}/{fs}/{number}"
        self.rng = random.Random(self.seed)
        self.counts = {"points": 0, "ended before": 0, "calls": 0, "again": 0}
        self.what = "setting up"

    # --- running ---

    def run(self):
        self.place = disks.scratch()
        self.disks, self.processes = [], []
        failure = None
        try:
            getattr(self, "run_" + self.mode)()
        except Fault as e:
            failure = str(e)
        except Exception:
            failure = traceback.format_exc()
        for p in self.processes:
            p.kill()
            p.wait()
        for d in reversed(self.disks):
            try:
                d.unmount()
            except RuntimeError as e:
                failure = failure or str(e)
        if failure and self.options.keep:
            failure += f"\nkept: {self.place}"
        else:
            disks.clear(self.place)
        self.disks = self.processes = None
        return self, failure

    def program(self, *arguments):
        return [f"{self.options.bin}/{arguments[0]}", *arguments[1:]]

    def step(self, k, one, command):
        """(exit status, the call that was not made)"""
        result = f"{self.place}/step"
        done = self.finish([f"{self.options.tools}/step", "-r", result, *(["-k", str(k)] if k else []),
                            *(["-1"] if one else []), *command])
        with open(result) as f:
            calls, missed = f.read().split()
        self.missed = missed
        if not k:
            self.counts["calls"] = int(calls)
        return done, missed

    def finish(self, command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Fault(f"hangs: {' '.join(command)}")

    def converge(self):
        """Until both sides are in sync; they must be soon."""
        for attempt in range(3):
            done = self.finish(self.reconcile)
            if done.returncode == 0:
                self.counts["again"] += attempt
                return
        raise Fault(f"does not converge: exit status {done.returncode}: {done.stdout}{done.stderr}")

    # --- judging ---

    def want(self, faults):
        if faults:
            raise Fault("; ".join(faults[:6]))

    def want_round(self, r):
        self.want([f for side in (self.a, self.b) for f in r.faults(side)])
        for side in (self.a, self.b):
            left = [n for n in os.listdir(f"{side}/.syncd/staging") if not n.startswith("partial-")]
            if left:  # but contents that were cut, and that nobody wanted any more
                raise Fault(f"left in staging: {left}")

    def want_equal(self):
        self.want(trees.differences(self.a, self.b))
        roots = [self.status(side)["root"] for side in (self.a, self.b)]
        if roots[0] != roots[1]:
            raise Fault(f"roots differ: {roots}")

    def status(self, side):
        done = self.finish(self.program("syncctl", "status", "--json", side))
        return json.loads(done.stdout)["folders"][0]

    # --- places ---

    def new_disk(self, name, recorded=False):
        image, at = f"{self.place}/{name}.img", f"{self.place}/{name}"
        disks.make(self.fs, image)
        d = disks.Recorded(self.fs, image, at, self.options.tools) if recorded else disks.Disk(self.fs, image, at)
        self.disks.append(d)
        return d.mount()

    def folders(self, a, b, rounds):
        """Two folders that are in sync, with what the rounds need."""
        self.a, self.b = f"{a.at}/a", f"{b.at}/b"
        self.reconcile = self.program("syncctl", "reconcile", self.a, self.b)
        os.mkdir(self.a)
        os.mkdir(self.b)
        for n in range(rounds):
            trees.Base(self.seed, n).make(f"{self.a}/r{n}")
        self.converge()

    def round(self, n):
        r = trees.Round(self.seed, n, self.a, self.b, f"r{n}")
        r.make()
        return r

    def calls_of_a_round(self):
        r = self.round(0)
        done, _ = self.step(0, False, self.reconcile)
        if done.returncode != 0:
            raise Fault(f"a run that nobody disturbs: {done.stdout}{done.stderr}")
        self.want_round(r)

    def which(self, point):
        """Before which call: each in turn where there are points enough, else as evenly spread."""
        n, at = self.counts["calls"], self.first + point
        if self.total >= n:
            return at % n + 1
        return 1 + int((at + self.rng.random()) * n / self.total) % n

    def dies(self, k, one):
        done, missed = self.step(k, one, self.reconcile)
        self.counts["ended before" if missed == "-" else "points"] += 1
        self.what += f", call {k} ({missed}{', one process' if one else ''})"
        if one and missed != "-" and done.returncode not in (137,) and not done.stderr.strip():
            raise Fault(f"the other process died, and nothing is said: exit status {done.returncode}")

    # --- modes ---

    def run_kill(self):
        d = self.new_disk("disk")
        self.folders(d, d, self.n + 1)
        self.calls_of_a_round()
        for point in range(self.n):
            self.what = f"point {point}"
            r = self.round(point + 1)
            self.dies(self.which(point), point % 4 == 3)
            for _ in range(self.rng.choice([0, 0, 0, 1, 2])):
                self.dies(self.rng.randint(1, 200), False)
            self.converge()
            self.want_round(r)
        self.want_equal()

    def run_power(self):
        a, b = self.new_disk("a", recorded=True), self.new_disk("b")
        self.folders(a, b, self.n + 1)
        self.calls_of_a_round()
        for point in range(self.n):
            synced = point % 2 == 0
            self.what = f"point {point}{'' if synced else ', unsynced'}"
            r = self.round(point + 1)
            if synced:
                a.sync()
            self.dies(self.which(point), False)
            at_b = trees.tree(f"{self.b}/{r.name}")
            a.lose_power(self.rng)
            a.mount()
            self.converge()
            self.want_as_safe(r, synced, at_b)
        self.want_equal()

    def want_as_safe(self, r, synced, at_peer):
        """The round is there; what its user did not sync may be lost, but not once a peer has it."""
        if synced:
            self.want_round(r)
            return
        now = trees.tree(f"{self.a}/{r.name}")
        self.want([f"{path}: is {now.get(path)}, was {there} at the peer" for path, there in at_peer.items()
                   if trees.same(there, r.expected.get(path)) and not trees.same(there, r.before.get(path))
                   and not trees.same(there, now.get(path))])
        self.want(trees.differences(f"{self.a}/{r.name}", f"{self.b}/{r.name}"))

    def run_replay(self):
        synced = self.number % 3 != 2
        d = self.new_disk("disk", recorded=True)
        self.folders(d, d, 1)
        r = self.round(0)
        if synced:
            d.sync()
        begin = d.now()
        self.converge()
        end = d.now()
        d.unmount()
        log = disks.Log(d.log)
        flushes = [f for f in log.flushes if begin <= f <= end]
        copied = disks.Disk(self.fs, f"{self.place}/copy.img", d.at)
        self.disks.append(copied)
        disk = disks.Rolling(d.base, log)
        step = max(1, len(flushes) / self.n)
        for point in range(min(self.n, len(flushes))):
            n = int((point + (self.rng.random() if step > 1 else 0)) * step)
            self.what = f"flush {n} of {len(flushes)}{'' if synced else ', unsynced'}"
            self.counts["points"] += 1
            disk.forward(flushes[n])
            disks.copy(disk.image, copied.image)
            if point % 2:
                part = disks.Rolling(copied.image, log)
                part.next = disk.next
                part.loss(self.rng, flushes[n + 1] if n + 1 < len(flushes) else end)
                self.what += ", and a part of what follows"
            copied.mount()
            at_b = trees.tree(f"{self.b}/{r.name}")
            self.converge()
            self.want_as_safe(r, synced, at_b)
            self.want_equal()
            copied.unmount()
            if point % 8 == 0:
                disks.check(self.fs, copied.image)

    def run_daemon(self):
        d = self.new_disk("disk")
        self.folders(d, d, self.n + 1)
        self.calls_of_a_round()
        other = self.start("b", f"[folder t]\npath = {self.b}\nsettle = 50ms\n")
        for point in range(self.n):
            self.what = f"point {point}"
            result = f"{self.place}/step"
            k = self.rng.randint(1, 350)
            stepped = self.start("a", f"[folder t]\npath = {self.a}\nsettle = 50ms\n[peer b]\nfolder = t\naddress = {self.b}\n",
                                 [f"{self.options.tools}/step", "-r", result, "-k", str(k)])
            time.sleep(self.rng.random() * 0.3)
            other.send_signal(signal.SIGSTOP)  # what users did is looked at before it is exchanged
            r = self.round(point + 1)
            other.send_signal(signal.SIGCONT)
            while stepped.poll() is None and not self.alike(r):
                time.sleep(0.02)
            if stepped.poll() is None:
                stepped.terminate()  # it did all there was to do before its time came; all that it traces is killed
                self.counts["ended before"] += 1
            else:
                self.counts["points"] += 1
            stepped.wait()
            self.processes.remove(stepped)
            self.what += f", call {k}"
            again = self.start("a")
            self.patiently(lambda: self.alike(r), lambda: self.want_round(r))
            self.patiently(lambda: self.finish(self.program("syncctl", "status", "--json", "-s", f"{self.place}/a.sock")).stdout,
                           lambda: None)
            again.terminate()
            if again.wait(LIMIT_S) != 0:
                raise Fault(f"the daemon ends with {again.returncode}: {self.log('a')}")
            self.processes.remove(again)
            self.want_round(r)

    def alike(self, r):
        try:
            return not any(r.faults(side) for side in (self.a, self.b))
        except OSError:
            return False  # it is being changed

    def patiently(self, wanted, otherwise):
        until = time.monotonic() + 60
        while not wanted():
            if time.monotonic() > until:
                otherwise()
                raise Fault(f"takes too long: {self.log('a')}")
            time.sleep(0.05)

    def log(self, name):
        with open(f"{self.place}/{name}.log") as f:
            return "".join(f.readlines()[-5:])

    def start(self, name, config=None, before=()):
        own = f"{self.place}/{name}"
        if config:
            with open(own + ".conf", "w") as f:
                f.write(config)
        with open(own + ".log", "a") as f:
            p = subprocess.Popen([*before, *self.program("syncd", "-c", own + ".conf", "-s", own + ".sock", "-S", own + ".state")],
                                 stdout=f, stderr=f)
        self.processes.append(p)
        return p


def leave_out(options):
    """What this machine's kernel can't do; said, and not counted."""
    with open("/proc/filesystems") as f:
        known = f.read().split()
    for fs in list(options.fs):
        if fs not in known and subprocess.run(["modprobe", "-q", fs], check=False).returncode != 0:
            options.fs.remove(fs)
            print(f"left out: {fs}, which the kernel does not have", flush=True)
    for mode in ("power", "replay"):
        if mode in options.modes and not os.access("/dev/fuse", os.R_OK | os.W_OK):
            options.modes.remove(mode)
            print(f"left out: {mode}, as there is no /dev/fuse", flush=True)
    return options.fs and options.modes


def plan(options):
    batches = []
    whole = sum(SHARES[m] for m in options.modes)
    for mode in options.modes:
        total = max(1, round(options.points * SHARES[mode] / whole / len(options.fs)))
        for fs in options.fs:
            for number, first in enumerate(range(0, total, BATCH[mode])):
                batches.append(Batch(options, mode, fs, number, first, min(BATCH[mode], total - first), total))
    if options.only:
        mode, fs, number = options.only.split("/")
        batches = [b for b in batches if (b.mode, b.fs, b.number) == (mode, fs, int(number))]
    # the long ones first
    return sorted(batches, key=lambda b: list(SHARES).index(b.mode), reverse=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bin")
    p.add_argument("tools")
    p.add_argument("--points", type=int, default=1000)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--fs", type=lambda s: s.split(","), default=["ext4", "xfs", "btrfs"])
    p.add_argument("--modes", type=lambda s: s.split(","), default=list(SHARES))
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--only")
    p.add_argument("--keep", action="store_true")
    options = p.parse_args()
    if not leave_out(options):
        return 1
    batches = plan(options)
    print(f"{options.points} points on {', '.join(options.fs)}, seed {options.seed}", flush=True)
    began, done, failed = time.monotonic(), {}, 0
    with multiprocessing.Pool(options.jobs) as pool:
        for batch, failure in pool.imap_unordered(Batch.run, batches):
            counts = done.setdefault((batch.mode, batch.fs), {})
            for key, n in batch.counts.items():
                counts[key] = max(counts.get(key, 0), n) if key == "calls" else counts.get(key, 0) + n
            if failure:
                failed += 1
                print(f"FAILED {batch.mode}/{batch.fs}/{batch.number}, {batch.what}: {failure}\n  again: POINTS={options.points} "
                      f"SEED={options.seed} ONLY={batch.mode}/{batch.fs}/{batch.number}", flush=True)
    print(f"{'mode':8}{'on':8}{'points':>8}{'ended before':>14}{'calls in a run':>16}{'runs more than one':>20}")
    for (mode, fs), c in sorted(done.items()):
        print(f"{mode:8}{fs:8}{c['points']:8}{c['ended before']:14}{c['calls']:16}{c['again']:20}")
    print(f"{sum(c['points'] for c in done.values())} points in {time.monotonic() - began:.0f} s, {failed} batches failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

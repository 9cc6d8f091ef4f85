#!/usr/bin/env python3
"""Failing calls and allocations of the real programs, one at a time; see tests/README.md.

usage: faults.py BIN TOOLS [--depth N] [--each [KIND:]N] [--every N] [--seed S] [--jobs N] [--budget SECONDS]
                           [--what calls,allocations,lasting,daemon] [--only PLACE/ERRNO] [--skip N] [--again N]

  calls        each place that calls the file system fails once, with each errno of its call (--each: with N of them; daemon:N: there only)
  allocations  each place that allocates fails once (--every: one in so many of them, and of a daemon's)
  lasting      each call fails wherever it is made, until the program ends, with each errno
  daemon       places that only a daemon has, while it starts, while users edit, and while it stops

  --skip       each place goes well so many times before it fails
  --again      what failed is tried so many times more; if it goes well each time, it is told, and does not count ("seldom"): chance
               has a part in it (what users do before a scan, or after), and one of thousands may not be the change that is checked

A run that fails must say why; none may die or hang; and once the fault is over the next run brings both folders to what the
users made of them. "went on": all was done all the same; "later": the next run removed something from staging/;
"known": what KNOWN lists, and why it is so. What comes in where the budget ends is left out, and told: first each place fails
once, and which errno is taken is drawn by the seed.
"""
import argparse
import errno
import mmap
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback

import crash
import disks
import trees

CREATE = "ENOSPC EDQUOT EIO EROFS EACCES ENOMEM"
ERRNOS = {
    "openat2": "EACCES EIO EMFILE ENFILE ENOMEM EAGAIN EINTR ESTALE",
    "openat2(O_CREAT)": CREATE + " EMFILE ENFILE",
    "open": "EACCES EIO EMFILE ENFILE ENOMEM", "open64": "EACCES EIO EMFILE ENFILE ENOMEM",
    "statx": "EIO ENOMEM ESTALE", "stat64": "EACCES EIO ENOMEM", "lstat64": "EACCES EIO ENOMEM",
    "readlinkat": "EACCES EIO ENOMEM", "getdents64": "EIO ENOMEM",
    "fstatfs": "EIO ENOMEM", "fstatfs64": "EIO ENOMEM", "fstatvfs64": "EIO ENOMEM",
    "pread": "EIO", "pread64": "EIO EINTR", "preadv64v2": "EIO EINTR", "read": "EIO",
    "pwrite": "ENOSPC EDQUOT EIO EFBIG", "pwrite64": "ENOSPC EDQUOT EIO EFBIG EINTR",
    "pwritev64v2": "ENOSPC EDQUOT EIO EFBIG EINTR EOPNOTSUPP",
    "write": "ENOSPC EDQUOT EIO", "writev": "ENOSPC EDQUOT EIO",
    "ftruncate": "EIO EFBIG", "ftruncate64": "EIO EFBIG ENOSPC EINTR", "lseek64": "EINVAL EIO",
    "copy_file_range": "EIO ENOSPC EXDEV EOPNOTSUPP EINVAL ENOMEM", "fallocate64": "EOPNOTSUPP EIO ENOSPC",
    "mkdirat": CREATE + " EMLINK", "mkdir": CREATE + " EMLINK",
    "symlinkat": CREATE,  # EPERM says for good that a file system has none
    "linkat": CREATE + " EPERM EMLINK", "unlinkat": "EIO EROFS EACCES EPERM EBUSY ENOMEM",
    "unlink": "EIO EROFS EACCES EPERM", "renameat2": CREATE + " EPERM EBUSY EINVAL EXDEV",
    # EPERM says for good that this user or file system can't: what can't be stored stays in the record
    "fchmod": "EIO EROFS EDQUOT", "fchown": "EIO EROFS EDQUOT", "fchownat": "EIO EROFS EDQUOT",
    "futimens": "EIO EROFS", "utimensat": "EIO EROFS",
    "fsync": "EIO ENOSPC EDQUOT", "fdatasync": "EIO ENOSPC EDQUOT", "syncfs": "EIO ENOSPC EDQUOT",
    "sync_file_range": "EIO ENOSPC", "flock": "ENOLCK EINTR", "dup": "EMFILE",
    "inotify_init1": "EMFILE ENFILE ENOMEM", "inotify_add_watch": "ENOSPC ENOMEM EACCES",
    "mmap": "ENOMEM EAGAIN", "ioctl": "ENOTTY EOPNOTSUPP EINVAL EPERM EIO",
    "fcntl": "EAGAIN ENOLCK EINVAL", "fcntl64": "EAGAIN EACCES ENOLCK EINVAL",
}
CALLS, ALLOCATIONS = 1, 2
ALLOCATORS = ("malloc", "calloc", "realloc")
CONTROL = struct.Struct("=QiIiiII28s")
PERSISTENT = 1 << 30
REPEATS = 2  # of a run that did not come by the place
ROUNDS = 4  # made at once: each run scans them all


# What is known, and cannot be had for now: (outcome, call, errno, function or file that is among those that led there, why).
# "*": any. Each is told in DESIGN.md, "Known". "aborted": it ends the program; "untold": it says "in sync", and the sides differ until
# the next run; "kept": a conflict copy that no user made, or one that is in trash instead, and nothing is missing.
KNOWN = [
    # As there is nothing to be done about it but to look again, which the next scan does.
    ("untold", "statx", "*", "stamp_copy", "a conflict copy that could not be looked at is no event before the next scan"),
    ("untold", "*", "ENOMEM", "to_aside", "nor is one that there was no memory for to note"),
    # Who seems to have it open for writing may be writing to it.
    ("kept", "fcntl64", "EAGAIN", "being_written", "what was being replaced when the program was killed, and is open for writing, is a user's"),
    # The program is recovered like one that was killed.
    ("aborted", "*", "ENOMEM", "*", "libcrypto (merkle/hash.c), libuv, and threads that it can't start"),
]


def is_known(outcome, place, call, error):
    return any(k[0] == outcome and k[1] in ("*", call) and k[2] in ("*", error) and (k[3] == "*" or place and place.led_by(k[3]))
               for k in KNOWN)


class Place:
    """A call and where it comes from."""

    def __init__(self, line, program):
        self.program = program
        name, self.call, *self.frames = line.split()
        self.id = int(name, 16)
        self.low = int(self.frames[0].split("+")[1], 16) & 0xfff if self.frames else 0
        self.what = ALLOCATIONS if self.call in ALLOCATORS else CALLS

    def aborts(self, code):
        return self.what == ALLOCATIONS and code in (-signal.SIGABRT, -signal.SIGSEGV) and self.frames[0].startswith(("libcrypto", "libuv", "ld-linux"))

    def lines(self, program):
        own = [f.split("+")[1] for f in self.frames if f.startswith("program+")]
        return disks.call("addr2line", "-f", "-s", "-e", program, *(hex(int(a, 16) - 1) for a in own)).split("\n") if own else []

    def led_by(self, function):
        return function in self.lines(self.program)

    def functions(self):
        out = self.lines(self.program)
        return " < ".join(f"{out[i]} ({out[i + 1]})" for i in range(0, len(out) - 1, 2)) + " ".join(
            f" in {f}" for f in self.frames if not f.startswith("program+"))


class Control:
    """What the preloaded library looks at."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(4096))
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)

    def arm(self, place=None, call="", what=CALLS, error=0, skip=0, left=1):
        if place:
            call, what = place.call, place.what
        self.map[:CONTROL.size] = CONTROL.pack(place.id if place else 0, error, what, skip, left, 0,
                                               place.low if place else 0, call.encode())

    def disarm(self):
        """How often it failed."""
        hits = CONTROL.unpack(self.map[:CONTROL.size])[5]
        self.map[:CONTROL.size] = bytes(CONTROL.size)
        return hits


class Bench(crash.Batch):
    """Two folders on ext4, in a process of its own, and what fails in them one after the other."""

    def __init__(self, options, number):
        super().__init__(options, "faults", "ext4", number, 0, 0, 0)
        self.place = disks.scratch()
        self.disks, self.processes = [], []
        self.control = Control(f"{self.place}/control")
        self.disk = self.new_disk("disk")
        self.made = self.pairs = 0
        self.rounds = []
        self.new_folders()

    def new_folders(self):
        if self.pairs:
            self.ended()
            subprocess.run(["rm", "-rf", self.a, self.b])
        self.pairs += 1
        self.a, self.b = f"{self.disk.at}/a{self.pairs}", f"{self.disk.at}/b{self.pairs}"
        for d in (self.a, self.b):
            os.mkdir(d)
        self.reconcile = self.program("syncctl", "reconcile", self.a, self.b)
        self.rounds, self.over = [], []

    def ended(self):
        """What went on is as it was: runs that come later neither undo it nor find more to do."""
        if not self.over:
            return
        self.converge()
        for r, what in self.over:
            try:
                self.want_round(r)
            except crash.Fault as e:
                raise crash.Fault(f"of an earlier fault, {what}: {e}")

    def more_rounds(self):
        self.new_folders()
        for n in range(ROUNDS):
            trees.Base(self.seed, self.made).make(f"{self.a}/r{n}")
            self.rounds.append((self.made, n))
            self.made += 1
        self.converge()

    def next_round(self):
        if not self.rounds:
            self.more_rounds()
        made, n = self.rounds.pop(0)
        r = trees.Round(self.seed, made, self.a, self.b, f"r{n}")
        r.make()
        return r

    def preloaded(self, log=None):
        env = dict(os.environ, LD_PRELOAD=f"{self.options.tools}/fault.so", FAULT_CONTROL=self.control.path,
                   FAULT_DEPTH=str(self.options.depth))
        return dict(env, FAULT_LOG=log) if log else env

    def faulty(self, command, log=None):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=crash.LIMIT_S, env=self.preloaded(log))
        except subprocess.TimeoutExpired:
            raise crash.Fault("hangs")

    # --- what comes before the run in which something fails ---

    def before_round(self):
        return self.next_round()

    def before_recover(self):
        """A run was killed while it put things in place."""
        r = self.next_round()
        self.step(self.rng.randint(250, 420), False, self.reconcile)
        return r

    def before_new(self):
        """Folders that never met; nothing was synced yet."""
        self.new_folders()
        trees.Base(self.seed, self.made).make(f"{self.a}/r0")
        r = trees.Round(self.seed, self.made, self.a, self.a, "r0", edits=["new"], conflict=False)
        self.made += 1
        r.make()
        r.expected = trees.tree(f"{self.a}/r0")
        return r

    # --- one thing fails ---

    def judge(self, r, done, place=None):
        said = done.stderr.strip()
        if place and place.aborts(done.returncode):
            return "aborted"
        if done.returncode < 0 or done.returncode >= 128:
            raise crash.Fault(f"dies: {done.returncode} {said[-300:]}")
        if "AddressSanitizer" in said or "runtime error" in said:
            raise crash.Fault(f"sanitizer: {said[-2000:]}")
        if done.returncode != 0 and not said:
            raise crash.Fault(f"exit status {done.returncode}, and nothing is said: {done.stdout}")
        if done.returncode != 0:
            return "told"
        untold = [f for side in (self.a, self.b) for f in r.faults(side)]
        if untold:
            self.why = "; ".join(untold[:3])
            return "untold"
        return "later" if any(os.listdir(f"{side}/.syncd/staging") for side in (self.a, self.b)) else "went on"

    def try_one(self, scenario, arm):
        r = getattr(self, "before_" + scenario)()
        self.control.arm(**arm)
        done = self.faulty(self.reconcile)
        hits = self.control.disarm()
        outcome = self.judge(r, done, arm.get("place"))
        if outcome == "went on":
            self.over.append((r, self.name))
        else:
            self.converge()
            outcome = self.settled(r, outcome)
        return outcome if hits else "not reached"

    def settled(self, r, outcome):
        """What the next run made of it."""
        try:
            self.want_round(r)
        except crash.Fault as e:
            if not r.kept(self.a, self.b):
                raise
            self.why = str(e)
            return "kept"
        return outcome

    # --- a daemon ---

    def daemon_config(self):
        return f"[folder t]\npath = {self.a}\nsettle = 50ms\n[peer b]\nfolder = t\naddress = {self.b}\n"

    def daemon_start(self, log=None):
        own = f"{self.place}/a"
        with open(own + ".conf", "w") as f:
            f.write(self.daemon_config())
        with open(own + ".log", "w") as f:
            p = subprocess.Popen(self.program("syncd", "-c", own + ".conf", "-s", own + ".sock", "-S", own + ".state"),
                                 stdout=f, stderr=f, env=self.preloaded(log))
        self.processes.append(p)
        return p

    def daemon_end(self, p, place=None):
        until = time.monotonic() + crash.LIMIT_S
        if p.poll() is None:
            p.terminate()
        while p.poll() is None:
            if time.monotonic() > until:
                raise crash.Fault("the daemon does not end")
            time.sleep(0.01)
        self.processes.remove(p)
        said = self.log("a")
        if place and place.aborts(p.returncode):
            return None
        if p.returncode < 0 and p.returncode != -signal.SIGTERM:
            raise crash.Fault(f"the daemon dies: {p.returncode} {said}")
        if p.returncode > 0 and "rror" not in said and ":" not in said:
            raise crash.Fault(f"the daemon ends with {p.returncode}, and nothing is said")
        return p.returncode

    def daemon_round(self, log=None):
        """The daemon runs while users edit; None, or how it ended before its time."""
        p = self.daemon_start(log)
        self.wait(lambda: os.path.exists(f"{self.a}/.syncd/lock") or p.poll() is not None, 10)
        time.sleep(self.rng.random() * 0.4)  # before its first scan, during it, or after
        p.send_signal(signal.SIGSTOP)  # what users did is looked at before it is exchanged
        r = self.next_round() if self.rounds else None
        p.send_signal(signal.SIGCONT)
        if r is None:
            self.daemon_end(p)
            self.next_round()
            return self.daemon_round(log)
        alive = self.wait(lambda: p.poll() is not None or self.alike(r), 30)
        ended = p.poll() is not None
        return p, r, alive, ended

    def wait(self, wanted, seconds):
        until = time.monotonic() + seconds
        while not wanted():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def try_daemon(self, arm):
        if len(self.rounds) < 2:
            self.more_rounds()
        self.control.arm(**arm)
        p, r, _, ended = self.daemon_round()
        code = self.daemon_end(p, arm.get("place"))
        hits = self.control.disarm()
        outcome = "aborted" if code is None else "told" if ended or code else "went on"
        said = self.log("a")
        if "AddressSanitizer" in said or "runtime error" in said:
            raise crash.Fault(f"sanitizer: {said}")
        if not ended and code is not None and not self.alike(r):
            # It is alive, and must have said why; the next one brings it about.
            outcome = "told"
            if "rror" not in said and "arning" not in said:
                raise crash.Fault(f"does not go on, and says nothing: {said}")
        self.converge()
        return self.settled(r, outcome) if hits else "not reached"

    def close(self):
        for p in self.processes:
            p.kill()
            p.wait()
        for d in self.disks:
            d.unmount()
        disks.clear(self.place)


# --- places ---

def places(options):
    """Each place once: (place, in which scenario it was seen first)."""
    bench, found = Bench(options, -1), {}
    try:
        for what, name in ((CALLS, "calls"), (ALLOCATIONS, "allocations")):
            if not {name, "daemon", "lasting" if what == CALLS else name} & set(options.what):
                continue
            for scenario, times in (("round", 2), ("new", 1), ("recover", 3), ("daemon", 1)):
                log = f"{bench.place}/log"
                if os.path.exists(log):
                    os.unlink(log)
                if scenario == "daemon" and "daemon" not in options.what:
                    continue
                for _ in range(times):
                    if scenario == "daemon":
                        bench.more_rounds()
                    r = getattr(bench, "before_" + scenario)() if scenario != "daemon" else None
                    bench.control.arm(what=what, left=0, call="-")
                    if scenario == "daemon":
                        p, r, _, _ = bench.daemon_round(log)
                        bench.daemon_end(p)
                    else:
                        bench.judge(r, bench.faulty(bench.reconcile, log))
                    bench.control.disarm()
                    bench.converge()
                with open(log) as f:
                    for line in f:
                        p = Place(line, f"{options.bin}/{'syncd' if scenario == 'daemon' else 'syncctl'}")
                        found.setdefault(p.id, (p, scenario))
        return list(found.values())
    finally:
        bench.close()


def each_of(options, kind):
    """How many errnos each place is to have; 0: all."""
    of, _, n = options.each.rpartition(":")
    return int(n) if of in ("", kind) else 0


def pairs(each, rng, found, errors):
    """Each place with each errno; or each place so often, and each errno at some place at least."""
    found = rng.sample(found, len(found))
    if not each:
        return [(p, e) for p in found for e in errors]
    n = max(len(found) * min(each, len(errors)), len(errors)) if found else 0
    return [(found[i % len(found)], errors[(i + i // len(found)) % len(errors)]) for i in range(n)]


def tasks(options, known):
    rng = random.Random(f"faults {options.seed}")
    out, by_call = [], {}
    for place, scenario in sorted(known, key=lambda k: k[0].id):
        kind = "daemon" if scenario == "daemon" else "allocations" if place.what == ALLOCATIONS else "calls"
        by_call.setdefault((kind, place.call), []).append((place, scenario))
    for (kind, call), found in sorted(by_call.items()):
        if kind in options.what:
            errors = ["ENOMEM"] if call in ALLOCATORS else ERRNOS[call].split()
            some = [(kind, s, p, call, e) for (p, s), e in pairs(each_of(options, kind), rng, found, errors)]
            out += some if kind == "calls" else rng.sample(some, (len(some) + options.every - 1) // options.every)
    if "lasting" in options.what:
        for kind, call in sorted(by_call):
            if kind == "calls":
                errors = [e for e in ERRNOS[call].split() if e != "EINTR"]  # for ever, there is no such signal
                out += [("lasting", "round", None, call, e) for e in rng.sample(errors, min(each_of(options, "lasting") or 99, len(errors)))]
    if options.only:
        wanted = options.only.split(",")
        out = [t for t in out if {t[3], f"{t[3]}/{t[4]}", f"{t[2].id:016x}/{t[4]}" if t[2] else ""} & set(wanted)]
    return in_passes(out, rng)


def in_passes(tasks, rng):
    """Each place once, calls first, then each once more: what a budget leaves out is the rest of the errnos."""
    seen, ordered = {}, []
    for t in rng.sample(tasks, len(tasks)):
        at = (t[0], t[2].id if t[2] else t[3])
        seen[at] = seen.get(at, -1) + 1
        ordered.append(((seen[at], t[0] == "allocations"), t))
    return [t for _, t in sorted(ordered, key=lambda o: o[0])]


def one(bench, scenario, place, call, name):
    error = getattr(errno, name)
    bench.why, bench.name = "it ends", f"{call} {name} at {place.functions() if place else 'everywhere'}"
    arm = dict(place=place, error=error, skip=bench.options.skip) if place else dict(call=call, error=error, left=PERSISTENT)
    for _ in range(REPEATS):
        outcome = bench.try_daemon(arm) if scenario == "daemon" else bench.try_one(scenario, arm)
        if outcome != "not reached":
            break
    if outcome not in ("untold", "kept", "aborted"):
        return outcome
    if not is_known(outcome, place, call, name):
        raise crash.Fault(f"{outcome}, and not known: {bench.why}")
    return "known"


def work(job):
    """Some tasks on a bench of their own: ([(task, outcome, failure)], seconds of processors)."""
    options, number, mine = job
    results, bench = [], None
    for n, task in enumerate(mine):
        _, scenario, place, call, name = task
        outcome, failure = "FAILED", None
        if options.until and time.monotonic() > options.until:
            outcome = "left out"
        else:
            try:
                bench = bench or Bench(options, number)
                outcome = one(bench, scenario, place, call, name)
                if n + 1 == len(mine):
                    bench.ended()
            except crash.Fault as e:
                failure = str(e)
            except Exception:
                failure = traceback.format_exc()
        if failure:
            try:
                bench.close()
            except Exception as e:
                failure += f"; {e}"
            bench, number = None, number + 100000
        results.append((task, "FAILED" if failure else outcome, failure))
    if bench:
        bench.close()
    return results


OUTCOMES = ("went on", "told", "later", "known", "not reached", "seldom", "FAILED", "left out")


def show(table):
    print(f"{'':9}{'call':18}{'errno':12}" + "".join(f"{o:>12}" for o in OUTCOMES))
    whole = {}
    for (kind, call, name), row in sorted(table.items()):
        print(f"{kind:9}{call:18}{name:12}" + "".join(f"{row.get(o, 0):12}" for o in OUTCOMES))
        for o, n in row.items():
            whole[o] = whole.get(o, 0) + n
    print(f"{'all':39}" + "".join(f"{whole.get(o, 0):12}" for o in OUTCOMES))


def row_of(table, task):
    kind, _, _, call, name = task
    return table.setdefault((kind if kind in ("lasting", "daemon") else "once", call, name), {})


def run(options, todo):
    """(table, the tasks that failed)"""
    size = max(1, min(30, len(todo) // options.jobs))
    jobs = [(options, n, todo[at:at + size]) for n, at in enumerate(range(0, len(todo), size))]
    table, failed = {}, []
    with multiprocessing.Pool(options.jobs) as pool:
        for results in pool.imap_unordered(work, jobs):
            for task, outcome, failure in results:
                _, scenario, place, call, name = task
                row = row_of(table, task)
                row[outcome] = row.get(outcome, 0) + 1
                if failure:
                    failed.append(task)
                    print(f"FAILED {call} {name} ({scenario}) at {place.functions() if place else 'everywhere'}: {failure[:1500]}\n"
                          f"  again: ONLY={f'{place.id:016x}' if place else call}/{name}", flush=True)
        pool.close()
        pool.join()
    return table, failed


def try_again(options, table, failed):
    """How many of those that failed do so again; the others are counted as seldom."""
    again = 0
    for task in failed:
        _, fails = run(options, [task] * options.again)
        again += bool(fails)
        if not fails:
            row = row_of(table, task)
            row["FAILED"] -= 1
            row["seldom"] = row.get("seldom", 0) + 1
    return again


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bin")
    p.add_argument("tools")
    p.add_argument("--depth", type=int, default=3)
    p.add_argument("--each", default="0")
    p.add_argument("--every", type=int, default=1)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--what", type=lambda s: s.split(","), default=["calls", "allocations", "lasting", "daemon"])
    p.add_argument("--budget", type=float, default=0)
    p.add_argument("--only")
    p.add_argument("--skip", type=int, default=0)
    p.add_argument("--again", type=int, default=0)
    options = p.parse_args()
    options.bin, options.tools, options.keep = os.path.abspath(options.bin), os.path.abspath(options.tools), False
    began = time.monotonic()
    options.until = began + options.budget if options.budget else 0
    known = places(options)
    todo = tasks(options, known)
    print(f"{len(known)} places, {len(todo)} faults, seed {options.seed}", flush=True)
    table, failed = run(options, todo)
    failed = try_again(options, table, failed) if options.again else len(failed)
    show(table)
    spent = os.times()
    print(f"{len(todo)} faults in {time.monotonic() - began:.0f} s, {sum(spent[:4]):.0f} s of processors; {failed} failed, "
          f"{sum(row.get('left out', 0) for row in table.values())} left out for lack of time")
    return 1 if failed or not todo else 0


if __name__ == "__main__":
    sys.exit(main())

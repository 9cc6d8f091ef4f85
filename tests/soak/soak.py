#!/usr/bin/env python3
"""Three machines, users on each, and all that may befall them; see tests/README.md.

usage: soak.py BIN CLOCK.so [--minutes N] [--epoch SECONDS] [--seed S] [--harm LIST] [--diary FILE] [--keep]

Each machine is a network namespace with an sshd, a daemon and a file system of its own; the links between them are relays. In an
epoch users work on all of them, while links are slow, one-way, refused or cut, daemons are stopped and killed, event queues overflow,
disks are full and clocks are wrong. Then all that ends, and within a time all three must be equal, and have what users.py says.
"""
import argparse
import itertools
import json
import mmap
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crash"))
import disks
import trees
import users
from link import Link

CALM_S = 120 * int(os.environ.get("PATIENCE", "1"))
DISK_MIB = 640
PORT = 22
YEAR_S = 365 * 86400
EVENTS = 20_000  # more than fs.inotify.max_queued_events
NAMES = ("a", "b", "c")
SPARED = "c"  # never killed: its memory is watched from the first epoch to the last
LEAST_EPOCHS = 4  # to judge memory
GROWTH, GROWTH_KIB, GROWTH_FDS = 1.3, 8192, 8


class Fault(Exception):
    pass


def seen(root):
    """A directory that one user deleted while another one worked in it is there only for what is in it: its mode is local."""
    found = trees.tree(root)
    for path, o in found.items():
        if path.startswith("wild/") and stat.S_ISDIR(o.kind):
            o.mode = 0
    return found


class Machine:
    def __init__(self, soak, name, number):
        self.soak, self.name, self.place = soak, name, f"{soak.place}/{name}"
        self.ip, self.hub = f"10.99.{number}.2", f"10.99.{number}.1"
        self.disk = self.daemon = None
        os.mkdir(self.place)
        self.processes = [subprocess.Popen(["unshare", "-n", "sleep", "infinity"])]
        self.connect(number)
        image = f"{self.place}/disk"
        self.fs = list(disks.MAKE)[number % len(disks.MAKE)]
        disks.make(self.fs, image, DISK_MIB)
        self.disk = disks.Disk(self.fs, image, f"{self.place}/at").mount()
        self.root = f"{self.disk.at}/tree"
        os.mkdir(self.root)
        with open(f"{self.place}/clock", "wb") as f:
            f.write(bytes(8))
        with open(f"{self.place}/clock", "r+b") as f:
            self.clock = mmap.mmap(f.fileno(), 8)

    def connect(self, number):
        holder = self.processes[0].pid
        here = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder}/ns/net") == here:
            time.sleep(0.01)
        self.inside = ["nsenter", "-t", str(holder), "-n", "--"]
        disks.call("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder))
        disks.call("ip", "addr", "add", f"{self.hub}/24", "dev", f"v{number}")
        disks.call("ip", "link", "set", f"v{number}", "up")
        for command in ("addr add {}/24 dev eth0", "link set eth0 up", "link set lo up"):
            disks.call(*self.inside, "ip", *command.format(self.ip).split())

    def start_sshd(self):
        keys = f"{self.soak.place}/keys"
        with open(f"{self.place}/sshd", "w") as f:
            f.write(f"ListenAddress {self.ip}:{PORT}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/key.pub\nPidFile none\n"
                    "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                    "MaxStartups 100\n")
        self.processes.append(subprocess.Popen([*self.inside, "/usr/sbin/sshd", "-D", "-f", f"{self.place}/sshd", "-E",
                                                f"{self.place}/sshd.log"]))

    def configure(self, peers):
        """peers: their names, and the ports of the relays here that lead to them."""
        text = f"""[daemon]
log_level = {'debug' if self.soak.options.diary else 'info'}
[folder t]
path = {self.root}
settle = 200ms
interval = 20s
rescan_interval = 60s
tombstone_grace = 15s
trash_max = 40M
"""
        for name, port in peers.items():
            root = self.soak.machines[name].root
            text += f"""[peer {name}]
folder = t
address = ssh://root@{self.hub}:{port}{root}
identity = {self.soak.place}/keys/key
known_hosts = {self.soak.place}/keys/known
syncctl_path = env SYNCD_SOCKET={self.soak.machines[name].place}/sock {self.soak.options.bin}/syncctl
"""
        with open(f"{self.place}/conf", "w") as f:
            f.write(text)

    def start(self):
        self.daemon = subprocess.Popen(
            [*self.inside, "env", f"LD_PRELOAD={self.soak.options.clock}", f"SOAK_CLOCK={self.place}/clock",
             f"{self.soak.options.bin}/syncd", "-c", f"{self.place}/conf", "-s", f"{self.place}/sock", "-S", f"{self.place}/state"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        threading.Thread(target=self.listen, args=(self.daemon.stdout,), daemon=True).start()

    def listen(self, pipe):
        for line in pipe:
            self.soak.diary.note(self.name, line.rstrip())

    def alive(self):
        return self.daemon and self.daemon.poll() is None

    def end(self, how):
        self.daemon.send_signal(how)
        self.daemon.send_signal(signal.SIGCONT)
        self.daemon.wait()

    def set_clock(self, seconds):
        self.clock[:] = struct.pack("=q", seconds)

    def ctl(self, *arguments, limit=20):
        try:
            return subprocess.run([f"{self.soak.options.bin}/syncctl", *arguments, "-s", f"{self.place}/sock"], capture_output=True,
                                  text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return None

    def status(self):
        done = self.ctl("status", "--json")
        return json.loads(done.stdout)["folders"][0] if done and done.stdout.startswith("{") else None

    def memory(self):
        """KiB of anonymous memory, descriptors."""
        with open(f"/proc/{self.daemon.pid}/status") as f:
            anonymous = next(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))
        return anonymous, len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def close(self):
        if self.alive():
            self.end(signal.SIGKILL)
        for p in reversed(self.processes):
            p.kill()
            p.wait()
        if self.disk:
            self.disk.unmount()


class Nemesis(threading.Thread):
    """Does harm until it is told to stop, and then has all of it undone."""

    def __init__(self, soak, rng):
        super().__init__(daemon=True)
        self.soak, self.rng, self.stopped, self.failure = soak, rng, threading.Event(), None
        self.undo = []  # (when, what)
        self.busy = set()  # daemons that are stopped or dead, disks that are full

    def run(self):
        try:
            while not self.stopped.wait(self.rng.uniform(0.3, 2.5)):
                self.undo_due(time.monotonic())
                what = getattr(self, self.rng.choice(self.soak.options.harm.split(",")))
                if what():
                    self.soak.diary.note("nemesis", what.__name__, sorted(self.busy))
                    self.soak.harm[what.__name__] = self.soak.harm.get(what.__name__, 0) + 1
            self.undo_due(float("inf"))
            for link in self.soak.links:
                link.heal()
        except Exception as e:
            self.failure = e

    def undo_due(self, now):
        for when, what in [u for u in self.undo if u[0] <= now]:
            what()
        self.undo = [u for u in self.undo if u[0] > now]

    def later(self, least, most, what):
        self.undo.append((time.monotonic() + self.rng.uniform(least, most), what))

    def machine(self, spare=False):
        """One that nothing is done to already."""
        free = [m for m in self.soak.machines.values() if m.name not in self.busy and not (spare and m.name == SPARED)]
        if not free:
            return None
        m = self.rng.choice(free)
        self.busy.add(m.name)
        return m

    def free(self, m):
        self.busy.discard(m.name)

    def link(self):
        return self.rng.choice(self.soak.links)

    def cut(self):
        self.link().cut(self.rng.choice([0, 1, 100, 5000, 100_000]))
        return True

    def hold(self, links, ways, least, most):
        for link in links:
            link.held = frozenset(ways)

        def undo():
            for link in links:
                link.held = frozenset()
                if self.rng.random() < 0.5:
                    link.cut()
        self.later(least, most, undo)
        return True

    def one_way(self):
        return self.hold([self.link()], [self.rng.choice(["up", "down"])], 1, 8)

    def part(self):
        return self.hold(self.rng.sample(self.soak.links, self.rng.randint(1, len(self.soak.links))), ["up", "down"], 2, 12)

    def refuse(self):
        link = self.link()
        link.refused = True
        link.cut()
        self.later(1, 8, lambda: setattr(link, "refused", False))
        return True

    def slow(self):
        self.link().delay = self.rng.choice([0, 0.001, 0.02, 0.1])
        return True

    def stop(self):
        if not (m := self.machine()):
            return False
        m.daemon.send_signal(signal.SIGSTOP)
        self.later(0.5, 8, lambda: (m.daemon.send_signal(signal.SIGCONT), self.free(m)))
        return True

    def kill(self, how=signal.SIGKILL):
        if not (m := self.machine(spare=True)):
            return False
        m.end(how)
        self.later(0, self.rng.choice([0.5, 0.5, 15]), lambda: (m.start(), self.free(m)))
        return True

    def restart(self):
        return self.kill(signal.SIGTERM)

    def flood(self):
        if self.rng.random() < 0.6 or not (m := self.machine()):
            return False
        m.daemon.send_signal(signal.SIGSTOP)
        try:
            self.soak.users[m.name].flood(EVENTS)
        except OSError:
            pass  # another user put a directory there, or the disk is full
        m.daemon.send_signal(signal.SIGCONT)
        self.free(m)
        return True

    def clock(self):
        m = self.rng.choice(list(self.soak.machines.values()))
        m.set_clock(self.rng.choice([0, 0, 1, 3600, 86400, 10 * YEAR_S]) * self.rng.choice([1, -1]))
        return True

    def fill(self):
        if self.rng.random() < 0.5 or not (m := self.machine()):
            return False
        at = f"{m.disk.at}/full"
        with open(at, "wb", buffering=0) as f:
            try:
                while f.write(bytes(1 << 20)):
                    pass
            except OSError:
                pass
        self.later(1, 6, lambda: (os.unlink(at), self.free(m)))
        return True


class Diary:
    """What was done and said, by whom and when: told only if something is wrong."""

    def __init__(self):
        self.begin, self.lines = time.monotonic(), []

    def note(self, who, *what):
        self.lines.append(f"{time.monotonic() - self.begin:9.3f} {who}: {' '.join(map(str, what))}")

    def about(self, paths, least):
        """The last lines that name one of them, or something above; and the very last ones."""
        names = {p for path in paths for p in self.above(path)}
        found = [line for line in self.lines if any(f"{n}" in line for n in names)]
        return found[-200:] + ["…"] + self.lines[-least:]

    @staticmethod
    def above(path):
        stem = trees.COPY.sub(r"\g<stem>", path)
        while stem.count("/") > 2:
            yield stem
            stem = os.path.dirname(stem)


class Soak:
    def __init__(self, options):
        self.options = options
        self.place = disks.scratch()
        self.machines, self.links, self.users, self.harm, self.memory = {}, [], {}, {}, []
        self.tokens, self.diary = users.Tokens(), Diary()

    def set_up(self):
        keys = f"{self.place}/keys"
        os.makedirs("/run/sshd", exist_ok=True)
        os.mkdir(keys)
        disks.call("ip", "link", "set", "lo", "up")
        for name in ("host", "key"):
            disks.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{keys}/{name}")
        with open(f"{keys}/host.pub") as f:
            host = " ".join(f.read().split()[:2])
        for n, name in enumerate(NAMES):
            self.machines[name] = Machine(self, name, n)
        known, port, peers = "", 2200, {name: {} for name in NAMES}
        for a, b in itertools.combinations(NAMES, 2):
            port += 1
            here, there = self.machines[a], self.machines[b]
            self.links.append(Link((here.hub, port), (there.ip, PORT)))
            known += f"[{here.hub}]:{port} {host}\n"
            peers[a][b] = port
        with open(f"{keys}/known", "w") as f:
            f.write(known)
        for m in self.machines.values():
            m.configure(peers[m.name])
            m.start_sshd()
            self.users[m.name] = users.User(m.name, m.root, f"{m.disk.at}/desk", self.options.seed, self.tokens, self.diary)
        for m in self.machines.values():
            m.start()

    def work(self, user, stopped):
        """All day long, now busily, now at leisure."""
        pace = random.Random()
        try:
            while not stopped.is_set():
                for _ in range(pace.randrange(40)):
                    user.step()
                stopped.wait(pace.choice([0, 0.02, 0.5, 2]))
        except Exception as e:
            self.failure = e

    def epoch(self, number, seconds):
        self.failure, stopped = None, threading.Event()
        nemesis = Nemesis(self, random.Random(f"{self.options.seed}/nemesis/{number}"))
        busy = [threading.Thread(target=self.work, args=(u, stopped), daemon=True) for u in self.users.values()]
        for t in [nemesis, *busy]:
            t.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.failure and not nemesis.failure:
            time.sleep(0.5)
        stopped.set()
        nemesis.stopped.set()
        for t in [nemesis, *busy]:
            t.join()
        if self.failure or nemesis.failure:
            raise self.failure or nemesis.failure
        took = self.calm()
        self.judge()
        self.memory.append({m.name: m.memory() for m in self.machines.values()})
        copies = sum(1 for p in trees.tree(self.machines[SPARED].root) if trees.COPY.match(os.path.basename(p)))
        print(f"epoch {number}: {sum(u.done for u in self.users.values())} operations by now; equal after {took:.0f} s; "
              f"{len(self.tokens.put)} tokens, {len(self.tokens.gone)} gone; {copies} conflict copies; anonymous memory and descriptors " +
              ", ".join(f"{n} {k} KiB {f}" for n, (k, f) in self.memory[-1].items()), flush=True)
        self.tidy()

    def calm(self):
        """Until all are equal; how long it took."""
        begin = asked = time.monotonic()
        why = ["nobody looked"]
        while time.monotonic() - begin < CALM_S:
            for m in self.machines.values():
                if not m.alive():
                    raise Fault(f"the daemon of {m.name} ended by itself: {m.daemon.returncode}")
            if time.monotonic() - asked > 5:  # many deletions at once wait for a person's word
                asked = time.monotonic()
                for m in self.machines.values():
                    if (m.status() or {}).get("held"):
                        m.ctl("confirm", "t")
            why = self.unequal()
            if not why:
                time.sleep(0.5)
                why = self.unequal()
            if not why:
                return time.monotonic() - begin
            time.sleep(0.5)
        raise Fault(f"not equal after {CALM_S} s: " + "; ".join(why[:8]))

    def unequal(self):
        states = {n: m.status() for n, m in self.machines.items()}
        if not all(s and "root" in s for s in states.values()):
            return [f"{n}: {s['state'] + ', ' + s.get('reason', '') if s else 'it does not answer'}" for n, s in states.items()
                    if not s or "root" not in s]
        if len({s["root"] for s in states.values()}) > 1:
            return [f"{n}: root {s['root']}, {s['state']}" for n, s in states.items()]
        for n, m in self.machines.items():  # a round that one stalled peer holds up may have staged what came from the other
            left = [f for f in os.listdir(f"{m.root}/.syncd/staging") if not f.startswith("partial-")]  # as in crash.py
            if left:
                return [f"{n}: left in staging: {left}"]
        a, b, c = (m.root for m in self.machines.values())
        try:
            return trees.differences(a, b, seen) + trees.differences(b, c, seen)
        except OSError as e:
            return [f"still moving: {e}"]

    def judge(self):
        found = []
        for m in self.machines.values():
            for u in self.users.values():
                found += u.own_faults(m.root)
            found += self.tokens.faults(m.root)
        if found:
            raise Fault("; ".join(found[:8]))

    def tidy(self):
        """The people agree on what to keep of their conflicts, or there would be more and more."""
        m = self.machines[SPARED]
        for area in ("shared", "wild"):
            for path in trees.tree(f"{m.root}/{area}"):
                at = f"{m.root}/{area}/{path}"
                if not trees.COPY.match(os.path.basename(path)) or not os.path.lexists(at):
                    continue
                if area == "shared":
                    with open(at) as f:
                        self.tokens.gone[f.read()] = "was put away as a conflict copy"
                os.unlink(at) if os.path.islink(at) or not os.path.isdir(at) else shutil.rmtree(at)

    def judge_memory(self):
        if len(self.memory) < LEAST_EPOCHS:
            return
        half = len(self.memory) // 2
        for what, unit, more in ((0, "KiB", GROWTH_KIB), (1, "descriptors", GROWTH_FDS)):
            early, late = (max(e[SPARED][what] for e in part) for part in (self.memory[:half], self.memory[half:]))
            if late > early * GROWTH + more:
                raise Fault(f"the daemon of {SPARED} grows: {early} {unit} in the first half, {late} in the second")

    def run(self):
        self.set_up()
        took = self.calm()
        print(f"three machines ({', '.join(f'{m.name}: {m.fs}' for m in self.machines.values())}), seed {self.options.seed}; "
              f"equal after {took:.0f} s", flush=True)
        end, number = time.monotonic() + 60 * self.options.minutes, 0
        while number == 0 or time.monotonic() < end:
            number += 1
            self.epoch(number, self.options.epoch)
        self.judge_memory()
        print(f"{number} epochs, {sum(u.done for u in self.users.values())} operations, {len(self.tokens.put)} tokens, "
              f"{sum(l.bytes for l in self.links)} bytes over {sum(l.connections for l in self.links)} connections, "
              f"{sum(l.cuts for l in self.links)} of them cut; " + ", ".join(f"{k} {v}" for k, v in sorted(self.harm.items())) +
              "; nothing wrong")

    def close(self, keep):
        for link in self.links:
            link.close()
        if keep:
            for m in self.machines.values():
                if m.alive():
                    m.end(signal.SIGKILL)
                print(f"kept until Enter is pressed: nsenter -t {os.getpid()} -m ls {m.root}")
            input()
        for m in self.machines.values():
            try:
                m.close()
            except RuntimeError as e:
                print(f"{m.name}: {e}")
        disks.clear(self.place)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bin", type=os.path.abspath)
    p.add_argument("clock", type=os.path.abspath)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--epoch", type=float, default=40, help="seconds of harm before all must be equal")
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--harm", default="cut,cut,one_way,part,refuse,slow,stop,stop,kill,kill,restart,flood,clock,fill",
                   help="what is done, one as often as the other")
    p.add_argument("--diary", help="a file for all that was done and said")
    p.add_argument("--keep", action="store_true", help="when something is wrong, leave the machines as they are until Enter is pressed")
    options = p.parse_args()
    if "SOAK_INSIDE" not in os.environ:  # a network and mounts of our own
        os.execvpe("unshare", ["unshare", "-n", "-m", sys.executable, "-B", *sys.argv], {**os.environ, "SOAK_INSIDE": "1"})
    soak, failure = Soak(options), None
    try:
        soak.run()
    except (Fault, KeyboardInterrupt) as e:
        failure = f"{type(e).__name__}: {e}"
    except Exception:
        import traceback
        failure = traceback.format_exc()
    if failure:
        print(f"WRONG, seed {options.seed}: {failure}")
        print("\n".join(soak.diary.about(re.findall(r"own/[^ :]*", failure)[:2], 40)))
    if options.diary:
        with open(options.diary, "w") as f:
            f.write("\n".join(soak.diary.lines) + "\n")
    soak.close(failure and options.keep)
    return 1 if failure else 0


sys.exit(main())

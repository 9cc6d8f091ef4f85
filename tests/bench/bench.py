#!/usr/bin/env python3
"""Benchmarks side by side: syncd, its peers and the floors do the same work in turn, in one run on one machine.

usage: bench.py BIN [--runs N] [--scale small|full] [--out FILE] [WORK…]

Needs root: it makes a network namespace of its own, so that the loopback device's counters are the bytes on the wire, seen
from outside the programs (headers of TCP and IP are taken off by the number of packets). A real sshd listens there. CPU is that of
all processes of a control group: both sides, sshd and ssh included. Memory is the largest anonymous memory of one process.
Each work is done RUNS times, the tools in turn; medians are shown, and all runs go to FILE as JSON lines.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SCALES = {  # sizes of things
    "small": dict(big=256 << 20, copy=512 << 20, files=20_000, rename=100, edits=30, steps=10),
    "full": dict(big=2 << 30, copy=4 << 30, files=1_000_000, rename=1000, edits=100, steps=30),
}
WIRE_HEADERS = 14 + 20 + 32  # of a packet on the loopback device: link, IP, TCP with time stamps


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def read(path):
    with open(path) as f:
        return f.read()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what, condition, seconds=600.0):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.002)


class Group:
    """A control group that all that is measured runs in; of either version."""

    def __init__(self):
        name = f"syncd-bench-{os.getpid()}"
        one, two = f"/sys/fs/cgroup/cpuacct/{name}", f"/sys/fs/cgroup/{name}"
        self.path = one if os.path.isdir("/sys/fs/cgroup/cpuacct") else two
        os.mkdir(self.path)
        self.outside = os.path.dirname(self.path) + "/cgroup.procs"
        self.enter()

    def enter(self):
        with open(self.path + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    def cpu(self):
        """User and system time of all processes that are or were in it, in seconds."""
        if os.path.exists(self.path + "/cpuacct.usage"):
            return int(read(self.path + "/cpuacct.usage")) / 1e9
        return int(read(self.path + "/cpu.stat").split()[1]) / 1e6

    def anonymous(self):
        """Of the largest process but this one, in bytes."""
        most = 0
        for pid in read(self.path + "/cgroup.procs").split():
            if int(pid) == os.getpid():
                continue
            try:
                for line in read(f"/proc/{pid}/status").splitlines():
                    if line.startswith("RssAnon:"):
                        most = max(most, int(line.split()[1]) * 1024)
            except OSError:
                pass
        return most

    def close(self):
        with open(self.outside, "w") as f:
            f.write(str(os.getpid()))
        wait_until("control group is empty", lambda: not read(self.path + "/cgroup.procs"), 10)
        os.rmdir(self.path)


class Meter:
    """with Meter(lab) as m: …; then m.result is what it took."""

    def __init__(self, lab):
        self.lab = lab

    @staticmethod
    def wire():
        for line in read("/proc/net/dev").splitlines():
            if line.strip().startswith("lo:"):
                values = line.split(":")[1].split()
                return int(values[0]) - int(values[1]) * WIRE_HEADERS
        return 0

    def __enter__(self):
        self.peak, self.done = 0, threading.Event()
        self.sampler = threading.Thread(target=self.sample, daemon=True)
        self.cpu, self.bytes, self.began = self.lab.group.cpu(), self.wire(), time.monotonic()
        self.sampler.start()
        return self

    def sample(self):
        while not self.done.wait(0.1):
            self.peak = max(self.peak, self.lab.group.anonymous())

    def __exit__(self, *_):
        seconds = time.monotonic() - self.began
        self.done.set()
        self.sampler.join()
        self.result = dict(seconds=seconds, cpu=self.lab.group.cpu() - self.cpu, bytes=self.wire() - self.bytes, anonymous=self.peak)


class Daemon:
    def __init__(self, lab, name, config):
        self.lab, self.home = lab, lab.path(f"daemon-{name}")
        lab.started.append(self)
        os.makedirs(self.home)
        with open(self.home + "/conf", "w") as f:
            f.write(config)
        self.log = open(self.home + "/log", "w")
        self.process = subprocess.Popen([lab.bin + "/syncd", "-c", self.home + "/conf", "-s", self.home + "/sock", "-S", self.home + "/state"],
                                        stdout=self.log, stderr=self.log)
        wait_until(f"daemon {name} listens", lambda: os.path.exists(self.home + "/sock"), 20)

    def ctl(self, *arguments):
        return subprocess.run([self.lab.bin + "/syncctl", arguments[0], "-s", self.home + "/sock", *arguments[1:]], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def status(self):
        said = subprocess.run([self.lab.bin + "/syncctl", "status", "--json", "-s", self.home + "/sock"], stdout=subprocess.PIPE).stdout
        return json.loads(said)["folders"][0] if said else dict(state="starting")

    def anonymous(self):
        return int(read(f"/proc/{self.process.pid}/status").split("RssAnon:")[1].split()[0]) * 1024

    def stop(self):
        self.lab.started.remove(self)
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.home)


class Lab:
    """A temporary place, an sshd in it, and the programs that work over that sshd."""

    def __init__(self, binaries, scale):
        self.bin, self.size, self.started = os.path.abspath(binaries), SCALES[scale], []
        self.top = tempfile.mkdtemp(prefix="syncd-bench.", dir=os.environ.get("TMPDIR", "/tmp"))
        os.environ.update(HOME=self.path("home"), XDG_RUNTIME_DIR=self.path("run"), UNISON=self.path("unison"), LC_ALL="C")
        os.environ.pop("SSH_AUTH_SOCK", None)
        for name in ("home", "run", "ssh"):
            os.mkdir(self.path(name))
        run("ip", "link", "set", "lo", "up")
        self.group = Group()
        self.port = free_port()
        self.start_sshd()

    def path(self, *names):
        return os.path.join(self.top, *names)

    def start_sshd(self):
        os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path("ssh", key))
        with open(self.path("ssh/config"), "w") as f:
            f.write(f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.path('ssh/host')}\nAuthorizedKeysFile {self.path('ssh/key.pub')}\n"
                    "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\n"
                    "Subsystem sftp internal-sftp\n")
        self.sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", self.path("ssh/config"), "-E", self.path("ssh/log")])
        wait_until("sshd listens", lambda: subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{self.port}"], stderr=subprocess.DEVNULL).returncode == 0, 10)
        self.trust(self.port)

    def trust(self, port):
        with open(self.path("ssh/known"), "a") as f:
            f.write(f"[127.0.0.1]:{port} {' '.join(read(self.path('ssh/host.pub')).split()[:2])}\n")

    def ssh(self, port=None):
        return ["ssh", "-q", "-T", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.path('ssh/known')}", "-i", self.path("ssh/key"), "-p", str(port or self.port)]

    def fresh(self, *names):
        for name in names:
            shutil.rmtree(self.path(name), ignore_errors=True)
            os.mkdir(self.path(name))
        return [self.path(n) for n in names]

    def settle(self):
        """What was written is on the disk, and is older than what is recorded of it."""
        os.sync()
        time.sleep(2.2)

    def close(self):
        for left in list(self.started):
            left.stop()
        self.sshd.terminate()
        self.sshd.wait()
        self.group.close()
        shutil.rmtree(self.top, ignore_errors=True)

    # --- the tools: each makes `to` (over ssh) what `source` is ---

    def syncd(self, source, to, port=None, options=()):
        run(self.bin + "/syncctl", "reconcile", "-q", "--confirm-deletions", "-i", self.path("ssh/key"), "--known-hosts", self.path("ssh/known"),
            "--syncctl-path", self.bin + "/syncctl", *options, source, f"ssh://root@127.0.0.1:{port or self.port}{to}")

    def rsync(self, source, to, port=None, options=()):
        run("rsync", "-a", "--delete", "--exclude=/.syncd", *options, "-e", " ".join(self.ssh(port)), source + "/", f"root@127.0.0.1:{to}/")

    def rsync_z(self, source, to, port=None):
        self.rsync(source, to, port, ["-z"])

    def rsync_durable(self, source, to):
        self.rsync(source, to)
        run("sync", "-f", to)

    def tar(self, source, to):
        subprocess.run(f"tar -C {source} --exclude=./.syncd -cf - . | {' '.join(self.ssh())} root@127.0.0.1 tar -C {to} -xf -", shell=True, check=True)

    def unison(self, source, to, port=None):
        run("unison", "-batch", "-silent", "-auto", "-times", "-perms", "-1", "-confirmbigdel=false", "-ignore", "Path .syncd",
            "-sshargs", " ".join(self.ssh(port)[1:-2]), source, f"ssh://root@127.0.0.1:{port or self.port}/{to}", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def daemons(self, source, to, port=None):
        b = Daemon(self, "b", f"[folder t]\npath = {to}\n")
        a = Daemon(self, "a", f"[folder t]\npath = {source}\nsettle = 0 ms\n[peer b]\nfolder = t\naddress = ssh://root@127.0.0.1:{port or self.port}{to}\n"
                   f"identity = {self.path('ssh/key')}\nknown_hosts = {self.path('ssh/known')}\nsyncctl_path = {self.bin}/syncctl\n")
        wait_until("daemons in sync", lambda: a.ctl("flush", "t"))
        return a, b


class Relay:
    """The tests' relay in front of the sshd, with a delay one way each way."""

    def __init__(self, lab, delay_ms):
        self.lab = lab
        lab.started.append(self)
        self.port, self.counts = free_port(), lab.path("relay.count")
        here = os.path.dirname(os.path.abspath(__file__))
        self.process = subprocess.Popen([sys.executable, here + "/../e2e/relay.py", str(self.port), str(lab.port), self.counts, str(delay_ms)])
        wait_until("relay listens", lambda: os.path.exists(self.counts), 10)
        lab.trust(self.port)

    def stop(self):
        self.lab.started.remove(self)
        self.process.terminate()
        self.process.wait()


# --- trees and files ---

def random_file(path, size, seed=0):
    """The same bytes in each run: where chunks end depends on them."""
    subprocess.run(f"openssl enc -aes-128-ctr -K {seed:032x} -iv 0 -in /dev/zero 2>/dev/null | head -c {size} >{path}", shell=True, check=True)


def small_files(root, count):
    for i in range(count):
        d = f"{root}/d{i // 500}"
        if i % 500 == 0:
            os.mkdir(d)
        with open(f"{d}/f{i}", "w") as f:
            f.write(f"{i}\n" * 20)


def real_tree(root):
    """A kernel's sources if they are here, else what a Debian system has of headers and documents."""
    archive = "/usr/src/linux-source-6.1.tar.xz"
    if os.path.exists(archive):
        run("tar", "-C", root, "-xf", archive)
    else:
        run("cp", "-a", "/usr/include", "/usr/share/doc", "/usr/share/perl", root)


def write_at(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


# --- the works; each yields (tool, result) ---

def here(tools):
    """Those of which the program is installed; syncd is."""
    return [(name, tool) for name, tool in tools if name != "unison" or shutil.which("unison")]


def copies(lab, tools, fill, source):
    if not os.path.isdir(lab.path(source)):
        fill(lab.fresh(source)[0])
    for name, tool in here(tools):
        shutil.rmtree(lab.path(source, ".syncd"), ignore_errors=True)
        shutil.rmtree(lab.path("unison"), ignore_errors=True)
        to, = lab.fresh("to")
        lab.settle()
        with Meter(lab) as m:
            tool(lab.path(source), to)
        yield name, m.result


def initial_copy(lab):
    yield from copies(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -a, sync", lab.rsync_durable), ("tar over ssh", lab.tar), ("unison", lab.unison)],
                      real_tree, "tree")


def copy_big(lab):
    def fill(root):
        for i in range(4):
            random_file(f"{root}/f{i}", lab.size["copy"] // 4, i)
    yield from copies(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("tar over ssh", lab.tar)], fill, "few")


def pairing(lab):
    """Two copies that were made by other means and never met."""
    if not os.path.isdir(lab.path("tree")):
        real_tree(lab.fresh("tree")[0])
    shutil.rmtree(lab.path("tree/.syncd"), ignore_errors=True)
    lab.fresh("to")
    run("rsync", "-a", lab.path("tree") + "/", lab.path("to") + "/")
    lab.settle()
    with Meter(lab) as m:
        subprocess.run(f"find {lab.path('tree')} {lab.path('to')} -type f -print0 | xargs -0 -P2 -n 2000 sha256sum >/dev/null", shell=True, check=True)
    yield "sha256sum of both", m.result
    for name, tool in here([("syncd", lab.syncd), ("unison", lab.unison)]):
        shutil.rmtree(lab.path("unison"), ignore_errors=True)
        with Meter(lab) as m:
            tool(lab.path("tree"), lab.path("to"))
        yield name, m.result
        shutil.rmtree(lab.path("to/.syncd"), ignore_errors=True)


def nothing(lab):
    """One-shot, nothing changed, many small files, indexes present."""
    a, b = lab.fresh("many", "many-to")
    small_files(a, lab.size["files"])
    lab.syncd(a, b)
    lab.settle()
    lab.syncd(a, b)  # young entries are hashed again, once
    with Meter(lab) as m:
        subprocess.run(f"find {a} -printf '%s%T@' >/dev/null & find {b} -printf '%s%T@' >/dev/null; wait", shell=True, check=True)
    yield "stat walk of both", m.result
    for name, tool in (("syncd", lab.syncd), ("rsync -a", lab.rsync)):
        with Meter(lab) as m:
            tool(a, b)
        yield name, m.result
    d, e = lab.daemons(a, b)
    with Meter(lab) as m:
        write_at(f"{a}/d0/f7", 0, b"x")
        wait_until("one edit", lambda: read(f"{b}/d0/f7")[0] == "x")
    m.result["anonymous"] = max(d.anonymous(), e.anonymous())
    yield "syncd, live: one edit", m.result
    d.stop()
    e.stop()
    lab.fresh("many", "many-to")


def edits(lab):
    """A big file changed in four ways; indexes present. What syncd needs to hash it again is in the time."""
    a, b = lab.fresh("big", "big-to")
    size = lab.size["big"]
    tools = (("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -az", lab.rsync_z))

    def insert(path, data):
        with open(path, "rb") as old, open(path + ".new", "wb") as new:
            new.write(data)
            shutil.copyfileobj(old, new, 1 << 20)
        os.rename(path + ".new", path)

    def append(path, data):
        with open(path, "ab") as f:
            f.write(data)

    def scatter(path, seed):
        for i in range(100):
            write_at(path, (i * 2654435761 + seed) % (size - 1024), os.urandom(1024))

    works = [("4 KiB overwritten", lambda p, n: write_at(p, size // 3 + n * 8192, os.urandom(4096))), ("1 byte at the front", lambda p, n: insert(p, b"x")),
             ("1 MiB appended", lambda p, n: append(p, os.urandom(1 << 20))), ("100 edits of 1 KiB", scatter)]
    random_file(a + "/big", size)
    lab.syncd(a, b)
    for n, (work, change) in enumerate(works):
        for k, (name, tool) in enumerate(tools):
            change(a + "/big", n * 100 + k)
            lab.settle()
            with Meter(lab) as m:
                tool(a, b)
            yield f"{work}: {name}", m.result
            lab.syncd(a, b)  # its index learns what the others did
    lab.fresh("big", "big-to")


def renames(lab):
    a, b = lab.fresh("ren", "ren-to")
    os.mkdir(a + "/dir")
    for i in range(lab.size["rename"]):
        random_file(f"{a}/dir/f{i}", 1 << 20, i)
    lab.syncd(a, b)
    d, e = lab.daemons(a, b)
    lab.settle()
    with Meter(lab) as m:
        os.rename(a + "/dir", a + "/moved")
        wait_until("renamed directory", lambda: os.path.isdir(b + "/moved") and len(os.listdir(b + "/moved")) == lab.size["rename"] and not os.path.exists(b + "/dir"))
    yield "directory: syncd, live", m.result
    d.stop()
    e.stop()
    os.rename(a + "/moved", a + "/again")
    with Meter(lab) as m:
        lab.syncd(a, b)
    yield "directory: syncd", m.result
    os.rename(a + "/again", a + "/dir")
    with Meter(lab) as m:
        lab.rsync(a, b)
    yield "directory: rsync -a", m.result
    lab.fresh("ren", "ren-to")


def latency(lab):
    """From the write to the complete file at the peer; the floor writes, syncs and renames it through an ssh that is open."""
    a, b = lab.fresh("live", "live-to")
    small_files(a, min(100_000, lab.size["files"]))
    lab.syncd(a, b)
    d, e = lab.daemons(a, b)
    far = ("import sys,os\nfor line in sys.stdin:\n t=line.rstrip()\n f=open('" + b + "/../floor.new','w');f.write(t);f.flush();os.fsync(f.fileno());f.close()\n"
           " os.rename('" + b + "/../floor.new','" + b + "/../floor.x');n=os.open('" + b + "/..',0);os.fsync(n);os.close(n);print(1,flush=True)")
    ssh = subprocess.Popen([*lab.ssh(), "root@127.0.0.1", f'python3 -uc "{far}"'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    live, floor = [], []
    for i in range(lab.size["edits"]):
        text = f"edit {i} at {time.time()}\n"
        began = time.monotonic()
        with open(f"{a}/d{i % 10}/f{i % 10 * 500 + 3}", "w") as f:
            f.write(text)
        wait_until("live edit", lambda: read(f"{b}/d{i % 10}/f{i % 10 * 500 + 3}") == text)
        live.append(time.monotonic() - began)
        time.sleep(0.05)
        began = time.monotonic()
        ssh.stdin.write(text)
        ssh.stdin.flush()
        ssh.stdout.readline()
        floor.append(time.monotonic() - began)
    ssh.stdin.close()
    ssh.wait()
    for name, v in (("syncd", live), ("floor", floor)):
        yield f"{name}, median", dict(seconds=statistics.median(v), cpu=0, bytes=0, anonymous=0)
        yield f"{name}, 99 %", dict(seconds=sorted(v)[int(len(v) * .99)], cpu=0, bytes=0, anonymous=0)
    d.stop()
    e.stop()
    lab.fresh("live", "live-to")


def distance(lab):
    """Ten edits among many files over a link with a round trip of 50 ms."""
    a, b = lab.fresh("rtt", "rtt-to")
    small_files(a, min(100_000, lab.size["files"]))
    lab.syncd(a, b)
    lab.settle()
    relay = Relay(lab, 25)
    for name, tool in (("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -a, no-i-r", lambda *p, **o: lab.rsync(*p, **o, options=["--no-inc-recursive"]))):
        lab.syncd(a, b)
        for i in range(10):
            write_at(f"{a}/d{i * 3}/f{i * 1500 + 1}", 0, name[-1].encode())
        with Meter(lab) as m:
            tool(a, b, port=relay.port)
        yield name, m.result
    relay.stop()
    lab.fresh("rtt", "rtt-to")


def history(lab):
    """Successive versions of a source tree: this project's own commits."""
    top = os.path.dirname(os.path.abspath(__file__)) + "/../.."
    step = lab.size["steps"]
    commits = subprocess.run(["git", "-C", top, "rev-list", "--first-parent", f"--max-count={step}", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.split()[::-1]
    if not commits:
        return
    for name, tool in (("syncd", lab.syncd), ("rsync -az", lab.rsync_z)):
        a, b = lab.fresh("hist", "hist-to")
        total = dict(seconds=0, cpu=0, bytes=0, anonymous=0)
        for commit in commits:
            subprocess.run(f"rm -rf {lab.path('next')} && mkdir {lab.path('next')} && git -C {top} archive {commit} | tar -C {lab.path('next')} -xmf - && "
                           f"rsync -rlpc --delete --exclude=/.syncd {lab.path('next')}/ {a}/", shell=True, check=True)
            with Meter(lab) as m:
                tool(a, b)
            for key in ("seconds", "cpu", "bytes"):
                total[key] += m.result[key]
            total["anonymous"] = max(total["anonymous"], m.result["anonymous"])
        yield name, total


def first_scan(lab):
    """The index of many small files, and of a big one, from nothing."""
    small, big = lab.fresh("scan", "scan-big")
    for root in (small, big):
        lab.syncd(root, lab.fresh("to")[0])  # a replica that never met another one is not scanned
    small_files(small, lab.size["files"])
    random_file(big + "/f", lab.size["big"])
    for what, root in (("small files", small), ("a big file", big)):
        lab.settle()
        files = f"find {root} -path {root}/.syncd -prune -o -type f -print0 | xargs -0 -n 5000"
        for name, command in (("read", f"find {root} -printf '%s%T@' >/dev/null; {files} cat >/dev/null"), ("sha256sum, one core", f"{files} sha256sum >/dev/null")):
            with Meter(lab) as m:
                subprocess.run(command, shell=True, check=True)
            yield f"{what}: {name}", m.result
        with Meter(lab) as m:
            d = Daemon(lab, "scan", f"[folder t]\npath = {root}\n")
            wait_until("scanned", lambda: d.status()["state"] == "ready")
        size = sum(os.stat(os.path.join(root, ".syncd/index", f)).st_blocks * 512 for f in os.listdir(root + "/.syncd/index"))
        m.result.update(index=size, anonymous=d.anonymous())
        yield f"{what}: syncd", m.result
        d.stop()
    lab.fresh("scan", "scan-big", "to")


WORKS = dict(copy=initial_copy, big=copy_big, pairing=pairing, nothing=nothing, edits=edits, renames=renames, latency=latency, distance=distance, history=history,
             scan=first_scan)


def show(work, rows):
    print(f"\n{work}: {(WORKS[work].__doc__ or '').strip().splitlines()[0] if WORKS[work].__doc__ else ''}")
    print(f"  {'':34}{'seconds':>10}{'CPU s':>9}{'bytes':>14}{'MiB':>7}{'time to syncd':>15}")
    medians = {tool: {k: statistics.median(r[k] for r in results) for k in results[0]} for tool, results in rows.items()}
    for tool, m in medians.items():
        mine = [t for t in medians if "syncd" in t and t.split(":")[0] == tool.split(":")[0]] or [t for t in medians if "syncd" in t]
        ratio = f"{m['seconds'] / medians[mine[0]]['seconds']:15.2f}" if mine and "syncd" not in tool else ""
        more = f"   index {m['index']} bytes" if "index" in m else ""
        print(f"  {tool:34}{m['seconds']:10.3f}{m['cpu']:9.2f}{m['bytes']:14.0f}{m['anonymous'] / (1 << 20):7.1f}{ratio}{more}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="syncd beside its peers and the floors")
    parser.add_argument("bin")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--out", default="bench.json")
    parser.add_argument("works", nargs="*", metavar="WORK", help=" ".join(WORKS))
    options = parser.parse_intermixed_args()
    unknown = [w for w in options.works if w not in WORKS]
    if unknown:
        parser.error(f"no such work: {' '.join(unknown)}; there are {' '.join(WORKS)}")
    if os.geteuid() != 0:
        parser.error("needs root: a network namespace, and an sshd")
    if not os.environ.get("SYNCD_BENCH_NAMESPACE"):
        os.environ["SYNCD_BENCH_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lab = Lab(options.bin, options.scale)
    try:
        with open(options.out, "w") as out:
            for work in options.works or WORKS:
                rows = {}
                for n in range(options.runs):
                    for tool, result in WORKS[work](lab):
                        rows.setdefault(tool, []).append(result)
                        out.write(json.dumps(dict(work=work, scale=options.scale, run=n, tool=tool, **result)) + "\n")
                        out.flush()
                if rows:
                    show(work, rows)
    finally:
        lab.close()


if __name__ == "__main__":
    main()

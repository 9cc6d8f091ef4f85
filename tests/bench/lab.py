"""Where it is measured: a network namespace with an sshd in it, a control group, a temporary place; and what is measured there."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

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


def wait_until(what, condition, seconds=7200.0):
    """Looks again after 1 % of the time that it took so far: exact enough, and no load of its own."""
    began = time.monotonic()
    while not condition():
        took = time.monotonic() - began
        if took > seconds:
            raise SystemExit(f"{what}: not after {seconds:.0f} s")
        time.sleep(min(max(took / 100, 0.001), 0.5))


class Group:
    """A control group that all that is measured runs in; of either version."""

    def __init__(self):
        name = f"syncd-bench-{os.getpid()}"
        one, two = f"/sys/fs/cgroup/cpuacct/{name}", f"/sys/fs/cgroup/{name}"
        self.path = one if os.path.isdir("/sys/fs/cgroup/cpuacct") else two
        os.mkdir(self.path)
        self.ours = {os.getpid()}  # whose memory is not looked at
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
        """Of the largest process that is measured, in bytes."""
        most = 0
        for pid in read(self.path + "/cgroup.procs").split():
            if int(pid) in self.ours:
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
        try:
            wait_until("control group is empty", lambda: not read(self.path + "/cgroup.procs"), 10)
            os.rmdir(self.path)
        except SystemExit:
            print("left in the control group:", read(self.path + "/cgroup.procs").split(), file=sys.stderr)


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


class Lab:
    """A temporary place, an sshd in it, and the programs that work over that sshd."""

    def __init__(self, binaries, size, without):
        self.bin, self.size, self.without, self.started = os.path.abspath(binaries), size, without, []
        self.layers = os.path.dirname(self.bin) + "/layers"
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
                    f"Subsystem sftp internal-sftp\nSetEnv UNISON={self.path('unison')}\n")
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
        run("sync", "-f", self.top)
        time.sleep(2.2)

    def close(self):
        for left in list(self.started):
            left.stop()
        self.sshd.terminate()
        self.sshd.wait()
        self.group.close()
        shutil.rmtree(self.top, ignore_errors=True)


class Relay:
    """The tests' relay in front of the sshd, with a delay one way each way. It counts the bytes of TCP, and how often their direction changed."""

    def __init__(self, lab, delay_ms):
        self.lab = lab
        lab.started.append(self)
        self.port, self.counts = free_port(), lab.path("relay.count")
        here = os.path.dirname(os.path.abspath(__file__))
        self.process = subprocess.Popen([sys.executable, here + "/../e2e/relay.py", str(self.port), str(lab.port), self.counts, str(delay_ms)])
        lab.group.ours.add(self.process.pid)
        wait_until("relay listens", lambda: os.path.exists(self.counts), 10)
        lab.trust(self.port)

    def reset(self):
        time.sleep(0.3)
        self.process.send_signal(signal.SIGUSR1)
        wait_until("relay counts anew", lambda: json.loads(read(self.counts))["up"] == 0, 10)

    def counted(self):
        """bytes, turns"""
        time.sleep(0.3)
        c = json.loads(read(self.counts))
        return c["up"] + c["down"], c["turns"]

    def seconds(self):
        """From the first byte to the last."""
        return json.loads(read(self.counts))["seconds"]

    def stop(self):
        self.lab.started.remove(self)
        self.process.terminate()
        self.process.wait()
        os.unlink(self.counts)

"""File systems in images in memory, mounted by loop devices; and disks that lose their power.

A Recorded disk stands on ./record, which logs each write and each flush. What a power loss may leave is worked out from the
log: all that was written before the last flush, and of what was written since, by blocks, any part.
"""
import os
import shutil
import struct
import subprocess
import time

BLOCK = 4096
MAKE = {
    "ext4": (128, ["mkfs.ext4", "-q", "-F"], [], ["e2fsck", "-fn"]),
    "xfs": (300, ["mkfs.xfs", "-q", "-f"], ["-o", "nouuid"], ["xfs_repair", "-n"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-f"], ["-o", "nodiscard"], ["btrfs", "check", "--readonly"]),
}


def call(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def patiently(*command):
    """Something may be about to let go of it."""
    for _ in range(100):
        try:
            return call(*command)
        except RuntimeError as e:
            failure = e
            time.sleep(0.05)
    raise failure


def make(fs, image, mib=None):
    size, command, _, _ = MAKE[fs]
    with open(image, "wb") as f:
        f.truncate((mib or size) << 20)
    call(*command, image)


def copy(image, to):
    """To a file of its own: another mount namespace may still have what is mounted from the one before."""
    if os.path.exists(to):
        os.unlink(to)
    call("cp", "--sparse=always", image, to)


def check(fs, image):
    """The file system's own judgement of an unmounted image."""
    try:
        call(*MAKE[fs][3], image)
    except RuntimeError as e:
        if "valuable metadata changes" not in str(e):  # as above: it is not really unmounted
            raise


class Disk:
    """An image that is mounted at `at`."""

    def __init__(self, fs, image, at):
        self.fs, self.image, self.at = fs, image, at
        os.makedirs(at, exist_ok=True)
        self.loop = None

    def backing(self):
        return self.image

    def mount(self):
        self.loop = patiently("losetup", "-f", "--show", self.backing())
        try:
            call("mount", "-t", self.fs, *MAKE[self.fs][2], self.loop, self.at)
        except RuntimeError:
            self.detach()
            raise
        return self

    def detach(self):
        if self.loop:
            patiently("losetup", "-d", self.loop)
        self.loop = None

    def unmount(self):
        if os.path.ismount(self.at):
            patiently("umount", self.at)
        self.detach()

    def sync(self):
        call("sync", "-f", self.at)


class Recorded(Disk):
    """One whose writes and flushes are logged; `base` is the image as it was at the beginning."""

    def __init__(self, fs, image, at, tools):
        super().__init__(fs, image, at)
        self.base, self.log, self.rec = image + ".base", image + ".log", at + ".rec"
        self.tools, self.process = tools, None

    def backing(self):
        return self.rec + "/disk"

    def mount(self):
        copy(self.image, self.base)
        os.makedirs(self.rec, exist_ok=True)
        self.process = subprocess.Popen([self.tools + "/record", self.rec, self.image, self.log])
        while not os.path.ismount(self.rec):
            if self.process.poll() is not None:
                raise RuntimeError("the recorder does not start")
            time.sleep(0.01)
        return super().mount()

    def unmount(self):
        super().unmount()
        if os.path.ismount(self.rec):
            patiently("umount", self.rec)
        if self.process:
            self.process.wait()
        self.process = None

    def now(self):
        """Where the log is."""
        return os.path.getsize(self.log)

    def lose_power(self, rng):
        """At this moment; leaves the image as it may be found afterwards, unmounted."""
        end = self.now()
        self.unmount()
        log = Log(self.log)
        disk = Rolling(self.base, log)
        disk.forward(max((f for f in log.flushes if f <= end), default=0))
        disk.loss(rng, end)
        os.replace(self.base, self.image)


class Log:
    """Writes as (end of the record in the log, offset, where its data are, length); where flushes end."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.writes, self.flushes = [], []
        at, n = 0, len(self.data)
        while at + 16 <= n:
            kind, length, offset = struct.unpack_from("=IIQ", self.data, at)
            at += 16
            if kind == 2:
                self.flushes.append(at)
                continue
            if at + length > n:
                break
            self.writes.append((at + length, offset, at, length))
            at += length


class Rolling:
    """An image that is carried forward along a log."""

    def __init__(self, image, log):
        self.image, self.log, self.next = image, log, 0

    def forward(self, end):
        """All that was written before."""
        log = self.log
        with open(self.image, "r+b") as f:
            while self.next < len(log.writes) and log.writes[self.next][0] <= end:
                _, offset, at, length = log.writes[self.next]
                f.seek(offset)
                f.write(log.data[at:at + length])
                self.next += 1

    def loss(self, rng, end):
        """Of what was written since, and before `end`, any part."""
        log, share = self.log, rng.choice([0, 0.5, 0.9, 1])
        with open(self.image, "r+b") as f:
            for where, offset, at, length in log.writes[self.next:]:
                if where > end:
                    break
                for piece in range(0, length, BLOCK):
                    if rng.random() < share:
                        f.seek(offset + piece)
                        f.write(log.data[at + piece:at + min(piece + BLOCK, length)])


def scratch():
    """A place in memory, if there is one."""
    import tempfile
    place = os.environ.get("TMPDIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    return tempfile.mkdtemp(prefix="syncd-crash.", dir=place)


def clear(place):
    shutil.rmtree(place, ignore_errors=True)

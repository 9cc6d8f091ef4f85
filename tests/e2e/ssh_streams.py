#!/usr/bin/env python3
"""Bytes through syncd-ssh, in all directions and paces: what arrives is what was sent, whole, and nothing stands still.

usage: ssh_streams.py MIB COMMAND…    COMMAND: syncd-ssh with its options and the host; a command for the far side is added
"""
import hashlib
import os
import subprocess
import sys
import threading
import time

PATIENCE = int(os.environ.get("PATIENCE", "1"))
SIZE = int(sys.argv[1]) << 20
CLIENT = sys.argv[2:]
FAILED = []


def check(what, good):
    if not good:
        FAILED.append(what)
        print(f"FAILED {what}", flush=True)


def start(command, **options):
    return subprocess.Popen([*CLIENT, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options)


def noise(n, seed):
    """The same each time: openssl's counter mode is no business of the client's."""
    return subprocess.run(f"openssl enc -aes-128-ctr -K {seed:032x} -iv 0 -in /dev/zero 2>/dev/null | head -c {n}", shell=True, stdout=subprocess.PIPE).stdout


def write_all(f, data, piece, pause):
    view = memoryview(data)
    for at in range(0, len(view), piece):
        part = view[at:at + piece]
        while part:
            part = part[f.write(part):]
        if pause and at // piece % 16 == 0:
            time.sleep(pause)
    f.close()


def read_all(f, piece, pause, got):
    k = 0
    while data := f.read(piece):
        got.append(data)
        k += 1
        if pause and k % 16 == 0:
            time.sleep(pause)


def timed(what, seconds, work):
    """Where something waits for the next keep-alive, each time is 15 s."""
    began = time.monotonic()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds * PATIENCE)
    if os.environ.get("V"): print(f"{what}: {time.monotonic() - began:.2f} s", file=sys.stderr, flush=True)
    if thread.is_alive():
        print(f"FAILED {what}: it stands still", flush=True)
        os._exit(1)


def through(what, command, data, want, write=(65536, 0), read=(65536, 0)):
    def work():
        p, got = start(command), []
        reader = threading.Thread(target=read_all, args=(p.stdout, *read, got))
        reader.start()
        write_all(p.stdin, data, *write)
        reader.join()
        check(f"{what}: exit code", p.wait() == 0)
        said = b"".join(got)
        check(f"{what}: {len(said)} of {len(want)} bytes, or others", said == want)
    timed(what, 120, work)


def ping_pong(what, sizes):
    def work():
        p = start("cat")
        for i, n in enumerate(sizes):
            data = bytes([i % 251]) * n
            writer = threading.Thread(target=lambda: p.stdin.write(data))
            writer.start()
            got = b""
            while len(got) < n:
                got += p.stdout.read(n - len(got))
            writer.join()
            check(f"{what}: message {i}", got == data)
        p.stdin.close()
        check(f"{what}: exit code", p.wait() == 0 and p.stdout.read() == b"")
    began = time.monotonic()
    timed(what, 60, work)
    return time.monotonic() - began


def endings():
    p = start("echo out; echo err >&2; cat; exit 3", stderr=subprocess.PIPE)
    out, err = p.communicate(b"x" * 100000, timeout=60 * PATIENCE)
    check("output before an exit code", out == b"out\n" + b"x" * 100000 and err.startswith(b"err\n"))
    check("exit code of a command", p.returncode not in (0, 255))
    p = start("cat >/dev/null; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo end", stderr=subprocess.PIPE)
    out, err = p.communicate(b"", timeout=60 * PATIENCE)
    check("much on stderr", len(err) == 3000000 and len(out) == 3000004 and p.returncode == 0)
    p = start("/nowhere/syncctl serve", stderr=subprocess.PIPE)
    check("a program that is not there", b"no program" in p.communicate(timeout=60 * PATIENCE)[1])
    p = start("cat /dev/zero")
    p.stdout.read(100000)
    p.stdout.close()
    p.wait(60 * PATIENCE)


up, down = noise(SIZE, 1), noise(SIZE, 2)
with open(os.environ["W"] + "/down", "wb") as f:
    f.write(down)
cat = f"cat {os.environ['W']}/down"
hash_line = hashlib.sha256(up).hexdigest().encode() + b"  -\n"
slow = "python3 -uc \"import os,time\nk = 0\nwhile b := os.read(0, 65536):\n os.write(1, b)\n k += 1\n k % 16 or time.sleep(.02)\""

through("up", "sha256sum", up, hash_line)
through("down", f"{cat}; cat >/dev/null", b"", down)
through("both", f"{cat} & sha256sum >{os.environ['W']}/sum; wait; cat {os.environ['W']}/sum", up, down + hash_line)
through("there and back", "cat", up, up)
through("down, to a slow reader", cat, b"", down, read=(65536, .02))
through("there and back, slow reader", "cat", up, up, read=(65536, .02))
through("there and back, slow far side", slow, up, up)
through("there and back, in odd pieces", "cat", up[:SIZE // 8], up[:SIZE // 8], write=(1237, 0), read=(3331, 0))
small = ping_pong("small messages", [1 + i * 37 % 300 for i in range(500)])
ping_pong("messages of 48 KiB", [49152] * (SIZE // 200000))
ping_pong("messages of 3 MiB", [3 << 20] * (SIZE >> 22))
endings()
print(f"{SIZE >> 20} MiB each way; a small message and its answer: {small * 2:.2f} ms")
sys.exit(bool(FAILED))

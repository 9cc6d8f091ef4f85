"""The works; each yields (tool, result). What comes before a colon is a part of the work: its lines are compared with each other."""
import contextlib
import os
import shutil
import statistics
import subprocess
import time

from lab import Meter, Relay, read, run, wait_until
from tools import Daemon, Lsyncd, Syncd, Syncthing, here

PAIRS = (Syncd, Syncthing, Lsyncd)
PATIENT = 3  # so often is a pair looked at that waits for more than ten seconds before it does anything


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


def small(i):
    return f"d{i // 500}/f{i}"


def count(lab, most=None):
    return min(lab.size["files"], most or lab.size["files"])


def many(lab, most=None):
    """Two equal directories of many small files, which no tool knows; made once for all works, which leave them equal."""
    n = count(lab, most)
    a, b = lab.path(f"many-{n}"), lab.path(f"many-{n}-to")
    if not os.path.isdir(b):
        os.mkdir(a)
        small_files(a, n)
        run("cp", "-a", a, b)
    forget(lab, a, b)
    lab.settle()
    return a, b


def forget(lab, *roots):
    for root in roots:
        shutil.rmtree(root + "/.syncd", ignore_errors=True)
    shutil.rmtree(lab.path("unison"), ignore_errors=True)


def tree(lab):
    """A kernel's sources if that is the scale and they are here, else what a Debian system has of headers and documents."""
    archive, root = "/usr/src/linux-source-6.1.tar.xz", lab.path("tree")
    if not os.path.isdir(root):
        os.mkdir(root)
        if lab.size["kernel"] and os.path.exists(archive):
            run("tar", "-C", root, "-xf", archive)
        else:
            run("cp", "-a", "/usr/include", "/usr/share/doc", "/usr/share/perl", root)
    return root


def write_at(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def alike(a, b):
    """Does b show what a is by now? The tools set the time last."""
    with contextlib.suppress(OSError):
        old, new = os.stat(a), os.stat(b)
        return old.st_size == new.st_size and old.st_mtime_ns == new.st_mtime_ns
    return False


def alike_directories(a, b):
    with contextlib.suppress(OSError):
        return sorted(os.listdir(a)) == sorted(os.listdir(b))
    return False


# --- the works ---

def copies(lab, more, source, keep=False):
    """more: tools beside those that copy anything. keep: nothing is deleted before all is over; on a disk where something was, who makes
    files next pays for it (README.md)."""
    tools = [("syncd", lab.syncd), ("syncd, OpenSSH's client", lab.syncd_openssh), ("rsync -a", lab.rsync), ("rsync -a, sync", lab.rsync_durable),
             ("tar over ssh", lab.tar), ("tar, SHA-256, zstd, sync", lab.tar_as_promised), ("cp -a", lab.cp)]
    for name, tool in here(lab, [*tools, *more]):
        forget(lab, source)
        to, = lab.fresh(f"to-{time.monotonic_ns()}" if keep else "to")
        lab.settle()
        with Meter(lab) as m:
            pair = tool(source, to)
        yield name, m.result
        if pair:
            pair.stop()


def initial_copy(lab):
    """A real tree, to an empty place."""
    yield from copies(lab, [("unison", lab.unison), ("syncthing", lambda *p: Syncthing(lab, *p)), ("lsyncd", lambda *p: Lsyncd(lab, *p))], tree(lab), keep=True)


def copy_big(lab):
    """Four large files, to an empty place."""
    few = lab.path("few")
    if not os.path.isdir(few):
        os.mkdir(few)
        for i in range(4):
            random_file(f"{few}/f{i}", lab.size["copy"] // 4, i)
    yield from copies(lab, [("syncthing", lambda *p: Syncthing(lab, *p))], few)


def pairing(lab):
    """Two copies that were made by other means and never met."""
    source = tree(lab)
    to, = lab.fresh("to")
    run("cp", "-a", source + "/.", to)
    for part, a, b in (("source tree", source, to), ("small files", *many(lab))):
        forget(lab, a, b)
        lab.settle()
        with Meter(lab) as m:
            subprocess.run(f"find {a} {b} -type f -print0 | xargs -0 -P2 -n 2000 sha256sum >/dev/null", shell=True, check=True)
        yield f"{part}: sha256sum of both", m.result
        for name, tool in here(lab, [("syncd", lab.syncd), ("unison", lab.unison)]):
            with Meter(lab) as m:
                tool(a, b)
            yield f"{part}: {name}", m.result
        forget(lab, a, b)


def nothing(lab):
    """Nothing changed among many small files; one file did."""
    a, b = many(lab)
    tools = here(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("unison", lab.unison)])
    for name, tool in tools:
        if name in ("syncd", "unison"):
            tool(a, b)
            lab.settle()
            tool(a, b)  # young entries are hashed again, once
    with Meter(lab) as m:
        subprocess.run(f"find {a} -printf '%s%T@' >/dev/null & find {b} -printf '%s%T@' >/dev/null; wait", shell=True, check=True)
    yield "nothing: stat walk of both", m.result
    for name, tool in tools:
        with Meter(lab) as m:
            tool(a, b)
        yield f"nothing: {name}", m.result
    for n, (name, tool) in enumerate(tools):
        write_at(f"{a}/{small(n)}", 0, os.urandom(4).hex().encode()[:1])
        lab.settle()
        with Meter(lab) as m:
            tool(a, b)
        yield f"one edit: {name}", m.result
        lab.syncd(a, b)
    yield from nothing_live(lab, a, b)
    forget(lab, a, b)


def nothing_live(lab, a, b):
    """The relay counts what is on the wire; beside it stands the session's own count."""
    relay = Relay(lab, 0)
    pair = Syncd(lab, a, b, relay.port)

    def change():
        write_at(f"{a}/{small(7)}", 0, os.urandom(4).hex().encode())
        wait_until("one edit", lambda: alike(f"{a}/{small(7)}", f"{b}/{small(7)}"))

    for name, work in (("nothing", lambda: wait_until("both say their roots", pair.round)), ("one edit", change)):
        lab.settle()
        own = pair.counted()
        relay.reset()
        with Meter(lab) as m:
            work()
        m.result["bytes"], m.result["turns"] = relay.counted()
        m.result["own_bytes"] = pair.counted() - own
        yield f"{name}, live: syncd", m.result
    pair.stop()
    yield "a round, live: syncd", a_round(lab, a, b, relay)
    relay.stop()


def a_round(lab, a, b, relay):
    """One that comes by itself: its time is that from its first byte on the wire to its last."""
    pair = Syncd(lab, a, b, relay.port, interval="3 s")
    for _ in range(20):
        relay.reset()
        with Meter(lab) as m:
            wait_until("a round", lambda: relay.counted()[1] >= 3)
        m.result["bytes"], m.result["turns"] = relay.counted()
        m.result["seconds"] = relay.seconds()
        if m.result["turns"] == 3:  # neither two of them, nor half of one
            break
    pair.stop()
    return m.result


def edit_works(size):
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

    return [("4 KiB overwritten", lambda p, n: write_at(p, size // 3 + n * 8192, os.urandom(4096))), ("1 byte at the front", lambda p, n: insert(p, b"x")),
            ("1 MiB appended", lambda p, n: append(p, os.urandom(1 << 20))), ("100 edits of 1 KiB", scatter)]


def edits(lab):
    """A big file changed in four ways; indexes present. What syncd needs to hash it again is in the time. Live: from the end of the change on."""
    a, b = lab.fresh("big", "big-to")
    random_file(a + "/big", lab.size["big"])
    run("cp", "-a", a + "/big", b)
    tools = here(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -az", lab.rsync_z), ("unison", lab.unison)])

    def learn():
        """What the others did."""
        for name, tool in tools:
            if name in ("syncd", "unison"):
                tool(a, b)

    learn()
    for n, (work, change) in enumerate(edit_works(lab.size["big"])):
        for k, (name, tool) in enumerate(tools):
            change(a + "/big", n * 100 + k)
            lab.settle()
            with Meter(lab) as m:
                tool(a, b)
            yield f"{work}: {name}", m.result
            learn()
    forget(lab, a, b)
    for k, pair in enumerate(here(lab, PAIRS)):
        live = pair(lab, a, b)
        for n, (work, change) in enumerate(edit_works(lab.size["big"])):
            lab.settle()
            with Meter(lab) as m:
                change(a + "/big", n * 100 + 9 + k)
                m.began = time.monotonic()
                live.look()
                wait_until(f"{work}: {pair.name}", lambda: alike(a + "/big", b + "/big"))
            yield f"{work}: {pair.name}, live", m.result
        live.stop()
        forget(lab, a, b)
    lab.fresh("big", "big-to")


def renames(lab):
    """A directory of large files, and one large file, renamed."""
    a, b = lab.fresh("ren", "ren-to")
    os.mkdir(a + "/dir")
    for i in range(lab.size["rename"]):
        random_file(f"{a}/dir/f{i}", 1 << 20, i)
    random_file(f"{a}/file", lab.size["rename"] << 20, 1 << 20)
    run("cp", "-a", a + "/.", b)
    parts = [("directory", "dir"), ("file", "file")]

    def done(name):
        old, new = f"{b}/{name}", f"{b}/{name}.moved"
        return not os.path.exists(old) and (alike_directories(f"{a}/{name}.moved", new) if name == "dir" else alike(f"{a}/{name}.moved", new))

    for name, tool in here(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("unison", lab.unison)]):
        tool(a, b)
        for part, what in parts:
            lab.settle()
            os.rename(f"{a}/{what}", f"{a}/{what}.moved")
            with Meter(lab) as m:
                tool(a, b)
            yield f"{part}: {name}", m.result
            for root in (a, b):
                os.rename(f"{root}/{what}.moved", f"{root}/{what}")
        tool(a, b)
    forget(lab, a, b)
    for pair in here(lab, PAIRS):
        live = pair(lab, a, b)
        for part, what in parts:
            lab.settle()
            with Meter(lab) as m:
                os.rename(f"{a}/{what}", f"{a}/{what}.moved")
                live.look()
                wait_until(f"renamed {part}: {pair.name}", lambda: done(what))
            yield f"{part}: {pair.name}, live", m.result
        live.stop()
        for root in (a, b):
            for part, what in parts:
                os.rename(f"{root}/{what}.moved", f"{root}/{what}")
    lab.fresh("ren", "ren-to")


class Floor:
    """Writes, syncs and renames a line's text through an ssh that is open."""

    def __init__(self, lab):
        self.lab, to = lab, lab.path("floor")
        lab.started.append(self)
        far = (f"import sys,os\nfor line in sys.stdin:\n f=open('{to}.new','w');f.write(line);f.flush();os.fsync(f.fileno());f.close()\n"
               f" os.rename('{to}.new','{to}');n=os.open('{lab.top}',0);os.fsync(n);os.close(n);print(1,flush=True)")
        self.ssh = subprocess.Popen([*lab.ssh(), "root@127.0.0.1", f'python3 -uc "{far}"'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, text):
        self.ssh.stdin.write(text)
        self.ssh.stdin.flush()
        self.ssh.stdout.readline()

    def stop(self):
        self.lab.started.remove(self)
        self.ssh.stdin.close()
        self.ssh.wait()


def latency(lab):
    """From the write of a small file to the complete file at the peer. Syncthing waits 10 s for more by default, lsyncd 15 s."""
    a, b = many(lab, 100_000)
    apart = count(lab, 100_000) // 10
    floor = Floor(lab)
    took = {}

    def clock(name, work):
        began = time.monotonic()
        work()
        took.setdefault(name, []).append(time.monotonic() - began)

    for pair in here(lab, PAIRS):
        live = pair(lab, a, b)
        time.sleep(5)  # until all of them watch
        for i in range(lab.size["edits"] if pair is Syncd else PATIENT):
            text, path = f"edit {i} at {time.time()}\n", small(i % 10 * apart + 3)

            def edit():
                with open(f"{a}/{path}", "w") as f:
                    f.write(text)
                wait_until(f"{pair.name}: live edit", lambda: read(f"{b}/{path}") == text)

            clock(pair.name, edit)
            time.sleep(0.05)
            if pair is Syncd:
                clock("floor", lambda: floor.send(text))
        live.stop()
    floor.stop()
    for name, v in took.items():
        yield f"median: {name}", dict(seconds=statistics.median(v), cpu=0, bytes=0, anonymous=0)
        yield f"99 %: {name}", dict(seconds=sorted(v)[int(len(v) * .99)], cpu=0, bytes=0, anonymous=0)
    forget(lab, a, b)


def distance(lab):
    """Ten edits among many files over a link with a round trip of 50 ms; one-shot, and between daemons."""
    a, b = many(lab, 100_000)
    apart = count(lab, 100_000) // 10
    edited = [small(i * apart + 1) for i in range(10)]
    relay = Relay(lab, 25)

    def edit(byte):
        for path in edited:
            write_at(f"{a}/{path}", 0, byte)

    tools = here(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -a, no-i-r", lambda *p, **o: lab.rsync(*p, **o, options=["--no-inc-recursive"])), ("unison", lab.unison)])
    lab.syncd(a, b)
    for name, tool in tools:
        if name in ("syncd", "unison"):
            tool(a, b)
        edit(name[-1].encode())
        lab.settle()
        relay.reset()
        with Meter(lab) as m:
            tool(a, b, port=relay.port)
        m.result["bytes"], m.result["turns"] = relay.counted()
        yield f"one-shot: {name}", m.result
        lab.syncd(a, b)
    pair = Syncd(lab, a, b, relay.port)
    lab.settle()
    relay.reset()
    with Meter(lab) as m:
        edit(b"+")
        wait_until("ten edits", lambda: all(alike(f"{a}/{path}", f"{b}/{path}") for path in edited))
    m.result["bytes"], m.result["turns"] = relay.counted()
    yield "daemons: syncd", m.result
    pair.stop()
    relay.stop()
    forget(lab, a, b)


def history(lab):
    """Successive versions of a source tree: this project's own commits. The first one is copied, each further one is a step."""
    top = os.path.dirname(os.path.abspath(__file__)) + "/../.."
    step = lab.size["steps"]
    commits = subprocess.run(["git", "-C", top, "rev-list", "--first-parent", f"--max-count={step + 1}", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.split()[::-1]
    if not commits:
        return
    for name, tool in here(lab, [("syncd", lab.syncd), ("rsync -a", lab.rsync), ("rsync -az", lab.rsync_z), ("unison", lab.unison)]):
        a, b = lab.fresh("hist", "hist-to")
        total = dict(seconds=0, cpu=0, bytes=0, anonymous=0)
        for n, commit in enumerate(commits):
            subprocess.run(f"rm -rf {lab.path('next')} && mkdir {lab.path('next')} && git -C {top} archive {commit} | tar -C {lab.path('next')} -xmf - && "
                           f"rsync -rlpc --delete --exclude=/.syncd {lab.path('next')}/ {a}/", shell=True, check=True)
            with Meter(lab) as m:
                tool(a, b)
            if n == 0:
                yield f"first: {name}", m.result
                continue
            for key in ("seconds", "cpu", "bytes"):
                total[key] += m.result[key]
            total["anonymous"] = max(total["anonymous"], m.result["anonymous"])
        yield f"steps: {name}", total
    forget(lab)


def first_scan(lab):
    """The index of many small files, and of a big one, from nothing."""
    big = lab.path("scan-big")
    if not os.path.isdir(big):
        os.mkdir(big)
        random_file(big + "/f", lab.size["big"])
    for part, content in (("small files", many(lab)[0]), ("a big file", big)):
        root, to = lab.fresh("scan", "to")
        lab.syncd(root, to)  # a replica that never met another one is not scanned
        for name in os.listdir(content):
            os.rename(f"{content}/{name}", f"{root}/{name}")
        lab.settle()
        for name, command in (("stat and read", f"{lab.layers} walk {root}"), ("sha256sum, one core", f"find {root} -path {root}/.syncd -prune -o -type f -print0 | xargs -0 -n 5000 sha256sum")):
            with Meter(lab) as m:
                subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
            yield f"{part}: {name}", m.result
        with Meter(lab) as m:
            d = Daemon(lab, "scan", f"[folder t]\npath = {root}\n")
            wait_until("scanned", lambda: d.status()["state"] == "ready")
        m.result.update(index=index_bytes(root), idle=lab.group.anonymous())
        yield f"{part}: syncd", m.result
        d.stop()
        for name in set(os.listdir(root)) - {".syncd"}:
            os.rename(f"{root}/{name}", f"{content}/{name}")


def index_bytes(root):
    at = root + "/.syncd/index/"
    return sum(os.stat(at + f).st_blocks * 512 for f in os.listdir(at))


def memory(lab):
    """Many small files on both sides, in sync: from the start of both daemons on; then what they have when they are idle."""
    a, b = many(lab)
    for pair in here(lab, PAIRS):
        with Meter(lab) as m:
            live = pair(lab, a, b)
        time.sleep(3)
        m.result["idle"] = lab.group.anonymous()
        if pair is Syncd:
            m.result["index"] = max(index_bytes(a), index_bytes(b))
        yield pair.name, m.result
        live.stop()
    forget(lab, a, b)


WORKS = dict(copy=initial_copy, big=copy_big, pairing=pairing, nothing=nothing, edits=edits, renames=renames, latency=latency, distance=distance, history=history,
             scan=first_scan, memory=memory)

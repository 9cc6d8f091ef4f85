"""What the campaigns do to two folders as users, and what must be there afterwards.

A round takes place in a directory of its own, with objects that both sides have. Each kind of edit is made on one side, drawn
by the seed; one file is edited on both. What both sides must show in the end follows from the edits alone: a dictionary of
path → Object, with the one conflict told apart (either version at the path, the other one in a conflict copy).
"""
import os
import random
import re
import stat

COPY = re.compile(r"^(?P<stem>.*)\.sync-conflict-[0-9a-f]+(-[0-9]+)?(?P<ext>\.[^./]*)?$")


def text(*words, lines=3):
    return "".join(f"{'.'.join(map(str, words))} line {n}\n" for n in range(lines)).encode()


class Base:
    """The objects of a round before anybody edits them."""

    def __init__(self, seed, number, big=200_000):
        self.rng = random.Random(f"{seed}/{number}")
        self.mark = f"{seed}.{number}"
        self.big = self.rng.randbytes(big)

    def make(self, d):
        os.mkdir(d)
        for name in "keep rewritten replaced appended truncated gone old mode touched both swap1 swap2 f2d f2l".split():
            put(f"{d}/{name}", text(self.mark, name, "base"))
        put(f"{d}/big", self.big)
        put(f"{d}/bigger", self.big[::-1] + self.big)
        for sub in ("tree", "tree/sub", "moved", "moved/sub", "d2f", "kept"):
            os.mkdir(f"{d}/{sub}")
        for name in "tree/a tree/sub/b moved/a moved/sub/b d2f/a kept/a".split():
            put(f"{d}/{name}", text(self.mark, name, "base"))
        os.symlink("nowhere", f"{d}/link")
        os.symlink("keep", f"{d}/l2f")


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def replace(path, data):
    put(path + ".new", data)
    os.rename(path + ".new", path)


def in_place(path, data, offset=0):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def remove(path):
    for top, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{top}/{name}")
        for name in directories:
            below = f"{top}/{name}"
            os.unlink(below) if os.path.islink(below) else os.rmdir(below)
    os.rmdir(path)


def turn_into_directory(d, mark):
    os.unlink(f"{d}/f2d")
    os.mkdir(f"{d}/f2d")
    put(f"{d}/f2d/inside", text(mark, "inside"))


def turn_into_file(d, mark):
    remove(f"{d}/d2f")
    put(f"{d}/d2f", text(mark, "d2f"))


def turn_into_link(d, _):
    os.unlink(f"{d}/f2l")
    os.symlink("keep", f"{d}/f2l")


def turn_link_into_file(d, mark):
    os.unlink(f"{d}/l2f")
    put(f"{d}/l2f", text(mark, "l2f"))


def other_link(d, _):
    os.unlink(f"{d}/link")
    os.symlink("keep", f"{d}/link")


def swap(d, _):
    os.rename(f"{d}/swap1", f"{d}/swap0")
    os.rename(f"{d}/swap2", f"{d}/swap1")
    os.rename(f"{d}/swap0", f"{d}/swap2")


def new_tree(d, mark):
    for sub in ("new-tree", "new-tree/sub", "new-tree/empty"):
        os.mkdir(f"{d}/{sub}")
    for name in "new-tree/a new-tree/sub/b new-tree/sub/c".split():
        put(f"{d}/{name}", text(mark, name))


# What one user does to one thing; none touches what another one does.
EDITS = {
    "rewritten": lambda d, m: in_place(f"{d}/rewritten", text(m, "rewritten", "edit")),
    "replaced": lambda d, m: replace(f"{d}/replaced", text(m, "replaced", "edit", lines=5)),
    "appended": lambda d, m: in_place(f"{d}/appended", text(m, "more"), os.path.getsize(f"{d}/appended")),
    "truncated": lambda d, m: put(f"{d}/truncated", b""),
    "gone": lambda d, m: os.unlink(f"{d}/gone"),
    "tree": lambda d, m: remove(f"{d}/tree"),
    "old": lambda d, m: os.rename(f"{d}/old", f"{d}/renamed"),
    "moved": lambda d, m: os.rename(f"{d}/moved", f"{d}/moved-away"),
    "mode": lambda d, m: os.chmod(f"{d}/mode", 0o640),
    "touched": lambda d, m: os.utime(f"{d}/touched", (1e9, 1e9)),
    "f2d": turn_into_directory,
    "d2f": turn_into_file,
    "f2l": turn_into_link,
    "l2f": turn_link_into_file,
    "link": other_link,
    "swap": swap,
    "big": lambda d, m: in_place(f"{d}/big", text(m, "middle"), 90_000),
    "bigger": lambda d, m: replace(f"{d}/bigger", random.Random(m).randbytes(150_000)),
    "new": lambda d, m: put(f"{d}/new.txt", text(m, "new")),
    "new-tree": new_tree,
    "kept": lambda d, m: put(f"{d}/kept/b", text(m, "kept")),
}


class Object:
    def __init__(self, path):
        st = os.lstat(path)
        self.kind = stat.S_IFMT(st.st_mode)
        self.mode = stat.S_IMODE(st.st_mode)
        self.mtime = st.st_mtime_ns
        self.content = b""
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as f:
                self.content = f.read()
        elif stat.S_ISLNK(st.st_mode):
            self.content = os.readlink(path).encode()
            self.mode = 0
        else:
            self.mtime = 0  # a directory's is a hint

    def key(self):
        return self.kind, self.mode, self.mtime, self.content

    def __str__(self):
        return f"{stat.filemode(self.kind | self.mode)} {self.mtime} {len(self.content)} B {self.content[-24:]!r}"


def tree(root):
    """All below root but what is syncd's own."""
    found = {}

    def walk(at):
        with os.scandir(f"{root}/{at}") as entries:
            for e in entries:
                path = f"{at}{e.name}"
                if path == ".syncd":
                    continue
                found[path] = Object(f"{root}/{path}")
                if e.is_dir(follow_symlinks=False):
                    walk(path + "/")

    walk("")
    return found


class Round:
    """Edits in directory `name` of two folders that are equal there."""

    def __init__(self, seed, number, a, b, name, edits=None, conflict=True):
        self.name, self.sides = name, (a, b)
        self.rng = random.Random(f"edits {seed}/{number}")
        self.mark = f"{seed}.{number}"
        self.edits = list(edits or EDITS)
        self.conflict = conflict
        self.versions = []

    def make(self):
        """Edit, and work out what both must show."""
        before = tree(f"{self.sides[0]}/{self.name}")
        for edit in self.edits:
            EDITS[edit](f"{self.rng.choice(self.sides)}/{self.name}", self.mark)
        if self.conflict:
            for n, side in enumerate(self.sides):
                replace(f"{side}/{self.name}/both", text(self.mark, "both", n))
        mine, theirs = (tree(f"{s}/{self.name}") for s in self.sides)
        self.before = before
        self.expected = {}
        for path in mine.keys() | theirs.keys():
            was, a, b = before.get(path), mine.get(path), theirs.get(path)
            if self.conflict and path == "both":
                self.versions = [a, b]
            elif not same(a, was):
                if a:
                    self.expected[path] = a
            elif b:
                self.expected[path] = b

    def faults(self, root):
        """What is not as it must be in this folder."""
        seen, found = tree(f"{root}/{self.name}"), []
        if self.conflict:
            copies = [p for p in seen if COPY.match(p)]
            there = [seen.pop(p).content for p in copies + ["both"] if p in seen]
            if sorted(there) != sorted(v.content for v in self.versions):
                found.append(f"the conflict's versions: {copies}, {[c[-24:] for c in there]}")
        for path in sorted(seen.keys() | self.expected.keys()):
            if not same(seen.get(path), self.expected.get(path)):
                found.append(f"{path}: is {seen.get(path)}, must be {self.expected.get(path)}")
        return [f"{root}/{self.name}: {f}" for f in found]


    def kept(self, *roots):
        """Is all of it there, if not where it should be: at its path, in a conflict copy, or in one side's trash?"""
        trash = {o.content for root in roots for o in tree(f"{root}/.syncd/trash").values()}
        for root in roots:
            seen = tree(f"{root}/{self.name}")
            somewhere = trash | {o.content for p, o in seen.items() if COPY.match(os.path.basename(p)) or p == "both"}
            missing = [p for p, o in self.expected.items() if not same(seen.get(p), o)]
            more = [p for p in seen if p not in self.expected and p != "both" and not COPY.match(os.path.basename(p))]
            if missing or more or not all(v.content in somewhere for v in self.versions):
                return False
        return True


def same(a, b):
    return a is b or (a is not None and b is not None and a.key() == b.key())


def differences(a, b, seen=tree):
    one, two = seen(a), seen(b)
    return [f"{p}: {one.get(p)} in {a}, {two.get(p)} in {b}" for p in sorted(one.keys() | two.keys())
            if not same(one.get(p), two.get(p))]

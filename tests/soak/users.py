"""Users of a machine, and what must be there in the end.

own/NAME    only the user NAME works there, in every way; what is there in the end is known exactly.
shared/     all users put, replace and take away whole files. Each content is a token; a user who replaces or removes one sees which
            it was, as one call exchanges the two. In the end each token that nobody replaced or removed is at its name or in a
            conflict copy of it, and none that somebody did is at its name.
wild/       all users do anything to anything there; all machines must agree in the end.
"""
import ctypes
import errno
import os
import random
import shutil
import threading

NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
OWN_MAX, WILD_MAX, SHARED_NAMES = 250, 400, 24
libc = ctypes.CDLL(None, use_errno=True)


def rename(a, b, flags):
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), b)


class Tokens:
    """Of all users: where each was put, and who is no more wanted."""

    def __init__(self):
        self.lock, self.n = threading.Lock(), 0
        self.put, self.gone = {}, {}

    def new(self, user):
        with self.lock:
            self.n += 1
            return f"{user} {self.n}\n"

    def faults(self, root):
        """In this folder."""
        found, at = [], {}
        for name in os.listdir(f"{root}/shared"):
            with open(f"{root}/shared/{name}") as f:
                at.setdefault(f.read(), []).append(name)
        for token, name in self.put.items():
            there = at.get(token, [])
            if token in self.gone:
                if name in there:
                    found.append(f"{root}/shared/{name} is {token!r}, which {self.gone[token]}")
            elif not any(n == name or n.startswith(name + ".sync-conflict-") for n in there):
                found.append(f"{root}/shared/{name}: {token!r} is lost")
        found += [f"{root}/shared/{there}: {token!r} was written by nobody" for token, there in at.items() if token not in self.put]
        return found


class User:
    def __init__(self, name, root, desk, seed, tokens, diary):
        self.name, self.root, self.desk, self.tokens, self.diary = name, root, desk, tokens, diary
        self.rng = random.Random(f"{seed}/{name}")
        self.own, self.n, self.done, self.refused = {}, 0, 0, 0
        for d in (f"{root}/own/{name}", f"{root}/shared", f"{root}/wild", desk):
            os.makedirs(d, exist_ok=True)
        self.acts = [(self.act_own, 6), (self.act_shared, 3), (self.act_wild, 4)]

    def step(self):
        act = self.rng.choices([a for a, _ in self.acts], [w for _, w in self.acts])[0]
        try:
            act()
            self.done += 1
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY, errno.EISDIR,
                               errno.EINVAL, errno.EBUSY, errno.ELOOP, errno.EAGAIN):
                raise
            self.refused += 1
            if act == self.act_own:
                self.note(f"failed: {e}")
                self.look_again()

    # --- own ---

    def note(self, what, *paths):
        self.diary.note(f"user {self.name}", what, *(f"own/{self.name}/{p}" for p in paths))

    def place(self, path=""):
        return f"{self.root}/own/{self.name}/{path}"

    def look_again(self):
        """A call failed half-way (a full disk): only this user works here, so what is there now is what he left."""
        self.own = self.read_own(self.root)

    def read_own(self, root):
        found, top = {}, f"{root}/own/{self.name}"

        def walk(at):
            with os.scandir(f"{top}/{at}") as entries:
                for e in entries:
                    path = at + e.name
                    if e.is_symlink():
                        found[path] = ("link", os.readlink(e.path))
                    elif e.is_dir():
                        found[path] = ("directory",)
                        walk(path + "/")
                    else:
                        with open(e.path, "rb") as f:
                            found[path] = ("file", f.read(), e.stat().st_mode & 0o7777)

        if os.path.isdir(top):
            walk("")
        return found

    def pick(self, kind):
        names = [p for p, o in self.own.items() if o[0] == kind]
        return self.rng.choice(names) if names else None

    def fresh(self):
        """A new name, in some directory; or one that was there before."""
        d = self.pick("directory") if self.rng.random() < 0.7 else None
        self.n += 1
        name = f"n{self.rng.randrange(40)}" if self.rng.random() < 0.3 else f"n{self.n}"
        path = f"{d}/{name}" if d else name
        return None if path in self.own else path

    def data(self):
        size = self.rng.choice([0, 10, 100, 3000, 3000, 50_000, 400_000])
        return self.rng.randbytes(size) if self.rng.random() < 0.5 else (f"{self.name} {self.n} ".encode() * (size // 6 + 1))[:size]

    def act_own(self):
        r = self.rng.random()
        if len(self.own) > OWN_MAX or r < 0.08:
            self.own_remove()
        elif r < 0.45:
            self.own_create()
        elif r < 0.85:
            self.own_edit()
        else:
            self.own_rename()

    def own_create(self):
        path = self.fresh()
        if not path:
            return
        what = self.rng.random()
        if what < 0.2:
            os.mkdir(self.place(path))
            self.own[path] = ("directory",)
            self.note("mkdir", path)
        elif what < 0.3:
            os.symlink(f"to {self.n}", self.place(path))
            self.own[path] = ("link", f"to {self.n}")
            self.note("symlink", path)
        else:
            data = self.data()
            with open(self.place(path), "xb") as f:
                f.write(data)
                os.fchmod(f.fileno(), 0o644)
            self.own[path] = ("file", data, 0o644)
            self.note(f"created, {len(data)} bytes:", path)

    def own_edit(self):
        path = self.pick("file")
        if not path:
            return
        _, data, mode = self.own[path]
        at, how = self.place(path), self.rng.random()
        if how < 0.25:  # in place, maybe with the times as they were
            offset = self.rng.randrange(len(data) + 1)
            piece = self.rng.randbytes(self.rng.choice([1, 100, 5000]))
            st = os.stat(at)
            with open(at, "r+b") as f:
                f.seek(offset)
                f.write(piece)
            data = data[:offset] + piece + data[offset + len(piece):]
            if self.rng.random() < 0.3:
                os.utime(at, ns=(st.st_atime_ns, st.st_mtime_ns))
        elif how < 0.45:
            piece = self.data()[:20_000]
            with open(at, "ab") as f:
                f.write(piece)
            data += piece
            if len(data) > 2_000_000:
                data = data[:1000]
                os.truncate(at, 1000)
        elif how < 0.55:
            n = self.rng.randrange(len(data) + 1)
            os.truncate(at, n)
            data = data[:n]
        elif how < 0.65:
            mode = self.rng.choice([0o600, 0o644, 0o755])
            os.chmod(at, mode)
        elif how < 0.75 and (other := self.pick("file")) not in (None, path):
            rename(at, self.place(other), EXCHANGE)
            self.own[path], self.own[other] = self.own[other], self.own[path]
            self.note("swapped", path, other)
            return
        else:  # as editors save
            data, mode = self.data(), 0o644
            with open(at + "~", "wb") as f:
                f.write(data)
                os.fchmod(f.fileno(), mode)
            os.rename(at + "~", at)
            self.own.pop(path + "~", None)  # left over when the disk was full
        self.own[path] = ("file", data, mode)
        self.note(f"edited ({how:.2f}), {len(data)} bytes:", path)

    def own_rename(self):
        path, to = self.pick(self.rng.choice(["file", "directory", "link"])), self.fresh()
        if not path or not to or to.startswith(path + "/"):
            return
        rename(self.place(path), self.place(to), NOREPLACE)
        for p in [p for p in self.own if p == path or p.startswith(path + "/")]:
            self.own[to + p[len(path):]] = self.own.pop(p)
        self.note("renamed", path, to)

    def own_remove(self):
        path = self.rng.choice(list(self.own)) if self.own else None
        if not path:
            return
        kind = self.own[path][0]
        shutil.rmtree(self.place(path)) if kind == "directory" else os.unlink(self.place(path))
        for p in [p for p in self.own if p == path or p.startswith(path + "/")]:
            del self.own[p]
        self.note(f"removed {kind}", path)
        if self.rng.random() < 0.3:  # something of another kind in its place
            if kind == "directory":
                with open(self.place(path), "xb") as f:
                    os.fchmod(f.fileno(), 0o600)
                self.own[path] = ("file", b"", 0o600)
                self.note("file instead", path)
            else:
                os.mkdir(self.place(path))
                self.own[path] = ("directory",)
                self.note("directory instead", path)

    def own_faults(self, root):
        is_now, found = self.read_own(root), []
        for path in sorted(is_now.keys() | self.own.keys()):
            a, b = is_now.get(path), self.own.get(path)
            if a != b:
                found.append(f"{root}/own/{self.name}/{path}: is {show(a)}, must be {show(b)}")
        return found

    # --- shared ---

    def act_shared(self):
        name = f"f{self.rng.randrange(SHARED_NAMES)}"
        at, desk = f"{self.root}/shared/{name}", f"{self.desk}/token"
        if self.rng.random() < 0.2:
            rename(at, desk, NOREPLACE)
            self.away(desk, f"{self.name} removed")
            return
        token = self.tokens.new(self.name)
        with open(desk, "w") as f:
            f.write(token)
        self.tokens.put[token] = name
        try:
            rename(at, desk, EXCHANGE)
        except FileNotFoundError:
            try:
                rename(desk, at, NOREPLACE)
            except OSError:
                del self.tokens.put[token]
                os.unlink(desk)
                raise
            return
        except OSError:
            del self.tokens.put[token]
            os.unlink(desk)
            raise
        self.away(desk, f"{self.name} replaced by {token!r}")

    def away(self, desk, how):
        with open(desk) as f:
            self.tokens.gone[f.read()] = how
        os.unlink(desk)

    # --- wild ---

    def some(self, kinds):
        found = []
        for top, directories, files in os.walk(f"{self.root}/wild"):
            found += [f"{top}/{n}" for n in (directories if "d" in kinds else []) + (files if "f" in kinds else [])]
        self.wild = len(found)
        return self.rng.choice(found) if found else None

    def act_wild(self):
        r, d, n = self.rng.random(), self.some("d") or f"{self.root}/wild", self.rng.randrange(12)
        at = self.some("fd")
        if self.wild > WILD_MAX:
            r = 0.05
        if r < 0.15 and at:
            shutil.rmtree(at) if os.path.isdir(at) and not os.path.islink(at) else os.unlink(at)
        elif r < 0.35:
            os.mkdir(f"{d}/w{n}")
        elif r < 0.65:
            with open(f"{d}/w{n}", "wb") as f:
                f.write(self.data())
        elif r < 0.75 and at and os.path.isfile(at):
            with open(at, "r+b") as f:
                f.write(self.rng.randbytes(20))
        elif r < 0.8 and at:
            os.chmod(at, self.rng.choice([0o700, 0o750, 0o755]), follow_symlinks=True)
        elif r < 0.85:
            os.symlink(f"w{n}", f"{d}/w{self.rng.randrange(12)}")
        elif at:
            os.rename(at, f"{d}/w{n}")

    def flood(self, events):
        """More events than the kernel keeps for who does not read them."""
        one, two = (os.open(f"{self.root}/wild/flood{i}", os.O_WRONLY | os.O_CREAT, 0o644) for i in (1, 2))
        for i in range(events // 2):
            os.pwrite(one, b"%d" % i, 0)
            os.pwrite(two, b"%d" % i, 0)
        os.close(one)
        os.close(two)


def show(o):
    if o is None:
        return "nothing"
    return f"a file of {len(o[1])} bytes, mode {o[2]:o}, {o[1][:16]!r}…{o[1][-16:]!r}" if o[0] == "file" else " ".join(o)

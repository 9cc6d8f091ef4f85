#!/usr/bin/env python3
"""Every pair of edits of one thing, one on each side at once: pairs.py make ROOT | do ROOT a|b | check ROOT

make: what is there before. do: the side's edit of each pair. check: after both sides are in sync, each content that either
side wrote exists, what only went on one side and was not changed on the other is gone, and nothing was kept beside that needed
not be.
"""
import os, shutil, sys

ON_FILE = ["edit", "append", "truncate", "chmod", "rename", "delete", "to-directory"]
ON_DIRECTORY = ["rename", "delete", "to-file", "edit inside", "add inside", "delete inside"]
NEW = ["create", "create the same", "create a directory"]
MODE = {"a": 0o600, "b": 0o640}
faults = 0


def put(path, text, how="w"):
    with open(path, how) as f:
        f.write(text)


def get(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return None


def base(name):
    return f"{name}: abcdefgh\n"


def cut(name, side):
    return len(name) + (4 if side == "a" else 6)


class File:
    """A file, or nothing, at one path."""

    @staticmethod
    def make(at, name):
        put(at, base(name))

    @staticmethod
    def do(op, at, name, side):
        if op in ("edit", "create"):
            put(at, f"{op} {name} {side}\n")
        elif op == "create the same":
            put(at, f"{op} {name}\n")
        elif op == "append":
            put(at, f"more {side}\n", "a")
        elif op == "truncate":
            os.truncate(at, cut(name, side))
        elif op == "chmod":
            os.chmod(at, MODE[side])
        elif op == "rename":
            os.rename(at, f"{at}.by-{side}")
        elif op == "delete":
            os.unlink(at)
        else:
            if op == "to-directory":
                os.unlink(at)
            os.mkdir(at)
            put(f"{at}/in", f"in {name} {side}\n")

    @staticmethod
    def wrote(op, name, side):
        return {
            "edit": f"edit {name} {side}\n",
            "create": f"create {name} {side}\n",
            "create the same": f"create the same {name}\n",
            "append": base(name) + f"more {side}\n",
            "truncate": base(name)[: cut(name, side)],
            "rename": base(name),
            "to-directory": f"in {name} {side}\n",
            "create a directory": f"in {name} {side}\n",
        }.get(op)

    @staticmethod
    def check(ops, at, name, want):
        for op, side in zip(ops, "ab"):
            if op == "rename":
                want(get(f"{at}.by-{side}") == base(name), "a renamed file is not there")
        if all(op in ("chmod", "rename", "delete") for op in ops) and ops != ("chmod", "chmod"):
            want(not os.path.lexists(at), "what went is there")
        for i in (0, 1):
            if ops[i] == "chmod" and ops[1 - i] in ("edit", "append", "truncate"):
                want(get(at) == File.wrote(ops[1 - i], name, "ab"[1 - i]), "a chmod took an edit's place")
                want(os.path.lexists(at) and os.stat(at).st_mode & 0o777 == MODE["ab"[i]], "a chmod is lost")
        if ops == ("chmod", "chmod"):
            want(os.path.lexists(at) and os.stat(at).st_mode & 0o777 in MODE.values(), "neither mode stands")
        both_wrote = all(File.wrote(op, name, "a") and op != "rename" for op in ops)
        if ops == ("create the same",) * 2 or not both_wrote:
            want(not copies(at), f"a needless conflict copy: {copies(at)}")


class Directory:
    """A directory of five files."""

    @staticmethod
    def make(at, name):
        os.mkdir(at)
        for i in range(5):
            put(f"{at}/f{i}", base(f"{name} {i}"))

    @staticmethod
    def do(op, at, name, side):
        if op == "rename":
            os.rename(at, f"{at}.by-{side}")
        elif op == "delete":
            shutil.rmtree(at)
        elif op == "to-file":
            shutil.rmtree(at)
            put(at, f"{op} {name} {side}\n")
        elif op == "edit inside":
            put(f"{at}/f0", f"{op} {name} {side}\n")
        elif op == "add inside":
            put(f"{at}/new-{side}", f"{op} {name} {side}\n")
        else:
            os.unlink(f"{at}/f1")

    @staticmethod
    def wrote(op, name, side):
        return f"{op} {name} {side}\n" if op in ("to-file", "edit inside", "add inside") else None

    @staticmethod
    def check(ops, at, name, want):
        for op, side in zip(ops, "ab"):
            if op == "rename":
                for i in range(5):
                    want(get(f"{at}.by-{side}/f{i}") == base(f"{name} {i}"), "what was in a renamed directory is not in the new one")
        if all(op in ("rename", "delete", "delete inside") for op in ops) and ops != ("delete inside",) * 2:
            want(not os.path.lexists(at), "what went is there")
        if any(op in ("rename", "delete", "to-file") for op in ops):
            for i in range(2, 5):
                want(not os.path.lexists(f"{at}/f{i}"), f"f{i} went, and is there")
        if "delete inside" in ops:
            want(not os.path.lexists(f"{at}/f1"), "f1 went, and is there")


def pairs(root):
    for what, kind, ops in (("file", File, ON_FILE), ("directory", Directory, ON_DIRECTORY), ("new", File, NEW)):
        for x in ops:
            for y in ops:
                name = f"{what} {x} + {y}"
                yield what, kind, (x, y), f"{root}/{name}", name


def copies(at):
    parent, name = os.path.split(at)
    return [f for f in os.listdir(parent) if f.startswith(name) and ".sync-conflict-" in f]


def all_contents(root):
    found = set()
    for directory, _, files in os.walk(root):
        found.update(get(f"{directory}/{f}") for f in files)
    return found


def check(root):
    there = all_contents(root)
    count = 0
    for _, kind, ops, at, name in pairs(root):
        def want(ok, what):
            global faults
            if not ok:
                print(f"{name}: {what}")
                faults += 1
        for op, side in zip(ops, "ab"):
            text = kind.wrote(op, name, side)
            want(text is None or text in there, f"what {side} wrote is nowhere: {text!r}")
        kind.check(ops, at, name, want)
        count += 1
    print(f"{count} pairs, {faults} faults")
    return faults != 0


what, root = sys.argv[1:3]
if what == "check":
    sys.exit(check(root))
for group, kind, ops, at, name in pairs(root):
    if what == "do":
        kind.do(ops["ab".index(sys.argv[3])], at, name, sys.argv[3])
    elif group != "new":
        kind.make(at, name)

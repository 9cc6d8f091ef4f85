#!/usr/bin/env python3
"""The decision table of tombstones/decide.h as an executable model, and its comparison with the C code.

decide() below is the table, written for reading: small values, sets and dictionaries. main() draws random cases (two
records, two knowledges, a lineage, a policy), asks the C driver for its decisions on the same cases, and compares action,
record and what is to be told, case by case. Any difference is printed and fails the run.

usage: decision_table.py DRIVER [CASES [SEED]]
"""
import copy
import random
import subprocess
import sys

FILE, DIRECTORY, SYMLINK, OPAQUE = 1, 2, 3, 9
KEEP_BOTH, NEWEST, PREFER = 0, 1, 2
PRIVILEGES = 0o6000


class Record:
    """Registers under one vector `vv`. A tombstone has only vv, dots and lost."""

    def __init__(self, live, kind=0, content=0, vv=None, dots=(), lost=(), attributes=(0, 0, 0), adots=(), mtime=0, mdots=()):
        self.live, self.kind, self.content = live, kind, content
        self.vv, self.dots, self.lost = dict(vv or {}), frozenset(dots), frozenset(lost)
        self.attributes, self.adots = attributes, frozenset(adots)
        self.mtime, self.mdots = mtime, frozenset(mdots)

    def state(self):
        return (self.live, self.kind, self.content)

    def hashed(self):
        """All that is compared between replicas: a directory's mtime is only a hint."""
        mtime = 0 if self.kind == DIRECTORY else self.mtime
        return (self.state(), self.vv, self.dots, self.lost, self.attributes, self.adots, mtime, self.mdots)


# --- vectors and lineage: incarnation -> (parent, counter at which the parent was left, replica) ------------------

class Lineage(dict):
    def implies(self, later, dot):
        """Does any event of incarnation `later` imply the dot?"""
        while later in self:
            later, left = self[later][:2]
            if later == dot[0]:
                return dot[1] <= left
        return False

    def has(self, vector, dot):
        return vector.get(dot[0], 0) >= dot[1] or any(i != dot[0] and self.implies(i, dot) for i in vector)

    def leq(self, a, b):
        return all(self.has(b, dot) for dot in a.items())

    def normal(self, vector):
        return {i: n for i, n in vector.items() if not any(j != i and self.implies(j, (i, n)) for j in vector)}

    def join(self, a, b):
        return self.normal({i: max(a.get(i, 0), b.get(i, 0)) for i in a.keys() | b.keys()})


def greatest(dots):
    """The order over dots: by counter, then by incarnation."""
    return max(((n, i) for i, n in dots), default=(0, 0))


# --- the table ------------------------------------------------------------------------------------------------

class Decision:
    """none    nothing to do here                take    their state, the record as given
    merge   our state, the record as given    aside   ours to a conflict copy, then take
    delete  ours, as a new event              renew   our state, the record as given, written once more
    drop    our tombstone
    wait    the peer must act first"""

    def __init__(self, action, record=None, ours=None, cleared=False, same_dot=False):
        self.action, self.record, self.same_dot = action, record, same_dot
        self.cleared = cleared and record is not None
        both = record is not None and ours is not None
        self.attributes_moved = both and record.attributes != ours.attributes
        self.mtime_moved = both and record.kind != DIRECTORY and record.mtime != ours.mtime


class Case:
    def __init__(self, ours, theirs, our_k, their_k, lineage, taker_loses=False, policy=KEEP_BOTH, prefer=()):
        self.ours, self.theirs, self.our_k, self.their_k = ours, theirs, our_k, their_k
        self.lineage, self.taker_loses, self.policy, self.prefer = lineage, taker_loses, policy, list(prefer)
        self.cleared = self.same_dot = False

    def they_saw(self, dots):
        has = self.lineage.has
        return all(has(self.theirs.vv, d) or has(self.their_k, d) for d in dots)

    def we_saw(self, dots):
        has = self.lineage.has
        return all(has(self.ours.vv, d) or has(self.our_k, d) for d in dots)

    def merged(self, ours, theirs):
        """Of a register's value that both have: the dots of both, less those that one side knows and no longer names."""
        keep = ours & theirs
        keep |= {d for d in ours if not self.lineage.has(self.theirs.vv, d)}
        keep |= {d for d in theirs if not self.lineage.has(self.ours.vv, d)}
        return keep or ours | theirs

    def precedence(self, record):
        """The same total order on both sides."""
        key = 0
        if self.policy == NEWEST:
            key = record.mtime if record.live and record.kind != DIRECTORY else float("-inf")
        elif self.policy == PREFER:
            writer = self.lineage.get(greatest(record.dots)[1], (0, 0, None))[2]
            key = -(self.prefer.index(writer) if writer in self.prefer else len(self.prefer))
        return (key, greatest(record.dots), record.state())

    def ours_wins(self):
        return self.precedence(self.ours) > self.precedence(self.theirs)

    def register(self, ours, theirs):
        """(value, dots) of ours and theirs -> (value, dots, from ours, from theirs): the causally newer, else the order
        over dots, else the larger value."""
        if ours[0] == theirs[0]:
            return ours[0], self.merged(ours[1], theirs[1]), True, True
        they_saw, we_saw = self.they_saw(ours[1]), self.we_saw(theirs[1])
        if they_saw != we_saw:
            mine = we_saw
        else:
            mine = (greatest(ours[1]), ours[0]) > (greatest(theirs[1]), theirs[0])
        return (ours if mine else theirs) + (mine, not mine)

    def make(self, state, dots=None, lost=None):
        """The record that follows from both, with the state of `state`, which is ours or theirs."""
        o, t = self.ours, self.theirs
        made = copy.copy(state)
        made.vv = self.lineage.join(o.vv, t.vv)
        made.dots = state.dots if dots is None else frozenset(dots)
        made.lost = state.lost if lost is None else frozenset(lost)
        if not (o.live and t.live):
            return made
        same = o.state() == t.state()
        if o.kind == t.kind:                     # else attributes come with the state
            value, dots, from_o, from_t = self.register((o.attributes, o.adots), (t.attributes, t.adots))
            own = from_o if state is o else from_t
            if value[0] & PRIVILEGES and not own and not same:
                value, self.cleared = (value[0] & ~PRIVILEGES,) + value[1:], True
            made.attributes, made.adots = value, frozenset(dots)
        if same and o.kind == DIRECTORY:
            made.mtime = o.mtime
        elif same:                               # else mtime comes with the state
            made.mtime, dots, _, _ = self.register((o.mtime, o.mdots), (t.mtime, t.mdots))
            made.mdots = frozenset(dots)
        return made

    # each row of the table returns (action, record or None)

    def left(self, dots, other, k):
        """Of one side's dots: those that the other names too, or has not seen. Dotted version vectors with siblings."""
        named = other.dots | other.lost if other else frozenset()
        has = self.lineage.has
        return {d for d in dots if d in named or not (has(k, d) or other and has(other.vv, d))}

    def vector_news(self):
        """Third parties are heard before K is joined: what the peer's vector says beyond K has to be noted."""
        return not self.lineage.leq(self.theirs.vv, self.ours.vv) and not self.lineage.leq(self.theirs.vv, self.our_k)

    def keep(self, dots, lost):
        """Our state stays. A peer that has yet to take it all from us is told nothing new by a joined vector that K covers."""
        o = self.ours
        record = self.make(o, dots, lost - dots)
        news = self.vector_news() or self.they_saw(o.dots) or record.dots != o.dots or record.lost != o.lost
        return ("merge", record) if news or record.attributes != o.attributes else ("none", None)

    def take(self, dots, lost):
        t = self.theirs
        return "take", self.make(t, dots, lost - dots) if t.live else self.make(t)

    def same_state(self, ours, theirs, lost):
        o, t = self.ours, self.theirs
        dots = ours | theirs
        if not dots and o.live:                  # each side removed what the other still has
            return self.none_left()
        dots = dots or o.dots | t.dots
        return "merge", self.make(o, dots, lost - dots)

    def one_deleted(self, ours, theirs, lost):
        if not self.ours.live and theirs:
            return self.take(theirs, lost)
        if not self.ours.live:
            return ("merge", self.make(self.ours)) if self.vector_news() else ("none", None)
        if ours:                                 # a modification beats a deletion
            return self.keep(ours, lost)
        return ("delete", None) if self.we_saw(self.theirs.dots) else self.take(theirs, lost)

    def none_left(self):
        """Orders that do not follow causality have circles: who was removed by what lost to the other may stay."""
        o, t = self.ours, self.theirs
        circles = self.policy != KEEP_BOTH
        we_may = circles and bool(self.left(t.lost, o, self.our_k))
        they_may = circles and not self.taker_loses and bool(self.left(o.lost, t, self.their_k))
        if they_may and not (we_may and self.ours_wins()):
            return "wait", None
        return ("renew", self.make(o)) if we_may else ("delete", None)

    def both_live(self, ours, theirs, lost):
        if not ours and not theirs:              # each was seen, and removed, at the other
            return self.none_left()
        if not ours:
            return self.take(theirs, lost)
        if not theirs:
            return self.keep(ours, lost)
        ours_lost, theirs_lost = ours <= self.theirs.lost, theirs <= self.ours.lost
        if ours_lost or theirs_lost:             # a resolution, or two of them
            mine = theirs_lost and not (ours_lost and not self.ours_wins())
            return self.keep(ours, lost) if mine else self.take(theirs, lost)
        if self.ours_wins() and not self.taker_loses:
            return "wait", None
        return "aside", self.make(self.theirs, theirs, (lost | ours) - theirs)

    def rows(self):
        o, t = self.ours, self.theirs
        if o is None and t is None:
            return "none", None
        if o is None:
            if all(self.lineage.has(self.our_k, d) for d in t.dots):
                return "none", None
            t = copy.copy(t)
            if t.live:
                t.dots = frozenset(self.left(t.dots, None, self.our_k))
                t.lost = frozenset(self.left(t.lost, None, self.our_k) - t.dots)
            return "take", t
        if t is None:
            if not all(self.lineage.has(self.their_k, d) for d in o.dots):
                return "none", None
            if o.live:
                return "delete", None
            return ("drop" if self.lineage.leq(o.vv, self.our_k) else "none"), None
        if o.hashed() == t.hashed():
            return "none", None
        ours, theirs = self.left(o.dots, t, self.their_k), self.left(t.dots, o, self.our_k)
        lost = self.left(o.lost, t, self.their_k) | self.left(t.lost, o, self.our_k)
        if o.state() == t.state():               # one state, reached twice; two directories always are
            return self.same_state(ours, theirs, lost)
        self.same_dot = bool(o.dots & t.dots)    # one name for two things: named by both, so left on both sides
        return (self.both_live if o.live and t.live else self.one_deleted)(ours, theirs, lost)


def decide(case):
    action, record = case.rows()
    if action == "merge" and record.hashed() == case.ours.hashed():
        action, record = "none", None
    both_live = case.ours is not None and case.theirs is not None and case.ours.live and case.theirs.live
    return Decision(action, record, case.ours if both_live else None, case.cleared, case.same_dot)


# --- random cases ------------------------------------------------------------------------------------------------

def random_lineage(rng, count):
    """Parents come before children, which need not have larger ids."""
    lineage, ids = Lineage(), rng.sample(range(1, 3 * count), count)
    shape = rng.choice(("none", "roots", "lines"))
    if shape == "none":
        return lineage, ids
    for at, inc in enumerate(ids):
        if at and shape == "lines" and rng.random() < 0.6:
            parent = rng.choice(ids[:at])
            lineage[inc] = (parent, rng.randrange(1, 6), lineage[parent][2])
        else:
            lineage[inc] = (0, 0, 100 + rng.randrange(4))
    return lineage, ids


class Draw:
    """One case's world: few incarnations and counters, so that everything meets everything."""

    def __init__(self, rng):
        self.rng = rng
        self.lineage, self.ids = random_lineage(rng, rng.choice((2, 3, 3, 5)))
        self.faulty = rng.random() < 0.05
        self.states = [(kind, rng.randrange(1, 4) if kind != DIRECTORY else 0)
                       for kind in rng.choices((FILE, FILE, FILE, DIRECTORY, SYMLINK, OPAQUE), k=5)] + [None]
        self.wrote = {}

    def vector(self, ids=None):
        rng, ids = self.rng, ids or self.ids
        vector = {i: rng.randrange(1, 7) for i in ids if rng.random() < 0.6} or {rng.choice(ids): rng.randrange(1, 7)}
        return self.lineage.normal(vector)

    def known(self, vv):
        lineage, top = self.lineage, dict(vv)
        for i in vv:                             # what the ancestors' lines left behind
            while i in lineage and lineage[i][0]:
                i, left, _ = lineage[i]
                top[i] = max(top.get(i, 0), left)
        return [(i, n) for i, most in top.items() for n in range(1, most + 1)]

    def some(self, dots, most):
        return self.rng.sample(dots, min(len(dots), self.rng.randrange(most + 1)))

    def fill(self, vv):
        """A record that descends from vv, by the world's word on which event wrote which state."""
        rng, known = self.rng, self.known(vv)
        first = rng.choice(known)
        state = self.wrote.setdefault(first, rng.choice(self.states))
        if self.faulty and rng.random() < 0.5:
            state = rng.choice(self.states)
        dots = {first} | {d for d in self.some(known, 2) if self.wrote.setdefault(d, state) == state}
        lost = self.some(known, 3) if rng.random() < 0.5 else ()
        if state is None:
            return Record(False, vv=vv, dots=dots, lost=lost)
        mode = 0o777 if state[0] == SYMLINK else rng.choice((0o644, 0o755, 0o4755, 0o2755, 0o1777))
        adots = set(self.some(known, 2)) or {first}
        mtime, mdots = rng.choice((-5, 0, 7, 10**18)), set(self.some(known, 2)) or {first}
        if state[0] == DIRECTORY:
            mdots = ()
        return Record(True, state[0], state[1], vv, dots, lost, (mode, rng.randrange(2), rng.randrange(2)), adots, mtime, mdots)

    def relative(self, record):
        """Another record of a near past or future."""
        rng = self.rng
        vv = self.lineage.join(record.vv, self.vector()) if rng.random() < 0.5 else record.vv
        near = self.fill(vv)
        for names in (("live", "kind", "content", "dots"), ("attributes", "adots"), ("mtime", "mdots"), ("lost",)):
            if record.live and near.live and record.kind == near.kind and rng.random() < 0.5:
                for name in names:
                    setattr(near, name, getattr(record, name))
        if record.dots <= near.dots and record.state() != near.state() and not self.faulty:
            return copy.copy(record)
        return near

    def knowledge(self, own, other, ids):
        rng = self.rng
        vector = self.vector(ids) if rng.random() < 0.6 else {}
        if own and rng.random() < 0.4:
            vector = self.lineage.join(vector, own.vv)
        if other and rng.random() < (0.25 if ids is None else 0.1):
            vector = self.lineage.join(vector, other.vv)
        return vector

    def case(self):
        rng = self.rng
        left = right = None
        if rng.random() < 0.6:                   # two who have hardly met
            left, right = self.ids[::2], self.ids[1::2]
        ours = self.fill(self.vector(left)) if rng.random() < 0.93 else None
        theirs = None
        if ours and rng.random() < 0.3:
            theirs = self.relative(ours)
        elif rng.random() < 0.93:
            theirs = self.fill(self.vector(right))
        if ours and theirs and rng.random() < 0.3:           # each lost to, or won against, the other
            if rng.random() < 0.7:
                theirs.lost |= ours.dots
            if rng.random() < 0.7:
                ours.lost |= theirs.dots
        our_k, their_k = self.knowledge(ours, theirs, left), self.knowledge(theirs, ours, right)
        prefer = rng.sample(range(100, 104), rng.randrange(4))
        return Case(ours, theirs, our_k, their_k, self.lineage,
                    rng.random() < 0.15, rng.choice((KEEP_BOTH, KEEP_BOTH, NEWEST, PREFER)), prefer)


# --- lines for the driver, and from it -------------------------------------------------------------------------

def pairs(items):
    items = sorted(items)
    return [len(items)] + [x for pair in items for x in pair]


def record_words(record):
    if record is None:
        return [0]
    words = [1, int(record.live), record.kind, record.content, *record.attributes, record.mtime]
    for items in (record.vv.items(), record.dots, record.lost, record.adots, record.mdots):
        words += pairs(items)
    return words


def case_line(case):
    words = [case.policy, len(case.prefer), *case.prefer, int(case.taker_loses), len(case.lineage)]
    for inc, entry in case.lineage.items():
        words += [inc, *entry]
    for vector in (case.our_k, case.their_k):
        words += pairs(vector.items())
    words += record_words(case.ours) + record_words(case.theirs)
    return " ".join(map(str, words))


def decision_line(decision):
    told = [decision.attributes_moved, decision.mtime_moved, decision.cleared, decision.same_dot]
    return " ".join(map(str, [decision.action, *map(int, told), *record_words(decision.record)]))


def words_record(words):
    """The inverse of record_words: consumes its words."""
    def take_pairs():
        return {(int(words.pop(0)), int(words.pop(0))) for _ in range(int(words.pop(0)))}
    if not int(words.pop(0)):
        return None
    live, kind, content, mode, uid, gid, mtime = (int(words.pop(0)) for _ in range(7))
    vv, dots, lost, adots, mdots = (take_pairs() for _ in range(5))
    return Record(bool(live), kind, content, dict(vv), dots, lost, (mode, uid, gid), adots, mtime, mdots)


def show(record):
    if record is None:
        return "absent"
    dots = lambda x: "{" + " ".join("%d:%d" % d for d in sorted(x)) + "}"
    text = "vv %s dots %s lost %s" % (dots(record.vv.items()), dots(record.dots), dots(record.lost))
    if not record.live:
        return "tombstone " + text
    kind = {FILE: "file", DIRECTORY: "directory", SYMLINK: "symlink"}.get(record.kind, "kind %d" % record.kind)
    mode, uid, gid = record.attributes
    return "%s #%d %s mode %o owner %d:%d by %s mtime %d by %s" % (
        kind, record.content, text, mode, uid, gid, dots(record.adots), record.mtime, dots(record.mdots))


def show_line(line):
    words = line.split()
    if len(words) < 6:
        return "not a decision: %r" % line
    told = [name for name, bit in zip(("attributes-moved", "mtime-moved", "privileges-cleared", "same-dot"), words[1:5])
            if bit == "1"]
    return " ".join([words[0], *told, show(words_record(words[5:]))])


def report(number, case, expected, got):
    print("case %d differs:" % number)
    print("  ours     ", show(case.ours))
    print("  theirs   ", show(case.theirs))
    print("  our K    ", case.our_k, "  their K ", case.their_k)
    print("  lineage  ", dict(case.lineage))
    print("  policy   ", ("keep-both", "newest", "prefer")[case.policy], case.prefer, "taker loses" if case.taker_loses else "")
    print("  model    ", show_line(expected))
    print("  C        ", show_line(got))
    print("  line     ", case_line(case))


def main(arguments):
    if not arguments or len(arguments) > 3:
        sys.exit(__doc__)
    count = int(arguments[1]) if len(arguments) > 1 else 100000
    seed = int(arguments[2]) if len(arguments) > 2 else random.SystemRandom().randrange(2**32)
    print("%d cases from seed %d" % (count, seed), flush=True)
    rng, seen, differences, done = random.Random(seed), {}, 0, 0
    while done < count:
        cases = [Draw(rng).case() for _ in range(min(20000, count - done))]
        run = subprocess.run([arguments[0]], input="".join(case_line(c) + "\n" for c in cases), text=True, stdout=subprocess.PIPE)
        answers = run.stdout.split("\n")[:-1]
        if run.returncode or len(answers) != len(cases):
            print("the driver failed: status %d, %d answers to %d cases" % (run.returncode, len(answers), len(cases)))
            return 1
        for case, got in zip(cases, answers):
            decision = decide(case)
            seen[decision.action] = seen.get(decision.action, 0) + 1
            expected = decision_line(decision)
            if expected != got:
                differences += 1
                if differences <= 5:
                    report(done, case, expected, got)
            done += 1
    print(", ".join("%s %d" % item for item in sorted(seen.items())))
    print("%d of %d cases differ" % (differences, count) if differences else "model and C agree")
    missing = {"none", "take", "merge", "aside", "delete", "renew", "drop", "wait"} - seen.keys()
    if missing and count >= 10000:
        print("never drawn:", *sorted(missing))
    return 1 if differences or (missing and count >= 10000) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

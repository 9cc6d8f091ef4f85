#!/bin/bash
# A damaged index is set aside and rebuilt, whether it is found at the start or in the middle of work: nothing is lost, nothing
# deleted, equal files are not in conflict, roots are equal afterwards, and it is told what was damaged and when.
. "$(dirname "$0")/lib.sh"

A=$W/a B=$W/b
INDEX=$A/.syncd/index
mkdir -p "$A/dir" "$B"
for i in $(seq 300); do echo "content $i" | tee "$A/file$i" >"$A/dir/file$i"; done
head -c 3000000 /dev/urandom >"$A/large"

says() { ctl a status t >"$W/status" 2>&1; grep -qF -- "$1" "$W/status"; }
roots_equal() { [ "$(root_of -s "$W/d/a/sock" t)" = "$(root_of -s "$W/d/b/sock" t)" ]; }
field() { ctl a status --json t | python3 -c 'import json,sys; print(json.load(sys.stdin)["folders"][0]'"$1"')'; }
sums() { (cd "$1" && find . -path ./.syncd -prune -o -type f -exec sha256sum {} + | sort); }
flip() { # FILE: eight bytes in each page but the first two
    python3 - "$1" <<'PYTHON'
import os, sys
with open(sys.argv[1], "r+b") as f:
    for page in range(2, os.path.getsize(sys.argv[1]) // 4096):
        f.seek(page * 4096 + 4000)
        old = f.read(8)
        f.seek(page * 4096 + 4000)
        f.write(bytes(b ^ 0x5a for b in old))
PYTHON
}
# want_rebuilt WHAT: the trees are as expected, and all that is promised holds
want_rebuilt() {
    local what=$1
    want_sync "$A" "$B" 60 "($what)"
    wait_for 20 roots_equal || fail "$what: roots differ"
    [ -z "$(conflict_copies "$A" "$B")" ] || fail "$what: conflict copies: $(conflict_copies "$A" "$B" | head -n 3)"
    sums "$A" | diff "$W/expected" - >"$W/diff" || { fail "$what: not what it should be"; head -n 5 "$W/diff" | sed 's/^/    /'; }
    [ "$(field '["folder_id"]')" = "$FOLDER" ] || fail "$what: another folder"
    [ "$(field '["replica_id"]')" != "$REPLICA" ] || fail "$what: the same replica"
    REPLICA=$(field '["replica_id"]')
    says "the index was damaged and rebuilt" || { fail "$what: status does not say so"; sed 's/^/    /' "$W/status"; }
    [ "$(grep -c 'the index was damaged' "$W/d/a/log")" -eq 1 ] || { fail "$what: not told once"; tail -n 5 "$W/d/a/log" | sed 's/^/    /'; }
    [ -s "$INDEX/damaged.mdb" ] || [ "$what" = emptied ] || fail "$what: the damaged index was not kept"
    [ "$(find "$B/.syncd/trash" -type f | wc -l)" -eq "$TRASHED" ] || fail "$what: something went to trash at the peer"
}
daemon b "[folder t]
path = $B
settle = 50ms"
daemon a "[folder t]
path = $A
settle = 50ms
[peer b]
folder = t
address = $B"
want_sync "$A" "$B" 60 "(first copy)"
FOLDER=$(field '["folder_id"]')
REPLICA=$(field '["replica_id"]')
TRASHED=$(find "$B/.syncd/trash" -type f | wc -l)

# --- while the daemon is stopped ---
for how in \
    "flipped|flip $INDEX/data.mdb" \
    "truncated|truncate -s 40000 $INDEX/data.mdb" \
    "garbage|head -c 200000 /dev/urandom >$INDEX/data.mdb" \
    "emptied|: >$INDEX/data.mdb" \
    "no-magic|dd if=/dev/zero of=$INDEX/data.mdb bs=4096 count=1 conv=notrunc status=none"; do
    what=${how%%|*}
    stop "$PID_a"
    : >"$W/d/a/log"
    rm -f "$INDEX/rebuilt" # they are more than a day's
    echo "at b, $what" >"$B/new-$what"
    echo "at a, $what" >"$A/a-new-$what"
    { sums "$A"; (cd "$B" && sha256sum "./new-$what"); } | sort >"$W/expected"
    eval "${how#*|}"
    daemon_again a
    want_rebuilt "$what"
done

# What is opened again is not rebuilt again; and changes pass as they always do, deletions too.
stop "$PID_a"
: >"$W/d/a/log"
rm "$A/file1"
daemon_again a
echo later >"$A/later"
want_sync "$A" "$B" 60 "(opened again)"
[ ! -e "$B/file1" ] || fail "a deletion does not pass after a rebuild"
grep -q damaged "$W/d/a/log" && fail "rebuilt again: $(grep damaged "$W/d/a/log")"
TRASHED=$(find "$B/.syncd/trash" -type f | wc -l)

# What an exchange that was under way left in staging may be a user's only copy.
stop "$PID_a"
: >"$W/d/a/log"
rm -f "$INDEX/rebuilt"
echo "only copy" >"$A/.syncd/staging/under-way"
sums "$A" >"$W/expected"
flip "$INDEX/data.mdb"
daemon_again a
want_rebuilt "with staging"
"$BIN/syncctl" trash list -s "$W/d/a/sock" t >"$W/out"
grep -q recovered-from-staging/under-way "$W/out" || { fail "what was in staging is not in trash"; sed 's/^/    /' "$W/out" | head; }

# --- while it works ---
: >"$W/d/a/log"
rm -f "$INDEX/rebuilt"
echo "at b, alive" >"$B/new-alive"
want_sync "$A" "$B" 30 "(before the damage in mid-life)"
sums "$A" >"$W/expected"
python3 - "$INDEX/data.mdb" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as f:
    data = f.read()
    at = data.find(b"file17")
    while at >= 0:
        f.seek(at + 4)
        f.write(b"\x5a")
        at = data.find(b"file17", at + 1)
PYTHON
ctl a scan t >/dev/null 2>&1
wait_for 30 grep -q 'the index was damaged' "$W/d/a/log" || { fail "damage in mid-life is not found"; tail -n 5 "$W/d/a/log" | sed 's/^/    /'; }
grep -q 'halted: the index is damaged' "$W/d/a/log" || fail "not told that sessions end"
want_rebuilt "in mid-life"
echo "after mid-life" >"$A/file2"
want_sync "$A" "$B" 30 "(after the damage in mid-life)"

# --- too often ---
for i in 2 3 4; do
    stop "$PID_a"
    flip "$INDEX/data.mdb"
    daemon_again a
    [ $i -eq 4 ] || want_sync "$A" "$B" 60 "(damage $i)"
done
wait_for 20 says "is the disk or the memory broken" || { fail "damaged again and again: not halted"; sed 's/^/    /' "$W/status"; }
stop "$PID_a"
rm "$INDEX/rebuilt"
daemon_again a
want_sync "$A" "$B" 60 "(gone on as told)"

# --- one-shot commands, and the far side ---
stop "$PID_a"
stop "$PID_b"
for side in a b; do
    rm -f "$W/$side/.syncd/index/rebuilt"
    flip "$W/$side/.syncd/index/data.mdb"
    echo "one-shot $side" >"$B/file3"
    want "reconcile over a damaged index at $side" "$BIN/syncctl" reconcile "$A" "$B"
    equal_trees "$A" "$B" || { differences "$A" "$B" | head -n 5; }
done

# --- a folder that undoes what is changed in it: what is the peer's stays where it is ---
R=$W/r S=$W/s
mkdir -p "$R" "$S"
for i in $(seq 200); do echo "$i" >"$S/f$i"; done
daemon r "[folder t]
path = $R
settle = 50ms
[peer s]
folder = t
address = $S
mode = pull
revert = yes"
want_sync "$R" "$S" 30 "(first copy of a folder that takes only)"
stop "$PID_r"
flip "$R/.syncd/index/data.mdb"
echo "a user's" >"$R/f7"
ino=$(stat -c %i "$R/f8")
daemon_again r
want_sync "$R" "$S" 30 "(a folder that takes only)"
[ "$(stat -c %i "$R/f8")" = "$ino" ] || fail "a folder that takes only: what was equal was fetched again"
[ "$(cat "$S/f7")" = 7 ] && [ -z "$(conflict_copies "$R" "$S")" ] || fail "a folder that takes only: what was changed"
[ "$(find "$R/.syncd/trash" -type f | wc -l)" -eq 1 ] || { fail "a folder that takes only: not one file in trash"; find "$R/.syncd/trash" -type f | head -n 3; }

# --- a full disk: told, nothing is lost, and it goes on where it was when there is room ---
M=$W/mnt
mkdir -p "$M"
mount -t tmpfs -o size=16m tmpfs "$M" || die "cannot mount"
mkdir "$M/c" "$W/e"
for i in $(seq 500); do echo "$i" >"$M/c/f$i"; done
want "first copy on a small disk" "$BIN/syncctl" reconcile "$M/c" "$W/e"
flip "$M/c/.syncd/index/data.mdb"
cat /dev/zero >"$M/filler" 2>/dev/null
"$BIN/syncctl" reconcile "$M/c" "$W/e" >/dev/null 2>"$W/err" # it may come as far as a rebuilt index, which is told as well
[ $? -eq 11 ] && grep -q 'error: .*No space left' "$W/err" || { fail "a full disk"; cat "$W/err"; }
[ "$(find "$W/e" "$M/c" -name 'f*' -type f | wc -l)" -eq 1000 ] || fail "a full disk: files are missing"
truncate -s -300K "$M/filler"                            # less than the two indexes take: it ends somewhere in the middle,
"$BIN/syncctl" reconcile "$M/c" "$W/e" >/dev/null 2>&1 # and LMDB calls a write that was cut short an I/O error
[ "$(find "$W/e" "$M/c" -name 'f*' -type f | wc -l)" -eq 1000 ] || fail "little room: files are missing"
rm "$M/filler"
want "reconcile when there is room again" "$BIN/syncctl" reconcile "$M/c" "$W/e"
want_equal "$M/c" "$W/e"
[ "$(find "$W/e" -name 'f*' -type f | wc -l)" -eq 500 ] && [ -z "$(conflict_copies "$M/c" "$W/e")" ] || fail "after a full disk"

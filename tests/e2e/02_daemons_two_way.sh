#!/bin/bash
# Two daemons, two-way, over sshd: every kind of edit on either side and on both at once converges; both contents of
# concurrent edits exist afterwards; deleted things stay deleted after restarts, purges, and an absence.
. "$(dirname "$0")/lib.sh"

start_sshd
A=$W/a B=$W/b
mkdir -p "$A" "$B"
# Enough that a tree of 1,000 files is not more than may be deleted without confirming.
cp -a /usr/share/doc "$A/work"
daemon b "[folder t]
path = $B
tombstone_grace = 0s
settle = 100ms"
daemon a "[folder t]
path = $A
tombstone_grace = 0s
settle = 100ms
[peer b]
folder = t
address = $(remote "$B")
$(peer_options)"
want_sync "$A" "$B" 60 "(first copy)"

# both NAME COMMAND-IN-A COMMAND-IN-B: neither knows of the other's doing (the daemons are paused), then be in sync
both() {
    kill -STOP "$PID_a" "$PID_b"
    (cd "$A/work" && eval "$2") &
    local one=$!
    (cd "$B/work" && eval "$3") &
    wait "$one" "$!"
    kill -CONT "$PID_a" "$PID_b"
    want_sync "$A" "$B" 60 "($1)"
}

for side in A B; do
    d=${!side}/work
    mkdir "$d/dir$side" && for i in $(seq 1000); do echo "$side$i" >"$d/dir$side/f$i"; done
    want_sync "$A" "$B" 60 "(1,000 files made at $side)"
    echo new >"$d/new$side"; want_sync "$A" "$B" 30 "(create at $side)"
    echo more >>"$d/new$side"; want_sync "$A" "$B" 30 "(append at $side)"
    truncate -s 2 "$d/new$side"; want_sync "$A" "$B" 30 "(truncate at $side)"
    chmod 0640 "$d/new$side"; want_sync "$A" "$B" 30 "(chmod at $side)"
    mv "$d/new$side" "$d/moved$side"; want_sync "$A" "$B" 30 "(rename at $side)"
    mv "$d/dir$side" "$d/renamed$side"; want_sync "$A" "$B" 60 "(rename of a directory of 1,000 files at $side)"
    rm "$d/moved$side"; want_sync "$A" "$B" 30 "(delete at $side)"
    echo f >"$d/kind$side"; want_sync "$A" "$B" 30 "(file at $side)"
    rm "$d/kind$side"; mkdir "$d/kind$side"; echo x >"$d/kind$side/x"; want_sync "$A" "$B" 30 "(file becomes directory at $side)"
    rm -r "$d/kind$side"; ln -s target "$d/kind$side"; want_sync "$A" "$B" 30 "(directory becomes symlink at $side)"
    rm "$d/kind$side"; echo again >"$d/kind$side"; want_sync "$A" "$B" 30 "(symlink becomes file at $side)"
done
[ -z "$(conflict_copies "$A")" ] || fail "conflict copies without concurrency: $(conflict_copies "$A")"

echo base >"$A/work/shared"
want_sync "$A" "$B" 30
both "edits of one file on both sides" 'echo from-a >shared' 'echo from-b >shared'
for what in from-a from-b; do
    grep -rqx "$what" "$A" --exclude-dir=.syncd || fail "the content $what is gone"
done
[ "$(conflict_copies "$A" | wc -l)" -eq 1 ] || fail "one conflict copy expected: $(conflict_copies "$A")"
both "edit against delete" 'echo edited >shared' 'rm -f renamedA/f1'
both "different files on both sides" 'echo 1 >only-a; rm renamedA/f2' 'echo 2 >only-b; mv renamedA/f3 renamedA/f3-moved'
both "tree deleted against edit inside" 'rm -rf renamedA' 'echo kept >renamedA/f500'
[ "$(cat "$A/work/renamedA/f500" 2>/dev/null)" = kept ] || fail "an edit inside a deleted tree is lost"
[ "$(find "$A/work/renamedA" | wc -l)" -le 3 ] || fail "a deletion of a tree did not happen: $(find "$A/work/renamedA" | wc -l) left"
both "directory against file of one name" 'mkdir clash && echo in >clash/in' 'echo file >clash'
grep -rqx in "$A" --exclude-dir=.syncd || fail "what was in the directory is gone"
grep -rqx file "$A" --exclude-dir=.syncd || fail "the file is gone"

# --- a flush while conflicts settle: it waits for the next round ---
for i in $(seq 10); do
    echo "a $i" >"$A/work/contested"
    echo "b $i" >"$B/work/contested"
    want "flush $i" ctl a flush t
    grep -rqx "a $i" "$B" --exclude-dir=.syncd || fail "flush $i came back before all was at the peer"
done
want_sync "$A" "$B" 60 "(after the flushes)"

# --- away, restarts, purges ---
stop "$PID_b"
rm -rf "$A/work/renamedB"
rm -f "$A/work/only-a" "$A/work/only-b"
echo while-away >"$A/work/while-away"
mv "$A/work/kindA" "$A/work/kindA2"
wait_for 20 ctl a scan t
sleep 1
stop "$PID_a"
daemon_again a
sleep 1
daemon_again b
want_sync "$A" "$B" 60 "(after an absence)"
[ ! -e "$B/work/renamedB" ] || fail "a deletion during an absence did not arrive"
want_sync "$A" "$B" 60
for side in a b; do
    pid=PID_$side
    stop "${!pid}"
    daemon_again "$side"
    sleep 1
    want_sync "$A" "$B" 60 "(restart of $side)"
    for gone in renamedB only-a only-b kindA; do
        [ ! -e "$A/work/$gone" ] && [ ! -e "$B/work/$gone" ] || fail "$gone came back after the restart of $side"
    done
done
grep -hiE 'error|cannot|failed' "$W"/d/*/log | grep -v 'trying again' | sort | uniq -c | head -n 10

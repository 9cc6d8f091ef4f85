#!/bin/bash
# Copies: a folder copied with its state, one restored from an older copy of itself, and trees that were copied by other means
# lose nothing, delete nothing at a peer and make no conflict copies where contents are equal. Deletions of more than may
# pass unseen are held until they are confirmed.
. "$(dirname "$0")/lib.sh"

rec() { timeout 60 "$BIN/syncctl" reconcile -q "$@"; }
replica_of() { sed -n 's/^replica //p' "$1/.syncd/identity"; }
files() { (cd "$1" && find . -path ./.syncd -prune -o \( -type f -exec sha256sum {} + \) | sort); }
want_files() { files "$1" | diff "$2" - >"$W/diff" || { fail "$3"; head -n 8 "$W/diff" | sed 's/^/    /'; }; }
want_none_aside() { [ -z "$(conflict_copies "$@")" ] || fail "conflict copies: $(conflict_copies "$@" | head -n 5)"; }
fill() { # fill DIR
    mkdir -p "$1/sub/deep" "$1/other"
    for i in $(seq 120); do
        echo "top $i" >"$1/f$i"
        echo "sub $i" >"$1/sub/f$i"
        echo "deep $i" >"$1/sub/deep/f$i"
        echo "other $i" >"$1/other/f$i"
    done
    ln -sfn f1 "$1/link"
    chmod 0600 "$1/f7"
    touch -d '2001-02-03 04:05:06' "$1/f8"
}

# --- on one machine nothing is compressed, in either direction; where bytes are limited, it is ---
A=$W/near B=$W/nearer
mkdir "$A" "$B"
yes "there is no link to be spared" | head -c 300000 | tee "$A/from-a" >"$B/from-b"
echo more >>"$B/from-b" # which is another content
least_bytes() { # of both directions, or of one: least_bytes KEY… -- ARGUMENT…
    local keys=()
    while [ "$1" != -- ]; do keys+=("$1"); shift; done
    timeout 60 "$BIN/syncctl" reconcile --json "${@:2}" |
        python3 -c 'import json,sys; d = json.load(sys.stdin); print(min(d[k] for k in sys.argv[1:]))' "${keys[@]}"
}
[ "$(least_bytes bytes_in bytes_out -- "$A" "$B")" -ge 300000 ] || fail "what went from one folder to the other was compressed"
yes "there is one to be spared" | head -c 300000 >"$A/limited"
[ "$(least_bytes bytes_out -- --limit-up 10MB "$A" "$B")" -lt 100000 ] || fail "under a limit it was not compressed"

# --- copied with its state, and used as a third replica ---
A=$W/a B=$W/b C=$W/c
fill "$A"
want "first reconcile" rec "$A" "$B"
cp -a "$A" "$C"
files "$A" >"$W/truth"
want "the copy with the other one" rec "$C" "$B"
want "the copy with its original" rec "$C" "$A"
for d in "$A" "$B" "$C"; do want_files "$d" "$W/truth" "$d after a copy was made: files differ"; done
want_none_aside "$A" "$B" "$C"
[ "$(for d in "$A" "$B" "$C"; do replica_of "$d"; done | sort -u | wc -l)" -eq 3 ] || fail "the copy kept its original's replica id"
# Each changes on its own; all are found by all.
echo from-a >"$A/f1"; rm "$A/f2"; echo new >"$A/new-a"
echo from-b >"$B/sub/f1"; rm "$B/sub/f2"; echo new >"$B/new-b"
echo from-c >"$C/other/f1"; rm "$C/other/f2"; echo new >"$C/new-c"
for round in 1 2; do
    want "a b" rec "$A" "$B"
    want "b c" rec "$B" "$C"
    want "c a" rec "$C" "$A"
done
want_equal "$A" "$B" "three replicas, one a copy"
want_equal "$A" "$C" "three replicas, one a copy"
for f in f1:from-a sub/f1:from-b other/f1:from-c new-a:new new-b:new new-c:new; do
    [ "$(cat "$A/${f%:*}")" = "${f#*:}" ] || fail "${f%:*} is $(cat "$A/${f%:*}")"
done
for f in f2 sub/f2 other/f2; do [ ! -e "$A/$f" ] || fail "the deletion of $f is gone"; done
want_none_aside "$A" "$B" "$C"
[ "$(root_of "$A")" = "$(root_of "$C")" ] || fail "roots differ"

# --- a copy that meets its original first, and then both change the same file ---
D=$W/d-copy
cp -a "$A" "$D"
echo by-a >"$A/f10"
echo by-d >"$D/f10"
want "copy and original with a conflict" rec "$A" "$D"
for what in by-a by-d; do grep -rqx "$what" "$A" --exclude-dir=.syncd || fail "the content $what is gone"; done
[ "$(conflict_copies "$A" | wc -l)" -eq 1 ] || fail "one conflict copy expected: $(conflict_copies "$A")"
want_equal "$A" "$D" "copy and original after a conflict"

# --- restored from an older copy of itself ---
R=$W/r P=$W/p
fill "$R"
want "first reconcile" rec "$R" "$P"
cp -a "$R" "$W/backup"
echo later >"$R/f1"
echo later >"$R/later"
rm "$R/f2" "$R/sub/f2"
mv "$R/sub/deep/f3" "$R/sub/moved"
chmod 0640 "$R/f9"
rm "$R"/other/f1?
want "edits and deletions after the backup" rec --confirm-deletions "$R" "$P"
echo by-peer >"$P/f4"
want "an edit of the peer's" rec "$R" "$P"
want_equal "$R" "$P" "before the restore"
files "$P" >"$W/truth"
rm -rf "$R"
cp -a "$W/backup" "$R"
want "after the restore" rec "$R" "$P"
(files "$P" | comm -13 - "$W/truth") >"$W/missing"
[ ! -s "$W/missing" ] || { fail "the restore removed or replaced something at the peer"; head -n 5 "$W/missing" | sed 's/^/    /'; }
[ "$(cat "$R/f1")" = later ] || fail "the later version of an edited file did not come back: $(cat "$R/f1")"
[ "$(cat "$R/f4")" = by-peer ] || fail "the peer's edit did not come back: $(cat "$R/f4")"
[ -e "$R/later" ] || fail "a file made later did not come back"
[ -e "$R/sub/moved" ] || fail "a file renamed later did not come back"
want_equal "$R" "$P" "after the restore"
want_none_aside "$R" "$P"
[ "$(replica_of "$R")" != "$(replica_of "$W/backup")" ] || fail "the restored replica was not recognised"
for f in f2 sub/f2 other/f11 sub/deep/f3; do [ ! -e "$R/$f" ] || fail "$f, deleted after the backup, came back"; done
rm "$R/f5"; echo more >"$P/f6"
want "after the restore, on with it" rec "$R" "$P"
want_equal "$R" "$P" "after the restore, on with it"
[ ! -e "$P/f5" ] || fail "a deletion after the restore did not arrive"

# Restored in place, with work of its own that was not synced before: that work is kept.
echo unsynced >"$W/backup/unsynced"
echo mine >"$W/backup/f11"
rm -rf "$R"
cp -a "$W/backup" "$R"
want "after a restore with work of its own" rec "$R" "$P"
want_equal "$R" "$P" "after a restore with work of its own"
[ "$(cat "$P/unsynced")" = unsynced ] || fail "unsynced work in a restored replica is gone"
grep -rqx mine "$P" --exclude-dir=.syncd || fail "an unsynced edit in a restored replica is gone"
[ "$(cat "$P/f1")" = later ] || fail "the restore won over a later version"

# --- two copies of one tree made by other means ---
# first_meeting WHAT A B: no conflict copies, no content moved.
first_meeting() {
    local bytes conflicts
    "$BIN/syncctl" reconcile --json "$2" "$3" >"$W/json" 2>"$W/err" || { fail "$1"; cat "$W/err"; return; }
    read -r bytes conflicts < <(python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); print(d["bytes_in"] + d["bytes_out"], d["conflicts"])' "$W/json")
    content=$(du -sb --exclude=.syncd "$2" | cut -f1)
    say "$1: $bytes bytes moved, for $content bytes of content; $conflicts conflicts"
    [ "$conflicts" -eq 0 ] || fail "$1: $conflicts conflicts"
    [ "$bytes" -lt $((content / 20)) ] || fail "$1: $bytes bytes moved"
    want_none_aside "$2" "$3"
    want_equal "$2" "$3" "$1"
}
for kind in same other-times; do
    X=$W/x-$kind Y=$W/y-$kind
    fill "$X"
    for i in $(seq 8); do head -c 1000000 /dev/urandom >"$X/big$i"; done
    if [ "$kind" = same ]; then cp -a "$X" "$Y"; else cp -r "$X" "$Y"; fi
    first_meeting "two copies ($kind)" "$X" "$Y"
    echo edited >"$X/f1"
    rm "$Y/f2"
    want "edits after they met ($kind)" rec "$X" "$Y"
    want_equal "$X" "$Y" "edits after they met ($kind)"
    [ "$(cat "$Y/f1")" = edited ] && [ ! -e "$X/f2" ] || fail "edits after they met are lost ($kind)"
    want_none_aside "$X" "$Y"
done

# --- more deletions than may pass unseen ---
H=$W/h K=$W/k
fill "$H"
want "first reconcile" rec "$H" "$K"
rm -r "$H/sub" # 241 of 484
files "$K" >"$W/truth"
want_code 10 "held deletions" rec "$H" "$K"
grep -q -- --confirm-deletions "$W/err" || fail "held deletions: it is not said how to go on: $(cat "$W/err")"
want_files "$K" "$W/truth" "held deletions were made at the peer"
[ ! -e "$H/sub/f1" ] || fail "held deletions were undone"
echo goes-on >"$H/f1"
want_code 10 "held deletions again" rec "$H" "$K"
[ "$(cat "$K/f1")" = goes-on ] || fail "edits do not pass while deletions are held"
want "confirmed deletions" rec --confirm-deletions "$H" "$K"
want_equal "$H" "$K" "after confirming"
[ ! -e "$K/sub" ] || fail "confirmed deletions were not made"
want "afterwards" rec "$H" "$K"

# The same where it is the other side that deleted, and by daemons.
fill "$H"
want "filled again" rec "$H" "$K"
rm -r "$K/sub"
want_code 10 "held deletions of the other side" rec "$H" "$K"
[ -e "$H/sub/deep/f120" ] || fail "held deletions of the other side were made"
want "confirmed deletions of the other side" rec --confirm-deletions "$H" "$K"
[ ! -e "$H/sub" ] || fail "confirmed deletions of the other side were not made"
fill "$H"
want "filled again" rec "$H" "$K"
daemon k "[folder f]
path = $K
settle = 50ms"
daemon h "[folder f]
path = $H
settle = 50ms
[peer k]
folder = f
address = $K"
want_sync "$H" "$K" 20 "(daemons)"
held() { ctl "$1" status >"$W/status"; [ $? -eq 10 ] && grep -q "confirm with: syncctl confirm f" "$W/status"; }
for side in h k; do
    other=$([ $side = h ] && echo k || echo h)
    here=$([ $side = h ] && echo "$H" || echo "$K") there=$([ $side = h ] && echo "$K" || echo "$H")
    mv "$here/sub" "$W/sub-of-$side"
    wait_for 15 held $side || { fail "deletions at $side are not held"; sed 's/^/    /' "$W/status"; }
    echo "on $side" >"$here/f1"
    wait_for 10 grep -q "on $side" "$there/f1" || fail "edits do not pass while deletions at $side are held"
    [ "$(find "$there/sub" | wc -l)" -eq 242 ] || fail "held deletions at $side were made at the other side"
    want "confirm" ctl $side confirm f
    # Each side that is to delete so much asks its own person, and says so to the other.
    if wait_for 10 held $other; then
        ctl $side status | grep -q "it holds 242 deletions" || { fail "it is not said at $side that $other holds deletions"; ctl $side status | sed 's/^/    /'; }
        [ "$(find "$there/sub" | wc -l)" -eq 242 ] || fail "deletions that are held at $other were made"
        want "confirm at the other side" ctl $other confirm f
    else
        fail "deletions by a peer are not held at $other"
    fi
    want_sync "$H" "$K" 20 "(confirmed at both, deleted at $side)"
    [ ! -e "$there/sub" ] || fail "confirmed deletions at $side did not arrive"
    wait_for 5 ctl $side status || { fail "status at $side is not good after confirming"; ctl $side status | sed 's/^/    /'; }
    wait_for 5 ctl $other status || { fail "status at $other is not good after confirming"; ctl $other status | sed 's/^/    /'; }
    mv "$W/sub-of-$side" "$here/sub"
    want_sync "$H" "$K" 20 "(brought back)"
done
want_none_aside "$H" "$K"

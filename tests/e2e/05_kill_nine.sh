#!/bin/bash
# kill -9 of either daemon at random moments of a busy run (KILLS, default 200): after restarts it converges, nothing that was written is
# lost, nothing is left outside .syncd, and no conflict copy exists that no user's concurrency explains.
. "$(dirname "$0")/lib.sh"

KILLS=${KILLS:-200}
SEED=${SEED:-$(date +%s)}
RANDOM=$SEED
say "$KILLS kills, seed $SEED"
start_sshd
A=$W/a B=$W/b
mkdir -p "$A/da" "$A/db" "$B"
for i in $(seq 400); do head -c $((RANDOM % 20000)) /dev/urandom >"$A/da/f$i"; cp "$A/da/f$i" "$A/db/f$i"; done
two_daemons "settle = 50ms"
want_sync "$A" "$B" 60 "(first copy)"

# Each side writes in its own directory only: whatever conflict copy appears is syncd's doing.
busy() { # busy TREE DIRECTORY SEED
    local n=0 i
    RANDOM=$3
    while [ ! -e "$W/stop" ]; do
        i=$((RANDOM % 400 + 1)) n=$((n + 1))
        case $((RANDOM % 6)) in
        0 | 1) echo "$2 $n" >"$1/$2/f$i" ;;
        2) head -c $((RANDOM * 8)) /dev/urandom >"$1/$2/.new" && mv "$1/$2/.new" "$1/$2/f$i" ;;
        3) rm -f "$1/$2/f$i" ;;
        4) mv "$1/$2/f$i" "$1/$2/g$i" 2>/dev/null || mv "$1/$2/g$i" "$1/$2/f$i" 2>/dev/null ;;
        5) echo "more $n" >>"$1/$2/f$i" ;;
        esac
        sleep 0.0$((RANDOM % 3))
    done
}
busy "$A" da "$RANDOM" & busy_a=$!
busy "$B" db "$RANDOM" & busy_b=$!
for k in $(seq "$KILLS"); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    side=$([ $((RANDOM % 2)) -eq 0 ] && echo a || echo b)
    pid=PID_$side
    kill -9 "${!pid}" && wait "${!pid}" 2>/dev/null
    rm -f "$W/d/$side/sock"
    daemon_again "$side"
done
touch "$W/stop"
wait "$busy_a" "$busy_b"
(cd "$A/da" && find . -type f -exec sha256sum {} + | sort) >"$W/truth-a"
(cd "$B/db" && find . -type f -exec sha256sum {} + | sort) >"$W/truth-b"
# While sessions were cut more than a fifth of the entries may have been removed: then that waits for a person's word.
person() { for k in $(seq 24); do sleep 5; for d in a b; do ctl "$d" confirm t; done; done >/dev/null 2>&1; }
person & PIDS+=($!)
want_sync "$A" "$B" 120 "(after $KILLS kills)"
(cd "$B/da" && find . -type f -exec sha256sum {} + | sort) | diff "$W/truth-a" - >"$W/diff" || fail "what was written at a is not what stands: $(head -n 5 "$W/diff")"
(cd "$A/db" && find . -type f -exec sha256sum {} + | sort) | diff "$W/truth-b" - >"$W/diff" || fail "what was written at b is not what stands: $(head -n 5 "$W/diff")"
[ -z "$(conflict_copies "$A" "$B")" ] || fail "conflict copies that no user made: $(conflict_copies "$A" "$B" | head -n 5)"
for d in "$A" "$B"; do
    left=$(find "$d" -path "$d/.syncd" -prune -o -type f -print | grep -v '/d[ab]/\([fg][0-9]*\|\.new\)$')
    [ -z "$left" ] || fail "something is left outside .syncd: $left"
    left=$(ls "$d/.syncd/staging" | grep -v "^partial-" | head -n 3) # but for contents that nobody asked for again
    [ -z "$left" ] || fail "staging is not empty: $left"
done

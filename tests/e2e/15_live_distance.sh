#!/bin/bash
# Between connected daemons a change is one message: a file is complete at the peer half a round trip after it was written, and ten
# edits that are scattered among many files within a few round trips, whatever they cost where they are. The relay in between makes
# each round trip so long that nothing else counts, and counts bytes, SSH's own included.
. "$(dirname "$0")/lib.sh"

start_sshd
start_relay 500
A=$W/a B=$W/b
mkdir -p "$A" "$B"
for d in $(seq 20); do
    mkdir "$A/d$d"
    for i in $(seq 100); do echo "$d $i" >"$A/d$d/f$i"; done
done
cp -a "$A/." "$B/" # nothing of this is to cross the relay
two_daemons
wait_for 120 ctl a flush t || die "not in sync: $(ctl a status t)"
sleep 5 # what is still to be said after that

zero() { kill -USR1 "${PIDS[1]}"; wait_for 5 grep -q '"up": 0, "down": 0' "$W/relay.count"; }
# live WHAT ROUND-TRIPS COMMAND…: until the trees are equal after it. A round trip takes a second.
live() {
    local what=$1 limit=$2 begin took
    shift 2
    zero
    begin=$EPOCHREALTIME
    "$@"
    wait_for 60 equal_trees "$A" "$B" || fail "$what: not in sync"
    took=$(python3 -c 'import sys; print(f"{float(sys.argv[2]) - float(sys.argv[1]):.2f}")' "$begin" "$EPOCHREALTIME")
    sleep 4
    say "$what: complete after $took round trips (limit $limit), $(relayed_bytes) bytes"
    python3 -c 'import sys; sys.exit(float(sys.argv[1]) > float(sys.argv[2]))' "$took" "$limit" || fail "$what took $took round trips"
}
one() { echo "edited" >"$A/d3/f33"; }
back() { echo "edited at b" >"$B/d4/f44"; }
ten() { for d in $(seq 2 2 20); do echo "edited" >"$A/d$d/f$((d * 5))"; done; }
removed() { rm "$A/d1/f1" "$A/d20/f100"; }
live "one edit" 2 one
live "one edit at the far side" 2 back
live "ten edits" 4 ten
live "two files removed" 4 removed

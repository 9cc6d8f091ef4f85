#!/bin/bash
# Limits hold within 5 %: bandwidth of one run, up, as a relay counts it; of a daemon, down, shared by two peers of which one
# has a lower limit of its own; the number of sessions, where all have their turn. A machine that is busy with other things is
# only slower: that a limit is reached, too, is asked of the best part of the time, and where what is unlimited was much faster.
. "$(dirname "$0")/lib.sh"

MB=1000000
start_sshd
start_relay

# sample WHAT: for 4 s, lines of a time and byte counts, once these have grown by 3 % of 5 MB. WHAT: relay (bytes up), or a
# daemon's socket (received by each folder's session).
cat >"$W/sample.py" <<'END'
import json, subprocess, sys, time
what, source, program = sys.argv[1:4]
def look():
    if what == "relay":
        return time.time(), json.load(open(source))["up"]
    d = json.loads(subprocess.run([program, "status", "--json", "-s", source], stdout=subprocess.PIPE).stdout)
    return (d["time_ms"] / 1000, *(sum(s["bytes_in"] for s in f["sessions"]) for f in d["folders"]))
first = look()
give_up = time.monotonic() + 30
while time.monotonic() < give_up and min(now - then for now, then in zip(look()[1:], first[1:])) < 150000:
    time.sleep(0.1)
end = time.monotonic() + 4
while time.monotonic() < end:
    print(*look())
    time.sleep(0.1)
END
sample() { python3 "$W/sample.py" "$@" "$BIN/syncctl" >"$W/samples" || fail "no samples"; }
# holds NAME LIMIT COLUMN…: the columns' sum, in all samples; and in the best second and a half, if it was much faster without
cat >"$W/holds.py" <<'END'
import sys
name, limit, fast = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
lines = [list(map(float, line.split())) for line in open(sys.argv[4])]
samples = [(line[0], sum(line[int(c)] for c in sys.argv[5:])) for line in lines]
rate = lambda a, b: (b[1] - a[1]) / (b[0] - a[0])
whole = rate(samples[0], samples[-1])
best = max((rate(a, b) for a in samples for b in samples if b[0] - a[0] >= 1.5), default=0)
print(f"{name}: {whole / limit:.1%} of the limit in {samples[-1][0] - samples[0][0]:.1f} s, {best / limit:.1%} in the best second and a half; "
      f"{fast / limit:.1f} times as fast without")
sys.exit(whole > 1.05 * limit or (best < 0.95 * limit and fast > 5 * limit))
END
holds() {
    local name=$1 limit=$2
    shift 2
    python3 "$W/holds.py" "$name" "$limit" "$fast" "$W/samples" "$@" || fail "$name: not within 5 %"
}

# --- sessions: this goes on beside the rest ---
conf=$'[daemon]\nmax_sessions = 2\n'
for f in 1 2 3; do
    mkdir -p "$W/s$f"
    echo "$f" >"$W/s$f/file"
    conf+="[folder f$f]"$'\n'"path = $W/s$f"$'\n'"[peer p$f]"$'\n'"folder = f$f"$'\n'"address = $W/t$f"$'\n'
done
daemon S "$conf"

# --- up, one run ---
mkdir -p "$W/a"
head -c $((6 * MB)) /dev/urandom >"$W/a/big"
begin=$EPOCHREALTIME
want "a copy without limits" reconcile "$W/a" "$(remote "$W/b0")"
fast=$(python3 -c 'import sys; print(6e6 / (float(sys.argv[2]) - float(sys.argv[1])))' "$begin" "$EPOCHREALTIME")
reconcile --limit-up 1MB/s "$W/a" "$(remote "$W/b1")" >"$W/out" 2>"$W/err" &
run=$!
sample relay "$W/relay.count"
wait "$run" || { fail "a copy with a limit"; cat "$W/err"; }
want_equal "$W/a" "$W/b1" "a copy with a limit"
holds "up, one run" $MB 1

# --- down, a daemon with two peers ---
mkdir "$W/far1" "$W/far2" "$W/l1" "$W/l2"
head -c 1150000 "$W/a/big" >"$W/far1/big"
cp "$W/a/big" "$W/far2/big"
daemon D "[daemon]
limit_down = 1 MB/s
[folder one]
path = $W/l1
[folder two]
path = $W/l2
[peer one]
folder = one
address = $(remote "$W/far1")
limit_down = 200 KB/s
$(peer_options)
[peer two]
folder = two
address = $(remote "$W/far2")
$(peer_options)"
sample daemon "$W/d/D/sock"
holds "down, one of two peers" $((MB / 5)) 1
holds "down, the daemon" $MB 1 2
ctl D status >"$W/out"
grep -q 'at most 195 KiB/s received' "$W/out" || { fail "status says nothing of limits"; cat "$W/out"; }
want_sync "$W/far1" "$W/l1" 60 "under a limit"
want_sync "$W/far2" "$W/l2" 60 "under a limit"

# --- sessions ---
sessions() { ctl S status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["sessions"][sys.argv[1]])' "$1"; }
mkdir "$W/u1"
want "a reconcile waits for its turn" reconcile "$W/u1" "$(remote "$W/s1")"
want_equal "$W/s1" "$W/u1" "a reconcile with a busy daemon"
for f in 1 2 3; do
    want_sync "$W/s$f" "$W/t$f" 60 "with turns"
    [ "$(sessions open)" -le 2 ] || fail "$(sessions open) sessions at a time"
done
[ "$(sessions waiting)" = 1 ] || fail "$(sessions waiting) wait, not one"

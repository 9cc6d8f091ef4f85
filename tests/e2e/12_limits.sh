#!/bin/bash
# Limits hold within 5 %: bandwidth of one run, up, as a relay counts it; of a daemon, down, shared by two peers of which one
# has a lower limit of its own; what scans read, and take of a processor, as the kernel counts it; the number of sessions, where
# all have their turn. A machine that is busy with other things is only slower: that a limit is reached, too, is asked of the
# best part of the time, and where what is unlimited was much faster. An edit does not wait for a slow scan.
. "$(dirname "$0")/lib.sh"

MB=1000000
start_sshd
start_relay

# sample WHAT OF [FILE]: for 4 s, lines of a time and counts, once these have grown. relay FILE (bytes up), daemon SOCKET (bytes
# received by each folder's sessions), process ID (bytes read, nanoseconds of a processor).
cat >"$W/sample.py" <<'END'
import json, subprocess, sys, time
what, source, program = sys.argv[1:4]
def look():
    if what == "relay":
        return time.time(), json.load(open(source))["up"]
    if what == "process":
        return time.time(), int(open(f"/proc/{source}/io").read().split()[1]), time.clock_gettime_ns(~int(source) << 3 | 2)
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
sample() { python3 "$W/sample.py" "$1" "$2" "$BIN/syncctl" >"${3:-$W/samples}" || fail "no samples"; }
# holds NAME LIMIT FAST COLUMN…: the columns' sum, in all samples; and in the best second and a half, if it was much faster without
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
    local name=$1 limit=$2 fast=$3
    shift 3
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
holds "up, one run" $MB "$fast" 1

# --- scans ---
mkdir "$W/i" "$W/c"
head -c $((70 * MB)) /dev/urandom | tee "$W/i/big" >"$W/c/big"
read -r fast_io fast_cpu < <(python3 -c '
import hashlib, sys, time
begin = time.monotonic()
hashlib.sha256(open(sys.argv[1], "rb").read())
took = time.monotonic() - begin
print(7e7 / took, time.process_time() / took * 1e9)' "$W/i/big")
scanning() { # NAME DIRECTORY LIMIT
    daemon "$1" "[daemon]"$'\n'"$3"$'\n'"[folder f]"$'\n'"path = $2"$'\n'"[peer p]"$'\n'"folder = f"$'\n'"address = $2.far"
}
scanning I "$W/i" "scan_io = 10 MB/s"
sample process "$DAEMON_PID" "$W/samples.io" &
run=$!
scanning C "$W/c" "scan_cpu = 4%"
sample process "$DAEMON_PID"
wait "$run"
holds "a scan's share of a processor" 40000000 "$fast_cpu" 2
mv "$W/samples.io" "$W/samples"
holds "what a scan reads" $((10 * MB)) "$fast_io" 1
stop "$PID_I"
stop "$PID_C"

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
holds "down, one of two peers" $((MB / 5)) "$fast" 1
holds "down, the daemon" $MB "$fast" 1 2
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

# --- an edit whose close nobody has seen yet, when a slow scan begins, does not wait for its end ---
mkdir "$W/m" "$W/n"
python3 -c '
import sys
for n in range(3000):
    open(f"{sys.argv[1]}/{n}", "w").write(str(n))' "$W/m"
folder_m=$'[folder m]\npath = '"$W/m"$'\n[peer n]\nfolder = m\naddress = '"$W/n"
scanning_m() { [ "$(folder_says M scanning) $(folder_says M state)" = "$1 ready" ]; }
daemon M "$folder_m"
want_sync "$W/m" "$W/n" 60 "before a slow scan"
sleep 2.2 # entries as young as the recording are hashed again: not what is slow here
want "a flush, which looks at all" ctl M flush m
stop "$PID_M"
daemon M "[daemon]"$'\n'"scan_cpu = 2%"$'\n'"$folder_m"
wait_for 120 scanning_m False || fail "the first scan does not end"
begin=$EPOCHREALTIME
want "a slow scan" ctl M scan m
wait_for 20 scanning_m True || fail "no slow scan"
wait_for 120 scanning_m False || fail "a slow scan does not end"
scanned=$EPOCHREALTIME
kill -STOP "$PID_M"
echo edited >"$W/m/17"
ctl M scan m >"$W/out" 2>&1 &
run=$!
sleep 0.2
edited=$EPOCHREALTIME
kill -CONT "$PID_M"
wait_for 120 cmp "$W/m/17" "$W/n/17" || fail "the edit does not arrive"
python3 -c '
import sys
begin, scanned, edited, there = map(float, sys.argv[1:])
print(f"a scan took {scanned - begin:.2f} s, an edit beside it {there - edited:.2f} s")
sys.exit(there - edited > (scanned - begin) / 3)' "$begin" "$scanned" "$edited" "$EPOCHREALTIME" || fail "an edit waits for a slow scan"
wait "$run" || { fail "a scan beside an edit"; cat "$W/out"; }

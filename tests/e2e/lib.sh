# tests/e2e/lib.sh — what the end-to-end tests share: a place of their own, a real sshd on loopback, daemons, comparison.
# Sourced by each test. BIN: where the programs are. Everything that is started is ended by its process id.
set -u
export LC_ALL=C
BIN=${BIN:-$(cd "$(dirname "$0")/../.." && pwd)/build/bin}
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
W=$(mktemp -d "${TMPDIR:-/tmp}/syncd-e2e.XXXXXX")
PIDS=()
FAILED=0
export HOME=$W/home XDG_RUNTIME_DIR=$W/run
unset SSH_AUTH_SOCK
mkdir -p "$HOME" "$W/run"

# Is it still a process of this script? An id is given out again once its process was waited for: to another script's, perhaps.
is_ours() { grep -qs "^PPid:[[:space:]]*$$\$" "/proc/$1/status"; }

finish() {
    local code=$? pid
    for pid in "${PIDS[@]:-}"; do
        [ -n "$pid" ] && is_ours "$pid" && kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    for mount in "$W"/mnt*; do
        mountpoint -q "$mount" 2>/dev/null && umount -l "$mount"
    done
    if [ "${KEEP:-}" ]; then echo "kept: $W"; else rm -rf "$W"; fi
    [ "$code" -eq 0 ] && [ "$FAILED" -ne 0 ] && code=1
    exit "$code"
}
trap finish EXIT
trap "exit 143" INT TERM

say() { printf '%s\n' "$*"; }

# A failed check is told with what was seen; the test goes on, and fails in the end.
fail() {
    printf 'FAILED %s: %s\n' "$(basename "$0")" "$*"
    FAILED=1
}

die() {
    fail "$@"
    exit 1
}

# want WHAT COMMAND…: the command must succeed.
want() {
    local what=$1
    shift
    "$@" >"$W/out" 2>&1 || { fail "$what"; sed 's/^/    /' "$W/out" | tail -n 15; }
}

# want_code CODE WHAT COMMAND…: the command must exit with the code, and say one line on stderr.
want_code() {
    local code=$1 what=$2 got
    shift 2
    "$@" >"$W/out" 2>"$W/err"
    got=$?
    [ "$got" -eq "$code" ] || { fail "$what: exit code $got, not $code"; sed 's/^/    /' "$W/out" "$W/err" | tail -n 15; }
    [ "$code" -eq 0 ] || [ "$(wc -l <"$W/err")" -eq 1 ] || { fail "$what: not one line on stderr"; sed 's/^/    /' "$W/err"; }
}

# wait_for SECONDS COMMAND…: poll until it succeeds. PATIENCE: how many times as long, for programs under a sanitizer.
wait_for() {
    local until=$(($(date +%s) + $1 * ${PATIENCE:-1}))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# Contents, modes, owners, mtimes, links, by an independent program.
# EXCEPT: an option of rsync, for what may differ.
differences() { rsync -aHnicO --delete --exclude=/.syncd ${EXCEPT:-} "$1/" "$2/"; }
equal_trees() { [ -z "$(differences "$1" "$2" 2>&1)" ]; }
want_equal() { equal_trees "$1" "$2" || { fail "${3:-trees differ}"; differences "$1" "$2" | head -n 15 | sed 's/^/    /'; }; }

# A root's hash as the replica itself says it.
root_of() { "$BIN/syncctl" status --json "$@" 2>/dev/null | python3 -c 'import json,sys; print(json.load(sys.stdin)["folders"][0]["root"])'; }
conflict_copies() { find "$@" -path '*/.syncd' -prune -o -name '*.sync-conflict-*' -print; }

# --- sshd on loopback ---

# One that no connection is given as its own meanwhile.
free_port() {
    python3 -c 'import random, socket
while True:
    port, s = random.randrange(20000, 32000), socket.socket()
    try:
        s.bind(("127.0.0.1", port))
    except OSError:
        continue
    print(port)
    break'
}

# Lines for its configuration may be given; the first of a kind holds.
start_sshd() {
    mkdir -p "$W/ssh" /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$W/ssh/host"
    ssh-keygen -q -t ed25519 -N '' -f "$W/ssh/key"
    cp "$W/ssh/key.pub" "$W/ssh/authorized"
    SSH_PORT=$(free_port)
    cat >"$W/ssh/config" <<EOF
${1:-}
RekeyLimit 16M
ListenAddress 127.0.0.1:$SSH_PORT
HostKey $W/ssh/host
AuthorizedKeysFile $W/ssh/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
EOF
    /usr/sbin/sshd -D -f "$W/ssh/config" -E "$W/ssh/log" &
    PIDS+=($!)
    wait_for 10 python3 -c "import socket; socket.create_connection(('127.0.0.1', $SSH_PORT))" || die "sshd does not start: $(cat "$W/ssh/log")"
    printf '[127.0.0.1]:%s %s\n' "$SSH_PORT" "$(cut -d' ' -f1,2 "$W/ssh/host.pub")" >"$W/ssh/known_hosts"
}

SSH_OPTIONS() { printf -- '-i\n%s\n--known-hosts\n%s\n--syncctl-path\n%s\n' "$W/ssh/key" "$W/ssh/known_hosts" "$BIN/syncctl"; }
# remote PATH: its name through the sshd (or through a relay in between, where RELAY_PORT is set)
remote() { printf 'ssh://root@127.0.0.1:%s%s' "${RELAY_PORT:-$SSH_PORT}" "$1"; }
reconcile() {
    local options
    mapfile -t options < <(SSH_OPTIONS)
    timeout "${LIMIT:-600}" "$BIN/syncctl" reconcile "${options[@]}" "$@"
}

# A relay in front of the sshd that counts; the host key is the same, under the relay's name.
start_relay() {
    RELAY_PORT=$(free_port)
    python3 "$TOP/tests/e2e/relay.py" "$RELAY_PORT" "$SSH_PORT" "$W/relay.count" "${1:-0}" &
    PIDS+=($!)
    wait_for 10 python3 -c "import socket; socket.create_connection(('127.0.0.1', $RELAY_PORT))" || die "the relay does not start"
    printf '[127.0.0.1]:%s %s\n' "$RELAY_PORT" "$(cut -d' ' -f1,2 "$W/ssh/host.pub")" >>"$W/ssh/known_hosts"
}
relayed_bytes() { python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); print(d["up"] + d["down"])' "$W/relay.count"; }

# --- daemons ---

# daemon NAME CONFIG-TEXT: start one with its own socket and state; DAEMON_PID is its id.
daemon() {
    local name=$1
    mkdir -p "$W/d/$name"
    printf '%s\n' "$2" >"$W/d/$name/conf"
    daemon_again "$name"
}
daemon_again() {
    "$BIN/syncd" -c "$W/d/$1/conf" -s "$W/d/$1/sock" -S "$W/d/$1/state" >>"$W/d/$1/log" 2>&1 &
    DAEMON_PID=$!
    PIDS+=("$DAEMON_PID")
    eval "PID_$1=$DAEMON_PID"
    wait_for 20 test -S "$W/d/$1/sock" || die "daemon $1 does not start: $(tail -n 5 "$W/d/$1/log")"
}
ctl() {
    local name=$1
    shift
    timeout "${LIMIT:-120}" "$BIN/syncctl" "$@" -s "$W/d/$name/sock"
}
# folder_says NAME KEY: of the one folder of a daemon, as it tells itself
folder_says() { ctl "$1" status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["folders"][0][sys.argv[1]])' "$2"; }
stop() {
    kill "$1"
    wait "$1" 2>/dev/null
}
peer_options() { printf 'identity = %s\nknown_hosts = %s\nsyncctl_path = %s\n' "$W/ssh/key" "$W/ssh/known_hosts" "$BIN/syncctl"; }
# A folder t in $A and $B, live in both directions through the sshd. LINES: more in the folder's section, on both sides.
two_daemons() {
    daemon b "[folder t]
path = $B
${1:-}"
    daemon a "[folder t]
path = $A
${1:-}
[peer b]
folder = t
address = $(remote "$B")
$(peer_options)"
}

# in_sync A B: the two trees are equal and stay so for a moment.
in_sync() { equal_trees "$1" "$2" && sleep 0.3 && equal_trees "$1" "$2"; }
want_sync() {
    local limit=${3:-60}
    wait_for "$limit" in_sync "$1" "$2" && return
    { fail "not in sync after $limit s ${4:-}"; differences "$1" "$2" | head -n 15 | sed 's/^/    /'; tail -n 5 "$W"/d/*/log 2>/dev/null | sed 's/^/    /'; }
    exit 1 # what comes after would only wait
}

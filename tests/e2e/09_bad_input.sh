#!/bin/bash
# Bad input, bad configuration, a bad network and a full disk: one clear line and a distinct exit code each, nothing lost, and a
# daemon that lives on.
. "$(dirname "$0")/lib.sh"

. <(sed -n 's/^\t\(EXIT_[A-Z_]*\) = \([0-9]*\),.*/\1=\2/p' "$TOP/syncd/exit_codes.h")
# says WORD: the line that the last command said contains it.
says() { grep -qF -- "$1" "$W/err" || { fail "\"$1\" is not said:"; sed 's/^/    /' "$W/err"; }; }
A=$W/a B=$W/b
mkdir -p "$A" "$B"
for i in $(seq 50); do echo "content $i" >"$A/f$i"; done
local_reconcile() { timeout 60 "$BIN/syncctl" reconcile -q "$@"; }

# --- usage ---
ctl_plain() { timeout 60 "$BIN/syncctl" "$@"; }
usage() { # usage WHAT COMMAND…: EXIT_USAGE, and something on stderr that helps
    local what=$1 got
    shift
    "$@" >"$W/out" 2>"$W/err"
    got=$?
    [ "$got" -eq "$EXIT_USAGE" ] || fail "$what: exit code $got, not $EXIT_USAGE"
    grep -qiE 'usage|--help' "$W/err" || { fail "$what: no usage is shown"; sed 's/^/    /' "$W/err"; }
}
usage "no command" ctl_plain
usage "an unknown command" ctl_plain frobnicate
usage "an unknown option" ctl_plain reconcile --frobnicate "$A" "$B"
usage "one replica only" ctl_plain reconcile "$A"
usage "an unknown mode" ctl_plain reconcile --mode sideways "$A" "$B"
usage "serve with arguments" ctl_plain serve this that
usage "confirm what" ctl_plain confirm
usage "an option of syncd's" "$BIN/syncd" --frobnicate
want_code "$EXIT_USAGE" "two remote replicas" ctl_plain reconcile one:/a two:/b
says "one of the two replicas must be on this machine"
want_code "$EXIT_USAGE" "a replica with itself" local_reconcile "$A" "$A"
want_code "$EXIT_USAGE" "a replica inside the other" local_reconcile "$A" "$A/sub"

# --- configuration ---
config() { printf '%s\n' "$1" >"$W/conf"; }
both_refuse() { # both_refuse WHAT LINE WORD
    want_code "$EXIT_CONFIG" "syncctl check-config: $1" ctl_plain check-config "$W/conf"
    says "$W/conf:$2:"
    says "$3"
    want_code "$EXIT_CONFIG" "syncd: $1" timeout 20 "$BIN/syncd" -c "$W/conf" -s "$W/sock" -S "$W/state"
    says "$W/conf:$2:"
    says "$3"
}
config "[folder t]
path = $A
colour = green"
both_refuse "an unknown key" 3 colour
config "[folder t]
path = $A
settle = soon"
both_refuse "a bad value" 3 soon
config "[folders t]
path = $A"
both_refuse "an unknown section" 1 folders
config "[folder t]
path = $A
[peer p]
folder = u
address = $B"
both_refuse "a peer of no folder" 3 u
want_code "$EXIT_CONFIG" "no configuration" timeout 20 "$BIN/syncd" -c "$W/nowhere" -s "$W/sock" -S "$W/state"
says "$W/nowhere"

# --- folders that are not there, that are taken, or that are others ---
want_code "$EXIT_NO_FOLDER" "a missing folder" local_reconcile "$W/nowhere" "$B"
says "$W/nowhere"
want_code "$EXIT_NO_FOLDER" "a missing folder on the far side" local_reconcile "$A" "$W/no/where"
says "no/where"
want_code "$EXIT_LOCKED" "status without a daemon" ctl_plain status -s "$W/sock"
says "no daemon answers at $W/sock"
want_code "$EXIT_LOCKED" "scan without a daemon" ctl_plain scan -s "$W/sock"
want "reconcile" local_reconcile "$A" "$B"
cp "$A/.syncd/identity" "$W/identity"
sed -i '1s/[0-9]*$/99/' "$A/.syncd/identity"
want_code "$EXIT_VERSION" "the state of a newer version" local_reconcile "$A" "$B"
says "a newer one wrote it"
cp "$W/identity" "$A/.syncd/identity"
want "reconcile with what is known" local_reconcile "$A" "$B"
mkdir "$W/c" "$W/d2"
echo c >"$W/c/c"
want "another folder" local_reconcile "$W/c" "$W/d2"
want_code "$EXIT_FOLDER_ID" "replicas of different folders" local_reconcile "$A" "$W/c"
says "different folders"
[ ! -e "$A/c" ] && [ ! -e "$W/c/f1" ] || fail "two folders were mixed"
hold() { python3 -c '
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
os.ftruncate(fd, 0)
os.pwrite(fd, b"%d \n" % os.getpid(), 0)
open(sys.argv[2], "w").close()
time.sleep(60)' "$1/.syncd/lock" "$W/holds" & HOLDER=$!; PIDS+=("$HOLDER"); wait_for 10 test -e "$W/holds"; }
hold "$A"
want_code "$EXIT_LOCKED" "a folder that another process has" local_reconcile "$A" "$B"
says "in use by process $HOLDER"
want_code "$EXIT_LOCKED" "a far folder that another process has" local_reconcile "$B" "$A"
says "in use by process $HOLDER"
stop "$HOLDER"
want "reconcile, given free" local_reconcile "$A" "$B"

# --- peers that do not speak the protocol ---
garbage() { head -c "$1" /dev/urandom; }
serve_with() { timeout 60 "$BIN/syncctl" serve <"$1"; }
printf '#!/bin/sh\nhead -c 8 >%s\n' "$W/preface" >"$W/far" && chmod +x "$W/far"
local_reconcile --syncctl-path "$W/far" "$A" "$B" >/dev/null 2>&1
[ "$(head -c 5 "$W/preface")" = syncd ] || die "a client does not begin with a preface" # of our own version
for what in "$W/hello" "$W/random" "$W/nothing" "$W/version" "$W/broken"; do
    case $what in
    */hello) printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' >"$what"; code=$EXIT_PROTOCOL ;;
    */random) garbage 100000 >"$what"; code=$EXIT_PROTOCOL ;;
    */nothing) : >"$what"; code=$EXIT_CONNECT ;;
    */version) printf 'syncd\0\310\310' >"$what"; code=$EXIT_VERSION ;;
    */broken) { cat "$W/preface"; garbage 1000; } >"$what"; code=$EXIT_PROTOCOL ;;
    esac
    want_code "$code" "serve is given ${what##*/}" serve_with "$what"
done
# far WHAT CODE WORD SCRIPT: the other side is a script.
far() {
    printf '#!/bin/bash\n%s\n' "$4" >"$W/far" && chmod +x "$W/far"
    want_code "$2" "the far side is $1" local_reconcile --syncctl-path "$W/far" "$A" "$B"
    says "$3"
}
far "of another version" "$EXIT_VERSION" "versions 200 to 200" 'printf "syncd\0\310\310"; sleep 5'
far "talkative (a login script)" "$EXIT_PROTOCOL" "Welcome" 'echo "Welcome to this machine"; sleep 5'
far "one that breaks the protocol" "$EXIT_PROTOCOL" "protocol" 'cat "'"$W"'/preface"; head -c 1000 /dev/urandom; sleep 5'
far "one that ends at once" "$EXIT_COMMAND" "ended with status 3" 'exit 3'
far "one that says why it ends" "$EXIT_COMMAND" "no such luck" 'echo "no such luck" >&2; exit 1'
far "one that colours its words" "$EXIT_COMMAND" 'evil' 'printf "\033[31mevil\033[0m\n" >&2; exit 1'
! grep -q $'\033' "$W/err" || fail "the far side's words reach the terminal as they are"
want_code "$EXIT_COMMAND" "no such program on this machine" local_reconcile --syncctl-path "$W/nowhere" "$A" "$B"

# --- SSH ---
start_sshd
S=$(remote "$W/over-ssh")
want "reconcile over sshd" reconcile -q "$A" "$S"
options() { timeout 60 "$BIN/syncctl" reconcile -q -i "${KEY:-$W/ssh/key}" --known-hosts "${HOSTS:-$W/ssh/known_hosts}" --syncctl-path "${FAR:-$BIN/syncctl}" "$A" "${TO:-$S}"; }
: >"$W/ssh/no_hosts"
HOSTS=$W/ssh/no_hosts want_code "$EXIT_HOST_KEY" "an unknown host" options
says "127.0.0.1"
says "SHA256:"
ssh-keygen -q -t ed25519 -N '' -f "$W/ssh/other"
sed "s|ssh-ed25519 .*|$(cut -d' ' -f1,2 "$W/ssh/other.pub")|" "$W/ssh/known_hosts" >"$W/ssh/wrong_hosts"
HOSTS=$W/ssh/wrong_hosts want_code "$EXIT_HOST_KEY" "a host with another key" options
says "changed"
KEY=$W/ssh/other want_code "$EXIT_AUTH" "a key that is refused" options
KEY=$W/ssh/nowhere want_code "$EXIT_AUTH" "a key that is not there" options
FAR=$W/nowhere/syncctl want_code "$EXIT_COMMAND" "no such program over there" options
says "nowhere/syncctl"
TO=ssh://root@127.0.0.1:$(free_port)/x want_code "$EXIT_CONNECT" "nothing listens" options
says "refused"
TO=ssh://root@no-such-host.invalid/x want_code "$EXIT_CONNECT" "a name that does not resolve" options
says "no-such-host.invalid"
TO=$(remote /proc/nowhere) want_code "$EXIT_NO_FOLDER" "a folder that can't be made over there" options
[ -z "$(conflict_copies "$A" "$B")" ] || fail "conflict copies"

# --- a full disk at the receiver ---
F=$W/mnt-full
mkdir "$F"
truncate -s 24M "$W/image"
mkfs.ext4 -q -F "$W/image"
mount -o loop "$W/image" "$F" || die "cannot mount"
rmdir "$F/lost+found"
G=$W/g
mkdir "$G"
for i in $(seq 10); do echo "small $i" >"$G/small$i"; done
head -c 3000000 /dev/urandom >"$G/changed"
want "before the disk is full" local_reconcile "$G" "$F"
echo theirs >"$F/theirs"
cp "$F/changed" "$W/changed-before"
for i in $(seq 12); do head -c 3000000 /dev/urandom >"$G/big$i"; done
head -c 3000000 /dev/urandom >"$G/changed"
echo edited >"$G/small1"
full() { # full WHAT COMMAND…
    want_code "$EXIT_SPACE" "$@"
    says "no space"
    for i in $(seq 2 10); do [ "$(cat "$F/small$i")" = "small $i" ] || fail "$1: small$i is not what it was"; done
    cmp -s "$F/changed" "$W/changed-before" || cmp -s "$F/changed" "$G/changed" || fail "$1: a file is neither its old nor its new version"
    [ "$(cat "$F/theirs")" = theirs ] || fail "$1: a file of the receiver's is gone"
    for f in "$F"/big*; do [ ! -e "$f" ] || cmp -s "$f" "$G/${f##*/}" || fail "$1: ${f##*/} is there in part"; done
    [ "$(find "$G" -maxdepth 1 -type f | wc -l)" -ge 23 ] || fail "$1: something is gone at the sender"
}
full "a full disk on the far side" local_reconcile "$G" "$F"
full "a full disk on this side" local_reconcile "$F" "$G"
rm "$G"/big{4,5,6,7,8,9,10,11,12}
want "after making room (what is in trash goes too)" local_reconcile "$G" "$F"
want_equal "$G" "$F" "after making room"
[ "$(cat "$G/theirs")" = theirs ] && [ "$(cat "$F/small1")" = edited ] || fail "edits from before did not arrive"
[ -z "$(ls -A "$F/.syncd/staging")" ] || fail "staging is not empty: $(ls -A "$F/.syncd/staging")"
[ -z "$(conflict_copies "$F" "$G")" ] || fail "conflict copies by a full disk"

# Nothing can be recorded there at all: whoever waits is told in the end.
mkdir "$F/new" && for i in $(seq 500); do : >"$F/new/f$i"; done
head -c 30000000 /dev/zero >"$F/fill" 2>/dev/null && die "the disk is not full"
# What the kernel could not write back before is an I/O error of the next sync, and EXIT_FAILED.
ends() { # ends WHERE A B
    local code
    local_reconcile "$2" "$3" 2>"$W/err"
    code=$?
    [ "$code" -eq "$EXIT_SPACE" ] || [ "$code" -eq "$EXIT_FAILED" ] || fail "no room for the index on $1: exit code $code"
    says "and run it again"
    [ "$(wc -l <"$W/err")" -eq 1 ] || fail "no room for the index on $1: not one line on stderr"
}
ends "this side" "$F" "$G"
ends "the far side" "$G" "$F"
rm "$F/fill"
want "with room for the index" local_reconcile "$F" "$G"
[ "$(find "$G/new" -type f | wc -l)" -eq 500 ] || fail "what could not be recorded did not arrive"

# --- a file that somebody is writing ---
mkdir "$W/here" "$W/there"
for side in here there; do echo base >"$W/$side/of-$side"; done
want "before anybody writes" local_reconcile "$W/here" "$W/there"
for side in here there; do
    { while sleep 0.1; do echo more; done; } >>"$W/$side/of-$side" &
    writer=$!
    PIDS+=("$writer")
    sleep 0.3
    want_code "$EXIT_PARTIAL" "a file that is being written $side" local_reconcile "$W/here" "$W/there"
    echo "$side" >>"$W/here/other"
    want_code "$EXIT_PARTIAL" "a file that is being written $side, and another that is not" local_reconcile "$W/here" "$W/there"
    stop "$writer"
    sleep 0.3 # what it was waiting for has the file open, too
    want "once it is closed" local_reconcile "$W/here" "$W/there"
    want_equal "$W/here" "$W/there" "once it is closed"
done

# --- a daemon lives on ---
daemon a "[folder t]
path = $A
settle = 50ms
[peer b]
folder = t
address = $B"
lives() {
    kill -0 "$PID_a" 2>/dev/null || die "the daemon died: $1: $(tail -n 5 "$W/d/a/log")"
    ctl a status >"$W/out" 2>&1 || { fail "$1: the daemon does not answer well"; sed 's/^/    /' "$W/out"; }
}
wait_for 20 ctl a flush || fail "the daemon is not in sync"
lives "at first"
python3 - "$W/d/a/sock" <<'EOP'
import array, os, random, socket, struct, sys, time

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.settimeout(5)
    return s

def send(data, fds=()):
    s = connect()
    try:
        if fds:
            s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except OSError:
        pass
    s.close()

random.seed(1)
held = [connect() for _ in range(100)]  # that say nothing
for data in (b"", b"\n", b"{", b"[]\n", b"null\n", b"{}\n", b'{"command": 7}\n', b'{"command": "nothing"}\n', b"\0" * 1000,
             b'{"command": "status", "folder": 7}\n', b'{"command": "serve", "path": "/nowhere"}\n', b"[" * 100000 + b"\n",
             b'{"command": "flush"}\n{"command": "flush"}\n', b'{"command": "trash-restore", "name": "../../etc/passwd"}\n',
             b'{"command": "attach"}\n', b'{"command": "retire", "member": ""}\n', b'"' + b"x" * 3000000 + b'"\n', b"\xff\xfe\n"):
    send(data)
    send(struct.pack("<I", len(data)) + data)
    send(struct.pack(">I", len(data)) + data)
for n in range(100):
    send(random.randbytes(random.randrange(1, 3000)))
r, w = os.pipe()
for n in range(20):
    send(b"{}\n", [r, w] * 4)
    send(b'{"command": "serve", "initial": "zz"}\n', [r, w])
    send(b'{"command": "serve", "initial": "73"}\n', [r, w])
for s in held:
    s.close()
EOP
lives "garbage on the control socket"
for n in $(seq 10); do
    { cat "$W/preface"; garbage 3000; } >"$W/broken"
    serve_with "$W/broken" >/dev/null 2>&1
done
mkdir "$W/e"
# Garbage behind an OPEN for the daemon's folder, as a client that was taken over would send it.
cat >"$W/far" <<EOP
#!/usr/bin/env python3
import os, select, subprocess
child = subprocess.Popen(["$BIN/syncctl", "serve"], stdin=subprocess.PIPE)
with open("$W/stream", "wb") as copy:
    while True:
        select.select([0], [], [])
        data = os.read(0, 65536)
        if not data:
            break
        copy.write(data)
        child.stdin.write(data)
        child.stdin.flush()
child.stdin.close()
child.wait()
EOP
chmod +x "$W/far"
want "a client of the daemon's" local_reconcile --syncctl-path "$W/far" "$W/e" "$A"
size=$(stat -c %s "$W/stream")
for n in $(seq 10 20 "$size") ; do
    { head -c "$n" "$W/stream"; garbage 500; } >"$W/broken"
    serve_with "$W/broken" >/dev/null 2>&1
    kill -0 "$PID_a" 2>/dev/null || break
done
lives "garbage behind a good beginning"
echo goes-on >"$A/goes-on"
wait_for 10 grep -q goes-on "$B/goes-on" || fail "the daemon does not sync any more"

# --- a daemon on a full disk that writes to another place each time, stores into maps of files, too ---
D=$W/mnt-cow
mkdir "$D" "$W/far-of-cow"
truncate -s 400M "$W/cow"
mkfs.btrfs -q -f "$W/cow" >/dev/null
if mount -o loop -t btrfs "$W/cow" "$D" 2>/dev/null; then
    mkdir "$D/t" && cp -a /usr/share/doc/bash "$D/t/"
    daemon c "[folder t]
path = $D/t
rescan_interval = 1s
settle = 50ms
[peer far]
folder = t
address = $W/far-of-cow"
    wait_for 20 ctl c flush || fail "the daemon on btrfs is not in sync"
    sync -f "$D"
    dd if=/dev/zero of="$D/fill" bs=1M 2>/dev/null
    dd if=/dev/zero of="$D/fill2" bs=4k 2>/dev/null
    for n in $(seq 30); do
        echo "$n" >"$W/far-of-cow/f$n"
        echo "$n" >"$D/t/bash/$n" 2>/dev/null
        sleep 0.2
        kill -0 "$PID_c" 2>/dev/null || die "the daemon died of a full btrfs: $(tail -n 5 "$W/d/c/log")"
    done
    rm "$D/fill" "$D/fill2"
    want_sync "$D/t" "$W/far-of-cow" 60 "after btrfs had room again"
    [ "$(ls "$D"/t/f* | wc -l)" -eq 30 ] || fail "what came while btrfs was full is not there"
    stop "$PID_c"
else
    say "left out: this kernel has no btrfs"
fi

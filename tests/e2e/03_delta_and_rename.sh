#!/bin/bash
# A changed 4 KiB in a 256 MiB file sends under 24 KiB; renaming that file, or its directory, sends under 20 KiB. A no-op session
# costs one round trip after connecting and under 4 KiB. Bytes, and how often their direction changes, are counted by a relay in
# between, SSH's own included.
. "$(dirname "$0")/lib.sh"

start_sshd
start_relay
mkdir -p "$W/a/dir" "$W/b"
# The same bytes in each run: what is sent depends on where the chunks' boundaries are.
openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 268435456 >"$W/a/dir/big"
cp -a /usr/share/doc/b* "$W/a/"
want "first copy" reconcile "$W/a" "$(remote "$W/b")"
# What SSH itself costs: the same client, running a command that says nothing and ends when its input does.
login() { "$BIN/syncd-ssh" -p "$RELAY_PORT" -i "$W/ssh/key" -k "$W/ssh/known_hosts" root@127.0.0.1 cat </dev/null; }
zero() { kill -USR1 "${PIDS[-1]}"; wait_for 5 grep -q '"up": 0, "down": 0' "$W/relay.count"; }
sleep 2.2 # entries as young as the recording are hashed again: not what is measured here

zero
want "nothing to do" reconcile "$W/a" "$(remote "$W/b")"
noop=$(relayed_bytes)
zero
want "a login" login
login=$(relayed_bytes)
say "no-op: $noop bytes through the relay, of them $login for logging in, running a command and logging out"
[ $((noop - login)) -lt 4096 ] || fail "a no-op session of $((noop - login)) bytes"

edit() {
    zero
    want "$1" reconcile "$W/a" "$(remote "$W/b")"
    bytes=$(($(relayed_bytes) - noop))
    say "$1: $bytes bytes more than a no-op (limit $2)"
    [ "$bytes" -lt "$2" ] || fail "$1 sent $bytes bytes"
    want_equal "$W/a" "$W/b" "$1"
}
openssl enc -aes-128-ctr -K 99112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 4096 |
    dd of="$W/a/dir/big" bs=4096 seek=30000 conv=notrunc status=none
edit "4 KiB changed in 256 MiB" 24576
# What was renamed is the very object that was there; nothing of it is copied, or goes to trash.
moved() {
    [ "$(stat -c %i "$W/b/$2")" = "$1" ] || fail "$2 is a copy"
    [ -z "$(find "$W/b/.syncd/trash" -type f -size +1M -newer "$W/edited")" ] || fail "what was renamed to $2 is in trash"
}
sleep 2.2
touch "$W/edited"
inode=$(stat -c %i "$W/b/dir/big")
mv "$W/a/dir/big" "$W/a/dir/renamed"
edit "the file renamed" 20480
moved "$inode" dir/renamed
mv "$W/a/dir" "$W/a/moved"
edit "its directory renamed" 20480
moved "$inode" moved/renamed
# More than a batch takes, and more than may be deleted without a word.
mkdir "$W/a/many"
for i in $(seq 1200); do echo "$i" >"$W/a/many/$i"; done
want "many" reconcile "$W/a" "$(remote "$W/b")"
mv "$W/a/many" "$W/a/many again"
inode=$(stat -c %i "$W/b/many/1200")
edit "a directory of 1,200 renamed" 204800
moved "$inode" "many again/1200"

# Round trips: how often the line's direction changes for a no-op more than for a login. One is sshd's, which takes no input for the
# command before it has answered that it runs; a login sends none. Who is just sending when something comes may add a turn: the least of
# a few counts, and where the machine is busy that takes more of them.
mkdir "$W/c"
echo text >"$W/c/file"
want "first copy of c" reconcile "$W/c" "$(remote "$W/d")"
sleep 2.2
start_relay 150
want "a first meeting at that address" reconcile "$W/c" "$(remote "$W/d")" # who is there is not known before it greets
turns() { # turns NAME WHAT COMMAND…: the variable NAME has the least
    local name=$1 n
    shift
    zero
    want "$@"
    sleep 0.5 # the last bytes are on their way
    n=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["turns"])' "$W/relay.count")
    [ "${!name:-99}" -le "$n" ] || printf -v "$name" %d "$n"
}
for _ in 1 2 3 4 5 6 7 8 9; do
    turns turns_login "a login over the slow relay" login
    turns turns_noop "nothing to do over the slow relay" reconcile --json "$W/c" "$(remote "$W/d")"
    [ $((turns_noop - turns_login)) -gt 2 ] || break
done
rounds=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["rounds"])' "$W/out")
say "no-op: $turns_noop turns, a login $turns_login; $rounds round"
[ $((turns_noop - turns_login)) -le 2 ] || fail "a no-op session costs more than a round trip"

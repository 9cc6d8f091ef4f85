#!/bin/bash
# A changed 4 KiB in a 256 MiB file sends under 100 KiB; renaming that file, or its directory, sends under 20 KiB. A no-op session
# costs one round trip after connecting and under 4 KiB. Bytes are counted by a relay in between, SSH's own included.
. "$(dirname "$0")/lib.sh"

start_sshd
start_relay
mkdir -p "$W/a/dir" "$W/b"
# The same bytes in each run: what is sent depends on where the chunks' boundaries are.
openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 268435456 >"$W/a/dir/big"
cp -a /usr/share/doc/b* "$W/a/"
want "first copy" reconcile "$W/a" "$(remote "$W/b")"
# What SSH itself costs: a session over the relay that only runs a command.
zero() { kill -USR1 "${PIDS[-1]}"; wait_for 5 grep -q '"up": 0, "down": 0' "$W/relay.count"; }
sleep 2.2 # entries as young as the recording are hashed again: not what is measured here

zero
want "nothing to do" reconcile "$W/a" "$(remote "$W/b")"
noop=$(relayed_bytes)
zero
ssh -q -o BatchMode=yes -o UserKnownHostsFile="$W/ssh/known_hosts" -o HostName=127.0.0.1 -i "$W/ssh/key" -p "$RELAY_PORT" root@127.0.0.1 true
ssh_only=$(relayed_bytes)
"$BIN/syncctl" reconcile --json -i "$W/ssh/key" --known-hosts "$W/ssh/known_hosts" --syncctl-path "$BIN/syncctl" "$W/a" "$(remote "$W/b")" >"$W/json"
own=$(python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); print(d["bytes_in"] + d["bytes_out"], d["rounds"])' "$W/json")
say "no-op: $noop bytes through the relay, of them syncd's own $own (bytes, rounds); ssh running true: $ssh_only"
[ "${own% *}" -lt 4096 ] || fail "a no-op session of ${own% *} bytes"
[ "${own#* }" -eq 1 ] || fail "a no-op session of ${own#* } rounds"

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
edit "4 KiB changed in 256 MiB" 102400
mv "$W/a/dir/big" "$W/a/dir/renamed"
edit "the file renamed" 20480
mv "$W/a/dir" "$W/a/moved"
edit "its directory renamed" 20480

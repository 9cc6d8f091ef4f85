#!/bin/bash
# A transfer of 256 MiB that is killed at 60 %, at the sender or at the receiver, goes on from the chunks that are there: the next one
# sends less than 45 %. What was left in staging is gone then.
. "$(dirname "$0")/lib.sh"

start_sshd
start_relay
mkdir "$W/a"
openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 268435456 >"$W/a/big"
zero() { kill -USR1 "${PIDS[-1]}"; wait_for 5 grep -q '"up": 0, "down": 0' "$W/relay.count"; }
most_came() { [ "$(relayed_bytes)" -gt 161061273 ]; }

# cut_and_resume WHAT RECEIVER FROM TO: the client is killed; the far side sees its stream end.
cut_and_resume() {
    local client
    zero
    mapfile -t options < <(SSH_OPTIONS)
    "$BIN/syncctl" reconcile "${options[@]}" "$3" "$4" >"$W/out" 2>&1 &
    client=$!
    wait_for 120 most_came || die "$1: it does not come to 60 %: $(cat "$W/out")"
    kill -9 "$client"
    wait "$client" 2>/dev/null
    [ ! -e "$2/big" ] || fail "$1: it came to its end"
    wait_for 20 ls "$2"/.syncd/staging/partial-* || fail "$1: nothing is left"
    zero
    want "$1: once more" reconcile "$3" "$4"
    bytes=$(relayed_bytes)
    say "$1 killed at 60 %: $((bytes / 1024)) KiB the second time"
    [ "$bytes" -lt 120795955 ] || fail "$1: $bytes bytes the second time"
    want_equal "$W/a" "$2" "$1"
    [ -z "$(ls -A "$2/.syncd/staging")" ] || fail "$1: left in staging: $(ls -A "$2/.syncd/staging")"
}
mkdir "$W/b" "$W/c"
cut_and_resume "the sender" "$W/b" "$W/a" "$(remote "$W/b")"
cut_and_resume "the receiver" "$W/c" "$W/c" "$(remote "$W/a")"

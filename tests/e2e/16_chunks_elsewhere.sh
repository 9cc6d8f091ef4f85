#!/bin/bash
# What is made of what is there travels in part only: a copy with 1 % of edits, a tar of a directory, a file put together of others and a
# section of one, by reconcile and live. Bytes are counted by a relay in between, SSH's own included.
. "$(dirname "$0")/lib.sh"

start_sshd
start_relay
zero() { kill -USR1 "${PIDS[1]}"; wait_for 5 grep -q '"up": 0, "down": 0' "$W/relay.count"; }
noise() { openssl enc -aes-128-ctr -K "001122334455667788990000000000$1" -iv 0 -in /dev/zero 2>/dev/null | head -c "$2"; }
mkdir -p "$W/a/dir"
noise 01 32000000 >"$W/a/big"
for i in $(seq 10 29); do noise "$i" 1000000 >"$W/a/dir/$i"; done
want "first copy" reconcile "$W/a" "$(remote "$W/b")"

# made WHAT LIMIT FILE: how much of the file may travel, in percent
made() {
    bytes=$(relayed_bytes)
    size=$(stat -c %s "$W/a/$3")
    say "$1: $((bytes / 1024)) KiB for $((size / 1024)) (limit $2 %)"
    [ "$((bytes * 100))" -lt "$((size * $2))" ] || fail "$1: $bytes bytes for $size"
    want_equal "$W/a" "$W/b" "$1"
}
# Ten places of 32 KB, under another name.
edited_copy() {
    cp "$W/a/big" "$W/a/$1"
    for i in 1 2 3 4 5 6 7 8 9 10; do
        noise "$2$((i - 1))" 32000 | dd of="$W/a/$1" bs=1000 seek=$((i * 2900)) conv=notrunc status=none
    done
}
once() {
    zero
    want "$1" reconcile "$W/a" "$(remote "$W/b")"
    made "$@"
}
edited_copy copy 3
once "a copy with 1 % of edits" 4 copy
tar -C "$W/a" -cf "$W/a/dir.tar" dir
once "a tar of a directory" 20 dir.tar
(cat "$W/a/big"; noise 40 1000; cat "$W/a/dir/1"?) >"$W/a/together"
once "put together of others" 4 together
head -c 20000000 "$W/a/big" | tail -c 10000000 >"$W/a/section"
once "a section" 4 section

daemon a "[folder t]
path = $W/a
[peer b]
folder = t
address = $(remote "$W/b")
$(peer_options)"
wait_for 60 ctl a flush t || die "not in sync: $(ctl a status t)"
zero
edited_copy "live copy" 5
want_sync "$W/a" "$W/b"
made "a copy with 1 % of edits, live" 4 "live copy"

#!/bin/bash
# syncd-ssh alone, with an sshd that exchanges keys every MiB: bytes each way and both ways at once, slow readers at either end,
# messages to and fro, what is said on stderr, how commands end. MIB: of noise.
. "$(dirname "$0")/lib.sh"

start_sshd "RekeyLimit 1M"
export W
want "streams through syncd-ssh" timeout 900 python3 "$TOP/tests/e2e/ssh_streams.py" "${MIB:-16}" \
    "$BIN/syncd-ssh" -p "$SSH_PORT" -i "$W/ssh/key" -k "$W/ssh/known_hosts" -- root@127.0.0.1
say "$(tail -n 1 "$W/out")"

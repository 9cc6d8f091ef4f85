#!/bin/bash
# A root that is not what it was — unmounted, emptied, replaced, or unreadable in a part — halts its folder or is told, with
# what to do; nothing is deleted at the peer on its account; and it goes on when the root is back.
. "$(dirname "$0")/lib.sh"

halted() { ctl a status "$1" >"$W/status" 2>&1; [ $? -eq 5 ] && grep -q 'halted' "$W/status"; }
says() { ctl "$1" status "$2" >"$W/status" 2>&1; grep -qF -- "$3" "$W/status"; }
ready() { ctl a status --json "$1" | grep -q '"state": "ready"'; }
# want_halted FOLDER WHAT WORD…: status says halted, and each word, if not at once.
want_halted() {
    local folder=$1 what=$2 word
    shift 2
    wait_for 15 halted "$folder" || { fail "$what: not halted"; sed 's/^/    /' "$W/status"; return; }
    for word; do wait_for 10 says a "$folder" "$word" || { fail "$what: status does not say \"$word\""; sed 's/^/    /' "$W/status"; }; done
}
# A replica is exactly what it was, and stays so for a while.
sums() { (cd "$1" && find . -path ./.syncd -prune -o \( -type f -exec sha256sum {} + \) | sort); }
remember() { sums "$1" >"$W/remembered"; }
want_untouched() {
    sleep 0.8
    sums "$1" | diff "$W/remembered" - >"$W/diff" || { fail "$2: something changed at the peer"; head -n 5 "$W/diff" | sed 's/^/    /'; }
}
# goes_on FOLDER A B WHAT: it is ready, nothing is missing, and edits pass both ways.
want_goes_on() {
    wait_for 20 ready "$1" || { fail "$4: not ready again"; ctl a status "$1" | sed 's/^/    /'; tail -n 5 "$W/d/a/log" | sed 's/^/    /'; }
    want_untouched "$3" "$4"
    echo "$4" >"$2/from-a"
    echo "$4" >"$3/from-b"
    want_sync "$2" "$3" 20 "($4)"
    [ "$(cat "$3/from-a")" = "$4" ] && [ "$(cat "$2/from-b")" = "$4" ] || fail "$4: edits do not pass"
    [ "$(find "$3" -path "$3/.syncd" -prune -o -type f -print | wc -l)" -ge 300 ] || fail "$4: files are missing"
}

# Folder t has a file system of its own for a root, folder u an ordinary directory; the peers have daemons of their own.
M=$W/mnt-t T=$W/t U=$W/u V=$W/v
IMAGE=$W/image
mount_root() { mount -o loop "$IMAGE" "$M" || die "cannot mount"; }
mkdir -p "$M" "$T" "$U" "$V"
truncate -s 64M "$IMAGE"
mkfs.ext4 -q -F "$IMAGE"
mount_root
rmdir "$M/lost+found"
for d in "$M" "$U"; do
    mkdir "$d/dir"
    for i in $(seq 300); do echo "content $i" >"$d/file$i"; done
    cp "$d"/file1* "$d/dir/"
done
daemon b "[folder t]
path = $T
settle = 50ms
[folder u]
path = $V
settle = 50ms"
daemon a "[folder t]
path = $M
settle = 50ms
[folder u]
path = $U
settle = 50ms
[peer b]
folder = t
address = $T
[peer c]
folder = u
address = $V"
want_sync "$M" "$T" 30 "(first copy)"
want_sync "$U" "$V" 30 "(first copy)"

# --- unmounted ---
remember "$T"
stop "$PID_a"
umount "$M" || die "cannot unmount"
daemon_again a
want_halted t "unmounted while stopped" "$M" "not mounted" "nothing is deleted" "bring it back" "remove $W/d/a/state/t.known"
want_untouched "$T" "unmounted while stopped"
[ -z "$(ls -A "$M")" ] || fail "something was made in the empty mount point: $(ls -A "$M")"
ready u || fail "another folder is halted too"
mount_root
want_goes_on t "$M" "$T" "mounted again while the daemon runs"

remember "$T"
umount -l "$M"
want_halted t "unmounted while running" "$M" "unmounted" "nothing is deleted" "bring it back"
echo stray >"$M/stray"
want_untouched "$T" "unmounted while running"
rm "$M/stray"
mount_root
want_goes_on t "$M" "$T" "mounted again after a lazy unmount"

# What comes back is another device with that file system, as after unplugging a disk.
remember "$T"
sync -f "$M"
umount -l "$M"
want_halted t "unmounted again" "bring it back"
cp "$IMAGE" "$IMAGE.moved" && IMAGE=$IMAGE.moved
mount_root
want_goes_on t "$M" "$T" "mounted again from another device"

# --- replaced by another directory ---
remember "$V"
mv "$U" "$U.away"
mkdir "$U"
echo other >"$U/other"
want_halted u "replaced while running" "$U" "replaced" "nothing is deleted" "bring it back"
sleep 2.5 # long enough to be opened anew
want_halted u "replaced while running, later" "nothing is deleted" "bring it back" "remove $W/d/a/state/u.known"
want_untouched "$V" "replaced while running"
rm -r "$U"
want_halted u "gone" "is not there" "nothing is deleted" "bring it back"
mv "$U.away" "$U"
want_goes_on u "$U" "$V" "moved back while the daemon runs"

remember "$V"
stop "$PID_a"
mv "$U" "$U.away"
mkdir "$U"
echo other >"$U/other"
daemon_again a
want_halted u "replaced while stopped" "$U" "nothing is deleted" "bring it back" "remove $W/d/a/state/u.known"
want_untouched "$V" "replaced while stopped"
[ "$(ls -A "$U")" = other ] || fail "something was made in the other directory: $(ls -A "$U")"
rm -r "$U"
mv "$U.away" "$U"
want_goes_on u "$U" "$V" "moved back after a start without it"

# Begun anew with what is there now, as status says how: that joins, and deletes nothing.
mv "$U" "$U.away"
mkdir "$U"
echo other >"$U/other"
want_halted u "replaced again" "remove $W/d/a/state/u.known"
rm "$W/d/a/state/u.known"
wait_for 20 ready u || fail "not begun anew"
want_sync "$U" "$V" 30 "(begun anew)"
[ -e "$V/other" ] && [ -e "$V/file300" ] || fail "beginning anew lost something"

# --- a far root that no daemon has: where a replica was met before, none is made ---
P=$W/p Q=$W/mnt-q
FAR=$W/image-far
mkdir "$P" "$Q"
for i in $(seq 50); do echo "$i" >"$P/f$i"; done
truncate -s 16M "$FAR"
mkfs.ext4 -q -F "$FAR"
mount_far() { mount -o loop "$FAR" "$Q" || die "cannot mount"; }
mount_far
rec() { timeout 60 "$BIN/syncctl" reconcile -q "$@" 2>"$W/said"; }
# want_not_made WHAT SPELLING: exit 4, says how to go on, and the mount point stays empty.
want_not_made() {
    rec "$P" "$2"
    code=$?
    [ "$code" -eq 4 ] || fail "$1: exit code $code"
    [ "$(wc -l <"$W/said")" -eq 1 ] || fail "$1: not one line: $(cat "$W/said")"
    for word in "mounted?" "it was there before" "syncctl reconcile --new '$P' '$Q'"; do
        grep -qF -- "$word" "$W/said" || fail "$1: it does not say \"$word\": $(cat "$W/said")"
    done
    [ -z "$(ls -A "$Q")" ] || fail "$1: something was made in the mount point: $(ls -A "$Q")"
}
rec "$P" "$Q" || fail "first copy to a far root: $(cat "$W/said")"
umount "$Q"
want_not_made "far root unmounted" "$Q"
want_not_made "far root unmounted, spelled otherwise" "$Q//"
cd "$W" || die "cannot change to $W"
want_not_made "far root unmounted, named from its parent" mnt-q
cd - >/dev/null || die "cannot change back"
mv "$Q" "$Q.away"
rec "$P" "$Q"
[ $? -eq 4 ] && [ ! -e "$Q" ] || fail "a far root that is gone was made: $(cat "$W/said")"
mv "$Q.away" "$Q"
mount_far
echo more >"$P/more"
rec "$P" "$Q" || fail "far root mounted again: $(cat "$W/said")"
[ "$(cat "$Q/more")" = more ] || fail "far root mounted again: not in sync"

# A daemon's peer likewise: told, and it goes on when the disk is back.
umount "$Q"
mkdir -p "$W/d/p"
daemon p "[folder p]
path = $P
settle = 50ms
[peer q]
folder = p
address = $Q"
wait_for 20 says p p "syncctl reconcile --new" || { fail "far root of a daemon's peer: not told"; sed 's/^/    /' "$W/status"; }
[ -z "$(ls -A "$Q")" ] || fail "far root of a daemon's peer: something was made in the mount point: $(ls -A "$Q")"
mount_far
echo again >"$P/again"
wait_for 30 test -e "$Q/again" || fail "far root of a daemon's peer: does not go on"
stop "$PID_p"

# Emptied on purpose: filled anew when asked, by the daemon too, and never again without.
umount "$Q"
rm -f "$FAR"
want_not_made "emptied on purpose, not yet asked" "$Q"
rec --new "$P" "$Q" || fail "filled anew: $(cat "$W/said")"
[ -e "$Q/f50" ] && [ -e "$P/f50" ] || fail "filled anew: not in sync"
rec "$P" "$Q" || fail "after it was filled anew: $(cat "$W/said")"
rm -r "$Q" && mkdir "$Q"
daemon_again p
wait_for 20 says p p "syncctl reconcile --new" || { fail "emptied again: not told"; sed 's/^/    /' "$W/status"; }
timeout 60 "$BIN/syncctl" reconcile -q --new "$P" "$Q" || fail "filled anew by the daemon"
[ -e "$Q/f50" ] || fail "filled anew by the daemon: not in sync"
echo last >"$P/last"
wait_for 30 test -e "$Q/last" || fail "filled anew by the daemon: its peer does not go on"

# --- unreadable in a part: a daemon that is not root ---
N=$W/n O=$W/o
chmod 0711 "$W"
mkdir -p "$N/closed/deep" "$N/open" "$O" "$W/d/n"
for i in $(seq 40); do echo "$i" | tee "$N/closed/f$i" "$N/closed/deep/f$i" >"$N/open/f$i"; done
chown -R nobody "$N" "$O" "$W/d/n"
printf '[folder n]\npath = %s\nsettle = 50ms\n[peer o]\nfolder = n\naddress = %s\n' "$N" "$O" >"$W/d/n/conf"
start_n() {
    setpriv --reuid nobody --clear-groups "$BIN/syncd" -c "$W/d/n/conf" -s "$W/d/n/sock" -S "$W/d/n/state" >>"$W/d/n/log" 2>&1 &
    PID_n=$!
    PIDS+=("$PID_n")
    wait_for 10 test -S "$W/d/n/sock" || die "the daemon of nobody does not start: $(tail -n 5 "$W/d/n/log")"
}
start_n
want_sync "$N" "$O" 30 "(first copy of nobody's)"
# unreadable WHAT COMMAND: told, nothing deleted, the rest goes on; and all goes on afterwards.
unreadable() {
    remember "$O"
    eval "$2"
    wait_for 15 says n n "cannot be read" || { fail "$1: not told"; sed 's/^/    /' "$W/status"; }
    for word in closed "make it readable"; do says n n "$word" || { fail "$1: status does not say \"$word\""; sed 's/^/    /' "$W/status"; }; done
    want_untouched "$O" "$1"
    setpriv --reuid nobody --clear-groups sh -c "echo '$1' >'$N/open/goes-on'"
    wait_for 10 grep -q "$1" "$O/open/goes-on" || fail "$1: the rest does not go on"
    chmod 0755 "$N/closed" "$N/closed/deep"
    want_sync "$N" "$O" 20 "($1: readable again)"
    gone() { ! says n n "cannot be read"; }
    wait_for 10 gone || { fail "$1: still told when readable again"; sed 's/^/    /' "$W/status"; }
    [ "$(find "$O" -path "$O/.syncd" -prune -o -type f -print | wc -l)" -eq 121 ] || fail "$1: files are missing"
}
unreadable "closed while running" 'chmod 000 "$N/closed"; ctl n scan'
unreadable "closed below while running" 'chmod 000 "$N/closed/deep"; ctl n scan'
unreadable "closed while stopped" 'stop "$PID_n"; chmod 000 "$N/closed"; start_n'

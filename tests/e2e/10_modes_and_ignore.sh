#!/bin/bash
# push and pull, .syncignore, conflict policies, the folder's hash, attributes.
. "$(dirname "$0")/lib.sh"

A=$W/a B=$W/b
rec() { timeout 60 "$BIN/syncctl" reconcile -q "$@"; }
fresh() { rm -rf "$A" "$B"; mkdir -p "$A" "$B"; }

# --- push: B never changes A ---
fresh
echo 1 >"$A/one"
echo local >"$B/local"
want "push" rec --mode push "$A" "$B"
[ "$(cat "$B/one")" = 1 ] || fail "push did not send"
[ ! -e "$A/local" ] || fail "push took something"
echo 2 >"$A/one"
echo changed-at-taker >"$B/one"
want "push over a changed file" rec --mode push "$A" "$B"
[ "$(cat "$B/one")" = 2 ] || fail "the taker did not lose the conflict: $(cat "$B/one")"
grep -rqx changed-at-taker "$B" --exclude-dir=.syncd || fail "the taker's version is gone"
[ "$(cat "$A/one")" = 2 ] || fail "the sender took something"
rm "$A/one"
want "push of a deletion" rec --mode push "$A" "$B"
[ ! -e "$B/one" ] || fail "a deletion was not pushed"
rm "$B/local"
want "push with a file missing at the taker" rec --mode push "$A" "$B"

# --- pull ---
fresh
echo far >"$B/far"
echo near >"$A/near"
want "pull" rec --mode pull "$A" "$B"
[ "$(cat "$A/far")" = far ] || fail "pull did not take"
[ ! -e "$B/near" ] || fail "pull sent something"
echo same >"$A/same"; echo same >"$B/same"; echo mine >"$A/both"; echo theirs >"$B/both"
want "pull of what is here already, and of another version" rec --mode pull "$A" "$B"
timeout 60 "$BIN/syncctl" reconcile -q --json --mode pull "$A" "$B" >"$W/json"
python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); sys.exit(d["applied"] != 0 or d["rounds"] > 2)' "$W/json" ||
    fail "a pull with nothing to take writes: $(grep -E 'applied|rounds' "$W/json" | tr -d '\n')"

# --- local differences, and revert ---
number() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(d[sys.argv[2]])' "$W/json" "$1"; }
pull() { timeout 60 "$BIN/syncctl" reconcile -q --json --mode pull "$@" "$A" "$B" >"$W/json"; }
fresh
mkdir -p "$B/dir/sub"; cp /etc/passwd "$B/dir/sub/big"
for name in edited deleted renamed chmodded touched; do echo "$name" >"$B/$name"; done
ln -s target "$B/link"
change_here() {
    echo mine >"$A/edited"
    rm "$A/deleted" "$A/link"
    mv "$A/renamed" "$A/another name"
    mv "$A/dir" "$A/moved"
    chmod 0600 "$A/chmodded"
    touch -d 2001-01-01 "$A/touched"
    mkdir -p "$A/new/in"
    echo created >"$A/new/in/file"
}
want "first pull" pull
[ "$(number local_differences)" = 0 ] && [ "$(number in_sync)" = True ] || fail "a first pull leaves differences"
change_here
want "pull with local changes" pull
[ "$(number local_differences)" = 16 ] || fail "$(number local_differences) local differences are told, not 16"
[ "$(cat "$A/edited")" = mine ] && [ -e "$A/moved" ] || fail "pull without revert undid something"
want "pull that undoes what was recorded" pull --revert
want_equal "$B" "$A" "after reverting what was recorded"
[ "$(number local_differences)" = 0 ] && [ "$(number in_sync)" = True ] || fail "differences are left after reverting"
fresh
mkdir -p "$B/dir/sub"; cp /etc/passwd "$B/dir/sub/big"
for name in edited deleted renamed chmodded touched; do echo "$name" >"$B/$name"; done
ln -s target "$B/link"
want "first pull with revert" pull --revert
change_here
want "revert" pull --revert
want_equal "$B" "$A" "after reverting"
[ "$(root_of "$A")" = "$(root_of "$B")" ] || fail "something was recorded of what was reverted"
"$BIN/syncctl" trash list --json "$A" | grep -o '"path": "[^"]*"' | sort | tr '\n' ' ' >"$W/trash"
[ "$(cat "$W/trash")" = '"path": "edited" "path": "new/in/file" ' ] || fail "in trash: $(cat "$W/trash")"
want "restore" "$BIN/syncctl" trash restore "$A" new/in/file
[ "$(cat "$A/new/in/file")" = created ] || fail "what was reverted can't be restored"
want_code 4 "pull from what is not there" rec --mode pull "$A" "$W/nothing"
[ ! -e "$W/nothing" ] || fail "a directory was made to pull from it"
want_code 2 "revert of a side that sends" "$BIN/syncctl" reconcile --revert "$A" "$B"
# A seeded replica: what is the same on both sides stays, nothing is fetched.
fresh
cp -a /usr/share/doc/b* "$B/"; cp -a "$B/." "$A/"
echo only here >"$A/own"
want "first meeting with revert" pull --revert
want_equal "$B" "$A" "a first meeting with revert"
[ "$(number bytes_in)" -lt 100000 ] || fail "what was here already was fetched"
[ -n "$(find "$A/.syncd/trash" -name own)" ] || fail "what was only here is not in trash"
# By a daemon: at once, or, where no peer is there, as soon as one is.
mkdir -p "$W/conf"
reverting() { printf '[folder x]\npath = %s\ninterval = 300 ms\n[peer b]\nfolder = x\naddress = %s\nmode = pull\nrevert = yes\nsyncctl_path = %s\n' "$A" "$B" "$BIN/syncctl"; }
fresh
echo one >"$B/one"; echo two >"$B/two"
daemon rev "$(reverting)"
wait_for 20 test -e "$A/two" || die "the daemon did not pull"
echo mine >"$A/one"; rm "$A/two"; echo three >"$A/three"
wait_for 20 equal_trees "$B" "$A" || fail "the daemon does not revert: $(differences "$B" "$A")"
wait_for 20 ctl rev flush x >/dev/null || fail "not in sync: $(ctl rev status)" # before the first round is over, what is done here is an event
mv "$B" "$B.away"
stop "$DAEMON_PID"
daemon_again rev
echo offline >"$A/one"
local_differences() { [ "$(ctl rev status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["folders"][0]["local_differences"])')" = "$1" ]; }
wait_for 20 local_differences 1 || fail "a local difference is not told: $(ctl rev status)"
[ "$(cat "$A/one")" = offline ] || fail "a change is undone though there is nobody to fetch from"
rm -rf "$B"; mv "$B.away" "$B"
wait_for 30 equal_trees "$B" "$A" || fail "not reverted once the peer is back: $(differences "$B" "$A")"
wait_for 20 local_differences 0 || fail "a local difference is told for ever"
grep -rqx offline "$A/.syncd/trash" || fail "what was reverted is not in trash"
stop "$DAEMON_PID"

# --- folders by their names, the daemon by its socket ---
fresh
echo a >"$A/a"
daemon named "$(printf '[folder named]\npath = %s\n[folder gone]\npath = %s\n' "$B" "$W/gone")"
# The lock names the daemon's socket: where that is another one now, -s says it.
socket=$W/d/named/sock
start_sshd
printf '#!/bin/sh\nexec "%s" "$@" --socket "%s"\n' "$BIN/syncctl" "$socket" >"$W/far"
chmod +x "$W/far"
far() { HOME=$W/home timeout 60 "$BIN/syncctl" reconcile -q -p "$SSH_PORT" -i "$W/ssh/key" --known-hosts "$W/ssh/known_hosts" --syncctl-path "$W/far" "$@"; }
want "a far folder by its name" far "$A" root@127.0.0.1:named
[ "$(cat "$B/a")" = a ] || fail "host:NAME is not the configured folder"
want_code 4 "a far folder that is configured and not there" far "$A" root@127.0.0.1:gone
[ ! -e "$W/gone" ] && [ ! -e /root/gone ] || fail "a configured folder was made by whom it was served to"
mkdir "$W/cwd" "$W/cwd/c"
echo c >"$W/cwd/c/c"
(cd "$W/cwd" && want "near folders by their names" timeout 60 "$BIN/syncctl" reconcile -q -s "$socket" named c; exit $FAILED) || FAILED=1
[ "$(cat "$B/c" "$W/cwd/c/a" | tr '\n' ' ')" = "c a " ] || fail "a near NAME is not the configured folder"
mkdir "$W/cwd/named" # a directory of that name is meant itself
(cd "$W/cwd" && want "a directory called as a folder" timeout 60 "$BIN/syncctl" reconcile -q -s "$socket" named "$A"; exit $FAILED) || FAILED=1
[ -e "$W/cwd/named/a" ] || fail "a folder's name hides a directory"
mv "$socket" "$socket.moved"
want_code 7 "a daemon whose socket was moved" timeout 60 "$BIN/syncctl" reconcile -q "$B" "$A"
want "a daemon by its socket" timeout 60 "$BIN/syncctl" reconcile -q --socket "$socket.moved" "$B" "$A"
stop "$DAEMON_PID"

# --- ignore ---
fresh
printf '*.o\n/build/\n!keep.o\n' >"$A/.syncignore"
mkdir "$A/build" "$A/src"
echo obj >"$A/src/x.o"; echo keep >"$A/src/keep.o"; echo c >"$A/src/x.c"; echo b >"$A/build/out"
want "reconcile with rules" rec "$A" "$B"
[ -e "$B/src/x.c" ] && [ -e "$B/src/keep.o" ] || fail "something that is not ignored did not travel"
[ ! -e "$B/src/x.o" ] && [ ! -e "$B/build" ] || fail "something ignored travelled"
printf '*.o\n*.c\n' >"$A/.syncignore" # what was synced is ignored now: untracked, not deleted
want "reconcile with a newly ignored path" rec "$A" "$B"
[ -e "$A/src/x.c" ] && [ -e "$B/src/x.c" ] || fail "a newly ignored path was deleted"
rm -f "$A/src/x.c"
want "reconcile after deleting an ignored file" rec "$A" "$B"
[ -e "$B/src/x.c" ] || fail "deleting an ignored file deleted it at the peer"
echo mine >"$A/src/x.c"
: >"$A/.syncignore" # not ignored any more: both contents stay
rec "$A" "$B" >/dev/null 2>&1
rec "$A" "$B" >/dev/null 2>&1
want "reconcile after taking the rules back" rec "$A" "$B"
want_equal "$A" "$B" "after the rules were taken back"
grep -rqx mine "$A" --exclude-dir=.syncd || fail "what stood at an ignored path is gone"
grep -rqx c "$A" --exclude-dir=.syncd || fail "the version of an ignored path is gone"

# --- hash ---
for hash in blake2b xxh3; do
    fresh
    cp -a /usr/share/doc/b* "$A/"
    want "reconcile with $hash" rec --hash "$hash" "$A" "$B"
    want_equal "$A" "$B" "$hash"
    "$BIN/syncctl" status --json "$B" | grep -q "\"hash\": \"$hash\"" || fail "the joiner did not adopt $hash"
done

# --- attributes ---
fresh
echo x >"$A/f"; echo y >"$A/g"; mkdir "$A/d"; ln -s t "$A/l"
want "first" rec "$A" "$B"
chmod 0600 "$A/f"; chmod 0711 "$A/d"; chown 1234:2345 "$B/g"; chown -h 7:8 "$B/l"
touch -d '2001-02-03 04:05:06.987654321' "$A/f"
want "attributes from both sides" rec "$A" "$B"
want_equal "$A" "$B" "attributes"
[ "$(stat -c '%a %y' "$B/f" | cut -c1-33)" = "600 2001-02-03 04:05:06.987654321" ] || fail "attributes are $(stat -c '%a %y' "$B/f")"
[ "$(stat -c '%u %g' "$A/g" "$A/l" | tr '\n' ' ')" = "1234 2345 7 8 " ] || fail "owners are $(stat -c '%u %g' "$A/g" "$A/l")"
echo more >>"$A/f"; chmod 0640 "$B/f" # an edit here, a chmod there: no conflict
want "an edit and a chmod" rec "$A" "$B"
want_equal "$A" "$B" "an edit and a chmod"
[ -z "$(conflict_copies "$A" "$B")" ] || fail "a chmod and an edit made a conflict copy"
[ "$(stat -c %a "$A/f")" = 640 ] && grep -q more "$B/f" || fail "one of an edit and a chmod is lost"

# --- what is left out is told ---
mkfifo "$A/fifo"
timeout 60 "$BIN/syncctl" reconcile "$A" "$B" >"$W/out" 2>"$W/err"
[ $? -eq 9 ] || fail "a fifo is left out silently"
grep -q fifo "$W/err" || fail "the fifo is not named: $(cat "$W/err")"

# --- what could not be put in place is told, also to who wants to hear only what went wrong ---
fresh
mkdir "$A/d"; echo x >"$A/d/f"; echo '*.o' >"$A/.syncignore"
want "first" rec "$A" "$B"
echo object >"$A/d/x.o"
rm -r "$B/d"; echo file >"$B/d" # it cannot be there: something that is ignored is inside
want_code 9 "a file where something is ignored" rec "$A" "$B"
grep -q "'d': .*ignored" "$W/err" || fail "what could not be put in place is not named: $(cat "$W/err")"
"$BIN/syncctl" reconcile --json "$A" "$B" >"$W/json" 2>/dev/null
grep -q '"path": "d"' "$W/json" || fail "what could not be put in place is not in the JSON: $(cat "$W/json")"

# --- what is stored through a mapping shows in no time, until the page was written back, which a tmpfs never does ---
fresh
mkdir "$W/mnt.map"
mount -t tmpfs -o size=64m tmpfs "$W/mnt.map" || die "cannot mount"
daemon map "[folder map]
path = $W/mnt.map
[peer b]
folder = map
address = $B"
python3 - "$W/mnt.map/m" <<'EOF' &
import mmap, os, sys, time
with open(sys.argv[1], "w+b") as f:
    f.write(bytes(4096))
    f.flush()
    m = mmap.mmap(f.fileno(), 4096)
m[0:5] = b"first"
os.utime(sys.argv[1], (1600000000, 1600000000))
time.sleep(4)  # it is a file that nobody was at for some time
open(sys.argv[1] + ".mapped", "w").close()
until = time.monotonic() + 60
while not os.path.exists(sys.argv[1] + ".scanned") and time.monotonic() < until:
    time.sleep(0.05)
before = os.stat(sys.argv[1])
m[0:5] = b"later"
m.close()
after = os.stat(sys.argv[1])
sys.exit((before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns))
EOF
MAPPER=$!
wait_for 30 test -e "$W/mnt.map/m.mapped" || die "the mapping"
want "a scan that records it" ctl map scan map
want "a flush" ctl map flush map
sleep 1
grep -q first "$B/m" || fail "what was stored first is not at the peer"
touch "$W/mnt.map/m.scanned"
wait "$MAPPER" || fail "a store through a mapping is seen in the file's times: nothing was tried"
wait_for 20 grep -q later "$B/m" || fail "what was stored through a mapping is not seen when it is closed"

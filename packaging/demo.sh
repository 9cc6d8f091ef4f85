#!/bin/sh
# syncd at work: demo.sh DIRECTORY-OF-PROGRAMS. Two daemons keep two folders in a temporary place in sync; each step is done
# with ordinary commands and checked with diff(1). Leaves nothing behind; fails if something that it shows did not happen.
set -u
export LC_ALL=C
bin=$(cd "${1:-build/bin}" && pwd) || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/syncd-demo.XXXXXX") || exit 1
A=$work/A B=$work/B
pid_A= pid_B=

leave() {
	code=$?
	trap '' INT TERM
	for pid in $pid_A $pid_B; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	chmod -R u+rwX "$work" 2>/dev/null
	rm -rf "$work"
	exit "$code"
}
trap leave EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*" | fold -s -w 76 | sed 's/^/  /; s/ *$//'; }
# What a command prints, indented, with short paths.
show() { "$@" 2>&1 | sed "s|$work/||g; s|^|    |"; }
die() {
	printf '\ndemo.sh: this did not happen: %s\n' "$*" >&2
	for name in A B; do
		show syncctl "$name" status
		tail -n 5 "$work/log-$name" 2>/dev/null | sed "s|^|    $name: |"
	done >&2
	exit 1
}

syncctl() { # syncctl A|B COMMAND…
	name=$1 command=$2
	shift 2
	"$bin/syncctl" "$command" "$@" -s "$work/socket-$name"
}
start() { # start A|B
	"$bin/syncd" -c "$work/conf-$1" -s "$work/socket-$1" -S "$work/state-$1" 2>>"$work/log-$1" &
	eval "pid_$1=$!"
	for _ in $(seq 200); do
		[ -S "$work/socket-$1" ] && return
		sleep 0.05
	done
	die "the daemon of $1 starts"
}
stop() {
	eval "pid=\$pid_$1 pid_$1="
	kill "$pid" && wait "$pid"
}

now() { date +%s%N; }
same() { diff -rq --no-dereference -x .syncd "$A" "$B" >/dev/null 2>&1; }
# until_same WHAT SECONDS COMMAND…: both folders are equal and the command (what must be true then) succeeds.
until_same() {
	what=$1 limit=$2 began=$(now)
	shift 2
	while ! { "$@" && same; }; do
		[ "$(($(now) - began))" -lt "${limit}000000000" ] || die "$what"
		sleep 0.1
	done
	ms=$((($(now) - began) / 1000000))
	say "$what: after $((ms / 1000)).$(printf %03d $((ms % 1000))) s, diff finds A and B equal"
}

# --- two replicas ---

mkdir "$A" "$B"
cat >"$work/conf-A" <<END
[folder demo]
path = $A
settle = 100 ms

[peer B]
folder = demo
address = $B
END
cat >"$work/conf-B" <<END
[folder demo]
path = $B
settle = 100 ms
END
title "Two directories, A and B, and a daemon for each"
say "A's configuration names B as its peer; nothing is configured at B. (Here B is on the same machine, so no SSH is" \
	"in between; otherwise the address would be host:path.)"
sed "s|$work/||; s|^|    |" "$work/conf-A"
start B
start A

tree=
for tree in /usr/share/doc /usr/include /usr/share /usr/lib; do
	[ "$(find "$tree" 2>/dev/null | head -n 2000 | wc -l)" -lt 2000 ] || break
done
title "1. Copy $tree into A"
cp -R -P -p "$tree" "$A/tree" 2>/dev/null
say "$(find "$A/tree" | wc -l) entries, $(du -sh "$A/tree" | cut -f1)"
until_same "it is in B" 60 test -d "$B/tree"

title "2. Edit on both sides at once, rename, delete"
echo 'written in A' >"$A/letter"
mkdir "$B/notes"
echo 'written in B' >"$B/notes/today"
mv "$A/tree" "$A/renamed"
find "$B/notes" "$A/renamed" -type f | sort | sed -n '1001,1040p' >"$work/victims"
deleted=$(wc -l <"$work/victims")
while read -r victim; do rm -f "$victim"; done <"$work/victims"
say "a new file in A, a new directory in B, in A the tree renamed and $deleted of its files deleted"
arrived() { # and what was deleted is gone in both
	[ -f "$B/letter" ] && [ -f "$A/notes/today" ] && [ -d "$B/renamed" ] && [ ! -e "$B/tree" ] || return 1
	while read -r victim; do
		[ ! -e "$victim" ] && [ ! -e "$B/${victim#"$A"/}" ] || return 1
	done <"$work/victims"
}
until_same "all of it is on both sides" 60 arrived

echo 'changed in B' >>"$B/letter"
chmod 600 "$A/letter"
say "the letter gets another line in B and another mode in A, at the same time"
merged() { [ "$(stat -c %a "$A/letter" "$B/letter" | tr '\n' ' ')" = '600 600 ' ] && grep -qx 'changed in B' "$A/letter"; }
until_same "both stand" 30 merged

title "3. A conflict: one file is edited on both sides while B is away"
stop B
echo 'what A thinks' >"$A/opinion.txt"
echo 'what B thinks' >"$B/opinion.txt"
rm "$A/notes/today" && rmdir "$A/notes"
start B
kept() {
	[ "$(cat "$A"/opinion*.txt | sort | tr '\n' '/')" = 'what A thinks/what B thinks/' ] && [ ! -e "$A/notes" ] && [ ! -e "$B/notes" ]
}
until_same "B is back" 60 kept
(cd "$A" && for f in opinion*.txt; do printf '    %-44s %s\n' "$f" "$(cat "$f")"; done)
say "Neither was lost: the copy is named after its content. What A deleted meanwhile is gone in B."
say "syncctl conflicts"
show syncctl A conflicts
syncctl A conflicts | grep -q opinion || die "syncctl conflicts lists the copy"

title "4. Undelete: what syncd replaced or deleted lies in the trash"
say "syncctl trash list demo | head -n 4"
show syncctl B trash list demo | head -n 4
say "syncctl trash restore demo notes/today"
show syncctl B trash restore demo notes/today
restored() { [ "$(cat "$A/notes/today" 2>/dev/null)" = 'written in B' ]; }
until_same "notes/today is back" 30 restored

title "5. syncctl status, of A and of B"
synced() { syncctl A status >/dev/null && syncctl B status >/dev/null; }
until_same "nothing is left to do" 30 synced
show syncctl A status
show syncctl B status
root() { syncctl "$1" status | sed -n 's/.*root \([0-9a-f]*\).*/\1/p'; }
[ -n "$(root A)" ] && [ "$(root A)" = "$(root B)" ] || die "the roots are equal"
printf '\n%sThe roots of the two Merkle trees are equal, so every entry is.%s\n' "$bold" "$plain"

#!/bin/sh
# All tests, one step after the other, each with its time: check.sh [full|e2e]. Called by `make check`, `make check-full` and
# `make e2e`. A step that fails is shown and the next one runs. At the end each failed step is named once more, with what it
# said of it (of a long log, often nothing but the end is kept); the last line counts, and the exit status is 1 if one failed.
#
# Counted is each unit test program, each end-to-end script, and each other step. MAKE and BUILD come from the Makefile.
set -u
cd "$(dirname "$0")/.." || exit 1
MAKE=${MAKE:-make}
BUILD=${BUILD:-build}
what=${1:-check}
passed=0 failed=0 skipped=0
wrong= # the logs of what failed
export PYTHONUNBUFFERED=1

mkdir -p "$BUILD/check" || exit 1
# make is given BUILD as it is: dependencies of objects are found by that name.
logs=$BUILD/check
bin=$(cd "$BUILD" && pwd)/bin
scratch= own=
trap 'rm -rf ${scratch:+"$scratch"} ${own:+"$own"}' EXIT
trap 'exit 130' INT TERM

# As many jobs as processors, but where the caller has said how many.
case " ${MAKEFLAGS:-}" in
*-j* | *jobserver*) jobs= ;;
*) jobs=-j$(nproc) ;;
esac
build() { $MAKE --no-print-directory $jobs BUILD="$BUILD" "$@"; }
run() { $MAKE --no-print-directory BUILD="$BUILD" "$@"; }

# step NAME COMMAND…: run it, its output in a file; say how long it took, and what it said if it failed. STATUS: its exit status.
step() {
	name=$1
	log=$(log_of "$1")
	shift
	printf '%-44s' "$name"
	timed "$log" "$@"
	tell
}

log_of() { printf '%s/%s.log' "$logs" "$(printf %s "$1" | tr -c 'A-Za-z0-9_\n' -)"; }

# timed LOG COMMAND…: its exit status and how long it took are in LOG.end then.
timed() {
	began=$(date +%s)
	into=$1
	shift
	"$@" >"$into" 2>&1 </dev/null
	echo $? $(($(date +%s) - began)) >"$into.end"
}

tell() {
	read -r STATUS took <"$log.end"
	if [ "$STATUS" -eq 0 ]; then
		printf '%5d s  ok\n' "$took"
	else
		printf '%5d s  FAILED (%s)\n' "$took" "$log"
		wrong="$wrong $log"
		tail -n 60 "$log" | sed 's/^/    | /'
	fi
}

count() { if [ "$STATUS" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi; }

# A step that counts as one.
one() {
	step "$@"
	count
}

# One that mounts file systems.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		one "$@"
	else
		skipped=$((skipped + 1))
		printf '%-44s         needs root\n' "$1"
	fi
}

# A step of `make unit`: each program counts.
units() {
	step "$@"
	good=$(grep -c '^[a-z0-9_]*/test_[a-z0-9_]*: \[  PASSED  \]' "$log")
	bad=$(grep -c '^FAILED: ' "$log")
	# nothing was run, or it was not the programs that failed
	[ "$((good + bad))" -gt 0 ] && { [ "$STATUS" -eq 0 ] || [ "$bad" -gt 0 ]; } || bad=$((bad + 1))
	passed=$((passed + good)) failed=$((failed + bad))
	printf '    %d programs passed, %d failed\n' "$good" "$bad"
}

# A script in a place of its own, which other users can pass through; in which it must leave nothing.
e2e_script() {
	own=$(mktemp -d "${TMPDIR:-/tmp}/e2e.XXXXXX") && chmod 0711 "$own" || return 1
	env BIN="$bin" TMPDIR="$own" bash "$1"
	code=$?
	left=$(ls -A "$own")
	rm -rf "$own"
	own=
	[ -z "$left" ] || { echo "it leaves behind: $left"; return 1; }
	return $code
}

# Scripts that wait for most of their time run side by side, in three lanes; those that take longest begin first. What measures
# times, or mounts and unmounts under a running daemon, has the machine for itself.
alone="06 08 12 15"
long="02 05 03 09 01"

is_one_of() { case " $2 " in *" $1 "*) true ;; *) false ;; esac; }

# lane NAME…: those that no other lane has taken, one after the other; how each went is in its log's .end.
lane() {
	(
		trap 'rm -rf ${own:+"$own"}' EXIT
		trap 'exit 130' INT TERM
		for name; do
			mkdir "$(log_of "$name").taken" 2>/dev/null || continue
			timed "$(log_of "$name")" e2e_script "tests/e2e/$name.sh"
		done
	) &
}

e2e() {
	one "build" build all
	first= others= last=
	for number in $long; do
		first="$first $(basename "$(echo tests/e2e/"$number"_*.sh)" .sh)"
	done
	for script in tests/e2e/[0-9]*.sh; do
		name=$(basename "$script" .sh)
		rm -rf "$(log_of "$name").end" "$(log_of "$name").taken"
		if is_one_of "${name%%_*}" "$alone"; then
			last="$last $name"
		elif ! is_one_of "${name%%_*}" "$long"; then
			others="$others $name"
		fi
	done
	if [ "$(id -u)" -ne 0 ]; then
		set -- $first $others $last
		skipped=$((skipped + $#))
		echo "the end-to-end tests start an SSH server: they need root"
		return
	fi
	lane $first $others
	lane $first $others
	lane $first $others
	wait
	for name in $first $others; do
		log=$(log_of "$name")
		printf '%-44s' "$name"
		[ -e "$log.end" ] || echo "1 0" >"$log.end" # it was ended
		tell
		count
	done
	for name in $last; do
		one "$name" e2e_script "tests/e2e/$name.sh"
	done
}

case $what in
e2e) e2e ;;
check | full)
	points=300 minutes=0.4 engine=20000
	some=$((2 * $(nproc))) many=$((8 * $(nproc))) # of what waits for disks, and for programs that try again
	cases=100000 rules=1000000 sessions=${SESSION_RUNS:-100} seed=1 names=2 every=3
	if [ "$what" = full ]; then
		points=3000 minutes=60
		cases=1000000 rules=10000000 sessions=3000 engine=200000 seed= names=3 every=1
		export KILLS="${KILLS:-1000}"
		if [ -z "${TREE:-}" ]; then
			one "unpack the kernel's sources" kernel_tree
			[ "$STATUS" -ne 0 ] || export TREE="$scratch/tree"
		fi
	fi
	one "layers" sh tests/layers.sh
	one "build" build all unit-bins
	one "build with clang" build BUILD="$BUILD/clang" CC=clang all unit-bins
	units "unit tests" run unit
	one "build with ASan and UBSan" build asan-bins
	units "unit tests under ASan and UBSan" run asan
	one "fuzz corpora" build fuzz-replay
	one "decisions against the model" run differential CASES=$cases
	# A fixed seed, so that the slice is the same in every run; a full check draws one.
	one "histories under the rules" run sim-rules RUNS=$rules SEED=$seed JOBS="$(nproc)"
	one "pairs of small trees under the rules" run sim-trees NAMES=$names EVERY=$every SEED=$seed JOBS="$(nproc)"
	one "deliberate defects of the rules" run defects DEFECTS=fast
	one "histories of real sessions" run sim-sessions RUNS=$sessions SEED=$seed
	one "histories of whole replicas" run sim RUNS=$engine SEED=$seed
	as_root "kills and power losses" run crash POINTS=$points SEED=$seed JOBS=$some
	as_root "three machines, their users and a nemesis" run soak MINUTES=$minutes EPOCH=25 SEED=$seed
	as_root "each call and allocation fails once" run faults SEED=$seed JOBS=$many AGAIN=3
	one "manual pages" run check-man
	one "documents" run check-docs
	e2e
	;;
*)
	echo "usage: check.sh [full|e2e]" >&2
	exit 2
	;;
esac

for log in $wrong; do
	echo "FAILED: $(basename "$log" .log)"
	{ grep -E -m 6 'FAILED|WRONG|went wrong|rror' "$log"; tail -n 3 "$log"; } | cut -c 1-300 | sed 's/^/    | /'
done
also=
[ "$skipped" -eq 0 ] || also=", $skipped skipped"
echo "$passed passed, $failed failed$also"
[ "$failed" -eq 0 ]

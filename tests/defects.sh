#!/bin/bash
# Are the deliberate defects (base/defect.h, tests/defects.list) found? defects.sh [fast] [NAME]…
#
# Each is built into the programs that are asked for it, and they run until one finds it, at most BUDGET seconds each; then a table
# is printed: the defect, who found it, after how many histories. Exit status 1 if one was not found. fast: those alone that the
# rules' campaigns are asked for. First of all, programs and archives of the product must have none.
#
# MAKE and BUILD come from the Makefile, and all that is copied from there is up to date. BUDGET: 120 s, and with `fast` 20 s.
set -u
cd "$(dirname "$0")/.." || exit 1
MAKE=${MAKE:-make}
BUILD=${BUILD:-build}
CFLAGS=${CFLAGS:--O2 -g}
list=tests/defects.list
fast=
if [ "${1:-}" = fast ]; then
	fast=1
	shift
fi
BUDGET=${BUDGET:-$([ -n "$fast" ] && echo 20 || echo 120)}
SIM=${SIM:-all} # features of the engine, see tests/sim/engine.h
mark=$(sed -n 's/^#define DEFECT_MARK "\(.*\)"/\1/p' base/defect.h)
variant=$(mktemp -d "$BUILD/defect.XXXXXX") || exit 1
trap 'rm -rf "$variant"' EXIT
trap 'exit 130' INT TERM

fail() {
	echo "$*" >&2
	exit 1
}

marked() { grep -q -F -e "$mark" "$@"; }

# All objects of the build, but that of the source with the defect. A program NAME in it: build_variant DEFECT SOURCE TARGET
build_variant() {
	$MAKE -s --no-print-directory BUILD="$variant" CFLAGS="$CFLAGS -DSYNCD_DEFECT=DEFECT_$1" "$variant/$3" >"$variant/log" 2>&1 ||
		fail "$1: $(cat "$variant/log")"
	marked "$variant/$2.o" || fail "$1: $2 was not built with it"
}

copy_build() {
	rm -rf "${variant:?}"/*
	for part in base merkle tombstones transfer syncd tests real; do
		[ ! -d "$BUILD/$part" ] || cp -al "$BUILD/$part" "$variant/" || exit 1
	done
	cp -p "$BUILD"/lib*.a "$variant/" || exit 1
	rm -f "$variant/$1".[do] "$variant/real/$1".[do] "$variant/lib${1%%/*}.a"
}

# One campaign: 0 not found, else it was; AFTER says after how much.
ask() {
	program=$1
	shift
	{ timeout "$BUDGET" "$variant/$program" "$@" >"$variant/out" 2>&1; } 2>/dev/null # the shell tells of a core
	code=$?
	AFTER=
	[ "$code" -ne 0 ] && [ "$code" -ne 124 ]
}

after_total() { AFTER=$(sed -n "s/^\([0-9]*\) $1 .*/\1/p" "$variant/out" | tail -n 1); }

# The number of the seed in what it said, from 1; it began with seed 1.
after_seed() { AFTER=$(sed -n 's/.*seed \([0-9]*\).*/\1/p' "$variant/out" | head -n 1); }

features() { tr + , <<<"${1#*=}"; }

# A seed that goes wrong without the defect, too, says nothing about it.
ask_sim() {
	local SIM=$1 from=1 end=$((SECONDS + BUDGET))
	while [ "$SECONDS" -lt "$end" ]; do
		ask sim 1000000 "$from" "$SIM" # may run out of time while it makes what it found shorter
		after_seed
		[ -n "$AFTER" ] || return 1
		timeout "$BUDGET" "$BUILD/sim" 1 "$AFTER" "$SIM" >/dev/null 2>&1 && return 0
		from=$((AFTER + 1))
	done
	return 1
}

search() {
	case $3 in
	rules | rules-long*)
		build_variant "$1" "$2" sim-rules
		# shellcheck disable=SC2046 # a mode, or nothing
		ask sim-rules -f -j "$(nproc)" 100000000 1 $(sed -n 's/.*=//p' <<<"$3") || return 1
		after_total histories
		# it ended at once: three histories have a seed
		[ -n "$AFTER" ] || { after_seed && AFTER=$((AFTER * 3)); }
		;;
	trees)
		build_variant "$1" "$2" sim-trees
		ask sim-trees -f -e 97 || return 1
		after_total pairs
		;;
	sessions)
		build_variant "$1" "$2" sim-sessions
		ask sim-sessions -f 1000000 1 || return 1
		after_total histories
		[ -n "$AFTER" ] || after_seed
		;;
	sim | sim=*)
		build_variant "$1" "$2" sim
		case $3 in sim=*) ask_sim "$(features "$3")" ;; *) ask_sim "$SIM" ;; esac
		;;
	unit/*)
		build_variant "$1" "$2" "$3"
		ask "$3" || return 1
		AFTER=$(sed -n 's/^\[  FAILED  \] \(test_[a-z_0-9]*\)$/\1/p' "$variant/out" | head -n 1)
		[ -n "$AFTER" ] || AFTER=$(sed -n 's/^\[ RUN      \] //p' "$variant/out" | tail -n 1) # it ended the program
		;;
	*) fail "$1: who is $3?" ;;
	esac
}

name_of() {
	case $1 in
	unit/*) echo "\`${1#unit/}\`" ;;
	sim) echo '`make sim`' ;;
	sim=*) echo "\`make sim FEATURES=$(features "$1")\`" ;;
	rules-long=*) echo "\`make sim-rules\`, ${1#*=} histories" ;;
	*) echo "\`make sim-${1%-long}\`" ;;
	esac
}

hunt() {
	local by by_all=$3
	copy_build "$2"
	for by in ${by_all//,/ }; do
		case $fast:$by in
		1:rules | 1:trees | :*) ;;
		*) continue ;;
		esac
		if search "$1" "$2" "$by"; then
			printf '| %s | %s | %s | %s |\n' "$1" "$4" "$(name_of "$by")" "${AFTER:-at once}"
			return 0
		fi
	done
	printf '| %s | %s | **not found** | |\n' "$1" "$4"
	return 1
}

known=$(sed -n 's/^\tDEFECT_\([A-Z_]*\),$/\1/p' base/defect.h | grep -v '^NONE$' | sort)
listed=$(sed -n 's/^\([A-Z_]\{2,\}\) .*/\1/p' "$list" | sort)
[ "$known" = "$listed" ] || fail "$list and base/defect.h differ: $(diff <(echo "$known") <(echo "$listed"))"
while read -r name source _; do
	case $name in '' | '#'*) continue ;; esac
	grep -q "DEFECT($name)" "$source.c" || fail "$name: not in $source.c"
done <"$list"
for f in "$BUILD"/bin/* "$BUILD"/lib*.a; do
	marked "$f" && fail "$f has a deliberate defect"
done

missed=0 found=0
echo '| defect | what is wrong | found by | after |'
echo '|---|---|---|---|'
while read -r name source by text; do
	case $name in '' | '#'*) continue ;; esac
	[ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
	if [ -n "$fast" ]; then
		case $by in rules-long*) continue ;; rules* | trees*) ;; *) continue ;; esac
	fi
	if hunt "$name" "$source" "$by" "$text"; then found=$((found + 1)); else missed=$((missed + 1)); fi
done <"$list"
echo "$found found, $missed not found" >&2
[ "$missed" -eq 0 ] && [ "$found" -gt 0 ]

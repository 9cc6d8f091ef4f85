#!/bin/sh
# Run a unit test program: run.sh DIRECTORY NAME, with TEST_WRAPPER before it. Its output goes to NAME.out; one line says how it
# went, and all is shown if it failed. It gets places of its own, on a disk and in memory (tests/unit/where.h); what it leaves
# there is a failure, too, and is removed.
set -u
program=$1/$2
out=$program.out
export TMPDIR TEST_MEMORY
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
TEST_MEMORY=$(mktemp -d "$memory/unit.XXXXXX") || exit 1
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/unit.XXXXXX") || exit 1
trap 'chmod -R u+rwX "$TMPDIR" "$TEST_MEMORY" 2>/dev/null; rm -rf "$TMPDIR" "$TEST_MEMORY"' EXIT
trap 'exit 130' INT TERM HUP
chmod 1777 "$TMPDIR" "$TEST_MEMORY" # some tests go on as another user

# words of it are assignments, too
eval "${TEST_WRAPPER:+env $TEST_WRAPPER} \"\$program\"" >"$out" 2>&1
status=$?
left=$(ls -A "$TMPDIR" "$TEST_MEMORY" | grep -v ':$\|^$')
passed=$(grep '^\[  PASSED  \]' "$out" | tail -n 1)
if [ "$status" -eq 0 ] && [ -z "$left" ] && [ "$passed" ]; then
	echo "$2: $passed"
	exit 0
fi
cat "$out"
[ -z "$left" ] || printf 'it leaves behind: %s\n' $left
echo "FAILED: $program"
exit 1

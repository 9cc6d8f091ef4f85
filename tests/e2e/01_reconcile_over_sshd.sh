#!/bin/bash
# One-shot reconcile of a real tree over a real sshd: afterwards both are equal by an independent comparison, and the two
# roots that the replicas print are equal. TREE: the tree (default /usr/share/doc with /usr/include).
. "$(dirname "$0")/lib.sh"

start_sshd
mkdir -p "$W/src"
if [ "${TREE:-}" ]; then cp -a "$TREE" "$W/src/"; else cp -a /usr/share/doc /usr/include "$W/src/"; fi
mkdir -p "$W/src/odd names"
printf 'x' >"$W/src/odd names/a b'c\"d\$e"
printf 'y' >"$W/src/odd names/$(printf 'new\nline\tand \xff bytes')"
: >"$W/src/empty"
ln -s /nowhere/at/all "$W/src/dangling"
ln -s ../src "$W/src/loop"
mkdir -m 0700 "$W/src/closed dir"
mkdir -m 0555 "$W/src/read-only dir"
echo z >"$W/src/read-only dir/inside"
install -m 4755 /bin/true "$W/src/setuid"
touch -d '1999-12-31 23:59:59.123456789' "$W/src/empty"
truncate -s 20M "$W/src/sparse"
printf data | dd of="$W/src/sparse" bs=1 seek=10000000 conv=notrunc status=none
entries=$(find "$W/src" | wc -l)

want "reconcile over sshd" reconcile "$W/src" "$(remote "$W/dst")"
cat "$W/out"
want_equal "$W/src" "$W/dst" "after the first reconcile"
[ "$(stat -c %b "$W/dst/sparse")" -lt 2000 ] || fail "holes did not stay holes: $(stat -c %b "$W/dst/sparse") blocks"
a=$(root_of "$W/src") b=$(root_of "$W/dst")
[ -n "$a" ] && [ "$a" = "$b" ] || fail "roots differ: $a $b"
say "$entries entries, root $a"

echo changed >>"$W/src/empty"
rm -r "$W/dst/odd names"
mv "$W/src/include" "$W/src/headers" 2>/dev/null || mv "$W/src/setuid" "$W/src/moved"
want "reconcile of changes on both sides" reconcile "$W/src" "$(remote "$W/dst")"
cat "$W/out"
want_equal "$W/src" "$W/dst" "after changes on both sides"
[ ! -e "$W/src/odd names" ] || fail "a deletion did not arrive"
want "reconcile with nothing to do" reconcile "$W/src" "$(remote "$W/dst")"
cat "$W/out"
[ -z "$(conflict_copies "$W/src")" ] || fail "conflict copies without a conflict"

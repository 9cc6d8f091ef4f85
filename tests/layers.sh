#!/bin/sh
# The layers, low to high: base merkle tombstones transfer syncd. A file includes its own layer and lower ones only, by
# path from the root; tests and programs stand above and are included by nobody. Run from anywhere: layers.sh [ROOT].
# Without ROOT the checker first proves on a bad tree that it can fail.
set -eu

check() {
	(cd "$1" && find base merkle tombstones transfer syncd -name '*.[ch]' -exec awk '
	BEGIN {
		n = split("base merkle tombstones transfer syncd", layers, " ")
		for (i = 1; i <= n; i++)
			rank[layers[i]] = i
	}
	function complain(why) {
		printf "%s:%d: \"%s\" %s\n", FILENAME, FNR, target, why
	}
	/^[ \t]*#[ \t]*include[ \t]*"/ {
		target = $0
		sub(/^[^"]*"/, "", target)
		sub(/".*/, "", target)
		own = FILENAME
		sub(/\/.*/, "", own)
		layer = target
		sub(/\/.*/, "", layer)
		if (target ~ /(^|\/)\.\.?(\/|$)/ || !(layer in rank) || index(target, "/") == 0)
			complain("is not a path from the root into a layer")
		else if (rank[layer] > rank[own])
			complain("is of a higher layer than " own)
		else if ((getline line < target) < 0)
			complain("is not there")
		close(target)
	}
	/^[ \t]*#[ \t]*include[ \t]*<(base|merkle|tombstones|transfer|syncd)\// {
		target = $0
		complain("is ours, so it belongs in quotes")
	}' {} +)
}

# A tree where line after line is good or bad, and what must be said of it, no more and no less.
self_test() {
	tree=$(mktemp -d "${TMPDIR:-/tmp}/layers.XXXXXX")
	trap 'rm -rf "$tree"' EXIT
	mkdir "$tree/base" "$tree/merkle" "$tree/tombstones" "$tree/transfer" "$tree/syncd" "$tree/tests"
	touch "$tree/base/a.h" "$tree/merkle/b.h" "$tree/syncd/e.h" "$tree/tests/t.h" "$tree/x.h"
	cat >"$tree/base/a.c" <<-'END'
		#include "base/a.h"
		#include <stdio.h>
		#include "merkle/b.h"
		#include "a.h"
		  #  include "syncd/e.h" // indented
		// #include "merkle/b.h"
	END
	cat >"$tree/merkle/b.c" <<-'END'
		#include "base/a.h"
		#include "merkle/b.h"
		#include "../syncd/e.h"
		#include "base/../syncd/e.h"
		#include "base/gone.h"
		#include "./base/a.h"
		#include "/etc/hosts"
	END
	cat >"$tree/transfer/d.h" <<-'END'
		#include "merkle/b.h"
		#include "tests/t.h"
		#include "x.h"
		#include "syncd/e.h"
		#include <merkle/b.h>
	END
	printf '#include "base/a.h"\n#include "syncd/e.h"\n#include "merkle/b.h"' >"$tree/syncd/e.c"
	check "$tree" | cut -d: -f1,2 | sort >"$tree/said"
	cat >"$tree/expected" <<-'END'
		base/a.c:3
		base/a.c:4
		base/a.c:5
		merkle/b.c:3
		merkle/b.c:4
		merkle/b.c:5
		merkle/b.c:6
		merkle/b.c:7
		transfer/d.h:2
		transfer/d.h:3
		transfer/d.h:4
		transfer/d.h:5
	END
	if ! diff "$tree/expected" "$tree/said"; then
		echo "layers.sh: does not find what it should (< expected, > found)" >&2
		exit 1
	fi
}

[ $# -gt 0 ] || self_test
faults=$(check "${1:-$(dirname "$0")/..}")
if [ -n "$faults" ]; then
	printf '%s\n' "$faults"
	exit 1
fi

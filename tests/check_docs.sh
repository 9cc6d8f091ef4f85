#!/bin/sh
# What documents list is what there is: exit codes, commands, keys, the layout of the tree. Run from anywhere:
# check_docs.sh [ROOT]. Without ROOT the checker first proves on copies with a fault each that it can fail.
#
# README.md: under a heading with "Layout", each line of the code block (or each list item, or table row) begins with a path.
set -eu

# Lines that are in one list only: only_in FILE_A FILE_B TEXT_A TEXT_B
only_in() {
	comm -23 "$1" "$2" | sed "s|\$| $3|"
	comm -13 "$1" "$2" | sed "s|\$| $4|"
}

exit_codes() {
	sed -n 's/^[[:space:]]*EXIT_[A-Z_]* = \([0-9]*\),.*/exit code \1/p' syncd/exit_codes.h | sort >"$lists/code"
	sed -n '/^\.Sh EXIT STATUS/,/^\.Sh EXAMPLES/s/^\.It \([0-9]*\)$/exit code \1/p' packaging/man/syncctl.1 | sort >"$lists/man"
	[ -s "$lists/code" ] || echo "no exit codes found in syncd/exit_codes.h"
	only_in "$lists/code" "$lists/man" "is not in syncctl.1" "is in syncctl.1 only"
}

commands() {
	sed -n '/^} commands\[\] = {/,/^};/s/^[[:space:]]*{"\([a-z-]*\)".*/\1/p' syncd/main_syncctl.c | sort >"$lists/code"
	[ -s "$lists/code" ] || echo "no commands found in syncd/main_syncctl.c"
	sed 's/\\-/-/g' packaging/man/syncctl.1 >"$lists/man"
	while read -r command; do
		grep -q "^\.Cm $command\( \|\$\)" "$lists/man" || echo "command $command is not in the synopsis of syncctl.1"
		grep -q "^\.Ss $command\( \|\$\)" "$lists/man" || echo "command $command is not described in syncctl.1"
		grep -q "commands=\"\(.* \)\?$command[ \"]" packaging/bash-completion/syncctl ||
			echo "command $command is not in the completion"
	done <"$lists/code"
}

keys() {
	sed -n 's/^	{IN_[A-Z]*(.*\.name = "\([a-z_]*\)".*/key \1/p' syncd/config.c | sort -u >"$lists/code"
	sed -n 's/^#\{0,1\}\([a-z_]*\) = .*/key \1/p' syncd.conf.example | sort -u >"$lists/example"
	sed -n 's/^\.It Ic \([a-z_]*\)$/key \1/p' packaging/man/syncd.conf.5 | sort -u >"$lists/man"
	[ -s "$lists/code" ] || echo "no keys found in syncd/config.c"
	only_in "$lists/code" "$lists/example" "is not in syncd.conf.example" "is in syncd.conf.example only"
	only_in "$lists/code" "$lists/man" "is not in syncd.conf.5" "is in syncd.conf.5 only"
}

layout() {
	[ -e README.md ] || return 0
	awk '
	/^#+ / && !code { inside = tolower($0) ~ /layout/; next }
	!inside { next }
	/^```/ { code = !code; next }
	code || /^[|*-]/ {
		sub(/^[|*-] */, "")
		gsub(/`/, "")
		if ($1 ~ /^[A-Za-z0-9._][A-Za-z0-9._\/-]*$/)
			print $1
	}' README.md | sort -u >"$lists/readme"
	[ -s "$lists/readme" ] || echo "README.md has no list under a heading with Layout"
	while read -r path; do
		[ -e "$path" ] || echo "$path is in README.md, but is not there"
	done <"$lists/readme"
	for directory in */; do
		# what is built, or not of the project, is no part of it, also where git is missing or refuses to answer
		grep -qx "/$directory" .gitignore 2>/dev/null && continue
		[ "$directory" != '*/' ] && ! git check-ignore -q "$directory" 2>/dev/null || continue
		[ -z "$(git ls-files "$directory" 2>/dev/null)" ] && git rev-parse -q --git-dir >/dev/null 2>&1 && continue
		grep -qx "$directory\|${directory%/}" "$lists/readme" || echo "$directory is not in README.md"
	done
}

check() (
	cd "$1"
	exit_codes
	commands
	keys
	layout
)

# One fault in a copy must be told, by exactly the words given: try SAYS COMMAND…
try() {
	says=$1
	shift
	rm -rf "$tree"
	mkdir "$tree"
	(
		cd "$root"
		cp --parents syncd/exit_codes.h syncd/main_syncctl.c syncd/config.c syncd.conf.example packaging/man/* \
			packaging/bash-completion/syncctl "$tree"
	)
	printf '# x\n\n## Layout\n\n```\nsyncd/       programs\npackaging/   more\nsyncd.conf.example\n```\n' >"$tree/README.md"
	(cd "$tree" && "$@")
	said=$(check "$tree")
	if [ "$said" != "$says" ]; then
		printf 'check_docs.sh: expected "%s", said "%s"\n' "$says" "$said" >&2
		exit 1
	fi
}

self_test() {
	tree=$lists/tree
	try "" true
	try "exit code 13 is not in syncctl.1" sed -i '/^\.It 13$/d' packaging/man/syncctl.1
	try "exit code 13 is in syncctl.1 only" sed -i '/EXIT_VERSION/d' syncd/exit_codes.h
	try "command flush is not described in syncctl.1" sed -i '/^\.Ss flush/d' packaging/man/syncctl.1
	try "command scan is not in the completion" sed -i 's/ scan / /' packaging/bash-completion/syncctl
	try "key settle is not in syncd.conf.example" sed -i '/^#settle/d' syncd.conf.example
	try "key settle is not in syncd.conf.5" sed -i '/^\.It Ic settle/d' packaging/man/syncd.conf.5
	try "key sttle is in syncd.conf.5 only" sed -i '$a .It Ic sttle' packaging/man/syncd.conf.5
	try "gone.c is in README.md, but is not there" sed -i 's/^syncd.conf.example/gone.c/' README.md
	try "packaging/ is not in README.md" sed -i '/^packaging/d' README.md
	try "extra/ is not in README.md" mkdir extra
}

root=$(cd "${1:-$(dirname "$0")/..}" && pwd)
lists=$(mktemp -d "${TMPDIR:-/tmp}/check_docs.XXXXXX")
trap 'rm -rf "$lists"' EXIT
[ $# -gt 0 ] || self_test
faults=$(check "$root")
if [ -n "$faults" ]; then
	printf '%s\n' "$faults"
	exit 1
fi

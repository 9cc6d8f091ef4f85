#!/bin/sh
# Installs what syncd needs to build and run on Debian 12 and its relatives: install-deps.sh [--test]
# --test adds what the tests need; among it is an SSH server, which Debian starts when it installs it. Does nothing, at
# once, if all of it is there. Root, or a user with sudo.
set -eu

packages="gcc make pkg-config libc6-dev libssh2-1-dev libzstd-dev libxxhash-dev liblmdb-dev libuv1-dev libinih-dev
	libjansson-dev libssl-dev libsodium-dev libseccomp-dev uthash-dev linux-libc-dev"
test_packages="libcmocka-dev clang libclang-rt-14-dev python3 openssh-server openssh-client rsync mandoc valgrind
	xfsprogs e2fsprogs btrfs-progs util-linux mount iproute2 openssl xz-utils"

case "${1:-}" in
"") ;;
--test) packages="$packages $test_packages" ;;
*)
	echo "usage: install-deps.sh [--test]" >&2
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "install-deps.sh knows Debian only; install what stands in for these packages here:" $packages >&2
	exit 1
fi

# What is not installed; pkgconf stands in for pkg-config.
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null || :)
missing=
for package in $packages; do
	case "
$installed
" in
	*"
$package installed
"*) continue ;;
	esac
	[ "$package" = pkg-config ] && command -v pkg-config >/dev/null && continue
	missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "missing:$missing; run this as root, or install sudo" >&2
		exit 1
	fi
	as_root=sudo
fi
echo "installing:$missing"
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -q update
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -q -y --no-install-recommends install $missing >/dev/null

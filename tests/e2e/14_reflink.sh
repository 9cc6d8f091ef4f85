#!/bin/bash
# On file systems that share blocks (btrfs, xfs) the new version of a large file of which 4 KiB were changed takes next to no room beside
# the old one, which is in trash. Without root, or without these file systems, there is nothing to try.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || { say "needs root: left out"; exit 0; }
tried=0
used() { sync -f "$1" && df --output=used -B1K "$1" | tail -1; }
for fs in btrfs xfs; do
    command -v "mkfs.$fs" >/dev/null && grep -qw "$fs" /proc/filesystems || continue
    truncate -s 512M "$W/$fs.img"
    "mkfs.$fs" -q "$W/$fs.img" 2>/dev/null || fail "mkfs.$fs"
    mkdir "$W/mnt.$fs" "$W/a.$fs"
    mount -o loop "$W/$fs.img" "$W/mnt.$fs" 2>"$W/err" || { say "$fs: can't be mounted: $(cat "$W/err")"; continue; }
    tried=$((tried + 1))
    mkdir "$W/mnt.$fs/b"
    openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 100000000 >"$W/a.$fs/big"
    want "$fs: first copy" reconcile "$W/a.$fs" "$W/mnt.$fs/b"
    before=$(used "$W/mnt.$fs")
    printf 'something else' | dd of="$W/a.$fs/big" bs=4096 seek=10000 conv=notrunc status=none
    want "$fs: 4 KiB changed" reconcile "$W/a.$fs" "$W/mnt.$fs/b"
    want_equal "$W/a.$fs" "$W/mnt.$fs/b" "$fs: 4 KiB changed"
    [ -n "$(find "$W/mnt.$fs/b/.syncd/trash" -type f -size +90M)" ] || fail "$fs: the old version is not in trash"
    grown=$(($(used "$W/mnt.$fs") - before))
    say "$fs: $grown KiB more in use for a new version of 100 MB"
    [ "$grown" -lt 20000 ] || fail "$fs: $grown KiB more in use"
    umount "$W/mnt.$fs"
done
say "$tried file systems"

#!/usr/bin/env bash
# tar: a tree of everything, out of the live and of a frozen tree and back again, byte for byte.
# needs: tar=tar setfattr=attr setfacl=acl
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"
# shellcheck source=scripts/programs/zoo.bash
. "$(dirname "$0")/zoo.bash"

pack() { tar -C "$1" --xattrs --xattrs-include='*' --acls --sparse --format=posix -cf "$2" . || fail "cannot pack $1"; }
unpack() {
    mkdir -p "$2"
    tar -C "$2" --xattrs --xattrs-include='*' --acls -xpf "$1" || fail "cannot unpack into $2"
}

zoo "$LIVE/zoo"
want=$(manifest "$LIVE/zoo")
pack "$LIVE/zoo" "$SCRATCH/zoo.tar"
unpack "$SCRATCH/zoo.tar" "$LIVE/back" &
sleep 0.2
freeze unpacking # half of it
wait $! || fail "tar failed during a snapshot"
freeze unpacked
same "the tree, packed and unpacked" "$want" "$(manifest "$LIVE/back")"
same "the frozen tree" "$want" "$(manifest "$FROZEN/back")"

# What is frozen packs to the same, also while the live one goes away.
rm -rf "$LIVE/back" &
pack "$FROZEN/back" "$SCRATCH/frozen.tar"
wait $! || fail "rm -r failed"
unpack "$SCRATCH/frozen.tar" "$LIVE/again"
same "the frozen tree, packed and unpacked" "$want" "$(manifest "$LIVE/again")"
tar -C "$FROZEN/zoo" --compare -f "$SCRATCH/zoo.tar" >/dev/null || fail "tar --compare finds differences in the frozen tree"
same "blocks of a hole of 40 MiB" 0 "$(stat -c %b "$LIVE/again/sparse/hole")"
checked "$(grep -c ' = ' <<<"$want") names (links, holes, xattrs$(! acls "$LIVE" || echo ', ACLs'), devices, odd names, all times) packed and unpacked, live and frozen: equal"

#!/usr/bin/env bash
# overlay: overlayfs, as containers use it, with lower layers in the live tree and in a snapshot, and upper ones.
# needs: mount=mount setfattr=attr
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"
# shellcheck source=scripts/programs/zoo.bash
. "$(dirname "$0")/zoo.bash"

((EUID == 0)) || { checked "not run: only root mounts overlays"; exit 0; }
merged=$SCRATCH/merged
mkdir "$merged"
trap 'umount "$merged" 2>/dev/null || true' EXIT
overlay() { mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$merged" 2>"$SCRATCH/error"; }
elsewhere=$SCRATCH/elsewhere
mkdir "$elsewhere" "$elsewhere/upper" "$elsewhere/work"
if ! grep -qw overlay /proc/filesystems && ! modprobe overlay 2>/dev/null; then
    checked "not run: this kernel has no overlayfs"
    exit 0
fi

zoo "$LIVE/lower/zoo"
want=$(manifest "$LIVE/lower/zoo")
freeze lower

# use: what a container does: changes, removals, a new directory over an old one.
use() {
    printf 'more' >>"$merged/zoo/plain/file1"
    rm "$merged/zoo/plain/file2"
    rm -r "$merged/zoo/names"
    mkdir "$merged/zoo/names"
    printf 'new' >"$merged/zoo/names/new"
    chmod 600 "$merged/zoo/plain/large"
    mv "$merged/zoo/plain/file3" "$merged/zoo/plain/moved"
    [[ ! -e $merged/zoo/plain/file2 && $(ls "$merged/zoo/names") == new && $(<"$merged/zoo/names/new") == new ]] || fail "the overlay does not show what was done"
    [[ $(tail -c 4 "$merged/zoo/plain/file1") == more && $(stat -c %a "$merged/zoo/plain/large") == 600 ]] || fail "the overlay lacks changes"
    cmp "$LIVE/lower/zoo/plain/large" "$merged/zoo/plain/large" || fail "copied up, but different"
}

overlay "$LIVE/lower" "$elsewhere/upper" "$elsewhere/work" || fail "no overlay over the live tree: $(<"$SCRATCH/error")"
same "the overlay of the live tree" "$want" "$(manifest "$merged/zoo")"
use
umount "$merged"
same "the lower layer" "$want" "$(manifest "$LIVE/lower/zoo")"

rm -rf "${elsewhere:?}"/*
mkdir "$elsewhere/upper" "$elsewhere/work"
overlay "$FROZEN/lower" "$elsewhere/upper" "$elsewhere/work" || fail "no overlay over a snapshot: $(<"$SCRATCH/error")"
same "the overlay of a snapshot" "$want" "$(manifest "$merged/zoo")"
use
umount "$merged"

# An upper layer must have RENAME_WHITEOUT and xattrs trusted.overlay, which the kernel tries out when it mounts.
mkdir "$LIVE/upper" "$LIVE/work"
overlay "$FROZEN/lower" "$LIVE/upper" "$LIVE/work" || fail "no upper layer in the live tree: $(<"$SCRATCH/error")"
use
freeze used
umount "$merged"
overlay "$FROZEN/lower" "$LIVE/upper" "$LIVE/work" || fail "an overlay that was mounted once mounts no more"
[[ $(<"$merged/zoo/names/new") == new && ! -e $merged/zoo/plain/file2 ]] || fail "the upper layer lacks changes"
umount "$merged"
checked "a lower layer in the live tree and in a snapshot, an upper one elsewhere and in the live tree: read and changed through overlayfs"

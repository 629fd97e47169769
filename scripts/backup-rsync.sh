#!/bin/sh
# Copies a snapfs mount with rsync, from a frozen tree, into generations that share what did not change.
set -eu
tool=rsync package=rsync

usage() {
    cat <<END
usage: backup-rsync.sh [FLAGS] MOUNTPOINT DEST [-- FLAGS OF rsync]

Takes a snapshot, copies it to DEST/TIME with rsync, compares the copy with it, removes the snapshot, and points DEST/latest to
the copy. Every generation is a complete tree; files that did not change are hard links to those of the generation before, so they
take no space. Owners, times to the nanosecond, access control lists, extended attributes, hard links and holes are kept. A copy
that was interrupted is in DEST/.incomplete, where the next run goes on.

  -q                  say nothing when all is well
  -v                  show what rsync says
  --keep-last N       remove all but the last N generations
  --check-data        compare also every byte, not only sizes and times
  --before CMD, --after CMD, --hook-timeout D
                      as of snapfs exec: commands around the freeze

DEST is a directory of this machine, not inside MOUNTPOINT.
snapfs is looked for on PATH, or is \$SNAPFS. \$SNAPFS_EXEC_FLAGS are more flags for snapfs exec, such as --keep.
Exit codes: those of rsync, else 1 failed, 2 usage, 3 not a snapfs mount, 6 refused: another backup is at work, or you may
not take snapshots.

  backup-rsync.sh -q --keep-last 30 /mnt/data /backup/data
END
}

# shellcheck source=scripts/backup-shared.sh
. "$(dirname "$0")/backup-shared.sh"

flags='-aHAXS --numeric-ids --delete --modify-window=-1 --no-human-readable'

# inside is what runs in the frozen tree: mount, dest, generation to share with, whether to compare bytes, flags of the user's.
inside() {
    mount=$1 dest=$2 last=$3 checkdata=$4
    shift 4
    # shellcheck disable=SC2086 # flags are words
    rsync $flags ${last:+--link-dest="$last"} --stats "$@" "$mount/" "$dest/.incomplete/" || exit $?
    # shellcheck disable=SC2086
    differ=$(rsync $flags -n -i ${checkdata:+--checksum} "$@" "$mount/" "$dest/.incomplete/") || exit $?
    [ -z "$differ" ] || die 1 "the copy differs: $differ"
}
if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi

own_flag() { return 1; }
parse "$@"
[ -n "$dest" ] || die 2 "where to? see $me --help"
case $dest in
*:*) die 2 "DEST is a directory of this machine (mount the other one's)" ;;
esac
last=$(keep_last) || exit $?
begin
mkdir -p "$dest"
dest=$(cd "$dest" && pwd -P)
case $dest/ in
"$mount"/*) die 2 "$dest is inside $mount" ;;
esac

name=$(stamp)
while [ -e "$dest/$name" ]; do # two in a second
    sleep 1
    name=$(stamp)
done
previous=
[ ! -e "$dest/latest" ] || previous=$(cd "$dest/latest" && pwd -P)
code=0
eval "set -- $extra"
frozen "$0" --inside "$mount" "$dest" "$previous" "$checkdata" "$@" >"$out" || code=$?
[ -z "$verbose" ] || cat "$out"
[ "$code" = 0 ] || exit "$code"

sync -f "$dest"
mv "$dest/.incomplete" "$dest/$name"
ln -sfn "$name" "$dest/.latest"
mv -T "$dest/.latest" "$dest/latest"
sync -f "$dest"
if [ "$last" -gt 0 ]; then
    find "$dest" -mindepth 1 -maxdepth 1 -type d -name '????-??-??T??????Z' | sort | head -n "-$last" | while read -r old; do
        rm -rf "$old"
    done
fi
get() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$out"; }
say "$mount is in $dest/$name: $(get 'Number of files') files and directories, $(human "$(get 'Total file size')"), copied $(human "$(get 'Total transferred file size')"), compared, $(seconds) s"

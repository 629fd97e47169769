#!/bin/sh
# Backs a snapfs mount up into tar archives, full and incremental, from a frozen tree.
set -eu
tool=tar package=tar

usage() {
    cat <<END
usage: backup-tar.sh [FLAGS] MOUNTPOINT DEST [-- FLAGS OF tar]

Takes a snapshot, writes it to the archive DEST/TIME.full.tar, or what changed since the archive before to DEST/TIME.incr.tar,
compares the archive with the snapshot, and removes that. Owners, access control lists, extended attributes, hard links and
holes are kept (GNU tar's POSIX format). DEST/state is what tar has to know for the next incremental archive.

  -q                  say nothing when all is well
  -v                  show what tar says
  --full              write a full archive; the first one is full anyway
  --full-after N      write a full archive after N incremental ones (default 30)
  --keep-last N       remove all but the last N full archives, with the incremental ones that belong to them
  --compress PROGRAM  compress with gzip, zstd, xz ...
  --before CMD, --after CMD, --hook-timeout D
                      as of snapfs exec: commands around the freeze

To restore, extract the full archive and after it, in order, the incremental ones up to the time that is wanted:
  for a in ...; do tar -x --listed-incremental=/dev/null --xattrs --xattrs-include='*' --acls --numeric-owner -f \$a -C TARGET; done
snapfs is looked for on PATH, or is \$SNAPFS. \$SNAPFS_EXEC_FLAGS are more flags for snapfs exec, such as --keep.
Exit codes: those of tar, else 1 failed, 2 usage, 3 not a snapfs mount, 6 refused: another backup is at work, or you may not
take snapshots.

  backup-tar.sh -q --compress zstd --keep-last 4 /mnt/data /backup/data
END
}

# shellcheck source=scripts/backup-shared.sh
. "$(dirname "$0")/backup-shared.sh"

# inside is what runs in the frozen tree: mount, archive, state, compression, flags of the user's.
inside() {
    mount=$1 archive=$2 state=$3 compress=$4
    shift 4
    tar -c -f "$archive" ${compress:+-I "$compress"} --listed-incremental="$state" --no-check-device --format=posix --numeric-owner \
        --xattrs --xattrs-include='*' --acls --sparse --one-file-system --totals "$@" -C "$mount" . || exit $?
    LC_ALL=C tar -d -f "$archive" ${compress:+-I "$compress"} --numeric-owner --sparse "$@" -C "$mount" || exit $?
}
if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi

full='' fullafter=30 compress=''
own_flag() {
    flag_value=yes
    case $1 in
    --full)
        full=yes
        flag_value=
        return
        ;;
    esac
    [ $# -ge 2 ] || return 1
    case $1 in
    --full-after) fullafter=$2 ;;
    --compress) compress=$2 ;;
    *) return 1 ;;
    esac
}
parse "$@"
[ -n "$dest" ] || die 2 "where to? see $me --help"
is_number "$fullafter" || die 2 "--full-after takes a number"
last=$(keep_last) || exit $?
begin
[ -z "$compress" ] || command -v "${compress%% *}" >/dev/null || die 1 "$compress is missing"
mkdir -p "$dest"
dest=$(cd "$dest" && pwd -P)
case $dest/ in
"$mount"/*) die 2 "$dest is inside $mount" ;;
esac

# archives prints the finished archives, oldest first.
archives() { find "$dest" -maxdepth 1 -name '????-??-??T??????Z.*.tar*' ! -name '*.part' | sort; }
since=$(archives | awk '/\.full\.tar/ { n = 0; found = 1; next } { n++ } END { print found ? n : -1 }')
if [ ! -e "$dest/state" ] || [ "$since" -lt 0 ] || [ "$since" -ge "$fullafter" ]; then full=yes; fi
kind=incr
[ -z "$full" ] || kind=full
suffix=
case ${compress%% *} in
'') ;;
gzip | pigz) suffix=.gz ;;
zstd) suffix=.zst ;;
xz | lz4) suffix=.${compress%% *} ;;
bzip2) suffix=.bz2 ;;
*) suffix=.z ;;
esac
name=$(stamp)
while [ -n "$(find "$dest" -name "$name.*")" ]; do # two in a second
    sleep 1
    name=$(stamp)
done
archive=$dest/$name.$kind.tar$suffix
rm -f "$dest"/*.part # of a run that was interrupted
[ -n "$full" ] || cp "$dest/state" "$dest/state.part"
code=0
eval "set -- $extra"
frozen "$0" --inside "$mount" "$archive.part" "$dest/state.part" "$compress" "$@" >"$out" 2>&1 || code=$?
if [ "$code" != 0 ]; then
    cat "$out" >&2
    rm -f "$dest"/*.part
    exit "$code"
fi
[ -z "$verbose" ] || cat "$out"

# The archive first: a state that knows more than the archives would lose files.
sync -f "$dest"
mv "$archive.part" "$archive"
sync -f "$dest"
mv "$dest/state.part" "$dest/state"
sync -f "$dest"
if [ "$last" -gt 0 ]; then
    first=$(archives | grep '\.full\.tar' | tail -n "$last" | head -n 1)
    archives | while read -r old; do
        [ "$old" != "$first" ] || break
        rm -f "$old"
    done
fi
say "$mount is in $archive: $(tar -t -f "$archive" | wc -l) entries, $(human "$(stat -c %s "$archive")"), compared, $(seconds) s"

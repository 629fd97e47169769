#!/usr/bin/env bash
# rsync: -aHAXS copies onto the mount, on it and from a snapshot, after which a dry run with checksums finds nothing.
# needs: rsync=rsync perl=perl setfattr=attr setfacl=acl
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"
# shellcheck source=scripts/programs/zoo.bash
. "$(dirname "$0")/zoo.bash"

zoo "$SCRATCH/zoo" # made elsewhere
perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un($ARGV[0])) or die $!' "$SCRATCH/zoo/socket"
flags=(-aHX --delete --numeric-ids)
! acls "$LIVE" || flags+=(-A)

# sync_trees FROM TO [FLAG...]
sync_trees() { rsync "${flags[@]}" "${@:3}" "$1/" "$2" || fail "rsync $1 $2"; }
no_difference() {
    local out
    out=$(rsync "${flags[@]}" --checksum --dry-run --itemize-changes "$1/" "$2") || fail "rsync --dry-run $1 $2"
    same "what rsync would still do from $1 to $2" '' "$out"
}

sync_trees "$SCRATCH/zoo" "$LIVE/copy" -S
no_difference "$SCRATCH/zoo" "$LIVE/copy"
sync_trees "$LIVE/copy" "$LIVE/second" -S &
sleep 0.1
freeze copying
wait $! || fail "rsync failed during a snapshot"
no_difference "$LIVE/copy" "$LIVE/second"
freeze copied
want=$(manifest "$LIVE/copy")

# Change things; only what changed is sent, and the frozen tree stays.
for f in "$LIVE/copy/plain/file1"*; do printf 'changed' >>"$f"; done
mv "$LIVE/copy/links" "$LIVE/copy/moved"
rm -r "$LIVE/copy/names"
chmod 700 "$LIVE/copy/plain"
sync_trees "$LIVE/copy" "$LIVE/second"
no_difference "$LIVE/copy" "$LIVE/second"
no_difference "$SCRATCH/zoo" "$FROZEN/copy"
no_difference "$SCRATCH/zoo" "$FROZEN/second"
same "the frozen copy" "$want" "$(manifest "$FROZEN/copy")"

sync_trees "$FROZEN/copy" "$LIVE/second" --inplace --no-whole-file # as backups of large files do it
no_difference "$FROZEN/copy" "$LIVE/second"
sync_trees "$FROZEN/copy" "$SCRATCH/from-frozen" -S
no_difference "$SCRATCH/zoo" "$SCRATCH/from-frozen"
checked "${flags[*]} -S onto, on and from the mount, incremental, --inplace, from a snapshot: --dry-run --checksum finds nothing"

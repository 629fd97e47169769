#!/bin/sh
# Backs a snapfs mount up with restic, from a frozen tree at the live path.
set -eu
tool=restic package=restic

usage() {
    cat <<END
usage: backup-restic.sh [FLAGS] MOUNTPOINT [-- FLAGS OF restic backup]

Takes a snapshot, has restic back it up under the path of the live tree, removes the snapshot, applies the policy if there is
one, and checks the repository. The repository and its password are where restic looks for them: RESTIC_REPOSITORY,
RESTIC_PASSWORD_FILE and the like. restic knows by inode number, size and time which files it has already.

  -q                  say nothing when all is well
  -v                  show what restic says
  --keep-last N, --keep-hourly N, ... --keep-within D
                      restic's policy: forget what it does not keep, of this mount and host, and prune
  --check-data        check also every byte in the repository
  --before CMD, --after CMD, --hook-timeout D
                      as of snapfs exec: commands around the freeze

snapfs is looked for on PATH, or is \$SNAPFS. \$SNAPFS_EXEC_FLAGS are more flags for snapfs exec, such as --keep.
Exit codes: those of restic (3: something could not be read), else 1 failed, 2 usage, 3 not a snapfs mount, 6 refused:
another backup is at work, or you may not take snapshots.

  RESTIC_REPOSITORY=/backup/repo RESTIC_PASSWORD_FILE=/etc/restic.key \\
      backup-restic.sh -q --keep-daily 7 --keep-weekly 8 /mnt/data
END
}

# shellcheck source=scripts/backup-shared.sh
. "$(dirname "$0")/backup-shared.sh"
own_flag() { return 1; }
parse "$@"
[ -z "$dest" ] || die 2 "too many operands; see $me --help"
begin
quietly restic unlock || exit $? # only of locks whose process is gone: a backup that was killed must not keep the check from working

code=0
eval "set -- $extra"
frozen restic backup --json --one-file-system "$@" -- "$mount" >"$out" || code=$?
[ -z "$verbose" ] || grep -v '"message_type":"status"' "$out" || true
[ "$code" = 0 ] || exit "$code"
summary=$(grep '"message_type":"summary"' "$out")

if [ -n "$keep" ]; then
    eval "set -- $keep"
    quietly restic forget --prune --host "$(hostname)" --path "$mount" "$@" || exit $?
fi
quietly restic check ${checkdata:+--read-data} || exit $?
get() { printf '%s\n' "$summary" | field "$1"; }
say "$mount is in restic's snapshot $(get snapshot_id | cut -c 1-8): $(get total_files_processed) files, $(human "$(get total_bytes_processed)"), of it new or changed $(($(get files_new) + $(get files_changed))) files; added $(human "$(get data_added)"), checked, $(seconds) s"

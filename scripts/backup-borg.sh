#!/bin/sh
# Backs a snapfs mount up with BorgBackup, from a frozen tree at the live path.
set -eu
tool=borg package=borgbackup

usage() {
    cat <<END
usage: backup-borg.sh [FLAGS] MOUNTPOINT [-- FLAGS OF borg create]

Takes a snapshot, has borg back it up under the path of the live tree, removes the snapshot, checks the new archive, and
applies the policy if there is one. The repository and its passphrase are where borg looks for them: BORG_REPO,
BORG_PASSCOMMAND and the like. borg knows by inode number, size and time which files it has already.

  -q                  say nothing when all is well
  -v                  show what borg says
  --keep-last N, --keep-hourly N, ... --keep-within D
                      borg's policy: prune what it does not keep, of this mount and host, and compact
  --check-data        check also every byte of the new archive
  --before CMD, --after CMD, --hook-timeout D
                      as of snapfs exec: commands around the freeze

snapfs is looked for on PATH, or is \$SNAPFS. \$SNAPFS_EXEC_FLAGS are more flags for snapfs exec, such as --keep.
Exit codes: those of borg (1 warning, 2 error), else 1 failed, 2 usage, 3 not a snapfs mount, 6 refused: another backup is
at work, or you may not take snapshots.

  BORG_REPO=/backup/borg BORG_PASSCOMMAND='cat /etc/borg.key' \\
      backup-borg.sh -q --keep-daily 7 --keep-weekly 8 /mnt/data
END
}

# shellcheck source=scripts/backup-shared.sh
. "$(dirname "$0")/backup-shared.sh"
own_flag() { return 1; }
parse "$@"
[ -z "$dest" ] || die 2 "too many operands; see $me --help"
begin
[ -n "${BORG_REPO-}" ] || die 2 "which repository? set BORG_REPO"

prefix=$(hostname)$(printf '%s' "$mount" | tr '/: ' '---')-
archive=$prefix$(stamp)
code=0
eval "set -- $extra"
frozen borg create --json --one-file-system --numeric-ids "$@" "::$archive" "$mount" >"$out" || code=$?
[ -z "$verbose" ] || cat "$out"
[ "$code" = 0 ] || exit "$code"
stats=$(grep -A 8 '"stats": {' "$out" | tr -d '\n')
get() { printf '%s\n' "$stats" | field "$1"; }
line="$mount is in archive $archive: $(get nfiles) files, $(human "$(get original_size)"), added $(human "$(get deduplicated_size)")"

quietly borg check --archives-only --glob-archives "$archive" ${checkdata:+--verify-data} || exit $?
if [ -n "$keep" ]; then
    eval "set -- $keep"
    quietly borg prune --list --glob-archives "$prefix*" "$@" || exit $?
    quietly borg compact || exit $?
fi
say "$line, checked, $(seconds) s"

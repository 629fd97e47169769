#!/bin/sh
# Takes a snapshot and removes old ones, for cron and timers.
set -eu

usage() {
    cat <<END
usage: snapshot-cron.sh [FLAGS] MOUNTPOINT

Takes a snapshot named PREFIX-TIME, and deletes those of its own snapshots that the policy does not keep: the last one of each of the
last N hours, days and weeks (UTC, weeks begin on Monday) that have any. Never the newest, never one that is held, never one of
another name.

  -q               say nothing when all is well
  -n               take and delete nothing, say what would be deleted
  --hourly N       default 24
  --daily N        default 7
  --weekly N       default 4
  --prefix PREFIX  default auto: letters, digits, dots and underscores

snapfs is looked for on PATH, or is \$SNAPFS. Exit codes: those of snapfs, such as 3 not a snapfs mount, 6 refused.
scripts/systemd has a timer for it. In a crontab:

  0 * * * *  root  snapshot-cron.sh -q --hourly 48 /mnt/data
END
}

me=$(basename "$0")
die() {
    code=$1
    shift
    printf '%s: %s\n' "$me" "$*" >&2
    exit "$code"
}

quiet='' dry='' hourly=24 daily=7 weekly=4 prefix=auto mount=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    -q) quiet=yes ;;
    -n) dry=yes ;;
    --hourly | --daily | --weekly)
        case ${2-} in '' | *[!0-9]*) die 2 "$1 takes a number; see $me --help" ;; esac
        eval "${1#--}=\$2"
        shift
        ;;
    --prefix)
        case ${2-} in '' | *[!A-Za-z0-9._]*) die 2 "--prefix takes letters, digits, dots and underscores" ;; esac
        prefix=$2
        shift
        ;;
    -*) die 2 "unknown flag $1; see $me --help" ;;
    *)
        [ -z "$mount" ] || die 2 "one MOUNTPOINT; see $me --help"
        mount=$1
        ;;
    esac
    shift
done
[ -n "$mount" ] || die 2 "which MOUNTPOINT? see $me --help"
snapfs=${SNAPFS:-snapfs}
command -v "$snapfs" >/dev/null || die 1 "snapfs is not on PATH: install it, or say where it is in SNAPFS"

# expired reads the list of snapshots and prints the names that the policy does not keep.
expired() {
    awk -v prefix="$prefix-" -v hourly="$hourly" -v daily="$daily" -v weekly="$weekly" '
    # days since 1970-01-01, a Thursday
    function days(y, m, d) {
        if (m < 3) { y--; m += 12 }
        return 365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * (m - 3) + 2) / 5) + d - 719469
    }
    # kept says whether the snapshot is the newest of one of the last limit periods
    function kept(kind, period, limit) {
        if ((kind, period) in seen || count[kind] >= limit) return 0
        seen[kind, period]
        count[kind]++
        return 1
    }
    {
        if (!match($0, /"name":"[^"\\]*"/)) next
        name = substr($0, RSTART + 8, RLENGTH - 9)
        if (substr(name, 1, length(prefix)) != prefix) next
        stamp = substr(name, length(prefix) + 1)
        if (stamp !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z$/) next
        held[name] = index($0, "\"held\":true") > 0
        names[++n] = name
    }
    END {
        for (i = n; i > 0; i--) { # newest first
            stamp = substr(names[i], length(prefix) + 1)
            day = days(substr(stamp, 1, 4) + 0, substr(stamp, 6, 2) + 0, substr(stamp, 9, 2) + 0)
            keep = i == n || held[names[i]]
            if (kept("hour", day * 24 + substr(stamp, 12, 2), hourly)) keep = 1
            if (kept("day", day, daily)) keep = 1
            if (kept("week", int((day + 3) / 7), weekly)) keep = 1
            if (!keep) print names[i]
        }
    }'
}

name=$prefix-$(date -u +%Y-%m-%dT%H%M%SZ)
if [ -z "$dry" ]; then
    "$snapfs" snapshot -m "$me" -- "$mount" "$name" >/dev/null
    [ -n "$quiet" ] || echo "took $name"
fi
list=$("$snapfs" list --json -- "$mount")
old=$(printf '%s\n' "$list" | expired)
[ -n "$old" ] || exit 0
if [ -n "$dry" ]; then
    printf '%s\n' "$old" | sed 's/^/would delete /'
    exit 0
fi
# shellcheck disable=SC2086 # names of our own have no spaces
said=$("$snapfs" delete -- "$mount" $old)
[ -n "$quiet" ] || printf '%s\n' "$said"

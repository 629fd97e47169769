# Sourced by the scripts next to it, which say in their own --help what they do: the command line, the lock, the frozen tree, the
# line at the end. A script sets tool, package and usage (a function) and calls: parse "$@"; begin; frozen ...; finish ...
# shellcheck shell=sh disable=SC2034,SC2154 # what is set here is used there, and the other way round

me=$(basename "$0")
quiet='' verbose='' checkdata='' before='' after='' limit=30s keep='' flag_value=''

say() { [ -n "$quiet" ] || printf '%s: %s\n' "$me" "$*"; }
# die CODE TEXT...: codes as those of snapfs: 2 usage, 3 not a snapfs mount, 6 refused.
die() {
    code=$1
    shift
    printf '%s: %s\n' "$me" "$*" >&2
    exit "$code"
}

# quote prints its arguments so that eval reads them again.
quote() {
    for word; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    done
}

# parse reads the flags that all scripts have. It sets mount and dest (the operands) and extra (quoted: what follows "--", for the tool).
# own_flag, a function of the script's, takes flags of its own: it gets what is left of the command line, and sets flag_value to yes if
# the flag has a value.
parse() {
    mount='' dest='' extra=''
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        -q) quiet=yes ;;
        -v) verbose=yes ;;
        --check-data) checkdata=yes ;;
        --before | --after | --hook-timeout | --keep-*)
            [ $# -ge 2 ] || die 2 "$1 needs a value; see $me --help"
            case $1 in
            --before) before=$2 ;;
            --after) after=$2 ;;
            --hook-timeout) limit=$2 ;;
            --keep-*) keep="$keep$(quote "$1" "$2")" ;;
            esac
            shift
            ;;
        --)
            shift
            extra=$(quote "$@")
            break
            ;;
        -*)
            own_flag "$@" || die 2 "unknown flag $1; see $me --help"
            [ -z "$flag_value" ] || shift
            ;;
        *)
            if [ -z "$mount" ]; then
                mount=$1
            elif [ -z "$dest" ]; then
                dest=$1
            else
                die 2 "too many operands; see $me --help"
            fi
            ;;
        esac
        shift
    done
    [ -n "$mount" ] || die 2 "which MOUNTPOINT? see $me --help"
}

# begin checks what a backup needs before anything is taken, and takes the lock. It sets mount to the mount's
# own path, and out to a file for what the tool says.
begin() {
    snapfs=${SNAPFS:-snapfs}
    command -v "$snapfs" >/dev/null || die 1 "snapfs is not on PATH: install it, or say where it is in SNAPFS"
    command -v "$tool" >/dev/null || die 1 "$tool is missing: install the package $package"
    command -v flock >/dev/null || die 1 "flock is missing: install the package util-linux"
    status=$("$snapfs" status --json "$mount" 2>&1) || die $? "$(printf '%s\n' "$status" | field error)"
    mount=$(printf '%s\n' "$status" | field mountpoint)
    lock=$(lock_dir)/snapfs-$me$(printf '%s' "$mount" | tr / -).lock
    exec 9>>"$lock" || die 1 "cannot lock $lock"
    flock -n 9 || die 6 "another $me of $mount is at work"
    started=$(date +%s)
    out=$(mktemp) # what the tool says
    trap 'rm -f "$out"' EXIT
}

# quietly runs a command and shows what it says if that is wanted, or if it fails. What out holds is lost.
quietly() {
    code=0
    "$@" >"$out" 2>&1 || code=$?
    if [ "$code" != 0 ]; then
        cat "$out" >&2
    elif [ -n "$verbose" ]; then
        cat "$out"
    fi
    return "$code"
}

is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

# keep_last prints N of --keep-last N, 0 without a policy, for a script that knows no other.
keep_last() {
    n=${keep:-"'--keep-last' '0' "}
    n=${n#"'--keep-last' '"}
    n=${n%"' "}
    is_number "$n" || die 2 "the policy of $me is --keep-last N"
    echo "$n"
}

# lock_dir is where only this user can put locks: SNAPFS_LOCK_DIR, or where such things are as a rule.
lock_dir() {
    dir=${SNAPFS_LOCK_DIR:-}
    if [ -z "$dir" ] && [ "$(id -u)" = 0 ]; then
        dir=/run
    elif [ -z "$dir" ]; then
        dir=${XDG_RUNTIME_DIR:-${HOME:?HOME is not set}/.cache}
        mkdir -p "$dir"
    fi
    echo "$dir"
}

# frozen runs a command in the frozen tree and returns its exit code. A signal to this script goes to the command. The lock stays with
# snapfs, also if this script is killed, but the command does not get it: it may leave something running.
frozen() {
    set -- sh -c 'exec "$@" 9>&-' sh "$@"
    [ -z "$after" ] || set -- --after "$after" --hook-timeout "$limit" "$mount" -- "$@"
    [ -n "$after" ] || set -- --hook-timeout "$limit" "$mount" -- "$@"
    [ -z "$before" ] || set -- --before "$before" "$@"
    # shellcheck disable=SC2086 # flags are words
    "$snapfs" exec -m "$me" ${SNAPFS_EXEC_FLAGS-} "$@" &
    child=$!
    trap 'kill -TERM $child 2>/dev/null' HUP INT TERM
    code=
    while [ -z "$code" ] || kill -0 $child 2>/dev/null; do # a signal ends wait, too
        code=0
        wait $child || code=$?
    done
    trap - HUP INT TERM
    return "$code"
}

# seconds since begin
seconds() { echo $(($(date +%s) - started)); }

# field NAME prints a field of the JSON on stdin: a number, or a string without the escapes of JSON in it.
field() { sed -n "s/.*\"$1\": *\(\"\([^\"\\\\]*\)\"\|\([0-9.e+-]*\)\).*/\2\3/p" | head -n 1; }

# human BYTES writes a size for people, as snapfs does.
human() {
    awk -v n="$1" 'BEGIN {
        split("B KiB MiB GiB TiB PiB", unit, " ")
        for (i = 1; n >= 1024 && i < 6; i++) n /= 1024
        printf i == 1 ? "%d %s" : "%.1f %s", n, unit[i]
    }'
}

# stamp is the time in UTC, as in the default names of snapshots.
stamp() { date -u +%Y-%m-%dT%H%M%SZ; }

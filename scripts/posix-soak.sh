#!/usr/bin/env bash
# Long tests of names and directories: a directory of a million entries, a file of 70,000 names, random changes of names beside ext4,
# and the memory of the daemon while it lists. Ends with the first failure.
set -euo pipefail

usage() {
    cat <<END
usage: scripts/posix-soak.sh [ENTRIES] [CHECKS] [DIRECTORY]

  ENTRIES    in the big directory (default 1000000: about a quarter of an hour on two cores)
  CHECKS     random histories beside ext4 (default 20000; root only)
  DIRECTORY  of another file system, for comparison: the same directory is made and listed there, too
END
}

case ${1-} in -h | --help) usage; exit 0 ;; esac
entries=${1:-1000000} checks=${2:-20000} beside=${3-}
[[ $entries =~ ^[0-9]+$ && $checks =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }
cd "$(dirname "$0")/.."

work=$(mktemp -d)
snapfs=$work/snapfs
finish() {
    mountpoint -q "$work/mnt" && "$snapfs" umount "$work/mnt"
    rm -rf "$work"
    [[ -z $beside ]] || rm -rf "$beside/posix-soak"
}
trap finish EXIT

echo "== tests"
SNAPFS_BIG_DIRECTORY=$entries go test -count=1 -v -timeout 2h -run '^(TestBigDirectory|TestManyLinks)$' .
go test -count=1 -timeout 2h -run '^TestRandomLikeExt4$' -rapid.checks="$checks" .

# many DIRECTORY: makes a directory of many entries, and lists it, with rates.
many() {
    local start=$EPOCHREALTIME made listed
    mkdir "$1"
    (cd "$1" && seq -f 'entry%07.0f' 1 "$entries" | xargs -n 1000 touch)
    made=$EPOCHREALTIME
    [[ $(find "$1" -mindepth 1 -printf 'x' | wc -c) == "$entries" ]] || { echo "$1 does not list $entries entries" >&2; exit 1; }
    listed=$EPOCHREALTIME
    awk -v n="$entries" -v a="$start" -v b="$made" -v c="$listed" -v d="$1" \
        'BEGIN { printf "%s: made %.0f a second, listed %.0f a second\n", d, n / (b - a), n / (c - b) }'
}
resident() { "$snapfs" status --json "$work/mnt" | sed 's/.*"resident_bytes":\([0-9]*\).*/\1/'; }

echo "== memory of the daemon"
go build -o "$snapfs" ./cmd/snapfs
"$snapfs" mount "$work/store" "$work/mnt"
many "$work/mnt/posix-soak"
"$snapfs" umount "$work/mnt"
"$snapfs" mount "$work/store" "$work/mnt"
before=$(resident)
for _ in 1 2 3; do
    # shellcheck disable=SC2012 # names are ours
    ls -f "$work/mnt/posix-soak" | wc -l
done
after=$(resident)
echo "resident: $before bytes, after three listings $after"
((after - before < 64 << 20)) || { echo "listing takes memory that is not given back" >&2; exit 1; }
"$snapfs" umount "$work/mnt"
"$snapfs" check "$work/store"
[[ -z $beside ]] || many "$beside/posix-soak"
echo "== everything held"

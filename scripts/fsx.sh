#!/bin/sh
# Does random operations on the bytes of files of a mount, through descriptors and mappings, with snapshots, remounts and killed
# daemons in between, and compares every byte with a model. Ends with the first failure, which says how to repeat it.
set -eu

usage() {
    cat <<END
usage: scripts/fsx.sh [OPERATIONS [ROUNDS]]

  OPERATIONS  how many in a round (default 100000): about three minutes on two cores, once with and once without
              writeback=on.
  ROUNDS      how many rounds (default 1), each with a seed of its own. SNAPFS_FSX_SEED=N repeats a round.
END
}

for arg; do
    case $arg in
    -h | --help) usage; exit 0 ;;
    '' | *[!0-9]*) usage >&2; exit 2 ;;
    esac
done
export SNAPFS_FSX_OPS="${1:-100000}"
rounds=${2:-1}
cd "$(dirname "$0")/.."
round=1
while [ "$round" -le "$rounds" ]; do
    echo "== round $round of $rounds"
    go test -count=1 -timeout 24h -v -run '^TestFsx$' .
    round=$((round + 1))
done

#!/bin/sh
# Runs the tests that look for rare things for as long as you like: power cuts on ext4, xfs and btrfs images, kills, many clients, random
# histories against models, histories with faults. Ends with the first failure, which says how to repeat it.
set -eu

usage() {
    cat <<END
usage: scripts/soak.sh [ROUNDS]

  ROUNDS  how many rounds (default 10). One is 30 power cuts and 30 images of disks at work on each file system (root only),
          30 kills of daemons and writers, three minutes of many clients, 100,000 files opened and closed, and 2,000 random histories of each
          model: about 20 minutes on two cores.
END
}

case ${1-} in
-h | --help) usage; exit 0 ;;
*[!0-9]*) usage >&2; exit 2 ;;
esac
rounds=${1:-10}
cd "$(dirname "$0")/.."
round=1
while [ "$round" -le "$rounds" ]; do
    echo "== round $round of $rounds"
    SNAPFS_POWERCUTS=30 go test -count=1 -timeout 30m -run '^TestPowerCut' ./snapshot
    SNAPFS_POWERCUTS=30 go test -count=1 -timeout 60m -run '^Test(Kills|KillAtSteps|WhatAKillLoses|SignalsAtWork|PowerCutUnderDaemon)$' ./snapshot ./cmd/snapfs
    SNAPFS_STRESS_SECONDS=60 go test -count=1 -timeout 30m -race -run '^Test(Stress|ManyClients|ManySnapshots)$' .
    SNAPFS_STRESS_SECONDS=60 go test -count=1 -timeout 30m -run '^TestChurn$' ./snapshot
    SNAPFS_LOAD=20 go test -count=1 -timeout 30m -run '^Test(OpenAndClose|HugeSparseFile)$' .
    SNAPFS_STRESS_SECONDS=60 go test -count=1 -timeout 30m -race -run '^TestCrowd$' ./snapshot
    go test -count=1 -timeout 30m -run 'Model|Order' -rapid.checks=2000 ./cow ./snapshot
    go test -count=1 -timeout 30m -race -run 'Writer|Frozen|Orphan|Killed|Concurrent' ./cow ./snapshot
    round=$((round + 1))
done

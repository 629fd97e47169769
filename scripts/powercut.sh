#!/bin/sh
# Cuts the power of stores at work, on real file systems in images in memory, and verifies every time what must be there afterwards.
set -eu

usage() {
    cat <<END
usage: scripts/powercut.sh [ROUNDS] [--fs ext4|xfs|btrfs|all]

  ROUNDS  how many rounds on each file system (default 100). In a round a load writes, truncates, syncs, renames, takes and deletes
          snapshots, until the file system is shut down without its log being flushed; most of the time the power goes again,
          up to twice, while the store is brought to order. As many images of the disk at work are opened besides, and as
          many cuts are made below a mounted daemon. A hundred rounds take about 15 minutes for all file systems on two cores.
  --fs    which file system; btrfs cannot be shut down so, there are only images of it. ext4 is tried with ordered data and without.

Needs root, loop devices, 2 GiB of memory. Ends with the first failure, and says where the journal of the load is.
END
}

rounds=100 fs=all
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --fs) [ $# -ge 2 ] || { usage >&2; exit 2; }; fs=$2; shift ;;
    --fs=*) fs=${1#--fs=} ;;
    '' | *[!0-9]*) usage >&2; exit 2 ;;
    *) rounds=$1 ;;
    esac
    shift
done
case $fs in ext4 | xfs | btrfs | all) ;; *) usage >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
SNAPFS_POWERCUTS=$rounds SNAPFS_POWERCUT_FS=$fs go test -count=1 -timeout 24h -v -run '^TestPowerCut' ./snapshot ./cmd/snapfs

#!/usr/bin/env bash
# faults.sh [ROUNDS]: a real daemon on a failing disk. strace(1) makes system calls of it fail, others in each round; what was acknowledged
# has to be there afterwards, and every snapshot unchanged. Needs root's or your own /dev/fuse, and strace.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-20}
dir=$(mktemp -d "${TMPDIR:-/tmp}/snapfs-faults.XXXXXX")
store=$dir/store point=$dir/mnt snapfs=$dir/snapfs
calls=(pwrite64 fdatasync fsync fallocate renameat write unlinkat pread64 sync_file_range)
errors=(EIO ENOSPC EIO EDQUOT)
daemon=

clean() {
    [[ -z $daemon ]] || kill -KILL "$daemon" 2>/dev/null || true
    fusermount3 -quz "$point" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean EXIT
die() { printf 'faults.sh: %s\n' "$*" >&2; tail -20 "$dir/log" >&2; exit 1; }

# load changes the tree. What is acknowledged it says: "file NAME SUM" of a synced file, "snapshot NAME SUM". Failures are expected.
load() {
    local i name sum
    for i in 1 2 3 4 5 6; do
        name=f$((RANDOM % 5))
        if head -c $((RANDOM * 3 + 1)) /dev/urandom >"$dir/new" && sum=$(md5sum <"$dir/new") &&
            echo "touched $name" && cat "$dir/new" >"$point/$name" && sync "$point/$name"; then
            echo "file $name $sum"
        fi
        if name=s$RANDOM$RANDOM && "$snapfs" snapshot "$point" "$name" >/dev/null && sum=$(cat "$point/.snapshots/$name"/f* | md5sum); then
            echo "snapshot $name $sum"
        fi
        if ((i == 4)) && name=$(find "$point/.snapshots" -mindepth 1 -maxdepth 1 -printf "%f\n" -quit) && [[ -n $name ]] && echo "deleting $name"; then
            "$snapfs" delete "$point" "$name" >/dev/null || true
        fi
    done 2>>"$dir/log"
}

# verify compares with what was said, newest word last.
verify() {
    local kind name sum
    declare -A files=() snaps=()
    while read -r kind name sum; do
        case $kind in
        touched) unset "files[$name]" ;;
        file) files[$name]=$sum ;;
        snapshot) snaps[$name]=$sum ;;
        deleting) unset "snaps[$name]" ;;
        esac
    done <"$dir/said"
    for name in "${!files[@]}"; do
        [[ $(md5sum <"$point/$name") == "${files[$name]}" ]] || die "$name was synced and is not what it was"
    done
    for name in "${!snaps[@]}"; do
        [[ $(cat "$point/.snapshots/$name"/f* | md5sum) == "${snaps[$name]}" ]] || die "snapshot $name has changed"
    done
}

go build -o "$snapfs" ./cmd/snapfs
mkdir "$point"
: >"$dir/said"
lived=0 refused=0
for ((round = 0; round < rounds; round++)); do
    call=${calls[round % ${#calls[@]}]} error=${errors[round % ${#errors[@]}]}
    when=$((RANDOM % 40 + 1))
    ((RANDOM % 2)) && when=$when+$((RANDOM % 20 + 1)) # again and again
    printf 'round %d: %s of %s, the calls %s of each thread\n' "$round" "$error" "$call" "$when" | tee -a "$dir/log"
    strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:error=$error:when=$when" "$snapfs" mount -f "$store" "$point" >>"$dir/log" 2>&1 &
    daemon=$!
    for ((i = 0; i < 200; i++)); do
        mountpoint -q "$point" && break
        kill -0 $daemon 2>/dev/null || break
        sleep 0.1
    done
    if mountpoint -q "$point"; then
        lived=$((lived + 1))
        timeout 120 bash -c "set -o pipefail; $(declare -f load); dir=$dir point=$point snapfs=$snapfs; load" >>"$dir/said" || [[ $? != 124 ]] || die "the load hangs"
        timeout 60 "$snapfs" umount "$point" >>"$dir/log" 2>&1 || [[ $? != 124 ]] || die "umount hangs"
    else
        refused=$((refused + 1)) # the error came while the store was opened
    fi
    for ((i = 0; i < 300; i++)); do
        kill -0 $daemon 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL $daemon 2>/dev/null && fusermount3 -quz "$point" 2>/dev/null
    wait $daemon || true
    daemon=
    "$snapfs" check "$store" >>"$dir/log" 2>&1 || die "check finds damage after round $round"
    "$snapfs" mount "$store" "$point" || die "the store does not open after round $round"
    verify
    "$snapfs" umount "$point"
done
printf 'faults.sh: %d rounds (%d refused to mount), nothing lost\n' "$rounds" "$refused"

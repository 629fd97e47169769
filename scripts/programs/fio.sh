#!/usr/bin/env bash
# fio: random and sequential writes by several methods, each block with a checksum that is verified, live and frozen.
# needs: fio=fio
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

size=$(pick 8 64)M
# job ENGINE PATTERN [FLAG...] runs or verifies one file.
job() {
    fio --name="$1-$2" --directory="$LIVE" --ioengine="$1" --rw="$2" --bs=4k-64k --bsrange=4k-64k --size="$size" --randseed=7 --fallocate=none \
        --verify=crc32c --verify_fatal=1 --verify_state_save=0 --group_reporting --output="$SCRATCH/$1-$2.log" "${@:3}" ||
        fail "fio $1 $2: $(tail -n 20 "$SCRATCH/$1-$2.log")"
}
engines=(psync libaio mmap io_uring vsync)
for engine in "${engines[@]}"; do
    if ! fio --name=probe --directory="$SCRATCH" --ioengine="$engine" --size=4k --rw=write >/dev/null 2>&1; then continue; fi
    used+="$engine "
    for pattern in write randwrite; do
        job "$engine" "$pattern" --do_verify=1 --fsync=200
        freeze "$engine-$pattern"
        want=$(sha256sum <"$LIVE/$engine-$pattern.0.0")
        job "$engine" "$pattern" --do_verify=1 --randseed=8 --overwrite=1 & # everything anew
        sleep 0.3
        freeze "$engine-$pattern-over"
        wait $! || fail "fio failed during a snapshot"
        same "the frozen file of $engine $pattern" "$want" "$(sha256sum <"$MOUNT/.snapshots/$PROGRAM-$engine-$pattern/$PROGRAM/$engine-$pattern.0.0")"
        [[ "$want" != "$(sha256sum <"$LIVE/$engine-$pattern.0.0")" ]] || fail "$engine $pattern: nothing was overwritten"
    done
done
job psync randrw --direct=1
job psync write --direct=1 --sync=1 --size=2M
checked "write and randwrite of $size with ${used}and O_DIRECT, O_SYNC: all checksums verified; frozen files unchanged while everything is overwritten"

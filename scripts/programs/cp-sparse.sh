#!/usr/bin/env bash
# cp-sparse: cp with every --sparse and --reflink, of holes, data and their mixture, live and from a snapshot.
# needs: cp=coreutils filefrag=e2fsprogs
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

cd "$LIVE" || exit
size=$(pick 12000001 80000001)
truncate -s "$size" hole
head -c "$((size / 10))" /dev/urandom >data
truncate -s "$size" islands
for ((at = 0; at < size / 65536; at += 37)); do
    head -c 5000 /dev/urandom | dd of=islands bs=4096 seek=$((at * 16)) conv=notrunc status=none
done
head -c "$((size / 10))" /dev/zero >zeros
cp islands punched
fallocate -p -o 65536 -l $((size / 2)) punched
before=$(sha256sum hole data islands zeros punched)

allocated() { stat -c '%b' "$1"; }
# copies FROM TO: every way of copying gives the same bytes, and the blocks that it should.
copies() {
    local from=$1 to=$2 how name
    mkdir "$to"
    for how in --sparse=always --sparse=never --sparse=auto --reflink=auto --reflink=never -a --preserve=all; do
        mkdir "$to/$how"
        for name in hole data islands zeros punched; do
            cp "$how" "$from/$name" "$to/$how/$name" || fail "cp $how $from/$name"
            cmp "$from/$name" "$to/$how/$name" || fail "cp $how $name differs"
        done
        same "size after cp $how" "$size" "$(stat -c %s "$to/$how/hole")"
    done
    same "blocks of a hole after cp --sparse=always" 0 "$(allocated "$to/--sparse=always/hole")"
    same "blocks of zeros after cp --sparse=always" 0 "$(allocated "$to/--sparse=always/zeros")"
    same "blocks of a hole after cp --sparse=auto" 0 "$(allocated "$to/--sparse=auto/hole")"
    at_least "blocks of a hole after cp --sparse=never" $((size / 512)) "$(allocated "$to/--sparse=never/hole")"
    at_least "blocks left out by cp -a of islands" "$(allocated "$to/-a/islands")" $((size / 512 / 4))
    ! cp --reflink=always "$from/data" "$to/clone" 2>/dev/null || cmp "$from/data" "$to/clone" || fail "a clone differs"
}

copies . live &
sleep 0.3
freeze copying
wait $! || fail "cp failed during a snapshot"
freeze copied
# The frozen files stay as they are while the live ones are overwritten.
(for name in hole data islands zeros punched; do head -c 3000000 /dev/urandom | dd of="$name" conv=notrunc bs=65536 status=none; done) &
copies "$FROZEN" from-frozen
wait $!
same "the frozen files" "$before" "$(cd "$FROZEN" && sha256sum hole data islands zeros punched)"
same "the copies from the frozen files" "$before" "$(cd from-frozen/-a && sha256sum hole data islands zeros punched)"
checked "hole, data, islands, zeros, punched x 7 forms of cp, live and from a snapshot: same bytes, holes stay holes"

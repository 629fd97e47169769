#!/usr/bin/env bash
# lmdb: writes through shared mappings and reads through them; a frozen environment holds one whole committed transaction.
# needs: gcc=gcc mdb_dump=lmdb-utils /usr/include/lmdb.h=liblmdb-dev /usr/include/stdio.h=libc6-dev
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

gcc -O1 -o "$SCRATCH/lmdb" "$(dirname "$0")/lmdb.c" -llmdb
transactions=$(pick 150 1500)

# transaction DIR prints the number of the one transaction that is in an environment.
transaction() {
    mdb_dump -p "$1" >"$SCRATCH/dump" || fail "mdb_dump $1"
    awk '/^ [0-9]+\./ { seen[$1 + 0]++; values++ } END {
        for (n in seen) kinds++
        if (kinds != 1 || values != 200) { print values " values of " kinds " transactions"; exit 1 }
        print n }' "$SCRATCH/dump"
}

# sound DIR ACKNOWLEDGED: it opens, has a whole transaction not older than the acknowledged, and dumps, copies and loads alike.
sound() {
    local n
    n=$(transaction "$1") || fail "$1: $n"
    at_least "$1: transaction" "$2" "$n"
    same "$1: entries by mdb_stat" 200 "$(mdb_stat "$1" | awk '/Entries/ { print $2 }')"
    rm -rf "$SCRATCH/compact" "$SCRATCH/loaded"
    mkdir "$SCRATCH/compact" "$SCRATCH/loaded"
    mdb_copy -c "$1" "$SCRATCH/compact" || fail "mdb_copy $1"
    mdb_load -f "$SCRATCH/dump" "$SCRATCH/loaded" || fail "mdb_load of the dump of $1"
    local data
    data=$(sed 1,/HEADER=END/d "$SCRATCH/dump")
    same "$1: copied" "$data" "$(mdb_dump -p "$SCRATCH/compact" | sed 1,/HEADER=END/d)"
    same "$1: loaded" "$data" "$(mdb_dump -p "$SCRATCH/loaded" | sed 1,/HEADER=END/d)"
}

snapshots=0
for how in map file; do
    mkdir "$LIVE/$how"
    "$SCRATCH/lmdb" "$LIVE/$how" "$how" 1 1 >"$SCRATCH/$how"
    "$SCRATCH/lmdb" "$LIVE/$how" "$how" 2 "$transactions" >>"$SCRATCH/$how" &
    frozen=() promised=()
    for ((i = 0; i < $(pick 4 10); i++)); do
        sleep "0.$((RANDOM % 4))"
        promised+=("$(tail -n 1 "$SCRATCH/$how")")
        freeze "$how-$i"
        frozen+=("$FROZEN/$how")
        snapshots=$((snapshots + 1))
        sound "$FROZEN/$how" "${promised[-1]}" # in place: the frozen file is mapped for reading
    done
    wait $! || fail "the writer failed"
    for ((i = 0; i < ${#frozen[@]}; i++)); do
        sound "$(copy "${frozen[i]}" copy)" "${promised[i]}"
        "$SCRATCH/lmdb" "$SCRATCH/copy" "$how" 1000000 1000003 >/dev/null || fail "a copy of snapshot $i does not go on"
        same "a copy that went on" 1000003 "$(transaction "$SCRATCH/copy")"
    done
    same "the live environment" "$transactions" "$(transaction "$LIVE/$how")"
done
checked "$transactions transactions with MDB_WRITEMAP and without; $snapshots snapshots while writing: mdb_dump, mdb_stat, mdb_copy, mdb_load, in place and copied: one whole transaction, not older than acknowledged"

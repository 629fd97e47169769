#!/usr/bin/env bash
# sqlite: several processes write one database in each journal mode; a frozen copy recovers to a prefix of what was committed.
# needs: sqlite3=sqlite3
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

writers=3 transactions=$(pick 80 500)

# statements SYNCHRONOUS WRITER: transactions that each change two tables and a counter, and then say their number.
statements() {
    # Every other writer reads through a mapping what the others write with write(2).
    printf '.timeout 120000\n.output /dev/null\nPRAGMA synchronous=%s; PRAGMA mmap_size=%d;\n.output stdout\n' "$1" $(($2 % 2 * 100000000))
    awk -v w="$2" -v n="$transactions" 'BEGIN { for (i = 1; i <= n; i++)
        printf "BEGIN IMMEDIATE; INSERT INTO a VALUES(%d,%d,hex(randomblob(600))); INSERT INTO b VALUES(%d,%d,hex(randomblob(200)));" \
            " UPDATE sums SET n=n+1 WHERE w=%d; COMMIT; SELECT %d;\n", w, i, w, i, w, i }'
}

# recovers DIR ACKNOWLEDGED...: the database is sound and has whole transactions only, of each writer a prefix with all
# that it was told are committed.
recovers() {
    local db=$1/data.db w=0 n a b top sum
    shift
    same "integrity of $db" ok "$(sqlite3 -batch "$db" 'PRAGMA integrity_check')"
    while IFS='|' read -r n a b top sum; do
        w=$((w + 1))
        same "$db: rows of writer $w" "$n|$n|$n|$n" "$a|$b|$top|$sum"
        at_least "$db: transactions of writer $w" "$1" "$n"
        shift
    done < <(sqlite3 -batch "$db" 'SELECT (SELECT count(*) FROM a WHERE a.w=s.w), (SELECT count(*) FROM b WHERE b.w=s.w),
        (SELECT count(*) FROM a JOIN b USING(w,i) WHERE a.w=s.w), (SELECT ifnull(max(i),0) FROM a WHERE a.w=s.w), n FROM sums s ORDER BY w')
    same "$db: writers" "$writers" "$w"
}

# acknowledged MODE prints the last transaction that each writer was told is committed.
acknowledged() {
    local w n
    for ((w = 1; w <= writers; w++)); do
        n=$(tail -n 1 "$SCRATCH/$1.$w")
        printf '%d ' "${n:-0}"
    done
}

snapshots=0 seen=0
under_load() { # MODE SYNCHRONOUS
    local mode=$1 db=$LIVE/$1 w i jobs=() frozen=() promised=()
    mkdir "$db"
    sqlite3 -batch "$db/data.db" "PRAGMA journal_mode=$mode; PRAGMA wal_autocheckpoint=50; CREATE TABLE a(w,i,x,PRIMARY KEY(w,i));
        CREATE TABLE b(w,i,x,PRIMARY KEY(w,i)); CREATE TABLE sums(w INTEGER PRIMARY KEY, n); CREATE INDEX texts ON a(x);
        INSERT INTO sums VALUES $(for ((w = 1; w < writers; w++)); do printf '(%d,0),' "$w"; done)($writers,0)" >/dev/null
    for ((w = 1; w <= writers; w++)); do
        statements "$2" "$w" | stdbuf -oL sqlite3 -batch "$db/data.db" >"$SCRATCH/$mode.$w" &
        jobs+=($!)
    done
    for ((i = 0; i < $(pick 3 8); i++)); do
        sleep "0.$((RANDOM % 8 + 1))"
        promised+=("$(acknowledged "$mode")")
        freeze "$mode-$i"
        frozen+=("$FROZEN/$mode")
        snapshots=$((snapshots + 1))
    done
    for i in "${jobs[@]}"; do wait "$i" || fail "a writer failed"; done
    for ((i = 0; i < ${#frozen[@]}; i++)); do
        # shellcheck disable=SC2086 # one argument for each writer
        recovers "$(copy "${frozen[i]}" copy)" ${promised[i]}
        for w in ${promised[i]}; do seen=$((seen + w)); done
    done
    # shellcheck disable=SC2046 # one argument for each writer
    recovers "$db" $(for ((w = 1; w <= writers; w++)); do echo "$transactions"; done)
}

under_load WAL NORMAL
under_load DELETE FULL
under_load TRUNCATE FULL
under_load PERSIST EXTRA
checked "$writers writers, $transactions transactions each, in WAL, DELETE, TRUNCATE, PERSIST; $snapshots snapshots under load: sound, prefixes with all $seen acknowledged"

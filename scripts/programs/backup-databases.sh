#!/usr/bin/env bash
# backup-databases: PostgreSQL, Redis and SQLite are started on what backup-rsync.sh copied under load; a pause for two mounts.
# needs: /usr/lib/postgresql/*/bin/postgres=postgresql redis-server=redis-server sqlite3=sqlite3 rsync=rsync setpriv=util-linux
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"
export SNAPFS_LOCK_DIR=$SCRATCH

tree=$SCRATCH/mnt backups=$SCRATCH/backups
"$SNAPFS" mount "$SCRATCH/store" "$tree"
"$SNAPFS" mount "$SCRATCH/other-store" "$SCRATCH/other"
finish() {
    local pid
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
    wait || true
    "$SNAPFS" umount "$tree" || umount -l "$tree"
    "$SNAPFS" umount "$SCRATCH/other" || umount -l "$SCRATCH/other"
}
trap 'finish >&2' EXIT

bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
user=postgres
id -u "$user" >/dev/null 2>&1 || user=nobody
as=() # a server refuses to be root's
((EUID != 0)) || as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --reset-env)
psql() { "${as[@]}" "$bin/psql" -h "$1" -U tester -XAtq -d postgres -c "$2"; }
server() {
    mkdir -p "$2"
    ((EUID != 0)) || chown "$user" "$2"
    "${as[@]}" "$bin/postgres" -D "$1" -k "$2" -h '' -c shared_buffers=16MB >>"$SCRATCH/postgres.log" 2>&1 &
    wait_for 120 "${as[@]}" "$bin/pg_isready" -q -h "$2"
}
backup() { "$PROJECT/scripts/backup-rsync.sh" "$tree" "$backups" || fail "backup-rsync.sh ended with $?"; }

mkdir "$tree/pg" "$tree/redis" "$tree/sqlite" "$backups"
((EUID != 0)) || chown "$user" "$tree/pg"
"${as[@]}" "$bin/initdb" -D "$tree/pg" -U tester -A trust >/dev/null
server "$tree/pg" "$SCRATCH/s1"
"${as[@]}" "$bin/pgbench" -h "$SCRATCH/s1" -U tester -i -q -s "$(pick 1 5)" postgres >/dev/null 2>&1
"${as[@]}" "$bin/pgbench" -h "$SCRATCH/s1" -U tester -n -c 4 -T 600 postgres >/dev/null 2>&1 &
redis-server --dir "$tree/redis" --port 0 --unixsocket "$SCRATCH/redis.sock" --appendonly yes --appendfsync always --save '' >/dev/null &
wait_for 60 redis-cli -s "$SCRATCH/redis.sock" ping
while redis-cli -s "$SCRATCH/redis.sock" incr counter >"$SCRATCH/counter.new" && mv "$SCRATCH/counter.new" "$SCRATCH/counter"; do :; done &
sqlite3 "$tree/sqlite/db" 'PRAGMA journal_mode=WAL; CREATE TABLE t(n); CREATE TABLE u(n)' >/dev/null
(while :; do printf 'BEGIN IMMEDIATE; INSERT INTO t VALUES(1); INSERT INTO u VALUES(1); COMMIT;\n'; done | sqlite3 -batch "$tree/sqlite/db") &

for round in 1 2 3; do
    sleep "$(pick 1 5)"
    committed=$(psql "$SCRATCH/s1" 'SELECT count(*) FROM pgbench_history')
    counter=$(<"$SCRATCH/counter")
    rows=$(sqlite3 -batch -cmd '.timeout 60000' "$tree/sqlite/db" 'SELECT count(*) FROM t')
    backup
    copy=$SCRATCH/copy
    rm -rf "$copy"
    cp -a "$backups/latest/." "$copy" # a database that is started writes

    # PostgreSQL starts as after a power cut, from its log: no pg_backup_start, since nothing moved while it was copied.
    rm -f "$copy/pg/postmaster.pid"
    server "$copy/pg" "$SCRATCH/s2"
    IFS='|' read -r count agree < <(psql "$SCRATCH/s2" 'SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts)
        AND sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_history')
    same "PostgreSQL's sums in round $round" t "$agree"
    at_least "PostgreSQL's transactions" "$committed" "$count"
    "${as[@]}" "$bin/pg_amcheck" -h "$SCRATCH/s2" -U tester --install-missing --heapallindexed -d postgres || fail "pg_amcheck"
    kill -INT "$(head -n 1 "$copy/pg/postmaster.pid")"
    wait_for 60 test ! -e "$copy/pg/postmaster.pid"

    redis-server --dir "$copy/redis" --port 0 --unixsocket "$SCRATCH/redis2.sock" --appendonly yes --save '' >/dev/null &
    redis=$!
    wait_for 60 redis-cli -s "$SCRATCH/redis2.sock" ping
    at_least "Redis' counter" "$counter" "$(redis-cli -s "$SCRATCH/redis2.sock" get counter)"
    kill "$redis"
    wait "$redis" || true

    same "SQLite" "ok" "$(sqlite3 -batch "$copy/sqlite/db" 'PRAGMA integrity_check')"
    IFS='|' read -r t u < <(sqlite3 -batch "$copy/sqlite/db" 'SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)')
    same "SQLite's tables" "$t" "$u"
    at_least "SQLite's rows" "$rows" "$t"
done

# A program that keeps one thing on two mounts, of which no single snapshot is one moment: it is stopped for both.
(for ((n = 1; ; n++)); do printf '%s' "$n" >"$tree/n" && printf '%s' "$n" >"$SCRATCH/other/n"; done) &
pair=$!
for ((i = 0; i < 20; i++)); do
    "$SNAPFS" snapshot --before "kill -STOP $pair" --after "'$SNAPFS' snapshot '$SCRATCH/other' pair$i >&2; kill -CONT $pair" "$tree" "pair$i" >/dev/null 2>&1
    a=$(<"$tree/.snapshots/pair$i/n") b=$(<"$SCRATCH/other/.snapshots/pair$i/n")
    # Also stopped between opening a file, which empties it, and writing to it.
    [[ -z $a || -z $b || $((a - b)) == 0 || $((a - b)) == 1 ]] || fail "the pair of snapshots is not one moment: $a and $b"
done
trap - EXIT
finish >&2
checked "3 copies of a tree with PostgreSQL ($count transactions), Redis (AOF) and SQLite (WAL) under load start and have all that was committed; 20 pauses"

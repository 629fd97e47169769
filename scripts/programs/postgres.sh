#!/usr/bin/env bash
# postgres: pgbench under snapshots; a server on a frozen copy recovers, is sound, and has every transaction seen committed.
# needs: /usr/lib/postgresql/*/bin/postgres=postgresql setpriv=util-linux
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
user=postgres
id -u "$user" >/dev/null 2>&1 || user=nobody
as=() # a server refuses to be root's
((EUID != 0)) || as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --reset-env)
psql() { "${as[@]}" "$bin/psql" -h "$1" -U tester -XAtq -d postgres -c "$2"; }

# server DATA SOCKETDIR [SETTING...] starts one in the background, which pid then names.
server() {
    local settings=() s
    for s in "${@:3}"; do settings+=(-c "$s"); done
    mkdir -p "$2"
    ((EUID != 0)) || chown "$user" "$2"
    "${as[@]}" "$bin/postgres" -D "$1" -k "$2" -h '' -c shared_buffers=16MB -c max_wal_size=64MB -c min_wal_size=32MB -c checkpoint_timeout=30s \
        -c log_min_messages=warning "${settings[@]}" >>"$SCRATCH/log" 2>&1 &
    pid=$!
    wait_for 120 "${as[@]}" "$bin/pg_isready" -q -h "$2"
}
stop() {
    kill -INT "$1"
    wait "$1" || fail "the server ended with $?"
}

# Each sum of balances is the sum of all that ever was transferred.
consistency="SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) AND sum(delta) = (SELECT sum(tbalance) FROM pgbench_tellers)
    AND sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches), (SELECT count(*) FROM pgbench_accounts) FROM pgbench_history"
scale=$(pick 1 5)

# sound SOCKETDIR COMMITTED: sums agree, nothing committed is missing, tables and indexes match.
sound() {
    local count agree accounts
    IFS='|' read -r count agree accounts < <(psql "$1" "$consistency")
    same "$1: sums agree" t "$agree"
    same "$1: accounts" $((scale * 100000)) "$accounts"
    at_least "$1: transactions" "$2" "$count"
    "${as[@]}" "$bin/pg_amcheck" -h "$1" -U tester --install-missing --heapallindexed --parent-check -d postgres >"$SCRATCH/amcheck" 2>&1 ||
        fail "pg_amcheck $1: $(cat "$SCRATCH/amcheck")"
}

# recovers FROZEN COMMITTED: the check of a server that is started on a copy. dump is then what pg_dump says there.
recovers() {
    local data pid
    data=$(copy "$1" copy)
    rm -f "$data/postmaster.pid"
    server "$data" "$SCRATCH/s2"
    sound "$SCRATCH/s2" "$2"
    dump=$(dumped "$SCRATCH/s2")
    stop "$pid"
    "${as[@]}" "$bin/pg_checksums" --check -D "$data" >"$SCRATCH/checksums" || fail "pg_checksums: $(cat "$SCRATCH/checksums")"
}
dumped() { "${as[@]}" "$bin/pg_dump" -h "$1" -U tester -t 'pgbench_*' postgres | grep -v '^\\\(un\)\?restrict' | sha256sum; }
committed() { psql "$SCRATCH/s1" 'SELECT count(*) FROM pgbench_history'; }

snapshots=0 total=0
run() { # SETTING...
    local data=$LIVE/data-$1 pid load i frozen=() promised=() dump
    mkdir "$data"
    ((EUID != 0)) || chown "$user" "$LIVE" "$data" "$SCRATCH"
    "${as[@]}" "$bin/initdb" -k -U tester --auth=trust --locale=C.UTF-8 -D "$data" >"$SCRATCH/initdb" || fail "initdb: $(cat "$SCRATCH/initdb")"
    server "$data" "$SCRATCH/s1" "$@"
    "${as[@]}" "$bin/pgbench" -h "$SCRATCH/s1" -U tester -q -i -s "$scale" postgres >/dev/null 2>&1 || fail "pgbench -i"
    "${as[@]}" "$bin/pgbench" -h "$SCRATCH/s1" -U tester -n -c 6 -j 2 -T "$(pick 10 40)" postgres >"$SCRATCH/pgbench" 2>&1 &
    load=$!
    for ((i = 0; i < $(pick 3 6); i++)); do
        sleep "$((RANDOM % 4 + 1))"
        promised+=("$(committed)")
        freeze "$1-$i"
        frozen+=("$FROZEN/data-$1")
        snapshots=$((snapshots + 1))
    done
    psql "$SCRATCH/s1" 'VACUUM FULL pgbench_accounts' & # new files, many renames and truncations
    promised+=("$(committed)")
    freeze "$1-vacuum"
    frozen+=("$FROZEN/data-$1")
    wait $! || fail "VACUUM FULL"
    wait "$load" || fail "pgbench: $(tail -n 5 "$SCRATCH/pgbench")"
    local want now
    want=$(dumped "$SCRATCH/s1") now=$(committed)
    total=$((total + now))
    freeze "$1-quiet"
    for ((i = 0; i < ${#frozen[@]}; i++)); do recovers "${frozen[i]}" "${promised[i]}"; done
    recovers "$FROZEN/data-$1" "$now"
    same "pg_dump of the recovered snapshot and of the live server" "$want" "$dump"
    sound "$SCRATCH/s1" "$now"
    stop "$pid"
    "${as[@]}" "$bin/pg_checksums" --check -D "$data" >/dev/null || fail "pg_checksums of the live cluster"
}

run wal_sync_method=fdatasync
[[ $SHORT ]] || run wal_sync_method=open_datasync
checked "initdb, pgbench (scale $scale, $total transactions), VACUUM FULL; $snapshots snapshots under load and quiet ones: a second server recovers, sums agree, all seen committed, pg_amcheck, pg_checksums, equal pg_dump"

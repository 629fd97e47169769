#!/usr/bin/env bash
# redis: the append-only file and RDB files written by a fork, on the mount; a server on a frozen copy has every acknowledged write.
# needs: redis-server=redis-server redis-cli=redis-tools redis-check-aof=redis-tools
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

socket=$SCRATCH/live.sock copied=$SCRATCH/copy.sock
requests=$(pick 6000 60000)
server() { # DIR SOCKET [SETTING...]
    redis-server --port 0 --unixsocket "$2" --dir "$1" --daemonize no --enable-debug-command yes --loglevel warning "${@:3}" >>"$SCRATCH/log" 2>&1 &
    wait_for 60 redis_ready "$2"
}
redis_ready() { [[ $(redis-cli -s "$1" ping) == PONG ]]; }
cli() { redis-cli -s "$socket" "$@"; }
digest() { redis-cli -s "$1" debug digest; }
stop() { redis-cli -s "$1" shutdown "${2:-nosave}" >/dev/null 2>&1 || true; wait "$3"; }

# load: pairs of counters that only ever change together, and keys that come and go.
load() {
    redis-benchmark -s "$socket" -q -n "$requests" -c 8 -r 3000 -d 300 set key:__rand_int__ __data__ >/dev/null &
    local n
    for ((n = 0; n < requests / 100; n++)); do
        printf 'MULTI\nINCR one\nINCR two\nRPUSH list %d\nEXEC\n' "$n"
    done | cli >/dev/null
    wait $!
}

# checked_log MANIFEST: the append-only file is whole. While it is being written its last command need not be: one write(2) is several requests
# for FUSE (the first ends with the page that the file ends in), and a snapshot may fall in between. The server cuts such a tail off.
checked_log() {
    redis-check-aof "$1" >"$SCRATCH/checked" && return
    [[ -n ${loading-} ]] && grep -q '^AOF analyzed: .* diff=' "$SCRATCH/checked"
}

# recovers TREE SETTING... ACKNOWLEDGED: a server starts on a copy and has whole transactions, also those acknowledged.
recovers() {
    local dir pid one
    dir=$(copy "$1" copy)
    for f in "$dir"/appendonlydir/*.manifest; do
        [[ ! -e $f ]] || checked_log "$f" || fail "redis-check-aof $1: $(tail -3 "$SCRATCH/checked" | tr '\n' ' ')"
    done
    server "$dir" "$copied" "${@:3}"
    pid=$!
    one=$(redis-cli -s "$copied" get one)
    same "$1: the second counter" "$one" "$(redis-cli -s "$copied" get two)"
    same "$1: the length of the list" "$one" "$(redis-cli -s "$copied" llen list)"
    at_least "$1: transactions" "$2" "$one"
    now=$(digest "$copied")
    stop "$copied" nosave "$pid"
}

snapshots=0
append_only() { # FSYNC
    local settings=(--appendonly yes --appendfsync "$1" --save '' --auto-aof-rewrite-min-size 1mb --auto-aof-rewrite-percentage 50)
    local dir=$LIVE/aof-$1 i frozen=() promised=() pid loading now
    mkdir "$dir"
    server "$dir" "$socket" "${settings[@]}"
    pid=$!
    cli set one 0 >/dev/null
    cli mset two 0 >/dev/null
    load &
    loading=$!
    for ((i = 0; i < $(pick 3 8); i++)); do
        sleep "0.$((RANDOM % 5 + 1))"
        promised+=("$(cli get one)")
        freeze "$1-$i"
        frozen+=("$FROZEN/aof-$1")
        snapshots=$((snapshots + 1))
    done
    wait "$loading" || fail "the load failed"
    local want
    want=$(digest "$socket")
    freeze "$1-quiet"
    load # goes on
    for ((i = 0; i < ${#frozen[@]}; i++)); do recovers "${frozen[i]}" "${promised[i]}" "${settings[@]}"; done
    loading=
    recovers "$FROZEN/aof-$1" 1 "${settings[@]}"
    same "digest of a server on the snapshot" "$want" "$now"
    want=$(digest "$socket")
    stop "$socket" nosave "$pid"
    recovers "$dir" 1 "${settings[@]}"
    same "digest of a server on the live files" "$want" "$now"
}

rdb() {
    local dir=$LIVE/rdb pid want now
    mkdir "$dir"
    server "$dir" "$socket" --save ''
    pid=$!
    cli mset one 0 two 0 >/dev/null
    load
    want=$(digest "$socket")
    cli save >/dev/null
    load &
    cli bgsave >/dev/null # a fork that writes, while snapfs forks
    freeze bgsave
    wait $! || fail "the load failed"
    wait_for 60 saved
    redis-check-rdb "$FROZEN/rdb/dump.rdb" >/dev/null || fail "redis-check-rdb of the snapshot"
    redis-check-rdb "$dir/dump.rdb" >/dev/null || fail "redis-check-rdb of the live file"
    recovers "$FROZEN/rdb" 1
    # The snapshot has the file from before the fork, or the one that it was renamed to.
    [[ $now == "$want" ]] || cmp -s "$FROZEN/rdb/dump.rdb" "$dir/dump.rdb" || fail "the RDB file of the snapshot is neither the old nor the new one"
    want=$(digest "$socket")
    stop "$socket" save "$pid"
    freeze saved
    recovers "$FROZEN/rdb" 1
    same "digest of a server on the saved RDB file" "$want" "$now"
    snapshots=$((snapshots + 2))
}
saved() { cli info persistence | grep -q rdb_bgsave_in_progress:0; }

append_only always
append_only everysec
rdb
checked "AOF always and everysec with rewrites, SAVE, BGSAVE; $snapshots snapshots under load: redis-check-aof/-rdb, whole transactions, all acknowledged, equal DEBUG DIGEST"

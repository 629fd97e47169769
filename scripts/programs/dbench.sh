#!/usr/bin/env bash
# dbench: the load of an office file server, several clients, while snapshots come and go.
# needs: dbench=dbench
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

loadfile=/usr/share/dbench/client.txt
[[ -e $loadfile ]] || fail "$loadfile is missing"
clients() { dbench -c "$loadfile" -D "$LIVE" -t "$(pick 5 30)" 4 >"$SCRATCH/log" 2>&1; }
# Its clients now and then remove the semaphore at which they meet while one of them is still on the way: then once more.
{ clients || { grep -q semaphore "$SCRATCH/log" && clients; } || { grep -q semaphore "$SCRATCH/log" && clients; }; } &
load=$!
snapshots=0
while kill -0 "$load" 2>/dev/null; do
    sleep 1
    freeze "$snapshots"
    want=$(manifest "$FROZEN")
    ((snapshots < 2)) || "$SNAPFS" delete "$MOUNT" "$PROGRAM-$((snapshots - 2))" >/dev/null || fail "cannot delete a snapshot"
    same "snapshot $snapshots, read again" "$want" "$(manifest "$FROZEN")"
    snapshots=$((snapshots + 1))
done
wait "$load" || fail "dbench: $(tail -n 5 "$SCRATCH/log")"
! grep -iE 'failed|unlink.*err|ERROR' "$SCRATCH/log" >/dev/null || fail "dbench: $(grep -iE -m 5 'failed|error' "$SCRATCH/log")"
checked "4 clients, $(grep -o 'Throughput [0-9.]* MB/sec' "$SCRATCH/log"); $snapshots snapshots meanwhile, each read twice, all but the last deleted"

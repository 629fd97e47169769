#!/usr/bin/env bash
# fossil: a version control system that keeps everything in SQLite, with its checkout database on the mount.
# needs: fossil=fossil
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

export HOME=$SCRATCH FOSSIL_HOME=$SCRATCH USER=tester
fossil init "$LIVE/r.fossil" >/dev/null
mkdir "$LIVE/checkout"
cd "$LIVE/checkout" || exit
fossil open --force "$LIVE/r.fossil" >/dev/null
fossil settings mtime-changes off >/dev/null # several commits a second, all of one size
commits=$(pick 10 60)
(
    for ((i = 1; i <= commits; i++)); do
        for ((f = 0; f < 20; f++)); do printf 'round %d file %d\n' "$i" "$f" >"file$f"; done
        fossil addremove >/dev/null && fossil commit --no-warnings -m "round $i" >/dev/null || exit 1
        printf '%d\n' "$i" >>"$SCRATCH/acknowledged"
    done
) &
frozen=() promised=()
for ((i = 0; i < 5; i++)); do
    sleep 1
    promised+=("$(tail -n 1 "$SCRATCH/acknowledged" 2>/dev/null || echo 0)")
    freeze "$i"
    frozen+=("$FROZEN")
done
wait $! || fail "a commit failed"
sound() { # DIR COMMITS
    fossil test-integrity -R "$1/r.fossil" | grep -q 'low-level database integrity-check: ok' || fail "$1: fossil test-integrity"
    fossil rebuild "$1/r.fossil" >/dev/null || fail "$1: fossil rebuild"
    at_least "$1: commits" "$2" "$(fossil timeline -R "$1/r.fossil" -n 0 -t ci -W 0 | grep -c 'round ')"
}
for ((i = 0; i < ${#frozen[@]}; i++)); do sound "$(copy "${frozen[i]}" copy)" "${promised[i]}"; done
sound "$LIVE" "$commits"
same "changes" '' "$(fossil changes)"
checked "$commits commits; ${#frozen[@]} snapshots meanwhile: integrity, rebuild, all acknowledged commits"

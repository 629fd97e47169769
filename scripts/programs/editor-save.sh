#!/usr/bin/env bash
# editor-save: files are saved the ways in which editors do, while readers and snapshots look on: nobody sees half a file.
# needs: sed=sed awk=mawk
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

cd "$LIVE" || exit
rounds=$(pick 60 300)

# text N is what the N-th save writes: its number on every line, and a last line.
text() {
    awk -v n="$1" 'BEGIN { for (i = 0; i < 2000; i++) print "version " n " line " i; print "end " n }'
}
# version FILE prints the number of a whole version and fails on anything else.
version() {
    awk '{ n = $2 } NR == 1 { first = n } n != first { bad = 1 } { last = $1 }
        END { if (bad || last != "end" || NR != 2001) { print "half a file: " NR " lines, versions " first " to " n; exit 1 } print first }' "$1"
}

# Write a temporary file, sync it, rename it, sync the directory.
save_temp() { text "$2" >"$1.tmp" && sync "$1.tmp" && mv "$1.tmp" "$1" && sync .; }
# As vim does with backupcopy=no: the old file becomes the backup, the new one is written under the name. There is a moment
# without the file, but never one with half of it if the reader takes the backup then.
save_backup() { ln -f "$1" "$1~" && text "$2" >".$1.swp" && sync ".$1.swp" && mv ".$1.swp" "$1" && rm "$1~"; }
save_sed() { sed -i "s/^\(version\|end\) [0-9]*/\1 $2/" "$1"; }
save_link() { text "$2" >"$1.new" && sync "$1.new" && ln -f "$1.new" "$1.link" && mv "$1.link" "$1" && rm -f "$1.new"; }

saves() { # FILE HOW
    local n
    for ((n = 1; n <= rounds; n++)); do
        "save_$2" "$1" "$n" || fail "$2 failed in round $n"
        printf '%d\n' "$n" >>"$SCRATCH/saved.$1"
    done
}
reads() { # FILE: until the last version is there
    local now=0 was=0
    while ((now < rounds)); do
        now=$(version "$1") || fail "$1: $now"
        ((now >= was)) || fail "$1 went back from version $was to $now"
        was=$now
    done
}

ways=(temp backup sed link)
jobs=()
for way in "${ways[@]}"; do
    text 0 >"$way.txt"
    saves "$way.txt" "$way" &
    jobs+=($!)
    reads "$way.txt" &
    jobs+=($!)
done
frozen=()
declare -A promised # what was saved before each snapshot
for ((i = 0; i < $(pick 4 12); i++)); do
    sleep 0.5
    for way in "${ways[@]}"; do
        promised[$i,$way]=$(tail -n 1 "$SCRATCH/saved.$way.txt" 2>/dev/null || echo 0)
    done
    freeze "$i"
    frozen+=("$FROZEN")
done
for job in "${jobs[@]}"; do wait "$job" || fail "a save or a reader failed"; done
for ((i = 0; i < ${#frozen[@]}; i++)); do
    for way in "${ways[@]}"; do
        got=$(version "${frozen[i]}/$way.txt") || fail "snapshot $i, $way.txt: $got"
        at_least "snapshot $i, $way.txt" "${promised[$i,$way]:-0}" "$got"
    done
done
for way in "${ways[@]}"; do same "$way.txt at the end" "$rounds" "$(version "$way.txt")"; done
checked "$rounds saves in ${#ways[@]} ways (${ways[*]}) under readers and ${#frozen[@]} snapshots: only whole files, never an older one than was saved"

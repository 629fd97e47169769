#!/usr/bin/env bash
# maildir: deliveries (write tmp, sync, link to new, unlink) by many at once, readers that move mail to cur; none lost or doubled.
# needs: awk=mawk
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

cd "$LIVE" || exit
mkdir tmp new cur
deliverers=4 mails=$(pick 50 1000)

deliver() { # WHO
    local n name
    for ((n = 1; n <= mails; n++)); do
        name=$1.$n
        awk -v name="$name" 'BEGIN { print "Id: " name; for (i = 0; i < 100; i++) print "line", i; print "End: " name }' >"tmp/$name"
        sync "tmp/$name" && ln "tmp/$name" "new/$name" && sync new && rm "tmp/$name" || return 1
        printf '%s\n' "$n" >>"$SCRATCH/delivered.$1"
    done
}
read_mail() {
    local mail seen=0
    while ((seen < deliverers * mails)); do
        for mail in new/*; do
            [[ -e $mail ]] || continue
            mv "$mail" "cur/${mail#new/}:2,S" || return 1
            seen=$((seen + 1))
        done
    done
}

# whole DIR: every mail in new or cur once (in both only while it is moved: never), and complete.
whole() {
    (
        cd "$1" || exit
        find new cur -type f -printf '%f\n' | sed 's/:.*//' | LC_ALL=C sort >"$SCRATCH/names"
        same "$1: mails that are there twice" '' "$(uniq -d "$SCRATCH/names")"
        # shellcheck disable=SC2016 # the program is awk's
        find new cur -type f -print0 | xargs -0r awk 'FNR == 1 { id = $2; n++ } $1 == "End:" && $2 == id && FNR == 102 { whole++ }
            END { if (n != whole) { print n - whole " are not whole"; exit 1 } }' || fail "$1: half a mail"
    )
}
# delivered DIR WHO prints how many mails of one deliverer are there.
delivered() { find "$1/new" "$1/cur" -name "$2.*" | wc -l; }

jobs=()
for ((w = 0; w < deliverers; w++)); do deliver "$w" & jobs+=($!); done
read_mail & jobs+=($!)
snapshots=0
while kill -0 "${jobs[0]}" 2>/dev/null || ((snapshots < 2)); do
    promised=()
    for ((w = 0; w < deliverers; w++)); do promised+=("$(tail -n 1 "$SCRATCH/delivered.$w" 2>/dev/null || echo 0)"); done
    freeze "$snapshots"
    whole "$FROZEN"
    for ((w = 0; w < deliverers; w++)); do at_least "snapshot $snapshots, mails of $w" "${promised[w]:-0}" "$(delivered "$FROZEN" "$w")"; done
    snapshots=$((snapshots + 1))
    sleep 0.2
done
for job in "${jobs[@]}"; do wait "$job" || fail "a delivery or the reader failed"; done
whole .
same "mails" $((deliverers * mails)) "$(find cur -type f | wc -l)"
same "left in tmp and new" 0 "$(find tmp new -type f | wc -l)"
checked "$((deliverers * mails)) mails by $deliverers at once; $snapshots snapshots: whole mails only, each once, all acknowledged"

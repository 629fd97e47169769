#!/usr/bin/env bash
# backup: scripts/backup-*.sh under writers: the second run is incremental, what is restored is what was frozen; killed, full, refused.
# needs: restic=restic borg=borgbackup rsync=rsync tar=tar setfattr=attr setfacl=acl setpriv=util-linux flock=util-linux
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"
export SNAPFS_LOCK_DIR=$SCRATCH
# shellcheck source=scripts/programs/zoo.bash
. "$(dirname "$0")/zoo.bash"

# A mount of its own: a backup is of all of it. The scripts where other users can read them.
tree=$SCRATCH/mnt bin=$SCRATCH/bin
cp -r "$PROJECT/scripts" "$bin"
"$SNAPFS" mount "$SCRATCH/store" "$tree"
finish() {
    touch "$SCRATCH/stop"
    wait
    "$SNAPFS" umount "$tree" || { umount -l "$tree"; false; }
}
trap 'finish >&2' EXIT
export BORG_REPO=$SCRATCH/borg BORG_CACHE_DIR=$SCRATCH/borg-cache BORG_CONFIG_DIR=$SCRATCH/borg-config BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
export RESTIC_REPOSITORY=$SCRATCH/restic RESTIC_PASSWORD=test RESTIC_CACHE_DIR=$SCRATCH/restic-cache

zoo "$tree/zoo"
rm "$tree/zoo/links/hard-link-of-symlink" # neither restic nor borg knows such a thing
mkdir "$tree/data" "$tree/busy"
for ((i = 0; i < $(pick 300 5000); i++)); do head -c 20000 /dev/urandom >"$tree/data/file$i"; done
head -c 20000000 /dev/urandom >"$tree/data/large"

# The writer. It writes a number into one file and only then into another, so that every moment has first - second in {0, 1}.
printf 0 >"$tree/busy/first"
printf 0 >"$tree/busy/second"
for ((n = 1; ; n++)); do
    [[ ! -e $SCRATCH/stop ]] || break
    printf '%s' "$n" >"$tree/busy/new" && mv "$tree/busy/new" "$tree/busy/first"
    printf '%s' "$n" >"$tree/busy/new" && mv "$tree/busy/new" "$tree/busy/second"
    printf 'line %s\n' "$n" >>"$tree/busy/log"
    printf '%s' "$n" >"$tree/busy/$((n % 50))"
    rm -f "$tree/busy/$(((n + 25) % 50))"
    ((n % 20)) || sleep 0.01
done &

# one_moment TREE: the writer's two files are of one moment.
one_moment() {
    local first second
    first=$(<"$1/busy/first") second=$(<"$1/busy/second")
    ((first - second == 0 || first - second == 1)) || fail "$1 is not one moment: $first and $second"
    same "lines of the log" "line $(wc -l <"$1/busy/log")" "$(tail -n 1 "$1/busy/log")"
}

# read_bytes prints how many bytes the daemon has read since it began: for a backup those of the files it looks into, since every
# frozen tree has a page cache of its own.
for pid in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$pid/cmdline" | grep -qF -- "--ready-fd 3 -- $SCRATCH/store "; then daemon=${pid#/proc/}; fi
done
read_bytes() { sed -n 's/^rchar: //p' "/proc/$daemon/io"; }

# run NAME TOOL ARGS...: a backup whose snapshot is kept under NAME. read is then how much it read, said its line.
run() {
    local name=$1 before
    before=$(read_bytes)
    said=$(SNAPFS_EXEC_FLAGS="--keep --name $name" "$bin/backup-$2.sh" "$tree" "${@:3}") || fail "backup-$2.sh ended with $?: $said"
    read=$(($(read_bytes) - before))
    printf '%s\nread %s bytes\n' "$said" "$read"
    [[ $said == *": $tree is in "*" s" ]] || fail "backup-$2.sh said $said"
}
# restored NAME DIR: what was restored to DIR is what the snapshot NAME has.
restored() {
    same "$1 restored" "$(manifest "$tree/.snapshots/$1")" "$(manifest "$2")"
    one_moment "$2"
    rm -rf "${2:?}"
}
change() {
    local file
    for file in "$tree"/data/file1?; do printf 'changed' >>"$file"; done
    chmod 600 "$tree/data/file20"
    setfattr -n user.changed -v yes "$tree/data/file21"
    printf 'in the middle' | dd of="$tree/data/large" bs=1 seek=10000000 conv=notrunc status=none
    mv "$tree/zoo/plain" "$tree/zoo/plain-$1"
    rm "$tree/data/file3"
    printf 'again' >"$tree/data/file3"
}
back() { mv "$tree/zoo/plain-$1" "$tree/zoo/plain"; }

# twice TOOL ARGS...: two runs with changes in between. The second reads a part of the tree only.
twice() {
    local tool=$1 first
    run "$tool-1" "$@"
    first=$read
    change "$tool"
    run "$tool-2" "$@"
    back "$tool"
    # The large file, the new names of the zoo and what is busy; and the archive that is compared, where there is one.
    ((read * 10 < first * 9)) || fail "$tool read $first bytes, then $read: not incremental"
    figures+=("$tool read $((first >> 20)) then $((read >> 20)) MiB")
}
figures=()

restic init -q
twice restic -- --exclude "$tree/none"
mapfile -t ids < <(restic snapshots --json | grep -o '"short_id":"[0-9a-f]*"' | cut -d '"' -f 4)
for i in 1 2; do
    restic restore -q "${ids[i - 1]}" --target "$SCRATCH/out"
    restored "restic-$i" "$SCRATCH/out$tree"
done

borg init -e none
touch -d '1971-01-01' "$tree/zoo/times/before" # borg knows times from 1970 to 2038
touch -d '2037-12-31' "$tree/zoo/times/late"
twice borg
mapfile -t archives < <(borg list --short)
for i in 1 2; do
    rm -rf "$SCRATCH/out"
    mkdir "$SCRATCH/out"
    (cd "$SCRATCH/out" && borg extract --numeric-ids --sparse "::${archives[i - 1]}")
    restored "borg-$i" "$SCRATCH/out$tree"
done

twice rsync "$SCRATCH/rsync"
i=0
for generation in "$SCRATCH/rsync"/20*; do
    i=$((i + 1))
    rm -rf "$SCRATCH/out"
    cp -a --sparse=always "$generation" "$SCRATCH/out" # without the links to other generations
    restored "rsync-$i" "$SCRATCH/out"
done
same "rsync's generations" 2 "$i"
same "latest" "$(basename "$generation")" "$(readlink "$SCRATCH/rsync/latest")"
same "a file that did not change is there once" 2 "$(stat -c %h "$SCRATCH/rsync/latest/data/file100")"

twice tar "$SCRATCH/tar" --compress gzip
mkdir "$SCRATCH/out"
i=0
for archive in "$SCRATCH/tar"/*.tar.gz; do
    i=$((i + 1))
    tar -x --listed-incremental=/dev/null --xattrs --xattrs-include='*' --acls --numeric-owner -f "$archive" -C "$SCRATCH/out"
    cp -a --sparse=always "$SCRATCH/out" "$SCRATCH/then"
    restored "tar-$i" "$SCRATCH/then"
done
rm -rf "$SCRATCH/out"
same "tar's archives" "full incr" "$(find "$SCRATCH/tar" -name '*.tar.gz' -printf '%f\n' | sort | cut -d . -f 2 | xargs)"

# What is kept of old ones.
run rsync-3 rsync "$SCRATCH/rsync" --keep-last 2
same "generations kept" 2 "$(find "$SCRATCH/rsync" -maxdepth 1 -name '20*' | wc -l)"
run tar-3 tar "$SCRATCH/tar" --full --keep-last 1
same "archives kept" 1 "$(find "$SCRATCH/tar" -maxdepth 1 -name '20*' | wc -l)"
run restic-3 restic --keep-last 1
same "restic's snapshots kept" 1 "$(restic snapshots --json | grep -o '"short_id"' | wc -l)"
run borg-3 borg --keep-last 1
same "archives kept" 1 "$(borg list --short | wc -l)"
"$SNAPFS" list --json "$tree" | sed 's/.*"name":"\([^"]*\)".*/\1/' | xargs "$SNAPFS" delete "$tree" >/dev/null

# refused CODE WORDS COMMAND...: it fails with that code and a line with these words, and no snapshot stays.
refused() {
    local code=0 said
    said=$("${@:3}" 2>&1) || code=$?
    same "the code of ${*:3} ($said)" "$1" "$code"
    [[ $said == *"$2"* ]] || fail "${*:3}: said $said, not $2"
    none_left
}
none_left() { same "snapshots left" "no snapshots" "$("$SNAPFS" list "$tree")"; }

none_left
same "with -q it says" '' "$("$bin/backup-rsync.sh" -q "$tree" "$SCRATCH/rsync" 2>&1)"
refused 3 "not in a snapfs mount" "$bin/backup-restic.sh" "$SCRATCH"
refused 2 "MOUNTPOINT" "$bin/backup-borg.sh"
refused 2 "unknown flag" "$bin/backup-tar.sh" --nonsense "$tree" x
refused 2 "is inside" "$bin/backup-tar.sh" "$tree" "$tree/zoo"
refused 1 "not on PATH" env SNAPFS=none "$bin/backup-tar.sh" "$tree" x
cp -rs /usr/bin "$SCRATCH/fewer"
rm "$SCRATCH/fewer/borg" "$SCRATCH/fewer/restic"
refused 1 "install the package borgbackup" env PATH="$SCRATCH/fewer" "$bin/backup-borg.sh" "$tree"
refused 1 "install the package restic" env PATH="$SCRATCH/fewer" "$bin/backup-restic.sh" "$tree"
refused 1 "nowhere" env RESTIC_REPOSITORY="$SCRATCH/nowhere" "$bin/backup-restic.sh" "$tree"
refused 2 "does not exist" env BORG_REPO="$SCRATCH/nowhere" "$bin/backup-borg.sh" "$tree"
refused 1 "before the freeze failed" "$bin/backup-rsync.sh" --before false "$tree" "$SCRATCH/rsync"
if ((EUID == 0)); then
    refused 6 "permission denied" setpriv --reuid 65533 --regid 65533 --clear-groups "$bin/backup-restic.sh" "$tree"
fi

# A backup that is killed, with a second one meanwhile: slowed down to some hundred KiB a second.
restic_ended() { ! grep -qsz "^--limit-upload" /proc/[0-9]*/cmdline; }
children() { cat "/proc/$1/task/$1/children"; }
export RESTIC_REPOSITORY=$SCRATCH/killed
restic init -q
for victim in exec script; do
    head -c 10000000 /dev/urandom >"$tree/data/large"
    "$bin/backup-restic.sh" "$tree" -- --limit-upload 400 &
    script=$!
    wait_for 60 sh -c "'$SNAPFS' list '$tree' | grep -q 'durable, temporary'"
    snapfs_exec=$(for c in $(children $script); do ! grep -qz '^exec$' "/proc/$c/cmdline" || echo "$c"; done)
    code=0
    said=$("$bin/backup-restic.sh" "$tree" 2>&1) || code=$?
    same "the second at once" 6 "$code"
    [[ $said == *"another backup-restic.sh"* ]] || fail "the second at once said $said"
    if [[ $victim == exec ]]; then kill -9 "$snapfs_exec"; else kill -TERM "$script"; fi
    code=0
    wait "$script" || code=$?
    ((code != 0)) || fail "a backup that was killed succeeded"
    wait_for 60 sh -c "'$SNAPFS' list '$tree' | grep -q 'no snapshots'"
    wait_for 60 restic_ended
done
"$bin/backup-restic.sh" -q "$tree" || fail "the run after the one that was killed ended with $?"
restic check -q --read-data || fail "the repository is not sound"

# The disk of the store is full.
if ((EUID == 0)); then
    mkdir "$SCRATCH/disk"
    mount -t tmpfs -o size=120M none "$SCRATCH/disk"
    "$SNAPFS" mount "$SCRATCH/disk/store" "$SCRATCH/disk/mnt"
    for ((i = 0; i < 200; i++)); do head -c 1M /dev/urandom >"$SCRATCH/disk/mnt/$i" 2>/dev/null || break; done
    code=0
    said=$("$bin/backup-tar.sh" "$SCRATCH/disk/mnt" "$SCRATCH/full" 2>&1) || code=$?
    left=$("$SNAPFS" list "$SCRATCH/disk/mnt")
    rm "$SCRATCH/disk/mnt/"[0-9] "$SCRATCH/disk/mnt/"[12][0-9]
    for ((i = 0; i < 30; i++)); do # the room comes back within a second or so
        again=0
        "$bin/backup-tar.sh" -q "$SCRATCH/disk/mnt" "$SCRATCH/full" || again=$?
        ((again)) || break
        sleep 1
    done
    "$SNAPFS" umount "$SCRATCH/disk/mnt"
    umount "$SCRATCH/disk"
    [[ $code == 1 && $said == *"no space left on device"* ]] || fail "on a full disk: code $code, $said"
    same "on a full disk" "no snapshots" "$left"
    same "when there is room again" 0 "$again"
fi
trap - EXIT
finish
"$SNAPFS" check "$SCRATCH/store" >"$SCRATCH/check" || fail "$(cat "$SCRATCH/check")"
checked "$(IFS=,; printf '%s' "${figures[*]}" | sed 's/,/, /g'); restored as frozen; killed, refused and on a full disk nothing is left"

#!/usr/bin/env bash
# Runs real programs on a mount, takes snapshots in the middle of their work, and has every program check its own data,
# on the live tree and on the frozen copies.
set -euo pipefail

usage() {
    cat <<END
usage: scripts/programs.sh [--short] [--store DIR] [-o OPT,...] [NAME...]

Builds snapfs, makes a store and a mount of it in a temporary directory, and runs each script of scripts/programs (or
only those named) in a directory of its own on the mount. As root it installs the Debian packages that are missing.
It ends with the first mismatch and exit code 1, and leaves nothing mounted or running behind.

  --short      a minute or two: less data, and only the programs that are installed quickly
  --store DIR  put the store into this empty or missing directory and leave it there (a place on xfs, say)
  -o OPT,...   options of snapfs mount

programs: $(programs | xargs)
END
}

here=$(cd "$(dirname "$0")" && pwd)
programs() { find "$here/programs" -name '*.sh' -printf '%f\n' | sed 's/\.sh$//' | LC_ALL=C sort; }
die() { printf 'programs.sh: %s\n' "$*" >&2; exit 1; }
# header KEY NAME prints what the first lines of a program's script say about it: "# KEY: ...".
header() { sed -n "s/^# $1: *//p" "$here/programs/$2.sh"; }

short='' store='' options='' names=()
while (($#)); do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --short) short=yes ;;
    --store) store=${2:?--store needs a directory}; shift ;;
    -o) options=${2:?-o needs options}; shift ;;
    -*) usage >&2; exit 2 ;;
    *) [[ -f $here/programs/$1.sh ]] || die "no such program: $1 (there are: $(programs | xargs))"; names+=("$1") ;;
    esac
    shift
done
if ((${#names[@]} == 0)); then
    for name in $(programs); do
        [[ $short && $(header short "$name") != yes ]] || names+=("$name")
    done
fi

install_missing() {
    local missing=() pair name
    for name in "${names[@]}"; do
        for pair in $(header needs "$name"); do
            type -P "${pair%%=*}" >/dev/null || [[ -e ${pair%%=*} ]] || missing+=("${pair#*=}")
        done
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "install first: $(printf '%s\n' "${missing[@]}" | sort -u | xargs)"
    fi
    apt-get update -qq || true
    # No service is to be started by its package.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "cannot install ${missing[*]}"
}

mount_store() {
    # In the foreground of a job: its process id is known, and a Ctrl-C here does not reach it.
    "$SNAPFS" mount -f ${options:+-o "$options"} "$store" "$MOUNT" >>"$work/daemon.log" 2>&1 &
    daemon=$!
    for ((i = 0; i < 600; i++)); do
        ! mountpoint -q "$MOUNT" || return 0
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.1
    done
    die "cannot mount: $(cat "$work/daemon.log")"
}

unmount_store() {
    "$SNAPFS" umount "$MOUNT" || die "cannot unmount"
    wait "$daemon" || die "the daemon ended with $?: $(cat "$work/daemon.log")"
    daemon=''
}

# end_job ends the program that is running, and what it has started: gently first, so that servers remove what they share.
end_job() {
    local i
    kill -TERM -- "-$job"
    for ((i = 0; i < 50; i++)); do
        kill -0 -- "-$job" || return 0
        sleep 0.1
    done
    kill -KILL -- "-$job" || true
}

# shellcheck disable=SC2317 # called by the trap
clean() {
    local code=$?
    trap '' INT TERM
    {
        [[ -z $job ]] || end_job
        if [[ $daemon ]]; then
            kill -KILL "$daemon" || true # ends every request: nothing on the mount hangs
            umount -l "$MOUNT" || fusermount3 -uz "$MOUNT" || true
            wait "$daemon" || true
        fi
    } 2>/dev/null
    if mountpoint -q "$MOUNT"; then
        printf 'programs.sh: %s is still mounted\n' "$MOUNT" >&2
    else
        rm -rf "$work"
    fi
    exit "$code"
}

# sums NAME: what every frozen tree of a program holds, as checksums and attributes. It never changes.
sums() {
    local tree
    for tree in "$MOUNT/.snapshots/$1-"*/"$1"; do
        [[ -d $tree ]] || continue
        (cd "$tree" && find . -printf '%p %y %m %U %G %s %n %T@ %C@ %l\n' | LC_ALL=C sort &&
            find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    done
}

# in_job COMMAND...: as a job, so that a signal need not wait for the end of it.
in_job() {
    "$@" &
    job=$!
    wait "$job"
    job=''
}

# perform NAME runs one program, within a limit of time, and prints its line.
perform() {
    local name=$1 began=$SECONDS code=0
    mkdir -p "$MOUNT/$name" "$work/$name"
    PROGRAM=$name LIVE=$MOUNT/$name SCRATCH=$work/$name \
        timeout -k 10 1800 bash "$here/programs/$name.sh" </dev/null >"$work/$name.log" 2>&1 &
    job=$!
    wait "$job" || code=$?
    end_job 2>/dev/null || true # what a failed program left running
    job=''
    if ((code != 0)); then
        tail -n 40 "$work/$name.log" >&2
        printf '%-12s FAILED with %d after %d s\n' "$name" "$code" $((SECONDS - began))
        exit 1
    fi
    in_job sums "$name" >"$work/$name.sums"
    printf '%-12s %3d s  %s\n' "$name" $((SECONDS - began)) "$(cat "$work/$name/checked")"
}

trap 'exit 130' INT
trap 'exit 143' TERM
set -m # every job has a process group of its own, which can be ended as a whole
job='' daemon=''
work=$(mktemp -d "${TMPDIR:-/tmp}/snapfs-programs.XXXXXX")
chmod 755 "$work" # other users pass through
store=${store:-$work/store}
export MOUNT=$work/mnt SNAPFS=$work/bin/snapfs SHORT=$short PROJECT=${here%/*} LC_ALL=C.UTF-8 TZ=UTC
trap clean EXIT
mkdir "$MOUNT"
install_missing
(cd "$PROJECT" && go build -o "$SNAPFS" ./cmd/snapfs)
mount_store
for name in "${names[@]}"; do
    perform "$name"
done

began=$SECONDS
unmount_store
"$SNAPFS" check "$store" >"$work/check" || { cat "$work/check" >&2; die "the store is damaged"; }
mount_store
for name in "${names[@]}"; do
    in_job sums "$name" >"$work/$name.now"
    cmp "$work/$name.sums" "$work/$name.now" || die "$name: a snapshot is not what it was"
done
unmount_store
printf '%-12s %3d s  %s\n' "after all" $((SECONDS - began)) "$(tail -n 1 "$work/check"); snapshots unchanged after a remount"

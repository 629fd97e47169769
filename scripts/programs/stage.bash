# shellcheck shell=bash
# What the scripts in this directory share. scripts/programs.sh runs each of them with
#   PROGRAM  its name                     LIVE     its directory on the mount, empty
#   MOUNT    the mount                    SCRATCH  a directory elsewhere, for what is to be compared
#   SNAPFS   the snapfs command           SHORT    "yes" if it is to be quick
#   PROJECT  the sources of snapfs
# A script says in its first lines which commands it needs ("# needs: COMMAND=PACKAGE ...") and whether it belongs to the
# short form ("# short: yes"). It ends with 0 after calling checked, or else with a message.
set -euo pipefail

fail() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; exit 1; }

# checked WORDS: what was found to hold, for the line that is printed.
checked() { printf '%s\n' "$*" >"$SCRATCH/checked"; }

# pick SHORT FULL prints one of two sizes.
pick() { if [[ $SHORT ]]; then printf '%s' "$1"; else printf '%s' "$2"; fi; }

# freeze NAME takes a snapshot, whatever runs meanwhile. FROZEN is then the program's own tree in it.
# shellcheck disable=SC2034 # the scripts read it
freeze() {
    "$SNAPFS" snapshot "$MOUNT" "$PROGRAM-$1" >/dev/null || fail "no snapshot"
    FROZEN=$MOUNT/.snapshots/$PROGRAM-$1/$PROGRAM
}

# same WHAT WANT GOT compares two values.
same() {
    [[ $2 == "$3" ]] || fail "$1: want (<), have (>):
$(diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") | head -n 20)"
}

# at_least WHAT WANT GOT compares two numbers.
at_least() { (($3 >= $2)) || fail "$1: want at least $2, have $3"; }

# copy TREE NAME makes a copy that may be written, outside of the mount, and prints where it is.
copy() {
    rm -rf "${SCRATCH:?}/$2"
    cp -a "$1" "$SCRATCH/$2"
    printf '%s' "$SCRATCH/$2"
}

# manifest TREE prints all that a copy of the tree must have too: names, types, modes, owners, sizes, times, links,
# extended attributes, ACLs and bytes. The sizes of directories are not among it.
manifest() {
    (
        cd "$1" || exit
        # Which names are hard links of each other is told by the first name of each inode number.
        find . -printf '%D:%i %p\0' | LC_ALL=C sort -z -k 2 | tr '\n\0' '?\n' |
            LC_ALL=C awk '{ i = $1; sub(/^[^ ]* /, ""); if (!(i in first)) first[i] = $0; print $0 " = " first[i] }'
        find . -type d -printf '%p %y %m %U %G %T@\n' -o -printf '%p %y %m %U %G %T@ %s %n %l\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
        find . \( -type b -o -type c \) -exec stat -c '%n %t:%T' {} + | LC_ALL=C sort
        find . -print0 | LC_ALL=C sort -z | xargs -0r getfattr -hd -m '^(user|trusted|system)\.' -e hex 2>/dev/null
    )
}

# wait_for SECONDS COMMAND...: repeats the command until it succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "gave up waiting for: $*"
        sleep 0.1
    done
}

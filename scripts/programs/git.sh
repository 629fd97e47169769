#!/usr/bin/env bash
# git: clones, commits, branches, gc and repack; every frozen repository is sound and clones to what it was.
# needs: git=git
# short: yes
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

export GIT_CONFIG_GLOBAL=$SCRATCH/gitconfig GIT_CONFIG_SYSTEM=/dev/null
git config --global user.name tester
git config --global user.email tester@example.org
git config --global safe.directory '*'
git config --global init.defaultBranch main
git config --global gc.auto 0

files=$(pick 1000 10000) commits=$(pick 30 100)

# history prints a stream for git fast-import: many files, of which each commit changes some.
history() {
    awk -v files="$files" -v commits="$commits" 'BEGIN {
        for (c = 1; c <= commits; c++) {
            printf "commit refs/heads/main\ncommitter t <t@example.org> %d +0000\ndata 7\ncommit\n", 1700000000 + c
            for (f = c == 1 ? 0 : c % 50; f < files; f += c == 1 ? 1 : 50) {
                text = ""
                for (l = 0; l < 20; l++) text = text "line " l " of file " f (l == c % 20 ? " in commit " c : "") "\n"
                printf "M 100644 inline d%d/e%d/file%d\ndata %d\n%s\n", f % 10, f % 100, f, length(text), text
            }
            print ""
        }
    }'
}

# sound REPO COMMIT: nothing is broken, the commit is there, and a clone has the same branches.
sound() {
    git -C "$1" fsck --full --strict >/dev/null || fail "fsck of $1"
    git -C "$1" cat-file -e "$2^{commit}" || fail "$1 lacks a commit that was made before the snapshot"
    rm -rf "$SCRATCH/clone"
    git clone -q --mirror --no-local "$1" "$SCRATCH/clone"
    same "branches of a clone of $1" "$(git -C "$1" for-each-ref)" "$(git -C "$SCRATCH/clone" for-each-ref)"
    git -C "$SCRATCH/clone" fsck --full >/dev/null || fail "fsck of a clone of $1"
}

# commits N: small changes on a branch that comes and goes.
commits() {
    local i
    for ((i = 0; i < $1; i++)); do
        git checkout -q -b side
        printf '%s\n' "$RANDOM" >>"d$((i % 10))/note"
        git add -A
        git commit -q -m "note $i"
        git checkout -q main
        git merge -q --no-ff -m "merge $i" side
        git branch -q -d side
    done
}

git init -q --bare "$SCRATCH/big.git"
history | git -C "$SCRATCH/big.git" fast-import --quiet
git clone -q --no-local "$SCRATCH/big.git" "$LIVE/big"
cd "$LIVE/big" || exit
commits 3
head=$(git rev-parse HEAD)
freeze quiet
same "frozen branches" "$(git for-each-ref)" "$(git -C "$FROZEN/big" for-each-ref)"
same "frozen status" '' "$(GIT_OPTIONAL_LOCKS=0 git -C "$FROZEN/big" status --porcelain)"
sound "$FROZEN/big" "$head"

during() { # NAME COMMAND...: a snapshot while the command is at work
    local name=$1 before frozen
    shift
    before=$(git rev-parse main)
    "$@" &
    sleep 0.$((RANDOM % 5 + 1))
    freeze "$name"
    frozen=$FROZEN/big
    wait $! || fail "$* failed"
    sound "$frozen" "$before"
}
during commits commits "$(pick 5 40)"
during gc git gc -q --prune=now
during repack git repack -q -adf
during checkout git checkout -q -B old HEAD~3
git checkout -q main
during reset git reset -q --hard HEAD~2

if git -C "$PROJECT" rev-parse -q --verify HEAD >/dev/null 2>&1; then
    git clone -q --no-local "$PROJECT" "$LIVE/project"
    git -C "$LIVE/project" fsck --full >/dev/null || fail "fsck of a clone of the project"
    same "head of the project" "$(git -C "$PROJECT" rev-parse HEAD)" "$(git -C "$LIVE/project" rev-parse HEAD)"
    same "status of the project" '' "$(git -C "$LIVE/project" status --porcelain)"
fi
sound "$LIVE/big" "$head"
same "live status" '' "$(git status --porcelain)"
checked "clone of $files files, commits, gc, repack, checkout, reset; 6 snapshots: fsck, every commit made before, clones equal"

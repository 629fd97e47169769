#!/usr/bin/env bash
# go-build: snapfs itself is built with source and build cache on the mount; the binary is the one that is built elsewhere.
# needs: go=golang
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

target=$(pick ./hello ./cmd/snapfs)
build() { # SOURCE CACHE OUTPUT
    (cd "$1" && GOCACHE=$2 GOFLAGS='-mod=mod -trimpath -buildvcs=false' go build -o "$3" "$target") || fail "go build in $1"
}
sources() { # DIR: the sources as they are, without history and binaries
    mkdir -p "$1"
    tar -C "$PROJECT" --exclude=./.git --exclude=./snapfs -cf - . | tar -C "$1" -xf -
    mkdir "$1/hello"
    printf 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n' >"$1/hello/main.go"
}

sources "$SCRATCH/source"
sources "$LIVE/source"
build "$SCRATCH/source" "$(go env GOCACHE)" "$SCRATCH/snapfs"
build "$LIVE/source" "$LIVE/cache" "$LIVE/snapfs" &
sleep 3
freeze early
# The last of the snapshots in the middle has most of a cache.
while sleep 8 && kill -0 $! 2>/dev/null; do
    [[ ! -d $MOUNT/.snapshots/$PROGRAM-middle ]] || "$SNAPFS" delete "$MOUNT" "$PROGRAM-middle" >/dev/null
    freeze middle
done
wait $! || fail "the build failed during a snapshot"
want=$(sha256sum <"$SCRATCH/snapfs")
same "the binary built on the mount" "$want" "$(sha256sum <"$LIVE/snapfs")"
freeze built
same "the frozen binary" "$want" "$(sha256sum <"$FROZEN/snapfs")"
"$FROZEN/snapfs" version >/dev/null || fail "the frozen binary does not run" # executed from the mount: a private mapping
# A cache that was frozen in the middle of a build is one that a build goes on with.
name=middle
[[ -d $MOUNT/.snapshots/$PROGRAM-middle ]] || name=early
build "$MOUNT/.snapshots/$PROGRAM-$name/$PROGRAM/source" "$(copy "$MOUNT/.snapshots/$PROGRAM-$name/$PROGRAM/cache" copy)" "$SCRATCH/again"
same "the binary built with the frozen source and cache" "$want" "$(sha256sum <"$SCRATCH/again")"
tested=$(pick ./hello ./snapshot/meta)
(cd "$LIVE/source" && export GOCACHE=$LIVE/cache GOFLAGS=-mod=mod && go vet "$tested" && go test -count=1 "$tested") >/dev/null ||
    fail "go vet or go test on the mount"
checked "$target built on the mount, and with the source and cache of a snapshot taken while building: the same binary as elsewhere; vet and test"

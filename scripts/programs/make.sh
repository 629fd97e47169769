#!/usr/bin/env bash
# make: a C project of many files, built in parallel and again after changes; make believes the times, the binary the bytes.
# needs: make=make gcc=gcc ar=binutils /usr/include/stdio.h=libc6-dev
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

files=$(pick 20 150)
project() { # DIR
    mkdir -p "$1"
    local i
    for ((i = 0; i < files; i++)); do
        printf '#include "all.h"\nint f%d(int x) { return x * %d + %d; }\n' "$i" "$((i % 7 + 1))" "$i" >"$1/f$i.c"
    done
    for ((i = 0; i < files; i++)); do printf 'int f%d(int);\n' "$i"; done >"$1/all.h"
    {
        printf '#include <stdio.h>\n#include "all.h"\nint main(void) {\n\tint x = 1;\n'
        for ((i = 0; i < files; i++)); do printf '\tx = f%d(x) %% 1000003;\n' "$i"; done
        printf '\tprintf("%%d\\n", x);\n\treturn 0;\n}\n'
    } >"$1/main.c"
    cat >"$1/Makefile" <<'END'
objects := $(sort $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c))))
program: main.o libf.a
	$(CC) -o $@ $^
libf.a: $(objects)
	$(AR) rcsD $@ $^
%.o: %.c all.h
	$(CC) -O1 -c -o $@ $<
END
}

project "$SCRATCH/project"
project "$LIVE/project"
make -s -j 4 -C "$SCRATCH/project"
make -s -j 4 -C "$LIVE/project" &
sleep 0.5
freeze building
wait $! || fail "make failed during a snapshot"
freeze built
same "the program built on the mount" "$(sha256sum <"$SCRATCH/project/program")" "$(sha256sum <"$LIVE/project/program")"
same "what it prints" "$("$SCRATCH/project/program")" "$("$FROZEN/project/program")"
make -q -C "$LIVE/project" || fail "make finds something to do after make"
make -q -C "$FROZEN/project" || fail "make finds something to do in the frozen tree"
printf 'int f0(int x) { return x + 5; }\n' >"$LIVE/project/f0.c"
! make -q -C "$LIVE/project" || fail "make does not see a change"
same "compilations after one change" 1 "$(make -C "$LIVE/project" | grep -c -- ' -c ')"
# A copy of the half built tree is built to the end.
half=$(copy "$MOUNT/.snapshots/$PROGRAM-building/$PROGRAM/project" half)
make -s -j 4 -C "$half"
same "what a half built copy prints in the end" "$("$SCRATCH/project/program")" "$("$half/program")"
checked "$files files with make -j4, ar and a linker; the same binary as elsewhere, nothing to do afterwards (live and frozen), a frozen half is built to the end"

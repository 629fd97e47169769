#!/usr/bin/env bash
# stress-ng: every stressor of its file system class and some more, verifying; one that fails here must fail elsewhere, too.
# needs: stress-ng=stress-ng
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

# Not run: bind-mount and binderfs mount file systems of their own, procfs and ioprio have nothing to do with this one.
skip=' bind-mount binderfs procfs ioprio '
stressors=$(stress-ng --class 'filesystem?' --sequential 1 2>&1 | sed -n 's/^class .filesystem. stressors: //p')
[[ $stressors ]] || fail "stress-ng does not say what its file system class is"
stressors+=' aio aiol mmap mmapfork mmapmany msync splice sendfile seek readahead revio dirmany open close'
seconds=$(pick 1 4)

# stress STRESSOR DIR runs one, two at a time.
stress() {
    timeout -k 5 120 stress-ng --temp-path "$2" "--$1" 2 --timeout "$seconds" --verify --oomable --hdd-bytes 64m --fallocate-bytes 64m \
        --seek-size 16m --readahead-bytes 64m --mmap-bytes 64m --iomix-bytes 64m --aio-requests 16 >"$SCRATCH/out" 2>&1
}
passed=0 unsupported=() elsewhere=()
mkdir "$SCRATCH/elsewhere"
for stressor in $stressors; do
    [[ $skip != *" $stressor "* ]] || continue
    code=0
    stress "$stressor" "$LIVE" &
    job=$!
    sleep "$seconds"
    ((passed % 5)) || freeze "$stressor"
    wait "$job" || code=$?
    case $code in
    0) passed=$((passed + 1)) ;;
    3 | 4) unsupported+=("$stressor") ;; # not enough of something, or not in this kernel or build
    *)
        message=$(grep -v '^$' "$SCRATCH/out" | tail -n 12)
        ! stress "$stressor" "$SCRATCH/elsewhere" || fail "$stressor fails on snapfs ($code) and not elsewhere: $message"
        elsewhere+=("$stressor")
        ;;
    esac
    # What it made is removed by it, unless it says so.
    find "$LIVE" -mindepth 1 -delete 2>/dev/null || true
done
same "files left" '' "$(find "$LIVE" -mindepth 1)"
at_least "stressors that passed" 40 "$passed"
checked "$passed stressors passed with --verify (not supported: ${unsupported[*]-none}; failing elsewhere too: ${elsewhere[*]-none})"

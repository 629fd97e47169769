# shellcheck shell=bash
# zoo DIR makes a tree of everything that a copying program may stumble over.
zoo() {
    mkdir -p "$1"
    (
        cd "$1" || exit
        mkdir plain modes links names sparse special empty xattr acl times
        local i
        for ((i = 0; i < $(pick 50 2000); i++)); do
            head -c $((i * 37 % 9000)) /dev/urandom >"plain/file$i"
        done
        head -c 5000001 /dev/urandom >plain/large
        : >plain/nothing
        zoo_modes
        zoo_names
        zoo_sparse
        zoo_special
        zoo_xattrs
        ! acls . || zoo_acls
        zoo_times # the last: nothing may move these
    ) || fail "cannot make the zoo"
}

zoo_modes() {
    local mode
    for mode in 000 400 644 755 1777 2755 4711 6750; do
        printf '%s' "$mode" >"modes/file$mode"
        mkdir "modes/dir$mode"
        printf 'in it' >"modes/dir$mode/file"
        chmod "$mode" "modes/file$mode" "modes/dir$mode"
    done
}

zoo_names() {
    local name i deep=names
    for name in ' ' '  leading' 'trailing ' $'new\nline' $'tab\t' $'\xff\xfe not utf-8' 'ünï' '*?[' '-rf' "\"'" "back\\slash" \
        "$(printf '%0255d' 0)" '.hidden' '~' '#x#' "\$PATH" ';'; do
        printf 'named oddly' >"names/$name"
    done
    for ((i = 0; i < 40; i++)); do deep+=/deeper-and-deeper-and-deeper-$i; done
    mkdir -p "$deep"
    printf 'deep' >"$deep/file"
    printf 'one of five' >links/a
    for name in links/b links/c 'links/d e' names/linked; do ln links/a "$name"; done
    ln -s a links/relative
    ln -s /nowhere/at/all links/dangling
    ln -s "$(printf '%04000d' 7)" links/long
    ln -P links/relative links/hard-link-of-symlink
}

zoo_sparse() {
    local at
    truncate -s 40M sparse/hole
    for at in 0 3 17 39; do printf 'island' | dd of=sparse/islands bs=1M seek="$at" conv=notrunc status=none; done
    printf 'head' >sparse/tail && truncate -s 7000003 sparse/tail
    head -c 300000 /dev/zero >sparse/zeros
}

zoo_special() {
    mkfifo -m 620 special/fifo
    if ((EUID == 0)); then
        mknod -m 640 special/null c 1 3
        mknod -m 600 special/block b 7 200
        mknod -m 644 special/high c 300 70000
        chown -h 1234:5678 plain/file1 modes/dir755 links/dangling
        setfattr -n trusted.of -v root xattr
    fi
}

zoo_xattrs() {
    local i
    for ((i = 0; i < 30; i++)); do
        printf '%s' "$i" >"xattr/file$i"
        setfattr -n user.number -v "$i" "xattr/file$i"
        setfattr -n user.binary -v 0x00ff0a00 "xattr/file$i"
    done
    setfattr -n user.large -v "$(printf '%03000d' 0)" xattr/file7
    setfattr -n user.on-directory -v yes xattr
    setfattr -n user.empty xattr/file8
}

zoo_acls() {
    printf x >acl/file && setfacl -m u:1234:rw,g:5678:r,m::r acl/file
    mkdir acl/inherits && setfacl -d -m u:1234:rwx,g:5678:rx acl/inherits
    mkdir acl/inherits/child && printf x >acl/inherits/file
}

zoo_times() {
    local file
    for file in old before late now; do printf x >"times/$file"; done
    touch -d '1970-01-01 00:00:00.000000001' times/old
    touch -d '1960-05-05 05:05:05.5' times/before
    touch -d '2105-12-31 23:59:59.999999999' times/late
    ln -s old times/link && touch -h -d '2001-02-03 04:05:06.789012345' times/link
    touch -d '1999-09-09 09:09:09.9' empty times special names
}

# acls DIR says whether the file system has POSIX ACLs.
acls() {
    local code=0
    printf x >"$1/probe"
    setfacl -m u:1234:r "$1/probe" 2>/dev/null || code=1
    rm "$1/probe"
    return "$code"
}

#!/usr/bin/env bash
# nfs: the mount exported by an NFS server in user space, which keeps nothing but file handles; read through NFSv4 while it changes, snapshots too.
# needs: /usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so=nfs-ganesha-vfs nfs-ls=libnfs-utils
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

((EUID == 0)) || { checked "not run: only root opens by file handle"; exit 0; }
port=$((20000 + RANDOM % 10000))
cat >"$SCRATCH/ganesha.conf" <<END
NFS_CORE_PARAM { Protocols = 4; NFS_Port = $port; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { Graceless = true; RecoveryBackend = fs; RecoveryRoot = $SCRATCH/recovery; Only_Numeric_Owners = true; }
EXPORT {
    Export_Id = 7; Path = $MOUNT; Pseudo = /snapfs; Filesystem_Id = 7.7;
    Attr_Expiration_Time = 0; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = VFS; }
}
LOG { Default_Log_Level = WARN; }
END
mkdir -p "$SCRATCH/recovery"
url() { printf 'nfs://127.0.0.1/snapfs/%s?version=4&nfsport=%d' "$1" "$port"; }
server() {
    ganesha.nfsd -F -f "$SCRATCH/ganesha.conf" -L "$SCRATCH/ganesha.log" -p "$SCRATCH/pid" &
    serving=$!
    wait_for 60 nfs-ls "$(url "$PROGRAM")"
}
stop() { kill "$serving"; wait "$serving" || true; }
# listed DIRECTORY: what NFS shows of it: names, links and sizes.
listed() { nfs-ls -R "$(url "$1")" | awk '{ print $NF, $1, $2, $5 }' | LC_ALL=C sort; }
# here DIRECTORY: the same of the mount itself.
here() { (cd "$MOUNT/$1" && find . -mindepth 1 -printf '%P %M %n %s\n' | LC_ALL=C sort); }

files=$(pick 100 1000)
mkdir -p "$LIVE/few/deep/deeper" "$LIVE/many"
for ((i = 0; i < files; i++)); do printf 'file %d\n' "$i" >"$LIVE/many/$i"; done
head -c 20000000 /dev/urandom >"$LIVE/few/deep/deeper/big"
printf 'as it was' >"$LIVE/few/text"
server
same "the listing" "$(here "$PROGRAM")" "$(listed "$PROGRAM")"
freeze before
rm -r "$LIVE/many"
printf 'changed' >"$LIVE/few/text"
same "the changed listing" "$(here "$PROGRAM")" "$(listed "$PROGRAM")"
same "the text" changed "$(nfs-cat "$(url "$PROGRAM/few/text")")"
same "the frozen text" 'as it was' "$(nfs-cat "$(url ".snapshots/$PROGRAM-before/$PROGRAM/few/text")")"
same "the frozen listing" "$(cd "$FROZEN" && find . -mindepth 1 -printf '%P %M %n %s\n' | LC_ALL=C sort)" \
    "$(listed ".snapshots/$PROGRAM-before/$PROGRAM")"
nfs-cp "$(url "$PROGRAM/few/deep/deeper/big")" "$SCRATCH/big" >/dev/null
cmp "$SCRATCH/big" "$LIVE/few/deep/deeper/big" || fail "read through NFS, but different"
stop
server # a new one knows nothing
same "the listing of a new server" "$(here "$PROGRAM")" "$(listed "$PROGRAM")"
stop
checked "$files files and 20 MB listed and read through NFSv4 (ganesha), live and frozen, also by a new server"

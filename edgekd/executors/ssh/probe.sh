#!/bin/sh
# Prints facts of a board as lines `key value`. Reads only, needs no Python, and runs on a board that edgekd cannot use.
# probe.sh FOLDER PYTHON [NAME=VALUE]... [DISTRIBUTION]...    POSIX sh, as in dash and busybox
set -u
LC_ALL=C
export LC_ALL

main() {
    folder=$(expand "$1") python=$(expand "$2")
    shift 2
    while :; do
        case ${1-} in *=*) export "${1?}" && shift ;; *) break ;; esac
    done
    echo "edgekd-probe 1"
    say kernel "$(uname -s)"
    say machine "$(uname -m)"
    say os "$(value_of PRETTY_NAME /etc/os-release)"
    for tree in /proc/device-tree /sys/firmware/devicetree/base; do
        [ -r $tree/model ] && say model "$(words_of $tree/model)"
        [ -r $tree/compatible ] && say compatible "$(words_of $tree/compatible)" && break
    done
    for tool in awk cat chmod cp cut date dd df env find flock grep head ln ls mkdir mkfifo mv nice rm sed setsid sha256sum sleep \
        sort stat tail tar tee timeout tr wc xargs; do
        command -v $tool >/dev/null 2>&1 || say lacks $tool
    done
    say_python "$@"
    say_folder
    say now "$(date +%s)"
    say boot "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
    say load "$(cat /proc/loadavg 2>/dev/null)"
    if [ -e "$folder/lock" ] && ! flock -n -s "$folder/lock" true 2>/dev/null; then
        say held "$(sed -n 2p "$folder/holder" 2>/dev/null || echo unknown)"
    fi
    echo "end"
}

say() { printf '%s %s\n' "$1" "$2"; }
# shellcheck disable=SC2088  # the tilde of the inventory
expand() { case $1 in "~" | "~/"*) printf '%s\n' "$HOME${1#\~}" ;; *) printf '%s\n' "$1" ;; esac; }
value_of() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" "$2" 2>/dev/null; }
words_of() { tr '\0\n' '  ' <"$1" 2>/dev/null; }

# The Python of the inventory; for plain `python3` also a newer one beside it.
say_python() {
    candidates=$python
    [ "$python" != python3 ] || candidates="python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8"
    for candidate in $candidates; do
        version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' </dev/null 2>/dev/null) || continue
        say python "$version $candidate"
        case $version in 2.* | 3.[0-7].*) continue ;; esac
        "$candidate" - "$@" <<'EOF' 2>/dev/null
import sys
from importlib import metadata, util

for name in sys.argv[1:]:
    try:
        print("distribution", name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
if util.find_spec("numpy") is not None:
    try:
        print("numpy", metadata.version("numpy"))
    except metadata.PackageNotFoundError:
        print("numpy of unknown version")
EOF
        return
    done
}

# Where the folder is or will be: its nearest ancestor that exists, that one's disk and mount options.
say_folder() {
    say folder "$folder"
    here=$folder
    while [ ! -e "$here" ]; do
        parent=${here%/*}
        [ "$parent" != "$here" ] || break
        here=${parent:-/}
    done
    { [ -d "$here" ] && [ -w "$here" ]; } || say unwritable "$here"
    df -Pk "$here" 2>/dev/null | {
        read -r _
        read -r _ _ _ free _ mount
        say free_kb "$free"
        options=
        while read -r _ point _ these _; do
            [ "$point" != "$mount" ] || options=$these
        done </proc/mounts
        say mount_options "$options"
    }
}

main "$@"

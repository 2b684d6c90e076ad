# shellcheck shell=sh disable=SC2034 # the scripts that follow use $boot
# Head of every script that runs on a board: sh -c SCRIPT edgekd FOLDER COMMAND ARGUMENTS...
# POSIX sh, as in dash and busybox. Output is lines of `word value`; exit code 1: failed, with the reason on stderr.
set -u
export LC_ALL=C
umask 077

# shellcheck disable=SC2088 # the tilde of the inventory
expand() { case $1 in "~/"*) printf '%s\n' "$HOME/${1#??}" ;; *) printf '%s\n' "$1" ;; esac; }
free_bytes() { df -Pk . | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'; }

boot=$(cat /proc/sys/kernel/random/boot_id)
folder=$(expand "$1")
mkdir -p "$folder/store" "$folder/in" "$folder/jobs" "$folder/code" && cd "$folder" || exit 1
folder=$(pwd)
shift

# Say which job holds the board.
held_by() {
    ! flock -n -s lock true || return 0
    holder=$(sed -n 2p holder 2>/dev/null)
    echo "holder ${holder:-a job that has just begun}"
}


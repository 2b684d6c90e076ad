# Head of every script that runs on a board: sh -c SCRIPT edgekd FOLDER COMMAND ARGUMENTS...
# POSIX sh, as in dash and busybox. Output is lines of `word value`; exit code 1: failed, with the reason on stderr.
set -u
export LC_ALL=C
umask 077

expand() { case $1 in "~/"*) printf '%s\n' "$HOME/${1#??}" ;; *) printf '%s\n' "$1" ;; esac; }
free_bytes() { df -Pk . | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'; }

boot=$(cat /proc/sys/kernel/random/boot_id)
folder=$(expand "$1")
mkdir -p "$folder/store" "$folder/in" "$folder/jobs" "$folder/code" && cd "$folder" || exit 1
folder=$(pwd)
shift

# The first contact: hello PYTHON [NAME=VALUE]...
hello() {
    python=$(expand "$1") && shift
    echo "folder $folder"
    for tool in awk chmod cut dd df env find flock grep head ln mkfifo mv rm sed setsid sha256sum sleep sort stat tail tar tee \
        timeout wc xargs; do
        command -v $tool >/dev/null || echo "lacks $tool"
    done
    printf 'python '
    env "$@" "$python" -c 'import sys
sys.stdout.write("%d %d " % sys.version_info[:2])
from importlib.util import find_spec
sys.stdout.write(str(find_spec("numpy") is not None))' 2>/dev/null
    echo
}

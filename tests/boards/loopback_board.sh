#!/usr/bin/env bash
# Runs a test board on this machine: an sshd on loopback with its own port, keys, user, home and processes, in its own
# namespaces. Nothing of the machine changes, and nothing is left when the board is taken down.
#
#   loopback_board.sh DIR up [OPTIONS]    start a board whose files are in DIR; print the command that reaches it
#   loopback_board.sh DIR down            end the board with everything that runs on it; keep DIR and the board's home
#   loopback_board.sh DIR remove          `down`, then delete DIR
#   loopback_board.sh DIR cut             lose the link: reset every connection; new ones are accepted
#   loopback_board.sh DIR freeze | thaw   pull the cable: connections stay open and silent, new ones get no answer
#   loopback_board.sh DIR reboot [S]      kill every process, refuse connections for S seconds (0), start with another boot_id
#   loopback_board.sh DIR status          list the processes of the board
#
# Options of `up`; `reboot` keeps them:
#   --python FILE|none   interpreter behind `python3` on the board, e.g. of a virtualenv; default: python3 of the PATH
#   --disk SIZE          the home is a file system of this size, e.g. 64m; `down` and `reboot` lose its content
#   --clock OFFSET       the board's clock is off by this, e.g. -3days; needs Debian's libfaketime
#   --sys FOLDER         the board shows this folder as /sys, e.g. recorded sensors
#   --systemd            a user manager of systemd runs for the board's user, as after `loginctl enable-linger`; needs root
#   --user NAME          user name on the board; default: board
#   --host NAME          Host in the ssh_config that `up` writes into DIR; default: board
#   --rootfs FOLDER      root file system of the board, also for another processor (see emulated_board.sh); default: this
#                        machine's, without the homes, /tmp and this checkout, and with few commands
#
# Needs Linux, OpenSSH's server, util-linux and procps; root, or entries in /etc/subuid and /etc/subgid (package uidmap).
set -euo pipefail

main() {
    (($# >= 2)) || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
    [[ -d $1 ]] || mkdir -p "$1"
    D=$(cd "$1" && pwd) command=$2
    self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
    shift 2
    case $command in
        up) up "$@" ;;
        down) down ;;
        remove) down && remove ;;
        cut) signal_sessions KILL ;;
        freeze) signal_all STOP ;;
        thaw) signal_all CONT ;;
        reboot) down && sleep "${1:-0}" && start ;;
        status) is_up && ps -o pid,user:12,etime,args --ppid "$(init_pid)" --pid "$(init_pid)" ;;
        in-namespace) in_namespace ;;
        *) fail "no command is called $command" ;;
    esac
}

fail() { echo "loopback_board: $*" >&2 && exit 1; }

up() {
    is_up && fail "$D: already up; take it down first"
    local python=python3 disk='' clock='' sys='' user=board host=board rootfs='' systemd='' port tool
    while (($#)); do
        case $1 in
            --systemd) systemd=/lib/systemd/systemd && shift ;;
            --python | --disk | --clock | --sys | --user | --host | --rootfs)
                (($# > 1)) || fail "$1 needs a value"
                printf -v "${1#--}" %s "$2" && shift 2 ;;
            *) fail "no option is called $1" ;;
        esac
    done
    for tool in unshare ssh ssh-keygen ps sshd; do
        PATH=$PATH:/usr/sbin command -v $tool >/dev/null || fail "$tool is not installed"
    done
    [[ -z $systemd || (-x $systemd && $EUID == 0) ]] || fail "--systemd needs root, and $systemd"
    [[ -z $sys ]] || sys=$(cd "$sys" && pwd)
    [[ -z $rootfs ]] || rootfs=$(cd "$rootfs" && pwd)
    if [[ $python != none && -z $rootfs ]]; then
        python=$("$python" -c 'import sys; print(sys.executable)') || fail "$python: no such interpreter"
    fi
    mkdir -p "$D"/{home,etc,bin}
    [[ -e $D/etc/host_key ]] || ssh-keygen -q -t ed25519 -N '' -C board -f "$D/etc/host_key"
    [[ -e $D/key ]] || ssh-keygen -q -t ed25519 -N '' -C host -f "$D/key"
    port=$(free_port)
    declare -p port python disk clock sys user host rootfs systemd >"$D/settings"
    write_client_files
    write_board_files
    start
    echo "ssh -F $(printf %q "$D/ssh_config") $(printf %q "$host")"
}

# The user's side: the host key that is known and an ssh_config.
write_client_files() {
    printf '%s\n' "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$D/etc/host_key.pub")" >"$D/known_hosts"
    cat >"$D/ssh_config" <<EOF
Host $host
    HostName 127.0.0.1
    Port $port
    User $user
    IdentityFile "$D/key"
    IdentitiesOnly yes
    UserKnownHostsFile "$D/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
EOF
}

# The board's side: its users, its commands and the settings of its sshd.
write_board_files() {
    printf '%s\n' root:x:0:0::/root:/bin/sh sshd:x:105:65534::/run/sshd:/usr/sbin/nologin \
        nobody:x:65534:65534::/:/usr/sbin/nologin "$user:x:1000:1000::/home/$user:/bin/sh" >"$D/etc/passwd"
    printf '%s\n' root:x:0: nogroup:x:65534: tty:x:5: "$user:x:1000:" >"$D/etc/group"
    printf '%s\n' 'root:*:1::::::' "$user:*:1::::::" >"$D/etc/shadow"
    cp "$D/key.pub" "$D/etc/authorized_keys"
    local environment chroot='' fake
    if [[ -n $rootfs ]]; then
        chroot='ChrootDirectory /mnt/rootfs'
        environment='PATH=/usr/local/bin:/usr/bin:/bin QEMU_CPU=cortex-a72'
    else
        environment='PATH=/mnt/bin'
        write_commands
    fi
    if [[ -n $clock ]]; then
        fake=$(find "${rootfs:-/}"/usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1)
        [[ -n $fake ]] || fail "--clock needs libfaketime: apt-get install libfaketime"
        environment+=" LD_PRELOAD=${fake#"$rootfs"} FAKETIME=$clock"
    fi
    cat >"$D/etc/sshd_config" <<EOF
ListenAddress 127.0.0.1:$port
HostKey /mnt/etc/host_key
AuthorizedKeysFile /mnt/etc/authorized_keys
AllowUsers $user
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PrintMotd no
UseDNS no
MaxStartups 100
SetEnv $environment
Subsystem sftp internal-sftp
$chroot
EOF
}

# The commands of a bare board: no pgrep, no ssh, no git; /bin/sh is this machine's (dash on Debian).
write_commands() {
    local tool path
    rm -rf "${D:?}/bin" && mkdir "$D/bin"
    for tool in sh cat cp mv rm mkdir rmdir ls ln test [ printf echo head tail wc tr cut sort uname df du date sleep kill ps \
        touch chmod stat sha256sum tar gzip find xargs env id nohup setsid mktemp readlink dd true false nproc grep sed awk \
        base64 timeout flock sync rsync tee mkfifo nice dirname ssh-keygen ${systemd:+systemctl systemd-analyze}; do
        path=$(command -v -p "$tool" || true)
        [[ $path == /* ]] || path=/usr/bin/$tool
        [[ ! -x $path ]] || ln -s "$path" "$D/bin/$tool"
    done
    [[ $python != none ]] || return 0
    printf '#!/bin/sh\nexec %q "$@"\n' "$python" >"$D/bin/python3"
    chmod +x "$D/bin/python3"
}

# Start the namespaces: user (in which binfmt_misc is separate, too: Linux 6.7), mount and PID, with user ids 0 to 65535.
start() {
    local ready=$D/ready map=(--map-root-user --map-auto) holder i
    # shellcheck disable=SC2016  # bash in the namespace expands it
    local enter='read -r _ <"$1/go"; exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private bash "$2" "$1" in-namespace'
    rm -f "$ready" "$D/go" && mkfifo "$D/go"
    ((EUID != 0)) || map=()
    {
        join_cgroup
        exec setsid unshare --user "${map[@]}" bash -c "$enter" _ "$D" "$self"
    } </dev/null >"$D/log" 2>&1 &
    holder=$!
    echo "$holder" >"$D/pid"
    for ((i = 0; i < 500; i++)); do
        [[ $(readlink "/proc/$holder/ns/user") == "$(readlink /proc/self/ns/user)" ]] || break
        kill -0 "$holder" 2>/dev/null || fail "unshare: $(tail -1 "$D/log")"
        sleep 0.01
    done
    if ((EUID == 0)); then
        echo "0 0 65536" >"/proc/$holder/uid_map"
        echo "0 0 65536" >"/proc/$holder/gid_map"
    fi
    echo go >"$D/go"
    rm "$D/go"
    for ((i = 0; i < 3000; i++)); do
        [[ ! -e $ready ]] || return 0
        kill -0 "$holder" 2>/dev/null || { rm -f "$D/pid" && fail "did not start: $(tail -1 "$D/log"); whole log: $D/log"; }
        sleep 0.02
    done
    fail "did not start in 60 s; log: $D/log"
}

# A user manager of systemd makes control groups: give it a part of the machine's tree that is the board's own.
join_cgroup() {
    # shellcheck source=/dev/null  # written by `up`
    source "$D/settings"
    [[ -n $systemd ]] || return 0
    local group
    for group in $(cgroups); do
        mkdir -p "$group" && chown -R 1000:1000 "$group" && echo "$BASHPID" >"$group/cgroup.procs"
    done
}

# The board's control groups, in systemd's own hierarchy and in that of version 2.
cgroups() {
    local root
    for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [[ ! -e $root/cgroup.procs ]] || echo "$root/edgekd-board-$port"
    done
}

# Become the board's first process: lay out the files that the board sees, then run its sshd.
in_namespace() {
    # shellcheck source=/dev/null  # written by `up`
    source "$D/settings"
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir -p /mnt/{home,etc,bin,prefixes,rootfs}
    mkdir -m 700 /mnt/private && mkdir /mnt/private/board
    mount --bind "$D/etc" /mnt/etc
    mount --bind "$D/bin" /mnt/bin
    mount --bind "$D" /mnt/private/board
    if [[ -n $disk ]]; then
        mount -t tmpfs -o "size=$disk,mode=755" tmpfs /mnt/home
    else
        mount --bind "$D/home" /mnt/home
    fi
    chown 1000:1000 /mnt/home
    cat /proc/sys/kernel/random/uuid >/mnt/boot_id
    mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id
    if [[ -n $rootfs ]]; then lay_out_other_system; else lay_out_this_system; fi
    mount --bind /mnt/etc/passwd /etc/passwd
    mount --bind /mnt/etc/group /etc/group
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/sshd
    [[ -z $systemd ]] || start_systemd
    /usr/sbin/sshd -t -f /mnt/etc/sshd_config
    { until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.02; done && touch /mnt/private/board/ready; } &
    exec /usr/sbin/sshd -D -e -f /mnt/etc/sshd_config
}

start_systemd() {
    mkdir -p /run/systemd/system /run/user/1000 && chown 1000:1000 /run/user/1000 && chmod 700 /run/user/1000
    setpriv --reuid 1000 --regid 1000 --clear-groups env -i HOME="/home/$user" PATH=/mnt/bin XDG_RUNTIME_DIR=/run/user/1000 \
        "$systemd" --user --log-target=console --log-level=warning &
}

# This machine's files, without those of the person who tests: a path of the host that a job uses by mistake is not there.
lay_out_this_system() {
    local hidden=("${HOME:-/root}" /home /tmp /var/tmp "$(dirname "$self")/../..") prefixes i folder
    for i in "${!hidden[@]}"; do hidden[i]=$(cd "${hidden[i]}" && pwd); done
    mapfile -t prefixes < <(interpreter_folders "${hidden[@]}")
    for i in "${!prefixes[@]}"; do
        mkdir "/mnt/prefixes/$i" && mount --rbind "${prefixes[i]}" "/mnt/prefixes/$i"
    done
    [[ -z $sys ]] || { mkdir /mnt/private/sys && mount --bind "$sys" /mnt/private/sys; }
    for folder in "${hidden[@]}"; do
        [[ ! -d $folder ]] || mount -t tmpfs -o mode=755 tmpfs "$folder"
    done
    chmod 1777 /tmp /var/tmp
    for i in "${!prefixes[@]}"; do
        mkdir -p "${prefixes[i]}" && mount --rbind "/mnt/prefixes/$i" "${prefixes[i]}"
    done
    mkdir -p "/home/$user" && mount --bind /mnt/home "/home/$user"
    [[ -z $sys ]] || mount --bind /mnt/private/sys /sys
    mount --bind /mnt/etc/shadow /etc/shadow
}

# Print the folders of the board's Python (its own, its virtualenv's) that lie below one of the hidden folders.
interpreter_folders() {
    [[ $python != none ]] || return 0
    local prefix folder
    "$python" -c 'import sys; print("\n".join(sorted({sys.base_prefix, sys.prefix})))' | while read -r prefix; do
        for folder in "$@"; do
            [[ $prefix != "$folder"/* ]] || { echo "$prefix" && break; }
        done
    done
}

# Another root file system; the kernel of this namespace runs its programs through qemu where they are for another processor.
lay_out_other_system() {
    local root=/mnt/rootfs device
    mount --bind "$rootfs" $root
    ! is_for_aarch64 $root/usr/bin/env || [[ $(uname -m) == aarch64 ]] || emulate_aarch64
    mkdir -p $root/{proc,sys,dev,tmp,run} "$root/home/$user"
    mount --rbind /proc $root/proc
    if [[ -n $sys ]]; then mount --bind "$sys" $root/sys; else mount --rbind /sys $root/sys; fi
    mount -t tmpfs -o mode=755 tmpfs $root/dev
    for device in null zero full random urandom tty; do
        touch $root/dev/$device && mount --bind /dev/$device $root/dev/$device
    done
    ln -s /proc/self/fd $root/dev/fd
    mkdir $root/dev/{shm,pts} && mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
    mount -t tmpfs -o mode=1777 tmpfs $root/tmp
    mount --bind /mnt/etc/passwd $root/etc/passwd
    mount --bind /mnt/etc/group $root/etc/group
    mount --bind /mnt/home "$root/home/$user"
}

# e_machine of the ELF header: 183, little-endian.
is_for_aarch64() { [[ $(od -An -tx1 -j18 -N1 "$(readlink -f "$1")" | tr -d ' ') == b7 ]]; }

emulate_aarch64() {
    local handlers=/proc/sys/fs/binfmt_misc qemu=/usr/libexec/qemu-binfmt/aarch64-binfmt-P flags=OPF
    [[ -e $handlers/qemu-aarch64 ]] || mount -t binfmt_misc binfmt_misc $handlers ||
        { echo "cannot mount binfmt_misc: needs Linux 6.7, or qemu-aarch64 registered on the machine" && exit 1; }
    if [[ ! -e $handlers/qemu-aarch64 ]]; then
        [[ -e $qemu ]] || { qemu=$(command -v qemu-aarch64-static) && flags=F; }
        # F: the kernel opens qemu now; it need not lie in the other root.
        printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:' \
            '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:' "$qemu:$flags" \
            >$handlers/register
    fi
    # The processor of QEMU_CPU=cortex-a72 (see `write_board_files`): it has no fp16 arithmetic, which OpenVINO would use.
    printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n' 0 1 >/mnt/cpuinfo
    mount --bind /mnt/cpuinfo /proc/cpuinfo
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port && return; }
    done
}

is_up() { [[ -e $D/pid ]] && kill -0 "$(cat "$D/pid")" 2>/dev/null; }

# The first process of the board's namespace, seen from outside: the only child of the holder.
init_pid() { ps -o pid= --ppid "$(cat "$D/pid")" | tr -d ' '; }

# Each connection is a root process of sshd and its child; what runs in the session is left alone.
signal_sessions() {
    is_up || fail "$D: not up"
    local session
    for session in $(children_of_sshd "$(init_pid)"); do
        # shellcheck disable=SC2046  # no child, or one
        kill "-$1" $(children_of_sshd "$session") "$session" 2>/dev/null || true
    done
}

children_of_sshd() { ps -o pid=,comm= --ppid "$1" | awk '$2 ~ /^sshd/ {print $1}'; }

signal_all() {
    signal_sessions "$1"
    kill "-$1" "$(init_pid)"
}

# Kill the namespace's first process: the kernel kills the rest of the namespace.
down() {
    is_up || { rm -f "$D/pid" && return 0; }
    local holder init i
    holder=$(cat "$D/pid") init=$(init_pid)
    # shellcheck disable=SC2086  # none, or one
    kill -KILL ${init:-} "$holder" 2>/dev/null || true
    for ((i = 0; i < 500; i++)); do
        kill -0 "$holder" 2>/dev/null || [[ -n $init && -e /proc/$init ]] || break
        sleep 0.02
    done
    rm -f "$D/pid" "$D/ready"
    leave_cgroup
}

leave_cgroup() {
    # shellcheck source=/dev/null  # written by `up`
    source "$D/settings"
    [[ -n $systemd ]] || return 0
    local group
    for group in $(cgroups); do
        find "$group" -depth -type d -exec rmdir {} + || true
    done
}

# The home belongs to a user id of the namespace; without root it can only be deleted in one.
remove() {
    if ((EUID == 0)); then rm -rf "${D:?}"; else unshare --user --map-root-user --map-auto rm -rf "${D:?}"; fi
}

main "$@"

#!/usr/bin/env bash
# Runs an aarch64 test board on this machine: Debian for aarch64 in a folder, its programs run by QEMU, behind the sshd of
# loopback_board.sh. It shows what is right and what is wrong, never how fast: programs run 10 to 50 times slower than here,
# and the clocks and temperatures that it shows are made up.
#
#   emulated_board.sh ROOTFS build                  make the root file system, unless it is there with the same packages
#   emulated_board.sh DIR up --rootfs ROOTFS [...]  start a board on it, with the options of loopback_board.sh but --python
#   emulated_board.sh DIR down | remove | cut | freeze | thaw | reboot | status     as in loopback_board.sh
#
# EMULATED_BOARD_PACKAGES: the packages of the board's Python (3.11), from PyPI as wheels for aarch64, default the versions
# below; `none`: a Python without numpy.
#
# Needs mmdebstrap, arch-test, qemu-user-static, pip, the needs of loopback_board.sh, and Linux 6.7 or qemu-aarch64 registered
# with binfmt_misc on the machine.
set -euo pipefail

PACKAGES=${EMULATED_BOARD_PACKAGES:-numpy==2.4.6 onnxruntime==1.32.0}

main() {
    (($# >= 2)) || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    local command=$2
    mkdir -p "$1"
    D=$(cd "$1" && pwd)
    shift 2
    case $command in
        build) build ;;
        up)
            [[ -d $D/sys ]] || sensors "$D/sys"
            exec "$here/loopback_board.sh" "$D" up --sys "$D/sys" "$@" ;;
        *) exec "$here/loopback_board.sh" "$D" "$command" "$@" ;;
    esac
}

fail() { echo "emulated_board: $*" >&2 && exit 1; }

# Unpack files and configure nothing: nothing has to be emulated. What the packages' scripts would make is made here.
build() {
    local made=$D.making log=$D.log tool
    [[ ! -e $D/packages || $(cat "$D/packages") != "$PACKAGES" ]] || return 0
    for tool in mmdebstrap arch-test qemu-aarch64-static unshare; do
        command -v $tool >/dev/null || fail "$tool is not installed"
    done
    rm -rf "$made" "$D"
    mmdebstrap --quiet --mode="$( ((EUID == 0)) && echo root || echo unshare)" --variant=extract --architectures=arm64 \
        --skip=check/qemu --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include=base-files,bash,dash,coreutils,findutils,grep,gzip,hostname,mawk,procps,sed,tar,util-linux,rsync,python3,libgomp1,libstdc++6 \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$made" >"$log" 2>&1 ||
        fail "mmdebstrap: $(tail -1 "$log"); whole log: $log"
    ln -sf mawk "$made/usr/bin/awk"
    touch "$made"/etc/{passwd,group}
    mkdir -p "$made/home/board"
    [[ $PACKAGES == none ]] || add_wheels "$made" "$log"
    echo "$PACKAGES" >"$made/packages"
    mv "$made" "$D"
}

add_wheels() {
    local platforms=() glibc
    for glibc in 36 35 34 31 28 27 26 24 17; do
        platforms+=(--platform "manylinux_2_${glibc}_aarch64")
    done
    # shellcheck disable=SC2086  # the words of the variable are packages
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check \
        --target "$1/usr/local/lib/python3.11/dist-packages" "${platforms[@]}" --platform manylinux2014_aarch64 \
        --python-version 3.11 --implementation cp --only-binary=:all: $PACKAGES \
        >>"$2" 2>&1 || fail "pip: $(tail -1 "$2"); whole log: $2"
}

# The board's /sys: this machine's cores and caches, a clock of 1.5 GHz and a thermal zone at 45 degrees. ONNX Runtime 1.32 and
# LiteRT 2.3 for ARM crash on this machine's whole /sys, OpenVINO 2026.4 crashes on made-up cores.
sensors() {
    local machine=/sys/devices/system/cpu cpu=$1/devices/system/cpu file policy=$1/devices/system/cpu/cpufreq/policy0
    mkdir -p "$policy" "$1"/class/{thermal/thermal_zone0,hwmon,devfreq} "$1/firmware/devicetree/base"
    for file in "$machine"/{kernel_max,possible,present,online} "$machine"/cpu[0-9]*/{topology,cache/index[0-9]*}/*; do
        [[ -f $file ]] || continue
        mkdir -p "$(dirname "$cpu/${file#"$machine"/}")"
        cat "$file" >"$cpu/${file#"$machine"/}" 2>/dev/null || true
    done
    for file in "$cpu"/cpu[0-9]*; do ln -sfn ../cpufreq/policy0 "$file/cpufreq"; done
    (cd "$cpu" && echo cpu[0-9]* | sed 's/cpu//g') >"$policy/affected_cpus"
    for file in scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do echo 1500000 >"$policy/$file"; done
    for file in scaling_min_freq cpuinfo_min_freq; do echo 600000 >"$policy/$file"; done
    echo ondemand >"$policy/scaling_governor"
    echo emulated >"$policy/scaling_driver"
    echo cpu-thermal >"$1/class/thermal/thermal_zone0/type"
    echo 45000 >"$1/class/thermal/thermal_zone0/temp"
    printf 'QEMU user emulation of aarch64\0' >"$1/firmware/devicetree/base/model"
}

main "$@"

# shellcheck shell=sh disable=SC2154 # $folder and $boot are in board.sh
# Jobs: one folder each in `jobs`, named by the job's key. A supervisor, which belongs to no connection, runs it.
# `alive` is locked as long as the supervisor lives; `ended` says what came of it and appears at once, whole.

newline='
'

# Start a job unless one of its key is there, running, ended or dead; then wait for it:
# start KEY SLICE_S CODE WAIT_S TIMEOUT_S LOG_BYTES HOLDER PYTHON [NAME=VALUE]...    with lines `HASH NAME` on stdin, and `end`
start() {
    key=$1 slice_s=$2 code=$3 wait_s=$4 timeout_s=$5 log_bytes=$6 holder=$7 python=$(expand "$8") job=jobs/$1
    shift 8
    find jobs -mindepth 1 -maxdepth 1 -mmin +10080 | while read -r old; do
        flock -n "$old/alive" rm -rf "$old" # collected by nobody, and not running since before a clock was set
    done
    mkdir -p "$job" && exec 8>>"$job/alive" || exit 1
    if flock -n 8; then
        [ -z "$(find "$job" -name ended -mmin +1440)" ] || rm -f "$job/boot" # too old to be an answer
        if [ ! -e "$job/boot" ]; then
            path=$folder/code/$boot/$code
            for variable; do
                case $variable in PYTHONPATH=?*) path=$path:${variable#*=} ;; esac
            done
            lay_out || { rm -rf "$job" && exit 1; }
            setsid sh supervisor.sh "$wait_s" "$timeout_s" "$log_bytes" "$key" "$holder" env "$@" "PYTHONPATH=$path" "$python" \
                -m edgekd.worker job.json </dev/null >/dev/null 2>&1 &
            cd "$folder" || exit 1
        fi
    fi
    exec 8>&-
    wait_for "$key" "$slice_s"
}

# Make the folder of a job and go there; `boot` stands for a folder that is complete.
lay_out() {
    find "$job" -mindepth 1 ! -name alive -exec rm -rf {} + 2>/dev/null
    mkdir -p "$job/out" || return 1
    hash=
    while read -r hash name && [ "$hash" != end ]; do
        case $name in */*) mkdir -p "$job/${name%/*}" ;; esac
        ln "store/$hash" "$job/$name" 2>/dev/null || cp "store/$hash" "$job/$name" || return 1
    done
    [ "$hash" = end ] || return 1 # the link was lost
    # Unpacked once per boot: after a power cut, files that were just written may be empty.
    if [ ! -d "code/$boot/$code" ]; then
        find code -mindepth 1 -maxdepth 1 ! -name "$boot" -exec rm -rf {} +
        new=code/$boot/new.$$
        rm -rf "$new" && mkdir -p "$new" && tar -xmf "store/$code" -C "$new" || return 1
        mv "$new" "code/$boot/$code" || [ -d "code/$boot/$code" ] || return 1
    fi
    cd "$job" && echo "$boot" >boot
}

# Wait for the end of a job, at most some seconds, and say how it stands: wait_for KEY SLICE_S
wait_for() {
    job=jobs/$1
    [ -e "$job/alive" ] || { echo "state absent" && return; }
    timeout "$2" flock -s "$job/alive" true
    flock -n -s "$job/alive" true
    is_dead=$?
    ended=$(cat "$job/ended" 2>/dev/null)
    if [ "${ended##*"$newline"}" = complete ]; then # after a power cut the file may be empty, or end anywhere
        echo "state ended"
        printf '%s\n' "$ended"
    elif [ $is_dead = 0 ]; then
        if [ "$(cat "$job/boot")" = "$boot" ]; then echo "state died"; else echo "state rebooted"; fi
        df -Pk . | awk 'NR == 2 { printf "free %.0f\n", $4 * 1024 }' # a full disk ends supervisors as well
        end_group "$job"
    elif [ -e "$job/group" ]; then
        echo "state running"
        [ ! -e "$job/progress.json" ] || echo "progress $(head -c 1000 "$job/progress.json" | tr -d '\n')"
    else
        echo "state waiting"
        held_by
    fi
}

# Send files of a job one after another, from a byte on; their names are on stdin: send KEY OFFSET
send() {
    cd "jobs/$1" || exit 1
    while IFS= read -r name; do cat "./$name" || exit 1; done | tail -c "+$(($2 + 1))"
}

# Forget a job that has ended: forget KEY
forget() {
    gone=in/gone.$$
    rm -rf "$gone"
    mv "jobs/$1" "$gone" 2>/dev/null # at once: another process may be reading it
    rm -rf "$gone" "jobs/$1"
}

# End the job that holds the board, and say whose it was.
cancel() {
    held_by
    ! flock -n -s lock true || return 0
    job=jobs/$(sed -n 1p holder) i=0
    [ ! -d "$job" ] || echo cancelled >"$job/why"
    while [ -d "$job" ] && [ ! -e "$job/group" ] && [ $i -lt 50 ]; do sleep 0.1 && i=$((i + 1)); done # it has just begun
    end_group "$job"
    timeout 20 flock -s "$job/alive" true || [ ! -e "$job" ] # its owner may have collected it already
}

# Remove all that edgekd has put here, and the folder when it is empty then.
clean() {
    exec 9>>lock
    flock -n 9 || { echo "$(sed -n 2p holder 2>/dev/null) uses it; wait, or end that job: edgekd board cancel" >&2 && exit 1; }
    rm -rf store in jobs code index holder lock
    cd / && rmdir "$folder" 2>/dev/null
    return 0
}

# End all processes of a job of this boot.
end_group() {
    [ -e "$1/group" ] && [ "$(cat "$1/boot")" = "$boot" ] || return 0
    group=$(cat "$1/group") i=0
    kill -s TERM -- "-$group" 2>/dev/null
    while kill -s 0 -- "-$group" 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1 && i=$((i + 1)); done
    kill -s KILL -- "-$group" 2>/dev/null
    return 0
}

#!/bin/sh
# Runs one job on a board, in the job's folder: waits for the board's lock, bounds time and log, leaves no process behind,
# and writes `ended` at the end.
# supervisor.sh WAIT_S TIMEOUT_S LOG_BYTES KEY HOLDER COMMAND...    descriptor 8 is locked as long as the supervisor lives
set -u
export LC_ALL=C
umask 077
wait_s=$1 timeout_s=$2 log_bytes=$3 key=$4 holder=$5
shift 5

main() {
    exec 9>>../../lock
    timeout "$wait_s" flock 9 || { end busy 1 && exit; }
    printf '%s\n' "$key" "$holder, since $(date '+%Y-%m-%d %H:%M')" >../../holder.$$ && mv ../../holder.$$ ../../holder
    mkfifo pipe || { end '' 1 && exit; }
    (keep_log) <pipe >log 8>&- 9>&- &
    logger=$!
    setsid "$@" </dev/null >pipe 2>&1 8>&- 9>&- &
    group=$!
    echo $group >group.new && mv group.new group
    [ "$(cat why 2>/dev/null)" != cancelled ] || stop cancelled # before there was a group
    after "$timeout_s" stop timeout
    watcher=$!
    wait "$group"
    code=$?
    kill -s TERM $watcher
    kill -s KILL -- "-$group" 2>/dev/null # what the job left behind
    after 5 kill -s TERM $logger          # a process that left the group may hold the pipe open
    watcher=$!
    wait $logger
    kill -s TERM $watcher
    end "$(cat why 2>/dev/null)" $code
    rm -f ../../holder
}

# Do a command in the background after some seconds, unless its process, $!, gets SIGTERM before.
after() {
    (
        # KILL: a process that has just been forked may miss TERM. Before the sleep, $! is a process that has ended.
        trap 'kill -s KILL $!; exit' TERM
        sleep "$1" &
        wait $!
        shift
        "$@"
    ) 8>&- 9>&- &
}

# Copy stdin to stdout until SIGTERM; end the job when it prints too much. Not by `head -c`, which keeps up to 4 KiB to itself.
keep_log() {
    exec 7<&0
    trap 'kill -s KILL $!; exit' TERM
    # shellcheck disable=SC3045  # -c is in every sh of Linux
    (ulimit -c 0 && ulimit -f $((log_bytes / 512)) && exec cat <&7) & # SIGXFSZ ends it at the limit
    wait $! || stop flooded
}

stop() {
    echo "$1" >why
    group=$(cat group)
    kill -s TERM -- "-$group"
    sleep 2
    kill -s KILL -- "-$group"
}

# Say what came of the job: end WHY EXIT_CODE
end() {
    free=$(df -Pk . | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')
    say "$@" || { rm -rf out result.json && say "$@"; } # the disk is full
}

say() {
    {
        echo "why $1"
        [ "$1" != busy ] || echo "holder $(sed -n 2p ../../holder)"
        echo "code $2"
        echo "free $free"
        find job.json result.json log out -type f -exec sha256sum {} + 2>/dev/null | sed 's/^/file /'
        find job.json result.json log out -type f -exec stat -c 'size %s %n' {} + 2>/dev/null
        echo complete
    } >ended.new && mv ended.new ended
}

main "$@"

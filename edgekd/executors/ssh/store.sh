# shellcheck shell=sh disable=SC2154 # $folder and $boot are in board.sh
# The store of a board: read-only files whose names are their SHA-256. `in` holds what is not whole yet.
# A line of `index` is name, size, modification time and boot of a file whose hash was checked; the last used file is last.

# Print what is free, and which of the files on stdin the store lacks, with the size of what came of them. When it lacks some,
# wait for the board some seconds, and print who holds it even then: look STORE_BYTES SLICE_S
look() {
    find in -mindepth 1 -maxdepth 1 -mmin +10080 -exec rm -rf {} +
    new=$folder/in/look.$$
    rm -rf "$new" && mkdir "$new" || exit 1 # of a process with the same number that was killed
    trap 'rm -rf "$new"' EXIT
    sort -u >"$new/wanted" && touch index || exit 1
    cd store || exit 1
    described <"$new/wanted" >"$new/found"
    grep -vxFf ../index "$new/found" | cut -d' ' -f1 | xargs -r sha256sum | awk '$1 != $2 { print $2 }' >"$new/damaged"
    xargs -r rm -f <"$new/damaged"
    {
        without "$new/wanted" <../index
        without "$new/damaged" <"$new/found"
    } >"$new/index"
    # The least recently used files go; never those that are wanted now.
    awk -v room="$1" '
        NR == FNR { wanted[$1]; next }
        { name[++count] = $1; size[count] = $2 }
        END { for (i = count; i > 0; i--) if ((used += size[i]) > room && !(name[i] in wanted)) print name[i] }
    ' "$new/wanted" "$new/index" >"$new/old"
    xargs -r rm -f <"$new/old"
    without "$new/old" <"$new/index" >"$new/rest" && mv "$new/rest" ../index
    echo "free $(free_bytes)"
    cut -d' ' -f1 "$new/found" >"$new/names" && without "$new/damaged" <"$new/names" >"$new/whole"
    without "$new/whole" <"$new/wanted" >"$new/lacking"
    while read -r name; do
        size=$(stat -c %s "../in/$name" 2>/dev/null) || size=0
        echo "lacks $name $size"
    done <"$new/lacking"
    cd "$folder" || exit 1
    [ ! -s "$new/lacking" ] || timeout "$2" flock -s lock true || held_by
}

# Lines of the index for the names on stdin; absent files have none.
described() { xargs -r stat -c '%n %s %y' 2>/dev/null | sed "s/\$/ $boot/"; }

# The lines of stdin whose first word is in no line of a file.
without() { awk -v file="$1" 'BEGIN { while ((getline line < file) > 0) drop[line] } !($1 in drop)'; }

# Take many small files from a tar archive on stdin, and print `whole NAME` for each that came as it was sent.
receive_small() {
    new=$folder/in/small.$$
    rm -rf "$new" "$new.whole" && mkdir "$new" && cd "$new" || exit 1
    tar -xmf -
    code=$? # a cut leaves the last file short; the others are good
    find . -type f | cut -c3- | xargs -r sha256sum | awk '$1 == $2 { print $2 }' >../small.$$.whole
    xargs -r chmod 444 <../small.$$.whole
    xargs -r sh -c 'mv -f "$@" ../../store/' mv <../small.$$.whole
    cd "$folder/store" && described <../in/small.$$.whole >>../index
    sed 's/^/whole /' ../in/small.$$.whole
    rm -rf "$new" "$new.whole"
    return $code
}

# Take a large file from stdin, from a number of blocks of 1 MiB on, and print `whole NAME` when it is complete:
# receive_large NAME SIZE BLOCKS
# Blocks are written at their place, so that a second writer that a lost link left behind writes the same bytes.
receive_large() {
    part=in/$1
    if ! errors=$(dd of="$part" bs=1048576 seek="$3" conv=notrunc 2>&1); then
        case $errors in *"No space left"*) rm -f "$part" ;; esac
        echo "$errors" >&2
        exit 1
    fi
    size=$(stat -c %s "$part" 2>/dev/null) || return 0 # another process, which sends the same, has put it into the store
    [ "$size" -ge "$2" ] || return 0 # a cut: the next call goes on
    sha256sum "$part" 2>/dev/null | {
        read -r sum _
        [ "$sum" = "$1" ] || { rm -f "$part" && return 0; } # damaged on the way, or here: from the start
        chmod 444 "$part" 2>/dev/null && mv -f "$part" store/ 2>/dev/null || return 0 # as above
        cd store && echo "$1" | described >>../index && echo "whole $1"
    }
}

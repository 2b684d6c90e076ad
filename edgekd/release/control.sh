#!/bin/sh
# Changes what serves under this folder's name, without the host. edgekd writes this file: NAME/control
#   control list                  print the releases
#   control rollback              go back to the release before this one
#   control install FILE.tar      check a bundle and switch to it
#   control service ARGUMENTS...  run the current release as a systemd user unit, e.g. control service --http 8080
#   control remove                stop it, and delete all its releases
# The code that runs is that of the current release; where it is damaged or gone, that of another one.
set -u
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 2
umask 077

# start RELEASE CODE ARGUMENTS...   Not -m: Python would import modules from the current folder first, e.g. another's json.py.
start() {
    # shellcheck disable=SC1090 # written by edgekd, with the release
    [ ! -r "$1.env" ] || . "$1.env"
    export PYTHONPATH="$1/runtime${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
    code="import sys; sys.path = [one for one in sys.path if one]; from edgekd.release.__main__ import main; $2"
    shift 2
    exec "${EDGEKD_PYTHON:-python3}" -c "$code" "$folder" "$@"
}

first=
for place in "$folder/current" "$folder"/releases/*/; do
    release=$(CDPATH='' cd -- "$place" 2>/dev/null && pwd -P) || continue
    first=${first:-$release}
    if (start "$release" '') >/dev/null 2>&1; then start "$release" 'sys.exit(main(sys.argv[1:]))' "$@"; fi
done
[ -z "$first" ] || start "$first" ''  # says why
echo "$folder: no release is current" >&2
exit 1

#!/bin/sh
# Changes what serves under this folder's name, without the host. edgekd writes this file: NAME/control
#   control list                  print the releases
#   control rollback              go back to the release before this one
#   control install FILE.tar      check a bundle and switch to it
#   control service ARGUMENTS...  run the current release as a systemd user unit, e.g. control service --http 8080
#   control remove                stop it, and delete all its releases
set -u
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 2
release=$(CDPATH='' cd -- "$folder/current" 2>/dev/null && pwd -P) || { echo "$folder: no release is current" >&2 && exit 1; }
# shellcheck disable=SC1090 # written by edgekd, with the release
[ ! -r "$release.env" ] || . "$release.env"
umask 077
export PYTHONPATH="$release/runtime${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec "${EDGEKD_PYTHON:-python3}" -m edgekd.release "$folder" "$@"

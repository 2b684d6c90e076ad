#!/bin/sh
# Runs this release.
#   run images/ | video.mp4 | camera:0 | rtsp://... > results.jsonl
#   run --http 8080         serve POST /infer, GET /health and /metrics on this machine
#   run --check             compare the engine with the golden outputs
#   run --help              print all options
# EDGEKD_PYTHON: the Python that has the engine's runtime, default python3.
set -eu
file=$(readlink -f -- "$0" 2>/dev/null) || file=$0
case $file in */*) ;; *) file=./$file ;; esac
folder=$(CDPATH='' cd -- "${file%/*}" && pwd -P)
# shellcheck disable=SC1090 # edgekd writes it when it installs the release
[ ! -r "$folder.env" ] || . "$folder.env"
# A release holds no file that its sums do not list, and so no bytecode.
export PYTHONPATH="$folder/runtime${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec "${EDGEKD_PYTHON:-python3}" -m edgekd.runner "$folder" "$@"

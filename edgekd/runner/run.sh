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
# Only beside an installed release, NAME/releases/ID: beside any other folder, anybody may have written the file.
# shellcheck disable=SC1090 # edgekd writes it when it installs the release
case $folder in */releases/*) [ ! -r "$folder.env" ] || . "$folder.env" ;; esac
# A release holds no file that its sums do not list, and so no bytecode.
export PYTHONPATH="$folder/runtime${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
# Not -m: Python would import modules from the current folder first, e.g. a json.py of another person.
exec "${EDGEKD_PYTHON:-python3}" -c 'import sys; sys.path = [one for one in sys.path if one]
import runpy; runpy.run_module("edgekd.runner", run_name="__main__", alter_sys=True)' "$folder" "$@"

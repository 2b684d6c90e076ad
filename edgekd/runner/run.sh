#!/bin/sh
# Runs this release.
#   run images/ | video.mp4 | camera:0 | rtsp://... > results.jsonl
#   run --http 8080         serve POST /infer, GET /health and /metrics on this machine
#   run --check             compare the engine with the golden outputs
#   run --help              print all options
# EDGEKD_PYTHON: the Python that has the engine's runtime, default python3.
set -eu
file=$(readlink -f "$0") || file=$0
here=$(cd "$(dirname "$file")" && pwd -P)
# shellcheck disable=SC1090 # written by edgekd when it put the release here
[ ! -r "$here.env" ] || . "$here.env"
export PYTHONPATH="$here/runtime${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
python=${EDGEKD_PYTHON:-python3}
[ "${1:-}" != --check ] || exec "$python" -m edgekd.release.golden "$here"
exec "$python" -m edgekd.runner "$here" "$@"

#!/bin/sh
# Runs this release: run --help. EDGEKD_PYTHON names another Python than python3.
set -e
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
PYTHONPATH="$folder/runtime${PYTHONPATH:+:$PYTHONPATH}"
PYTHONDONTWRITEBYTECODE=1 # a release holds no file that its sums do not list
export PYTHONPATH PYTHONDONTWRITEBYTECODE
exec "${EDGEKD_PYTHON:-python3}" -m edgekd.runner "$folder" "$@"

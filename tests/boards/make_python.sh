#!/usr/bin/env bash
# Makes the Python of the loopback board in FOLDER: Python 3.8 with numpy and ONNX Runtime and nothing else, as on a JetPack 5.
#
#   make_python.sh FOLDER UV
#
# Python 3.8 comes from the PATH or from pyenv. Without one the exit code is 3, and the tests take their own Python.
set -euo pipefail

PACKAGES='numpy==1.24.4 onnxruntime==1.19.2' # the last versions for Python 3.8
folder=$1 uv=$2

[[ ! -e $folder/packages || $(cat "$folder/packages") != "$PACKAGES" ]] || exit 0
for python in python3.8 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null || continue
    rm -rf "$folder"
    "$uv" venv -q --python "$python" "$folder"
    # shellcheck disable=SC2086  # the words are packages
    "$uv" pip install -q --python "$folder/bin/python" $PACKAGES
    echo "$PACKAGES" >"$folder/packages"
    exit 0
done
echo "make_python: no Python 3.8 on the PATH or in pyenv; the loopback board gets the Python of the tests" >&2
exit 3

#!/usr/bin/env bash
# versions.sh UV PYTHONS RESOLUTIONS: run the tests of the quick lane once for each Python and each resolution of the dependencies.
# The environments are made in build/versions; nothing else is changed.
set -euo pipefail
uv=$(realpath "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 UV_PYTHON_DOWNLOADS=never
ran=
for version in $2; do
  python=$("$uv" python find --no-project "$version" 2>/dev/null ||
    find ~/.pyenv/versions -path "*/$version.*/bin/python" 2>/dev/null | tail -n 1)
  if [ -z "$python" ]; then
    echo "no Python $version here: left out"
    continue
  fi
  for resolution in $3; do
    echo "== Python $version, $resolution"
    environment=build/versions/$version-$resolution
    "$uv" venv -q --clear --python "$python" "$environment"
    # A wheel or nothing: a package that is compiled from source would test this machine's compiler.
    "$uv" pip install -q --python "$environment/bin/python" --resolution "$resolution" --only-binary :all: --no-binary edgekd -e '.[quick]'
    "$environment/bin/python" -m pytest -n 2 --dist worksteal --max-worker-restart 0 -p tests.quick -m 'not slow'
    ran=yes
  done
done
[ -n "$ran" ]

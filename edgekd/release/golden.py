"""`python -m edgekd.release.golden FOLDER`: compares an unpacked bundle with its sums, and its engine with the golden outputs.

Exit code 0: one line on stdout with the figures; 1 or 2: one line on stderr with the reason.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List

from edgekd.errors import EdgekdError, GateError, one_line
from edgekd.release.sums import check_folder
from edgekd.runner.engine import open_engine
from edgekd.runner.golden import check_golden


def main(arguments: List[str]) -> int:
    """Check the folder that is the only argument and return the exit code."""
    folder = Path(arguments[0])
    try:
        check_folder(folder)
        with open_engine(folder) as engine:
            report = check_golden(folder, engine.manifest, engine.session)
    except EdgekdError as exc:
        sys.stderr.write(f"{one_line(exc, None)}\n")
        return exc.exit_code
    if report.reason:
        sys.stderr.write(f"{report.reason} ({report.text})\n")
        return GateError.exit_code
    sys.stdout.write(f"{report.text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m edgekd.worker job.json`: does one job for a target and writes `result.json` beside it.

Runs in a child process here, in a vendor virtualenv or on a board. Exit code 0: done; 2: refused with a reason; 70: an
unexpected exception. The result has the details; without a result the process crashed, was killed, or could not write.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import List

from edgekd.board.job import JobFailure, Progress, Result, read_job, write_progress, write_result
from edgekd.errors import EdgekdError, one_line
from edgekd.worker_tasks import TASKS

_PROGRESS_S = 0.5


def main(arguments: List[str]) -> int:
    """Do the job in the file that is the only argument and return the exit code."""
    path = Path(arguments[0]).resolve()
    job = read_job(path)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    logging.getLogger("edgekd").setLevel(logging.DEBUG)
    os.chdir(str(path.parent))
    started = time.monotonic()
    value, failure = None, None
    try:
        value = TASKS[job.task](job, _progress_of(path.parent))
    except EdgekdError as exc:
        failure = JobFailure(type(exc).__name__, one_line(exc, None), True)
    except OSError as exc:  # a full disk is not a bug
        failure = JobFailure(type(exc).__name__, one_line(exc, None), False, exc.errno, traceback.format_exc())
    except Exception as exc:  # noqa: BLE001 - vendors raise everything; it goes to the host whole
        message = one_line(exc, None)[-500:]
        failure = JobFailure(type(exc).__name__, message, False, None, traceback.format_exc())
    sys.stdout.flush()
    seconds = round(time.monotonic() - started, 3)
    try:
        write_result(Result(value, failure, seconds), path.parent)
    except (TypeError, ValueError) as exc:  # a plugin's or vendor's value that JSON does not have
        failure = JobFailure(type(exc).__name__, f"its result is no JSON: {exc}", False, None, traceback.format_exc())
        write_result(Result(None, failure, seconds), path.parent)
    return 0 if failure is None else 2 if failure.is_user_error else 70


def _progress_of(folder: Path) -> Progress:
    """Return a function that writes the progress into the job's folder, where the host reads it, twice a second at most."""
    written = -_PROGRESS_S

    def show(what: str, fraction: float) -> None:
        nonlocal written
        if time.monotonic() - written >= _PROGRESS_S:
            write_progress(folder, what, fraction)
            written = time.monotonic()

    return show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Jobs of a worker process: the request (`job.json`) and the result (`result.json`).

One protocol for vendor virtualenvs and for boards: the host writes a folder with `job.json` and the files
it names, runs `python -m edgekd.worker job.json` there, and reads `result.json`. Relative paths in a job are
relative to the job's folder, so that the folder can be copied. What the process prints goes to a log and is never read
for results.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from edgekd.board.files import write_atomic
from edgekd.errors import ArtifactError

Json = Dict[str, Any]  # a JSON object of a job or result; its keys belong to the task, see `edgekd/worker_tasks.py`
Progress = Callable[[str, float], None]  # called with the current step and the fraction done
JOB, RESULT, PROGRESS = "job.json", "result.json", "progress.json"
JOB_SCHEMA, RESULT_SCHEMA = "edgekd.job/1", "edgekd.result/1"


@dataclass(frozen=True)
class Job:
    """One task for a worker.

    task: its name in `edgekd.worker_tasks.TASKS`.
    target: name of the target; "" for a task of several targets.
    arguments: JSON, the mapping that the task declares (`edgekd/worker_tasks.py`). They refer to files by name.
    module: where the worker finds the target's `TARGET`. The executor fills it, and the following two.
    files: name -> path of each file that the job reads.
    out_dir: existing folder for the files that the job writes.
    """

    task: str
    target: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    module: str = ""
    files: Dict[str, str] = field(default_factory=dict)
    out_dir: str = ""


@dataclass(frozen=True)
class JobFailure:
    """Why a task failed.

    kind: name of the class in `edgekd.errors`, or of the exception that nobody expected.
    message: one line.
    is_user_error: whether `kind` is one of `edgekd.errors`.
    errno: number of an operating system's error, e.g. 28 for a full disk.
    traceback: traceback of an unexpected exception, else "".
    """

    kind: str
    message: str
    is_user_error: bool
    errno: Optional[int] = None
    traceback: str = ""


@dataclass(frozen=True)
class Result:
    """The result of a job: `value` (JSON, made by the task) or the failure, and its time in seconds."""

    value: Optional[Json]
    failure: Optional[JobFailure]
    seconds: float


def write_job(job: Job, folder: Path) -> Path:
    """Write `job.json` into an existing folder and return its path."""
    path = Path(folder) / JOB
    _write(path, {"schema": JOB_SCHEMA, **asdict(job)})
    return path


def read_job(path: Path) -> Job:
    """Read a `job.json`; ArtifactError when it is not one."""
    data = _read(Path(path), JOB_SCHEMA)
    try:
        names = ("task", "target", "arguments", "module", "files", "out_dir")
        return Job(**{name: data[name] for name in names})
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{path}: damaged ({exc!r}); write the job again") from exc


def write_result(result: Result, folder: Path) -> Path:
    """Write `result.json` so that a reader sees a whole one or none, and return its path."""
    path = Path(folder) / RESULT
    _write(path, {"schema": RESULT_SCHEMA, **asdict(result)})
    return path


def read_result(path: Path) -> Result:
    """Read a `result.json`.

    Raises:
        FileNotFoundError: there is none; the worker did not finish.
        ArtifactError: it is not a result, or holds neither a value nor a failure.
    """
    data = _read(Path(path), RESULT_SCHEMA)
    try:
        failure = JobFailure(**data["failure"]) if data["failure"] is not None else None
        result = Result(data["value"], failure, float(data["seconds"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{path}: damaged ({exc!r})") from exc
    if (result.failure is None) != isinstance(result.value, dict):
        raise ArtifactError(
            f"{path}: expected a value or a failure, got {data['value']!r} and {data['failure']!r}; run the job again"
        )
    return result


def write_progress(folder: Path, what: str, fraction: float) -> None:
    """Write a job's progress: the current step in a word or two, and the fraction done in [0, 1]."""
    write_atomic(Path(folder) / PROGRESS, json.dumps([what, fraction]))


def read_progress(folder: Path) -> Optional[Tuple[str, float]]:
    """Return the progress that `write_progress` wrote last, None before."""
    try:
        what, fraction = json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(what), float(fraction)


def _read(path: Path, schema: str) -> Json:
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ArtifactError(f"{path}: not JSON ({exc})") from exc
    found = data.get("schema") if isinstance(data, dict) else None
    if found != schema:
        raise ArtifactError(f"{path}: expected schema {schema}, got {found!r}")
    content: Json = data
    return content


def _write(path: Path, data: Mapping[str, object]) -> None:
    write_atomic(path, json.dumps(data, indent=1, allow_nan=False))

"""`python -m edgekd.worker job.json`: does one job for a target and writes `result.json` beside it.

Runs in a child process here, in a vendor virtualenv or on a board. Exit code 0: done; 2: refused with a reason; 70: an
unexpected exception. The result says the same in full; without a result the process crashed, was killed, or could not write.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
import traceback
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np

from edgekd.board.files import replacing
from edgekd.board.job import Job, JobFailure, Result, read_job, write_result
from edgekd.board.specs import ModelSpec
from edgekd.errors import EdgekdError, TargetError, one_line
from edgekd.targets.base import CompileRequest, Target


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
        value = TASKS[job.task](_target(job), job.arguments)
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
    except (TypeError, ValueError) as exc:  # a value that is no JSON, of a plugin or a vendor
        failure = JobFailure(type(exc).__name__, f"its result is no JSON: {exc}", False, None, traceback.format_exc())
        write_result(Result(None, failure, seconds), path.parent)
    return 0 if failure is None else 2 if failure.is_user_error else 70


def compile_engine(target: Target, given: Dict[str, Any]) -> Dict[str, Any]:
    """Build an engine.

    given: model, out_dir (paths), spec, precision, options, calibration (path or None). Value: engine (path relative to
    out_dir), spec, details, runtime_version.
    """
    out_dir = Path(given["out_dir"])
    request = CompileRequest(
        model=Path(given["model"]),
        spec=ModelSpec.from_dict(given["spec"]),
        precision=given["precision"],
        out_dir=out_dir,
        options=_options(target, given["options"]),
        calibration=Path(given["calibration"]) if given["calibration"] else None,
    )
    result = target.build_engine(request)
    return {
        "engine": Path(result.engine).relative_to(out_dir).as_posix(),
        "spec": result.spec.to_dict(),
        "details": result.details,
        "runtime_version": target.runtime_version(),
    }


def infer(target: Target, given: Dict[str, Any]) -> Dict[str, Any]:
    """Run an engine over files of inputs.

    given: engine (path), spec, options, is_simulated, inputs (.npz files: arrays by tensor name), out_dir. Value: runtime
    (what the session says of itself), outputs: for each input file the name of an .npz of the same name in out_dir, arrays
    by output name.
    """
    session_type = target.simulator if given["is_simulated"] else target.session
    if session_type is None:
        raise TargetError(f"{given['engine']}: its target has no simulator; run the engine on its chip")
    out_dir, written = Path(given["out_dir"]), []
    opened = session_type(Path(given["engine"]), ModelSpec.from_dict(given["spec"]), _options(target, given["options"]))
    with opened as session:
        for name in given["inputs"]:
            with np.load(name, allow_pickle=False) as archive:
                arrays = {key: np.ascontiguousarray(archive[key]) for key in archive.files}
            _write_arrays(out_dir / Path(name).name, session.infer(arrays))
            written.append(Path(name).name)
        return {"runtime": session.runtime, "outputs": written}


def probe(target: Target, given: Dict[str, Any]) -> Dict[str, Any]:
    """Ask the toolchain which nodes of a model it takes. given: model (path), options. Value: a `Probe` as JSON."""
    if target.probe is None:
        raise TargetError("the target has no probe")
    return asdict(target.probe(Path(given["model"]), _options(target, given["options"])))


def version(target: Target, given: Dict[str, Any]) -> Dict[str, Any]:
    """Say the version of the target's runtime. Value: runtime_version."""
    return {"runtime_version": target.runtime_version()}


TASKS: Dict[str, Callable[[Target, Dict[str, Any]], Dict[str, Any]]] = {
    "compile": compile_engine,
    "infer": infer,
    "probe": probe,
    "version": version,
}


def _target(job: Job) -> Target:
    found: Target = importlib.import_module(job.module).TARGET
    return found


def _options(target: Target, given: Dict[str, Any]) -> Any:
    """Return the target's options from JSON."""
    known = {one.name for one in fields(target.options)}
    if not set(given) <= known:
        raise TargetError(f"unknown options {sorted(set(given) - known)}; known: {sorted(known)}")
    return target.options(**{key: _immutable(value) for key, value in given.items()})


def _immutable(value: Any) -> Any:
    """Return JSON with tuples for lists."""
    return tuple(map(_immutable, value)) if isinstance(value, list) else value


def _write_arrays(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Write an .npz so that a reader sees a whole one or none."""
    with replacing(path) as temporary, open(str(temporary), "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

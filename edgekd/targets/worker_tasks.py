"""What a worker can be asked: compile an engine, run one over files, say the version of the runtime.

The target's module is `edgekd.targets.<name>` wherever the worker runs; the host puts it there.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict

import numpy as np

from edgekd.board.files import replacing
from edgekd.board.job import Job
from edgekd.board.specs import ModelSpec
from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest


def compile_engine(job: Job) -> Dict[str, Any]:
    """Build an engine.

    Arguments of the job: model, out_dir (paths), spec, precision, options. Value: engine (path relative to out_dir),
    spec, details, runtime_version.
    """
    target, given = _target(job), job.arguments
    out_dir = Path(given["out_dir"])
    request = CompileRequest(
        model=Path(given["model"]),
        spec=ModelSpec.from_dict(given["spec"]),
        precision=given["precision"],
        out_dir=out_dir,
        options=_options(target, given["options"]),
    )
    result = target.build_engine(request)
    return {
        "engine": Path(result.engine).relative_to(out_dir).as_posix(),
        "spec": result.spec.to_dict(),
        "details": result.details,
        "runtime_version": target.runtime_version(),
    }


def infer(job: Job) -> Dict[str, Any]:
    """Run an engine over files of inputs.

    Arguments of the job: engine (path), spec, options, session (name of the target's session class), inputs (.npz
    files: arrays by tensor name), out_dir. Value: runtime (what the session says of itself), outputs: for each input
    file the name of an .npz of the same name in out_dir, arrays by output name.
    """
    target, given = _target(job), job.arguments
    out_dir = Path(given["out_dir"])
    opened = getattr(target, given["session"])(
        Path(given["engine"]), ModelSpec.from_dict(given["spec"]), _options(target, given["options"])
    )
    written = []
    with opened as session:
        for name in given["inputs"]:
            with np.load(name, allow_pickle=False) as archive:
                arrays = {key: np.ascontiguousarray(archive[key]) for key in archive.files}
            write_arrays(out_dir / Path(name).name, session.infer(arrays))
            written.append(Path(name).name)
        return {"runtime": session.runtime, "outputs": written}


def version(job: Job) -> Dict[str, Any]:
    """Say the version of the target's runtime. Value: runtime_version."""
    return {"runtime_version": _target(job).runtime_version()}


def write_arrays(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Write an .npz so that a reader sees a whole one or none."""
    with replacing(path) as temporary, open(str(temporary), "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags


def _target(job: Job) -> Any:
    return importlib.import_module(f"edgekd.targets.{job.target}.target")


def _options(target: Any, given: Dict[str, Any]) -> Any:
    """Return the target's `Options` from JSON, where tuples are lists."""
    known = {one.name for one in fields(target.Options)}
    if not set(given) <= known:
        raise TargetError(f"{target.__name__}: unknown options {sorted(set(given) - known)}; known: {sorted(known)}")
    return target.Options(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})

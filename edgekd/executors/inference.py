"""Runs an engine over inputs as a job, with the same code on a board and in a vendor's virtualenv."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.arguments import EngineArguments, InferArguments, MeasuredEngine
from edgekd.board.job import Job
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.errors import ArtifactError
from edgekd.executors.answers import mapping_of, texts_of
from edgekd.executors.base import Executor
from edgekd.executors.logs import LOG

Arrays = dict[str, np.ndarray]
OUT = "out"  # a job's folder for results
_HEADER_BYTES = 1 << 12  # of an array in an .npz


@dataclass(frozen=True)
class EngineFiles:
    """An engine to run.

    target: name of its target.
    engine: its main file, by its name in `files`.
    files: all files of the engine by name.
    spec: its contract.
    options: the target's.
    """

    target: str
    engine: str
    files: Mapping[str, Path]
    spec: ModelSpec
    options: Any


def engine_files(artifact: Artifact) -> EngineFiles:
    """Return the engine of an artifact of kind `engine`."""
    details = artifact.details
    options = plugin_options("targets", details["target"], details["options"], "options")
    files = {entry["name"]: artifact.file(entry["name"]) for entry in artifact.manifest["files"]}
    return EngineFiles(details["target"], details["engine"], files, artifact.spec, options)


def measured_engine(name: str, engine: EngineFiles, files: dict[str, Path]) -> MeasuredEngine:
    """Add an engine's files to a measuring job's files, prefixed by its name; return its entry in the job's arguments."""
    files |= {f"{name}/{file}": path for file, path in engine.files.items()}
    return {
        "module": plugins.load("targets", engine.target).__name__,
        "engine": f"{name}/{engine.engine}",
        "spec": engine.spec.to_dict(),
        "options": asdict(engine.options),
    }


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def run_engine(
    engine: EngineFiles, inputs: Iterable[Arrays], executor: Executor, is_simulated: bool = False
) -> tuple[list[Arrays], Facts]:
    """Return the outputs for each set of inputs, by tensor name, and the runtime's facts about itself.

    Args:
        engine: the engine.
        inputs: arrays by name as the engine's own contract has them.
        executor: runs it.
        is_simulated: run in the target's simulator instead of on the chip.

    Raises:
        ArtifactError: the returned arrays are not outputs of this engine.
        TargetError: the runtime refuses the engine; errors as `Executor.run_job`.
    """
    most_bytes = sum(array_bytes(one.shape, np.dtype(one.dtype).itemsize) for one in engine.spec.outputs)
    with TemporaryDirectory(prefix="edgekd-infer-") as text:
        files, asked = inputs_of_job(engine, inputs, Path(text))
        arguments: InferArguments = {**asked, "is_simulated": is_simulated}
        out = Path(text) / OUT
        value = executor.run_job(Job("infer", engine.target, arguments), files, out, Path(text) / LOG)
        written = texts_of(value, "outputs", len(asked["inputs"]))
        arrays = [read_arrays(out / Path(file).name, most_bytes, "outputs") for file in written]
        return arrays, mapping_of(value, "runtime")


def inputs_of_job(
    engine: EngineFiles, inputs: Iterable[Arrays], folder: Path
) -> tuple[dict[str, Path], EngineArguments]:
    """Write inputs as files of a job that runs an engine, and make its folder OUT; return its files and its arguments."""
    (folder / OUT).mkdir()
    files, names = dict(engine.files), []
    for number, arrays in enumerate(inputs):
        names.append(f"inputs/{number:05}.npz")
        files[names[-1]] = folder / f"{number:05}.npz"
        np.savez(files[names[-1]], **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
    return files, {
        "engine": engine.engine,
        "spec": engine.spec.to_dict(),
        "options": asdict(engine.options),
        "inputs": names,
    }


def array_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Return the most bytes that an array takes in an .npz."""
    return _HEADER_BYTES + itemsize * math.prod(shape)


def read_arrays(path: Path, most_bytes: int, what: str) -> Arrays:
    """Return the arrays of an .npz that another machine wrote.

    Raises:
        ArtifactError: the file is no .npz, or is larger than `most_bytes`.
    """
    try:
        with zipfile.ZipFile(path) as file:  # a small file can hold a large array
            if sum(entry.file_size for entry in file.infolist()) > most_bytes:
                raise ValueError(f"larger than the {what} of its engine")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path.name}: not the {what} of an engine ({exc}); run it again") from exc

"""Runs an engine in its toolchain's simulator: what it computes, never how fast, and not on the chip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.job import Job
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.errors import TargetError
from edgekd.executors.toolchain import LOG, run_job


def simulate(
    engine: Artifact, inputs: Iterable[dict[str, np.ndarray]]
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Return the outputs for each set of inputs, by tensor name, and what the simulator says of itself.

    Args:
        engine: artifact of kind `engine` of a target that has a simulator.
        inputs: arrays by name as the engine's own contract has them.

    Raises:
        TargetError: the target has no simulator, or the simulator refuses the engine.
        ToolchainError: its toolchain is not installed, crashed, hung or logged errors.
    """
    name, details = engine.details["target"], engine.details
    if plugins.target(name).simulator is None:
        raise TargetError(f"{engine.path}: target {name} has no simulator; run the engine on its chip")
    options = plugin_options("targets", name, details["options"], "options")
    with TemporaryDirectory(prefix="edgekd-simulator-") as text:
        folder, out = Path(text), Path(text) / "out"
        out.mkdir()
        files = []
        for number, arrays in enumerate(inputs):
            files.append(folder / f"{number:05}.npz")
            np.savez(files[-1], **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
        arguments = {
            "engine": str(engine.file(details["engine"]).absolute()),
            "spec": engine.spec.to_dict(),
            "options": asdict(options),
            "is_simulated": True,
            "inputs": [str(file) for file in files],
            "out_dir": str(out),
        }
        value = run_job(Job("infer", name, arguments), folder / LOG)
        return [_arrays(out / file) for file in value["outputs"]], value["runtime"]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}

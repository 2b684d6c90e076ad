"""The bench stage: stores the latency of all engines of a board, measured there in one interleaved run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgekd.board.arguments import DecodeArguments, MeasureArguments
from edgekd.board.bench import BenchSettings
from edgekd.board.job import Job
from edgekd.board.long_runs import LongRunSettings
from edgekd.core.artifact import StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.recipe import LOCAL, Bench, Recipe
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.executors.answers import reasons_of, rows_of
from edgekd.executors.boards import confirm, executor_of, machine_on, prepare
from edgekd.executors.inference import engine_files, measured_engine


def run(job: StageJob) -> StageResult:
    """Measure every engine among the inputs on images of the scored split, and keep the raw samples.

    An engine that does not open or run is left out and named with its reason.

    Raises:
        TargetError: no engine runs.
        BoardError: the board cannot be reached, or is not set as its inventory expects, before, during or after.
    """
    recipe, board = job.recipe, board_in(job.recipe)
    dataset = open_split(recipe, recipe.data.val)
    engines = {name.split("/")[1]: artifact for name, artifact in job.inputs.items() if artifact.kind == "engine"}
    settings = BenchSettings(
        recipe.bench.min_samples, recipe.bench.min_seconds, recipe.bench.warmup_max_seconds, recipe.seed
    )
    with TemporaryDirectory(prefix="edgekd-bench-") as folder:
        files: dict[str, Path] = {}
        for index in range(min(recipe.bench.images, len(dataset))):
            files[f"images/{index:03}.npy"] = Path(folder) / f"{index:03}.npy"
            np.save(files[f"images/{index:03}.npy"], dataset.load(index).image)
        images = list(files)
        arguments: MeasureArguments = {
            "images": images,
            "settings": asdict(settings),
            "long_runs": asdict(_long_runs(recipe.bench)),
            "engines": {name: measured_engine(name, engine_files(engine), files) for name, engine in engines.items()},
            "decode": _image_files(dataset, len(images), files)
            if board == LOCAL
            else None,  # a board cannot read images
        }
        prepare(board)
        with progress_bar("measuring latency, %", redraws_itself=False) as progress:
            value = executor_of(board).run_job(
                Job("measure", "", arguments),
                files,
                job.out_dir,
                Path(folder) / "log.txt",
                lambda _, fraction: progress(int(100 * fraction), 100),
            )
    disturbances = confirm(board, value.get("state"))
    there = machine_on(board)
    if board != LOCAL and there["environment"]["virtualized"]:
        disturbances.append("the board is an emulator or a virtual machine: this is not the latency of its chip")
    rows = {
        name: {**row, "warnings": [*row["warnings"], *disturbances]}
        for name, row in rows_of(value, "rows", engines).items()
    }
    details = {"rows": rows, "state": value["state"], "machine": there}
    return StageResult(details=details, failures=reasons_of(value, "failures"))


def machine(recipe: Recipe) -> dict[str, object]:
    """Return the machine that the latencies belong to (JSON): another one measures again."""
    return asdict(executor_of(board_in(recipe)).identity())


def _image_files(dataset: DenseDataset, count: int, files: dict[str, Path]) -> DecodeArguments | None:
    """Add the files of the first images to those of the job and return how they are read; None for generated images."""
    found = {f"decode/{index:03}": dataset.files(index)[0] for index in range(count) if dataset.files(index)}
    files |= found
    return {"function": "edgekd.data.images:read_image", "images": list(found)} if found else None


def _long_runs(bench: Bench) -> LongRunSettings:
    return LongRunSettings(bench.energy_seconds, bench.sustained_seconds, bench.cool_down_seconds, bench.sensor_hz)


def board_in(recipe: Recipe) -> str:
    """Return the board of the recipe's engines, which the stage's sections name."""
    return next(engine.board for engine in recipe.engines)

"""Measures engines beside each other on a board: the files and arguments of the task `duel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.duel import Side
from edgekd.board.job import Job
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine, Recipe
from edgekd.data.splits import open_split
from edgekd.executors.boards import executor_of
from edgekd.worker_tasks import DuelArguments, MeasuredEngine

IMAGES = 8
Progress = Callable[[str, float], None]  # called with what is being done and the share of it that is done


@dataclass(frozen=True)
class Candidate:
    """An engine to measure: an artifact, opened with options (all of them, as a recipe gives them)."""

    artifact: Artifact
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Measuring:
    """Measures candidates of one engine: `images` are files by name, `rounds` the number of bursts of each."""

    images: Mapping[str, Path]
    rounds: int
    seed: int
    progress: Progress

    def __call__(self, engine: Engine, candidates: Mapping[str, Candidate]) -> tuple[dict[str, Side], dict[str, str]]:
        """Return the sides of candidates on the engine's board, the first one's first, and why some have none.

        Raises:
            TargetError: the first candidate does not run.
        """
        files = dict(self.images)
        arguments: DuelArguments = {
            "engines": {name: _described(name, one, files) for name, one in candidates.items()},
            "images": list(self.images),
            "rounds": self.rounds,
            "seed": self.seed,
        }
        with TemporaryDirectory(prefix="edgekd-duel-") as folder:
            value = executor_of(engine.board).run_job(
                Job("duel", "", arguments),
                files,
                Path(folder),
                Path(folder) / "log.txt",
                lambda _, share: self.progress(f"measuring {engine.id}", share),
            )
        return {name: Side(**side) for name, side in value["sides"].items()}, value["failures"]


@contextmanager
def image_files(recipe: Recipe) -> Iterator[dict[str, Path]]:
    """Write images of the scored split as arrays for a job, and return their files by name."""
    dataset = open_split(recipe, recipe.data.val)
    with TemporaryDirectory(prefix="edgekd-tune-") as folder:
        files = {}
        for index in range(min(IMAGES, len(dataset))):
            files[f"images/{index:03}.npy"] = Path(folder) / f"{index:03}.npy"
            np.save(files[f"images/{index:03}.npy"], dataset.load(index).image)
        yield files


def _described(name: str, one: Candidate, files: dict[str, Path]) -> MeasuredEngine:
    """Add an engine's files to those of the job and return what the job says of it."""
    details, artifact = one.artifact.details, one.artifact
    files |= {f"{name}/{entry['name']}": artifact.file(entry["name"]) for entry in artifact.manifest["files"]}
    return {
        "module": plugins.load("targets", details["target"]).__name__,
        "engine": f"{name}/{details['engine']}",
        "spec": artifact.spec.to_dict(),
        "options": asdict(plugin_options("targets", details["target"], one.options, "options")),
    }

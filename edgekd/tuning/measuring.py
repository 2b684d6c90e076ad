"""Measures engines beside each other on a board: the files and arguments of the task `duel`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.arguments import DuelArguments
from edgekd.board.duel import Side
from edgekd.board.job import Job, Progress
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine, Recipe
from edgekd.data.splits import open_split
from edgekd.executors.answers import reasons_of
from edgekd.executors.boards import confirm, executor_of, prepare
from edgekd.executors.inference import EngineFiles, engine_files, measured_engine

log = logging.getLogger(__name__)
IMAGES = 8


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
            BoardError: the board cannot be reached, or is not set as its inventory expects.
        """
        files = dict(self.images)
        arguments: DuelArguments = {
            "engines": {name: measured_engine(name, _files_of(one), files) for name, one in candidates.items()},
            "images": list(self.images),
            "rounds": self.rounds,
            "seed": self.seed,
        }
        prepare(engine.board)
        with TemporaryDirectory(prefix="edgekd-duel-") as folder:
            value = executor_of(engine.board).run_job(
                Job("duel", "", arguments),
                files,
                Path(folder),
                Path(folder) / "log.txt",
                lambda _, share: self.progress(f"measuring {engine.id}", share),
            )
        for disturbance in confirm(engine.board, value.get("state")):
            log.warning("%s: %s", engine.board, disturbance)
        return {name: Side(**side) for name, side in value["sides"].items()}, reasons_of(value, "failures")


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


def _files_of(one: Candidate) -> EngineFiles:
    """Return the engine of a candidate, with the candidate's options."""
    engine = engine_files(one.artifact)
    return replace(engine, options=plugin_options("targets", engine.target, one.options, "options"))

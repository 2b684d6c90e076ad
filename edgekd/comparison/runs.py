"""A run as the comparison reads it: report, raw latency samples and image counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.board.timing import burst_medians
from edgekd.core.task_metrics import TASKS
from edgekd.evaluate.image_scores import FILE as IMAGE_SCORES
from edgekd.evaluate.image_scores import ImageScores, of_all
from edgekd.report.collect import DATA
from edgekd.report.data_files import image_scores_of, read_arrays
from edgekd.report.latency import Latency
from edgekd.report.model import Report, Row
from edgekd.report.stored import read_report

Series = Literal["engine", "wall"]


@dataclass(frozen=True)
class Times:
    """Raw runs of one series.

    samples_ms: (N,) float64.
    rounds_ms: (R,) float64, the median of each burst.
    is_quiet: whether the bench has no reason to doubt the latency.
    """

    samples_ms: np.ndarray
    rounds_ms: np.ndarray
    is_quiet: bool = True


class Run:
    """A report and its data folder.

    Args:
        path: folder of `edgekd run`, or a report.json.

    Raises:
        UserError: no such file, not a report, or a report of a newer edgekd.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: Report = read_report(path)
        self._data = (path if path.is_dir() else path.parent) / DATA

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The rows by id."""
        return {row.id: row for row in self.report.rows}

    def image_scores(self, row: Row) -> ImageScores | None:
        """Return pixel counts or matches of each scored image; None if they are missing or do not give the row's score.

        Raises:
            ArtifactError: the file is damaged.
        """
        metric = TASKS[row.task].metric
        images, score = image_scores_of(row.id, self._images), row.metrics.get(metric)
        if images is None or score is None or images.num_images != row.num_images:
            return None
        return images if abs(of_all(images).get(metric, math.inf) - score) < 1e-9 else None

    def times(self, row: Row, series: Series) -> Times | None:
        """Return the raw latency samples of a row; None if they are missing or do not give the row's summary.

        Raises:
            ArtifactError: the file is damaged.
        """
        summary: Latency | None = row.latency_ms if series == "engine" else row.wall_ms
        samples = self._samples.get(f"{row.id}/{series}_ns")
        bursts = self._samples.get(f"{row.id}/{series}_bursts")
        if summary is None or samples is None or bursts is None or not _are_bursts(samples, bursts):
            return None
        samples_ms = samples / 1e6
        if len(samples_ms) != summary.n or summary.min is None or abs(samples_ms.min() - summary.min) > 1e-9:
            return None
        return Times(samples_ms, burst_medians(samples_ms, bursts), row.is_quiet)

    @cached_property
    def _images(self) -> dict[str, np.ndarray]:
        return read_arrays(self._data / IMAGE_SCORES)

    @cached_property
    def _samples(self) -> dict[str, np.ndarray]:
        return read_arrays(self._data / "samples.npz")


def _are_bursts(samples: np.ndarray, bursts: np.ndarray) -> bool:
    """Whether the bursts divide the samples, all of them positive."""
    if samples.ndim != 1 or bursts.ndim != 1 or {samples.dtype.kind, bursts.dtype.kind} - set("ui"):
        return False
    return bool(len(bursts) and (bursts > 0).all() and bursts.sum() == len(samples) and (samples > 0).all())

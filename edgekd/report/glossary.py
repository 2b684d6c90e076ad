"""What every number on the page means: the report's own metric definitions, then those of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.report.pictures import BAND_PX


@dataclass(frozen=True)
class Definition:
    """Name, title and explanation of a number. `better` is `higher`, `lower` or empty."""

    name: str
    title: str
    text: str
    better: str


_PAGE = (
    Definition(
        "points", "points",
        "Percentage points: the difference of two percentages. From 60.0 % to 61.5 % is +1.5 points.", "",
    ),
    Definition(
        "latency_ms", "engine time",
        "Time of one synchronous inference of one image: input tensor in, output tensors out. Pre- and post-processing "
        "are outside. Measured after warm-up, one inference at a time; p50 is the median.", "lower",
    ),
    Definition(
        "wall_ms", "wall time",
        "Time from an image array in memory to the class map, or the objects, at image size: pre-processing, inference and "
        "post-processing together. Decoding the image file is outside.", "lower",
    ),
    Definition(
        "percentiles", "p50, p90, p99",
        "Half, 90 % and 99 % of the runs are at most this long. A percentile that the number of runs cannot carry "
        "is withheld and shown as –.", "lower",
    ),
    Definition("throughput_fps", "throughput", "Images per second as the benchmark measured it, for the same engine.", "higher"),
    Definition("size_bytes", "size", "Bytes of the deployed file, or files, on disk. 1 MB is 1 000 000 bytes.", "lower"),
    Definition("params", "parameters", "Trained numbers of the network.", "lower"),
    Definition("macs", "multiply-adds", "Multiply-add operations of one image at the network's input size.", "lower"),
    Definition(
        "boundary_band", "boundary band, boundary errors",
        f"In the pictures: labelled pixels that have a pixel of another true class at most {BAND_PX} px away in both "
        "directions. A boundary error is a wrong pixel in this band. Contours against ignored pixels do not count.", "lower",
    ),
    Definition(
        "loss", "task loss",
        "The training loss against the labels, without distillation terms, averaged since the point before.", "lower",
    ),
    Definition(
        "sha256", "sha256",
        "Fingerprint of the measured file: the same fingerprint means the same bytes.", "",
    ),
)  # fmt: skip


def glossary(definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, Definition]:
    """Return all definitions by name; the report's own come first and win."""
    better = {True: "higher", False: "lower"}
    own = {
        name: Definition(
            name,
            str(entry.get("title") or name),
            str(entry.get("text") or ""),
            better.get(bool(entry.get("higher_is_better")), ""),
        )
        for name, entry in definitions.items()
    }
    return own | {entry.name: entry for entry in _PAGE if entry.name not in own}

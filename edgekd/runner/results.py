"""Results as JSON, one object per frame, schema `edgekd.results/1`: docs/reference/results-json.md.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from edgekd.board.detection import Detections, Selection
from edgekd.board.files import write_atomic
from edgekd.board.postprocess import Timed
from edgekd.board.run_masks import runs_of
from edgekd.board.runs import encode_values
from edgekd.runner.frames import Frame
from edgekd.runner.metrics import STAGES

SCHEMA = "edgekd.results/1"
Json = Dict[str, Any]


@dataclass(frozen=True)
class ResultSettings:
    """Fields of a result.

    selection: selection of objects.
    has_runs: whether a segmenter's class map is in it, as run lengths.
    has_masks: whether objects have their masks.
    """

    selection: Selection
    has_runs: bool = False
    has_masks: bool = True


def to_json(frame: Frame, timed: Timed, classes: Tuple[str, ...], settings: ResultSettings) -> Json:
    """Return the JSON of one frame's result.

    Args:
        frame: the frame.
        timed: a class map (H, W) uint8 or `Detections`, and times.
        classes: names of the engine's classes.
        settings: what it holds.
    """
    height, width = frame.pixels.shape[:2]
    line: Json = {
        "schema": SCHEMA,
        "source": frame.source,
        "index": frame.index,
        "time": _utc(frame.time),
        "width": width,
        "height": height,
        "milliseconds": {name: round(value, 3) for name, value in zip(STAGES, timed.milliseconds)},  # noqa: B905
    }
    if frame.dropped:
        line["dropped"] = frame.dropped
    if isinstance(timed.result, Detections):
        line["objects"] = _objects(timed.result, classes, settings)
        line["more"] = len(line["objects"]) >= settings.selection.most
        return line
    line["classes"] = _shares(timed.result, classes)
    if settings.has_runs:
        line["class_map"] = encode_values(timed.result)
    return line


def to_line(data: Json) -> bytes:
    """Return one line of JSON, UTF-8; a byte of a file name that is not UTF-8 is escaped, as Python's `os.fsdecode` has it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _utc(seconds: float) -> str:
    whole, part = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{part:03}Z"


def _shares(class_map: np.ndarray, classes: Tuple[str, ...]) -> Dict[str, float]:
    counts = np.bincount(class_map.ravel(), minlength=len(classes))
    order = [int(c) for c in np.argsort(-counts) if counts[c]]
    return {classes[c]: round(float(counts[c] / class_map.size), 4) for c in order}


def _objects(found: Detections, classes: Tuple[str, ...], settings: ResultSettings) -> List[Json]:
    shown = np.flatnonzero(found.scores >= settings.selection.min_score).tolist()
    entries: List[Json] = [
        {
            "class": classes[int(found.labels[i])],
            "score": round(float(found.scores[i]), 4),
            "box_xyxy": [round(float(value), 2) for value in found.boxes[i]],
        }
        for i in shown
    ]
    if found.masks is not None and settings.has_masks:
        for entry, i in zip(entries, shown):  # noqa: B905 - Python 3.8
            entry["mask"] = {"size": list(found.masks.size), "counts": runs_of(found.masks, i)}
    return entries


def write_map(folder: Path, source: str, number: int, class_map: np.ndarray) -> str:
    """Write a class map (H, W) uint8 as a gray PNG of class indices and return its path.

    Args:
        folder: exists.
        source: source of the frame; its file name begins that of the file.
        number: index of the result in this run, which makes names differ.
        class_map: the result.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(source).stem).strip("._")[:80] or "frame"
    path = folder / f"{stem}_{number:06}_mask.png"
    write_atomic(path, gray_png(class_map))
    return str(path)


def gray_png(pixels: np.ndarray) -> bytes:
    """Return (H, W) uint8 as a PNG whose samples are the values. Source: PNG specification (third edition)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")

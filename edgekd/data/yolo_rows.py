"""Rows of YOLO label files: a box or a polygon, in fractions of the image's width and height."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from edgekd.data.annotation import OTHER_CLASSES, Annotation, Refusals
from edgekd.data.coco_masks import Segmentation
from edgekd.errors import DataError

_BEYOND = 0.01  # share of a side by which a coordinate may pass the edge
_FAR = 1.0  # the same where boxes and polygons are cut at the edge: coordinates further out are pixels
_CONFIDENCE = "confidences behind boxes left out"


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    labels: class index by the number in a row, None for a class that is left out.
    keypoints: number of keypoint values behind each box.
    """

    labels: list[int | None]
    has_masks: bool
    keypoints: int
    is_cut: bool
    refusals: Refusals = field(default_factory=Refusals)


def read_row(
    row: list[str], where: str, size: tuple[int, int], reading: Reading, repairs: Counter[str]
) -> Annotation | None:
    """Return the object of a row; None where its class is left out."""
    if reading.keypoints and len(row) == 5 + reading.keypoints:
        row = row[:5]
    if len(row) == 6 and not reading.keypoints:
        _share(row.pop(), where, _BEYOND)
        repairs[_CONFIDENCE] += 1
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        raise DataError(
            f"{where}: expected `class xc yc w h` or `class x1 y1 x2 y2 x3 y3 ...`, got {len(row)} fields; fix the row"
        )
    label = reading.labels[_class(row[0], len(reading.labels), where)]
    height, width = size
    far = _FAR if reading.is_cut else _BEYOND
    if len(row) == 5:
        x, y = (_share(text, where, far) for text in row[1:3])
        w, h = (_share(text.removeprefix("-"), where, far) * (-1 if text[0] == "-" else 1) for text in row[3:])
        if label is None:
            repairs[OTHER_CLASSES] += 1
            return None
        if reading.has_masks:
            raise DataError(
                f"{where}: a box, expected a polygon for the task instance; use task detection, or outline it"
            )
        x, w, y, h = x * width, w * width, y * height, h * height
        return Annotation(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), where)
    values = np.array([_share(text, where, far) for text in row[1:]])
    if label is None:
        repairs[OTHER_CLASSES] += 1
        return None
    points = values.reshape(-1, 2) if reading.is_cut else np.clip(values.reshape(-1, 2), 0, 1)
    points = points * [width, height]
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    mask = Segmentation([points.flatten().tolist()], reading.is_cut) if reading.has_masks else None
    return Annotation(label, (x1, y1, x2, y2), where, mask)


def _class(text: str, count: int, where: str) -> int:
    """Return a class's number; some tools write it as 1.0, 1.000000 or 1e+00."""
    number = _float(text)
    if number is None or not number.is_integer() or not 0 <= number < count:
        raise DataError(f"{where}: expected a class from 0 to {count - 1}, got {text[:40]!r}; fix it or add a name")
    return int(number)


def _share(text: str, where: str, beyond: float) -> float:
    value = _float(text)
    if value is None:
        raise DataError(f"{where}: expected numbers, got {text[:40]!r}; fix the row")
    if not math.isfinite(value) or not -beyond <= value <= 1 + beyond:
        cut = ", or set data.options.beyond_edge: cut" if beyond < abs(value) <= 1 + _FAR else ""
        raise DataError(
            f"{where}: expected shares of the image's sides in 0..1, got {text[:40]}; divide pixels by them{cut}"
        )
    return value


def _float(text: str) -> float | None:
    """Return a number as other tools write it; None for anything else. Python also reads `1_0` and other scripts' digits."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None

"""Averages of the precision that COCO's evaluation counts at each IoU threshold, recall, class and area."""

from __future__ import annotations

import math

import numpy as np

from edgekd.evaluate.definitions import recall_name

_AREAS = ("all", "small", "medium", "large")
AT_50, _AT_75 = 0, 5  # indices of IoU 0.50 and 0.75 among the thresholds


def averages(kind: str, counted: tuple[np.ndarray, np.ndarray, np.ndarray], max_detections: int) -> dict[str, float]:
    """Return the averages of one kind by metric name; NaN where there is no object."""
    precision, _, recall = counted
    whole = precision[:, :, :, :, -1]
    values = {kind: whole[..., 0], f"{kind}_50": whole[AT_50, ..., 0], f"{kind}_75": whole[_AT_75, ..., 0]}
    if kind != "boundary_map":
        values |= {f"{kind}_{name}": whole[..., place] for place, name in enumerate(_AREAS) if place}
        values[recall_name(kind, max_detections)] = recall[..., 0, -1]
    return {name: mean(value) for name, value in values.items()}


def best_f1(precision: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the point of best F1 of precision and score at evenly spaced recalls from 0 to 1."""
    recall = np.linspace(0, 1, len(precision))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    at = int(f1.argmax())
    found = {"f1": f1[at], "precision": precision[at], "recall": recall[at], "score": scores[at]}
    rounded = {name: round(float(value) * float(f1[at] > 0), 4) for name, value in found.items()}
    # Down, so that a network told this least score keeps the last detection that counts here.
    return rounded | {"score": math.floor(float(scores[at]) * 1e4) / 1e4 if f1[at] > 0 else 0.0}


def mean(precision: np.ndarray) -> float:
    """Return the mean of what is known: a class without an object has -1; NaN without any."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")

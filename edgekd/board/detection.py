"""From a detector's raw heads to boxes and masks on the image: decode, suppress, assemble.

The heads are those of `models/heads.py`, one tensor per pyramid level, whose stride is the input's height over the
level's. On a level, cell (row, column) stands for the point ((column + 0.5) stride, (row + 0.5) stride) of the input.

    score     sigmoid of `scores` (1, K, h, w)
    distance  expectation of each side's distribution in `boxes` (1, 4 * bins, h, w), in strides (GFL, arXiv 2006.04388,
              equation 5): left, top, right, bottom of the point
    mask      `prototypes` (1, P, H/4, W/4) times `coefficients` (1, P, h, w) > 0, inside the box (YOLACT, arXiv
              1904.02689, section 3)

A network that decodes and suppresses by itself (a torchvision teacher) gives `found_boxes` (1, N, 4) x1, y1, x2, y2 on the
input, `found_scores` (1, N), 0 where there is none, `found_labels` (1, N), and `found_masks` (1, N, h, w), the probability over
the box, above 0.5 inside. They are only brought onto the image.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.frame import Frame, frame
from edgekd.board.specs import ModelSpec
from edgekd.board.suppression import suppress


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first.

    boxes: (N, 4) float32 x1, y1, x2, y2 in the image's pixels, inside the image.
    scores: (N,) float32 in [0, 1].
    labels: (N,) int64 class indices.
    masks: (N, H, W) bool at the image's size; None for a network without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Selection:
    """What is kept.

    min_score: of a detection; low, because average precision counts the whole ranking.
    iou: of two boxes of one class above which the worse one goes.
    candidates: best scores that are decoded.
    most: detections per image, COCO's 100.
    """

    min_score: float = 0.05
    iou: float = 0.6
    candidates: int = 1000
    most: int = 100


def detections(
    outputs: Mapping[str, np.ndarray],
    spec: ModelSpec,
    image_size: Tuple[int, int],
    selection: Optional[Selection] = None,
) -> Detections:
    """Return what the heads say of the first image in the batch, on an image of `image_size` (height, width)."""
    if spec.all_outputs("found_boxes"):
        return _on_image(outputs, spec, image_size)
    selection = selection or Selection()
    found = _candidates(outputs, spec, selection)
    boxes = _decoded(found)
    kept = suppress(boxes, found.scores, found.labels, selection.iou, selection.most)
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(boxes[kept])
    masks = None
    if found.coefficients is not None:
        prototypes = outputs[spec.output("prototypes").name][0]
        masks = assemble(prototypes, found.coefficients[kept], on_image, place)
    return Detections(on_image, found.scores[kept], found.labels[kept], masks)


def _on_image(outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Tuple[int, int]) -> Detections:
    """Return what the network found by itself, best first."""
    boxes, scores, labels = (outputs[spec.output(f"found_{part}").name][0] for part in ("boxes", "scores", "labels"))
    order = np.argsort(-scores, kind="stable")[: int((scores > 0).sum())]
    on_image = frame(image_size, spec.preprocess).boxes_on_image(boxes[order].astype(np.float32))
    masks = None
    if spec.all_outputs("found_masks"):
        masks = paste(outputs[spec.output("found_masks").name][0][order], on_image, image_size)
    return Detections(on_image, scores[order].astype(np.float32), labels[order].astype(np.int64), masks)


def paste(probabilities: np.ndarray, boxes: np.ndarray, image_size: Tuple[int, int]) -> np.ndarray:
    """Return masks (N, H, W) bool: pixels whose centre lies in the box, and the probability there is above a half.

    Args:
        probabilities: (N, h, w) over the whole box, interpolated bilinearly between the cells' centres (Mask R-CNN,
            arXiv 1703.06870, section 3.1).
        boxes: (N, 4) x1, y1, x2, y2 in the image's pixels.
        image_size: (height, width).
    """
    height, width = image_size
    masks = np.zeros((len(boxes), height, width), bool)
    corners = np.clip(np.ceil(boxes - 0.5), 0, [width, height, width, height]).astype(np.int64)  # centres inside
    for number, (x1, y1, x2, y2) in enumerate(corners):
        if x1 >= x2 or y1 >= y2:
            continue
        left, top, right, bottom = boxes[number].astype(np.float64)
        rows = _between((np.arange(y1, y2) + 0.5 - top) / (bottom - top), probabilities.shape[1])
        columns = _between((np.arange(x1, x2) + 0.5 - left) / (right - left), probabilities.shape[2])
        masks[number, y1:y2, x1:x2] = rows.table @ probabilities[number] @ columns.table.T > 0.5
    return masks


@dataclass(frozen=True)
class _Found:
    """Candidates of all levels, best first: scores (N,), labels (N,), distributions (N, 4, bins), points (N, 2),
    strides (N,), coefficients (N, P) or None."""

    scores: np.ndarray
    labels: np.ndarray
    distributions: np.ndarray
    points: np.ndarray
    strides: np.ndarray
    coefficients: Optional[np.ndarray]


def _candidates(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Found:
    least = math.log(selection.min_score / (1 - selection.min_score))  # logits are compared: no sigmoid of them all
    levels: List[Tuple[np.ndarray, ...]] = []
    boxes, coefficients = spec.all_outputs("boxes"), spec.all_outputs("coefficients")
    for level, tensor in enumerate(spec.all_outputs("scores")):
        logits = outputs[tensor.name][0]
        height, width = logits.shape[1:]
        stride = spec.preprocess.size[0] / height
        flat = logits.reshape(-1)
        places = np.flatnonzero(flat >= least)
        if len(places) > selection.candidates:
            places = places[np.argpartition(-flat[places], selection.candidates)[: selection.candidates]]
        labels, cells = np.divmod(places, height * width)
        rows, columns = np.divmod(cells, width)
        points = np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride], axis=1).astype(np.float32)
        sides = outputs[boxes[level].name][0].reshape(4, -1, height * width)
        mixed = outputs[coefficients[level].name][0].reshape(-1, height * width)[:, cells].T if coefficients else cells
        strides = np.full(len(cells), stride, np.float32)
        levels.append((flat[places], labels, sides[:, :, cells].transpose(2, 0, 1), points, strides, mixed))
    logits, labels, sides, points, strides, mixed = (
        np.concatenate([level[part] for level in levels]) for part in range(6)
    )
    best = np.argsort(-logits, kind="stable")[: selection.candidates]
    scores = (1 / (1 + np.exp(-logits[best].astype(np.float64)))).astype(np.float32)
    return _Found(scores, labels[best], sides[best], points[best], strides[best], mixed[best] if coefficients else None)


def _decoded(found: _Found) -> np.ndarray:
    """Return boxes (N, 4) float32 on the network's input."""
    weights = np.exp(found.distributions - found.distributions.max(axis=2, keepdims=True))
    bins = np.arange(weights.shape[2], dtype=np.float32)
    distances = (weights * bins).sum(axis=2) / weights.sum(axis=2) * found.strides[:, None]  # (N, 4)
    return np.concatenate([found.points - distances[:, :2], found.points + distances[:, 2:]], axis=1)


def assemble(prototypes: np.ndarray, coefficients: np.ndarray, boxes: np.ndarray, place: Frame) -> np.ndarray:
    """Return masks (N, H, W) bool at the image's size.

    A pixel belongs to an object when its centre lies in the box and the mixed prototypes, interpolated bilinearly between
    their cells' centres, are positive there.

    Args:
        prototypes: (P, h, w) over the whole input.
        coefficients: (N, P).
        boxes: (N, 4) x1, y1, x2, y2 in the image's pixels.
        place: where the image lies on the input.
    """
    height, width = place.image_size
    masks = np.zeros((len(boxes), height, width), bool)
    corners = np.clip(np.ceil(boxes - 0.5), 0, [width, height, width, height]).astype(np.int64)  # centres inside
    rows, columns = (_weights(place, axis, cells) for axis, cells in enumerate(prototypes.shape[1:]))
    for number, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        if x1 < x2 and y1 < y2:
            top, bottom = rows.first[y1], rows.last[y2 - 1]
            left, right = columns.first[x1], columns.last[x2 - 1]
            part = prototypes[:, top:bottom, left:right]
            logits = (coefficients[number] @ part.reshape(len(part), -1)).reshape(part.shape[1:])
            logits = rows.table[y1:y2, top:bottom] @ logits @ columns.table[x1:x2, left:right].T
            np.greater(logits, 0, out=masks[number, y1:y2, x1:x2])
    return masks


@dataclass(frozen=True)
class _Weights:
    """Bilinear interpolation along one axis: `table` (pixels, cells) float32, and which cells a pixel takes,
    `first` to before `last`, (pixels,) each as a list."""

    table: np.ndarray
    first: List[int]
    last: List[int]


def _weights(place: Frame, axis: int, cells: int) -> _Weights:
    """Return how the centres of the image's pixels are interpolated between the centres of the input's cells."""
    scale = place.size[axis] / place.image_size[axis]
    start = (place.top, place.left)[axis]
    return _between((start + (np.arange(place.image_size[axis]) + 0.5) * scale) / place.input_size[axis], cells)


def _between(positions: np.ndarray, cells: int) -> _Weights:
    """Return the interpolation at positions, which are fractions of the side that the cells fill."""
    position = np.clip(positions * cells - 0.5, 0, cells - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, cells - 1)
    share = (position - low).astype(np.float32)
    table, pixels = np.zeros((len(position), cells), np.float32), np.arange(len(position))
    table[pixels, low] = 1 - share
    table[pixels, high] += share
    return _Weights(table, low.tolist(), (high + 1).tolist())

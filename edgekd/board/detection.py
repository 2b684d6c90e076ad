"""From a detector's raw heads to boxes and masks on the image: decode, suppress, assemble.

The heads are those of `models/heads.py`, one tensor per pyramid level, whose stride is the input's height over the
level's. On a level, cell (row, column) stands for the point ((column + 0.5) stride, (row + 0.5) stride) of the input.

    score     sigmoid of `scores` (1, K, h, w)
    distance  expectation of each side's distribution in `boxes` (1, 4 * bins, h, w), in strides (GFL, arXiv 2006.04388,
              equation 5): left, top, right, bottom of the point
    mask      `prototypes` (1, P, H/4, W/4) times `coefficients` (1, P, h, w) > 0, inside the box (YOLACT, arXiv
              1904.02689, section 3)

A graph that decodes (`export.detections: boxes`) gives all levels in one tensor each: `decoded_boxes` (1, 4, N) x1, y1, x2, y2
on the input, `decoded_scores` (1, K, N) after the sigmoid, `decoded_coefficients` (1, P, N). What is left is suppression.

A network that suppresses, too (`export.detections: nms`, a torchvision teacher), gives `found_boxes` (1, N, 4), `found_scores`
(1, N), 0 where there is none, `found_labels` (1, N), and for masks `found_coefficients` (1, N, P) beside the prototypes, or
`found_masks` (1, N, h, w), the probability over the box, above 0.5 inside. They are brought onto the image; a higher least score
or fewer detections can be asked for, the overlap, and what lies below, were chosen when it was made.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.frame import frame
from edgekd.board.masks import Masks, assemble, paste
from edgekd.board.specs import ModelSpec
from edgekd.board.suppression import suppress

DECODE = "decode/"  # begins the names of the nodes that do this inside a graph


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first.

    boxes: (N, 4) float32 x1, y1, x2, y2 in the image's pixels, inside the image.
    scores: (N,) float32 in [0, 1].
    labels: (N,) int64 class indices.
    masks: one per object; None for a network without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Optional[Masks] = None


@dataclass(frozen=True)
class Selection:
    """What is kept.

    min_score: of a detection; low, because average precision counts the whole ranking. 0 takes every candidate, 1 none.
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
    """Return what the heads say of the first image in the batch, on an image of `image_size` (height, width).

    A box of which no part is on the image, in the bars of a letterbox, is none: it takes no place among the `most`.
    """
    selection = selection or Selection()
    if spec.all_outputs("found_boxes"):
        return _on_image(outputs, spec, image_size, selection)
    candidates = _read_decoded if spec.all_outputs("decoded_boxes") else _read_heads
    found = candidates(outputs, spec, selection)
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(found.boxes)
    there = _not_empty(on_image)
    boxes, scores, labels = (part.take(there, axis=0) for part in (found.boxes, found.scores, found.labels))
    kept = there[suppress(boxes, scores, labels, selection.iou, selection.most)]
    on_image = on_image.take(kept, axis=0)
    masks = None
    if found.coefficients is not None:
        prototypes = outputs[spec.output("prototypes").name][0]
        masks = assemble(prototypes, found.coefficients.take(kept, axis=1).T, on_image, place)
    return Detections(on_image, found.scores[kept], found.labels[kept], masks)


def _on_image(
    outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Tuple[int, int], selection: Selection
) -> Detections:
    """Return the best of what the network found by itself, best first."""
    boxes, scores, labels = (outputs[spec.output(f"found_{part}").name][0] for part in ("boxes", "scores", "labels"))
    counted = (scores > 0) & (scores >= selection.min_score)
    order = np.argsort(-scores, kind="stable")[: int(counted.sum())]
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(boxes[order])
    there = _not_empty(on_image)[: selection.most]
    order, on_image = order[there], on_image[there]
    masks = None
    if spec.all_outputs("found_coefficients"):
        coefficients = outputs[spec.output("found_coefficients").name][0][order]
        masks = assemble(outputs[spec.output("prototypes").name][0], coefficients, on_image, place)
    if spec.all_outputs("found_masks"):
        probabilities = outputs[spec.output("found_masks").name][0][order]
        masks = paste(probabilities, place.uncut_boxes_on_image(boxes[order]), image_size)
    return Detections(on_image, scores[order].astype(np.float32), labels[order].astype(np.int64), masks)


def _not_empty(boxes: np.ndarray) -> np.ndarray:
    """Return the indices of the boxes (N, 4) with an area."""
    return np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


@dataclass(frozen=True)
class _Candidates:
    """Best scores first: boxes (N, 4) float32 on the input, scores (N,), labels (N,), coefficients (P, N) or None."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    coefficients: Optional[np.ndarray]


def _read_decoded(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
    scores = outputs[spec.output("decoded_scores").name][0]
    flat = scores.reshape(-1)
    least = selection.min_score if selection.min_score < 1 else math.inf  # the sigmoid of 20 rounds to 1
    places = np.flatnonzero(flat >= least)
    best = places[np.argsort(-flat[places], kind="stable")[: selection.candidates]]
    labels, cells = np.divmod(best, scores.shape[1])
    coefficients = None
    if spec.all_outputs("decoded_coefficients"):
        coefficients = outputs[spec.output("decoded_coefficients").name][0].take(cells, axis=1)
    return _Candidates(outputs[spec.output("decoded_boxes").name][0][:, cells].T, flat[best], labels, coefficients)


def _read_heads(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
    roles = [spec.all_outputs(role) for role in ("scores", "boxes", "coefficients")]
    levels = []
    for level in range(len(roles[0])):
        scores, boxes, *mixes = (outputs[tensors[level].name][0] for tensors in roles if tensors)
        stride = spec.preprocess.size[0] / scores.shape[1]
        levels.append(_level(scores, boxes, mixes[0] if mixes else None, stride, selection))
    found = _joined(levels)
    best = np.argsort(-found.logits, kind="stable")[: selection.candidates]
    return _Candidates(
        boxes=_decoded(found.sides, found.points, found.strides).T.take(best, axis=0),
        scores=(1 / (1 + np.exp(-found.logits[best].astype(np.float64)))).astype(np.float32),
        labels=found.labels[best],
        coefficients=None if found.coefficients is None else found.coefficients.take(best, axis=1),
    )


@dataclass(frozen=True)
class _Cells:
    """Cells of the raw heads that may hold an object, in no order.

    logits, labels, strides: (N,) each.
    points: (2, N) float32 x, y on the input.
    sides: (4, bins, N) logits of the distances left, top, right, bottom.
    coefficients: (P, N), or None for a network without masks.
    """

    logits: np.ndarray
    labels: np.ndarray
    strides: np.ndarray
    points: np.ndarray
    sides: np.ndarray
    coefficients: Optional[np.ndarray]


def _level(
    scores: np.ndarray, boxes: np.ndarray, coefficients: Optional[np.ndarray], stride: float, selection: Selection
) -> _Cells:
    """Return the best cells of one level, from its heads (K, h, w), (4 * bins, h, w) and (P, h, w)."""
    height, width = scores.shape[1:]
    flat = scores.reshape(-1)
    places = np.flatnonzero(flat >= _logit(selection.min_score))  # logits are compared: no sigmoid of them all
    if len(places) > selection.candidates:
        places = places[np.argpartition(-flat[places], selection.candidates)[: selection.candidates]]
    labels, cells = np.divmod(places, height * width)
    rows, columns = np.divmod(cells, width)
    return _Cells(
        logits=flat[places],
        labels=labels,
        strides=np.full(len(cells), stride, np.float32),
        points=np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride]).astype(np.float32),
        sides=boxes.reshape(4, -1, height * width).take(cells, axis=2),
        coefficients=None if coefficients is None else coefficients.reshape(-1, height * width).take(cells, axis=1),
    )


def _joined(levels: List[_Cells]) -> _Cells:
    """Return the cells of all levels; all are decoded at once, which takes less time than one level after the other."""
    mixes = [level.coefficients for level in levels if level.coefficients is not None]
    return _Cells(
        logits=np.concatenate([level.logits for level in levels]),
        labels=np.concatenate([level.labels for level in levels]),
        strides=np.concatenate([level.strides for level in levels]),
        points=np.concatenate([level.points for level in levels], axis=-1),
        sides=np.concatenate([level.sides for level in levels], axis=-1),
        coefficients=np.concatenate(mixes, axis=-1) if mixes else None,
    )


def _logit(score: float) -> float:
    """Return what a logit has to reach for a score; anything does for 0, nothing for 1."""
    if 0 < score < 1:
        return math.log(score / (1 - score))
    return -math.inf if score <= 0 else math.inf


def _decoded(distributions: np.ndarray, points: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return boxes (4, N) float32 on the network's input, from (4, bins, N), (2, N) and (N,)."""
    weights = distributions - distributions.max(axis=1, keepdims=True)
    np.exp(weights, out=weights)
    bins = np.arange(weights.shape[1], dtype=np.float32)
    total, mean = np.moveaxis(np.stack([np.ones_like(bins), bins]) @ weights, 1, 0)  # (4, N) each
    distances = mean / total * strides
    return np.concatenate([points - distances[:2], points + distances[2:]])

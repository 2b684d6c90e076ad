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
`found_masks` (1, N, h, w), the probability over the box, above 0.5 inside. They are only brought onto the image; what it keeps
was chosen when it was made.

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
    candidates = _read_decoded if spec.all_outputs("decoded_boxes") else _read_heads
    found = candidates(outputs, spec, selection)
    kept = suppress(found.boxes, found.scores, found.labels, selection.iou, selection.most)
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(found.boxes[kept])
    masks = None
    if found.coefficients is not None:
        prototypes = outputs[spec.output("prototypes").name][0]
        masks = assemble(prototypes, found.coefficients[kept], on_image, place)
    return Detections(on_image, found.scores[kept], found.labels[kept], masks)


def _on_image(outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Tuple[int, int]) -> Detections:
    """Return what the network found by itself, best first."""
    boxes, scores, labels = (outputs[spec.output(f"found_{part}").name][0] for part in ("boxes", "scores", "labels"))
    order = np.argsort(-scores, kind="stable")[: int((scores > 0).sum())]
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(boxes[order].astype(np.float32))
    masks = None
    if spec.all_outputs("found_coefficients"):
        coefficients = outputs[spec.output("found_coefficients").name][0][order]
        masks = assemble(outputs[spec.output("prototypes").name][0], coefficients, on_image, place)
    if spec.all_outputs("found_masks"):
        masks = paste(outputs[spec.output("found_masks").name][0][order], on_image, image_size)
    return Detections(on_image, scores[order].astype(np.float32), labels[order].astype(np.int64), masks)


@dataclass(frozen=True)
class _Candidates:
    """Best scores first: boxes (N, 4) float32 on the input, scores (N,), labels (N,), coefficients (N, P) or None."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    coefficients: Optional[np.ndarray]


def _read_decoded(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
    scores = outputs[spec.output("decoded_scores").name][0]
    flat = scores.reshape(-1)
    places = np.flatnonzero(flat >= selection.min_score)
    best = places[np.argsort(-flat[places], kind="stable")[: selection.candidates]]
    labels, cells = np.divmod(best, scores.shape[1])
    coefficients = None
    if spec.all_outputs("decoded_coefficients"):
        coefficients = outputs[spec.output("decoded_coefficients").name][0][:, cells].T
    return _Candidates(outputs[spec.output("decoded_boxes").name][0][:, cells].T, flat[best], labels, coefficients)


def _read_heads(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
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
        points = np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride]).astype(np.float32)
        sides = outputs[boxes[level].name][0].reshape(4, -1, height * width).take(cells, axis=2)
        mixed = outputs[coefficients[level].name][0].reshape(-1, height * width)[:, cells] if coefficients else cells
        strides = np.full(len(cells), stride, np.float32)
        levels.append((flat[places], labels, sides, points, strides, mixed))
    logits, labels, sides, points, strides, mixed = (
        np.concatenate([level[part] for level in levels], axis=-1) for part in range(6)
    )
    best = np.argsort(-logits, kind="stable")[: selection.candidates]
    scores = (1 / (1 + np.exp(-logits[best].astype(np.float64)))).astype(np.float32)
    on_input = _decoded(sides, points, strides)[best]
    return _Candidates(on_input, scores, labels[best], mixed.T[best] if coefficients else None)


def _decoded(distributions: np.ndarray, points: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return boxes (N, 4) float32 on the network's input, from (4, bins, N), (2, N) and (N,)."""
    weights = np.exp(distributions - distributions.max(axis=1, keepdims=True))
    bins = np.arange(weights.shape[1], dtype=np.float32)
    total, mean = np.moveaxis(np.stack([np.ones_like(bins), bins]) @ weights, 1, 0)  # (4, N) each
    distances = mean / total * strides
    return np.concatenate([points - distances[:2], points + distances[2:]]).T

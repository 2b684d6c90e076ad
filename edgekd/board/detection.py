"""From a detector's raw heads to boxes and masks on the image: decode, suppress, assemble.

The heads are those of `models/heads.py`, one tensor per pyramid level, whose stride is the input's height over the
level's. Cell (row, column) of a level is the point ((column + 0.5) stride, (row + 0.5) stride) of the input.

    score     sigmoid of `scores` (1, K, h, w)
    distance  expectation of each side's distribution in `boxes` (1, 4 * bins, h, w), in strides (GFL, arXiv 2006.04388,
              equation 5): left, top, right, bottom of the point
    mask      `prototypes` (1, P, H/4, W/4) times `coefficients` (1, P, h, w) > 0, inside the box (YOLACT, arXiv
              1904.02689, section 3)

A graph that decodes (`export.detections: boxes`) gives all levels in one tensor each: `decoded_boxes` (1, 4, N) x1, y1, x2, y2
on the input, `decoded_scores` (1, K, N) after the sigmoid, `decoded_coefficients` (1, P, N). What is left is suppression.

A network with NMS inside (`export.detections: nms`, a torchvision teacher) gives `found_boxes` (1, N, 4), `found_scores`
(1, N), 0 where there is none, `found_labels` (1, N), and for masks `found_coefficients` (1, N, P) beside the prototypes, or
`found_masks` (1, N, h, w), the probability over the box, above 0.5 inside. They are mapped onto the image. A caller can raise the
minimum score or lower the number of detections; the NMS IoU threshold is fixed in the graph.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.frame import frame
from edgekd.board.masks import Masks, assemble, paste
from edgekd.board.specs import ModelSpec
from edgekd.board.suppression import suppress

# Candidates per detection that are decoded first; most images need no more (benchmarks/wall_vs_engine.py).
_FEW = 4
MIN_SCORE = 0.3  # of detections that people see; metrics count those from `Selection.min_score` on
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
    """The rule that selects detections.

    min_score: minimum score; low, because average precision uses the whole ranking. 0 takes every candidate, 1 none.
    iou: NMS IoU threshold, within one class.
    candidates: number of best scores to decode.
    most: maximum detections per image (COCO: 100).
    """

    min_score: float = 0.05
    iou: float = 0.6
    candidates: int = 1000
    most: int = 100

    @classmethod
    def of_most(cls, most: int) -> Selection:
        """Return a selection of at most `most` detections per image, from max(10 * most, 1000) candidates."""
        return cls(most=most, candidates=max(cls.candidates, 10 * most))


def detections(
    outputs: Mapping[str, np.ndarray],
    spec: ModelSpec,
    image_size: Tuple[int, int],
    selection: Optional[Selection] = None,
) -> Detections:
    """Return the detections of the first image in the batch, on an image of `image_size` (height, width).

    Boxes wholly in a letterbox's bars are dropped before the limit `most` applies.
    """
    selection = selection or Selection()
    if spec.all_outputs("found_boxes"):
        return _on_image(outputs, spec, image_size, selection)
    few = replace(selection, candidates=min(selection.candidates, _FEW * selection.most))
    found = _suppressed(outputs, spec, image_size, few)
    # NMS keeps a candidate by better ones only: once `most` are kept, the remaining candidates change nothing.
    if few.candidates < selection.candidates and len(found.scores) < selection.most:
        found = _suppressed(outputs, spec, image_size, selection)
    return found


def _suppressed(
    outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Tuple[int, int], selection: Selection
) -> Detections:
    """Return the detections from the selection's best candidates."""
    candidates = _read_decoded if spec.all_outputs("decoded_boxes") else _read_heads
    found = candidates(outputs, spec, selection)
    place = frame(image_size, spec.preprocess)
    on_image = place.boxes_on_image(found.boxes)
    there = _not_empty(on_image)
    boxes, scores, labels = (part.take(there, axis=0) for part in (found.boxes, found.scores, found.labels))
    kept = there[suppress(boxes, scores, labels, selection.iou, selection.most)]
    on_image = on_image.take(kept, axis=0)
    masks = None
    if found.mixes:
        masks = assemble(outputs[spec.output("prototypes").name][0], found.mixes(kept), on_image, place)
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
    """Candidates for objects.

    boxes: (N, 4) float32 on the input.
    scores: (N,) float32; labels: (N,).
    mixes: returns mask coefficients (n, P) of candidates by index (n,), read late because few survive NMS. None without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    mixes: Optional[Callable[[np.ndarray], np.ndarray]]


def _read_decoded(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
    scores = outputs[spec.output("decoded_scores").name][0]
    flat = scores.reshape(-1)
    least = selection.min_score if selection.min_score < 1 else math.inf  # the sigmoid of 20 rounds to 1
    places = np.flatnonzero(flat >= least)
    best = places[np.argsort(-flat[places], kind="stable")[: selection.candidates]]
    labels, cells = np.divmod(best, scores.shape[1])
    coefficients = [outputs[tensor.name][0] for tensor in spec.all_outputs("decoded_coefficients")]
    return _Candidates(
        boxes=outputs[spec.output("decoded_boxes").name][0][:, cells].T,
        scores=flat[best],
        labels=labels,
        mixes=_mixes(coefficients, np.zeros_like(cells), cells),
    )


def _read_heads(outputs: Mapping[str, np.ndarray], spec: ModelSpec, selection: Selection) -> _Candidates:
    scores, boxes, coefficients = (
        [outputs[tensor.name][0] for tensor in spec.all_outputs(role)] for role in ("scores", "boxes", "coefficients")
    )
    places = [_best_places(level, selection) for level in scores]
    logits = np.concatenate([level.take(at) for level, at in zip(scores, places)])  # noqa: B905 - Python 3.8
    levels = np.repeat(np.arange(len(scores)), [len(at) for at in places])
    best = np.argsort(-logits, kind="stable")[: selection.candidates]
    best.sort()  # level after level again
    logits, levels = logits[best], levels[best]
    heights, widths = np.array([level.shape[1:] for level in scores])[levels].T
    labels, cells = np.divmod(np.concatenate(places)[best], heights * widths)
    rows, columns = np.divmod(cells, widths)
    strides = (spec.preprocess.size[0] / heights).astype(np.float32)
    points = (np.stack([columns, rows]) + 0.5).astype(np.float32) * strides
    sides = [_at(level, cells[levels == number]) for number, level in enumerate(boxes)]
    return _Candidates(
        boxes=_decoded(np.concatenate(sides, axis=1).reshape(4, len(boxes[0]) // 4, len(cells)), points, strides).T,
        scores=(1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32),
        labels=labels,
        mixes=_mixes(coefficients, levels, cells),
    )


def _best_places(scores: np.ndarray, selection: Selection) -> np.ndarray:
    """Return flat indices (N,) of the best scores (K, h, w) of one level."""
    flat = scores.reshape(-1)
    places = np.flatnonzero(flat >= _logit(selection.min_score))  # logits are compared: no sigmoid of them all
    if len(places) > selection.candidates:
        places = places[np.argpartition(-flat[places], selection.candidates)[: selection.candidates]]
        places.sort()
    return places


def _at(level: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the values of a head (C, ...) at some cells (N,): (C, N)."""
    return level.reshape(len(level), -1).take(cells, axis=1)


def _mixes(
    coefficients: List[np.ndarray], levels: np.ndarray, cells: np.ndarray
) -> Optional[Callable[[np.ndarray], np.ndarray]]:
    """Return a function that reads the coefficients of candidates that lie in `levels` (N,) at `cells` (N,); None without masks."""
    if not coefficients:
        return None

    def read(chosen: np.ndarray) -> np.ndarray:
        mixes = np.empty((len(chosen), len(coefficients[0])), coefficients[0].dtype)
        for number, level in enumerate(coefficients):
            here = np.flatnonzero(levels[chosen] == number)
            mixes[here] = _at(level, cells[chosen[here]]).T
        return mixes

    return read


def _logit(score: float) -> float:
    """Return the smallest logit of a score: minus infinity for 0, infinity for 1."""
    if 0 < score < 1:
        return math.log(score / (1 - score))
    return -math.inf if score <= 0 else math.inf


def _decoded(distributions: np.ndarray, points: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return boxes (4, N) float32 on the network's input, from (4, bins, N), (2, N) and (N,).

    float64 until the end: another exponential, or another order of the sums (another numpy, C++), changes its last digits, which
    the float32 does not have. Only a value within 1e-8 pixels or so of the middle between two float32 may differ.
    """
    weights = np.subtract(distributions, distributions.max(axis=1, keepdims=True), dtype=np.float64)
    np.exp(weights, out=weights)
    bins = np.arange(weights.shape[1], dtype=np.float64)
    total, mean = np.moveaxis(np.stack([np.ones_like(bins), bins]) @ weights, 1, 0)  # (4, N) each
    distances = mean / total * strides
    return np.concatenate([points - distances[:2], points + distances[2:]]).astype(np.float32)

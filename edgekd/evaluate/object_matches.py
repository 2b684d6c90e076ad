"""Matches of detections with objects by image, which give COCO's average precision of any resample of the images.

Average precision ranks the detections of all images together. A resample of the images keeps that order and counts an image that is
drawn k times k times, so one sorting serves all resamples. Detections of equal score keep the order of their images.

Source: COCO's detection evaluation, pycocotools 2.0, `COCOeval.accumulate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from edgekd.evaluate.definitions import recall_name

THRESHOLDS: Final = np.linspace(0.5, 0.95, 10)  # of IoU
_RECALLS = np.linspace(0.0, 1.0, 101)
_AT_50, _AT_75 = 0, 5


@dataclass(frozen=True)
class Matches:
    """Detections of one kind (boxes, masks or boundaries), by class, then by falling score, down to the last hit of each class.

    image: (D,) int32, index of the image.
    label: (D,) int32, class.
    hits: (D,) uint16, bit t: finds an object at `THRESHOLDS[t]`.
    ignored: (D,) uint16, bit t: matched with a crowd or a difficult object, and so neither right nor wrong.
    objects: (N, K) int32, objects to find by image and class.
    """

    image: np.ndarray
    label: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray

    def precision_and_recall(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return average precision and recall, each (R, 10, K) for thresholds and classes; NaN without an object.

        Args:
            draws: (R, N) int, how often each image counts.
        """
        classes = self.objects.shape[1]
        precision, recall = np.full((2, classes, len(draws), len(THRESHOLDS)), np.nan)
        objects, ends = draws @ self.objects, np.searchsorted(self.label, np.arange(classes + 1))
        for label in np.flatnonzero(objects.any(axis=0)):
            mine, there = slice(ends[label], ends[label + 1]), objects[:, label] > 0
            counted = draws[there][:, self.image[mine]]
            both = _of_class(counted, self.hits[mine], self.ignored[mine], objects[there, label])
            precision[label, there], recall[label, there] = both
        return np.moveaxis(precision, 0, 2), np.moveaxis(recall, 0, 2)


def _of_class(counted: np.ndarray, hits: np.ndarray, ignored: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return average precision and recall of one class, (2, R, 10).

    Args:
        counted: (R, D) int, how often each detection counts; D in order.
        hits, ignored: (D,), see `Matches`.
        objects: (R,) objects to find, 1 or more.
    """
    found = np.zeros((2, len(counted), len(THRESHOLDS)))
    before = counted.cumsum(axis=1)
    for place in range(len(THRESHOLDS)):
        hit, left_out = (np.flatnonzero(flags >> place & 1) for flags in (hits, ignored))
        if not len(hit):
            continue
        right, all_ = counted[:, hit].cumsum(axis=1), before[:, hit]
        if len(left_out):
            ignored_before = np.pad(counted[:, left_out].cumsum(axis=1), ((0, 0), (1, 0)))
            all_ = all_ - ignored_before[:, np.searchsorted(left_out, hit)]
        precision = right / (all_ + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = right / objects[:, None]
        points = np.searchsorted(_RECALLS, recall, side="right")  # recall points that are reached, of 101
        found[0, :, place] = (best * np.diff(points, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
        found[1, :, place] = recall[:, -1]
    return found


@dataclass(frozen=True)
class ObjectMatches:
    """Matches of every kind that was scored, by the name of its average precision: `map`, `mask_map`, `boundary_map`.

    max_detections: detections of an image that are scored, at most.
    """

    kinds: Mapping[str, Matches]
    max_detections: int

    @property
    def num_images(self) -> int:
        """Number of scored images."""
        return len(next(iter(self.kinds.values())).objects)

    def scores(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Return metric name -> (R,) fractions, NaN where no object was drawn; without metrics by object size.

        Args:
            draws: (R, N) int, how often each image counts.
        """
        found: dict[str, np.ndarray] = {}
        for kind, matches in self.kinds.items():
            precision, recall = matches.precision_and_recall(draws)
            parts = {kind: precision, f"{kind}_50": precision[:, _AT_50], f"{kind}_75": precision[:, _AT_75]}
            if kind != "boundary_map":
                parts[recall_name(kind, self.max_detections)] = recall
            found |= {name: _mean(part.reshape(len(draws), -1)) for name, part in parts.items()}
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return arrays for a file, `<kind>/<field>` and `max_detections`."""
        of_kinds = {
            f"{kind}/{field.name}": getattr(matches, field.name)
            for kind, matches in self.kinds.items()
            for field in fields(matches)
        }
        return of_kinds | {"max_detections": np.array(self.max_detections)}


def read_matches(arrays: Mapping[str, np.ndarray]) -> ObjectMatches | None:
    """Return the matches that `ObjectMatches.arrays` wrote; None for other arrays."""
    kinds = {}
    for kind in dict.fromkeys(name.partition("/")[0] for name in arrays if "/" in name):
        parts = [arrays.get(f"{kind}/{field.name}") for field in fields(Matches)]
        if any(part is None or part.dtype.kind not in "iu" for part in parts):
            return None
        matches = Matches(*parts)  # type: ignore[arg-type]  # none is None
        if not _is_valid(matches):
            return None
        kinds[kind] = matches
    most = arrays.get("max_detections")
    if most is None or not kinds or len({len(one.objects) for one in kinds.values()}) > 1:
        return None
    return ObjectMatches(kinds, int(most))


def _is_valid(matches: Matches) -> bool:
    flat = (matches.image, matches.label, matches.hits, matches.ignored)
    if matches.objects.ndim != 2 or any(part.shape != (len(matches.image),) for part in flat):
        return False
    if not len(matches.image):
        return True
    limits = zip((matches.image, matches.label), matches.objects.shape, strict=True)
    return all(part.min() >= 0 and part.max() < most for part, most in limits) and bool(
        (np.diff(matches.label) >= 0).all()
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the means over the last axis without NaN values; NaN where all are NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)

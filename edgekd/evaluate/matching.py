"""Matches detections with objects as COCO does, from the IoUs that faster-coco-eval has computed.

faster-coco-eval does not return its own matches, so this module applies the same rule. A test compares the scores of both.

Source: COCO's detection evaluation, pycocotools 2.0, `COCOeval.evaluateImg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.evaluate.object_matches import THRESHOLDS, Matches

_BITS = 1 << np.arange(len(THRESHOLDS), dtype=np.uint16)


def matches_of(
    ious: Mapping[tuple[int, int], Any],
    objects: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    shape: tuple[int, int],
    max_detections: int,
    largest: float,
) -> Matches:
    """Return the matches of all detections.

    Args:
        ious: (D, G) IoU by COCO's ids of image and class, both from 1 on: at most `max_detections` detections by falling score, and
            the objects in their order.
        objects: COCO annotations.
        found: COCO detections.
        shape: number of images and of classes.
        max_detections: detections of an image and class that count, at most.
        largest: area of an object in pixels above which it is ignored.
    """
    crowd: dict[tuple[int, int], list[bool]] = {}
    is_ignored: dict[tuple[int, int], list[bool]] = {}
    counts = np.zeros(shape, np.int32)
    for entry in objects:
        key = (entry["image_id"], entry["category_id"])
        left_out = bool(entry["iscrowd"]) or entry["area"] > largest
        crowd.setdefault(key, []).append(bool(entry["iscrowd"]))
        is_ignored.setdefault(key, []).append(left_out)
        counts[key[0] - 1, key[1] - 1] += not left_out

    image, label = (np.array([e[name] for e in found], np.int32) - 1 for name in ("image_id", "category_id"))
    score = np.array([entry["score"] for entry in found])
    order = np.lexsort((-score, image, label))  # stable: equal scores keep their order
    image, label, score = image[order], label[order], score[order]
    starts = np.flatnonzero(np.diff(image, prepend=-1) | np.diff(label, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    hits, ignored = np.zeros(len(order), np.uint16), np.zeros(len(order), np.uint16)
    for start in starts:
        key = (int(image[start]) + 1, int(label[start]) + 1)
        if len(of_pair := np.asarray(ious[key])):
            flags = match(of_pair, np.array(crowd[key]), np.array(is_ignored[key]))
            hits[start : start + len(of_pair)], ignored[start : start + len(of_pair)] = flags
    ranked = np.lexsort((place, image, -score, label))
    ranked = ranked[place[ranked] < max_detections]
    ranked = ranked[_up_to_last_hit(label[ranked], hits[ranked])]
    return Matches(image[ranked], label[ranked], hits[ranked], ignored[ranked], counts)


def match(ious: np.ndarray, crowd: np.ndarray, is_ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each detection of one image and class the thresholds at which it hits an object, and those at which it is ignored.

    Each detection takes the free object of largest IoU at or above the threshold. It prefers an object to find to an ignored one.
    Crowds stay free.

    Args:
        ious: (D, G), detections by falling score.
        crowd: (G,) bool.
        is_ignored: (G,) bool, crowds among them.

    Returns:
        Two (D,) uint16, bit t for `THRESHOLDS[t]`.
    """
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    free = np.ones((len(least), len(crowd)), bool)
    hits, ignored = np.zeros(len(ious), np.uint16), np.zeros(len(ious), np.uint16)
    for detection in np.flatnonzero(ious.max(axis=1) >= least[0]):
        overlap = ious[detection]
        fits = free & (overlap >= least[:, None])
        wanted = fits & ~is_ignored
        is_hit = wanted.any(axis=1)
        wanted = np.where(is_hit[:, None], wanted, fits)
        # COCO takes the last of equal overlaps.
        best = len(crowd) - 1 - np.where(wanted, overlap, -1)[:, ::-1].argmax(axis=1)
        matched = wanted.any(axis=1)
        taken = np.flatnonzero(matched & ~crowd[best])
        free[taken, best[taken]] = False
        hits[detection] = _BITS[is_hit].sum()
        ignored[detection] = _BITS[matched & ~is_hit].sum()
    return hits, ignored


def _up_to_last_hit(label: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return whether each detection is not below the last hit of its class: those below change neither precision nor recall."""
    last = np.full(int(label.max(initial=-1)) + 1, -1)
    places = np.flatnonzero(hits)
    np.maximum.at(last, label[places], places)
    return np.asarray(np.arange(len(label)) <= last[label])

"""Boundary AP against an own, slow one: OpenCV's erosion, the smaller of two overlaps, COCO's matching in plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.board.detection import Detections
from edgekd.data.base import Instances
from edgekd.evaluate.detection import DetectionEvaluator

cv2 = pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")
THRESHOLDS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
Case = tuple[Instances, Detections]


def band(mask: np.ndarray) -> np.ndarray:
    width = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    inner = cv2.erode(np.pad(mask.astype(np.uint8), 1), np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & ~inner.astype(bool)


def overlap(seen: np.ndarray, true: np.ndarray, is_crowd: bool) -> float:
    """Return the smaller of mask and boundary IoU; of a crowd, the share of the detection that lies in it."""
    if is_crowd:
        return (seen & true).sum() / seen.sum()
    pairs = ((seen, true), (band(seen), band(true)))
    return min((a & b).sum() / (a | b).sum() for a, b in pairs)


def matched(case: Case, label: int, threshold: float) -> list[tuple[float, bool]]:
    """Return score and success of one class's detections, best first, without those that a crowd takes."""
    truth, found = case
    assert truth.masks is not None
    assert truth.is_crowd is not None
    assert found.masks is not None
    single, crowd = (np.flatnonzero((truth.labels == label) & (truth.is_crowd == many)) for many in (False, True))
    free, results = set(single.tolist()), []
    for place in np.flatnonzero(found.labels == label):
        overlaps = {one: overlap(found.masks[place], truth.masks[one], False) for one in free}
        good = [one for one in overlaps if overlaps[one] >= threshold]
        if good:
            free.remove(max(good, key=lambda one: (overlaps[one], one)))
        elif any(overlap(found.masks[place], truth.masks[one], True) >= threshold for one in crowd):
            continue
        results.append((float(found.scores[place]), bool(good)))
    return results


def boundary_precision(cases: list[Case], classes: int) -> float:
    values = []
    for label in range(classes):
        objects = sum(int(((t.labels == label) & ~np.asarray(t.is_crowd)).sum()) for t, _ in cases)
        for threshold in THRESHOLDS if objects else ():
            ranked = sorted((r for case in cases for r in matched(case, label, threshold)), key=lambda r: -r[0])
            hits = np.cumsum([hit for _, hit in ranked])
            precision = hits / np.arange(1, len(ranked) + 1)
            reached = [precision[hits / objects >= recall] for recall in RECALLS]
            values.append(np.mean([part.max() if part.size else 0.0 for part in reached]))
    return float(np.mean(values))


def random_case(rng: np.random.Generator, size: tuple[int, int]) -> Case:
    def blob() -> np.ndarray:
        points = rng.uniform(5, np.array(size[::-1]) - 5) + rng.normal(0, rng.uniform(4, 12), (7, 2))
        return cv2.fillPoly(np.zeros(size, np.uint8), [cv2.convexHull(points.astype(np.int32))], 1).astype(bool)

    true = [blob() for _ in range(rng.integers(0, 6))]
    labels = rng.integers(0, 2, len(true))
    which = rng.integers(0, len(true), 2 * len(true)) if true else np.zeros(0, int)
    seen = [np.roll(true[i], tuple(rng.integers(-1, 2, 2)), (0, 1)) for i in which]
    scores = np.sort(rng.random(len(seen)).astype(np.float32))[::-1]
    masks, found = (np.array(part, bool).reshape(-1, *size) for part in (true, seen))
    none = np.zeros((0, 4), np.float32)
    return (
        Instances(masks, np.resize(none, (len(true), 4)), labels, rng.random(len(true)) < 0.2),
        Detections(np.resize(none, (len(seen), 4)), scores, labels[which], found),
    )


@pytest.mark.parametrize(("seed", "size"), [(0, (60, 80)), (1, (97, 131)), (2, (128, 128)), (3, (41, 200))])
def test_boundary_average_precision_is_that_of_plain_loops(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, size) for _ in range(5)]
    evaluator = DetectionEvaluator(("a", "b"), has_masks=True)
    for truth, found in cases:
        evaluator.update(truth, found, size)
    expected = boundary_precision(cases, 2)
    assert 0.05 < expected < 0.95
    assert evaluator.compute().metrics["boundary_map"] == pytest.approx(expected, abs=1e-9)

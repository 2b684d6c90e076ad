"""Average precision: by hand, by pycocotools, by a small reference of our own, on random and on real cases."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.board.detection import Detections
from edgekd.data.base import Instances
from edgekd.data.formats import coco, voc
from edgekd.errors import DataError
from edgekd.evaluate.definitions import DEFINITIONS, definitions
from edgekd.evaluate.detection import DetectionEvaluator, DetectionResult

SIZE = (60, 80)
Case = tuple[Instances, Detections, tuple[int, int]]


def objects(boxes: Sequence[Sequence[float]], labels: Sequence[int], **more: Any) -> Instances:
    return Instances(None, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), **more)


def found(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def result(cases: Sequence[Case], classes: Sequence[str] = ("a", "b", "c"), has_masks: bool = False) -> DetectionResult:
    evaluator = DetectionEvaluator(classes, has_masks)
    for truth, detections, size in cases:
        evaluator.update(truth, detections, size)
    return evaluator.compute()


def test_the_labels_themselves_score_one() -> None:
    boxes = [[1, 1, 30, 30], [40, 5, 70, 50]]
    got = result([(objects(boxes, [0, 1]), found(boxes, [0.9, 0.8], [0, 1]), SIZE)])
    assert got.metrics["map"] == got.metrics["map_50"] == got.metrics["map_75"] == 1.0
    assert got.ap_per_class == {"a": 1.0, "b": 1.0, "c": None}
    assert got.absent_classes == ["c"]
    assert got.counts == {"objects": 2, "detections": 2}
    assert got.precision["a"] == [1.0] * 101
    assert "map_large" not in got.metrics  # 30 x 45 is the largest


def test_a_false_alarm_above_a_hit_halves_the_precision() -> None:
    truth = objects([[0, 0, 10, 10]], [0])
    got = result([(truth, found([[30, 30, 40, 40], [0, 0, 10, 10]], [0.9, 0.8], [0, 0]), SIZE)], ["a"])
    assert got.metrics["map"] == pytest.approx(0.5)


def test_a_difficult_object_hides_no_false_alarms() -> None:
    """16 false boxes lie in a difficult object, and before the one hit: precision is 1/17. In a crowd they would not count."""
    inside = [[2 * place, 0, 2 * place + 2, 2] for place in range(16)]
    boxes, scores = [*inside, [70, 50, 80, 60]], np.linspace(0.9, 0.1, 17).tolist()
    large = [0, 0, 60, 50]
    for extra, expected in (("is_difficult", 1 / 17), ("is_crowd", 1.0)):
        truth = objects([large, [70, 50, 80, 60]], [0, 0], **{extra: np.array([True, False])})
        got = result([(truth, found(boxes, scores, [0] * 17), SIZE)], ["a"])
        assert got.metrics["map_50"] == pytest.approx(expected)
        assert got.counts["objects"] == 1
        hit = result([(truth, found([large, *boxes[16:]], [0.95, 0.9], [0, 0]), SIZE)], ["a"])
        assert hit.metrics["map_50"] == 1.0  # the difficult object itself is neither a hit nor a false alarm


def test_the_best_f1_takes_a_false_alarm_for_the_second_object() -> None:
    """Two objects; a hit at 0.9, a false alarm at 0.8, a hit at 0.7: F1 is 2/3, 1/2 and, of 2/3 and 1, 4/5."""
    boxes = [[0, 0, 10, 10], [30, 30, 40, 40], [20, 0, 30, 10]]
    detections = found(boxes, [0.9, 0.8, 0.7], [0, 0, 0])
    got = result([(objects([boxes[0], boxes[2]], [0, 0]), detections, SIZE)], ["a", "b"])
    assert got.best_f1 == {"a": pytest.approx({"f1": 0.8, "precision": 2 / 3, "recall": 1.0, "score": 0.7}, abs=1e-4)}
    assert got.best_f1["a"]["score"] <= np.float32(0.7)  # as a least score it keeps that detection
    nothing = result([(objects([boxes[0]], [0]), found([], [], []), SIZE)], ["a"])
    assert nothing.best_f1 == {"a": {"f1": 0.0, "precision": 0.0, "recall": 0.0, "score": 0.0}}


def test_an_overlap_of_six_tenths_counts_at_three_thresholds() -> None:
    got = result([(objects([[0, 0, 10, 10]], [0]), found([[0, 0, 10, 6.01]], [0.9], [0]), SIZE)], ["a"])
    assert got.metrics["map"] == pytest.approx(0.3)  # 0.50, 0.55, 0.60
    assert got.metrics["map_50"] == 1.0
    assert got.metrics["map_75"] == 0.0


def test_nothing_found_scores_zero_and_no_object_is_an_error() -> None:
    nothing = found([], [], [])
    assert result([(objects([[0, 0, 9, 9]], [0]), nothing, SIZE)]).metrics["map"] == 0.0
    with pytest.raises(DataError, match="no object in 1 images"):
        result([(objects([], []), nothing, SIZE)])


def test_masks_and_boundaries_of_two_squares_by_hand() -> None:
    """A 20x20 square found shifted by 2: mask IoU 360 / 440; bands 2 wide (0.02 * 100), so boundary IoU is smaller."""
    size = (60, 80)
    true, seen = np.zeros((1, *size), bool), np.zeros((1, *size), bool)
    true[0, 10:30, 10:30] = True
    seen[0, 10:30, 12:32] = True
    truth = Instances(true, np.array([[10, 10, 30, 30]], np.float32), np.array([0]))
    detections = Detections(np.array([[12, 10, 32, 30]], np.float32), np.array([0.9], np.float32), np.array([0]), seen)
    got = result([(truth, detections, size)], ["a"], has_masks=True)
    assert got.metrics["mask_map"] == pytest.approx(0.7)  # 0.818 passes 0.50 ... 0.80
    cv2 = pytest.importorskip("cv2")

    def band(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask[0].astype(np.uint8), 1)
        return mask[0] & ~cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=2)[1:-1, 1:-1].astype(bool)

    shared, union = (band(true) & band(seen)).sum(), (band(true) | band(seen)).sum()
    expected = np.mean([shared / union >= threshold for threshold in np.linspace(0.5, 0.95, 10)])
    assert got.metrics["boundary_map"] == pytest.approx(expected)


def random_case(rng: np.random.Generator, has_masks: bool, most: int) -> Case:
    height, width = SIZE
    count, extra = int(rng.integers(0, 7)), int(rng.integers(0, most))
    corners = rng.integers(0, [width - 8, height - 8], (count, 2))
    sides = rng.integers(2, 40, (count, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, [width, height])], axis=1).astype(np.float32)
    labels = rng.integers(0, 3, count)
    near = np.concatenate([boxes[rng.integers(0, count, extra)] if count else np.zeros((0, 4))])
    near = np.clip(near + rng.normal(0, 2, near.shape), 0, [width, height, width, height])
    near = np.concatenate([np.minimum(near[:, :2], near[:, 2:] - 1), near[:, 2:]], axis=1).clip(0).astype(np.float32)
    scores = (rng.integers(1, 8, len(near)) / 8).astype(np.float32)  # many ties
    order = np.argsort(-scores, kind="stable")
    crowd = rng.random(count) < 0.2
    of_found = rng.integers(0, 3, len(near))
    if not has_masks:
        return (
            objects(boxes.tolist(), labels.tolist(), is_crowd=crowd),
            found(near[order], scores[order], of_found),
            SIZE,
        )
    true, seen = drawn(boxes), drawn(near[order])
    return (
        Instances(true, boxes, labels, crowd),
        Detections(near[order], scores[order], of_found, seen),
        SIZE,
    )


def drawn(boxes: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.round(boxes).astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
        mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = False  # not a rectangle
        mask[y1:y2, max(x1, x2 - 1) : x2] = True
    return masks


def by_pycocotools(cases: Sequence[Case], classes: int, kind: str) -> dict[str, float]:
    """Return COCO's twelve numbers; detections keep no box when masks are scored, or their areas would be the boxes'."""
    tools, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    encode = pytest.importorskip("pycocotools.mask").encode
    images, annotations, results = [], [], []
    for number, (truth, detections, (height, width)) in enumerate(cases, 1):
        images.append({"id": number, "height": height, "width": width})
        areas = truth.areas
        for place, (box, label) in enumerate(zip(truth.boxes_xyxy.astype(float), truth.labels, strict=True)):
            x1, y1, x2, y2 = box.tolist()
            entry = {
                "id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1, "area": (x2 - x1) * (y2 - y1),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0 if truth.is_crowd is None else int(truth.is_crowd[place]),
            }  # fmt: skip
            if truth.masks is not None:
                entry["segmentation"] = encode(np.asfortranarray(truth.masks[place], np.uint8))
                entry["area"] = int(truth.masks[place].sum())
            if areas is not None:
                entry["area"] = float(areas[place])
            annotations.append(entry)
        for place, (box, score, label) in enumerate(
            zip(detections.boxes.astype(float), detections.scores, detections.labels, strict=True)
        ):
            x1, y1, x2, y2 = box.tolist()
            entry = {"image_id": number, "category_id": int(label) + 1, "score": float(score)}
            if kind == "segm":
                assert detections.masks is not None
                entry["segmentation"] = encode(np.asfortranarray(detections.masks[place], np.uint8))
            else:
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = tools.COCO()
        categories = [{"id": i + 1, "name": str(i)} for i in range(classes)]
        truth_set.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        truth_set.createIndex()
        judge = evaluation.COCOeval(truth_set, truth_set.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    names = ("", "_50", "_75", "_small", "_medium", "_large")
    prefix = "mask_map" if kind == "segm" else "map"
    found = {f"{prefix}{name}": float(value) for name, value in zip(names, judge.stats[:6], strict=True)}
    return {**found, prefix.replace("map", "mar_100"): float(judge.stats[8])}


def assert_equal(got: DetectionResult, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        if value == -1:
            assert name not in got.metrics
        else:
            assert got.metrics[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_random_cases_score_as_pycocotools_scores_them(kind: str, seed: int) -> None:
    """Crowds, ties, empty images, and with the last seeds more than 100 detections in one image."""
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, kind == "segm", 250 if seed > 5 else 12) for _ in range(10)]
    cases.append((objects([], []), found([], [], []), SIZE))
    if kind == "segm":
        empty = np.zeros((0, *SIZE), bool)
        nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), empty)
        cases[-1] = (Instances(empty, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)), nothing, SIZE)
    assert_equal(result(cases, has_masks=kind == "segm"), by_pycocotools(cases, 3, kind))


@pytest.mark.parametrize("has_masks", [False, True])
def test_the_files_score_the_same_in_pycocotools(has_masks: bool, tmp_path: Path) -> None:
    tools, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(0)
    evaluator = DetectionEvaluator(("a", "b", "c"), has_masks)
    for number in range(10):
        evaluator.update(*random_case(rng, has_masks, 12), f"{number}.png")
    evaluator.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    evaluator.compute()
    evaluator.write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == written  # scoring adds nothing to it
    kinds = {"bbox": "map", "segm": "mask_map"} if has_masks else {"bbox": "map"}
    assert {path.name for path in tmp_path.iterdir()} == {"coco_labels.json", *(f"coco_{kind}.json" for kind in kinds)}
    got = evaluator.compute()
    for kind, metric in kinds.items():
        with contextlib.redirect_stdout(io.StringIO()):
            labels = tools.COCO(str(tmp_path / "coco_labels.json"))
            judge = evaluation.COCOeval(labels, labels.loadRes(str(tmp_path / f"coco_{kind}.json")), kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        names = [f"{metric}{part}" for part in ("", "_50", "_75", "_small", "_medium", "_large")]
        assert_equal(got, dict(zip(names, judge.stats[:6].tolist(), strict=True)))
    assert labels.loadImgs([3])[0]["file_name"] == "2.png"
    assert [category["name"] for category in labels.loadCats([1, 2, 3])] == ["a", "b", "c"]


def reference_ap(cases: Sequence[Case], label: int, threshold: float) -> float:
    """Return one class's average precision at one threshold without crowds, written straight from its definition."""
    hits: list[tuple[float, bool]] = []
    total = 0
    for truth, detections, _ in cases:
        mine = truth.boxes_xyxy[truth.labels == label].astype(float)
        total += len(mine)
        free = [True] * len(mine)
        chosen = [i for i in np.argsort(-detections.scores, kind="stable") if detections.labels[i] == label][:100]
        for i in chosen:
            best, best_iou = -1, threshold
            for j, other in enumerate(mine):
                box = detections.boxes[i].astype(float)
                w = min(box[2], other[2]) - max(box[0], other[0])
                h = min(box[3], other[3]) - max(box[1], other[1])
                shared = max(w, 0) * max(h, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
                iou = shared / (sum(areas) - shared)
                if free[j] and iou >= best_iou:
                    best, best_iou = j, iou
            if best >= 0:
                free[best] = False
            hits.append((float(detections.scores[i]), best >= 0))
    hits.sort(key=lambda hit: -hit[0])
    right = np.cumsum([hit for _, hit in hits])
    recall, precision = right / total, right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    points = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[p] if p < len(precision) else 0.0 for p in points]))


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_score_as_the_definition_says(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    cases = [random_case(rng, False, 8) for _ in range(6)]
    cases = [(objects(t.boxes_xyxy.tolist(), t.labels.tolist()), d, s) for t, d, s in cases]
    got = result(cases)
    for label, name in enumerate("abc"):
        if got.ap_per_class[name] is not None:
            expected = np.mean([reference_ap(cases, label, t) for t in np.linspace(0.5, 0.95, 10)])
            assert got.ap_per_class[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["bccd", "nuclei"])
def test_shaken_labels_of_the_real_sets_score_as_pycocotools_scores_them(name: str, shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    has_masks = name == "nuclei"
    if has_masks:
        dataset = coco.open_objects(coco.Options(str(shared_data / name)), "val", True)
    else:
        options = voc.Options(str(shared_data / name), classes=("WBC", "RBC", "Platelets"))
        dataset = voc.open_objects(options, "val", False)
    cases: list[Case] = []
    for index in range(0, len(dataset), 6):
        sample = dataset.load(index)
        truth = sample.instances
        assert truth is not None
        shift = rng.normal(0, 1.5, truth.boxes_xyxy.shape).astype(np.float32)
        boxes = np.concatenate([truth.boxes_xyxy[:, :2] + shift[:, :2], truth.boxes_xyxy[:, 2:] + abs(shift[:, 2:])], 1)
        masks = np.roll(truth.masks.whole(), 1, axis=2) if truth.masks is not None else None
        scores = rng.random(len(boxes)).astype(np.float32)
        order = np.argsort(-scores)
        seen = Detections(boxes[order], scores[order], truth.labels[order], None if masks is None else masks[order])
        cases.append((truth, seen, (sample.image.shape[0], sample.image.shape[1])))
    got = result(cases, dataset.classes, has_masks)
    assert 0 < got.metrics["map"] < 1
    assert_equal(got, by_pycocotools(cases, len(dataset.classes), "bbox"))
    if has_masks:
        assert_equal(got, by_pycocotools(cases, len(dataset.classes), "segm"))


def grid(count: int) -> list[list[int]]:
    """Return boxes of 4 x 4 pixels that do not touch."""
    return [
        [6 * (place % 20), 6 * (place // 20), 6 * (place % 20) + 4, 6 * (place // 20) + 4] for place in range(count)
    ]


def perfect(evaluator: DetectionEvaluator, count: int, labels: Sequence[int]) -> None:
    boxes = grid(count)
    scores = np.linspace(1, 0.5, count)
    evaluator.update(objects(boxes, labels), found(boxes, list(scores), labels), (200, 200))


def test_perfect_detections_score_the_ceiling_under_a_cap() -> None:
    """Of 150 objects 100 count: recall 2/3, and 67 of 101 recall points lie at or below it."""
    evaluator = DetectionEvaluator(["a"], has_masks=False)
    perfect(evaluator, 150, [0] * 150)
    got = evaluator.compute()
    assert got.ceilings == pytest.approx({"map": 67 / 101, "mar_100": 2 / 3})
    assert {name: got.metrics[name] for name in got.ceilings} == pytest.approx(got.ceilings)


def test_a_higher_cap_counts_all_of_them() -> None:
    evaluator = DetectionEvaluator(["a", "b"], has_masks=False, max_detections=150)
    perfect(evaluator, 150, [0] * 140 + [1] * 10)
    got = evaluator.compute()
    assert (got.metrics["map"], got.metrics["mar_150"]) == (1.0, 1.0)
    assert "mar_100" not in got.metrics
    assert got.ceilings == {}


def test_a_lower_cap_and_ignored_objects() -> None:
    evaluator = DetectionEvaluator(["a"], has_masks=False, max_detections=4)
    boxes = grid(8)
    crowd = np.array([False] * 5 + [True] * 3)
    evaluator.update(objects(boxes, [0] * 8, is_crowd=crowd), found(boxes, [0.9] * 8, [0] * 8), (200, 200))
    assert evaluator.compute().ceilings == pytest.approx({"map": 81 / 101, "mar_4": 0.8})


def test_definitions_follow_the_cap() -> None:
    title, text, _ = definitions(300)["mask_mar_300"]
    assert title == "mask AR300"
    assert "at most 300 detections per image" in text
    assert "at most 300 detections" in definitions(300)["map"][1]
    assert "mar_100" in DEFINITIONS

"""Scores detections as COCO does: average precision of boxes, masks and mask boundaries, by faster-coco-eval.

Source: COCO's detection evaluation (cocodataset.org, "Detection evaluation", pycocotools 2.0): IoU thresholds 0.50 to 0.95
in steps of 0.05, 101 recall points, at most 100 detections per image unless the recipe asks for more.
Boundary AP: Boundary IoU (arXiv 2103.16562), the smaller of mask IoU and boundary IoU, bands of 2 % of the image diagonal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from edgekd.board.detection import Detections
from edgekd.board.masks import Masks
from edgekd.board.run_masks import runs_of, tight_masks
from edgekd.data.base import COCO_LARGEST, Instances
from edgekd.data.object_cap import best_average_precision, best_recalls
from edgekd.errors import DataError
from edgekd.evaluate.definitions import COCO_DETECTIONS, recall_name
from edgekd.evaluate.faster_coco import faster_coco
from edgekd.evaluate.matching import matches_of
from edgekd.evaluate.object_matches import Matches, ObjectMatches
from edgekd.evaluate.precision_averages import AT_50, averages, best_f1
from edgekd.evaluate.predictions import Prediction

# Names of the three kinds of average precision: edgekd's and faster-coco-eval's.
_KINDS = {"map": "bbox", "mask_map": "segm", "boundary_map": "boundary"}
_WRITTEN = ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "score")


class _Image(TypedDict):
    """An image of COCO's labels."""

    id: int
    file_name: str
    height: int
    width: int


class _Runs(TypedDict):
    """A mask as faster-coco-eval encodes it."""

    size: list[int]
    counts: bytes


class _Box(TypedDict):
    """An annotation or a detection of COCO's; `bbox` is x, y, width, height."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int
    bbox: list[float]
    area: float


class _Entry(_Box, total=False):
    """A box and its further fields; `mask_area` is not COCO's."""

    segmentation: _Runs
    mask_area: float
    score: float


@dataclass(frozen=True)
class DetectionResult:
    """Scores of a set of images.


    metrics: fractions in [0, 1] by the names in `definitions.DEFINITIONS`; undefined ones (no large object) are absent.
    ap_per_class: average precision of masks where there are masks, else of boxes, by class; None without an object.
    precision: precision at 101 recall points at IoU 0.5, of the same, by class with objects.

    best_f1: the point of best F1 (harmonic mean of precision and recall at IoU 0.5): `f1`, `precision`, `recall` and the
        minimum `score` of detections there, by class with objects; all 0 without detections.
    absent_classes: classes without an object, which the means leave out.
    counts: `objects` (crowds and difficult ones not counted) and `detections`.
    ceilings: the same of the (mask) mAP and recall of perfect labels under the cap on detections per image; empty where no
        image has more objects than that.
    matches: matches of detections with objects by image, to score resamples of the images.
    """

    metrics: dict[str, float]
    ap_per_class: dict[str, float | None]
    precision: dict[str, list[float]]
    best_f1: dict[str, dict[str, float]]
    absent_classes: list[str]
    counts: dict[str, int]
    num_images: int
    ceilings: dict[str, float] = field(default_factory=dict)
    matches: ObjectMatches | None = None

    def facts(self) -> dict[str, Any]:
        """Return the result without the matches, as JSON."""
        found = asdict(replace(self, matches=None))
        del found["matches"]
        return found


def score(
    classes: Sequence[str],
    predictions: Iterable[Prediction[Detections]],
    has_masks: bool,
    coco_files: Path | None = None,
    max_detections: int = COCO_DETECTIONS,
) -> DetectionResult:
    """Score the objects found in the images of a split, each at its image's own size.

    Args:
        classes: those of the data set and of the network.
        predictions: predictions of the images to score, see `predict_split`.
        has_masks: whether masks are scored beside boxes.
        coco_files: folder for what was scored, see `DetectionEvaluator.write`.
        max_detections: number of best detections per image that are scored.

    Raises:
        DataError: there is no object in any of the images.
        UserError: faster-coco-eval is not installed.
    """
    evaluator = DetectionEvaluator(classes, has_masks, max_detections)
    for prediction in predictions:
        sample = prediction.sample
        assert sample.instances is not None
        size = (sample.image.shape[0], sample.image.shape[1])
        evaluator.update(sample.instances, prediction.result, size, sample.name)
    if coco_files:
        evaluator.write(coco_files)
    return evaluator.compute()


class DetectionEvaluator:
    """Collects objects and detections image by image; masks are kept run-length encoded.

    max_detections: best detections per image that count.

    Raises:
        UserError: faster-coco-eval is not installed.
    """

    def __init__(self, classes: Sequence[str], has_masks: bool, max_detections: int = COCO_DETECTIONS) -> None:
        self.classes, self.has_masks, self.max_detections = tuple(classes), has_masks, max_detections
        self._compress = faster_coco().mask.frPyObjects
        self._images: list[_Image] = []
        self._objects: list[_Entry] = []
        self._found: list[_Entry] = []

    def update(self, truth: Instances, found: Detections, size: tuple[int, int], name: str = "") -> None:
        """Add one image of `size` (height, width), and what was found in it."""
        image = len(self._images) + 1
        self._images.append({"id": image, "file_name": name, "height": size[0], "width": size[1]})
        crowd = np.zeros(len(truth.labels), bool) if truth.is_crowd is None else truth.is_crowd
        entries = self._entries(image, truth.boxes_xyxy, truth.labels, truth.masks, len(self._objects))
        self._objects += [
            entry | {"iscrowd": int(many), "area": float(area)}
            for entry, many, area in zip(entries, crowd, truth.coco_areas, strict=True)
        ]
        entries = self._entries(image, found.boxes, found.labels, found.masks, len(self._found))
        self._found += [e | {"score": float(s)} for e, s in zip(entries, found.scores, strict=True)]

    def compute(self) -> DetectionResult:
        """Return the scores of everything added so far.

        Raises:
            DataError: there is no object.
        """
        if not self._object_count():
            raise DataError(f"no object in {len(self._images)} images; there is nothing to score, check the split")
        kinds = list(_KINDS) if self.has_masks else ["map"]
        counted = {kind: self._counted(_KINDS[kind]) for kind in kinds}
        metrics: dict[str, float] = {}
        for kind in kinds:
            metrics |= averages(kind, counted[kind][:3], self.max_detections)
        main, scores = (  # (thresholds, recalls, classes)
            part[..., 0, -1] for part in counted["mask_map" if self.has_masks else "map"][:2]
        )
        has_objects = [name for place, name in enumerate(self.classes) if main[0, 0, place] >= 0]
        return DetectionResult(
            metrics={name: value for name, value in metrics.items() if not np.isnan(value)},
            ap_per_class={
                name: float(main[..., place].mean()) if name in has_objects else None
                for place, name in enumerate(self.classes)
            },
            precision={
                name: main[AT_50, :, place].round(5).tolist()
                for place, name in enumerate(self.classes)
                if name in has_objects
            },
            best_f1={
                name: best_f1(main[AT_50, :, place], scores[AT_50, :, place])
                for place, name in enumerate(self.classes)
                if name in has_objects
            },
            absent_classes=[name for name in self.classes if name not in has_objects],
            counts={
                "objects": self._object_count(),
                "detections": len(self._found),
            },
            num_images=len(self._images),
            ceilings=self._ceilings(),
            matches=ObjectMatches({kind: counted[kind][3] for kind in kinds}, self.max_detections),
        )

    def _ceilings(self) -> dict[str, float]:
        """Return the scores of perfect predictions by metric name, {} if no image has more objects than the limit."""
        counts = np.zeros((len(self._images), len(self.classes)), np.int64)
        for entry in filter(_is_counted, self._objects):
            counts[entry["image_id"] - 1, entry["category_id"] - 1] += 1
        if counts.sum(axis=1).max(initial=0) <= self.max_detections:
            return {}
        recalls = best_recalls(counts, self.max_detections)
        precision, recall = best_average_precision(recalls), float(np.nanmean(recalls))
        kinds = ("map", "mask_map") if self.has_masks else ("map",)
        return dict.fromkeys(kinds, precision) | {recall_name(kind, self.max_detections): recall for kind in kinds}

    def write(self, folder: Path) -> None:
        """Write labels and detections as COCO files: `coco_labels.json`, and the detections in `coco_bbox.json` and, for
        masks, `coco_segm.json`.

        Any COCO tool can score them again, e.g. pycocotools: `COCO("coco_labels.json").loadRes("coco_bbox.json")`.
        Boxes and masks are apart because it takes the size of a detection that has both from its box. Images and classes
        are numbered from 1 in the order of the data set, not by the ids of its files.
        """
        files: dict[str, object] = {
            "labels": {**self._truth(), "annotations": [_written(entry) for entry in self._objects]}
        }
        for kind, place in (("bbox", "bbox"), ("segm", "segmentation")):
            if kind == "bbox" or self.has_masks:
                kept = ("image_id", "category_id", "score", place)
                files[kind] = [{key: value for key, value in _written(e).items() if key in kept} for e in self._found]
        for name, content in files.items():
            (folder / f"coco_{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def _object_count(self) -> int:
        return sum(map(_is_counted, self._objects))

    def _truth(self) -> dict[str, object]:
        """Return COCO's labels without the annotations."""
        categories = [{"id": place + 1, "name": name} for place, name in enumerate(self.classes)]
        return {"info": {}, "images": self._images, "categories": categories}

    def _entries(
        self, image: int, boxes: np.ndarray, labels: np.ndarray, masks: np.ndarray | Masks | None, count: int
    ) -> list[_Entry]:
        """Return COCO annotations, numbered from `count` + 1 on."""
        entries: list[_Entry] = []
        if isinstance(masks, np.ndarray):
            masks = tight_masks(masks)
        for place, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            x1, y1, x2, y2 = (float(value) for value in box)
            entry: _Entry = {
                "id": count + place + 1, "image_id": image, "category_id": int(label) + 1, "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
            }  # fmt: skip
            if self.has_masks:
                assert masks is not None
                runs = runs_of(masks, place)
                entry["segmentation"] = self._compress({"size": list(masks.size), "counts": runs}, *masks.size)
                entry["mask_area"] = float(sum(runs[1::2]))
            entries.append(entry)
        return entries

    def _counted(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Matches]:
        """Return precision and the score from which it holds, each (thresholds, recalls, classes, areas, most detections), the recall
        of all detections (thresholds, classes, areas, most detections); -1 where there is no object; and the matches."""
        coco = faster_coco()
        truth = coco.COCO({**self._truth(), "annotations": self._objects})
        # COCO sorts detections into sizes by what is scored, the box or the mask.
        sized = [e if kind == "bbox" else e | {"area": e["mask_area"]} for e in self._found]
        found = coco.COCO({**self._truth(), "annotations": sized})
        evaluation = coco.COCOeval_faster(truth, found, kind, print_function=lambda *_: None)
        evaluation.params.maxDets = [self.max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        precision, scores, recall = (np.asarray(evaluation.eval[name]) for name in ("precision", "scores", "recall"))
        shape = (len(self._images), len(self.classes))
        matches = matches_of(evaluation.ious, self._objects, self._found, shape, self.max_detections, COCO_LARGEST)
        return precision, scores, recall, matches


def _written(entry: _Entry) -> dict[str, object]:
    """Return an entry as COCO's JSON has it, without what we and faster-coco-eval add to it; run lengths are text there."""
    known = {key: value for key, value in entry.items() if key in _WRITTEN}
    mask = entry.get("segmentation")
    return known if mask is None else {**known, "segmentation": {**mask, "counts": mask["counts"].decode("ascii")}}


def _is_counted(entry: _Entry) -> bool:
    """Return whether an object has to be found: no crowd and not difficult."""
    return not entry["iscrowd"] and entry["area"] <= COCO_LARGEST

"""Format `label_studio`: Label Studio's export "JSON", one file with the images beside it.

    root/<annotations>                             the export
    root/images/<name>.jpg                         the images, under the names that they had before the upload or with
                                                   Label Studio's eight letters in front

Rectangles, polygons, ellipses and brush strokes are objects; turned ones have the box around them. Key points and other
shapes without an area are left out and counted. A task's annotation is its ground truth, else its first that was not
cancelled; other annotations are left out and counted, and so is an image without one. An annotation without regions is an
image without objects. For the task `semantic` the masks are drawn into a class map, where several cover a pixel the one of
fewer pixels. Without `{split}` in `annotations` the file is a data set without splits.
Source: labelstud.io/guide/task_format and /guide/export; label-studio-converter 0.0.59, brush.py (`decode_rle`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any
from urllib.parse import unquote

import numpy as np

from edgekd.board.options import option
from edgekd.board.runs import encode_part
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import (
    BEYOND_EDGE,
    CLASSES,
    OTHER_CLASSES,
    AnnotatedImage,
    Annotation,
    BeyondEdge,
    Refusals,
    chosen_classes,
)
from edgekd.data.brush import decode_brush
from edgekd.data.coco_masks import Segmentation
from edgekd.data.drawn import BACKGROUND, DrawnDataset
from edgekd.data.images import upright_size
from edgekd.data.json_files import read_json
from edgekd.data.outlines import ellipse, frame, numbers, points_of, rectangle, turned
from edgekd.data.paired import SUFFIXES, images_below, require_folder
from edgekd.errors import DataError, one_line

TASKS = ("semantic", "detection", "instance")

_UNLABELLED = "images without an annotation left out"
_FURTHER = "further annotations of an image left out"
_NO_CLASS = "regions without a class left out"
_NO_AREA = "shapes without an area left out"
_TURNED = "turned shapes read as the boxes around them"


@dataclass(frozen=True)
class Options:
    """Where the data set lies, and what of it is read."""

    root: str = option(..., "Folder of the data set.", is_path=True)
    annotations: str = option(..., "Export file below `root`; `{split}` in it stands for the split's name.")
    images: str = option("images", "Image folder below `root`; `{split}` in it stands for the split's name.")
    classes: tuple[str, ...] | str = option(
        (), f"{CLASSES} Empty: all labels of the file, by name.", names_classes=True
    )
    beyond_edge: BeyondEdge = option("refuse", BEYOND_EDGE)
    background: str | None = option("background", BACKGROUND)


def open_dataset(options: Options, split: str) -> DrawnDataset:
    """Read the objects of one split and draw their class maps when they are loaded; errors as `open_objects` with masks."""
    return DrawnDataset(open_objects(options, split, has_masks=True), options.background)


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the objects of one split.

    Raises:
        DataError: a missing or damaged file, one that is no export "JSON", or an object out of its image.
        UserError: masks asked for, and faster-coco-eval, which draws polygons, is not installed.
    """
    root = Path(options.root)
    path = root / options.annotations.replace("{split}", split)
    folder = root / options.images.replace("{split}", split)
    require_folder(folder, "image folder")
    tasks = _tasks(path)
    repairs: Counter[str] = Counter()
    chosen = [(number, task, result) for number, task, result in _results(tasks, path, repairs) if result is not None]
    labels = {label for _, _, result in chosen for region in result for label in _labels(region)}
    classes = chosen_classes(root, options.classes, None if options.classes else sorted(labels), f"{path}: labels")
    by_name = _by_name(folder)
    refusals, images = Refusals(), []
    reading = _Reading(classes, has_masks, options.beyond_edge == "cut")
    for number, task, result in chosen:
        with refusals.one():
            image = _image(task, by_name, folder, f"{path}, task {number}")
            images.append(_annotated(image, folder, result, f"{path}, task {number}", reading, refusals))
    twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {len(twice)} images have two tasks, the first is {twice[0]}; keep one of them")
    return AnnotatedDataset(classes, images, has_masks, repairs, refusals, options.beyond_edge)


@dataclass(frozen=True)
class _Reading:
    """How regions are read."""

    classes: tuple[str, ...]
    has_masks: bool
    is_cut: bool


def _tasks(path: Path) -> list[Mapping[str, Any]]:
    content = read_json(path, "check data.options.annotations and the split name")
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        raise DataError(f"{path}: expected Label Studio's list of tasks, got {short(content)}; export it as JSON")
    if not all(isinstance(task.get("data"), dict) for task in content):
        raise DataError(f"{path}: expected tasks with `data` and `annotations`; export it as JSON, and not as JSON-MIN")
    return content


def _results(
    tasks: Sequence[Mapping[str, Any]], path: Path, repairs: Counter[str]
) -> list[tuple[int, Mapping[str, Any], list[Mapping[str, Any]] | None]]:
    """Return number, task and regions of each task; None for the regions of a task without an annotation."""
    found: list[tuple[int, Mapping[str, Any], list[Mapping[str, Any]] | None]] = []
    for number, task in enumerate(tasks, 1):
        given = task.get("annotations", task.get("completions"))
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise DataError(
                f"{path}, task {number}: annotations: expected a list, got {short(given)}; export it as JSON"
            )
        valid = [one for one in given if not one.get("was_cancelled")]
        best = next((one for one in valid if one.get("ground_truth")), valid[0] if valid else None)
        repairs[_FURTHER] += max(0, len(valid) - 1)
        repairs[_UNLABELLED] += best is None
        result = None if best is None else best.get("result")
        if best is not None and (not isinstance(result, list) or not all(isinstance(one, dict) for one in result)):
            raise DataError(
                f"{path}, task {number}: result: expected a list of regions, got {short(result)}; fix the file"
            )
        found.append((number, task, result))
    return found


def _labels(region: Mapping[str, Any]) -> list[str]:
    """Return the labels of a region: `rectanglelabels`, `polygonlabels`, `labels` and so on of its value."""
    value = region.get("value")
    lists = [value[key] for key in value if str(key).endswith("labels")] if isinstance(value, dict) else []
    return [label.strip() for one in lists if isinstance(one, list) for label in one if isinstance(label, str)]


def _by_name(folder: Path) -> dict[str, list[Path]]:
    by_name: dict[str, list[Path]] = {}
    for path in images_below(folder):
        by_name.setdefault(path.name, []).append(path)
    return by_name


def _image(task: Mapping[str, Any], by_name: Mapping[str, list[Path]], folder: Path, where: str) -> Path:
    """Return the image file of a task: the one whose path has most in common with the address in the task."""
    data = task["data"]
    texts = [data.get("image"), *data.values()]
    address = next((text for text in texts if isinstance(text, str) and _place(text).suffix.lower() in SUFFIXES), None)
    if address is None:
        raise DataError(
            f"{where}: no image in its data, got {short(data)}; expected an address that ends in .jpg, .png, ..."
        )
    place = _place(address)
    found = by_name.get(place.name) or by_name.get(re.sub("^[0-9a-f]{8}-", "", place.name)) or []
    if not found:
        raise DataError(f"{where}: no image {place.name[:200]} below {folder}; copy the images there")
    if len(found) > 1:
        shared = {path: _shared_parts(PurePosixPath(path.as_posix()), place) for path in found}
        found = [path for path in found if shared[path] == max(shared.values())]
    if len(found) > 1:
        raise DataError(
            f"{where}: {len(found)} images are called {place.name[:200]}, the first is {found[0]}; rename one"
        )
    return found[0]


def _place(address: str) -> PurePosixPath:
    """Return the path in an address: of `/data/local-files/?d=a/b.jpg`, `s3://bucket/a/b.jpg`, `https://host/a/b.jpg?x=1`."""
    text = address.partition("?d=")[2] or address.partition("?")[0]
    return PurePosixPath(unquote(text).replace("\\", "/"))


def _shared_parts(one: PurePosixPath, other: PurePosixPath) -> int:
    """Return the number of equal parts at the end of two paths."""
    count = 0
    for a, b in zip(reversed(one.parts), reversed(other.parts), strict=False):
        if a != b:
            break
        count += 1
    return count


def _annotated(
    image: Path, folder: Path, result: list[Mapping[str, Any]], where: str, reading: _Reading, refusals: Refusals
) -> AnnotatedImage:
    size = upright_size(image)
    repairs: Counter[str] = Counter()
    named = {region.get("id") for region in result if _labels(region) and isinstance(region.get("id"), str)}
    objects = []
    for number, region in enumerate(result, 1):
        with refusals.one():
            if not isinstance(region.get("value"), dict) or (not _labels(region) and region.get("id") in named):
                continue  # a relation, or the shape of a region whose label is an entry of its own
            one = _object(region, size, f"{where}, region {number}", reading, repairs)
            objects += [one] if one else []
    return AnnotatedImage(image.relative_to(folder).as_posix(), image, size, tuple(objects), repairs)


def _object(
    region: Mapping[str, Any], size: tuple[int, int], where: str, reading: _Reading, repairs: Counter[str]
) -> Annotation | None:
    """Return the object of a region; None where it has no shape, or is left out."""
    value, labels = region["value"], _labels(region)
    if not {"x", "points", "rle", "vertices"} & set(value):
        return None  # a choice or a text about the whole image
    if len(labels) > 1:
        raise DataError(f"{where}: expected one class, got {short(labels)}; remove the others")
    _check_size(region, size, where)
    if not labels or labels[0] not in reading.classes:
        repairs[OTHER_CLASSES if labels else _NO_CLASS] += 1
        return None
    label = reading.classes.index(labels[0])
    if "rle" in value:
        box, brushed = _brushed(value["rle"], size, where)
        return Annotation(label, box, where, brushed if reading.has_masks else None)
    points = _outline(value, size, where)
    if points is None:
        repairs[_NO_AREA] += 1
        return None
    repairs[_TURNED] += bool(value.get("rotation")) and not reading.has_masks
    mask = Segmentation([points], reading.is_cut) if reading.has_masks else None
    return Annotation(label, frame(points), where, mask)


def _check_size(region: Mapping[str, Any], size: tuple[int, int], where: str) -> None:
    """Check that a region was drawn on an image of this shape, upright; DataError."""
    if region.get("image_rotation"):
        raise DataError(
            f"{where}: drawn on an image that Label Studio has turned, which is not read; turn the file itself"
        )
    given = [region.get(key) for key in ("original_height", "original_width")]
    if None in given:
        return
    height, width = numbers(given, f"{where}: original_height, original_width")
    # Shares of the sides hold for a resized image, too; rounding leaves a pixel.
    if min(height, width) < 1 or abs(height * size[1] - width * size[0]) > max(height, width, *size):
        raise DataError(
            f"{where}: drawn on an image of {height:g}x{width:g} (height x width), the file is {size[0]}x{size[1]}; fix one, "
            "and mind EXIF orientation"
        )


def _outline(value: Mapping[str, Any], size: tuple[int, int], where: str) -> list[float] | None:
    """Return a shape's outline in pixels; None for a shape without area."""
    across, down = size[1] / 100, size[0] / 100  # pixels of a percent
    if "points" in value:
        points = points_of(value["points"], f"{where}: points")
        return [v * (across, down)[i % 2] for i, v in enumerate(points)] if len(points) >= 6 else None
    is_ellipse = "radiusX" in value
    sides = ("radiusX", "radiusY") if is_ellipse else ("width", "height")
    if not all(side in value for side in sides):
        return None
    x, y, w, h, degrees = numbers(
        [value.get(key, 0) for key in ("x", "y", *sides, "rotation")],
        f"{where}: x, y, {sides[0]}, {sides[1]}, rotation",
    )
    x, y, w, h = x * across, y * down, w * across, h * down
    points = ellipse(x, y, w, h) if is_ellipse else rectangle(x, y, x + w, y + h)
    return turned(points, x, y, degrees) if math.fmod(degrees, 360) else points


def _brushed(runs: Any, size: tuple[int, int], where: str) -> tuple[tuple[float, float, float, float], Segmentation]:
    """Return box and mask of brush strokes."""
    try:
        mask = decode_brush(runs, size)
    except ValueError as exc:
        raise DataError(f"{where}: the brush mask is damaged: {one_line(exc)}; remove the region or fix it") from exc
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return (0.0, 0.0, 0.0, 0.0), Segmentation([])
    x1, y1, x2, y2 = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    counts = encode_part(mask[y1:y2, x1:x2], (x1, y1), size)
    return (float(x1), float(y1), float(x2), float(y2)), Segmentation({"size": list(size), "counts": counts})

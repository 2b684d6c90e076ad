"""Format `labelme`: labelme's JSON files beside the images.

    root/<split>/<name>.json                       one per image; subfolders are fine
    root/<split>/<name>.jpg                        the image that the JSON names as `imagePath`, else one of its name

The split `all` is every JSON below `root`. An image without JSON takes no part. Polygons, rectangles, circles and masks are
objects; points and lines are left out and counted. Shapes of one label and one `group_id` are one object. Shapes with the label
`__ignore__` are left out, as labelme's own converters do. The image in `imageData` is not read. For the task `semantic` shapes
are drawn in their order, the later ones on top; pixels of `__ignore__` have no label, and those of `_background_` are
background.
Source: labelme 5, labelme/utils/shape.py, examples/instance_segmentation/labelme2coco.py and
examples/semantic_segmentation/labelme2voc.py.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from PIL import Image

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
    require_images,
)
from edgekd.data.base import WHOLE
from edgekd.data.coco_masks import Segmentation
from edgekd.data.drawn import BACKGROUND, DrawnDataset
from edgekd.data.images import upright_size
from edgekd.data.json_files import read_json
from edgekd.data.outlines import ellipse, frame, points_of, rectangle
from edgekd.data.paired import is_showable, require_folder
from edgekd.data.voc_boxes import voc_image
from edgekd.errors import DataError, one_line

TASKS = ("semantic", "detection", "instance")

_NO_CLASSES = ("__ignore__", "_background_")
_POLYGONS = ("polygon", "rotation", "quadrilateral")
_NO_AREA = ("point", "points", "line", "linestrip")
_LINES = "points and lines left out"
_IGNORED = "shapes with the label __ignore__ left out"


@dataclass(frozen=True)
class Options:
    """Where the data set lies, and what of it is read."""

    root: str = option(..., "Folder of the data set.", is_path=True)
    classes: tuple[str, ...] | str = option(
        (), f"{CLASSES} Empty: all labels of the files below `root`, by name.", names_classes=True
    )
    beyond_edge: BeyondEdge = option("refuse", BEYOND_EDGE)
    background: str | None = option("background", BACKGROUND)


def open_dataset(options: Options, split: str) -> DrawnDataset:
    """Read the objects of one split and draw their class maps when they are loaded; errors as `open_objects` with masks."""
    objects = _opened(options, split, True, _NO_CLASSES)
    return DrawnDataset(objects, options.background, "later", {"__ignore__": None, "_background_": options.background})


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the objects of one split.

    Raises:
        DataError: a missing or damaged file, a shape that is none of labelme's, or an object out of its image.
        UserError: masks asked for, and faster-coco-eval, which draws polygons, is not installed.
    """
    return _opened(options, split, has_masks)


def _opened(options: Options, split: str, has_masks: bool, drawn: tuple[str, ...] = ()) -> AnnotatedDataset:
    """Read the objects of one split; those with a label of `drawn`, which is no class of objects, have the last classes."""
    root = Path(options.root)
    require_folder(root, "folder")
    folder = root if split == WHOLE and not (root / split).is_dir() else root / split
    require_folder(folder, f"folder of split {split!r},")
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise DataError(
            f"empty split: no *.json in {folder}, expected one per image; check data.options.root and the split name"
        )
    files = {path: _read(path) for path in paths}
    known = None
    if not options.classes:
        labels = {label for content in files.values() for label in _labels(content)}
        others = set(root.rglob("*.json")) - set(paths)
        known = sorted(labels.union(*(_labels(_read(path)) for path in others)))
    classes = chosen_classes(root, options.classes, known, f"{root}: labels")
    classes = (*(name for name in classes if name not in _NO_CLASSES), *drawn)
    refusals, images = Refusals(), []
    for path, content in files.items():
        with refusals.one():
            reading = _Reading(path, classes, has_masks, options.beyond_edge == "cut")
            images.append(_annotated(content, folder, root, reading, refusals))
    require_images(images)
    return AnnotatedDataset(classes, images, has_masks, refusals=refusals, beyond_edge=options.beyond_edge)


@dataclass(frozen=True)
class _Reading:
    """One file, and how its shapes are read."""

    path: Path
    classes: tuple[str, ...]
    has_masks: bool
    is_cut: bool


def _read(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(
            f"{path}: expected labelme's object with shapes, got {short(content)}; move other files elsewhere"
        )
    # The image, in base64, would be most of the memory.
    return {key: value for key, value in content.items() if key != "imageData"}


def _labels(content: Mapping[str, Any]) -> set[str]:
    shapes = (shape.get("label") for shape in content["shapes"] if isinstance(shape, dict))
    return {label.strip() for label in shapes if isinstance(label, str)} - set(_NO_CLASSES)


def _annotated(
    content: Mapping[str, Any], folder: Path, root: Path, reading: _Reading, refusals: Refusals
) -> AnnotatedImage:
    path = reading.path
    name = path.relative_to(folder).with_suffix("").as_posix()
    if not is_showable(name):
        raise DataError(f"{folder}: a file's name has control characters, {name!a:.60}; rename it")
    image = _image(path, root, content.get("imagePath"))
    if not os.path.isfile(image):
        return AnnotatedImage(name, image, None, ())
    size = upright_size(image)
    given = tuple(content.get(key) for key in ("imageHeight", "imageWidth"))
    if None not in given and given != size:
        raise DataError(
            f"{path}: imageHeight and imageWidth are {short(given[0])} and {short(given[1])}, {image} is {size[0]}x{size[1]} "
            "(height x width); fix one, and mind EXIF orientation"
        )
    repairs: Counter[str] = Counter()
    groups: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
    for number, shape in enumerate(content["shapes"], 1):
        where = f"{path}, shape {number}"
        with refusals.one():
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
                raise DataError(f"{where}: expected a shape with a label, got {short(shape)}; fix the file")
            group = shape.get("group_id")
            is_single = group is None or not isinstance(group, int | str)
            key = number if is_single else (shape["label"].strip(), group)
            groups.setdefault(key, []).append((where, shape))
    objects = []
    for shapes in groups.values():
        with refusals.one():
            one = _object(shapes, size, reading, repairs)
            objects += [one] if one else []
    return AnnotatedImage(name, image, size, tuple(objects), repairs)


def _image(path: Path, root: Path, given: Any) -> Path:
    """Return the image that a file names, where it lies below root, else the one beside it of the same name."""
    if isinstance(given, str) and given and is_showable(given):
        named = Path(os.path.normpath(path.parent / given.replace("\\", "/")))
        if named.is_relative_to(os.path.normpath(root)) and os.path.isfile(named):
            return named
    return voc_image(path.parent, path.stem)


def _object(
    shapes: list[tuple[str, Mapping[str, Any]]], size: tuple[int, int], reading: _Reading, repairs: Counter[str]
) -> Annotation | None:
    """Return the object that shapes of one label and group make; None where they are left out."""
    where, label = shapes[0][0], shapes[0][1]["label"].strip()
    if label not in reading.classes:
        repairs[_IGNORED if label in _NO_CLASSES else OTHER_CLASSES] += len(shapes)
        return None
    polygons, masks = [], []
    for place, shape in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = points_of(shape.get("points"), f"{place}: points")
        if kind in _NO_AREA or (kind in _POLYGONS and len(points) < 6):
            repairs[_LINES] += 1
        elif kind == "mask":
            masks.append(_mask(points, shape.get("mask"), size, place))
        else:
            polygons.append(_polygon(kind, points, place))
    if masks and (polygons or len(masks) > 1):
        raise DataError(f"{where}: its group_id joins a mask with other shapes, expected polygons; give it none")
    if masks:
        box, segmentation = masks[0]
    elif polygons:
        box, segmentation = (
            frame([value for polygon in polygons for value in polygon]),
            Segmentation(polygons, reading.is_cut),
        )
    else:
        return None
    return Annotation(reading.classes.index(label), box, where, segmentation if reading.has_masks else None)


def _polygon(kind: str, points: list[float], where: str) -> list[float]:
    if kind == "rectangle" and len(points) == 4:
        return rectangle(*frame(points))
    if kind == "circle" and len(points) == 4:
        x, y, on_x, on_y = points
        radius = float(np.hypot(on_x - x, on_y - y))
        return ellipse(x, y, radius, radius)
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 8):
        return points
    raise DataError(
        f"{where}: expected a polygon, a rectangle or circle of two points, or a mask, got {short(kind)} of "
        f"{len(points) // 2} points; fix the shape"
    )


def _mask(
    points: list[float], png: Any, size: tuple[int, int], where: str
) -> tuple[tuple[float, float, float, float], Segmentation]:
    """Return box and mask of a shape that holds a PNG of its mask; the first of its points is the PNG's upper left pixel."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(png or "", validate=True))) as image:
            part = np.array(image.convert("L")) > 0
    except (OSError, SyntaxError, ValueError, TypeError, binascii.Error, Image.DecompressionBombError) as exc:
        raise DataError(f"{where}: mask: expected a PNG in base64 ({one_line(exc)}); fix the shape") from exc
    if len(points) != 4:
        raise DataError(f"{where}: expected two points with the mask, got {len(points) // 2}; fix the shape")
    x, y = (round(value) for value in points[:2])
    if not (0 <= x <= x + part.shape[1] <= size[1] and 0 <= y <= y + part.shape[0] <= size[0]):
        raise DataError(
            f"{where}: its mask of {part.shape[0]}x{part.shape[1]} at x = {x}, y = {y} lies outside of the {size[0]}x{size[1]} "
            "image (height x width); fix the shape"
        )
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not rows.size:
        return (x, y, x + part.shape[1], y + part.shape[0]), Segmentation([])
    box = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
    runs = {"size": list(size), "counts": encode_part(part, (x, y), size)}
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3])), Segmentation(runs)

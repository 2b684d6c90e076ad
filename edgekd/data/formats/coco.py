"""Format `coco`: COCO's JSON of objects, boxes and instance masks.

    root/annotations/instances_<split>.json
    root/<split>/<file_name>                       the images

Both can be named otherwise by the options. Categories are numbered by sorted id, as all tools do; their names are the
classes. Masks are polygons, compressed or uncompressed run lengths; training and evaluation ignore crowds. An
image's height and width may be left out together, and the box of an object with polygons.
Source: cocodataset.org, "Data format"; pycocotools 2.0.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short  # of what may be endless, deeply nested or of many lines
from typing import Any, TypeGuard

from edgekd.board.options import option
from edgekd.data.annotated import (
    NO_MASK,
    AnnotatedDataset,
    AnnotatedImage,
    Annotation,
    Refusals,
    checked_size,
    require_images,
)
from edgekd.data.coco_masks import Segmentation
from edgekd.data.images import upright_size
from edgekd.data.paired import checked_classes, is_showable, require_folder
from edgekd.errors import DataError, one_line

TASKS = ("detection", "instance")


@dataclass(frozen=True)
class Options:
    """Where the data set lies."""

    root: str = option(..., "Folder of the data set.", is_path=True)
    annotations: str = option(
        "annotations/instances_{split}.json", "Annotation file below `root`; `{split}` stands for the split's name."
    )
    images: str = option("{split}", "Image folder below `root`; `{split}` stands for the split's name.")


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the objects of one split.

    Raises:
        DataError: a missing file, not COCO's JSON, ids that occur twice or belong to nothing, or a box out of its image.
        UserError: masks asked for, and faster-coco-eval, which draws polygons, is not installed.
    """
    root = Path(options.root)
    path = root / options.annotations.replace("{split}", split)
    folder = root / options.images.replace("{split}", split)
    require_folder(folder, "image folder")
    content = _read(path)
    categories = _by_id(_entries(content, "categories", path), "category", path)
    labels = {category: label for label, category in enumerate(sorted(categories))}
    classes = checked_classes([_name(categories[key], path) for key in labels], f"{path}: categories")
    entries = _by_id(_entries(content, "images", path), "image", path)
    images = {number: _image(entry, folder, path) for number, entry in sorted(entries.items())}
    objects: dict[int, list[Annotation]] = {image: [] for image in images}
    repairs: Counter[str] = Counter()
    refusals = Refusals()
    for number, entry in _by_id(_entries(content, "annotations", path), "annotation", path).items():
        with refusals.one():
            where = f"{path}, annotation {number}"
            image, category = _whole(entry.get("image_id")), _whole(entry.get("category_id"))
            if not _is_id(image) or image not in objects:
                raise DataError(f"{where}: no image has id {short(image)}; remove the annotation or add the image")
            if not _is_id(category) or category not in labels:
                raise DataError(
                    f"{where}: no category has id {short(category)}, expected one of {short([*labels])}; fix it"
                )
            annotation = _annotation(entry, labels[category], where, images[image].size if has_masks else None)
            if annotation is None:
                repairs[NO_MASK] += 1
            else:
                objects[image].append(annotation)
    listed = [replace(image, objects=tuple(objects[number])) for number, image in images.items()]
    names = Counter(image.name for image in listed)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"{path}: file_name {twice[0]!r} is listed {names[twice[0]]} times; keep one image entry")
    require_images(listed)
    return AnnotatedDataset(classes, listed, has_masks, repairs, refusals)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file; check data.options.annotations and the split name") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as JSON ({one_line(exc)}); replace the file") from exc
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: expected COCO's object with images, annotations, categories, got {type(content).__name__}"
        )
    return content


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"{path}: {key}: expected a list of objects, got {type(entries).__name__}; is it COCO's format?"
        )
    return entries


def _by_id(entries: list[Mapping[str, Any]], what: str, path: Path) -> dict[int, Mapping[str, Any]]:
    by_id: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        number = _whole(entry.get("id"))
        if not _is_id(number):
            raise DataError(f"{path}: {what} id: expected a whole number, got {short(number)}; fix the file")
        if number in by_id:
            raise DataError(f"{path}: {what} id {number} occurs twice; renumber one of them")
        by_id[number] = entry
    return by_id


def _whole(value: Any) -> Any:
    """Return 3 for 3.0, as spreadsheets write whole numbers; any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _name(category: Mapping[str, Any], path: Path) -> str:
    name = category.get("name")
    if not isinstance(name, str):
        raise DataError(f"{path}: category {category['id']}: expected a name, got {short(name)}; add it")
    return name


def _image(entry: Mapping[str, Any], folder: Path, path: Path) -> AnnotatedImage:
    name, where = entry.get("file_name"), f"{path}: image {entry['id']}"
    is_below = isinstance(name, str) and name and not Path(name).is_absolute() and ".." not in Path(name).parts
    if not isinstance(name, str) or not is_below or not is_showable(name):
        raise DataError(f"{where}: expected file_name below {folder}, got {short(name)}; fix it")
    if "\\" in name and not os.path.isfile(folder / name):
        name = name.replace("\\", "/")  # written on Windows; checked again, as `..\\x` is one part to Path
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise DataError(f"{where}: expected file_name below {folder}, got {short(name)}; fix it")
    height, width = (_whole(entry.get(side)) for side in ("height", "width"))
    is_measured = height is None and width is None and os.path.isfile(folder / name)
    if is_measured:
        height, width = upright_size(folder / name)
    return AnnotatedImage(name, folder / name, checked_size(height, width, where), (), is_measured)


def _annotation(
    entry: Mapping[str, Any], label: int, where: str, mask_size: tuple[int, int] | None
) -> Annotation | None:
    """Return an object with a mask of `mask_size`, or without one where that is None; None when the mask is blank."""
    box = entry.get("bbox")
    x, y, width, height = _numbers(_around(entry.get("segmentation")) if box is None else box, 4, f"{where}: bbox")
    area = entry.get("area")
    if area is not None:
        (area,) = _numbers([area], 1, f"{where}: area")
        if area < 0:
            raise DataError(f"{where}: area: expected square pixels, 0 or more, got {area}; fix the annotation")
    is_crowd = entry.get("iscrowd")
    is_crowd = 0 if is_crowd is None else is_crowd
    if is_crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd: expected 0 or 1, got {short(is_crowd)}; fix it")
    mask = Segmentation(entry.get("segmentation")) if mask_size else None
    if mask and mask_size and mask.is_blank(*mask_size):
        return None
    return Annotation(label, (x, y, x + width, y + height), where, mask, bool(is_crowd), area=area)


def _around(shape: Any) -> list[float] | None:
    """Return x, y, width, height of polygons; None for anything else."""
    if not isinstance(shape, list) or not shape or not all(isinstance(p, list) and len(p) >= 4 for p in shape):
        return None
    values = [value for polygon in shape for value in polygon[: len(polygon) // 2 * 2]]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values):
        return None
    x, y = values[::2], values[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _numbers(values: Any, count: int, where: str) -> list[float]:
    is_right = isinstance(values, list) and len(values) == count
    if not is_right or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values):
        raise DataError(f"{where}: expected {count} finite numbers, got {short(values)}; fix the annotation")
    return [float(value) for value in values]

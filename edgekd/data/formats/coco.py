"""Format `coco`: COCO's JSON of objects, boxes and instance masks.

    root/annotations/instances_<split>.json
    root/<split>/<file_name>                       the images

Both can be named otherwise by the options; without `{split}` in them the one file is a data set without splits. Categories
are numbered by sorted id, as all tools do, or in the order of `classes`; their names are the classes. Roboflow's first
category, which groups the others, is no class unless an object has it. Ids are whole numbers or text. Masks are polygons,
compressed or uncompressed run lengths; training and evaluation ignore crowds. An image's height and width may be left out
together, and the box of an object with polygons. For the task `semantic` the masks are drawn into a class map, where several
cover a pixel the one of fewer pixels; crowds are pixels of their class.
Source: cocodataset.org, "Data format"; pycocotools 2.0.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short  # of what may be endless, deeply nested or of many lines
from typing import Any, Literal, TypeGuard

from edgekd.board.options import option
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import (
    BEYOND_EDGE,
    CLASSES,
    NO_MASK,
    OTHER_CLASSES,
    AnnotatedImage,
    Annotation,
    BeyondEdge,
    Refusals,
    checked_size,
    chosen_classes,
    require_images,
)
from edgekd.data.coco_masks import Segmentation
from edgekd.data.drawn import BACKGROUND, DrawnDataset
from edgekd.data.images import upright_size
from edgekd.data.json_files import read_json
from edgekd.data.paired import is_showable, require_folder
from edgekd.errors import DataError

TASKS = ("semantic", "detection", "instance")

_Id = int | str
_Labels = dict[_Id, int | None]  # category -> class index, None for a class that is left out


@dataclass(frozen=True)
class Options:
    """Where the data set lies, and what of it is read."""

    root: str = option(..., "Folder of the data set.", is_path=True)
    annotations: str = option(
        "annotations/instances_{split}.json", "Annotation file below `root`; `{split}` stands for the split's name."
    )
    images: str = option("{split}", "Image folder below `root`; `{split}` stands for the split's name.")
    classes: tuple[str, ...] | str = option((), f"{CLASSES} Empty: all categories, by id.", names_classes=True)
    crowds: Literal["ignore", "objects"] = option(
        "ignore",
        "Annotations with `iscrowd: 1`: `ignore` them in training and evaluation, as COCO means it, or take them as `objects`, for "
        "tools that write it with every brush mask.",
    )
    beyond_edge: BeyondEdge = option("refuse", BEYOND_EDGE)
    background: str | None = option("background", BACKGROUND)


def open_dataset(options: Options, split: str) -> DrawnDataset:
    """Read the objects of one split and draw their class maps when they are loaded; errors as `open_objects` with masks."""
    return DrawnDataset(open_objects(options, split, has_masks=True), options.background)


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
    found = _entries(content, "annotations", path)
    categories = _categories(content, found, path)
    known = [_name(category, path) for category in categories.values()]
    classes = chosen_classes(root, options.classes, known, f"{path}: categories")
    labels: _Labels = {
        key: classes.index(name) if name in classes else None for key, name in zip(categories, known, strict=True)
    }
    entries = _by_id(_entries(content, "images", path), "image", path)
    images = {key: _image(entries[key], folder, path) for key in sorted(entries, key=_order)}
    objects: dict[_Id, list[Annotation]] = {image: [] for image in images}
    repairs: dict[_Id, Counter[str]] = {}
    refusals = Refusals()
    for key, entry in _by_id(found, "annotation", path).items():
        with refusals.one():
            where = f"{path}, annotation {key}"
            image, label = _place(entry, images, labels, where)
            annotation: Annotation | str = OTHER_CLASSES
            if label is not None:
                annotation = _annotation(entry, label, where, options, images[image].size if has_masks else None)
            if isinstance(annotation, str):
                repairs.setdefault(image, Counter())[annotation] += 1
            else:
                objects[image].append(annotation)
    listed = [
        replace(image, objects=tuple(objects[key]), repairs=repairs.get(key, {})) for key, image in images.items()
    ]
    names = Counter(image.name for image in listed)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"{path}: file_name {twice[0]!r} is listed {names[twice[0]]} times; keep one image entry")
    require_images(listed)
    return AnnotatedDataset(classes, listed, has_masks, refusals=refusals, beyond_edge=options.beyond_edge)


def _categories(content: Mapping[str, Any], found: list[Mapping[str, Any]], path: Path) -> dict[_Id, Mapping[str, Any]]:
    """Return the categories by id, in order, without the one that Roboflow writes first to group the others.

    Its supercategory is "none" and it is the supercategory of all others. It stays where an object has it.
    Source: app.roboflow.com, export "COCO", 2024.
    """
    entries = _by_id(_entries(content, "categories", path), "category", path)
    categories = {key: entries[key] for key in sorted(entries, key=_order)}
    if len(categories) < 2:
        return categories
    first, *others = categories
    root = categories[first]
    if root.get("supercategory") != "none" or any(
        categories[key].get("supercategory") != root.get("name") for key in others
    ):
        return categories
    if any(_whole(entry.get("category_id")) == first for entry in found):
        return categories
    del categories[first]
    return categories


def _place(
    entry: Mapping[str, Any], images: Mapping[_Id, AnnotatedImage], labels: _Labels, where: str
) -> tuple[_Id, int | None]:
    """Return the image of an annotation and its class index, None for a class that is left out."""
    image, category = _whole(entry.get("image_id")), _whole(entry.get("category_id"))
    if not _is_id(image) or image not in images:
        raise DataError(f"{where}: no image has id {short(image)}; remove the annotation or add the image")
    if not _is_id(category) or category not in labels:
        raise DataError(f"{where}: no category has id {short(category)}, expected one of {short([*labels])}; fix it")
    return image, labels[category]


def _read(path: Path) -> Mapping[str, Any]:
    content = read_json(path, "check data.options.annotations and the split name")
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


def _by_id(entries: list[Mapping[str, Any]], what: str, path: Path) -> dict[_Id, Mapping[str, Any]]:
    by_id: dict[_Id, Mapping[str, Any]] = {}
    for place, entry in enumerate(entries):
        number = _whole(entry.get("id"))
        if number is None and what == "annotation":
            number = f"number {place}"
        if not _is_id(number):
            raise DataError(f"{path}: {what} id: expected a whole number or a text, got {short(number)}; fix the file")
        if number in by_id:
            raise DataError(f"{path}: {what} id {number} occurs twice; renumber one of them")
        by_id[number] = entry
    return by_id


def _whole(value: Any) -> Any:
    """Return 3 for 3.0 and "3", as spreadsheets and some tools write whole numbers; any other value unchanged."""
    if (
        isinstance(value, str)
        and len(value) < 19
        and value.isascii()
        and value.isdecimal()
        and str(int(value)) == value
    ):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def _is_id(value: Any) -> TypeGuard[_Id]:
    if isinstance(value, str):
        return 0 < len(value) <= 200 and is_showable(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _order(key: _Id) -> tuple[bool, _Id]:
    """Return the sort key of ids: numbers before texts."""
    return isinstance(key, str), key


def _name(category: Mapping[str, Any], path: Path) -> str:
    name = category.get("name")
    if not isinstance(name, str):
        raise DataError(f"{path}: category {category['id']}: expected a name, got {short(name)}; add it")
    return name.strip()


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
    return AnnotatedImage(name, folder / name, checked_size(height, width, where), (), is_measured=is_measured)


def _annotation(
    entry: Mapping[str, Any], label: int, where: str, options: Options, mask_size: tuple[int, int] | None
) -> Annotation | str:
    """Return an object with a mask of `mask_size`, or without one where that is None; NO_MASK when the mask is blank."""
    box = entry.get("bbox")
    x, y, width, height = _numbers(_around(entry.get("segmentation")) if box is None else box, 4, f"{where}: bbox")
    area = entry.get("area")
    if area is not None:
        (area,) = _numbers([area], 1, f"{where}: area")
        if area < 0 and min(width, height) >= 0:
            raise DataError(f"{where}: area: expected square pixels, 0 or more, got {area}; fix the annotation")
        area = abs(area)
    is_crowd = entry.get("iscrowd")
    is_crowd = 0 if is_crowd is None else _whole(is_crowd)
    if is_crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd: expected 0 or 1, got {short(is_crowd)}; fix it")
    mask = Segmentation(entry.get("segmentation"), options.beyond_edge == "cut") if mask_size else None
    if mask and mask_size and mask.is_blank(*mask_size):
        return NO_MASK
    is_crowd = bool(is_crowd) and options.crowds == "ignore"
    return Annotation(label, (x, y, x + width, y + height), where, mask, is_crowd, area=area)


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

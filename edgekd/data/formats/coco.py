"""Format `coco`: COCO's JSON of objects, boxes and instance masks.

    root/annotations/instances_<split>.json
    root/<split>/<file_name>                       the images

Both can be named otherwise by the options. Categories are numbered by sorted id, as all tools do; their names are the
classes. Masks are polygons, compressed or uncompressed run lengths; a crowd is not trained on and need not be found.
Source: cocodataset.org, "Data format"; pycocotools 2.0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data import coco_masks
from edgekd.data.annotated import AnnotatedDataset, AnnotatedImage, Annotation, require_images
from edgekd.data.paired import checked_classes, is_showable, require_folder
from edgekd.errors import DataError


@dataclass(frozen=True)
class Options:
    """Where the files are.

    Attributes:
        root: the data set's folder.
        annotations: the JSON below root; `{split}` stands for the split.
        images: the folder of a split's images below root.
    """

    root: str
    annotations: str = "annotations/instances_{split}.json"
    images: str = "{split}"


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
    images = _by_id(_entries(content, "images", path), "image", path)
    found: dict[int, list[Annotation]] = {image: [] for image in images}
    repairs: Counter[str] = Counter()
    entries = _by_id(_entries(content, "annotations", path), "annotation", path)
    for number, entry in entries.items():
        where = f"{path}, annotation {number}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int) or image not in found:
            raise DataError(f"{where}: no image has id {str(image)[:40]}; remove the annotation or add the image")
        if not isinstance(category, int) or category not in labels:
            raise DataError(
                f"{where}: no category has id {str(category)[:40]}, expected one of {sorted(labels)[:8]}; fix it"
            )
        annotation = _annotation(entry, labels[category], where, has_masks)
        if annotation is None:
            repairs["annotations without a mask left out"] += 1
        else:
            found[image].append(annotation)
    listed = [_image(entry, folder, path, found[number]) for number, entry in sorted(images.items())]
    names = Counter(image.name for image in listed)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"{path}: file_name {twice[0]!r} is listed {names[twice[0]]} times; keep one image entry")
    require_images(listed)
    return AnnotatedDataset(classes, listed, has_masks, repairs)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file; check data.options.annotations and the split name") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as JSON ({' '.join(str(exc).split())[:200]}); replace the file") from exc
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
    found: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        number = entry.get("id")
        if isinstance(number, bool) or not isinstance(number, int):
            raise DataError(f"{path}: {what} id: expected a whole number, got {str(number)[:40]!r}; fix the file")
        if number in found:
            raise DataError(f"{path}: {what} id {number} occurs twice; renumber one of them")
        found[number] = entry
    return found


def _name(category: Mapping[str, Any], path: Path) -> str:
    name = category.get("name")
    if not isinstance(name, str):
        raise DataError(f"{path}: category {category['id']}: expected a name, got {str(name)[:40]}; add it")
    return name


def _image(entry: Mapping[str, Any], folder: Path, path: Path, objects: list[Annotation]) -> AnnotatedImage:
    name, size = entry.get("file_name"), (entry.get("height"), entry.get("width"))
    is_below = isinstance(name, str) and name and not Path(name).is_absolute() and ".." not in Path(name).parts
    if not isinstance(name, str) or not is_below or not is_showable(name):
        raise DataError(
            f"{path}: image {entry['id']}: expected file_name below {folder}, got {str(name)[:80]!a}; fix it"
        )
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
        raise DataError(f"{path}: image {entry['id']}: expected height and width in pixels, got {size}; add them")
    return AnnotatedImage(name, folder / name, (int(size[0] or 0), int(size[1] or 0)), tuple(objects))


def _annotation(entry: Mapping[str, Any], label: int, where: str, has_masks: bool) -> Annotation | None:
    x, y, width, height = _numbers(entry.get("bbox"), 4, f"{where}: bbox")
    area = entry.get("area")
    if area is not None:
        (area,) = _numbers([area], 1, f"{where}: area")
        if area < 0:
            raise DataError(f"{where}: area: expected square pixels, 0 or more, got {area}; fix the annotation")
    is_crowd = entry.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd: expected 0 or 1, got {str(is_crowd)[:40]!r}; fix it")
    shape = entry.get("segmentation")
    if has_masks and not shape:
        return None
    return Annotation(
        label, (x, y, x + width, y + height), where, _mask_of(shape, where) if has_masks else None, bool(is_crowd),
        area, json.dumps(shape, sort_keys=True) if has_masks else "",
    )  # fmt: skip


def _numbers(values: Any, count: int, where: str) -> list[float]:
    is_right = isinstance(values, list) and len(values) == count
    if not is_right or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values):
        raise DataError(f"{where}: expected {count} finite numbers, got {str(values)[:60]}; fix the annotation")
    return [float(value) for value in values]


@dataclass(frozen=True)
class _mask_of:
    """Draws one `segmentation`; see `Annotation.mask`."""

    shape: Any
    where: str

    def __call__(self, height: int, width: int) -> np.ndarray:
        if isinstance(self.shape, dict):
            if self.shape.get("size") != [height, width]:
                raise ValueError(f"expected size [{height}, {width}], got {str(self.shape.get('size'))[:60]}")
            counts = self.shape.get("counts")
            if not isinstance(counts, str | list):
                raise ValueError(f"expected counts, got {type(counts).__name__}")
            return coco_masks.decode_runs(counts, (height, width))
        return coco_masks.draw_polygons(self.shape, height, width)

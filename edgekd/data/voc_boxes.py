"""VOC boxes: one XML file per image, lists of their names, and 1-based or 0-based coordinates."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import (
    TURNED,
    AnnotatedImage,
    Annotation,
    BeyondEdge,
    Refusals,
    checked_size,
    require_images,
)
from edgekd.data.base import WHOLE
from edgekd.data.images import upright_size
from edgekd.data.paired import SUFFIXES, is_showable, read_split_list
from edgekd.errors import DataError, did_you_mean, one_line

FROM_ZERO = "boxes read as counting from 0, as an xmin or ymin is 0; data.options.boxes_from_one: true counts from 1"


@dataclass(frozen=True)
class _Folders:
    """Where XML files and images lie."""

    labels: Path
    images: Path


def read_boxes(
    root: Path, split: str, classes: tuple[str, ...], from_one: bool | None, beyond_edge: BeyondEdge
) -> AnnotatedDataset:
    """Read the boxes of one split.

    Args:
        root: folder of the data set.
        split: names the list, the folder, or, as `all`, every XML file.
        classes: class names in index order.
        from_one: whether coordinates count from 1; None: they do unless an xmin or ymin is 0, in the split or beside it.
        beyond_edge: "cut" cuts boxes that pass the edge; otherwise they are refused.

    Raises:
        DataError: a missing or damaged file, a class that is not listed, or a box out of its image.
    """
    names, folders = _names(root, split)
    refusals, images = Refusals(), []
    for name in names:
        with refusals.one():
            images.append(_annotated(folders, name, classes, refusals))
    require_images(images)
    is_unexpected = from_one is None and _counts_from_zero(images, folders.labels)
    images = [_in_order(image, from_one is not False and not is_unexpected, is_unexpected) for image in images]
    return AnnotatedDataset(classes, images, False, refusals=refusals, beyond_edge=beyond_edge)


def _names(root: Path, split: str) -> tuple[list[str], _Folders]:
    """Return the names of a split's images, without suffix, and their folders."""
    whole = _Folders(root / "Annotations", root / "JPEGImages")
    if split == WHOLE and whole.labels.is_dir():
        return _names_in(whole.labels), whole
    if split == WHOLE and any(root.glob("*.xml")):
        return _names_in(root), _Folders(root, root)
    if (root / split).is_dir() and not (root / "ImageSets").is_dir():
        return _names_in(root / split), _Folders(root / split, root / split)
    listed = read_split_list(root / "ImageSets" / "Main", split)
    names = [_listed_name(name, whole.labels) for name in listed]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{root / 'ImageSets/Main' / split}.txt: image {twice[0]!r} is listed twice; remove one")
    return names, whole


def _listed_name(entry: str, labels: Path) -> str:
    """Return the name of an image in a list's row, which some tools write with suffix or folder, or with 1, 0 or -1 behind it.

    Source: VOC 2012 development kit, section 4.1: a class's list has -1, 0 or 1 for the presence of the class. The image
    belongs to the list in any case.
    """
    without_column = re.sub(r"\s+(-1|0|1)$", "", entry)
    for name in (entry, without_column):
        stem, dot, suffix = name.rpartition(".")
        bare = stem if dot and (f".{suffix.lower()}" in SUFFIXES or suffix.lower() == "xml") else name
        for candidate in (name, bare, Path(bare).name):
            if os.path.isfile(labels / f"{candidate}.xml"):
                return candidate
    return entry


def _names_in(folder: Path) -> list[str]:
    names = sorted(path.relative_to(folder).as_posix().removesuffix(".xml") for path in folder.rglob("*.xml"))
    if not names:
        raise DataError(
            f"empty split: no *.xml in {folder}, expected one per image; check data.options.root and the split name"
        )
    for name in names:
        if not is_showable(name):
            raise DataError(f"{folder}: a file's name has control characters, {name!a:.60}; rename it")
    return names


def _annotated(folders: _Folders, name: str, classes: tuple[str, ...], refusals: Refusals) -> AnnotatedImage:
    path = folders.labels / f"{name}.xml"
    try:
        tree: Any = ElementTree.parse(path).getroot()
    except FileNotFoundError as exc:
        raise DataError(
            f"{path}: no such file, expected the boxes of image {name!r}; add it or unlist {name!r}"
        ) from exc
    except (ParseError, DefusedXmlException, OSError, ValueError, LookupError) as exc:
        raise DataError(f"{path}: not readable as XML ({one_line(exc)}); replace the file") from exc
    image = voc_image(folders.images, name, (tree.findtext("filename") or "").strip())
    is_measured, size = _size(tree, path, image)
    objects = []
    for number, node in enumerate(tree.findall("object"), 1):
        with refusals.one():
            objects.append(_object(node, path, f"{path}, object {number}", classes))
    return AnnotatedImage(name, image, size, tuple(objects), is_measured=is_measured)


def _size(tree: Any, path: Path, image: Path) -> tuple[bool, tuple[int, int]]:
    """Return whether the image was measured, because the XML has 0 or nothing, as some tools write it, and (height, width)."""
    is_left_out = all((tree.findtext(f"size/{side}") or "0").strip() == "0" for side in ("height", "width"))
    if is_left_out and os.path.isfile(image):
        return True, upright_size(image)
    height, width = (int(_number(tree, f"size/{side}", path)) for side in ("height", "width"))
    return False, checked_size(height, width, str(path))


def _object(node: Any, path: Path, where: str, classes: tuple[str, ...]) -> Annotation:
    """Return an object with its coordinates as they are written."""
    label = (node.findtext("name") or "").strip()
    if label not in classes:
        raise DataError(
            f"{where}: unknown class {short(label)}{did_you_mean(label[:60], classes)}; list it in data.options.classes"
        )
    x1, y1, x2, y2 = (_number(node, f"bndbox/{key}", path) for key in ("xmin", "ymin", "xmax", "ymax"))
    is_difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return Annotation(classes.index(label), (x1, y1, x2, y2), where, is_difficult=is_difficult)


def _counts_from_zero(images: list[AnnotatedImage], labels: Path) -> bool:
    """Whether a box begins at 0, in these images or in another XML file of their folder: splits of one set count alike."""
    if any(0 <= min(one.box) < 1 for image in images for one in image.objects):
        return True
    seen = {image.name for image in images}
    others = (
        path for path in labels.rglob("*.xml") if path.relative_to(labels).as_posix().removesuffix(".xml") not in seen
    )
    return any(_has_zero(path) for path in others)


def _has_zero(path: Path) -> bool:
    try:
        return re.search(rb"<[xy]min>\s*0(\.\d*)?\s*<", path.read_bytes()) is not None
    except OSError:  # a file of another split: opening that split reports it
        return False


def _in_order(image: AnnotatedImage, from_one: bool, is_unexpected: bool) -> AnnotatedImage:
    """Return an image with coordinates that count from 0, each smaller one first.

    Its `repairs` count boxes with coordinates in another order and, where `is_unexpected`, those that count from 0.
    """
    objects = []
    repairs: Counter[str] = Counter()
    for one in image.objects:
        (x1, x2), (y1, y2) = sorted(one.box[::2]), sorted(one.box[1::2])
        is_flat = x1 == x2 or y1 == y2  # a click, not a box
        repairs[TURNED] += not is_flat and (x1, y1, x2, y2) != one.box
        repairs[FROM_ZERO] += is_unexpected
        shift = 1.0 if from_one and not is_flat else 0.0
        objects.append(replace(one, box=(x1 - shift, y1 - shift, x2, y2)))
    return replace(image, objects=tuple(objects), repairs=repairs)


def voc_image(folder: Path, name: str, filename: str = "") -> Path:
    """Return `name`.jpg or, where it is missing, an image with another suffix; a `filename` with folders is ignored."""
    others = [f"{name}{suffix}" for suffix in (".png", ".jpeg", ".bmp")]
    others += [f"{name}{spelt}" for suffix in sorted(SUFFIXES) for spelt in (suffix, suffix.upper())]
    if filename and filename == Path(filename).name and is_showable(filename):
        others.insert(0, filename)
    candidates = [folder / other for other in (f"{name}.jpg", *others)]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def _number(node: Any, key: str, path: Path) -> float:
    text = (node.findtext(key) or "").strip()
    try:
        value = float(text)
    except ValueError as exc:
        raise DataError(f"{path}: {key}: expected a number, got {short(text)}; fix the file") from exc
    if not abs(value) < 1e9:
        raise DataError(f"{path}: {key}: expected a finite number, got {short(text)}; fix the file")
    return value

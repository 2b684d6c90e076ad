"""Format `voc`: PASCAL VOC 2012 segmentation, with or without the SBD masks (`trainaug`), and VOC boxes in XML.

    root/JPEGImages/<name>.jpg
    root/SegmentationClass/<name>.png              palette PNG; 255 = void
    root/SegmentationClassAug/<name>.png           SBD masks, as distributed with `trainaug`
    root/ImageSets/Segmentation/<split>.txt        one name per line
    root/Annotations/<name>.xml                    boxes
    root/ImageSets/Main/<split>.txt                names for the boxes

Without ImageSets, boxes are read from one folder per split, as Roboflow exports them and LabelImg leaves them:

    root/<split>/<name>.xml, root/<split>/<name>.jpg        an image without XML takes no part

Where <name>.jpg is missing, <name>.png, .jpeg, .bmp or another is the image, and before them, with boxes, the file of that folder
that the XML names as its `filename`: LabelImg and others write VOC's XML for images of any kind.
`root` is the folder VOCdevkit/VOC2012. Two conventions for `trainaug` are in use and give different labels:
`masks: [SegmentationClass, SegmentationClassAug]` takes VOC's own mask where there is one (mmsegmentation),
`masks: [SegmentationClassAug]` takes all from the one folder (CIRKD).

Boxes: coordinates are pixels counted from 1, both ends included (VOC 2012 development kit, section 5), so x1 = xmin - 1 and
x2 = xmax. Training and evaluation ignore `difficult` objects.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from edgekd.board.options import option
from edgekd.data.annotated import AnnotatedDataset, AnnotatedImage, Annotation, Refusals, checked_size, require_images
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.images import upright_size
from edgekd.data.paired import (
    SUFFIXES,
    Pair,
    PairedDataset,
    is_showable,
    label_table,
    listed_pairs,
    named_classes,
    read_split_list,
)
from edgekd.errors import DataError, did_you_mean, one_line

TASKS = ("semantic", "detection")

# Source: VOC 2012 development kit, section 2.1, with background first.
# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


@dataclass(frozen=True)
class Options:
    """Where the data set lies, and what it contains."""

    root: str = option(..., "Folder `VOC2012`, or one with the same layout.", is_path=True)
    masks: tuple[str, ...] = option(
        ("SegmentationClass",), "Mask folders below `root`. An image takes its mask from the first folder that has one."
    )
    boxes_from_one: bool = option(
        True, "Box coordinates count from 1 and include both ends, as VOC's do. `false`: they count from 0."
    )
    classes: tuple[str, ...] | str = option(
        CLASSES, "Class names in index order, or a text file below `root` with one name per line.", names_classes=True
    )


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files listed for one split.

    Raises:
        DataError: missing list, image or mask, an empty split, or a `trainaug` list that holds images of `val`.
    """
    root = Path(options.root)
    classes = named_classes(root, options.classes)
    if not options.masks:
        raise DataError("data.options.masks is empty, expected at least one folder, e.g. [SegmentationClass]")
    lists = root / "ImageSets" / "Segmentation"
    names = read_split_list(lists, split)
    if split == "trainaug" and (lists / "val.txt").is_file():
        leaked = sorted(set(names) & set(read_split_list(lists, "val")))
        if leaked:
            raise DataError(
                f"{lists / 'trainaug.txt'}: {len(leaked)} images are also in val.txt, the first is {leaked[0]}"
            )
    pairs = [Pair(name, _image(root / "JPEGImages", name), _mask(root, options.masks, name)) for name in names]
    table = label_table({index: index for index in range(len(classes))} | {IGNORE_INDEX: IGNORE_INDEX})
    return PairedDataset(classes, listed_pairs(pairs), table, f"0..{len(classes) - 1}, or 255 (void)")


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the boxes of one split; the classes are `options.classes` without `background`.

    Raises:
        DataError: masks asked for, a missing or damaged file, a class that is not listed, or a box out of its image.
    """
    if has_masks:
        raise DataError("voc: instance masks are not read, expected task detection or semantic; convert them to coco")
    root = Path(options.root)
    classes = tuple(name for name in named_classes(root, options.classes) if name != "background")
    if (root / split).is_dir() and not (root / "ImageSets").is_dir():
        names, folders = _names_in(root / split), (root / split, root / split)
    else:
        names = read_split_list(root / "ImageSets" / "Main", split)
        folders = (root / "Annotations", root / "JPEGImages")
    refusals, images = Refusals(), []
    for name in names:
        with refusals.one():
            images.append(_annotated(folders, name, classes, options.boxes_from_one, refusals))
    require_images(images)
    return AnnotatedDataset(classes, images, has_masks=False, refusals=refusals)


def _names_in(folder: Path) -> list[str]:
    names = sorted(path.name.removesuffix(".xml") for path in folder.glob("*.xml"))
    if not names:
        raise DataError(f"empty split: no *.xml in {folder}, expected one per image")
    for name in names:
        if not is_showable(name):
            raise DataError(f"{folder}: a file's name has control characters, {name!a:.60}; rename it")
    return names


def _annotated(
    folders: tuple[Path, Path], name: str, classes: tuple[str, ...], from_one: bool, refusals: Refusals
) -> AnnotatedImage:
    path = folders[0] / f"{name}.xml"
    try:
        tree: Any = ElementTree.parse(path).getroot()
    except FileNotFoundError as exc:
        raise DataError(
            f"{path}: no such file, expected the boxes of image {name!r}; add it or unlist {name!r}"
        ) from exc
    except (ParseError, DefusedXmlException, OSError, ValueError, LookupError) as exc:
        raise DataError(f"{path}: not readable as XML ({one_line(exc)}); replace the file") from exc
    image = _image(folders[1], name, (tree.findtext("filename") or "").strip())
    is_measured, size = _size(tree, path, image)
    objects = []
    for number, node in enumerate(tree.findall("object"), 1):
        with refusals.one():
            objects.append(_object(node, path, f"{path}, object {number}", classes, from_one))
    return AnnotatedImage(name, image, size, tuple(objects), is_measured)


def _size(tree: Any, path: Path, image: Path) -> tuple[bool, tuple[int, int]]:
    """Return whether the image was measured, because the XML has 0 or nothing, as some tools write it, and (height, width)."""
    is_left_out = all((tree.findtext(f"size/{side}") or "0").strip() == "0" for side in ("height", "width"))
    if is_left_out and os.path.isfile(image):
        return True, upright_size(image)
    height, width = (int(_number(tree, f"size/{side}", path)) for side in ("height", "width"))
    return False, checked_size(height, width, str(path))


def _object(node: Any, path: Path, where: str, classes: tuple[str, ...], from_one: bool) -> Annotation:
    label = (node.findtext("name") or "").strip()
    if label not in classes:
        raise DataError(
            f"{where}: unknown class {short(label)}{did_you_mean(label[:60], classes)}; list it in data.options.classes"
        )
    x1, y1, x2, y2 = (_number(node, f"bndbox/{key}", path) for key in ("xmin", "ymin", "xmax", "ymax"))
    is_flat = x2 <= x1 or y2 <= y1  # a click, not a box
    shift = 1.0 if from_one and not is_flat else 0.0
    is_difficult = (node.findtext("difficult") or "0").strip() == "1"
    return Annotation(classes.index(label), (x1 - shift, y1 - shift, x2, y2), where, is_difficult=is_difficult)


def _image(folder: Path, name: str, filename: str = "") -> Path:
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


def _mask(root: Path, folders: tuple[str, ...], name: str) -> Path:
    candidates = [root / folder / f"{name}.png" for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[-1])

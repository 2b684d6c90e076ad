"""Format `voc`: PASCAL VOC 2012 segmentation, with or without the SBD masks (`trainaug`), and VOC boxes in XML.

    root/JPEGImages/<name>.jpg
    root/SegmentationClass/<name>.png              palette PNG; 255 = void
    root/SegmentationClassAug/<name>.png           SBD masks, as distributed with `trainaug`
    root/ImageSets/Segmentation/<split>.txt        one name per line
    root/Annotations/<name>.xml                    boxes
    root/ImageSets/Main/<split>.txt                names for the boxes
    root/labelmap.txt                              `colors: labelmap.txt`: masks of colours, as CVAT exports them

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
from edgekd.data.base import IGNORE_INDEX, WHOLE
from edgekd.data.class_lists import named_classes
from edgekd.data.images import upright_size
from edgekd.data.paired import (
    SUFFIXES,
    Pair,
    PairedDataset,
    images_below,
    is_showable,
    listed_pairs,
    read_split_list,
    require_folder,
)
from edgekd.data.stored import COLORS, IGNORED, by_color, by_index
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
        CLASSES, "Class names in index order, or a text file below `root` with one name per line."
    )
    colors: dict[str, str | None] | str = option({}, COLORS)
    ignore_index: int | tuple[int, ...] = option(IGNORE_INDEX, IGNORED)


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files listed for one split.

    Raises:
        DataError: missing list, image or mask, an empty split, or a `trainaug` list that holds images of `val`.
    """
    root = Path(options.root)
    if options.colors:
        stored = by_color(root, options.colors, split)
    else:
        stored = by_index(named_classes(root, options.classes, ("colors",)), options.ignore_index)
    if not options.masks:
        raise DataError("data.options.masks is empty, expected at least one folder, e.g. [SegmentationClass]")
    lists = root / "ImageSets" / "Segmentation"
    is_whole = split == WHOLE and not (lists / f"{WHOLE}.txt").is_file()
    names = _masked(root, options.masks) if is_whole else read_split_list(lists, split)
    if split == "trainaug" and (lists / "val.txt").is_file():
        leaked = sorted(set(names) & set(read_split_list(lists, "val")))
        if leaked:
            raise DataError(
                f"{lists / 'trainaug.txt'}: {len(leaked)} images are also in val.txt, the first is {leaked[0]}"
            )
    pairs = [Pair(name, _image(root / "JPEGImages", name), _mask(root, options.masks, name)) for name in names]
    if not (root / "JPEGImages").is_dir():
        raise DataError(f"image folder {root / 'JPEGImages'} does not exist; export with images (CVAT: Save images)")
    return stored.dataset(listed_pairs(pairs))


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
    size = _size(tree, path, image)
    objects = []
    for number, node in enumerate(tree.findall("object"), 1):
        with refusals.one():
            objects.append(_object(node, path, f"{path}, object {number}", classes, from_one))
    return AnnotatedImage(name, image, size, tuple(objects))


def _size(tree: Any, path: Path, image: Path) -> tuple[int, int]:
    """Return (height, width) from the XML, or from the image where the XML has 0 or nothing, as some tools write it."""
    is_left_out = all((tree.findtext(f"size/{side}") or "0").strip() == "0" for side in ("height", "width"))
    if is_left_out and os.path.isfile(image):
        return upright_size(image)
    return checked_size(int(_number(tree, "size/height", path)), int(_number(tree, "size/width", path)), str(path))


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


def _masked(root: Path, folders: tuple[str, ...]) -> list[str]:
    """Return the names of all masks, sorted: the images of a data set without lists."""
    for folder in folders:
        require_folder(root / folder, "mask folder")
    names = {
        path.relative_to(root / folder).with_suffix("").as_posix()
        for folder in folders
        for path in images_below(root / folder)
    }
    if not names:
        raise DataError(f"empty split: no mask in {root / folders[0]}; check data.options.masks")
    return sorted(names)


def _mask(root: Path, folders: tuple[str, ...], name: str) -> Path:
    candidates = [root / folder / f"{name}.png" for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[-1])

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

The split `all` is every XML file of `Annotations` or, where there is no such folder, of `root`. A list may also give names
with a suffix or a folder, or with VOC's -1, 0 or 1 behind them, which is not used.

Where <name>.jpg is missing, <name>.png, .jpeg, .bmp or another is the image, and before them, with boxes, the file of that folder
that the XML names as its `filename`: LabelImg and others write VOC's XML for images of any kind.
`root` is the folder VOCdevkit/VOC2012. Two conventions for `trainaug` are in use and give different labels:
`masks: [SegmentationClass, SegmentationClassAug]` takes VOC's own mask where there is one (mmsegmentation),
`masks: [SegmentationClassAug]` takes all from the one folder (CIRKD).

Boxes: coordinates are pixels counted from 1, both ends included (VOC 2012 development kit, section 5), so x1 = xmin - 1 and
x2 = xmax. Where an xmin or ymin is 0 they count from 0, and x1 = xmin. Training and evaluation ignore `difficult` objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.board.options import option
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import BEYOND_EDGE, BeyondEdge, chosen_classes
from edgekd.data.base import IGNORE_INDEX, WHOLE
from edgekd.data.class_lists import named_classes
from edgekd.data.paired import Pair, PairedDataset, images_below, listed_pairs, read_split_list, require_folder
from edgekd.data.stored import COLORS, IGNORED, by_color, by_index
from edgekd.data.voc_boxes import read_boxes, voc_image
from edgekd.errors import DataError

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
    boxes_from_one: bool | None = option(
        None,
        "Box coordinates count from 1 and include both ends, as VOC's do. `false`: they count from 0, as CVAT writes them. "
        "`null`: they count from 0 where an xmin or ymin of the split is 0, which is reported, and else from 1.",
    )
    classes: tuple[str, ...] | str = option(
        CLASSES, "Class names in index order, or a text file below `root` with one name per line.", names_classes=True
    )
    colors: dict[str, str | None] | str = option({}, COLORS, names_classes=True)
    ignore_index: int | tuple[int, ...] = option(IGNORE_INDEX, IGNORED)
    beyond_edge: BeyondEdge = option("refuse", BEYOND_EDGE)


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
    if root.is_dir() and not lists.is_dir() and split != WHOLE:
        raise DataError(
            f"no split {split!r}: {lists} does not exist, expected {split}.txt in it; without lists write `train: {WHOLE}` and "
            "`val: 0.2`"
        )
    is_whole = split == WHOLE and not (lists / f"{WHOLE}.txt").is_file()
    names = _masked(root, options.masks) if is_whole else read_split_list(lists, split)
    if split == "trainaug" and (lists / "val.txt").is_file():
        leaked = sorted(set(names) & set(read_split_list(lists, "val")))
        if leaked:
            raise DataError(
                f"{lists / 'trainaug.txt'}: {len(leaked)} images are also in val.txt, the first is {leaked[0]}; unlist them in one"
            )
    pairs = [Pair(name, voc_image(root / "JPEGImages", name), _mask(root, options.masks, name)) for name in names]
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
    listed = chosen_classes(root, options.classes, None, "data.options.classes")
    classes = tuple(name for name in listed if name != "background")
    return read_boxes(root, split, classes, options.boxes_from_one, options.beyond_edge)


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

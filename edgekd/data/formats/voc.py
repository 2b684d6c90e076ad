"""Format `voc`: PASCAL VOC 2012 segmentation, with or without the SBD masks (`trainaug`).

    root/JPEGImages/<name>.jpg
    root/SegmentationClass/<name>.png              palette PNG; 255 = void
    root/SegmentationClassAug/<name>.png           SBD masks, as distributed with `trainaug`
    root/ImageSets/Segmentation/<split>.txt        one name per line

`root` is the folder VOCdevkit/VOC2012. Two conventions for `trainaug` are in use and give different labels:
`masks: [SegmentationClass, SegmentationClassAug]` takes VOC's own mask where there is one (mmsegmentation),
`masks: [SegmentationClassAug]` takes all from the one folder (CIRKD).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.data.base import IGNORE_INDEX
from edgekd.data.paired import Pair, PairedDataset, checked_classes, label_table, listed_pairs, read_split_list
from edgekd.errors import DataError

# Source: VOC 2012 development kit, section 2.1, with background first.
# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


@dataclass(frozen=True)
class Options:
    """Where the files are.

    Attributes:
        root: the VOC2012 folder.
        masks: mask folders below root; an image takes its mask from the first one that has it.
        classes: class names in index order, for other data in the same layout.
    """

    root: str
    masks: tuple[str, ...] = ("SegmentationClass",)
    classes: tuple[str, ...] = CLASSES


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files listed for one split.

    Raises:
        DataError: missing list, image or mask, an empty split, or a `trainaug` list that holds images of `val`.
    """
    root = Path(options.root)
    classes = checked_classes(options.classes, "data.options.classes")
    if not options.masks:
        raise DataError("data.options.masks is empty, expected at least one folder, e.g. [SegmentationClass]")
    lists = root / "ImageSets" / "Segmentation"
    names = read_split_list(lists, split)
    if split == "trainaug" and (lists / "val.txt").is_file():
        leaked = sorted(set(names) & set(read_split_list(lists, "val")))
        if leaked:
            raise DataError(
                f"{lists / 'trainaug.txt'}: {len(leaked)} images are in val.txt too, the first is {leaked[0]}"
            )
    pairs = [Pair(name, root / "JPEGImages" / f"{name}.jpg", _mask(root, options.masks, name)) for name in names]
    table = label_table({index: index for index in range(len(classes))} | {IGNORE_INDEX: IGNORE_INDEX})
    return PairedDataset(classes, listed_pairs(pairs), table, f"0..{len(classes) - 1}, or 255 (void)")


def _mask(root: Path, folders: tuple[str, ...], name: str) -> Path:
    candidates = [root / folder / f"{name}.png" for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[-1])

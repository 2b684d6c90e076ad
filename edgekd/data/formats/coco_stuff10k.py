"""Format `coco_stuff10k`: COCO-Stuff 10K v1.1, 171 classes.

    root/images/<name>.jpg
    root/annotations/<name>.mat            MATLAB, variable S: 0 = unlabeled, 1..91 things, 92..182 stuff
    root/imageLists/<train|test>.txt       one name per line

Eleven of the ids 1..182 have no annotation; without them 171 classes remain, numbered in the order of their ids.
A file with one of the eleven is refused: it is v1.0, whose numbers mean other classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.matlab import read_integer_matrix
from edgekd.data.paired import Pair, PairedDataset, label_table, listed_pairs, read_split_list

TASKS = ("semantic",)

LAST_ID = 182
# Source: nightrome/cocostuff labels.txt: street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door,
# blender, hair brush occur in no image.
UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
# Source: nightrome/cocostuff labels.txt, ids 1..182 without the unused.
# fmt: off
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner",
    "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet",
    "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff",
    "dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower",
    "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves",
    "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement",
    "pillow", "plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river", "road", "rock",
    "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs",
    "stone", "straw", "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
    "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "waterdrops", "window-blind", "window-other", "wood",
)
# fmt: on


@dataclass(frozen=True)
class Options:
    """Where the data set lies."""

    root: str = option(..., "Folder with `images`, `annotations` and `imageLists`.", is_path=True)


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files listed for one split.

    Raises:
        DataError: missing list, image or annotation, or an empty split.
    """
    root = Path(options.root)
    names = read_split_list(root / "imageLists", split)
    pairs = [Pair(n, root / "images" / f"{n}.jpg", root / "annotations" / f"{n}.mat") for n in names]
    used = [label for label in range(1, LAST_ID + 1) if label not in UNUSED_IDS]
    table = label_table({0: IGNORE_INDEX} | {label: index for index, label in enumerate(used)})
    expected = f"COCO-Stuff v1.1 ids 0..{LAST_ID} without the eleven unused; v1.0 is numbered differently"
    return PairedDataset(CLASSES, listed_pairs(pairs), table, expected, _read_annotation)


def _read_annotation(path: Path) -> np.ndarray:
    return read_integer_matrix(path, "S")

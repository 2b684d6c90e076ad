"""Format `cityscapes`: fine annotations, 19 training classes.

    root/leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    root/gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png

`labels: labelTrainIds` reads the files that cityscapesScripts' createTrainIdLabelImgs makes instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.paired import Notes, PairedDataset, label_table
from edgekd.data.pairing import pairs_by_name

TASKS = ("semantic",)

# Source: cityscapesScripts helpers/labels.py: (id, name) in the order of trainId.
_TRAIN_LABELS = (
    (7, "road"),
    (8, "sidewalk"),
    (11, "building"),
    (12, "wall"),
    (13, "fence"),
    (17, "pole"),
    (19, "traffic light"),
    (20, "traffic sign"),
    (21, "vegetation"),
    (22, "terrain"),
    (23, "sky"),
    (24, "person"),
    (25, "rider"),
    (26, "car"),
    (27, "truck"),
    (28, "bus"),
    (31, "train"),
    (32, "motorcycle"),
    (33, "bicycle"),
)
CLASSES = tuple(name for _, name in _TRAIN_LABELS)
LAST_ID = 33


@dataclass(frozen=True)
class Options:
    """Where the data set lies and which label files to read."""

    root: str = option(..., "Folder with `leftImg8bit` and `gtFine`.", is_path=True)
    labels: Literal["labelIds", "labelTrainIds"] = option("labelIds", "Label files to read, by the end of their names.")


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files of one split; all ids without a training class are ignored.

    Raises:
        DataError: missing folder, empty split, or a file without partner.
    """
    root = Path(options.root)
    pairing = pairs_by_name(
        root / "leftImg8bit" / split, root / "gtFine" / split, "_leftImg8bit", f"_gtFine_{options.labels}"
    )
    # 255 is the license plate's id -1 stored in 8 bits.
    mapping = {IGNORE_INDEX: IGNORE_INDEX}
    if options.labels == "labelIds":
        mapping |= dict.fromkeys(range(LAST_ID + 1), IGNORE_INDEX)
        mapping |= {label_id: train_id for train_id, (label_id, _) in enumerate(_TRAIN_LABELS)}
        expected = f"Cityscapes ids 0..{LAST_ID}, or 255"
    else:
        mapping |= {index: index for index in range(len(CLASSES))}
        expected = f"train ids 0..{len(CLASSES) - 1}, or 255"
    notes = Notes(repairs=pairing.repairs)
    return PairedDataset(CLASSES, pairing.pairs, label_table(mapping), expected, notes=notes)

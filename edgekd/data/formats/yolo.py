"""Format `yolo`: a text file of boxes or polygons beside each image, and a data.yaml.

    root/data.yaml                                 names: {0: a, 1: b} or [a, b]; train, val (or valid): below root, or
                                                   below `path` in it, an image folder, a text file with an image's path
                                                   in each row, or a list of them
    root/images/<split>/<name>.jpg
    root/labels/<split>/<name>.txt                 rows `class xc yc w h`, or `class x1 y1 x2 y2 x3 y3 ...`

Coordinates are shares of width and height; 1 % beyond the image is cut there. An image without a text file, or with an
empty one, has no objects, but one image of the split must have a text file; those that belong to no image are counted.
Rows are told apart one by one: five numbers are a box, seven or more a polygon (other tools read five numbers as two
points as soon as a file holds one polygon). Equal rows count once. All values of data.yaml are read as text: the names
of `[1, yes, 2024-01-01]` are what stands there. Its aliases and merge keys are not read. With `kpt_shape: [n, d]` rows are a
box and n keypoints of d numbers, as for pose; the box is read.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

import numpy as np
import yaml

from edgekd.board.options import option
from edgekd.data.annotated import AnnotatedDataset, AnnotatedImage, Annotation, Refusals
from edgekd.data.coco_masks import Segmentation
from edgekd.data.images import upright_size
from edgekd.data.paired import checked_classes, images_below, is_showable, read_lines, require_folder
from edgekd.errors import DataError, did_you_mean, one_line

TASKS = ("detection", "instance")

_BEYOND = 0.01  # share of a side by which a coordinate may pass the edge


@dataclass(frozen=True)
class Options:
    """Where the data set lies."""

    root: str = option(..., "Folder with the images and the labels.", is_path=True)
    yaml: str = option("data.yaml", "File with the class names, below `root`.")


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the objects of one split.

    Raises:
        DataError: a missing or damaged file, no label file at all, a row that is neither a box nor a polygon or has a
            class that is not named, or a box where masks are asked for.
    """
    root = Path(options.root)
    path = root / options.yaml
    config = _read_yaml(path)
    classes, keypoints = _classes(config, path), _keypoint_numbers(config, path)
    sources = _sources(root, config, split, path)
    files = sorted({file for source in sources for file in _files(source, root, _base(root, config))})
    if not files:
        raise DataError(f"empty split: no image in {', '.join(map(str, sources))[:300]}")
    orphans = _orphans(files, split)
    # A list names part of a folder: other label files in it are no orphans.
    repairs = Counter({"label files without an image left out": 0 if any(map(_is_list, sources)) else orphans})
    base = sources[0] if len(sources) == 1 and not _is_list(sources[0]) else root
    refusals, images = Refusals(), []
    for file in files:
        with refusals.one():
            images.append(_annotated(file, base, classes, has_masks, repairs, refusals, keypoints))
    return AnnotatedDataset(classes, images, has_masks, repairs, refusals)


class _Text(yaml.BaseLoader):
    """PyYAML's loader that reads every value as text. It refuses aliases, with which ten lines can expand to an endless list."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases, *name, are not read; write the value out")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Text)  # noqa: S506 - makes text, lists and dicts only
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file, expected the class names; set data.options.yaml") from exc
    except (OSError, ValueError, OverflowError, yaml.YAMLError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as YAML ({one_line(exc)}); fix the file") from exc
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected keys names, train, val, got {type(config).__name__}; fix the file")
    return config


def _classes(config: Mapping[str, object], path: Path) -> tuple[str, ...]:
    names = config.get("names")
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path}: names: expected a list of class names, or 0: name, 1: name, ..., got {short(config.get('names'))}"
        )
    return checked_classes(names, f"{path}: names")


def _keypoint_numbers(config: Mapping[str, object], path: Path) -> int:
    """Return the number of keypoint values after the box in each row: 0 unless data.yaml has `kpt_shape`."""
    shape = config.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(re.fullmatch("[0-9]{1,4}", str(n)) for n in shape):
        raise DataError(f"{path}: kpt_shape: expected [keypoints, numbers of each], got {short(shape)}; fix it")
    return int(shape[0]) * int(shape[1])


def _sources(root: Path, config: Mapping[str, object], split: str, path: Path) -> list[Path]:
    """Return the folders of images and the lists of images that a split consists of."""
    root = _base(root, config)
    given = config.get(split) or (config.get("valid") if split == "val" else None)
    if not given:
        if (root / "images" / split).is_dir():
            return [root / "images" / split]
        known = [key for key in config if key in ("train", "val", "valid", "test")]
        raise DataError(f"{path}: no split {split!r}{did_you_mean(split, known)}; add `{split}: images/{split}`")
    sources = []
    for entry in given if isinstance(given, list) else [given]:
        if not isinstance(entry, str) or not is_showable(entry):
            raise DataError(f"{path}: {split}: expected folders or text files below {root}, got {short(entry)}; fix it")
        named = (root / name for name in (entry, entry.removeprefix("../")))
        source = next((one for one in named if os.path.isdir(one) or (_is_list(one) and os.path.isfile(one))), None)
        if source is None:
            raise DataError(f"{path}: {split}: no folder or text file {entry[:200]} below {root}; fix the path")
        sources.append(source)
    return sources


def _base(root: Path, config: Mapping[str, object]) -> Path:
    """Return the folder below root that data.yaml names as `path`, else root: the recipe's root has priority over the path on
    the machine where data.yaml was written."""
    path = config.get("path")
    if not isinstance(path, str) or not is_showable(path) or Path(path).is_absolute() or ".." in Path(path).parts:
        return root
    return root / path if os.path.isdir(root / path) else root


def _is_list(source: Path) -> bool:
    return source.suffix == ".txt"


def _files(source: Path, root: Path, base: Path) -> list[Path]:
    """Return the images in a folder, or in a text file whose paths start at root, at `base` or at the list's folder."""
    if not _is_list(source):
        require_folder(source, "image folder")
        return images_below(source)
    files, folders = [], (root, base, source.parent)
    for number, row in enumerate(read_lines(source, "image list"), 1):
        if not row:
            continue
        is_below = not Path(row).is_absolute() or Path(row).is_relative_to(root.absolute())
        if not is_showable(row) or ".." in Path(row).parts or not is_below:
            raise DataError(f"{source}, row {number}: expected an image's path below {root}, got {short(row)}; fix it")
        file = next((folder / row for folder in folders if os.path.isfile(folder / row)), None)
        if file is None:
            raise DataError(f"{source}, row {number}: no image {row[:200]} below {root}; fix the path")
        files.append(file)
    return files


def _labels_of(image: Path) -> Path:
    """Return the label file: the last folder called `images` replaced by `labels`."""
    parts = list(image.with_suffix(".txt").parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts)


def _orphans(files: list[Path], split: str) -> int:
    """Return the number of label files without an image; DataError when no image has one."""
    wanted = {_labels_of(file) for file in files}
    present = {path for folder in {path.parent for path in wanted} for path in folder.glob("*.txt")}
    if not wanted & present:
        raise DataError(
            f"no image of split {split!r} has a label file, expected {_labels_of(files[0])} for {files[0]}; "
            "rename or move the labels' folder, or add empty text files if there are no objects"
        )
    # LabelImg writes the class names into classes.txt.
    return sum(path.name != "classes.txt" and not path.name.startswith(".") for path in present - wanted)


def _annotated(
    file: Path,
    folder: Path,
    classes: tuple[str, ...],
    has_masks: bool,
    repairs: Counter[str],
    refusals: Refusals,
    keypoints: int,
) -> AnnotatedImage:
    path = _labels_of(file)
    name = _name(file, folder)
    lines = read_lines(path, "label file") if path.is_file() else []
    rows = [(number, tuple(row.split())) for number, row in enumerate(lines, 1) if row]
    if keypoints:
        rows = [(number, row[:5] if len(row) == 5 + keypoints else row) for number, row in rows]
    first = {row: number for number, row in reversed(rows)}  # row -> its first line number
    if len(first) < len(rows):
        repairs["equal rows counted once"] += len(rows) - len(first)
    if not first:
        return AnnotatedImage(name, file, None, ())
    height, width = upright_size(file)
    objects = []
    for row, number in sorted(first.items(), key=lambda item: item[1]):
        with refusals.one():
            objects.append(_object(row, number, path, classes, (height, width), has_masks))
    return AnnotatedImage(name, file, (height, width), tuple(objects), is_measured=True)


def _name(file: Path, folder: Path) -> str:
    """Return an image's name: its path below the folder, or the full path of an image elsewhere."""
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _object(
    row: tuple[str, ...], number: int, path: Path, classes: tuple[str, ...], size: tuple[int, int], has_masks: bool
) -> Annotation:
    where = f"{path}, row {number}"
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        raise DataError(
            f"{where}: expected `class xc yc w h` or `class x1 y1 x2 y2 x3 y3 ...`, got {len(row)} fields; fix the row"
        )
    label = row[0].removesuffix(".0")  # as spreadsheets write whole numbers
    if not (label.isascii() and label.isdecimal() and len(label) < 10) or int(label) >= len(classes):
        raise DataError(
            f"{where}: expected a class from 0 to {len(classes) - 1}, got {row[0][:40]!r}; fix it or add a name"
        )
    values = np.array([_share(text, where) for text in row[1:]])
    height, width = size
    if len(values) == 4:
        if has_masks:
            raise DataError(
                f"{where}: a box, expected a polygon for the task instance; use task detection, or outline it"
            )
        x, y, w, h = (values * [width, height, width, height]).tolist()
        return Annotation(int(label), (x - w / 2, y - h / 2, x + w / 2, y + h / 2), where)
    points = np.clip(values.reshape(-1, 2), 0, 1) * [width, height]
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    mask = Segmentation([points.flatten().tolist()]) if has_masks else None
    return Annotation(int(label), (x1, y1, x2, y2), where, mask)


def _share(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as exc:
        raise DataError(f"{where}: expected numbers, got {text[:40]!r}; fix the row") from exc
    if not math.isfinite(value) or not -_BEYOND <= value <= 1 + _BEYOND:
        raise DataError(
            f"{where}: expected shares of the image's sides in 0..1, got {text[:40]}; divide pixels by them"
        )
    return value

"""Format `yolo`: a text file of boxes or polygons beside each image, and a data.yaml.

    root/data.yaml                                 names: {0: a, 1: b} or [a, b]; train, val (or valid): below root, or
                                                   below `path` in it, an image folder, a text file with an image's path
                                                   in each row, or a list of them
    root/images/<split>/<name>.jpg
    root/labels/<split>/<name>.txt                 rows `class xc yc w h`, or `class x1 y1 x2 y2 x3 y3 ...`

`yaml` may also name a text file with one class name per line: LabelImg's and Label Studio's `classes.txt`, CVAT's and
darknet's `obj.names`. A split is then the folder `images/<split>`, or the list `<split>.txt`. The split `all` is every image
below `images` or, where there is no such folder, below `root`.

Coordinates are shares of width and height; 1 % beyond the image is cut there. An image without a text file, or with an
empty one, has no objects, but one image of the split must have a text file; those that belong to no image are counted.
Rows are told apart one by one: five numbers are a box, six a box with a confidence, which is left out, seven or more a
polygon (other tools read five numbers as two points as soon as a file holds one polygon). All values of data.yaml are read
as text: the names of `[1, yes, 2024-01-01]` are what stands there. Its aliases and merge keys are not read. With
`kpt_shape: [n, d]` rows are a box and n keypoints of d numbers, as for pose; the box is read. For the task `semantic` polygons
are drawn into a class map, where several cover a pixel the one of fewer pixels.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

import yaml

from edgekd.board.options import option
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import (
    BEYOND_EDGE,
    CLASSES,
    AnnotatedImage,
    BeyondEdge,
    chosen_classes,
)
from edgekd.data.base import WHOLE
from edgekd.data.class_lists import named_classes
from edgekd.data.drawn import BACKGROUND, DrawnDataset
from edgekd.data.images import upright_size
from edgekd.data.paired import checked_classes, images_below, is_showable, read_lines, require_folder
from edgekd.data.yolo_rows import Reading, read_row
from edgekd.errors import DataError, did_you_mean, one_line

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Where the data set lies."""

    root: str = option(..., "Folder with the images and the labels.", is_path=True)
    yaml: str = option(
        "data.yaml", "File with the class names, below `root`: a data.yaml, or a text file with one name per line."
    )
    classes: tuple[str, ...] | str = option((), f"{CLASSES} Empty: all names of `yaml`.", names_classes=True)
    beyond_edge: BeyondEdge = option("refuse", BEYOND_EDGE)
    background: str | None = option("background", BACKGROUND)


def open_dataset(options: Options, split: str) -> DrawnDataset:
    """Read the objects of one split and draw their class maps when they are loaded; errors as `open_objects` with masks."""
    return DrawnDataset(open_objects(options, split, has_masks=True), options.background)


def open_objects(options: Options, split: str, has_masks: bool) -> AnnotatedDataset:
    """Read the objects of one split.

    Raises:
        DataError: a missing or damaged file, no label file at all, a row that is neither a box nor a polygon or has a
            class that is not named, or a box where masks are asked for.
    """
    root = Path(options.root)
    path = root / options.yaml
    config = _read_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else {"names": _names_in(path)}
    names = _classes(config, path)
    classes = chosen_classes(root, options.classes, names, f"{path}: names")
    sources = _sources(root, config, split, path)
    files = sorted({file for source in sources for file in _files(source, root, _base(root, config))})
    if not files:
        raise DataError(f"empty split: no image in {', '.join(map(str, sources))[:300]}")
    orphans = _orphans(files, split)
    # A list names part of a folder: other label files in it are no orphans.
    repairs = Counter({"label files without an image left out": 0 if any(map(_is_list, sources)) else orphans})
    labels = [classes.index(name) if name in classes else None for name in names]
    reading = Reading(labels, has_masks, _keypoint_numbers(config, path), options.beyond_edge == "cut")
    base = sources[0] if len(sources) == 1 and not _is_list(sources[0]) else root
    images = []
    for file in files:
        with reading.refusals.one():
            images.append(_annotated(file, base, reading))
    return AnnotatedDataset(classes, images, has_masks, repairs, reading.refusals, options.beyond_edge)


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


def _names_in(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected the class names; set data.options.yaml")
    return list(named_classes(path.parent, path.name))


def _classes(config: Mapping[str, object], path: Path) -> tuple[str, ...]:
    names = config.get("names")
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path}: names: expected a list of class names, or 0: name, 1: name, ..., got {short(config.get('names'))}"
        )
    if "nc" in config and str(config["nc"]).strip() != str(len(names)):
        raise DataError(f"{path}: nc is {short(config['nc'])}, and names has {len(names)} classes; fix one of them")
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
        usual = [root / "images" / split, root / f"{split}.txt"]
        if split == WHOLE:
            usual += [root / "images", root]
        found = [source for source in usual if source.is_dir() or (_is_list(source) and source.is_file())]
        if found:
            return found[:1]
        known = [key for key in config if key in ("train", "val", "valid", "test")]
        raise DataError(f"{path}: no split {split!r}{did_you_mean(split, known)}; add `{split}: images/{split}`")
    sources = []
    for entry in given if isinstance(given, list) else [given]:
        if not isinstance(entry, str) or not is_showable(entry):
            raise DataError(f"{path}: {split}: expected folders or text files below {root}, got {short(entry)}; fix it")
        named = (root / name for name in _places(entry, config.get("path")))
        source = next((one for one in named if os.path.isdir(one) or (_is_list(one) and os.path.isfile(one))), None)
        if source is None:
            raise DataError(f"{path}: {split}: no folder or text file {entry[:200]} below {root}; fix the path")
        sources.append(source)
    return sources


def _places(entry: str, base: object) -> list[str]:
    """Return where a source of data.yaml can lie below root: as written, without `..` in front, and below its own `path`."""
    places = [entry, re.sub(r"^(\.\./)+", "", entry)]
    if isinstance(base, str) and base and Path(entry).is_absolute() and Path(entry).is_relative_to(base):
        places.append(Path(entry).relative_to(base).as_posix())
    return places


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
        # CVAT's lists begin with data/, which is no folder of its export.
        paths = [folder / path for path in (row, row.removeprefix("data/")) for folder in folders]
        file = next((path for path in paths if os.path.isfile(path)), None)
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


def _annotated(file: Path, folder: Path, reading: Reading) -> AnnotatedImage:
    path = _labels_of(file)
    name = _name(file, folder)
    lines = read_lines(path, "label file") if path.is_file() else []
    rows = [(number, row.split()) for number, row in enumerate(lines, 1) if row]
    if not rows:
        return AnnotatedImage(name, file, None, ())
    repairs: Counter[str] = Counter()
    size = upright_size(file)
    objects = []
    for number, row in rows:
        with reading.refusals.one():
            one = read_row(row, f"{path}, row {number}", size, reading, repairs)
            objects += [one] if one else []
    return AnnotatedImage(name, file, size, tuple(objects), repairs, is_measured=True)


def _name(file: Path, folder: Path) -> str:
    """Return an image's name: its path below the folder, or the full path of an image elsewhere."""
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

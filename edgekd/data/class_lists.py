"""Class lists as people and labelling tools write them: names, stored values, colours.

| file | content of a line |
|---|---|
| plain list | a name |
| labelme's labels.txt | a name; the first line is `__ignore__`, whose index is -1 |
| CVAT's labelmap.txt | name:r,g,b:parts:actions |
| CamVid's label_colors.txt | r g b name |
| Roboflow's _classes.csv and other tables | value,name or name,r,g,b or name,#rrggbb, with or without a header |
| numbered list | value name, or value: name |
| JSON | a list of names; {name: value}, {value: name}, {name: [r, g, b]}; a list of objects with name and value or color |

Lines that begin with `#` are comments, except in a plain list, where they are refused: they would be classes.
Source: labelme, examples/semantic_segmentation/labelme2voc.py; docs.cvat.ai, "Segmentation Mask"; Roboflow, "Semantic
Segmentation Masks" export; Supervisely, obj_class_to_machine_color.json.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.data.paired import checked_classes, read_lines
from edgekd.errors import DataError, one_line

IGNORED = "__ignore__"  # labelme's name of pixels without a label
KNOWN_FILES = ("labelmap.txt", "_classes.csv", "labels.txt", "class_names.txt", "label_colors.txt", "class_dict.csv")


@dataclass(frozen=True)
class Listed:
    """One class of a list: its name, the value that masks store for it, its colour 0xRRGGBB; None where the list has none."""

    name: str
    value: int | None = None
    color: int | None = None


@dataclass(frozen=True)
class ClassList:
    """The classes of one file. `kind` says in words what the file is; "" for a plain list of names."""

    kind: str
    classes: tuple[Listed, ...]


def named_classes(root: Path, classes: Sequence[str] | str, tools: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the classes of an option `classes`: names, or a text file below `root` with one per line.

    Args:
        root: folder of the data set.
        classes: names, or the file.
        tools: the format's options that read lists of values and colours: `labels`, `colors`.

    Raises:
        DataError: as `checked_classes`, no such file, or a file that holds more than names.
    """
    if not isinstance(classes, str):
        return checked_classes(classes, "data.options.classes")
    path = root / classes
    if root.is_dir() and not path.exists():
        found = ", ".join(sorted(str(one.relative_to(root)) for name in KNOWN_FILES for one in _near(root, name))[:4])
        hint = f"; {root} holds {found}" if found else ""
        raise DataError(
            f"class list {path} does not exist: write it, one name per line, or give the names in the recipe, "
            f"data.options.classes: [background, car]{hint}"
        )
    listed = read_class_list(path, only_names=True)
    if listed.kind:
        names = ", ".join(one.name for one in listed.classes if one.name != IGNORED)
        has = {
            "labels": any(one.value is not None for one in listed.classes),
            "colors": any(one.color is not None for one in listed.classes),
        }
        ways = [f"`data.options.{key}: {classes}`" for key in tools if has[key]]
        ways.append(f"data.options.classes: [{names if len(names) <= 200 else names[:200] + '...'}]")
        raise DataError(f"{path}: {listed.kind}, expected one class name per line; write {' or '.join(ways)}")
    return checked_classes((one.name for one in listed.classes), str(path))


def listed_names(root: Path, classes: Sequence[str] | str) -> tuple[str, ...]:
    """Return the classes of an option `classes` of labels that name their class: names, or a list of any kind below `root`.

    Values and colours in the list are not used. labelme's `__ignore__` is left out.

    Raises:
        DataError: as `checked_classes`, no such file, or one that is not understood.
    """
    if not isinstance(classes, str):
        return checked_classes(classes, "data.options.classes")
    listed = read_class_list(root / classes).classes
    return checked_classes((one.name for one in listed if one.name != IGNORED), str(root / classes))


def stored_values(path: Path) -> dict[int, str | None]:
    """Return stored value -> class name of a list, in ascending order; None is the name of labelme's `__ignore__`.

    Raises:
        DataError: no such file, one that is not understood, a class without a value, or a value listed twice.
    """
    listed = read_class_list(path)
    values: dict[int, str | None] = {}
    for index, one in enumerate(listed.classes):
        value = one.value if listed.kind else index
        if value is None:
            raise DataError(f"{path}: {listed.kind}: class {one.name!r} has no value; write data.options.colors")
        if value in values:
            raise DataError(f"{path}: value {value} is listed twice, for {values[value]!r} and {one.name!r}; fix one")
        values[value] = None if one.name == IGNORED else one.name
    return dict(sorted(values.items()))


def stored_colors(path: Path) -> dict[str, str | None]:
    """Return colour "#rrggbb" -> class name of a list, in its order.

    Raises:
        DataError: no such file, one that is not understood, a class without a colour, or a colour listed twice.
    """
    listed = read_class_list(path)
    colors: dict[str, str | None] = {}
    for one in listed.classes:
        if one.color is None:
            raise DataError(
                f"{path}: {listed.kind or 'a plain list of names'}: class {one.name!r} has no colour, expected a list "
                "like CVAT's labelmap.txt (name:r,g,b::); write data.options.labels or classes for masks without colours"
            )
        color = f"#{one.color:06x}"
        if color in colors:
            raise DataError(
                f"{path}: {colors[color]!r} and {one.name!r} have one colour, {color}: masks cannot tell them apart; "
                "remove one from the list, or give it another colour and export again"
            )
        colors[color] = None if one.name == IGNORED else one.name
    return colors


def read_class_list(path: Path, only_names: bool = False) -> ClassList:
    """Read a list of classes in any of the module's kinds.

    Raises:
        DataError: no such file, JSON without classes, or a line of a plain list that is no name: with `only_names` also a
            comment.
    """
    lines = read_lines(path, "class list")
    text = "\n".join(lines).strip()
    if text[:1] in ("{", "["):
        return _from_json(text, path)
    filled = [line for line in lines if line and not _is_comment(line)]
    for kind, reader in _KINDS:
        listed = reader(filled)
        if listed:
            return ClassList(kind, _checked(listed, path))
    names = lines if only_names else filled
    _check_plain(names, path)
    return ClassList("", tuple(Listed(line) for line in names))


def _near(root: Path, name: str) -> list[Path]:
    return [*root.glob(name), *root.glob(f"*/{name}")]


def _is_comment(line: str) -> bool:
    return line.startswith(("#", "//", ";")) and not re.match("#[0-9a-fA-F]{6}\\b", line)


def _checked(listed: Iterable[Listed], path: Path) -> tuple[Listed, ...]:
    classes = tuple(listed)
    for one in classes:
        if not one.name.strip():
            raise DataError(f"{path}: a class has no name (value {one.value}); name it")
        if one.color is not None and not 0 <= one.color <= 0xFFFFFF:
            raise DataError(f"{path}: class {one.name!r}: expected a colour of three numbers 0..255; fix the list")
    return classes


def _check_plain(lines: Sequence[str], path: Path) -> None:
    """Check that lines are class names; DataError with the first that is none."""
    for number, line in enumerate(lines, 1):
        what = ""
        if _is_comment(line) or re.search(r"\s(#|//)", line):
            what = "a comment"
        elif re.search(_NO_NAME, line):
            what = "a line of another file format"
        elif number == 1 and _is_header(line):
            what = "a header"
        elif len(lines) == 1 and len(_fields(line)) > 1:
            what = "several names"
        elif line == IGNORED:
            what = "labelme's name of ignored pixels, which is read as the first line"
        if what:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is {what}, expected one class name per line and nothing else; "
                "remove it, or give the names in data.options.classes: [background, car]"
            )


def _is_header(line: str) -> bool:
    """Whether a first line names columns. One word alone has to be one of a few: `title` is a class of documents."""
    first, *others = (field.lower() for field in _fields(line))
    return first in (*_NAMES, *_VALUES) if others else first in ("classes", "names", "labels", *_NAMES[:6])


def _fields(line: str) -> list[str]:
    return [field.strip() for field in re.split("[,;\t]", line)]


def _packed(red: Any, green: Any, blue: Any) -> int:
    """Return 0xRRGGBB, or -1 for what is no colour."""
    parts = [int(red), int(green), int(blue)]
    return parts[0] << 16 | parts[1] << 8 | parts[2] if all(0 <= part <= 255 for part in parts) else -1


def _labelme(lines: Sequence[str]) -> list[Listed]:
    if not lines or lines[0] != IGNORED:
        return []
    return [Listed(name, index - 1) for index, name in enumerate(lines)]


def _by_pattern(pattern: str) -> Callable[[Sequence[str]], list[Listed]]:
    """Return a reader of lines that all match a pattern with the groups name, and value, or r, g, b, or hex."""

    def read(lines: Sequence[str]) -> list[Listed]:
        listed = []
        for line in lines:
            match = re.fullmatch(pattern, line)
            if not match:
                return []
            found = {"value": None, "r": None, "hex": None, **match.groupdict()}
            color = int(found["hex"], 16) if found["hex"] else None
            if found["r"]:
                color = _packed(found["r"], found["g"], found["b"])
            value = None if found["value"] is None else int(found["value"])
            listed.append(Listed(str(found["name"]).strip().strip('"'), value, color))
        return listed

    return read


def _numbered(lines: Sequence[str]) -> list[Listed]:
    """Read `0 background`, `1 road`: values in a row from 0 or 1, so that `2 wheeler`, `4 wheeler` stay names."""
    listed = _by_pattern(rf"(?P<value>\d{{1,5}})\s+(?P<name>{_NAME})")(lines)
    values = [one.value for one in listed]
    return listed if values in (list(range(len(values))), list(range(1, len(values) + 1))) else []


def _table(lines: Sequence[str]) -> list[Listed]:
    """Read comma-, semicolon- or tab-separated rows under a header that names the columns."""
    if not lines:
        return []
    separator = next((one for one in ",;\t" if one in lines[0]), ",")
    rows = [[field.strip() for field in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
    header = [field.lower() for field in rows[0]]
    columns = {key: next((header.index(word) for word in words if word in header), None) for key, words in _COLUMNS}
    name = columns["name"]
    # A quotation mark that is not closed joins lines.
    if name is None or len(header) < 2 or len(rows) != len(lines) or any(len(row) != len(header) for row in rows):
        return []
    listed = []
    for row in rows[1:]:
        cells = {key: row[at] if at is not None else "" for key, at in columns.items()}
        has_rgb = all(re.fullmatch(r"\d{1,3}", cells[key]) for key in "rgb")
        shade = re.fullmatch("#?([0-9a-fA-F]{6})", cells["color"])
        color = _packed(*(cells[key] for key in "rgb")) if has_rgb else int(shade[1], 16) if shade else None
        listed.append(
            Listed(row[name], int(cells["value"]) if re.fullmatch(r"-?\d{1,5}", cells["value"]) else None, color)
        )
    return listed


# Quotes, brackets, a YAML list's dash, an open block, a number or a colour beside a name: a line that is no name alone.
_NO_NAME = r"""^["'{}\[\]<]|^- |[{}:]$|^-?\d+\s*[,;:=\t]|\d\s*,\s*\d{1,3}\s*,\s*\d"""
_NAME = r"[^\s,;:].*?"
_RGB = r"(?P<r>\d{1,3})\s*[,;\s]\s*(?P<g>\d{1,3})\s*[,;\s]\s*(?P<b>\d{1,3})"
_NAMES = ("name", "class_name", "class name", "class", "label", "category", "label_name", "title")
_VALUES = ("pixel value", "pixel_value", "value", "pixel", "id", "index", "class_id", "class id", "label_id", "idx")
_COLUMNS = (
    ("name", _NAMES),
    ("value", _VALUES),
    ("color", ("color", "colour", "hex", "hex_color")),
    *((letter, (letter, word)) for letter, word in (("r", "red"), ("g", "green"), ("b", "blue"))),
)
_KINDS: tuple[tuple[str, Callable[[Sequence[str]], list[Listed]]], ...] = (
    ("labelme's labels.txt, whose first line is the index -1", _labelme),
    ("CVAT's labelmap.txt with colours", _by_pattern(rf"(?P<name>.+?)\s*:\s*{_RGB}\s*(:[^:]*){{0,2}}")),
    ("a table of classes under a header", _table),
    ("a list of colours and names", _by_pattern(rf"{_RGB}\s*[,;\s]\s*(?P<name>{_NAME})")),
    ("a list of names and colours", _by_pattern(rf"(?P<name>{_NAME})\s*[,;\s]\s*{_RGB}")),
    ("a list of names and colours", _by_pattern(rf"(?P<name>{_NAME})\s*[,;:\s]\s*#(?P<hex>[0-9a-fA-F]{{6}})")),
    ("a list of colours and names", _by_pattern(rf"#(?P<hex>[0-9a-fA-F]{{6}})\s*[,;:\s]\s*(?P<name>{_NAME})")),
    ("a numbered list", _by_pattern(rf"(?P<value>-?\d{{1,5}})\s*[,;:\t]\s*(?P<name>{_NAME})")),
    ("a numbered list", _by_pattern(rf"(?P<name>{_NAME})\s*[,;:=\t]\s*(?P<value>-?\d{{1,5}})")),
    ("a numbered list", _numbered),
)


def _from_json(text: str, path: Path) -> ClassList:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as JSON ({one_line(exc)}); fix the file") from exc
    if isinstance(content, dict):
        lists = [
            content[key] for key in ("categories", "classes", "labels", "names") if isinstance(content.get(key), list)
        ]
        content = lists[0] if lists else content
    if isinstance(content, list) and all(isinstance(entry, str) for entry in content):
        return ClassList("", tuple(Listed(name) for name in content))
    entries = (
        [_entry(key, one) for key, one in content.items()]
        if isinstance(content, dict)
        else [_object(one) for one in content]
    )
    if not entries or any(entry is None for entry in entries):
        raise DataError(
            f"{path}: not understood as classes, expected a list of names, {{name: value}} or {{name: [r, g, b]}}; write "
            "the names in data.options.classes: [background, car]"
        )
    return ClassList("JSON with values or colours", _checked((entry for entry in entries if entry), path))


def _entry(key: str, one: Any) -> Listed | None:
    """Return the class of `"name": value`, `"value": name` or `"name": colour`; None for anything else."""
    if _is_whole(one):
        return Listed(key, one)
    if isinstance(one, str) and re.fullmatch(r"-?\d{1,5}", key):
        return Listed(one, int(key))
    value, color = _color(one)
    return None if color is None else Listed(key, value, color)


def _object(one: Any) -> Listed | None:
    """Return the class of an object with a name, and a value or a colour; None for anything else."""
    if not isinstance(one, dict):
        return None
    name = next(
        (one[key] for key in ("title", "class_name", "readable", *_NAMES) if isinstance(one.get(key), str)), None
    )
    value = next((one[key] for key in ("png_index", *_VALUES) if _is_whole(one.get(key))), None)
    color = next((_color(one[key])[1] for key in ("color", "colour", "rgb") if key in one), None)
    return None if name is None or (value is None and color is None) else Listed(name, value, color)


def _color(one: Any) -> tuple[int | None, int | None]:
    """Return value and colour of `[r, g, b]` or `"#rrggbb"`, None for each it is not; `[3, 3, 3]` is also the value 3."""
    if isinstance(one, str) and re.fullmatch("#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?", one):
        return None, int(one[1:7], 16)
    if isinstance(one, list) and len(one) in (3, 4) and all(_is_whole(part) for part in one):
        return one[0] if one[0] == one[1] == one[2] else None, _packed(*one[:3])
    return None, None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 65535

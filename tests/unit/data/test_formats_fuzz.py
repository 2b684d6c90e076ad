"""Whole annotation files made up at random: whatever stands in them, a set is read to its end or refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import category
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.data.check import check_dataset
from edgekd.data.coco_masks import Segmentation
from edgekd.data.fingerprint import fingerprint
from edgekd.data.formats import coco, voc, yolo
from edgekd.errors import EdgekdError

HEIGHT, WIDTH = 4, 8
QUICK = settings(
    max_examples=300,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LETTERS = st.text(st.characters(codec="utf-8"), max_size=6)
# JSON has no surrogates but as escapes, and json writes and reads them; 10^400 is beyond floats, 2^63 beyond int64.
NUMBERS = (
    st.integers(-2, 40) | st.floats() | st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**9, 10**18, 10**400, -(10**4000)])
)
SCALARS = (
    st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(["a.png", "P1", "522000?", "../a"])
)
KEYS = st.sampled_from(["size", "counts", "id", "bbox", "a"]) | st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)


def read(module: Any, root: Path, has_masks: bool) -> bool:
    """Open and read all of a set and return whether it was taken; what is raised must be ours, and one line."""
    try:
        dataset = module.open_objects(module.Options(str(root)), "train", has_masks)
        fingerprint(dataset, "train")
        report = check_dataset(dataset, "train")
    except EdgekdError as exc:
        refusals = [str(exc)]
    else:
        assert all(type(count) is int and count > 0 for count in dataset.repairs.values())
        refusals = [one.text for one in report.findings if one.code == "unreadable"]
    for said in refusals:
        assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(category, said))  # no control, no lone surrogate, no line break
        assert len(said) < 1000
    return not refusals


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))


def flat(points: list[tuple[float, float]]) -> list[float]:
    return [value for point in points for value in point]


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = ANYTHING) -> st.SearchStrategy[Any]:
    """Return good values but for one in twenty-five: otherwise no example would come past the first check."""
    return st.integers(0, 24).flatmap(lambda dice: bad if dice == 7 else good)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a document as its container and its key there."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def changed(tree: Any, changes: list[tuple[int, Any]]) -> Any:
    """Return a document with other values at some of its places, or with nothing there where the value is GONE."""
    tree = copy.deepcopy(tree)
    for number, value in changes:
        found = list(places(tree))
        if found:
            container, key = found[number % len(found)]
            if value is GONE:
                del container[key]
            else:
                container[key] = value
    return tree


GONE = object()
CHANGES = st.lists(st.tuples(st.integers(0, 9999), NUMBERS | SCALARS | ANYTHING | st.just(GONE)), max_size=2)
POINT = st.integers(0, WIDTH) | st.floats(-1, 4)
RUNS = st.lists(st.integers(0, 8), max_size=6).map(lambda runs: [*runs, max(0, HEIGHT * WIDTH - sum(runs))])
SHAPES = (
    st.none()
    | st.lists(st.lists(st.tuples(POINT, st.integers(0, HEIGHT)), min_size=3, max_size=5).map(flat), max_size=3)
    | st.fixed_dictionaries({"size": st.just([HEIGHT, WIDTH]), "counts": RUNS | st.sampled_from(["P1", "522000?"])})
)
OBJECTS = st.fixed_dictionaries(
    {
        "image_id": st.integers(1, 3),
        "category_id": st.integers(1, 3),
        "bbox": st.tuples(st.floats(-1, 4), st.integers(0, 2), st.integers(0, 4), st.integers(0, 2)).map(list),
        "area": st.none() | st.integers(0, 40),
        "iscrowd": st.integers(0, 1),
        "segmentation": SHAPES,
    }
)
FILES = ("a.png", "b.png", "c/d.png")
COCO = st.lists(OBJECTS, max_size=4).map(
    lambda objects: {
        "annotations": [{"id": number, **each} for number, each in enumerate(objects)],
        "images": [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(FILES, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate("xyz", 1)],
    }
)


@pytest.mark.slow
@QUICK
@given(content=COCO, changes=CHANGES, has_masks=st.booleans())
def test_any_coco_file_is_read_or_refused(tmp_path: Path, content: Any, changes: Any, has_masks: bool) -> None:
    for name in FILES:
        image(tmp_path / "train" / name)
    text(tmp_path / "annotations/instances_train.json", json.dumps(changed(content, changes)))
    read(coco, tmp_path, has_masks)


@pytest.mark.parametrize("place", ["segmentation", "bbox", "image_id"])
def test_a_coco_file_nested_as_deeply_as_can_be_read_is_refused(tmp_path: Path, place: str) -> None:
    """Some depth is just read by JSON's reader, and no later step gives out at it."""
    image(tmp_path / "train/a.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 1, 2, 2]]}
    parts = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [entry | {place: "DEEP"}],
    }
    for depth in range(800, 1000):
        content = json.dumps(parts).replace('"DEEP"', "[" * depth + "]" * depth)
        text(tmp_path / "annotations/instances_train.json", content)
        assert not read(coco, tmp_path, True)


def test_a_mask_that_cannot_be_written_is_damaged() -> None:
    shape: list[Any] = []
    for _ in range(100_000):
        shape = [shape]
    with pytest.raises(ValueError, match="lists in lists without end"):
        Segmentation(shape).content()


ROWS = st.builds(
    lambda label, numbers: " ".join([label, *numbers]),
    mostly(st.sampled_from(["0", "1"]), LETTERS | st.integers().map(str)),
    st.lists(
        mostly(st.floats(0, 1).map(str), st.floats().map(str) | LETTERS | st.sampled_from(["1" * 5000, "1_0", "١"])),
        min_size=4,
        max_size=8,
    ),
)
YOLO_LABELS = st.lists(mostly(ROWS, LETTERS), max_size=4).map("\n".join)


@pytest.mark.slow
@QUICK
@given(labels=mostly(YOLO_LABELS, st.text(max_size=40)), has_masks=st.booleans())
def test_any_yolo_labels_are_read_or_refused(tmp_path: Path, labels: str, has_masks: bool) -> None:
    image(tmp_path / "images/train/a.png")
    text(tmp_path / "data.yaml", "names: [a, b]")
    text(tmp_path / "labels/train/a.txt", labels)
    read(yolo, tmp_path, has_masks)


NAMES = st.lists(LETTERS, max_size=3) | st.dictionaries(st.integers(-1, 3) | LETTERS, LETTERS, max_size=3)
CONFIGS = st.dictionaries(
    st.sampled_from(["names", "train", "val", "path", "nc"]) | LETTERS,
    mostly(NAMES | st.sampled_from(["images/train", "../images/train", "images", ".", "/", ""])),
    max_size=5,
)
# What YAML's grammar knows, put together at random.
YAML_TEXT = st.lists(
    st.sampled_from(
        [
            *(
                "names",
                "train",
                "images/train",
                "a",
                "0",
                "1",
                ": ",
                ":",
                "- ",
                "\n",
                "\n  ",
                " ",
                ",",
                "[",
                "]",
                "{",
                "}",
            ),
            *(
                "? ",
                "| ",
                ">-\n",
                "'",
                '"',
                "# ",
                "---\n",
                "...\n",
                "%YAML 1.1\n",
                "%YAML 99999999.1\n",
                "%TAG ! tag:x,2:\n",
            ),
            *(
                "&a ",
                "*a",
                "<<: ",
                "!!int ",
                "!!float ",
                "!!binary ",
                "!!set ",
                "!!omap ",
                "!!python/name:os.system ",
                "!<x> ",
            ),
            *(
                "! ",
                "1:" * 200 + "1.5",
                "0x",
                "0b",
                "1e999",
                ".nan",
                "~",
                "\t",
                "\\U",
                "\\xFFFFFFFF",
                "\\UFFFFFFFF",
                "\\ud800",
                "\u2028",
                "\x00",
            ),
        ]
    ),
    max_size=14,
).map("".join)


@QUICK
@given(
    config=mostly(CONFIGS).map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))
    | YAML_TEXT
    | st.text(max_size=30),
    starts=st.sampled_from(["", "names: [a, b]\n", "names: ", "names:\n"]),
)
def test_any_yolo_config_is_read_or_refused(tmp_path: Path, config: str, starts: str) -> None:
    image(tmp_path / "images/train/a.png")
    text(tmp_path / "labels/train/a.txt", "0 0.5 0.5 0.5 0.5")
    text(tmp_path / "data.yaml", starts + config)
    read(yolo, tmp_path, False)


TAGS = st.sampled_from(
    [
        "size",
        "width",
        "height",
        "object",
        "name",
        "bndbox",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "difficult",
        "filename",
        "x",
    ]
)
VALUES = (
    st.sampled_from(["8", "4", "1", "cat", "nan", "1e400", "9" * 400, "-1", "../b.png", "b.png", "", "\x85"]) | LETTERS
)
BOX = {"xmin": st.integers(1, 8), "ymin": st.integers(1, 4), "xmax": st.integers(1, 8), "ymax": st.integers(1, 4)}
OBJECT = st.fixed_dictionaries(
    {
        "name": mostly(st.sampled_from(["cat", "dog"]), VALUES),
        "difficult": mostly(st.integers(0, 1), VALUES),
        "bndbox": st.fixed_dictionaries({key: mostly(value, VALUES) for key, value in BOX.items()}),
    }
)
LEAVES = st.dictionaries(TAGS, VALUES, max_size=4)
TREES = st.fixed_dictionaries(
    {
        "filename": mostly(st.sampled_from(["b.png", "a.jpg"]), VALUES),
        "size": mostly(st.just({"width": "8", "height": "4"}), LEAVES),
        "object": st.lists(mostly(OBJECT, LEAVES), max_size=3),
    }
)


def node(tag: str, content: Any) -> ElementTree.Element:
    """Return an element: of a mapping the children by tag, of a list in it one for each entry, of anything else text."""
    made = ElementTree.Element(tag)
    if isinstance(content, Mapping):
        for name, inner in content.items():
            made.extend(node(name, one) for one in (inner if isinstance(inner, list) else [inner]))
    else:
        made.text = str(content)
    return made


@pytest.mark.slow
@QUICK
@given(
    tree=mostly(TREES, st.recursive(VALUES, lambda inner: st.dictionaries(TAGS, inner, max_size=3), max_leaves=8)),
    listed=mostly(st.just("a"), LETTERS),
    has_jpg=st.booleans(),
)
def test_any_voc_file_is_read_or_refused(tmp_path: Path, tree: Any, listed: str, has_jpg: bool) -> None:
    image(tmp_path / "JPEGImages/b.png")
    image(tmp_path / "b.png")
    image(tmp_path / "JPEGImages/a.jpg")
    if not has_jpg:
        (tmp_path / "JPEGImages/a.jpg").unlink()
    text(tmp_path / "ImageSets/Main/train.txt", listed + "\n")
    text(tmp_path / "Annotations/a.xml", ElementTree.tostring(node("annotation", tree), encoding="unicode"))
    read(voc, tmp_path, False)

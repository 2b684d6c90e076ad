"""Annotation files made to break their reader: each is refused in one short line that any terminal can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekd.data.formats import coco, voc, yolo
from edgekd.errors import DataError

OBJECT = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6]]}
# Nine levels of ten aliases: 10^9 entries once they are written out.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


def refusal(module: Any, root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        module.open_objects(module.Options(str(root), **options), "train", module is coco).load(0)
    said = str(caught.value).replace(str(root), "ROOT")
    assert said.isprintable()  # no line break, no escape sequence, no lone surrogate
    assert len(said) < 500
    return said


def write_coco(root: Path, **change: Any) -> Path:
    """Write one image, one category and one annotation; `change` goes to the one that has the key."""
    for folder in ("annotations", "train"):
        (root / folder).mkdir()
    Image.new("RGB", (40, 30)).save(root / "train/a.png")
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 40}
    category = {"id": 3, "name": "cell"}
    parts = {"images": [image], "categories": [category], "annotations": [OBJECT]}
    for key, value in change.items():
        part = next(
            name for name, (entry,) in parts.items() if key in entry or (key in ("area", "iscrowd") and entry is OBJECT)
        )
        parts[part] = [{**parts[part][0], key: value}]
    (root / "annotations/instances_train.json").write_text(json.dumps(parts))
    return root


COCO = {
    "name longer than a file system has": ({"file_name": "a" * 5000}, "images are missing"),
    "file name of two lines": ({"file_name": "a\nb.png"}, "expected file_name below"),
    "file name that is half a letter": ({"file_name": "\ud800.png"}, "expected file_name below"),
    "class name of two lines": ({"name": "a\nb"}, "control characters"),
    "class name that is half a letter": ({"name": "\ud800"}, "control characters"),
    "class without a name": ({"name": None}, "expected a name"),
    "negative area": ({"area": -5}, "0 or more"),
    "coordinate beyond floats": ({"segmentation": [[10**400] * 6]}, "expected points of finite numbers"),
    "coordinate that is no number": ({"segmentation": [[float("nan")] * 6]}, "expected points of finite numbers"),
    "run beyond integers": ({"segmentation": {"size": [30, 40], "counts": [10**4000]}}, "add up to"),
    "nested deeply": ({"segmentation": json.loads("[" * 80 + "]" * 80)}, "x and y in turn"),
    "width beyond floats": ({"width": 10**400}, "expected height and width from 1 to 1000000"),
    "width beyond images": ({"width": 10**6 + 1}, "got 30 and 1000001"),
    "width of nothing": ({"width": 0}, "got 30 and 0"),
    "negative height": ({"height": -30}, "got -30 and 40"),
    "height that is no number": ({"height": float("nan")}, "got nan and 40"),
    "height that is a truth": ({"height": True}, "got True and 40"),
    "image id beyond integers": ({"file_name": "b.png", "id": 10**4000}, "image id: expected a whole number"),
    "image_id beyond integers": ({"image_id": 10**4000}, "no image has id 1000"),
    "image_id of two lines": ({"image_id": "a\nb"}, "no image has id 'a"),
    "image_id that is a truth": ({"image_id": True}, "no image has id True"),
    "category_id beyond integers": ({"category_id": 10**4000}, "no category has id 1000"),
    "category_id that is infinite": ({"category_id": float("inf")}, "no category has id inf"),
    "box beyond floats": ({"bbox": [10**400, 1, 5, 5]}, "expected 4 finite numbers"),
    "box of two lines": ({"bbox": "a\nb"}, "expected 4 finite numbers"),
    "area beyond floats": ({"area": 10**400}, "expected 1 finite numbers"),
    "area that is no number": ({"area": float("nan")}, "expected 1 finite numbers"),
    "crowd beyond floats": ({"iscrowd": 10**400}, "expected 0 or 1"),
    "crowd that is no number": ({"iscrowd": float("nan")}, "expected 0 or 1"),
    "size of two lines": ({"segmentation": {"size": "a\nb", "counts": [1200]}}, "expected size [30, 40]"),
    "size beyond floats": ({"segmentation": {"size": [10**400, 40], "counts": [1200]}}, "expected size [30, 40]"),
    "counts of objects": ({"segmentation": {"size": [30, 40], "counts": [{}, "a\nb"]}}, "whole numbers"),
}


@pytest.mark.parametrize("case", COCO)
def test_coco(case: str, tmp_path: Path) -> None:
    change, said = COCO[case]
    assert said in refusal(coco, write_coco(tmp_path, **change))


def test_braces_in_cocos_options_are_only_braces(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert "no such file" in refusal(coco, tmp_path, annotations="annotations/{other}.json")


def write_yolo(root: Path, row: str = "", config: str = "names: [a, b]") -> Path:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "images/train/a.png")
    (root / "labels/train/a.txt").write_text(row, encoding="utf-8")
    (root / "data.yaml").write_text(config)
    return root


YOLO = {
    "aliases without end": (BOMB + "names: *a9", "aliases"),
    "merged keys without end": ("a: &a {x: 1}\nnames: {<<: [*a, *a]}", "aliases"),
    "nested deeply": ("names: " + "[" * 5000 + "]" * 5000, "not readable as YAML"),
    "empty integer": ("names: !!int ''", "list of class names"),
    "boolean that is none": ("names: !!bool maybe", "list of class names"),
    "date that is none": ("names: !!timestamp foo", "list of class names"),
    "code": ("names: !!python/object:os.system x", "list of class names"),
    "a letter beyond letters": ('names: "\\UFFFFFFFF"', "not readable as YAML"),
    "number in base sixty beyond floats": ("names: " + "1:" * 200 + "1.5", "list of class names"),
    "two megabytes of base sixty": ("names: " + "1:" * 1_000_000 + "1", "list of class names"),
    "ten thousand classes": ("names:\n" + "".join(f"- {n}\n" for n in range(10_000)), "at most 255"),
    "text of two lines": ('names: "a\\nb"', "list of class names"),
    "numbers with a gap": ("names: {0: a, 2: b}", "list of class names"),
    "numbers written otherwise": ("names: {00: a, 0x1: b}", "list of class names"),
    "folder longer than a file system has": ("names: [a]\ntrain: " + "a" * 5000, "no folder"),
    "folder of two lines": ('names: [a]\ntrain: "a\\nb"', "expected folders or text files"),
    "class name of two lines": ('names: ["a\\nb"]', "control characters"),
}


@pytest.mark.parametrize("case", YOLO)
def test_yolo_config(case: str, tmp_path: Path) -> None:
    config, said = YOLO[case]
    assert said in refusal(yolo, write_yolo(tmp_path, config=config))


@pytest.mark.parametrize("number", ["9" * 5000, "\u0661", "\u00b2"])
def test_a_yolo_class_is_a_short_number_in_ascii(number: str, tmp_path: Path) -> None:
    assert "expected a class from 0 to 1" in refusal(yolo, write_yolo(tmp_path, f"{number} .5 .5 .2 .2"))


def test_a_yolo_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_yolo(tmp_path, "\ufeff1 .5 .5 .2 .2")
    instances = yolo.open_objects(yolo.Options(str(tmp_path)), "train", False).load(0).instances
    assert instances is not None
    assert instances.labels.tolist() == [1]


def write_voc(root: Path, xmin: str = "1", width: str = "8", listed: str = "a") -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (8, 4)).save(root / "JPEGImages/a.jpg")
    (root / "ImageSets/Main/train.txt").write_text(f"{listed}\n")
    box = f"<xmin>{xmin}</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax>"
    (root / "Annotations/a.xml").write_text(
        f"<annotation><size><width>{width}</width><height>4</height></size>"
        f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>",
        encoding="utf-8",
    )
    return root


@pytest.mark.parametrize("text", ["x" * 1_000_000, "<name/>" * 1000, "nan", "\u00b2", "1e300", "-1e9", "9" * 5000])
def test_voc_coordinates_that_are_no_numbers(text: str, tmp_path: Path) -> None:
    assert "number" in refusal(voc, write_voc(tmp_path, text))


@pytest.mark.parametrize("text", ["0", "-8", "1e8", "0.5", "1000001"])
def test_voc_sizes_that_no_image_has(text: str, tmp_path: Path) -> None:
    assert "expected height and width from 1 to 1000000" in refusal(voc, write_voc(tmp_path, width=text))


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\0"])
def test_names_in_a_voc_list_can_be_shown(name: str, tmp_path: Path) -> None:
    assert "control characters" in refusal(voc, write_voc(tmp_path, listed=name))

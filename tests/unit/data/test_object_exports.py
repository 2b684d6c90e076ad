"""Every row of the table of object exports in docs/howto/read-an-export.md, on tiny files in that layout.

The keys come from the page itself. A row without a writer fails, and so does a writer without a row. Each layout has images
of 8x4 (width x height) with one cat from (1, 1) to (4, 3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from object_files import image

from edgekd.core.recipe import Recipe
from edgekd.data.splits import open_split

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "read-an-export.md"
Writer = Callable[[Path, str], None]
POLYGON = [1, 1, 4, 1, 4, 3, 1, 3]


def rows() -> dict[str, dict[str, Any]]:
    """Return the keys of each row by its tool and export."""
    section = PAGE.read_text(encoding="utf-8").partition("## Boxes and masks of objects")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(\{.*\})` \|$", section, re.MULTILINE)
    return {f"{tool} / {export}": yaml.safe_load(keys) for tool, export, keys in found}


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def coco(annotations: str, images: str, root_category: bool = False) -> Writer:
    """Return a writer of COCO's JSON; both paths hold `{split}`."""

    def write(root: Path, split: str) -> None:
        names = [f"{split}-{letter}.jpg" for letter in "ab"]
        for name in names:
            image(root / images.format(split=split) / name)
        categories = [{"id": 1, "name": "cat", "supercategory": "pets" if root_category else ""}]
        content = {
            "images": [{"id": i, "file_name": n, "width": 8, "height": 4} for i, n in enumerate(names, 1)],
            "categories": [{"id": 0, "name": "pets", "supercategory": "none"}] * root_category + categories,
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "segmentation": [POLYGON], "iscrowd": 0}
                for i in (1, 2)
            ],
        }  # fmt: skip
        text(root / annotations.format(split=split), json.dumps(content))

    return write


def xml(box: tuple[int, int, int, int]) -> str:
    sides = "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    size = "<size><width>8</width><height>4</height><depth>3</depth></size>"
    return f"<annotation>{size}<object><name>cat</name><bndbox>{sides}</bndbox></object></annotation>"


def cvat_voc(root: Path, split: str) -> None:
    """CVAT counts from 0: a box of another image, which begins at x = 0, shows it. Source: Datumaro, voc converter."""
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:200,0,0::\n")
    names = [f"{split}-{letter}" for letter in "ab"]
    text(root / f"ImageSets/Main/{split}.txt", "\n".join(names))
    for name in names:
        image(root / f"JPEGImages/{name}.jpg")
        text(root / f"Annotations/{name}.xml", xml((1, 1, 4, 3)))
    text(root / "Annotations/unlisted.xml", xml((0, 1, 4, 3)))


def flat_voc(root: Path, split: str) -> None:
    folder = root if split == "all" else root / split
    for name in "ab":
        image(folder / f"{split}-{name}.jpg")
        text(folder / f"{split}-{name}.xml", xml((2, 2, 4, 3)))


ROW = "0 0.3125 0.5 0.375 0.5\n"  # centre (2.5, 2), 3x2 px


def ultralytics(root: Path, split: str) -> None:
    text(root / "data.yaml", "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n")
    for name in "ab":
        image(root / f"images/{split}/{split}-{name}.jpg")
        text(root / f"labels/{split}/{split}-{name}.txt", ROW)


def roboflow_yolo(root: Path, split: str) -> None:
    folder = {"val": "valid"}.get(split, split)
    text(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cat']\n",
    )
    for name in "ab":
        image(root / f"{folder}/images/{split}-{name}.jpg")
        text(root / f"{folder}/labels/{split}-{name}.txt", ROW)


def cvat_yolo(root: Path, split: str) -> None:
    """Source: Datumaro, yolo converter."""
    text(root / "obj.names", "cat\n")
    text(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{split}-{name}.jpg\n" for name in "ab"))
    for name in "ab":
        image(root / f"obj_{split}_data/{split}-{name}.jpg")
        text(root / f"obj_{split}_data/{split}-{name}.txt", ROW)


def studio_yolo(root: Path, split: str) -> None:
    text(root / "classes.txt", "cat\n")
    text(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}]}))
    for name in "ab":
        image(root / f"images/{name}.jpg")
        text(root / f"labels/{name}.txt", ROW)


def studio_json(root: Path, split: str) -> None:
    value = {"x": 12.5, "y": 25, "width": 37.5, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    tasks = []
    for name in "ab":
        image(root / f"images/{name}.jpg")
        region = {"id": "r", "type": "rectanglelabels", "value": value, "original_width": 8, "original_height": 4}
        tasks.append({"data": {"image": f"/data/upload/1/0123abcd-{name}.jpg"}, "annotations": [{"result": [region]}]})
    text(root / "export.json", json.dumps(tasks))


def labelme(root: Path, split: str) -> None:
    shape = {"label": "cat", "points": [[4, 3], [1, 1]], "shape_type": "rectangle", "group_id": None}
    for name in "ab":
        image(root / f"{name}.jpg")
        content = {"shapes": [shape], "imagePath": f"{name}.jpg", "imageHeight": 4, "imageWidth": 8}
        text(root / f"{name}.json", json.dumps(content))


WRITERS: Mapping[str, Writer] = {
    "COCO / 2017, as distributed": coco("annotations/instances_{split}.json", "{split}"),
    'CVAT / "COCO 1.0" of a task, with images': coco("annotations/instances_{split}.json", "images/{split}"),
    'Roboflow / "COCO"': coco("{split}/_annotations.coco.json", "{split}", root_category=True),
    'Label Studio / "COCO"': coco("result.json", "images"),
    "any / one JSON of COCO's kind and one folder": coco("labels.json", "photos"),
    'CVAT / "Pascal VOC 1.1" of a task, with images': cvat_voc,
    'Roboflow / "Pascal VOC"': flat_voc,
    "LabelImg / one folder of images and XML": flat_voc,
    "Ultralytics / YOLO": ultralytics,
    'Roboflow / "YOLO"': roboflow_yolo,
    'CVAT / "YOLO 1.1" of a task, with images': cvat_yolo,
    'Label Studio / "YOLO", with images': studio_yolo,
    'Label Studio / "JSON", with the images in `images`': studio_json,
    "labelme / its folder of images and JSON": labelme,
}


def test_every_row_has_a_writer_and_every_writer_a_row() -> None:
    assert set(rows()) == set(WRITERS)


@pytest.mark.parametrize("row", WRITERS)
def test_the_keys_of_a_row_read_its_layout(tmp_path: Path, row: str) -> None:
    keys = rows()[row]
    is_divided = isinstance(keys["val"], float)
    for split in (keys["train"], *([] if is_divided else [keys["val"]])):
        WRITERS[row](tmp_path, split)
    network = {"family": "edgedet", "variant": "n", "train": {"steps": 1}}
    data = {**keys, "options": {"root": str(tmp_path), **keys["options"]}, "size": [32, 32]}
    recipe = Recipe.model_validate(
        {"name": "x", "task": "detection", "data": data, "teacher": network, "student": network, "engines": []}
    )
    train, val = (open_split(recipe, split) for split in (recipe.data.train, recipe.data.val))
    assert (len(train), len(val)) == ((1, 1) if is_divided else (2, 2))
    for dataset in (train, val):
        assert dataset.classes == ("cat",)
        for index in range(len(dataset)):
            objects = dataset.load(index).instances
            assert objects is not None
            assert objects.boxes_xyxy.round(4).tolist() == [[1, 1, 4, 3]]
            assert objects.labels.tolist() == [0]

"""Small VOC, COCO and YOLO data sets on disk, written for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from edgekd.data.base import Sample
from edgekd.data.formats import coco, voc, yolo

NAMES = ("cat", "dog")


def image(path: Path, width: int = 8, height: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (20, 90, 0)).save(path)


def write_voc(root: Path, objects: str, size: tuple[int, int] = (8, 4)) -> Path:
    image(root / "JPEGImages/a.jpg")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    (root / "Annotations/a.xml").write_text(f"<annotation>{head}{objects}</annotation>")
    return root


def voc_object(name: str, box: tuple[float, float, float, float], difficult: int = 0) -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{inside}</bndbox></object>"


def open_voc(root: Path, **options: Any) -> Sample:
    return voc.open_objects(voc.Options(str(root), classes=("background", *NAMES), **options), "train", False).load(0)


def write_coco(root: Path, entries: list[Any], **change: Any) -> Path:
    image(root / "train/a.png")
    (root / "annotations").mkdir(exist_ok=True)
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 4}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": entries,
    } | change
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return root


def annotation(number: int = 1, **change: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 5, "category_id": 9, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0,
            "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]} | change  # fmt: skip


def open_coco(root: Path, has_masks: bool = False) -> Sample:
    return coco.open_objects(coco.Options(str(root)), "train", has_masks).load(0)


def write_yolo(root: Path, rows: str, names: str = "[cat, dog]") -> Path:
    image(root / "images/train/a.png")
    (root / "labels/train").mkdir(parents=True, exist_ok=True)
    (root / "labels/train/a.txt").write_text(rows)
    (root / "data.yaml").write_text(f"names: {names}\ntrain: images/train\n")
    return root


def open_yolo(root: Path, has_masks: bool = False) -> Sample:
    return yolo.open_objects(yolo.Options(str(root)), "train", has_masks).load(0)


def boxes(sample: Sample) -> list[list[float]]:
    assert sample.instances is not None
    return sample.instances.boxes_xyxy.tolist()

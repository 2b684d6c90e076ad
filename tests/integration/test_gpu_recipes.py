"""The recipes for a GPU machine: data in the right layout passes `data check`, and teacher and student take two steps.

Not asked here: their engines, for which `edgekd check` of so large students takes most of the time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edgekd.core.recipe_loading import shipped_recipes
from edgekd.data.formats.voc import CLASSES as VOC_CLASSES
from tests.command import edgekd, forked
from tests.contract.layouts.coco_stuff10k import matlab

SIDE, IMAGES = 64, 2
TEACHERS_FROM_FILE = {
    "detection/coco2017_edgedet-l_retinanet_fgd": "retinanet_resnet50_fpn_v2",
    "instance/coco2017_edgedet-l_maskrcnn_bckd": "maskrcnn_resnet50_fpn_v2",
}
# Source: the categories of instances_val2017.json: 1 to 90 without these.
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(path)


def labels(path: Path, left: int, right: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.full((SIDE, SIDE), left, np.uint8)
    mask[:, SIDE // 2 :] = right
    Image.fromarray(mask).save(path)


def coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        for number in range(1, IMAGES + 1):
            name = f"{number:012d}.jpg"
            picture(root / split / name)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            square = [8, 8, 40, 8, 40, 40, 8, 40]
            annotations.append({
                "id": number, "image_id": number, "category_id": COCO_IDS[11 * number], "bbox": [8, 8, 32, 32],
                "area": 1024, "iscrowd": 0, "segmentation": [square],
            })  # fmt: skip
        categories = [{"id": i, "name": f"class {i}"} for i in COCO_IDS]
        file = root / f"annotations/instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def voc(root: Path) -> None:
    for number, split in enumerate(("train", "trainaug", "val")):
        names = [f"2008_00{number}{i}" for i in range(IMAGES)]
        for folder in ("Main", "Segmentation"):
            file = root / f"ImageSets/{folder}/{split}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(names) + "\n")
        for name in names:
            picture(root / f"JPEGImages/{name}.jpg")
            labels(root / f"SegmentationClass{'Aug' if split == 'trainaug' else ''}/{name}.png", 0, 15)
            (root / "Annotations").mkdir(exist_ok=True)
            (root / f"Annotations/{name}.xml").write_text(
                f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size><object><name>{VOC_CLASSES[8]}</name>"
                "<difficult>0</difficult><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"
                "</annotation>"
            )


def cityscapes(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "munster")):
        for i in range(IMAGES):
            stem = f"{city}_00000{i}_000019"
            picture(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            labels(root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png", 7, 26)


def ade20k(root: Path) -> None:
    for split in ("training", "validation"):
        for i in range(IMAGES):
            name = f"ADE_{split[:5]}_0000000{i}"
            picture(root / f"images/{split}/{name}.jpg")
            labels(root / f"annotations/{split}/{name}.png", 1, 150)


def coco_stuff10k(root: Path) -> None:
    for split in ("train", "test"):
        names = [f"COCO_train2014_0000000000{split}{i}" for i in range(IMAGES)]
        (root / "imageLists").mkdir(parents=True, exist_ok=True)
        (root / f"imageLists/{split}.txt").write_text("\n".join(names) + "\n")
        (root / "annotations").mkdir(exist_ok=True)
        for name in names:
            picture(root / f"images/{name}.jpg")
            ids = np.full((SIDE, SIDE), 1, np.uint16)
            ids[:, SIDE // 2 :] = 182
            (root / f"annotations/{name}.mat").write_bytes(matlab(ids))


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "coco": coco, "voc": voc, "cityscapes": cityscapes, "ade20k": ade20k, "coco_stuff10k": coco_stuff10k,
}  # fmt: skip
RECIPES = [name for name, file in shipped_recipes().items() if "not trained here" in file.read_text(encoding="utf-8")]


def save_untrained(variant: str, path: str) -> None:
    """Write a checkpoint of torchvision's, of 91 outputs."""
    import torch
    from torchvision.models import get_model

    torch.manual_seed(0)
    torch.save(get_model(variant, weights=None, weights_backbone=None, num_classes=91).state_dict(), path)


def test_there_is_one_for_every_benchmark() -> None:
    assert len(RECIPES) == 7
    assert set(TEACHERS_FROM_FILE) <= set(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_data_pass_the_check_and_teacher_and_student_take_two_steps(name: str, tmp_path: Path) -> None:
    recipe = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    root = tmp_path / "data"
    LAYOUTS[recipe["data"]["format"]](root)
    checked = edgekd("data", "check", name, "--set", f"data.options.root={root}", "--sheet", str(tmp_path))
    assert checked.returncode == 0, checked.stderr
    changes = [
        f"data.options.root={root}", f"data.size=[{SIDE}, {SIDE}]", "teacher.floor=0", "trainer.accelerator=cpu",
        "student.train.steps=2", "student.train.batch_size=2", "student.train.validate_every=null",
        "distill.watchdog_ratio=1000", "distill.baseline=false", "engines=[]",
    ]  # fmt: skip
    if variant := TEACHERS_FROM_FILE.get(name):
        done = forked(save_untrained, variant, str(tmp_path / "teacher.pth"))
        assert done.returncode == 0, done.stderr
        changes.append(f"teacher.checkpoint={tmp_path / 'teacher.pth'}")
    else:
        changes += ["teacher.options.encoder_weights=null"]  # no network in tests
        changes += ["teacher.train.steps=2", "teacher.train.batch_size=2", "teacher.train.validate_every=null"]
    sets = [word for change in changes for word in ("--set", change)]
    done = edgekd("run", name, "--out", str(tmp_path / "run"), "--until", "distilled,evaluate/teacher", *sets)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run/distilled/steps.csv", newline="", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    assert len(steps) == 2
    for method in recipe["distill"]["methods"]:
        terms = [float(value) for key, value in steps[-1].items() if key.startswith(f"{method}.")]
        assert terms
        assert all(np.isfinite(terms))


@pytest.mark.slow
def test_a_teacher_that_is_not_trained_here_says_so_in_one_line(tmp_path: Path) -> None:
    name = "detection/coco2017_edgedet-l_retinanet_fgd"
    coco(tmp_path / "data")
    changes = [f"data.options.root={tmp_path / 'data'}", "data.size=[64, 64]", "teacher.train={steps: 1}"]
    sets = [word for change in [*changes, "teacher.checkpoint=null"] for word in ("--set", change)]
    done = edgekd("run", name, "--out", str(tmp_path / "run"), "--until", "teacher", *sets)
    assert done.returncode == 2
    assert "teacher.train: networks of family 'torchvision_det' are not trained here" in done.stderr.splitlines()[-1]

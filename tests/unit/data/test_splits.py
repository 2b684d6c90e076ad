"""The stage `data`: what it records of a set of objects whose labels had to be repaired."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from object_files import annotation, write_coco
from PIL import Image

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import StageJob
from edgekd.data.check import check_data
from edgekd.data.splits import open_split, release_split, shared_images, shared_splits
from edgekd.data.stage import run
from edgekd.errors import DataError
from edgekd.report.collect import collect

# In train, of 10x4: a box from -0.5 px on, one without width, one twice; in val all is well.
ROWS = {
    "train": "0 0.2 0.5 0.5 0.5\n1 0.5 0.5 0 0.5\n1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n",
    "val": "1 0.5 0.5 0.5 0.5\n",
}
SIZE = "data.size=[8,20]"  # the aspect of the images
REPAIRS = {
    "equal objects counted once": 1,
    "boxes cut at the image's edge": 1,
    "boxes without area left out": 1,
    "label files without an image left out": 1,
}


def test_repairs_are_recorded_logged_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, rows in ROWS.items():
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new("RGB", (10, 4)).save(tmp_path / f"images/{split}/{split}.png")
        (tmp_path / f"labels/{split}/{split}.txt").write_text(rows)
    (tmp_path / "labels/train/gone.txt").write_text("")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    changes = ["data.format=yolo", f"data.options={{root: {tmp_path}}}", SIZE]
    recipe = load_recipe("quickstart_detection", changes)
    with caplog.at_level(logging.INFO, "edgekd"):
        details = run(StageJob(recipe, {}, tmp_path)).details
    assert details["splits"]["train"]["repairs"] == REPAIRS
    assert details["splits"]["val"]["repairs"] == {}
    said = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert sorted(said) == sorted(f"split train: {count} {what}" for what, count in REPAIRS.items())
    assert [one["code"] for one in details["findings"]] == ["absent_classes"]
    assert "data: 1 of 2 classes never occur in split 'val': cat" in caplog.messages
    artifact = Artifact(tmp_path, {"kind": "dataset", "details": details})
    report = collect(recipe, {"data": artifact}, [], [], {}, "")
    assert report.repairs == {"train": REPAIRS}
    assert [one.text for one in report.findings] == ["1 of 2 classes never occur in split 'val': cat"]


def test_a_segmenter_needs_a_second_class(tmp_path: Path) -> None:
    for folder in ("images/train", "masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images/train/a.png")
    Image.new("L", (4, 4)).save(tmp_path / "masks/train/a.png")
    (tmp_path / "classes.txt").write_text("crack\n")
    recipe = load_recipe("quickstart", ["data.format=folder", f"data.options={{root: {tmp_path}}}"])
    with pytest.raises(DataError, match="expected two classes or more, got 1; the background is also a class"):
        open_split(recipe, "train")


def test_a_split_is_opened_once_within_a_run_and_again_in_the_next(tmp_path: Path) -> None:
    recipe = yolo_recipe(tmp_path, {"train": "0 0.5 0.5 0.5 0.5\n", "val": "1 0.5 0.5 0.5 0.5\n"})
    assert open_split(recipe, "train") is not open_split(recipe, "train")
    with shared_splits():
        first = open_split(recipe, "train")
        assert open_split(recipe, "train") is first
        assert open_split(recipe, "val") is not first
        val = open_split(recipe, "val")
        release_split("train")
        assert open_split(recipe, "train") is not first
        assert open_split(recipe, "val") is val
    release_split("train")  # nothing is shared here
    (tmp_path / "labels/train/a.txt").write_text("")
    with shared_splits():
        assert open_split(recipe, "train").object_count == 0
    assert first.object_count == 1


def yolo_recipe(root: Path, rows: dict[str, str]) -> Recipe:
    for split, text in rows.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 4), (len(split), 0, 0)).save(root / f"images/{split}/a.png")
        (root / f"labels/{split}/a.txt").write_text(text)
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    return load_recipe("quickstart_detection", ["data.format=yolo", f"data.options={{root: {root}}}", SIZE])


ROW = "1 0.5 0.5 0.5 0.5\n"


def test_a_split_without_objects_is_refused_before_training(tmp_path: Path) -> None:
    recipe = yolo_recipe(tmp_path, {"train": "1 0.5 0.5 0 0.5\n", "val": ROW})
    said = "split 'train' has no object in its 1 images \\(1 boxes without area left out\\), expected at least one"
    with pytest.raises(DataError, match=said):
        run(StageJob(recipe, {}, tmp_path))


def test_an_image_that_cannot_be_read_is_found_before_training(tmp_path: Path) -> None:
    recipe = yolo_recipe(tmp_path, {"train": ROW, "val": ROW})
    Image.new("CMYK", (10, 4)).save(tmp_path / "images/val/a.png", format="JPEG")
    with pytest.raises(DataError, match=r"val/a.png: colour mode CMYK"):
        run(StageJob(recipe, {}, tmp_path))


def folder_recipe(root: Path) -> Recipe:
    """Return a recipe whose `val` has ten pairs, of which the first masks alone are looked at by other checks."""
    (root / "classes.txt").write_text("background\nroad\n")
    for split in ("train", "val"):
        for folder, mode in (("images", "RGB"), ("masks", "L")):
            (root / folder / split).mkdir(parents=True)
            for number in range(10):
                made = Image.new(mode, (10, 4), 0 if mode == "L" else (len(split), number, 0))
                if mode == "L":
                    made.paste(1, (0, 0, 5, 4))
                made.save(root / folder / split / f"{number}.png")
    return load_recipe("quickstart", ["data.format=folder", f"data.options={{root: {root}}}", SIZE])


@pytest.mark.parametrize(
    ("mode", "size", "said"),
    [("RGB", (10, 4), "mask in colours"), ("L", (4, 10), r"mask is 10x4 \(height x width\), image 9.png is 4x10")],
)
def test_a_mask_that_cannot_be_read_is_found_before_training(
    tmp_path: Path, mode: str, size: tuple[int, int], said: str
):
    recipe = folder_recipe(tmp_path)
    assert run(StageJob(recipe, {}, tmp_path)).details["splits"]["val"]["images"] == 10
    Image.new(mode, size, (1, 2, 3) if mode == "RGB" else 0).save(tmp_path / "masks/val/9.png")
    with pytest.raises(DataError, match=f"masks/val/9.png: {said}"):
        run(StageJob(recipe, {}, tmp_path))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"segmentation": [[1, 1, 40, 1, 4, 3]]}, "a polygon's point lies outside"),
        ({"segmentation": {"size": [4, 9], "counts": [36]}}, r"expected size \[4, 8\]"),
    ],
)
def test_a_mask_outside_of_its_image_is_found_before_training(tmp_path: Path, wrong: dict[str, object], said: str):
    write_coco(tmp_path, [annotation()])
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    labels = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    labels["annotations"] = [annotation(**wrong)]
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(labels))
    recipe = load_recipe("quickstart_instance", ["data.format=coco", f"data.options={{root: {tmp_path}}}"])
    with pytest.raises(DataError, match=said):
        run(StageJob(recipe, {}, tmp_path))


def test_images_in_both_splits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = yolo_recipe(tmp_path, {"train": ROW, "val": ROW})  # of one name, but not the same
    assert run(StageJob(recipe, {}, tmp_path)).details["in_both_splits"] == 0
    assert [one for one in caplog.messages if "never occur" not in one] == []
    shutil.copy(tmp_path / "images/train/a.png", tmp_path / "images/val/a.png")
    assert run(StageJob(recipe, {}, tmp_path)).details["in_both_splits"] == 1
    splits = [open_split(recipe, split) for split in ("train", "val")]
    (tmp_path / "images/val/a.png").unlink()  # said by what reads it as an image
    assert shared_images(*splits) == []
    assert "1 of the 1 images of split 'val' are in split 'train', too, the first is a.png" in caplog.text


def test_splits_of_different_classes_are_refused(tmp_path: Path) -> None:
    recipe = yolo_recipe(tmp_path, {"train": ROW, "val": ROW})
    with shared_splits():
        open_split(recipe, "train").classes = ("dog", "cat")
        with pytest.raises(DataError, match="have different classes"):
            run(StageJob(recipe, {}, tmp_path))
        assert [one.code for one in check_data(recipe).findings] == ["different_classes"]

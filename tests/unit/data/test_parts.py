"""Splits that a data set does not have itself: a seeded fraction of its images, and lists of the user's own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from object_files import annotation, image, voc_object, write_coco, write_voc, write_yolo
from PIL import Image

from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.data.base import DenseDataset
from edgekd.data.fingerprint import fingerprint
from edgekd.data.splits import open_split, release_split, shared_images, shared_splits
from edgekd.errors import DataError, RecipeError

LETTERS = "abcdefghij"


def coco_recipe(root: Path, *changes: str) -> Recipe:
    """Return a recipe on one JSON without splits: ten images of one object each, `a.png` to `j.png`."""
    for letter in LETTERS:
        image(root / f"all/{letter}.png")
    images = [{"id": i, "file_name": f"{name}.png", "width": 8, "height": 4} for i, name in enumerate(LETTERS)]
    objects = [annotation(i, image_id=i, bbox=[0, 0, 1 + i % 7, 1]) for i in range(10)]
    write_coco(root, objects, images=images)
    (root / "annotations/instances_train.json").rename(root / "annotations/instances_default.json")
    options = f"data.options={{root: {root}, annotations: annotations/instances_default.json, images: all}}"
    return load_recipe("quickstart_detection", ["data.format=coco", options, "data.train=all", *changes])


def names(dataset: DenseDataset) -> list[str]:
    return [dataset.name(index) for index in range(len(dataset))]


def test_a_fraction_divides_a_data_set_by_the_hashes_of_seed_and_name(tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path, "data.val=0.3")
    train, val = open_split(recipe, "all"), open_split(recipe, "0.3")
    hashes = {name: hashlib.sha256(f"0/{name}.png".encode()).hexdigest() for name in LETTERS}
    expected = sorted(LETTERS, key=hashes.__getitem__)[:3]
    assert names(val) == sorted(f"{name}.png" for name in expected)
    assert names(train) == sorted(f"{name}.png" for name in LETTERS if name not in expected)
    assert shared_images(train, val) == []
    widths = {f"{name}.png": 1.0 + i % 7 for i, name in enumerate(LETTERS)}
    for part in (train, val):
        for index in range(len(part)):
            objects = part.load(index).instances
            assert objects is not None
            assert objects.boxes_xyxy.tolist() == [[0, 0, widths[part.name(index)], 1]]


def test_a_fraction_stays_when_the_folder_moves_and_changes_with_its_seed_alone(tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path / "here", "data.val=0.3")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = load_recipe(
        "quickstart_detection",
        ["data.format=coco", f"data.options={dict(recipe.data.options) | {'root': str(tmp_path / 'there')}}",
         "data.train=all", "data.val=0.3", "seed=7"],
    )  # fmt: skip
    for split in ("all", "0.3"):
        one, other = open_split(recipe, split), open_split(moved, split)
        assert names(one) == names(other)
        assert fingerprint(one, split) == fingerprint(other, split)
    drawn = {
        tuple(names(open_split(coco_recipe(tmp_path / "here", "data.val=0.3", f"data.split_seed={s}"), "0.3")))
        for s in range(5)
    }
    assert len(drawn) == 5


@pytest.mark.parametrize(("fraction", "scored"), [("0.01", 1), ("0.25", 2), ("0.99", 9)])
def test_a_fraction_leaves_images_in_both_splits(fraction: str, scored: int, tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path, f"data.val={fraction}")
    assert len(open_split(recipe, recipe.data.val)) == scored
    assert len(open_split(recipe, recipe.data.train)) == 10 - scored


def test_both_parts_come_from_one_reading_and_are_released_with_their_split(tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path, "data.val=0.3")
    with shared_splits():
        train, val = open_split(recipe, "all"), open_split(recipe, "0.3")
        (tmp_path / "annotations/instances_default.json").write_text("damaged")
        assert open_split(recipe, "all") is train
        release_split("all")
        assert open_split(recipe, "0.3") is val
        with pytest.raises(DataError, match="not readable as JSON"):
            open_split(recipe, "all")


def test_a_list_names_images_with_or_without_suffix_and_folder(tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path, "data.val=lists/val.txt")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.txt").write_text("c.png\n\nj\nall/a.png\nall\\b\n")
    assert names(open_split(recipe, "lists/val.txt")) == ["a.png", "b.png", "c.png", "j.png"]
    assert names(open_split(recipe, "all")) == [f"{name}.png" for name in "defghi"]
    both = coco_recipe(tmp_path, "data.val=lists/val.txt", "data.train=lists/train.txt")
    (tmp_path / "lists/train.txt").write_text("d\na\n")
    assert names(open_split(both, "lists/train.txt")) == ["a.png", "d.png"]


@pytest.mark.parametrize(("rows", "said"), [
    ("a\nzz.png\n", r"row 2: 'zz.png' is the name of 0 images, expected one, such as 'a.png'"),
    ("a\na.png\n", r"row 2: 'a.png' is listed twice"),
    ("\n", "no image in the list"),
    ("elsewhere/a.png", "row 1: 'elsewhere/a.png' is the name of 0 images"),
])  # fmt: skip
def test_a_wrong_list_is_refused_by_its_row(rows: str, said: str, tmp_path: Path) -> None:
    recipe = coco_recipe(tmp_path, "data.val=val.txt")
    (tmp_path / "val.txt").write_text(rows)
    with pytest.raises(DataError, match=said):
        open_split(recipe, "val.txt")


def test_voc_and_yolo_sets_without_splits_are_divided(tmp_path: Path) -> None:
    for name in "abcde":
        write_voc(tmp_path / "voc", voc_object("dog", (1, 1, 8, 4)))
        write_yolo(tmp_path / "yolo", "1 0.5 0.5 0.5 0.5\n")
        for path in (tmp_path / "voc/JPEGImages/a.jpg", tmp_path / "voc/Annotations/a.xml"):
            path.rename(path.with_stem(f"x{name}"))
        for path in (tmp_path / "yolo/images/train/a.png", tmp_path / "yolo/labels/train/a.txt"):
            folder = path.parents[1]
            path.rename(folder / f"x{name}{path.suffix}")
    for folder in ("voc/ImageSets", "yolo/images/train", "yolo/labels/train"):
        shutil.rmtree(tmp_path / folder)
    (tmp_path / "yolo/data.yaml").unlink()
    (tmp_path / "yolo/classes.txt").write_text("cat\ndog\n")
    for options in (
        ["data.format=voc", f"data.options={{root: {tmp_path}/voc, classes: [dog]}}"],
        ["data.format=yolo", f"data.options={{root: {tmp_path}/yolo, yaml: classes.txt}}"],
    ):
        recipe = load_recipe("quickstart_detection", [*options, "data.train=all", "data.val=0.4"])
        train, val = open_split(recipe, "all"), open_split(recipe, "0.4")
        assert sorted(Path(name).stem for name in (*names(train), *names(val))) == ["xa", "xb", "xc", "xd", "xe"]
        assert len(val) == 2
        assert train.load(0).instances is not None


def test_images_with_masks_are_divided(tmp_path: Path) -> None:
    for name in "abcd":
        for folder in ("images/train", "masks/train"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"images/train/{name}.png")
        Image.new("L", (4, 4), ord(name) % 2).save(tmp_path / f"masks/train/{name}.png")
    (tmp_path / "classes.txt").write_text("odd\neven\n")
    recipe = load_recipe("quickstart", ["data.format=folder", f"data.options={{root: {tmp_path}}}", "data.val=0.5"])
    train, val = open_split(recipe, "train"), open_split(recipe, "0.5")
    assert sorted(names(train) + names(val)) == ["a", "b", "c", "d"]
    assert len(train) == len(val) == 2
    for part in (train, val):
        assert [int(part.load(i).mask[0, 0]) for i in range(2)] == [ord(name) % 2 for name in names(part)]


def test_rendered_scenes_are_divided_and_have_no_lists() -> None:
    recipe = load_recipe("quickstart", ["data.options.train=10", "data.val=0.3"])
    train, val = open_split(recipe, "train"), open_split(recipe, "0.3")
    assert sorted(names(train) + names(val)) == [f"train/{i:05d}" for i in range(10)]
    assert [val.load(i).name for i in range(3)] == names(val)
    with pytest.raises(DataError, match="no split 'all'"):
        open_split(load_recipe("quickstart", ["data.val=val.txt"]), "val.txt")


@pytest.mark.parametrize(("change", "said"), [
    ("data.val=1.5", "expected a split's name, or a fraction between 0 and 1"),
    ("data.val=0", "expected a split's name, or a fraction between 0 and 1"),
    ("data.train=0.8", "the fraction belongs to `val`"),
    ("data.val=[a]", "data.val"),
])  # fmt: skip
def test_a_split_that_is_none_is_refused_in_the_recipe(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", [change])


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation()])
    options = f"data.options={{root: {tmp_path}}}"
    recipe = load_recipe("quickstart_detection", ["data.format=coco", options, "data.val=0.2"])
    with pytest.raises(DataError, match="split 'train' has 1 image, expected two or more to divide"):
        open_split(recipe, "train")

"""Class maps drawn from objects, for the task `semantic`. The maps are worked out by hand on an image of 8x4 pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.recipe import Recipe
from edgekd.data.fingerprint import fingerprint
from edgekd.data.formats import coco, label_studio, labelme, yolo
from edgekd.data.splits import open_split
from edgekd.errors import DataError
from tests.unit.data.object_files import annotation, image, write_coco

DOG = annotation()  # x 1..4, y 1..3
CAT = annotation(2, category_id=2, bbox=[0, 0, 8, 4], area=32, segmentation=[[0, 0, 8, 0, 8, 4, 0, 4]])  # everything


def drawn(root: Path, **options: Any) -> list[str]:
    """Return the rows of the first image's class map, a letter per pixel: the class's first one, `.` for ignored."""
    dataset = coco.open_dataset(coco.Options(str(root), **options), "train")
    letters = {255: "."} | {index: name[0] for index, name in enumerate(dataset.classes)}
    return ["".join(letters[value] for value in row) for row in dataset.load(0).mask.tolist()]


def test_pixels_of_objects_have_their_class_and_the_others_are_background(tmp_path: Path) -> None:
    root = write_coco(tmp_path, [DOG])
    assert coco.open_dataset(coco.Options(str(root)), "train").classes == ("background", "cat", "dog")
    assert drawn(root) == ["bbbbbbbb", "bdddbbbb", "bdddbbbb", "bbbbbbbb"]


@pytest.mark.parametrize("entries", [[DOG, CAT], [CAT, DOG]])
def test_the_smaller_object_is_on_top_whatever_the_order(tmp_path: Path, entries: list[Any]) -> None:
    assert drawn(write_coco(tmp_path, entries)) == ["cccccccc", "cdddcccc", "cdddcccc", "cccccccc"]


def test_the_pixels_decide_and_not_the_area_that_the_file_states(tmp_path: Path) -> None:
    assert drawn(write_coco(tmp_path, [{**DOG, "area": 1000}, {**CAT, "area": 1}]))[1] == "cdddcccc"


def test_of_equal_objects_the_later_one_is_on_top(tmp_path: Path) -> None:
    assert drawn(write_coco(tmp_path, [DOG, annotation(2, category_id=2)]))[1] == "bcccbbbb"


def test_pixels_without_an_object_may_be_ignored(tmp_path: Path) -> None:
    root = write_coco(tmp_path, [DOG])
    assert drawn(root, background=None) == ["........", ".ddd....", ".ddd....", "........"]
    assert coco.open_dataset(coco.Options(str(root), background=None), "train").classes == ("cat", "dog")


def test_a_listed_class_may_be_the_background(tmp_path: Path) -> None:
    root = write_coco(tmp_path, [DOG])
    assert drawn(root, background="cat")[1] == "cdddcccc"
    assert coco.open_dataset(coco.Options(str(root), background="cat"), "train").classes == ("cat", "dog")


def test_run_lengths_and_crowds_are_drawn(tmp_path: Path) -> None:
    runs = {"size": [4, 8], "counts": [0, 4, 28]}  # the first column
    entry = annotation(3, iscrowd=1, bbox=[0, 0, 1, 4], segmentation=runs)
    assert drawn(write_coco(tmp_path, [entry, DOG])) == ["dbbbbbbb", "ddddbbbb", "ddddbbbb", "dbbbbbbb"]


def test_an_image_without_objects_is_background(tmp_path: Path) -> None:
    assert drawn(write_coco(tmp_path, [])) == ["bbbbbbbb"] * 4


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no object of 1 images has a mask"):
        drawn(write_coco(tmp_path, [{**DOG, "segmentation": []}]))


def test_how_objects_are_drawn_is_in_the_fingerprint(tmp_path: Path) -> None:
    root = write_coco(tmp_path, [DOG])
    prints = {
        fingerprint(coco.open_dataset(coco.Options(str(root), background=name), "train"), "train")
        for name in ("background", "cat", None)
    }
    assert len(prints) == 3


def test_a_fraction_divides_drawn_images(tmp_path: Path) -> None:
    entries = [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 4} for i in range(5)]
    write_coco(tmp_path, [{**DOG, "id": i, "image_id": i} for i in range(5)], images=entries)
    for i in range(5):
        image(tmp_path / f"train/{i}.png")
    network = {"family": "edgeseg", "variant": "n", "train": {"steps": 1}}
    options = {"root": str(tmp_path), "annotations": "annotations/instances_train.json", "images": "train"}
    data = {"format": "coco", "options": options, "train": "all", "val": 0.4, "size": [32, 32]}
    recipe = Recipe.model_validate({"name": "x", "data": data, "teacher": network, "student": network, "engines": []})
    train, val = open_split(recipe, "all"), open_split(recipe, "0.4")
    assert (len(train), len(val)) == (3, 2)
    assert {train.name(i) for i in range(3)} | {val.name(i) for i in range(2)} == {f"{i}.png" for i in range(5)}
    assert val.load(1).mask[1].tolist() == [0, 2, 2, 2, 0, 0, 0, 0]


def test_yolos_polygons_are_drawn(tmp_path: Path) -> None:
    image(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\n")
    (tmp_path / "labels/train/a.txt").write_text("1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n0 0 0 1 0 1 1 0 1\n")
    dataset = yolo.open_dataset(yolo.Options(str(tmp_path)), "train")
    assert dataset.classes == ("background", "cat", "dog")
    assert dataset.load(0).mask.tolist() == [[1] * 8, [1, 1, 2, 2, 1, 1, 1, 1], [1, 1, 2, 2, 1, 1, 1, 1], [1] * 8]


def write_labelme(root: Path, *shapes: tuple[str, list[list[int]]]) -> labelme.Options:
    image(root / "train/a.jpg")
    entries = [
        {"label": label, "points": points, "shape_type": "polygon", "group_id": None} for label, points in shapes
    ]
    content = {"shapes": entries, "imagePath": "a.jpg", "imageData": None, "imageHeight": 4, "imageWidth": 8}
    (root / "train/a.json").write_text(json.dumps(content))
    return labelme.Options(str(root))


def square(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_labelmes_shapes_are_drawn_in_their_order_and_ignore_is_no_class(tmp_path: Path) -> None:
    options = write_labelme(
        tmp_path,
        ("dog", square(1, 1, 3, 3)),
        ("cat", square(0, 0, 8, 4)),
        ("_background_", square(0, 0, 1, 4)),
        ("__ignore__", square(7, 0, 8, 4)),
        ("dog", square(5, 1, 6, 2)),
    )
    dataset = labelme.open_dataset(options, "train")
    assert dataset.classes == ("background", "cat", "dog")
    rows = dataset.load(0).mask.tolist()
    assert rows == [
        [0, 1, 1, 1, 1, 1, 1, 255],
        [0, 1, 1, 1, 1, 2, 1, 255],
        [0, 1, 1, 1, 1, 1, 1, 255],
        [0, 1, 1, 1, 1, 1, 1, 255],
    ]
    null = labelme.open_dataset(replace(options, background=None), "train")
    assert null.classes == ("cat", "dog")
    assert null.load(0).mask[1].tolist() == [255, 0, 0, 0, 0, 1, 0, 255]


def test_label_studios_regions_are_drawn(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    regions = [
        {"type": "polygonlabels", "original_width": 8, "original_height": 4,
         "value": {"points": [[12.5, 25], [50, 25], [50, 75], [12.5, 75]], "polygonlabels": ["dog"]}},
        {"type": "rectanglelabels", "original_width": 8, "original_height": 4,
         "value": {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["cat"]}},
    ]  # fmt: skip
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"}, "annotations": [{"id": 1, "result": regions}]}
    ]
    (tmp_path / "train.json").write_text(json.dumps(tasks))
    dataset = label_studio.open_dataset(label_studio.Options(str(tmp_path), "{split}.json"), "train")
    assert dataset.classes == ("background", "cat", "dog")
    assert dataset.load(0).mask.tolist() == [[1] * 8, [1, 2, 2, 2, 1, 1, 1, 1], [1, 2, 2, 2, 1, 1, 1, 1], [1] * 8]

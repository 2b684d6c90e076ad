"""Facts of a split: read from files once, remembered, and what the check of a recipe makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_files import annotation, image, write_coco, write_voc, write_yolo
from PIL import Image

from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import StageJob
from edgekd.data import facts as facts_module
from edgekd.data.check import check_data, check_dataset
from edgekd.data.facts import read_facts
from edgekd.data.formats import coco, folder, voc, yolo
from edgekd.data.stage import run, state_of_data
from edgekd.errors import DataError

SIZE = "data.size=[8,12]"
PALETTE = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)


def stored(order: tuple[int, ...] = (0, 1, 2)) -> Image.Image:
    """Return a palette mask (8, 12) of three stripes in black, red and green, whatever the order of its palette."""
    indices = np.argsort(order).astype(np.uint8)[np.repeat([[0, 1, 2]], 8, axis=0).repeat(4, axis=1)]
    mask = Image.fromarray(indices, mode="P")
    mask.putpalette(PALETTE[list(order)].tobytes())
    return mask


def write_pairs(root: Path, split: str = "train", count: int = 3) -> None:
    """Write images and masks of three stripes; the files are old enough to be remembered."""
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("ground\nroad\ngrass\n")
    for number in range(count):
        for kind, made in (("images", Image.new("RGB", (12, 8), (len(split), number, 0))), ("masks", stored())):
            path = root / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            made.save(path)
            os.utime(path, (1e9, 1e9))


def recipe_of(root: Path, *changes: str, splits: tuple[str, ...] = ("train", "val")) -> Recipe:
    for split in splits:
        write_pairs(root, split)
    return load_recipe("quickstart", ["data.format=folder", f"data.options={{root: {root}}}", SIZE, *changes])


def codes(recipe: Recipe) -> list[str]:
    return [finding.code for finding in check_data(recipe).all_findings]


def test_facts_of_masks_are_counts_sizes_and_palettes(tmp_path: Path) -> None:
    write_pairs(tmp_path, count=2)
    found = read_facts(folder.open_dataset(folder.Options(str(tmp_path)), "train"))
    assert found.sizes.tolist() == [[8, 12]] * 2
    assert found.labels.tolist() == [[sample, label, 32] for sample in (0, 1) for label in (0, 1, 2)]
    assert found.palettes.tolist() == [
        [sample, index, color] for sample in (0, 1) for index, color in enumerate((0, 0xC80000, 0x00C800))
    ]
    assert not found.unchecked.any()
    assert not found.has_objects


def test_facts_of_objects_are_box_sides_ignored_ones_and_masks_outside_of_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path, [
        annotation(1), annotation(2, iscrowd=1, bbox=[0, 0, 1, 1]), annotation(3, bbox=[5, 2, 2.5, 1.5], category_id=2),
    ])  # fmt: skip
    found = read_facts(coco.open_objects(coco.Options(str(tmp_path)), "train", True))
    assert found.has_objects
    assert found.labels.tolist() == [[0, 0, 1], [0, 1, 1]]  # cat, dog
    assert found.sides.tolist() == [[0, 2, 3], [0, 1.5, 2.5]]
    assert found.ignored.tolist() == [1]
    assert found.apart.tolist() == [2]  # the masks lie from 1, 1 to 4, 3


def test_palette_masks_in_another_order_are_found_in_the_files(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    assert codes(recipe) == []
    stored((0, 2, 1)).save(tmp_path / "masks/val/1.png")
    (one,) = check_data(recipe).findings
    assert (one.code, one.count, one.first) == ("palette_order", 1, "1.png")
    colors = '{"#000000": ground, "#c80000": road, "#00c800": grass}'
    by_color = recipe_of(tmp_path, f"data.options.colors={colors}", splits=())
    assert codes(by_color) == []
    assert check_data(by_color).reports[1].pixel_counts == (96, 96, 96)


def turned(path: Path, orientation: int, size: tuple[int, int] = (12, 8)) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, exif=exif)


@pytest.mark.parametrize(
    ("orientation", "stored_size", "is_unchecked"),
    [(1, (12, 8), False), (2, (12, 8), True), (3, (12, 8), True), (6, (8, 12), False), (6, (8, 8), True)],
)
def test_an_orientation_that_no_mask_size_confirms_is_told(
    tmp_path: Path, orientation: int, stored_size: tuple[int, int], is_unchecked: bool
) -> None:
    """The masks fit the upright images; orientation 6 exchanges height and width, which only a square hides."""
    write_pairs(tmp_path, count=2)
    (tmp_path / "images/train/1.png").unlink()
    turned(tmp_path / "images/train/1.jpg", orientation, stored_size)
    if stored_size == (8, 8):
        stored().crop((0, 0, 8, 8)).save(tmp_path / "masks/train/1.png")
    found = check_dataset(folder.open_dataset(folder.Options(str(tmp_path)), "train"), "train").findings
    assert [(one.code, one.count, one.first) for one in found] == [("exif_orientation", 1, "1.jpg")] * is_unchecked


def test_a_mask_with_the_orientation_of_its_image_is_fine(tmp_path: Path) -> None:
    write_pairs(tmp_path, count=1)
    for path in (tmp_path / "images/train/0.png", tmp_path / "masks/train/0.png"):
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.open(path).save(path, exif=exif)
    assert check_dataset(folder.open_dataset(folder.Options(str(tmp_path)), "train"), "train").findings == ()


@pytest.mark.parametrize(
    ("orientation", "sized", "expected"), [(3, True, 1), (3, False, 1), (6, True, 0), (6, False, 1), (1, False, 0)]
)
def test_an_orientation_that_no_size_of_the_boxes_confirms_is_told(
    tmp_path: Path, orientation: int, sized: bool, expected: int
) -> None:
    size = {"width": 8, "height": 4} if sized else {}
    write_coco(tmp_path, [annotation()], images=[{"id": 5, "file_name": "a.jpg", **size}])
    turned(tmp_path / "train/a.jpg", orientation, (4, 8) if orientation == 6 else (8, 4))
    report = check_dataset(coco.open_objects(coco.Options(str(tmp_path)), "train", False), "train")
    assert sum(one.code == "exif_orientation" for one in report.findings) == expected


def test_yolo_gives_no_size_and_voc_does(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "y", "0 .5 .5 .25 .5\n")
    turned(root / "images/train/a.png", 6, (4, 8))
    assert read_facts(yolo.open_objects(yolo.Options(str(root)), "train", False)).unchecked.tolist() == [True]
    boxes = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox></object>"
    for size, expected in (((8, 4), False), ((0, 0), True)):
        root = write_voc(tmp_path / "v", boxes, size)
        turned(root / "JPEGImages/a.jpg", 6, (4, 8))
        options = voc.Options(str(root), classes=("cat",))
        assert read_facts(voc.open_objects(options, "train", False)).unchecked.tolist() == [expected]


def test_a_split_is_read_once_until_a_file_or_an_option_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe, loads = recipe_of(tmp_path / "set"), []
    read = facts_module.read_facts
    monkeypatch.setattr(facts_module, "read_facts", lambda *a: loads.append(len(a[0])) or read(*a))
    first = check_data(recipe)
    assert loads == [3, 3]
    again = check_data(recipe.model_copy(update={"data": recipe.data.model_copy(update={"size": (4, 6)})}))
    assert loads == [3, 3]
    assert [one.pixel_counts for one in again.reports] == [one.pixel_counts for one in first.reports] == [(96,) * 3] * 2
    (tmp_path / "set/classes.txt").write_text("ground\nroad\nlawn\n")
    assert check_data(recipe).reports[0].classes == ("ground", "road", "lawn")
    assert loads == [3, 3]
    check_data(recipe_of(tmp_path / "set", "data.options.ignore_index=200", splits=()))
    assert loads == [3] * 4
    stored((0, 2, 1)).save(tmp_path / "set/masks/val/1.png")
    assert codes(recipe) == ["palette_order"]
    assert loads == [3] * 5
    for file in (tmp_path / "cache/edgekd/facts").iterdir():
        file.write_bytes(b"damaged")
    assert codes(recipe) == ["palette_order"]
    assert loads == [3] * 7


def test_objects_are_remembered_with_repairs_that_reading_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A polygon of two points has no pixel, which only drawing shows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "val"):
        write_coco(tmp_path, [annotation(1), annotation(2, segmentation=[[1, 1, 3, 2]])])
        (tmp_path / "annotations/instances_train.json").rename(tmp_path / f"annotations/{split}.json")
        image(tmp_path / split / "a.png")
    options = f"data.options={{root: {tmp_path}, annotations: 'annotations/{{split}}.json'}}"
    recipe = load_recipe("quickstart_instance", ["data.format=coco", options, "data.size=[8,16]"])
    for _ in range(2):
        report = check_data(recipe).reports[0]
        assert report.repairs == {"annotations without a mask left out": 1}
        assert report.object_counts == (0, 1)
        monkeypatch.setattr(facts_module, "read_facts", lambda *_: pytest.fail("read again"))


def test_a_bad_file_anywhere_stops_the_stage_with_all_causes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = recipe_of(tmp_path)
    assert run(StageJob(recipe, {}, tmp_path)).details["findings"] == []
    wrong = np.zeros((8, 12), np.uint8)
    wrong[0, 0] = 7
    for name in ("1", "2"):
        Image.fromarray(wrong).save(tmp_path / f"masks/val/{name}.png")
    cut = tmp_path / "images/train/2.png"
    cut.write_bytes(cut.read_bytes()[:45])
    with pytest.raises(DataError) as caught:
        run(StageJob(recipe, {}, tmp_path))
    assert str(caught.value).startswith(f"2 errors, first: {cut}: damaged or truncated")
    assert "val/1.png: label 7 on 1 pixel" in caught.value.lines[1]
    assert caught.value.lines[1].endswith("(1 more like this)")


def test_a_split_of_one_class_or_none_stops_the_stage(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    for value, said in ((255, "split 'val' has no labelled pixel in its 3 images"), (1, "one class alone, 'road'")):
        for number in range(3):
            Image.new("L", (12, 8), value).save(tmp_path / f"masks/val/{number}.png")
        with pytest.raises(DataError, match=said):
            run(StageJob(recipe, {}, tmp_path))


def test_the_state_of_the_data_names_its_classes(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    before = state_of_data(recipe)
    (tmp_path / "classes.txt").write_text("ground\nroad\nlawn\n")
    after: Any = state_of_data(recipe)
    assert {key: before[key] == after[key] for key in before} == {"train": True, "val": True, "classes": False}
    assert after["classes"]["val"] == ["ground", "road", "lawn"]


def test_findings_are_json_with_code_count_and_first(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    Image.new("L", (12, 8), 255).save(tmp_path / "masks/train/2.png")
    stored((0, 2, 1)).save(tmp_path / "masks/val/1.png")
    content = json.loads(json.dumps(check_data(recipe).to_dict()))
    assert [(one["code"], one["is_error"], one["count"], one["first"]) for one in content["splits"][0]["findings"]] == [
        ("unlabelled_images", False, 1, "2.png")
    ]
    assert [(one["code"], one["count"], one["first"]) for one in content["findings"]] == [("palette_order", 1, "1.png")]

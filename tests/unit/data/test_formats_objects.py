"""Boxes and masks from VOC and COCO files: worked out by hand and damaged on purpose; damaged files of any format."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_files import (
    NAMES,
    annotation,
    boxes,
    image,
    open_coco,
    open_voc,
    open_yolo,
    voc_object,
    write_coco,
    write_voc,
    write_yolo,
)
from PIL import Image

from edgekd.board.runs import encode_runs
from edgekd.data.coco_masks import decode_runs, draw_polygons
from edgekd.data.formats import coco, voc
from edgekd.errors import DataError


def test_voc_boxes_count_from_one_with_both_ends_included(tmp_path: Path) -> None:
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)) + voc_object("cat", (3, 2, 4, 3), difficult=1))
    sample = open_voc(tmp_path)
    assert boxes(sample) == [[0, 0, 8, 4], [2, 1, 4, 3]]
    assert sample.instances is not None
    assert sample.instances.labels.tolist() == [1, 0]
    assert sample.instances.is_difficult is not None
    assert sample.instances.is_difficult.tolist() == sample.instances.is_ignored.tolist() == [False, True]
    assert boxes(open_voc(tmp_path, boxes_from_one=False))[0] == [1, 1, 8, 4]


def test_boxes_are_repaired_where_that_is_safe_and_counted(tmp_path: Path) -> None:
    objects = voc_object("dog", (1, 1, 9, 4)) + voc_object("cat", (3, 2, 3, 2))
    dataset = voc.open_objects(voc.Options(str(write_voc(tmp_path, objects)), classes=NAMES), "train", False)
    assert dict(dataset.repairs) == {"boxes cut at the image's edge": 1, "boxes without area left out": 1}
    assert boxes(dataset.load(0)) == [[0, 0, 8, 4]]


BAD_VOC = {
    "far outside": (voc_object("dog", (3, 1, 20, 4)), "passes the edge"),
    "unknown class": (voc_object("dgo", (1, 1, 3, 3)), "did you mean 'dog'"),
    "not a number": (voc_object("dog", ("x", 1, 3, 3)), "expected a number, got 'x'"),  # type: ignore[arg-type]
    "not finite": (voc_object("dog", (float("nan"), 1, 3, 3)), "expected a finite number"),
    "cut off": ("<object><name>dog", "not readable as XML"),
    "entity bomb": ('<!DOCTYPE x [<!ENTITY a "b">]>', "not readable as XML"),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_a_bad_voc_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    objects, said = BAD_VOC[case]
    with pytest.raises(DataError, match=said) as caught:
        open_voc(write_voc(tmp_path, objects))
    assert "a.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_voc_reads_images_and_xml_in_one_folder_per_split(tmp_path: Path) -> None:
    write_voc(tmp_path / "whole", voc_object("dog", (1, 1, 8, 4)))
    flat = tmp_path / "flat/valid"
    flat.mkdir(parents=True)
    shutil.copy(tmp_path / "whole/JPEGImages/a.jpg", flat / "b.jpg")
    shutil.copy(tmp_path / "whole/JPEGImages/a.jpg", flat / "without labels.jpg")
    shutil.copy(tmp_path / "whole/Annotations/a.xml", flat / "b.xml")
    options = voc.Options(str(tmp_path / "flat"), classes=NAMES)
    dataset = voc.open_objects(options, "valid", False)
    assert [dataset.name(i) for i in range(len(dataset))] == ["b"]
    assert boxes(dataset.load(0)) == [[0, 0, 8, 4]]
    with pytest.raises(DataError, match=r"no split 'train': .*ImageSets"):
        voc.open_objects(options, "train", False)
    (tmp_path / "flat/train").mkdir()
    with pytest.raises(DataError, match=r"empty split: no \*.xml in "):
        voc.open_objects(options, "train", False)


def test_an_entity_bomb_in_front_of_the_annotation_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, "")
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
    (tmp_path / "Annotations/a.xml").write_text(bomb)
    with pytest.raises(DataError, match="not readable as XML"):
        open_voc(tmp_path)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4x8 .* annotations say 8x4"):
        open_voc(write_voc(tmp_path, voc_object("dog", (1, 1, 3, 3)), size=(4, 8)))


@pytest.mark.parametrize(
    ("files", "filename", "read"),
    [
        (["a.jpg", "a.png"], "a.png", "a.jpg"),
        (["a.png"], "", "a.png"),
        (["a.jpeg"], "elsewhere/a.jpg", "a.jpeg"),
        (["a.bmp"], "a.jpg", "a.bmp"),
        (["a.png", "IMG 1.JPG"], "IMG 1.JPG", "IMG 1.JPG"),
        (["a.jpg"], "../secret.png", "a.jpg"),
    ],
)
def test_a_voc_image_is_the_jpg_else_the_named_file_else_one_of_another_kind(
    files: list[str], filename: str, read: str, tmp_path: Path
) -> None:
    write_voc(tmp_path, f"<filename>{filename}</filename>" + voc_object("dog", (1, 1, 8, 4)))
    (tmp_path / "JPEGImages/a.jpg").unlink()
    for file in files:
        image(tmp_path / "JPEGImages" / file)
    dataset = voc.open_objects(voc.Options(str(tmp_path), classes=NAMES), "train", False)
    assert dataset.files(0) == (tmp_path / "JPEGImages" / read,)
    assert dataset.name(0) == "a"
    assert boxes(dataset.load(0)) == [[0, 0, 8, 4]]


@pytest.mark.parametrize("filename", ["../b.png", "{root}/b.png", "sub/../../b.png", "..", "JPEGImages/a.png"])
def test_a_voc_filename_leads_out_of_no_folder(filename: str, tmp_path: Path) -> None:
    write_voc(tmp_path, f"<filename>{filename.format(root=tmp_path)}</filename>")
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "b.png")
    with pytest.raises(DataError, match="1 of 1 listed images are missing, the first is .*a.jpg"):
        open_voc(tmp_path)


def test_voc_class_masks_take_images_of_other_kinds(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages/a.png")
    for folder in ("SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (8, 4), 1).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    sample = voc.open_dataset(voc.Options(str(tmp_path)), "train").load(0)
    assert (sample.mask == 1).all()


def test_coco_categories_are_numbered_by_sorted_id_and_boxes_are_corners(tmp_path: Path) -> None:
    dataset = coco.open_objects(coco.Options(str(write_coco(tmp_path, [annotation()]))), "train", False)
    assert dataset.classes == ("cat", "dog")
    sample = dataset.load(0)
    assert boxes(sample) == [[1, 1, 4, 3]]
    assert sample.instances is not None
    assert sample.instances.labels.tolist() == [1]
    assert sample.instances.masks is None


SHAPES = {
    "polygon": [[1, 1, 4, 1, 4, 3, 1, 3]],
    "two polygons": [[1, 1, 4, 1, 4, 2, 1, 2], [1, 2, 4, 2, 4, 3, 1, 3]],
    # Columns 1, 2, 3, each with rows 1 and 2: 4 + 1 zeros, then 2 ones and 2 zeros in turn.
    "run lengths": {"size": [4, 8], "counts": [5, 2, 2, 2, 2, 2, 17]},
    "compressed": {"size": [4, 8], "counts": "522000?"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_coco_masks_of_every_kind_are_the_same_pixels(shape: str, tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(segmentation=SHAPES[shape])])
    instances = open_coco(tmp_path, has_masks=True).instances
    assert instances is not None
    assert instances.masks is not None
    expected = np.zeros((4, 8), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(instances.masks[0], expected)


def test_polygons_of_two_points_cover_nothing_beside_others() -> None:
    solid = [1, 1, 4, 1, 4, 3, 1, 3]
    np.testing.assert_array_equal(draw_polygons([solid, [5, 0, 7, 3]], 4, 8), draw_polygons([solid], 4, 8))


def test_run_lengths_are_read_as_pycocotools_reads_them() -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        mask = rng.random(size) < rng.random()
        encoded = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        np.testing.assert_array_equal(decode_runs(encoded["counts"], size), mask)
        runs = encode_runs(mask)
        assert mask_tools.frPyObjects(runs, *size) == encoded
        np.testing.assert_array_equal(decode_runs(runs["counts"], size), mask)


# Nothing, all zeros as a list and compressed (pycocotools writes 32 zeros as `P1`), in two runs, and an empty polygon.
BLANK = {
    "nothing": None,
    "no polygon": [],
    "a polygon without points": [[]],
    "zeros": {"size": [4, 8], "counts": [32]},
    "compressed zeros": {"size": [4, 8], "counts": "P1"},
    "zeros in three runs": {"size": [4, 8], "counts": [16, 0, 16]},
    "polygon without area": [[1, 1, 1, 1, 1, 1]],
    "polygons of two points and one": [[1, 1, 4, 3], [2, 2]],
}


@pytest.mark.parametrize("shape", BLANK)
def test_an_object_without_a_pixel_is_left_out_and_counted_once(shape: str, tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(segmentation=BLANK[shape]), annotation(2, category_id=2)])
    dataset = coco.open_objects(coco.Options(str(tmp_path)), "train", True)
    for _ in range(2):
        instances = dataset.load(0).instances
        assert instances is not None
        assert instances.masks is not None
        assert instances.labels.tolist() == [0]
        assert instances.boxes_xyxy.shape == (1, 4)
        assert instances.masks[0].sum() == 6
        assert instances.areas is not None
        assert instances.areas.tolist() == [6]
        assert dataset.repairs == {"annotations without a mask left out": 1}


@pytest.mark.parametrize("shape", ["nothing", "no polygon", "zeros", "compressed zeros"])
def test_masks_that_are_written_blank_are_counted_without_loading(shape: str, tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(segmentation=BLANK[shape])])
    dataset = coco.open_objects(coco.Options(str(tmp_path)), "train", True)
    assert dataset.repairs == {"annotations without a mask left out": 1}
    sample = dataset.load(0)
    assert boxes(sample) == []
    assert sample.instances is not None
    assert sample.instances.masks is not None
    assert sample.instances.masks.whole().shape == (0, 4, 8)


def test_an_area_that_is_not_given_is_the_masks_or_the_boxs_and_others_stay(tmp_path: Path) -> None:
    triangle = [[1, 0, 5, 0, 5, 4]]
    write_coco(tmp_path, [annotation(area=100), annotation(2, area=None, segmentation=triangle, bbox=[1, 0, 4, 4])])
    for has_masks in (True, False):
        instances = open_coco(tmp_path, has_masks).instances
        assert instances is not None
        assert instances.areas is not None
        pixels = 16 if instances.masks is None else instances.masks[1].sum()
        assert instances.areas.tolist() == [100, pixels]
        assert (pixels == 16) != has_masks


def test_a_box_outside_of_the_image_by_less_than_a_pixel_is_counted_as_left_out(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(bbox=[8.2, 1, 0.5, 2]), annotation(2)])
    dataset = coco.open_objects(coco.Options(str(tmp_path)), "train", False)
    assert dataset.repairs == {"boxes outside of the image left out": 1}
    assert boxes(dataset.load(0)) == [[1, 1, 4, 3]]


def test_all_wrong_annotations_are_said_at_once(tmp_path: Path) -> None:
    write_coco(tmp_path, [
        annotation(image_id=6), annotation(2), annotation(3, bbox=[1, 1, 30, 2]), annotation(4, category_id=1),
    ])  # fmt: skip
    with pytest.raises(
        DataError, match=r"annotation 1: .*\(2 more are wrong; `edgekd data check` lists them\)$"
    ) as caught:
        open_coco(tmp_path)
    assert [line.split(": ")[0][-12:] for line in caught.value.lines] == [
        "annotation 1",
        "annotation 4",
        "annotation 3",
    ]
    write_voc(tmp_path, voc_object("ox", (1, 1, 8, 4)) + voc_object("dog", (1, 1, 80, 4)))
    with pytest.raises(DataError, match="1 more are wrong"):
        open_voc(tmp_path)
    write_yolo(tmp_path, "7 0.5 0.5 0.5 0.5\n1 0.5 0.5\n1 9 9 9 9\n")
    with pytest.raises(DataError, match="row 1: .*2 more are wrong"):
        open_yolo(tmp_path)


def test_a_blank_mask_is_no_reason_to_lose_a_box(tmp_path: Path) -> None:
    assert boxes(open_coco(write_coco(tmp_path, [annotation(segmentation=BLANK["zeros"])]))) == [[1, 1, 4, 3]]


BAD_COCO: dict[str, tuple[dict[str, Any], str]] = {
    "orphan": ({"annotations": [annotation(image_id=6)]}, "no image has id 6"),
    "unknown category": ({"annotations": [annotation(category_id=1)]}, "no category has id 1"),
    "annotation id twice": ({"annotations": [annotation(), annotation()]}, "annotation id 1 occurs twice"),
    "short box": ({"annotations": [annotation(bbox=[1, 1, 3])]}, "expected 4 finite numbers"),
    "box with NaN": ({"annotations": [annotation(bbox=[1, float("nan"), 3, 2])]}, "expected 4 finite numbers"),
    "far outside": ({"annotations": [annotation(bbox=[1, 1, 30, 2])]}, "passes the edge"),
    "crowd 2": ({"annotations": [annotation(iscrowd=2)]}, "expected 0 or 1"),
    "no images": ({"images": None}, "images: expected a list"),
    "file elsewhere": ({"images": [{"id": 5, "file_name": "../a.png", "width": 8, "height": 4}]}, "expected file_name below"),
    "missing file": ({"images": [{"id": 5, "file_name": "b.png", "width": 8, "height": 4}]}, "1 of 1 listed images are"),
    "no height": ({"images": [{"id": 5, "file_name": "a.png", "width": 12}]}, "expected height and width"),
    "a huge polygon, no box": ({"annotations": [annotation(bbox=None, segmentation=[[1, 1, 10**400, 1, 2, 2]])]}, "bbox"),
    "no size, no file": ({"images": [{"id": 5, "file_name": "b.png"}]}, "expected height and width"),
    "class name twice": ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "listed twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_COCO)
def test_a_bad_coco_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, said = BAD_COCO[case]
    with pytest.raises(DataError, match=said) as caught:
        open_coco(write_coco(tmp_path, [], **change))
    assert "\n" not in str(caught.value)


BAD_SHAPES: dict[str, tuple[Any, str]] = {
    "too many pixels": ({"size": [4, 8], "counts": [5, 10**9]}, "add up to 4 x 8"),
    "negative": ({"size": [4, 8], "counts": [40, -8]}, "0 or more"),
    "another size": ({"size": [8, 4], "counts": [32]}, "expected size"),
    "not a string of runs": ({"size": [4, 8], "counts": "52 é"}, "not a run-length string"),
    "endless run": ({"size": [4, 8], "counts": "o" * 99}, "not a run-length string"),
    "ends in a run": ({"size": [4, 8], "counts": "5o"}, "middle of a run"),
    "half a point": ([[1, 1, 4, 1, 4]], "x and y in turn"),
    "far point": ([[1, 1, 4, 1, 1e7, 3]], "outside of the 4x8 image"),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_a_damaged_mask_is_refused_with_its_annotation(case: str, tmp_path: Path) -> None:
    shape, said = BAD_SHAPES[case]
    write_coco(tmp_path, [annotation(segmentation=shape)])
    with pytest.raises(DataError, match=said) as caught:
        open_coco(tmp_path, has_masks=True)
    assert "annotation 1" in str(caught.value)


QUICK = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.integers(0, 10**9))
def test_a_damaged_file_of_any_format_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)) + voc_object("cat", (3, 2, 4, 3)))
    write_coco(tmp_path, [annotation()])
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    for file in ("Annotations/a.xml", "annotations/instances_train.json", "labels/train/a.txt", "data.yaml"):
        content = bytearray((tmp_path / file).read_bytes())
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        (tmp_path / file).write_bytes(content[: dice.randint(1, 2 * len(content))])
    for opened in (open_voc, open_coco, open_yolo):
        try:
            opened(tmp_path)
        except DataError as exc:
            assert "\n" not in str(exc)


def test_coco_as_tables_and_other_tools_write_it(tmp_path: Path) -> None:
    """Whole numbers as floats, iscrowd null, no size, no box but polygons, folders by backslash."""
    entry = annotation(1.0, image_id=5.0, category_id=9.0, iscrowd=None)
    del entry["bbox"]
    write_coco(tmp_path, [entry], images=[{"id": 5.0, "file_name": "sub\\b.png"}])
    image(tmp_path / "train/sub/b.png")
    sample = open_coco(tmp_path, has_masks=True)
    assert sample.name == "sub/b.png"
    assert boxes(sample) == [[1, 1, 4, 3]]
    assert sample.instances is not None
    assert sample.instances.is_crowd is not None
    assert not sample.instances.is_crowd.any()
    write_coco(tmp_path, [entry], images=[{"id": 5, "file_name": "..\\b.png"}])
    image(tmp_path / "b.png")
    with pytest.raises(DataError, match="expected file_name below"):
        open_coco(tmp_path)


def test_voc_as_other_tools_write_it(tmp_path: Path) -> None:
    """No size, an image of another suffix in capitals, the classes in a file."""
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)), size=(0, 0))
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.JPG")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = voc.open_objects(voc.Options(str(tmp_path), classes="classes.txt"), "train", False)
    assert dataset.classes == NAMES
    assert boxes(dataset.load(0)) == [[0, 0, 8, 4]]

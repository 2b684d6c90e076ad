"""Boxes and masks from VOC, COCO and YOLO files: worked out by hand, damaged on purpose, and thrown at random."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.data.base import Sample
from edgekd.data.coco_masks import decode_runs
from edgekd.data.formats import coco, voc, yolo
from edgekd.errors import DataError

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


def test_voc_boxes_count_from_one_with_both_ends_included(tmp_path: Path) -> None:
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)) + voc_object("cat", (3, 2, 4, 3), difficult=1))
    sample = open_voc(tmp_path)
    assert boxes(sample) == [[0, 0, 8, 4], [2, 1, 4, 3]]
    assert sample.instances is not None
    assert sample.instances.labels.tolist() == [1, 0]
    assert sample.instances.is_crowd is not None
    assert sample.instances.is_crowd.tolist() == [False, True]
    assert boxes(open_voc(tmp_path, boxes_from_one=False))[0] == [1, 1, 8, 4]


def test_boxes_are_repaired_where_that_is_safe_and_counted(tmp_path: Path) -> None:
    objects = voc_object("dog", (0, 1, 9, 4)) + voc_object("cat", (3, 2, 3, 2))
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


def test_run_lengths_are_read_as_pycocotools_reads_them() -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        mask = rng.random(size) < rng.random()
        encoded = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        np.testing.assert_array_equal(decode_runs(encoded["counts"], size), mask)


# Nothing, all zeros as a list and compressed (pycocotools writes 32 zeros as `P1`), in two runs, and an empty polygon.
BLANK = {
    "nothing": None,
    "no polygon": [],
    "zeros": {"size": [4, 8], "counts": [32]},
    "compressed zeros": {"size": [4, 8], "counts": "P1"},
    "zeros in three runs": {"size": [4, 8], "counts": [16, 0, 16]},
    "polygon without area": [[1, 1, 1, 1, 1, 1]],
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
        assert instances.masks.sum(axis=(1, 2)).tolist() == [6]
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
    assert sample.instances.masks.shape == (0, 4, 8)


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
    "no size": ({"images": [{"id": 5, "file_name": "a.png"}]}, "expected height and width"),
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
    "two points": ([[1, 1, 2, 2]], "three points"),
    "far point": ([[1, 1, 4, 1, 1e7, 3]], "outside of the image"),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_a_damaged_mask_is_refused_with_its_annotation(case: str, tmp_path: Path) -> None:
    shape, said = BAD_SHAPES[case]
    write_coco(tmp_path, [annotation(segmentation=shape)])
    with pytest.raises(DataError, match=said) as caught:
        open_coco(tmp_path, has_masks=True)
    assert "annotation 1" in str(caught.value)


def test_yolo_rows_are_told_apart_one_by_one(tmp_path: Path) -> None:
    rows = "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.75 0.25 0.75 1.0 0.25 1.0\n1 0.5 0.5 0.5 0.5\n"
    dataset = yolo.open_objects(yolo.Options(str(write_yolo(tmp_path, rows))), "train", False)
    assert boxes(dataset.load(0)) == [[2, 1, 6, 3], [2, 1, 6, 4]]
    assert dict(dataset.repairs) == {"equal rows counted once": 1}


def test_yolo_polygons_are_masks_and_a_box_among_them_is_refused(tmp_path: Path) -> None:
    polygon = "0 0.25 0.25 0.75 0.25 0.75 1.0 0.25 1.0\n"
    instances = open_yolo(write_yolo(tmp_path, polygon), has_masks=True).instances
    assert instances is not None
    assert instances.masks is not None
    expected = np.zeros((4, 8), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(instances.masks[0], expected)
    with pytest.raises(DataError, match="row 2: a box, expected a polygon"):
        open_yolo(write_yolo(tmp_path, polygon + "1 0.5 0.5 0.5 0.5\n"), has_masks=True)


def test_a_yolo_image_without_labels_has_no_objects(tmp_path: Path) -> None:
    write_yolo(tmp_path, "")
    assert boxes(open_yolo(tmp_path)) == []
    image(tmp_path / "images/train/b.png")
    dataset = yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)
    assert [boxes(dataset.load(index)) for index in range(2)] == [[], []]
    assert dataset.repairs == {}


def test_a_yolo_split_without_any_label_file_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels").rename(tmp_path / "Labels")
    with pytest.raises(DataError, match=r"no image of split 'train' .* expected .*labels/train/a\.txt .* rename"):
        open_yolo(tmp_path)


def test_yolo_label_files_without_an_image_are_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    for name in ("b.txt", "c.txt", "classes.txt", ".d.txt", "e.csv"):
        (tmp_path / "labels/train" / name).write_text("1 0.5 0.5 0.5 0.5\n")
    dataset = yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)
    assert len(dataset) == 1
    assert dataset.repairs == {"label files without an image left out": 2}


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("[no, 7]", ("no", "7")),
        ("[1:30, 2024-01-01]", ("1:30", "2024-01-01")),
        ("{1: b, 0: a}", ("a", "b")),
        ("{'0': 0x1f}", ("0x1f",)),
        ("\n  0: null\n  1: 1.50", ("null", "1.50")),
    ],
)
def test_yolo_names_are_the_text_that_stands_there(names: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    write_yolo(tmp_path, "", names)
    assert yolo.open_objects(yolo.Options(str(tmp_path)), "train", False).classes == classes


def test_a_yolo_split_without_a_value_lies_where_it_usually_does(tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain:\n")
    assert boxes(open_yolo(tmp_path)) == [[2, 1, 6, 3]]


def test_a_yolo_polygon_without_a_pixel_is_left_out(tmp_path: Path) -> None:
    write_yolo(tmp_path, "0 0.5 0.5 0.5 0.5 0.51 0.51\n1 0.25 0.25 0.75 0.25 0.75 1.0 0.25 1.0\n")
    instances = open_yolo(tmp_path, has_masks=True).instances
    assert instances is not None
    assert instances.labels.tolist() == [1]


BAD_YOLO = {
    "class too high": ("2 0.5 0.5 0.5 0.5", "expected a class from 0 to 1"),
    "pixels": ("1 4 2 4 2", "expected shares"),
    "six fields": ("1 0.5 0.5 0.5 0.5 0.9", "got 6 fields"),
    "word": ("1 0.5 0.5 half 0.5", "expected numbers"),
    "infinite": ("1 0.5 0.5 inf 0.5", "expected shares"),
    "far outside": ("1 0.9 0.5 0.9 0.5", "passes the edge"),
}


@pytest.mark.parametrize("case", BAD_YOLO)
def test_a_bad_yolo_row_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    row, said = BAD_YOLO[case]
    with pytest.raises(DataError, match=said) as caught:
        open_yolo(write_yolo(tmp_path, row))
    assert "a.txt, row 1" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"), [("{0: cat, 2: dog}", "list of class names"), ("3", "list of class"), ("[a, a]", "twice")]
)
def test_bad_yolo_names_are_refused(names: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        open_yolo(write_yolo(tmp_path, "", names))


QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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

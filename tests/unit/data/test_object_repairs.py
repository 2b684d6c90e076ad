"""What is repaired in objects, and the same in every format: edges, corners, objects written twice, classes left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_files import annotation, boxes, image, voc_object, write_coco, write_voc, write_yolo

from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.coco_masks import draw_polygons
from edgekd.data.formats import coco, voc, yolo
from edgekd.errors import DataError

# Images are 8x4 (width x height). A box from x = 3 to 11, y = 1 to 3: 3 px beyond the right edge.
BEYOND: dict[str, Any] = {
    "coco": lambda root, **o: coco.open_objects(
        coco.Options(str(write_coco(root, [annotation(bbox=[3, 1, 8, 2])])), **o), "train", False
    ),
    "voc": lambda root, **o: voc.open_objects(
        voc.Options(str(write_voc(root, voc_object("dog", (4, 2, 11, 3)))), classes=("dog",), **o), "train", False
    ),
    "yolo": lambda root, **o: yolo.open_objects(
        yolo.Options(str(write_yolo(root, "1 0.875 0.5 1.0 0.5\n")), **o), "train", False
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_box_beyond_the_edge_is_refused_with_coordinate_limit_size_and_option(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        BEYOND[name](tmp_path)
    said = str(caught.value)
    for part in (
        "passes the edge of the 4x8 image (height x width) by 3.0 px at x = 11.0", "expected x from 0 to 8",
        "up to 1.0 px beyond are cut", "data.options.beyond_edge: cut",
    ):  # fmt: skip
        assert part in said


@pytest.mark.parametrize("name", BEYOND)
def test_a_box_beyond_the_edge_is_cut_on_request_and_counted(name: str, tmp_path: Path) -> None:
    dataset = BEYOND[name](tmp_path, beyond_edge="cut")
    assert dataset.repairs == {"boxes cut at the image's edge": 1}
    assert boxes(dataset.load(0)) == [[3, 1, 8, 3]]


def test_polygons_beyond_the_edge_are_refused_by_coordinate_or_cut(tmp_path: Path) -> None:
    """A rectangle from x = 5 to 12, y = -4 to 2: columns 5 to 7 of rows 0 and 1 are left."""
    polygon = [5, -4, 12, -4, 12, 2, 5, 2]
    write_coco(tmp_path / "coco", [annotation(bbox=[5, -4, 7, 6], segmentation=[polygon], area=None)])
    shares = " ".join(str(value / side) for value, side in zip(polygon, [8, 4] * 4, strict=True))
    write_yolo(tmp_path / "yolo", f"1 {shares}\n")
    expected = np.zeros((4, 8), bool)
    expected[:2, 5:] = True
    for module in (coco, yolo):
        root = str(tmp_path / module.__name__.rpartition(".")[2])
        dataset = module.open_objects(module.Options(root, beyond_edge="cut"), "train", True)  # type: ignore[attr-defined]
        objects = dataset.load(0).instances
        np.testing.assert_array_equal(objects.masks[0], expected)
        assert objects.boxes_xyxy.tolist() == [[5, 0, 8, 2]]
        assert objects.areas.tolist() == [6]
        assert dataset.repairs == {"boxes cut at the image's edge": 1}
    write_coco(tmp_path / "coco", [annotation(bbox=[5, 0, 3, 2], segmentation=[polygon])])
    dataset = coco.open_objects(coco.Options(str(tmp_path / "coco")), "train", True)
    with pytest.raises(DataError, match=r"4x8 image .*: y = -4.0, expected 0 to 4, up to 1.0 px .*beyond_edge: cut"):
        dataset.load(0)
    with pytest.raises(DataError, match="shares of the image's sides .*beyond_edge: cut"):
        yolo.open_objects(yolo.Options(str(tmp_path / "yolo")), "train", True)


def test_a_polygon_far_beyond_the_edge_is_cut_like_its_part_inside() -> None:
    """A triangle whose outline is a million pixels long: its upper edge is y = x / 2 within the image."""
    wide = draw_polygons([[0, 0, 1e6, 5e5, 0, 5e5]], 40, 40, is_cut=True)
    near = draw_polygons([[0, 0, 40, 20, 40, 40, 0, 40]], 40, 40)
    np.testing.assert_array_equal(wide, near)
    assert not draw_polygons([[50, 0, 90, 0, 90, 30]], 40, 40, is_cut=True).any()
    ring = draw_polygons([[-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]], 40, 40, is_cut=True)
    assert ring.all()


def test_cut_polygons_are_those_drawn_on_a_larger_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        polygon = rng.integers(-40, 80, 2 * int(rng.integers(3, 8)))
        cut = draw_polygons([polygon.tolist()], 40, 40, is_cut=True)
        whole = draw_polygons([(polygon + 40).tolist()], 120, 120)[40:80, 40:80]
        assert (cut != whole).sum() <= 16  # 1 %: a line that begins elsewhere is rounded elsewhere


def test_corners_in_the_wrong_order_are_set_right_and_counted(tmp_path: Path) -> None:
    """Boxes from (1, 1) to (4, 3), written from the other corner."""
    write_coco(tmp_path / "coco", [annotation(bbox=[4, 3, -3, -2], area=-6)])
    write_voc(tmp_path / "voc", voc_object("dog", (4, 3, 2, 2)))
    write_yolo(tmp_path / "yolo", "1 0.3125 0.5 -0.375 -0.5\n")
    opened = (
        coco.open_objects(coco.Options(str(tmp_path / "coco")), "train", False),
        voc.open_objects(voc.Options(str(tmp_path / "voc"), classes=("dog",)), "train", False),
        yolo.open_objects(yolo.Options(str(tmp_path / "yolo")), "train", False),
    )
    for dataset in opened:
        assert boxes(dataset.load(0)) == [[1, 1, 4, 3]]
        assert dataset.repairs == {"boxes with corners in the wrong order set right": 1}


OTHER = [[1, 1, 4, 1, 4, 3, 1, 2]]


@pytest.mark.parametrize(("entries", "has_masks", "count"), [
    ([annotation(), annotation(2)], True, 1),
    ([annotation(), annotation(2), annotation(3)], False, 1),
    ([annotation(), annotation(2, segmentation=OTHER)], True, 2),
    ([annotation(), annotation(2, segmentation=OTHER)], False, 1),
    ([annotation(), annotation(2, category_id=2)], True, 2),
    ([annotation(), annotation(2, bbox=[1, 1, 3, 2.5])], False, 2),
    ([annotation(), annotation(2, iscrowd=1)], False, 2),
])  # fmt: skip
def test_an_object_of_equal_class_box_and_mask_counts_once(
    entries: list[Any], has_masks: bool, count: int, tmp_path: Path
) -> None:
    dataset = coco.open_objects(coco.Options(str(write_coco(tmp_path, entries))), "train", has_masks)
    assert len(boxes(dataset.load(0))) == count
    assert dataset.repairs == ({"equal objects counted once": len(entries) - count} if count < len(entries) else {})


def test_equal_objects_count_once_in_voc_and_yolo(tmp_path: Path) -> None:
    write_voc(tmp_path / "voc", voc_object("dog", (1, 1, 8, 4)) * 3)
    write_yolo(tmp_path / "yolo", "1 .5 .5 .25 .25\n1 0.50 0.50 0.25 0.25\n0 .5 .5 .25 .25\n")
    dataset = voc.open_objects(voc.Options(str(tmp_path / "voc"), classes=("dog",)), "train", False)
    assert (len(boxes(dataset.load(0))), dataset.repairs) == (1, {"equal objects counted once": 2})
    dataset = yolo.open_objects(yolo.Options(str(tmp_path / "yolo")), "train", False)
    assert (len(boxes(dataset.load(0))), dataset.repairs) == (2, {"equal objects counted once": 1})


def labels(dataset: AnnotatedDataset) -> list[int]:
    objects = dataset.load(0).instances
    assert objects is not None
    return objects.labels.tolist()


def test_classes_are_chosen_and_ordered_and_objects_of_others_counted(tmp_path: Path) -> None:
    categories = [{"id": i, "name": name} for i, name in ((3, "ant"), (7, "bee"), (40, "cow"))]
    entries = [annotation(i, category_id=c, bbox=[i, 0, 1, 1]) for i, c in enumerate((7, 3, 40, 40))]
    write_coco(tmp_path / "coco", entries, categories=categories)
    write_yolo(tmp_path / "yolo", "1 .5 .5 .1 .1\n0 .5 .5 .2 .2\n2 .5 .5 .3 .3\n2 .5 .5 .4 .4\n", "[ant, bee, cow]")
    for module in (coco, yolo):
        root = str(tmp_path / module.__name__.rpartition(".")[2])
        every = module.open_objects(module.Options(root), "train", False)  # type: ignore[attr-defined]
        assert (every.classes, labels(every)) == (("ant", "bee", "cow"), [1, 0, 2, 2])
        some = module.open_objects(module.Options(root, classes=("cow", "bee")), "train", False)  # type: ignore[attr-defined]
        assert (some.classes, labels(some)) == (("cow", "bee"), [1, 0, 0])
        assert some.repairs == {"objects of classes that data.options.classes leaves out": 1}
        Path(root, "classes.txt").write_text("bee\n")
        listed = module.open_objects(module.Options(root, classes="classes.txt"), "train", False)  # type: ignore[attr-defined]
        assert (listed.classes, labels(listed)) == (("bee",), [0])
        with pytest.raises(DataError, match=r"has no class 'be', did you mean 'bee'|has no class 'be'.*bee"):
            module.open_objects(module.Options(root, classes=("be",)), "train", False)  # type: ignore[attr-defined]


ROOT = {"id": 0, "name": "cells", "supercategory": "none"}
CELLS = [{"id": 1, "name": "rbc", "supercategory": "cells"}, {"id": 2, "name": "wbc", "supercategory": "cells"}]


@pytest.mark.parametrize(("categories", "category", "classes", "label"), [
    ([ROOT, *CELLS], 2, ("rbc", "wbc"), 1),
    ([ROOT, *CELLS], 0, ("cells", "rbc", "wbc"), 0),  # an object has it
    ([ROOT | {"name": "fire"}, {"id": 1, "name": "fire", "supercategory": "fire"}], 1, ("fire",), 0),
    ([ROOT], 0, ("cells",), 0),
    ([ROOT | {"supercategory": "thing"}, *CELLS], 1, ("cells", "rbc", "wbc"), 1),
    ([ROOT, *CELLS, {"id": 3, "name": "dirt", "supercategory": "none"}], 1, ("cells", "rbc", "wbc", "dirt"), 1),
])  # fmt: skip
def test_roboflows_root_category_is_no_class_unless_an_object_has_it(
    categories: list[Any], category: int, classes: tuple[str, ...], label: int, tmp_path: Path
) -> None:
    write_coco(tmp_path, [annotation(category_id=category)], categories=categories)
    dataset = coco.open_objects(coco.Options(str(tmp_path)), "train", False)
    assert (dataset.classes, labels(dataset)) == (classes, [label])


def test_ids_of_coco_are_numbers_or_text_and_optional_keys_may_lack(tmp_path: Path) -> None:
    """Text that is a whole number is that number; numbers come before other texts."""
    categories = [{"id": "b", "name": "bee"}, {"id": "12", "name": "ant"}, {"id": "a", "name": "cow"}]
    images = [{"id": "img-1", "file_name": "a.png"}, {"id": 2.0, "file_name": "sub/b.png", "width": 8.0, "height": 4}]
    image(tmp_path / "train/sub/b.png")
    entries = [
        {"id": "x", "image_id": "img-1", "category_id": "b", "bbox": [1, 1, 3, 2]},
        {"image_id": "2", "category_id": 12, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"id": None, "image_id": 2, "category_id": "a", "bbox": [0, 0, 1, 1], "iscrowd": "1"},
    ]
    write_coco(tmp_path, entries, categories=categories, images=images)
    dataset = coco.open_objects(coco.Options(str(tmp_path)), "train", False)
    assert dataset.classes == ("ant", "cow", "bee")
    by_name = {dataset.name(i): dataset.load(i).instances for i in range(2)}
    assert by_name["a.png"].labels.tolist() == [2]  # type: ignore[union-attr]
    assert by_name["sub/b.png"].labels.tolist() == [0, 1]  # type: ignore[union-attr]
    assert by_name["sub/b.png"].is_crowd.tolist() == [False, True]  # type: ignore[union-attr]
    assert by_name["sub/b.png"].areas.tolist() == [6, 1]  # type: ignore[union-attr]


def test_crowds_are_objects_on_request(tmp_path: Path) -> None:
    runs = {"size": [4, 8], "counts": [5, 2, 2, 2, 2, 2, 17]}
    write_coco(tmp_path, [annotation(iscrowd=1, segmentation=runs)])
    for crowds, is_crowd in (("ignore", True), ("objects", False)):
        dataset = coco.open_objects(coco.Options(str(tmp_path), crowds=crowds), "train", True)  # type: ignore[arg-type]
        objects = dataset.load(0).instances
        assert objects is not None
        assert objects.is_crowd is not None
        assert objects.is_crowd.tolist() == [is_crowd]
        assert dataset.object_count == (not is_crowd)


@pytest.mark.parametrize("row", ["1.000000", "1e+00", "1.", "01", "+1"])
def test_a_yolo_class_is_any_spelling_of_its_number(row: str, tmp_path: Path) -> None:
    write_yolo(tmp_path, f"{row} 5.000e-01 .5 0.250000 2.5E-1\n")
    dataset = yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)
    assert labels(dataset) == [1]
    assert boxes(dataset.load(0)) == [[3, 1.5, 5, 2.5]]


@pytest.mark.parametrize("row", ["0.5", "nan", "inf", "-1", "2", "1_0", "x", "1e999"])
def test_anything_else_is_no_yolo_class(row: str, tmp_path: Path) -> None:
    write_yolo(tmp_path, f"{row} .5 .5 .25 .25\n")
    with pytest.raises(DataError, match="expected a class from 0 to 1"):
        yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)


def test_a_confidence_behind_a_yolo_box_is_left_out_and_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 .5 .5 .25 .25 0.93\n0 .5 .5 .5 .5\n")
    dataset = yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)
    assert boxes(dataset.load(0)) == [[3, 1.5, 5, 2.5], [2, 1, 6, 3]]
    assert dataset.repairs == {"confidences behind boxes left out": 1}


@pytest.mark.parametrize(("rows", "read"), [
    ("a.jpg\n", "a"), ("JPEGImages/a.jpg\n", "a"), ("a 1\n", "a"), ("a  -1\n", "a"), ("a\t0\n", "a"), ("Annotations/a.xml", "a"),
    ("/data/set/JPEGImages/a.JPG 1\n", None),
])  # fmt: skip
def test_a_voc_list_may_have_suffixes_folders_and_columns(rows: str, read: str | None, tmp_path: Path) -> None:
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)))
    (tmp_path / "ImageSets/Main/train.txt").write_text(rows)
    if read is None:
        with pytest.raises(DataError, match="expected names below the data set's folder"):
            voc.open_objects(voc.Options(str(tmp_path), classes=("dog",)), "train", False)
        return
    assert voc.open_objects(voc.Options(str(tmp_path), classes=("dog",)), "train", False).name(0) == read


def test_a_voc_name_with_a_number_behind_it_is_that_file(tmp_path: Path) -> None:
    write_voc(tmp_path, voc_object("dog", (1, 1, 8, 4)))
    for path in (tmp_path / "Annotations/a.xml", tmp_path / "JPEGImages/a.jpg"):
        path.with_stem("a 1").write_bytes(path.read_bytes())
    (tmp_path / "ImageSets/Main/train.txt").write_text("a 1\na\n")
    dataset = voc.open_objects(voc.Options(str(tmp_path), classes=("dog",)), "train", False)
    assert [dataset.name(0), dataset.name(1)] == ["a 1", "a"]
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\na.jpg\n")
    with pytest.raises(DataError, match="image 'a' is listed twice"):
        voc.open_objects(voc.Options(str(tmp_path), classes=("dog",)), "train", False)


@pytest.mark.parametrize(("box", "read", "is_from_zero"), [
    ((0, 1, 8, 4), [0, 1, 8, 4], True), ((2.5, 0.0, 6, 3.25), [2.5, 0, 6, 3.25], True), ((1, 1, 8, 4), [0, 0, 8, 4], False),
])  # fmt: skip
def test_voc_boxes_count_from_zero_where_one_begins_there(
    box: tuple[float, float, float, float], read: list[float], is_from_zero: bool, tmp_path: Path
) -> None:
    write_voc(tmp_path, voc_object("dog", box) + voc_object("cat", (3, 2, 4, 3)))
    options = voc.Options(str(tmp_path), classes=("cat", "dog"))
    dataset = voc.open_objects(options, "train", False)
    assert boxes(dataset.load(0)) == [read, [3, 2, 4, 3] if is_from_zero else [2, 1, 4, 3]]
    said = "boxes read as counting from 0, as an xmin or ymin is 0; data.options.boxes_from_one: true counts from 1"
    assert dataset.repairs == ({said: 2} if is_from_zero else {})


def test_all_splits_of_a_voc_set_count_alike_and_the_option_decides_before_the_files(tmp_path: Path) -> None:
    write_voc(tmp_path, voc_object("dog", (2, 1, 8, 4)))
    image(tmp_path / "JPEGImages/b.jpg")
    text = (tmp_path / "Annotations/a.xml").read_text().replace("<xmin>2<", "<xmin> 0.0 <")
    (tmp_path / "Annotations/b.xml").write_text(text)
    for from_one, expected in ((None, [2, 1, 8, 4]), (False, [2, 1, 8, 4]), (True, [1, 0, 8, 4])):
        options = voc.Options(str(tmp_path), classes=("dog",), boxes_from_one=from_one)
        assert boxes(voc.open_objects(options, "train", False).load(0)) == [expected]


def test_coco_of_odd_roots_and_values_is_refused_in_one_line(tmp_path: Path) -> None:
    write_coco(tmp_path, [])
    path = tmp_path / "annotations/instances_train.json"
    good = json.loads(path.read_text())
    odd: list[Any] = [
        None, [], [good], 3, "x", {}, {"images": {}}, good | {"images": [None]}, good | {"categories": []},
        good | {"categories": [{"id": True, "name": "a"}]}, good | {"categories": [{"id": 1, "name": ["a"]}]},
        good | {"categories": [{"id": "", "name": "a"}]}, good | {"images": [{"id": [1], "file_name": "a.png"}]},
        good | {"annotations": [annotation(bbox="1,1,3,2")]}, good | {"annotations": [annotation(bbox=[[1, 1], [3, 2]])]},
        good | {"annotations": [annotation(bbox=[1, 1, 1e300, 2])]}, good | {"annotations": [annotation(image_id=None)]},
        good | {"annotations": [annotation(category_id={})]}, good | {"annotations": [annotation(area="big")]},
        good | {"annotations": [annotation(id=[2])]}, good | {"annotations": [annotation(iscrowd=[])]},
    ]  # fmt: skip
    for content in odd:
        path.write_text(json.dumps(content))
        with pytest.raises(DataError) as caught:
            coco.open_objects(coco.Options(str(tmp_path)), "train", False)
        assert "\n" not in str(caught.value)

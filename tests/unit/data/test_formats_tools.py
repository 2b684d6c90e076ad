"""Exports of labelling tools as formats of their own: Label Studio's JSON and labelme's folder, worked out by hand."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_files import boxes, image
from PIL import Image

from edgekd.board.runs import encode_part, encode_runs
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.base import Instances
from edgekd.data.brush import decode_brush
from edgekd.data.check import check_dataset
from edgekd.data.coco_masks import decode_runs
from edgekd.data.formats import label_studio, labelme
from edgekd.data.outlines import ellipse, frame, turned
from edgekd.errors import DataError, EdgekdError


def instances(dataset: AnnotatedDataset, index: int = 0) -> Instances:
    objects = dataset.load(index).instances
    assert objects is not None
    return objects


def masks(dataset: AnnotatedDataset) -> np.ndarray:
    objects = instances(dataset)
    assert objects.masks is not None
    return np.stack([objects.masks[i] for i in range(len(objects.labels))])


def shape(kind: str, points: list[Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def write_labelme(root: Path, drawn: list[Any], name: str = "a", **change: Any) -> Path:
    image(root / f"train/{name}.jpg")
    content = {"version": "5.5.0", "flags": {}, "shapes": drawn, "imagePath": f"{name}.jpg", "imageData": "x" * 99}
    content |= {"imageHeight": 4, "imageWidth": 8} | change
    (root / f"train/{name}.json").write_text(json.dumps(content))
    return root


def open_labelme(root: Path, has_masks: bool = False, **options: Any) -> AnnotatedDataset:
    return labelme.open_objects(labelme.Options(str(root), **options), "train", has_masks)


def test_labelme_shapes_are_boxes_and_masks(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8) * 255).save(png, "PNG")
    shapes = [
        shape("polygon", [[1, 1], [4, 1], [4, 3], [1, 3]]),
        shape("rectangle", [[7, 4], [5, 2]], "dog"),  # from its lower right corner
        shape("circle", [[3, 2], [3, 0]], "dog"),
        shape("mask", [[2, 1], [3, 2]], "cat", mask=base64.b64encode(png.getvalue()).decode()),
        shape("point", [[1, 1]]),
        shape("linestrip", [[1, 1], [2, 2], [3, 3]]),
        shape("polygon", [[1, 1], [2, 2]]),
        shape("polygon", [[0, 0], [8, 0], [8, 4]], "__ignore__"),
    ]
    write_labelme(tmp_path, shapes)
    dataset = open_labelme(tmp_path, has_masks=True)
    assert dataset.classes == ("cat", "dog")
    assert instances(dataset).labels.tolist() == [0, 1, 1, 0]
    assert boxes(dataset.load(0)) == [[1, 1, 4, 3], [5, 2, 7, 4], [1, 0, 5, 4], [2, 1, 4, 3]]
    expected = np.zeros((4, 4, 8), bool)
    expected[0, 1:3, 1:4] = True
    expected[1, 2:4, 5:7] = True
    expected[3, 1:3, 2:4] = [[0, 1], [1, 1]]
    drawn = masks(dataset)
    np.testing.assert_array_equal(drawn[[0, 1, 3]], expected[[0, 1, 3]])
    assert drawn[2][1:3, 1:5].all()  # a circle of radius 2 around (3, 2)
    assert drawn[2].sum() <= 16
    assert dataset.repairs == {"points and lines left out": 3, "shapes with the label __ignore__ left out": 1}


def test_labelme_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    left, right = [[0, 0], [2, 0], [2, 2], [0, 2]], [[6, 2], [8, 2], [8, 4], [6, 4]]
    write_labelme(tmp_path, [
        shape("polygon", left, group_id=3), shape("polygon", right, group_id=3), shape("polygon", left, "dog", group_id=3),
    ])  # fmt: skip
    dataset = open_labelme(tmp_path, has_masks=True)
    assert instances(dataset).labels.tolist() == [0, 1]
    assert boxes(dataset.load(0)) == [[0, 0, 8, 4], [0, 0, 2, 2]]
    assert masks(dataset)[0].sum() == 8


def test_labelme_classes_come_from_all_splits_or_the_option(tmp_path: Path) -> None:
    write_labelme(tmp_path, [shape("rectangle", [[1, 1], [4, 3]], "dog"), shape("rectangle", [[1, 1], [4, 3]], "ant")])
    (tmp_path / "val").mkdir()
    content = json.loads((tmp_path / "train/a.json").read_text()) | {
        "shapes": [shape("rectangle", [[0, 0], [1, 1]], "bee")]
    }
    (tmp_path / "val/b.json").write_text(json.dumps(content))
    assert open_labelme(tmp_path).classes == ("ant", "bee", "dog")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\nbee\n")
    dataset = open_labelme(tmp_path, classes="labels.txt")
    assert dataset.classes == ("dog", "bee")
    assert instances(dataset).labels.tolist() == [0]
    assert dataset.repairs == {"objects of classes that data.options.classes leaves out": 1}


def test_labelme_images_are_found_as_named_or_beside_the_file(tmp_path: Path) -> None:
    box = [shape("rectangle", [[1, 1], [4, 3]])]
    for name, given in (
        ("a", "a.jpg"),
        ("b", "..\\pictures\\b.png"),
        ("c", "/home/me/c.jpg"),
        ("d", "../../secret.png"),
    ):
        write_labelme(tmp_path, box, name, imagePath=given)
    image(tmp_path / "pictures/b.png")
    image(tmp_path.parent / "secret.png")
    dataset = open_labelme(tmp_path)
    files = [dataset.files(i)[0].relative_to(tmp_path).as_posix() for i in range(4)]
    assert files == ["train/a.jpg", "pictures/b.png", "train/c.jpg", "train/d.jpg"]
    assert [dataset.name(i) for i in range(4)] == ["a", "b", "c", "d"]
    whole = labelme.open_objects(labelme.Options(str(tmp_path)), "all", False)
    assert [whole.name(i) for i in range(4)] == ["train/a", "train/b", "train/c", "train/d"]


BAD_LABELME: dict[str, tuple[Any, str]] = {
    "no list": ([None], "expected a shape with a label"),
    "no label": ([shape("polygon", [[1, 1]]) | {"label": None}], "expected a shape with a label"),
    "unknown kind": ([shape("sphere", [[1, 1], [2, 2]])], "expected a polygon"),
    "kind that is no text": ([shape("", [[1, 1], [2, 2]]) | {"shape_type": [1]}], "expected a polygon"),
    "one corner": ([shape("rectangle", [[1, 1]])], "expected a polygon, a rectangle or circle of two points"),
    "rectangle of three": (
        [shape("rectangle", [[1, 1], [2, 1], [2, 2]])],
        "expected a polygon, a rectangle or circle of two",
    ),
    "points in a row": ([shape("polygon", [1, 1, 2, 2, 3, 3])], "expected points"),
    "nan": ([shape("polygon", [[1, float("nan")], [2, 2], [3, 3]])], "expected finite numbers"),
    "huge": ([shape("polygon", [[1, 10**400], [2, 2], [3, 3]])], "expected finite numbers"),
    "no mask": ([shape("mask", [[1, 1], [2, 2]])], "expected a PNG in base64"),
    "broken mask": ([shape("mask", [[1, 1], [2, 2]], mask="????")], "expected a PNG in base64"),
    "far": ([shape("rectangle", [[1, 1], [40, 3]])], "passes the edge of the 4x8 image"),
}


@pytest.mark.parametrize("case", BAD_LABELME)
def test_a_bad_labelme_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    shapes, said = BAD_LABELME[case]
    with pytest.raises(DataError, match=said) as caught:
        open_labelme(write_labelme(tmp_path, shapes), classes=("cat",))
    assert "a.json, shape 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_labelme_file_of_another_image_or_none_is_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path, [], imageHeight=8, imageWidth=4)
    with pytest.raises(DataError, match="imageHeight and imageWidth are 8 and 4, .* is 4x8"):
        open_labelme(tmp_path, classes=("cat",))
    write_labelme(tmp_path, [])
    (tmp_path / "train/a.jpg").unlink()
    with pytest.raises(DataError, match="1 of 1 listed images are missing"):
        open_labelme(tmp_path, classes=("cat",))
    for content in ("[]", "3", "{}", '{"shapes": 3}', "{"):
        (tmp_path / "train/a.json").write_text(content)
        with pytest.raises(DataError, match="expected labelme's object|not readable as JSON"):
            open_labelme(tmp_path)


def region(value: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {
        "id": "r",
        "type": "x",
        "value": value,
        "original_width": 8,
        "original_height": 4,
        "image_rotation": 0,
    } | change


def task(result: list[Any] | None, address: str = "/data/upload/1/0123abcd-a.jpg", **change: Any) -> dict[str, Any]:
    annotations = [] if result is None else [{"id": 1, "was_cancelled": False, "result": result}]
    return {"id": 1, "data": {"image": address}, "annotations": annotations, "predictions": []} | change


def open_studio(root: Path, tasks: Any, has_masks: bool = False, **options: Any) -> AnnotatedDataset:
    image(root / "images/a.jpg")
    (root / "export.json").write_text(json.dumps(tasks))
    return label_studio.open_objects(label_studio.Options(str(root), "export.json", **options), "all", has_masks)


RECTANGLE = {"x": 12.5, "y": 25, "width": 37.5, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}


def test_label_studios_shapes_are_percent_of_the_image(tmp_path: Path) -> None:
    """Of an 8x4 image: x = 12.5 % is 1 px, y = 25 % is 1 px."""
    regions = [
        region(RECTANGLE),
        region({"points": [[12.5, 25], [50, 25], [50, 75], [12.5, 75]], "closed": True, "polygonlabels": ["cat"]}),
        region({"x": 50, "y": 50, "radiusX": 25, "radiusY": 50, "rotation": 0, "ellipselabels": ["cat"]}),
        region({"x": 50, "y": 50, "width": 1, "keypointlabels": ["cat"]}),
        region({"choices": ["good"]}),
        {"from_id": "r", "to_id": "s", "type": "relation", "direction": "right"},
    ]
    dataset = open_studio(tmp_path, [task(regions)], has_masks=True)
    assert dataset.classes == ("cat", "dog")
    assert instances(dataset).labels.tolist() == [1, 0, 0]
    np.testing.assert_allclose(boxes(dataset.load(0)), [[1, 1, 4, 3], [1, 1, 4, 3], [2, 0, 6, 4]], atol=1e-6)
    drawn = masks(dataset)
    expected = np.zeros((4, 8), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(drawn[0], expected)
    np.testing.assert_array_equal(drawn[1], expected)
    assert dataset.repairs == {"shapes without an area left out": 1}


def test_a_turned_rectangle_is_boxed_and_exact_as_a_mask(tmp_path: Path) -> None:
    """2x1 px at (4, 1), turned by 90 degrees clockwise around its upper left corner: 1 px to the left, 2 px down."""
    value = {"x": 50, "y": 25, "width": 25, "height": 25, "rotation": 90, "rectanglelabels": ["dog"]}
    dataset = open_studio(tmp_path, [task([region(value)])])
    np.testing.assert_allclose(boxes(dataset.load(0)), [[3, 1, 4, 3]], atol=1e-6)
    assert dataset.repairs == {"turned shapes read as the boxes around them": 1}
    dataset = open_studio(tmp_path, [task([region(value)])], has_masks=True)
    assert (np.argwhere(masks(dataset)[0]) == [[1, 3], [2, 3]]).all()
    assert dataset.repairs == {}


def brush(mask: np.ndarray) -> list[int]:
    """Pack a mask as Label Studio does, with lengths of 3, 4, 8 and 16 bits; single values and runs in turn."""
    values = (np.repeat(mask.reshape(-1), 4) * 255).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    at = 0
    while at < len(values):
        count = next((i for i, v in enumerate(values[at:]) if v != values[at]), len(values) - at)
        if at % 3 == 0:  # single values, all of them written
            count = min(count + 1, 8, len(values) - at)
            bits += "000" + f"{count - 1:03b}" + "".join(f"{v:08b}" for v in values[at : at + count])
        else:
            count = min(count, 256)
            bits += "110" + f"{count - 1:08b}" + f"{values[at]:08b}"
        at += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_brush_masks_are_read_as_they_were_packed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((4, 8)) < share
        np.testing.assert_array_equal(decode_brush(brush(mask), (4, 8)), mask)
    mask = np.zeros((4, 8), bool)
    mask[1:3, 2:5] = [[1, 0, 1], [1, 1, 0]]
    value = {"format": "rle", "rle": brush(mask), "brushlabels": ["dog"]}
    dataset = open_studio(tmp_path, [task([region(value)])], has_masks=True)
    np.testing.assert_array_equal(masks(dataset)[0], mask)
    assert boxes(dataset.load(0)) == [[2, 1, 5, 3]]


@pytest.mark.parametrize(("runs", "said"), [
    (None, "list of bytes"), ([0, 300], "list of bytes"), ([0, 0, 0], "ends in the middle"),
    (brush(np.ones((4, 7), bool)), "got 112 values"),
    (brush(np.ones((4, 8), bool))[:12], "ends in the middle"),
])  # fmt: skip
def test_a_damaged_brush_mask_is_refused(runs: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"region 1: the brush mask is damaged: .*{said}"):
        open_studio(tmp_path, [task([region({"format": "rle", "rle": runs, "brushlabels": ["dog"]})])])


@pytest.mark.parametrize("address", [
    "/data/upload/1/0123abcd-a.jpg", "a.jpg", "/data/local-files/?d=my%20photos/a.jpg", "s3://bucket/x/a.jpg",
    "https://host.org/x/a.jpg?token=1", "C:\\photos\\a.jpg",
])  # fmt: skip
def test_an_image_is_found_by_the_end_of_its_address(address: str, tmp_path: Path) -> None:
    dataset = open_studio(tmp_path, [task([region(RECTANGLE)], address)])
    assert dataset.files(0) == (tmp_path / "images/a.jpg",)
    assert dataset.name(0) == "a.jpg"


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        image(tmp_path / f"images/{folder}/b.jpg")
    addresses = [f"/data/local-files/?d=photos/{folder}/b.jpg" for folder in "yx"]
    dataset = open_studio(tmp_path, [task([region(RECTANGLE)], address) for address in addresses])
    assert [dataset.name(0), dataset.name(1)] == ["y/b.jpg", "x/b.jpg"]
    with pytest.raises(DataError, match="task 1: 2 images are called b.jpg"):
        open_studio(tmp_path, [task([region(RECTANGLE)], "b.jpg")])
    with pytest.raises(DataError, match="2 tasks|two tasks"):
        open_studio(tmp_path, [task([region(RECTANGLE)]), task([region(RECTANGLE)])])


def test_ground_truth_goes_before_other_annotations_and_images_without_one_are_left_out(tmp_path: Path) -> None:
    for name in "bcd":
        image(tmp_path / f"images/{name}.jpg")
    other = region(RECTANGLE | {"rectanglelabels": ["cat"]})
    several = task(None) | {"annotations": [
        {"was_cancelled": True, "result": [other]}, {"result": [other]}, {"ground_truth": True, "result": [region(RECTANGLE)]},
    ]}  # fmt: skip
    cancelled = task(None, "c.jpg", annotations=[{"was_cancelled": True, "result": [other]}])
    dataset = open_studio(tmp_path, [several, task([], "b.jpg"), cancelled, task(None, "d.jpg")])
    assert [dataset.name(i) for i in range(len(dataset))] == ["a.jpg", "b.jpg"]
    assert dataset.classes == ("dog",)
    assert [len(boxes(dataset.load(i))) for i in range(2)] == [1, 0]
    assert dataset.repairs == {
        "further annotations of an image left out": 1,
        "images without an annotation left out": 2,
    }


def test_a_shape_whose_label_is_an_entry_of_its_own_counts_once(tmp_path: Path) -> None:
    plain = {key: value for key, value in RECTANGLE.items() if key != "rectanglelabels"}
    regions = [region(plain), region(plain | {"labels": ["dog"]}), region(plain, id="s")]
    dataset = open_studio(tmp_path, [task(regions)])
    assert boxes(dataset.load(0)) == [[1, 1, 4, 3]]
    assert dataset.repairs == {"regions without a class left out": 1}


def test_an_image_resized_after_labelling_keeps_its_shares_and_a_turned_one_is_refused(tmp_path: Path) -> None:
    larger = region(RECTANGLE, original_width=4000, original_height=2001)
    assert boxes(open_studio(tmp_path, [task([larger])]).load(0)) == [[1, 1, 4, 3]]
    for change in ({"original_width": 4, "original_height": 8}, {"image_rotation": 90}):
        with pytest.raises(DataError, match="drawn on an image"):
            open_studio(tmp_path, [task([region(RECTANGLE, **change)])])


BAD_STUDIO: dict[str, tuple[Any, str]] = {
    "empty": ([], "list of tasks"),
    "an object": ({}, "list of tasks"),
    "numbers": ([1], "list of tasks"),
    "JSON-MIN": ([{"image": "a.jpg", "label": [RECTANGLE]}], "not as JSON-MIN"),
    "no annotations": ([{"data": {"image": "a.jpg"}}], "annotations: expected a list"),
    "no result": ([task(None, annotations=[{}])], "result: expected a list"),
    "result of numbers": ([task([3])], "result: expected a list"),
    "no image": ([task([region(RECTANGLE)], "text")], "no image in its data"),
    "image elsewhere": ([task([region(RECTANGLE)], "zz.jpg")], "no image zz.jpg below"),
    "two classes": ([task([region(RECTANGLE | {"rectanglelabels": ["a", "b"]})])], "expected one class"),
    "text": ([task([region(RECTANGLE | {"x": "12"})])], "expected finite numbers"),
    "nan": ([task([region(RECTANGLE | {"width": float("nan")})])], "expected finite numbers"),
    "huge": ([task([region(RECTANGLE | {"width": 10**400})])], "expected finite numbers"),
    "far": ([task([region(RECTANGLE | {"width": 200})])], "passes the edge"),
    "points of text": ([task([region({"points": "x", "polygonlabels": ["dog"]})])], "expected points"),
    "size of text": ([task([region(RECTANGLE, original_width="8")])], "original_height, original_width: expected"),
}


@pytest.mark.parametrize("case", BAD_STUDIO)
def test_a_bad_label_studio_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    tasks, said = BAD_STUDIO[case]
    with pytest.raises(DataError, match=said) as caught:
        open_studio(tmp_path, tasks)
    assert "\n" not in str(caught.value)


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    float("inf"),
    10**400,
    "",
    "x",
    [],
    [[]],
    [None],
    {},
    {"a": {}},
    [[[[]]]],
    "\x00",
)


@pytest.mark.parametrize("write", [
    lambda root, value, key: open_studio(root, [task([region(RECTANGLE | {key: value})])]),
    lambda root, value, key: open_studio(root, [task([region(RECTANGLE) | {key: value}])]),
    lambda root, value, key: open_studio(root, [task([region(RECTANGLE)]) | {key: value}]),
    lambda root, value, key: open_labelme(write_labelme(root, [shape("polygon", [[1, 1], [4, 1], [4, 3]]) | {key: value}])),
    lambda root, value, key: open_labelme(write_labelme(root, [shape("mask", [[1, 1], [4, 1]]) | {key: value}])),
    lambda root, value, key: open_labelme(write_labelme(root, [shape("circle", [[1, 1], [2, 1]])], **{key: value})),
])  # fmt: skip
def test_odd_values_are_read_or_refused_in_one_line(write: Callable[[Path, Any, str], Any], tmp_path: Path) -> None:
    keys = (
        "x", "width", "rotation", "rectanglelabels", "labels", "rle", "points", "vertices", "value", "id", "data", "annotations",
        "original_width", "image_rotation", "label", "shape_type", "group_id", "mask", "shapes", "imagePath", "imageHeight",
    )  # fmt: skip
    refused = 0
    for key in keys:
        for value in ODD:
            try:
                dataset = write(tmp_path, value, key)
                check_dataset(dataset, "train")
            except EdgekdError as exc:
                refused += 1
                assert "\n" not in str(exc)
                assert len(str(exc)) < 1000
    assert refused


def test_parts_are_encoded_as_whole_masks_are() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        size = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        height, width = int(rng.integers(0, size[0] + 1)), int(rng.integers(0, size[1] + 1))
        y, x = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
        part = rng.random((height, width)) < rng.random()
        whole = np.zeros(size, bool)
        whole[y : y + height, x : x + width] = part
        runs = encode_part(part, (x, y), size)
        np.testing.assert_array_equal(decode_runs(runs, size), whole)
        assert len(runs) <= len(encode_runs(whole)["counts"]) + 1


def test_an_ellipse_is_within_a_quarter_of_a_pixel() -> None:
    points = np.array(ellipse(10, 20, 300, 100)).reshape(-1, 2)
    np.testing.assert_allclose(((points - [10, 20]) ** 2 / [300**2, 100**2]).sum(axis=1), 1)
    middles = (points + np.roll(points, 1, axis=0)) / 2 - [10, 20]
    assert (300 * (1 - np.hypot(middles[:, 0] / 300, middles[:, 1] / 100))).max() <= 0.25
    np.testing.assert_allclose(frame(turned([1, 0, 3, 0, 3, 1, 1, 1], 1, 0, 90)), [0, 0, 1, 2], atol=1e-9)

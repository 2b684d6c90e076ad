"""Boxes and masks from YOLO files: worked out by hand, and damaged on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from object_files import (
    boxes,
    image,
    open_yolo,
    write_yolo,
)
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from edgekd.data.formats import yolo
from edgekd.data.images import upright_size
from edgekd.errors import DataError


def test_yolo_rows_are_told_apart_one_by_one(tmp_path: Path) -> None:
    rows = "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.75 0.25 0.75 1.0 0.25 1.0\n1 0.5 0.5 0.5 0.5\n"
    dataset = yolo.open_objects(yolo.Options(str(write_yolo(tmp_path, rows))), "train", False)
    assert boxes(dataset.load(0)) == [[2, 1, 6, 3], [2, 1, 6, 4]]
    assert dict(dataset.repairs) == {"equal objects counted once": 1}


def test_a_wrong_yolo_row_is_named_by_its_line(tmp_path: Path) -> None:
    rows = "0 0.5 0.5 0.5 0.5\n\n0 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.5 0.5\n"
    with pytest.raises(DataError, match=r"a\.txt, row 4: expected a class"):
        open_yolo(write_yolo(tmp_path, rows))


def test_yolo_image_folders_may_lie_elsewhere(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        write_yolo(folder, "1 0.5 0.5 0.5 0.5\n")
    places = f"[{one}/images/train, {other}/images/train]"
    (one / "data.yaml").write_text(f"names: [x, y]\ntrain: {places}\n")
    dataset = yolo.open_objects(yolo.Options(str(one)), "train", False)
    names = [dataset.name(index) for index in range(2)]
    assert names == ["images/train/a.png", f"{other.as_posix()}/images/train/a.png"]
    assert [boxes(dataset.load(index)) for index in range(2)] == [[[2, 1, 6, 3]]] * 2


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_size_of_an_image_is_read_without_its_pixels(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / f"plain.{suffix}")
    Image.new("RGB", (8, 4)).save(tmp_path / f"turned.{suffix}", exif=turned)

    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    for kind in (PngImageFile, JpegImageFile):
        monkeypatch.setattr(kind, "load", load)
    assert upright_size(tmp_path / f"plain.{suffix}") == (4, 8)
    assert upright_size(tmp_path / f"turned.{suffix}") == (8, 4)


def test_yolo_files_as_other_tools_write_them(tmp_path: Path) -> None:
    """`path` below the yaml, `valid` for val, an absolute path in a list and one below `path`, the class as 1.0."""
    write_yolo(tmp_path / "sub", "1.0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "sub/lists").mkdir()
    (tmp_path / "sub/list.txt").write_text(f"{tmp_path}/sub/images/train/a.png\n")
    (tmp_path / "sub/lists/test.txt").write_text("images/train/a.png\n")
    (tmp_path / "data.yaml").write_text(
        "path: sub\nnames: [x, y]\ntrain: images/train\nvalid: list.txt\ntest: lists/test.txt\n"
    )
    for split in ("train", "val", "test"):
        sample = yolo.open_objects(yolo.Options(str(tmp_path)), split, False).load(0)
        assert boxes(sample) == [[2, 1, 6, 3]]
        assert sample.instances is not None
        assert sample.instances.labels.tolist() == [1]


def test_the_recipes_root_goes_before_the_path_in_data_yaml(tmp_path: Path) -> None:
    """A copied data set says where it once was."""
    for name in ("old", "new"):
        write_yolo(tmp_path / name, "1 0.5 0.5 0.5 0.5\n", names=f"[x, y]\npath: {tmp_path}/old")
    dataset = yolo.open_objects(yolo.Options(str(tmp_path / "new")), "train", False)
    assert dataset.files(0) == (tmp_path / "new/images/train/a.png",)


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


def test_a_yolo_split_may_be_a_list_of_images_or_of_folders(tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    image(tmp_path / "images/train/b.png")
    (tmp_path / "labels/train/b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "list.txt").write_text("./images/train/b.png\n\n")
    config = (tmp_path / "data.yaml").read_text() + "one: list.txt\nboth: [list.txt, images/train]\n"
    (tmp_path / "data.yaml").write_text(config)
    one, both = (yolo.open_objects(yolo.Options(str(tmp_path)), split, False) for split in ("one", "both"))
    assert [one.name(0), len(one), one.repairs] == ["images/train/b.png", 1, {}]
    assert [both.name(index) for index in range(2)] == ["images/train/a.png", "images/train/b.png"]
    assert len(both) == 2


@pytest.mark.parametrize(("row", "said"), [
    ("../b.png", "row 2: expected an image's path below"), ("/b.png", "row 2: expected an image's path below"),
    ("images/train/x.png", "row 2: no image images/train/x.png below"),
])  # fmt: skip
def test_a_yolo_list_with_a_wrong_row_is_refused_with_it(row: str, said: str, tmp_path: Path) -> None:
    write_yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "list.txt").write_text(f"images/train/a.png\n{row}\n")
    (tmp_path / "data.yaml").write_text((tmp_path / "data.yaml").read_text() + "one: list.txt\n")
    with pytest.raises(DataError, match=said):
        yolo.open_objects(yolo.Options(str(tmp_path)), "one", False)


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


def test_of_keypoint_rows_the_box_is_read(tmp_path: Path) -> None:
    write_yolo(tmp_path, "0 0.5 0.5 0.25 0.5 0.1 0.1 0.9 0.9\n", "[cat, dog]\nkpt_shape: [2, 2]")
    assert boxes(open_yolo(tmp_path)) == [[3.0, 1.0, 5.0, 3.0]]
    write_yolo(tmp_path, "", "[cat, dog]\nkpt_shape: 17")
    with pytest.raises(DataError, match="kpt_shape: expected"):
        open_yolo(tmp_path)


def test_images_of_hidden_folders_are_not_read(tmp_path: Path) -> None:
    write_yolo(tmp_path, "0 0.5 0.5 0.25 0.5\n")
    image(tmp_path / "images/train/.ipynb_checkpoints/a-checkpoint.png")
    assert len(yolo.open_objects(yolo.Options(str(tmp_path)), "train", False)) == 1


BAD_YOLO = {
    "class too high": ("2 0.5 0.5 0.5 0.5", "expected a class from 0 to 1"),
    "pixels": ("1 4 2 4 2", "expected shares"),
    "eight fields": ("1 0.5 0.5 0.5 0.5 0.9 0.5 0.5", "got 8 fields"),
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


@pytest.mark.parametrize(("nc", "is_right"), [("2", True), ("5", False), ("many", False)])
def test_a_number_of_classes_that_is_not_that_of_the_names_is_refused(tmp_path: Path, nc: str, is_right: bool) -> None:
    root = write_yolo(tmp_path, "0 .5 .5 .25 .25\n")
    (root / "data.yaml").write_text(f"names: [cat, dog]\nnc: {nc}\ntrain: images/train\nval: images/val\n")
    if is_right:
        assert open_yolo(root).instances is not None
    else:
        with pytest.raises(DataError, match=f"nc is '{nc}', and names has 2 classes"):
            open_yolo(root)

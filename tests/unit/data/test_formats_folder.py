from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgekd.core.plugin_options import plugin_options
from edgekd.data.check import check_dataset
from edgekd.data.formats.folder import Options, open_dataset
from edgekd.data.paired import REFUSED, checked_classes, label_table, read_lines, remap
from edgekd.errors import DataError

MASK = np.array([[0, 1, 2], [255, 2, 1]], np.uint8)
Writer = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Return a function that adds one image with its mask to `tmp_path`, which starts with three classes."""
    (tmp_path / "classes.txt").write_text("background\nroad\ncar\n")

    def add(image: str, mask: str | None = None, labels: np.ndarray = MASK, size: tuple[int, int] = (3, 2)) -> None:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / image)
        if mask is not None:
            (tmp_path / mask).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(tmp_path / mask)

    return add


def refusal(options: Options, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(options, split).load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_linked_folders_are_read_and_hidden_ones_are_not(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    for folder in ("images", "masks"):
        write(f"elsewhere/{folder}/b.png")
        (tmp_path / folder / "train/linked").symlink_to(tmp_path / "elsewhere" / folder)
        (tmp_path / folder / "train/round").symlink_to(tmp_path / folder)  # a link to a folder around it
    write("images/train/.ipynb_checkpoints/a-checkpoint.png")
    dataset = open_dataset(Options(str(tmp_path)), "train")
    assert [dataset.name(index) for index in range(len(dataset))] == ["a", "linked/b"]


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every folder"
)
def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    write("images/train/b/b.png", "masks/train/b/b.png")
    (tmp_path / "images/train/b").chmod(0)
    try:
        assert "images/train/b: the folder cannot be read" in refusal(Options(str(tmp_path)))
    finally:
        (tmp_path / "images/train/b").chmod(0o700)


def test_a_name_that_no_report_can_show_is_refused(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    for folder in ("images", "masks"):
        (tmp_path / folder / "train/a.png").rename(tmp_path / folder / os.fsdecode(b"train/caf\xe9.png"))
    assert "the name of a file cannot be shown" in refusal(Options(str(tmp_path)))


def test_pairs_by_stem_whatever_the_suffix_and_loads(tmp_path: Path, write: Writer):
    write("images/train/b.jpg", "masks/train/b.png")
    write("images/train/city/a.png", "masks/train/city/a.tif")
    (tmp_path / "images/train/._b.jpg").write_bytes(b"macOS leaves these")
    (tmp_path / "images/train/notes.txt").write_text("ignored")
    dataset = open_dataset(Options(str(tmp_path)), "train")
    assert [dataset.name(index) for index in range(len(dataset))] == ["b", "city/a"]
    assert dataset.classes == ("background", "road", "car")
    assert dataset.files(0) == (tmp_path / "images/train/b.jpg", tmp_path / "masks/train/b.png")
    sample = dataset.load(1)
    np.testing.assert_array_equal(sample.mask, MASK)
    assert sample.image.shape == (2, 3, 3)


def test_ending_pairs_masks_in_the_same_folder(tmp_path: Path, write: Writer):
    write("train/a.png", "train/a_mask.png")
    write("train/b.png", "train/b_mask.png")
    options = Options(str(tmp_path), images="{split}", masks="{split}", mask_ending="_mask")
    dataset = open_dataset(options, "train")
    assert [dataset.name(index) for index in range(len(dataset))] == ["a", "b"]
    np.testing.assert_array_equal(dataset.load(0).mask, MASK)
    assert "mask_ending" in refusal(Options(str(tmp_path), images="{split}", masks="{split}"))


def test_classes_may_be_given_in_the_recipe(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    assert open_dataset(Options(str(tmp_path), classes=("x", "y", "z")), "train").classes == ("x", "y", "z")


def test_label_outside_the_classes_names_file_label_pixels_and_classes(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png", np.array([[37, 37, 0], [37, 200, 1]], np.uint8))
    message = refusal(Options(str(tmp_path)))
    assert f"{tmp_path / 'masks/train/a.png'}: label 37 on 3 pixels (and 1 more such labels)" in message
    assert "none of the 3 classes, expected 0..2, or 255" in message


def test_ignore_index_of_the_files_becomes_255(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 1, 9], [9, 2, 9]], np.uint8))
    mask = open_dataset(Options(str(tmp_path), ignore_index=9), "train").load(0).mask
    assert mask.tolist() == [[0, 1, 255], [255, 2, 255]]


def test_255_is_refused_when_another_ignore_index_is_declared(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    assert "label 255 on 1 pixel is" in refusal(Options(str(tmp_path), ignore_index=9))


def test_sixteen_bit_mask_with_65535_ignored(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 65535, 2]] * 2, np.uint16))
    dataset = open_dataset(Options(str(tmp_path), ignore_index=65535), "train")
    assert dataset.load(0).mask.tolist() == [[0, 255, 2]] * 2
    assert "label 65535" in refusal(Options(str(tmp_path)))


@pytest.mark.parametrize("ignore_index", [-1, 1, 65536])
def test_impossible_ignore_index_is_refused(tmp_path: Path, write: Writer, ignore_index: int):
    write("images/train/a.png", "masks/train/a.png")
    message = refusal(Options(str(tmp_path), ignore_index=ignore_index))
    assert "data.options.ignore_index" in message
    assert str(ignore_index) in message


def test_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png", size=(4, 2))
    assert "mask is 2x3 (height x width), image a.png is 2x4" in refusal(Options(str(tmp_path)))


def test_turned_mask_is_explained_by_exif(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png", size=(2, 3))
    assert "EXIF" in refusal(Options(str(tmp_path)))


def test_missing_masks_are_counted_and_the_first_is_named(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    write("images/train/b.png")
    write("images/train/c.png")
    message = refusal(Options(str(tmp_path)))
    assert message.startswith(f"2 of 3 images have no mask, the first is {tmp_path / 'images/train/b.png'}")


def test_mask_without_image_is_refused(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    (tmp_path / "masks/train/z.png").write_bytes(b"")
    assert "1 of 2 masks have no image" in refusal(Options(str(tmp_path)))


def test_two_images_of_one_name_are_refused(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    write("images/train/a.jpg")
    assert "same name" in refusal(Options(str(tmp_path)))


def test_empty_split_is_refused(tmp_path: Path, write: Writer):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "masks/train").mkdir(parents=True)
    assert "empty split" in refusal(Options(str(tmp_path)))


def test_wrong_split_names_the_splits_that_exist(tmp_path: Path, write: Writer):
    write("images/train/a.png", "masks/train/a.png")
    message = refusal(Options(str(tmp_path)), "vall")
    assert "vall does not exist" in message
    assert "holds train" in message


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path, write: Writer):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train").write_text("")
    assert "is a file, expected a folder" in refusal(Options(str(tmp_path)))


def test_template_without_split_is_refused(tmp_path: Path, write: Writer):
    assert "{split}" in refusal(Options(str(tmp_path), images="images"))


def test_missing_class_list_is_named(tmp_path: Path):
    assert f"{tmp_path / 'classes.txt'} does not exist" in refusal(Options(str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a\n\nb\n", "class 1 has an empty name"), ("a\nb\na\n", "listed twice, as 0 and 2"), ("", "no class names")],
)
def test_bad_class_list_is_refused(tmp_path: Path, content: str, expected: str):
    (tmp_path / "classes.txt").write_text(content)
    assert expected in refusal(Options(str(tmp_path)))


def test_class_list_that_is_not_text_is_refused(tmp_path: Path):
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "not readable as UTF-8" in refusal(Options(str(tmp_path)))


def test_more_than_255_classes_are_refused():
    with pytest.raises(DataError, match="256 classes, expected at most 255"):
        checked_classes([f"c{index}" for index in range(256)], "list")


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=20, unique=True), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_list_of_distinct_names_is_read_back(tmp_path_factory: pytest.TempPathFactory, classes, newline, bom):
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    text = newline.join(classes) + newline
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    assert checked_classes(read_lines(path, "class list"), "list") == tuple(classes)


@given(
    st.dictionaries(st.integers(0, 299), st.integers(0, 255), max_size=40),
    hnp.arrays(st.sampled_from([np.uint8, np.int32]), (4, 5), elements=st.integers(0, 255)),
    st.sampled_from([0, -1, 299, 300, 70000]),
)
def test_remap_agrees_with_a_dictionary(mapping, raw, extra):
    if raw.dtype == np.int32:
        raw[0, 0] = extra
    expected = [[mapping.get(int(value), REFUSED) for value in row] for row in raw]
    mapped = remap(raw, label_table(mapping, 300))
    if REFUSED in np.array(expected):
        assert mapped is None
    else:
        assert mapped.dtype == np.uint8
        assert mapped.tolist() == expected


@pytest.mark.data
def test_camvid_reads_as_it_stands(shared_data: Path):
    if not (shared_data / "camvid").is_dir():
        pytest.skip("no camvid in the shared data")
    dataset = open_dataset(Options(str(shared_data / "camvid")), "val")
    report = check_dataset(dataset, "val")
    assert (report.num_images, len(report.classes)) == (101, 11)
    assert report.errors == report.warnings == ()
    assert report.min_size == report.max_size == (360, 480)
    assert sum(report.pixel_counts) == round((1 - report.ignored_fraction) * 101 * 360 * 480)


def test_stored_values_can_be_given_names(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 255, 7], [9, 0, 7]], np.uint8))
    options = Options(str(tmp_path), labels={255: "crack", 0: "wall", 7: "crack"}, ignore_index=9)
    dataset = open_dataset(options, "train")
    assert dataset.classes == ("wall", "crack")
    assert dataset.load(0).mask.tolist() == [[0, 1, 1], [255, 0, 1]]
    assert "ignore_index 7 is also the index of class 'crack'" in refusal(replace(options, ignore_index=7))
    said = refusal(replace(options, ignore_index=1))
    assert "label 9 on 1 pixel is none of the 2 classes, expected 0, 7, 255, or 1 to ignore" in said


def test_masks_of_0_and_255_are_told(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 255, 0], [0, 255, 0]], np.uint8))
    report = check_dataset(open_dataset(Options(str(tmp_path)), "train"), "train")
    assert "if both are classes, use format `folder` with data.options.labels" in report.errors[0]
    one_class = check_dataset(open_dataset(Options(str(tmp_path), classes=("crack",)), "train"), "train")
    assert "if both are classes" in one_class.errors[0]


def test_names_of_stored_values_are_given_as_a_recipe_has_them() -> None:
    options = plugin_options(
        "formats", "folder", {"root": "x", "labels": {"0": "wall", "255": "crack"}}, "data.options"
    )
    assert options.labels == {0: "wall", 255: "crack"}


def color_mask(tmp_path: Path, write: Writer, colors: list[list[str]], mode: str = "RGB", suffix: str = "png") -> None:
    write("images/train/a.png", "masks/train/a.png", np.zeros((len(colors), len(colors[0])), np.uint8))
    (tmp_path / "masks/train/a.png").unlink()
    pixels = np.array([[list(bytes.fromhex(color)) for color in row] for row in colors], np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        palette = sorted({color for row in colors for color in row})
        image = Image.fromarray(np.array([[palette.index(color) for color in row] for row in colors], np.uint8), "P")
        image.putpalette(bytes.fromhex("".join(palette)))
    elif mode == "RGBA":
        image = image.convert(mode)
    image.save(tmp_path / f"masks/train/a.{suffix}")


COLORS = {"#804080": "road", "#000000": None, "#E8232A": "car", "#e8232b": "road"}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_can_be_given_names(tmp_path: Path, write: Writer, mode: str) -> None:
    color_mask(tmp_path, write, [["804080", "000000", "e8232a"], ["e8232b", "804080", "804080"]], mode)
    dataset = open_dataset(Options(str(tmp_path), colors=COLORS), "train")
    assert dataset.classes == ("road", "car")
    assert dataset.load(0).mask.tolist() == [[0, 255, 1], [0, 0, 0]]


def test_another_colour_is_refused(tmp_path: Path, write: Writer) -> None:
    color_mask(tmp_path, write, [["804080", "814080", "ffffff"], ["ffffff", "804080", "814080"]])
    said = refusal(Options(str(tmp_path), colors=COLORS))
    assert "colour #814080 on 2 pixels (and 1 more such colours) is none of the 4 of data.options.colors" in said
    assert "name the colours in data.options.colors" in refusal(Options(str(tmp_path), classes=("road",)))


def test_a_jpeg_of_colours_is_refused(tmp_path: Path, write: Writer) -> None:
    color_mask(tmp_path, write, [["804080"] * 3] * 2, suffix="jpg")
    assert "JPEG mask has lost its exact labels" in refusal(Options(str(tmp_path), colors=COLORS))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"colors": {"red": "car"}}, "expected colours like \"#804080\", got 'red'"),
        ({"colors": {"#ff0000": "car", "#FF0000": "bus"}}, "a colour is listed twice"),
        ({"colors": {"#ff0000": " "}}, "data.options.colors: class 0 has an empty name"),
        ({"colors": {"#ff0000": None}}, "data.options.colors: no class names"),
        ({"colors": {"#ff0000": "car"}, "labels": {0: "car"}}, "expected one of the two"),
    ],
)
def test_bad_colours_are_refused(tmp_path: Path, write: Writer, options: dict[str, Any], expected: str) -> None:
    write("images/train/a.png", "masks/train/a.png")
    assert expected in refusal(Options(str(tmp_path), **options))


def test_several_stored_values_may_be_ignored(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 11, 255], [2, 1, 11]], np.uint8))
    dataset = open_dataset(Options(str(tmp_path), ignore_index=(11, 255)), "train")
    assert dataset.load(0).mask.tolist() == [[0, 255, 255], [2, 1, 255]]
    assert "ignore_index 1 is also the index of class 'road'" in refusal(Options(str(tmp_path), ignore_index=(1, 255)))
    assert "ignore_index is 65536" in refusal(Options(str(tmp_path), ignore_index=(255, 65536)))
    given = plugin_options("formats", "folder", {"root": "x", "ignore_index": [0, 255]}, "data.options")
    assert given.ignore_index == (0, 255)


def test_a_value_without_a_class_hints_at_ignore_index(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 11, 12], [2, 1, 11]], np.uint8))
    said = refusal(Options(str(tmp_path)))
    assert "if 11, 12 means unlabelled, add it to data.options.ignore_index, e.g. [255, 11, 12]" in said


def test_a_value_named_null_has_no_label(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 1, 2], [2, 1, 255]], np.uint8))
    dataset = open_dataset(Options(str(tmp_path), labels={0: None, 1: "road", 2: "car"}), "train")
    assert dataset.classes == ("road", "car")
    assert dataset.load(0).mask.tolist() == [[255, 0, 1], [1, 0, 255]]


def test_a_list_of_values_is_read_from_the_splits_folder(tmp_path: Path, write: Writer) -> None:
    """Roboflow's "Semantic Segmentation Masks"."""
    write("train/a_jpg.rf.1.jpg", "train/a_jpg.rf.1_mask.png", np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    options = Options(
        str(tmp_path), images="{split}", masks="{split}", mask_ending="_mask", labels="{split}/_classes.csv"
    )
    dataset = open_dataset(options, "train")
    assert dataset.classes == ("background", "cat", "dog")
    assert dataset.load(0).mask.tolist() == [[0, 1, 2], [2, 1, 0]]


def test_labelmes_list_ignores_its_first_name(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png", np.array([[0, 1, 2], [255, 1, 0]], np.uint8))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    dataset = open_dataset(Options(str(tmp_path), labels="labels.txt"), "train")
    assert dataset.classes == ("_background_", "cat", "dog")
    assert dataset.load(0).mask.tolist() == [[0, 1, 2], [255, 1, 0]]


def test_the_meaning_of_stored_labels_in_a_file_is_in_the_fingerprint(tmp_path: Path, write: Writer) -> None:
    color_mask(tmp_path, write, [["804080", "000000", "804080"]] * 2)
    prints = []
    for text in (
        "road:128,64,128::\ncar:0,0,0::\n",
        "road:0,0,0::\ncar:128,64,128::\n",
        "Road:0,0,0::\nCar:128,64,128::\n",
    ):
        (tmp_path / "labelmap.txt").write_text(text)
        dataset = open_dataset(Options(str(tmp_path), colors="labelmap.txt"), "train")
        prints.append(dataset.digest)
    assert prints[0] != prints[1] == prints[2] != ""
    assert dataset.load(0).mask.tolist() == [[1, 0, 1]] * 2


def test_one_folder_is_a_data_set_without_splits(tmp_path: Path, write: Writer) -> None:
    write("photos/b.jpg", "photos/labels/b.png")
    write("photos/a.jpg", "photos/labels/a.png")
    options = Options(str(tmp_path), images="photos", masks="photos/labels")
    dataset = open_dataset(options, "all")
    assert [dataset.name(index) for index in range(len(dataset))] == ["a", "b"]
    assert "to divide one folder, write `train: all` and `val: 0.2`" in refusal(options)
    assert "folder's name without {split}, e.g. images: images" in refusal(Options(str(tmp_path)), "all")


def test_images_and_masks_that_are_swapped_are_told(tmp_path: Path, write: Writer) -> None:
    write("images/train/a.png", "masks/train/a.png")
    photo = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "images/train/a.png")
    options = Options(str(tmp_path), images="masks/{split}", masks="images/{split}")
    assert "a.png looks like a mask: are images and masks swapped?" in refusal(options)
    Image.fromarray(photo).save(tmp_path / "masks/train/a.png")
    assert "swapped" not in refusal(Options(str(tmp_path)))

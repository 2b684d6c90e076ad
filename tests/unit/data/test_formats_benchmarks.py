"""voc, cityscapes, ade20k and coco_stuff10k: their label conventions and traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.formats import ade20k, cityscapes, coco_stuff10k, voc
from edgekd.data.matlab import read_integer_matrix
from edgekd.errors import DataError


def image(path: Path, width: int, height: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def mask(path: Path, labels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([labels], np.uint8)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


# --- voc


def voc_root(root: Path, folder: str, name: str, labels: list[int]) -> None:
    image(root / f"JPEGImages/{name}.jpg", len(labels))
    mask(root / f"{folder}/{name}.png", labels)


def test_voc_keeps_indices_and_void(tmp_path: Path):
    voc_root(tmp_path, "SegmentationClass", "x", [0, 20, 255])
    text(tmp_path / "ImageSets/Segmentation/val.txt", "x\n")
    dataset = voc.open_dataset(voc.Options(str(tmp_path)), "val")
    assert dataset.load(0).mask.tolist() == [[0, 20, 255]]
    assert (len(dataset.classes), dataset.classes[0], dataset.classes[20]) == (21, "background", "tvmonitor")


def test_voc_trainaug_takes_each_mask_from_the_first_folder_that_has_it(tmp_path: Path):
    voc_root(tmp_path, "SegmentationClass", "both", [1])
    voc_root(tmp_path, "SegmentationClassAug", "both", [2])
    voc_root(tmp_path, "SegmentationClassAug", "only", [3])
    text(tmp_path / "ImageSets/Segmentation/trainaug.txt", "both\nonly\n")
    both = voc.open_dataset(voc.Options(str(tmp_path), ("SegmentationClass", "SegmentationClassAug")), "trainaug")
    assert [both.load(index).mask[0, 0] for index in range(2)] == [1, 3]
    one = voc.open_dataset(voc.Options(str(tmp_path), ("SegmentationClassAug",)), "trainaug")
    assert [one.load(index).mask[0, 0] for index in range(2)] == [2, 3]
    with pytest.raises(DataError, match=r"1 of 2 listed masks are missing.*SegmentationClass.only\.png"):
        voc.open_dataset(voc.Options(str(tmp_path)), "trainaug")


def cvat_root(root: Path) -> None:
    image(root / "JPEGImages/x.jpg", 3)
    (root / "SegmentationClass").mkdir()
    colors = np.array([[(0, 0, 0), (200, 0, 0), (0, 200, 0)]], np.uint8)
    Image.fromarray(colors).save(root / "SegmentationClass/x.png")
    text(root / "ImageSets/Segmentation/default.txt", "x\n")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:200,0,0::\nbackground:0,0,0::\ndog:0,200,0::\n")


def test_voc_reads_cvats_masks_of_colours_in_the_order_of_its_labelmap(tmp_path: Path):
    cvat_root(tmp_path)
    dataset = voc.open_dataset(voc.Options(str(tmp_path), colors="labelmap.txt"), "default")
    assert dataset.classes == ("cat", "background", "dog")
    assert dataset.load(0).mask.tolist() == [[1, 0, 2]]
    given = voc.Options(str(tmp_path), colors={"#000000": None, "#c80000": "cat", "#00c800": "dog"})
    assert voc.open_dataset(given, "default").load(0).mask.tolist() == [[255, 0, 1]]


def test_voc_names_the_key_for_masks_of_colours_and_the_missing_images(tmp_path: Path):
    cvat_root(tmp_path)
    with pytest.raises(DataError, match="name the colours in data.options.colors"):
        voc.open_dataset(voc.Options(str(tmp_path)), "default").load(0)
    with pytest.raises(DataError, match=r"write `data.options.colors: labelmap.txt`"):
        voc.open_dataset(voc.Options(str(tmp_path), classes="labelmap.txt"), "default")
    (tmp_path / "JPEGImages").rename(tmp_path / "photos")
    with pytest.raises(DataError, match=r"JPEGImages does not exist; export with images"):
        voc.open_dataset(voc.Options(str(tmp_path), colors="labelmap.txt"), "default")


def test_voc_without_lists_is_one_split_of_all_masks(tmp_path: Path):
    voc_root(tmp_path, "SegmentationClassPNG", "b", [0, 1, 2])
    voc_root(tmp_path, "SegmentationClassPNG", "a", [2, 1, 255])
    options = voc.Options(str(tmp_path), ("SegmentationClassPNG",), classes=("x", "y", "z"), ignore_index=(255, 254))
    dataset = voc.open_dataset(options, "all")
    assert [dataset.name(index) for index in range(2)] == ["a", "b"]
    assert dataset.load(0).mask.tolist() == [[2, 1, 255]]
    with pytest.raises(DataError, match="without lists write `train: all` and `val: 0.2`"):
        voc.open_dataset(options, "train")
    with pytest.raises(DataError, match="mask folder .*SegmentationClass does not exist"):
        voc.open_dataset(voc.Options(str(tmp_path)), "all")


def test_voc_trainaug_that_holds_validation_images_is_refused(tmp_path: Path):
    voc_root(tmp_path, "SegmentationClass", "x", [1])
    text(tmp_path / "ImageSets/Segmentation/trainaug.txt", "x\n")
    text(tmp_path / "ImageSets/Segmentation/val.txt", "x\n")
    with pytest.raises(DataError, match=r"1 images are also in val\.txt"):
        voc.open_dataset(voc.Options(str(tmp_path)), "trainaug")


@pytest.mark.parametrize(
    ("content", "expected"), [("", "lists no image"), ("x\nx\n", "listed twice"), ("y\n", "1 of 1 listed images")]
)
def test_voc_bad_list_is_refused(tmp_path: Path, content: str, expected: str):
    voc_root(tmp_path, "SegmentationClass", "x", [1])
    text(tmp_path / "ImageSets/Segmentation/train.txt", content)
    with pytest.raises(DataError, match=expected):
        voc.open_dataset(voc.Options(str(tmp_path)), "train")


def test_voc_unknown_split_suggests_the_nearest_list(tmp_path: Path):
    text(tmp_path / "ImageSets/Segmentation/trainval.txt", "x\n")
    with pytest.raises(DataError, match="did you mean 'trainval'"):
        voc.open_dataset(voc.Options(str(tmp_path)), "trainvall")


# --- cityscapes


def city(root: Path, kind: str, labels: list[int]) -> None:
    image(root / "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png", len(labels))
    mask(root / f"gtFine/val/ulm/ulm_000000_000019_gtFine_{kind}.png", labels)


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path: Path):
    # The table of cityscapesScripts, id by id: 0..33.
    expected = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    expected += [255, 255, 16, 17, 18]
    city(tmp_path, "labelIds", [*range(34), 255])
    dataset = cityscapes.open_dataset(cityscapes.Options(str(tmp_path)), "val")
    assert dataset.load(0).mask.tolist() == [[*expected, 255]]
    assert dataset.name(0) == "ulm/ulm_000000_000019"
    assert dataset.classes[5:8] == ("pole", "traffic light", "traffic sign")


def test_cityscapes_reads_label_train_ids(tmp_path: Path):
    city(tmp_path, "labelTrainIds", [0, 18, 255])
    dataset = cityscapes.open_dataset(cityscapes.Options(str(tmp_path), labels="labelTrainIds"), "val")
    assert dataset.load(0).mask.tolist() == [[0, 18, 255]]


def test_cityscapes_label_ids_in_train_id_files_are_refused(tmp_path: Path):
    city(tmp_path, "labelTrainIds", [0, 26])
    dataset = cityscapes.open_dataset(cityscapes.Options(str(tmp_path), labels="labelTrainIds"), "val")
    with pytest.raises(DataError, match=r"label 26 on 1 pixel .* expected train ids 0\.\.18"):
        dataset.load(0)


# --- ade20k


def ade(root: Path, labels: list[int]) -> None:
    image(root / "images/validation/x.jpg", len(labels))
    mask(root / "annotations/validation/x.png", labels)


def test_ade20k_reduces_the_zero_label_exactly_as_mmsegmentation(tmp_path: Path):
    labels = [0, 1, 2, 149, 150, 255]
    ade(tmp_path, labels)
    reference = np.array(labels, np.uint8)
    reference[reference == 0] = 255
    reference = reference - 1
    reference[reference == 254] = 255
    loaded = ade20k.open_dataset(ade20k.Options(str(tmp_path)), "val").load(0).mask
    assert loaded[0].tolist() == reference.tolist() == [255, 0, 1, 148, 149, 255]


def test_ade20k_label_151_is_refused(tmp_path: Path):
    ade(tmp_path, [151])
    with pytest.raises(DataError, match=r"label 151 .* none of the 150 classes, expected 1\.\.150"):
        ade20k.open_dataset(ade20k.Options(str(tmp_path)), "validation").load(0)


def test_ade20k_names_come_from_object_info_and_stay_unique(tmp_path: Path):
    ade(tmp_path, [1])
    rows = [f"{i}\t0.1\t1\t1\tname{i}, other" for i in range(1, 149)] + [
        "149\t0\t1\t1\tbar, pub",
        "150\t0\t1\t1\tbar, rod",
    ]
    text(tmp_path / "objectInfo150.txt", "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    classes = ade20k.open_dataset(ade20k.Options(str(tmp_path)), "val").classes
    assert (len(classes), classes[0], classes[148], classes[149]) == (150, "name1", "bar, pub", "bar, rod")


def test_ade20k_without_object_info_takes_given_names_or_placeholders(tmp_path: Path):
    ade(tmp_path, [1])
    assert ade20k.open_dataset(ade20k.Options(str(tmp_path)), "val").classes[149] == "class_149"
    assert ade20k.open_dataset(ade20k.Options(str(tmp_path), classes=("a", "b")), "val").classes == ("a", "b")


@pytest.mark.parametrize("content", ["", "Idx\tName\n1\twall\n", "Idx\n" * 151])
def test_ade20k_damaged_object_info_is_refused(tmp_path: Path, content: str):
    ade(tmp_path, [1])
    text(tmp_path / "objectInfo150.txt", content)
    with pytest.raises(DataError, match="150 tab-separated rows"):
        ade20k.open_dataset(ade20k.Options(str(tmp_path)), "val")


# --- coco_stuff10k; SciPy writes the files and is the oracle of our reader


def coco(root: Path, labels: np.ndarray, **options: bool) -> Path:
    savemat = pytest.importorskip("scipy.io").savemat
    image(root / "images/x.jpg", labels.shape[1], labels.shape[0])
    text(root / "imageLists/test.txt", "x\n")
    path = root / "annotations/x.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = np.array(["a street", "cars"], dtype=object)
    savemat(path, {"captions": captions, "S": labels, "regionMapStuff": labels + 1}, **options)
    return path


def test_coco_stuff_numbers_171_classes_in_the_order_of_their_ids(tmp_path: Path):
    used = [label for label in range(1, 183) if label not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}]
    coco(tmp_path, np.array([[0, *used]], np.uint16))
    dataset = coco_stuff10k.open_dataset(coco_stuff10k.Options(str(tmp_path)), "test")
    assert dataset.load(0).mask.tolist() == [[255, *range(171)]]
    assert len(dataset.classes) == 171
    # From nightrome/cocostuff labels.txt: 11 fire hydrant, 13 stop sign, 90 toothbrush, 92 banner, 182 wood.
    by_id = dict(zip(used, dataset.classes, strict=True))
    assert [by_id[i] for i in (11, 13, 90, 92, 182)] == ["fire hydrant", "stop sign", "toothbrush", "banner", "wood"]


def test_coco_stuff_id_without_annotations_is_refused_as_another_version(tmp_path: Path):
    coco(tmp_path, np.array([[1, 12]], np.uint16))
    with pytest.raises(DataError, match=r"label 12 on 1 pixel .*v1\.0 is numbered differently"):
        coco_stuff10k.open_dataset(coco_stuff10k.Options(str(tmp_path)), "test").load(0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_matlab_matrix_agrees_with_scipy(tmp_path: Path, dtype: type, compressed: bool):
    labels = np.arange(35).reshape(5, 7).astype(dtype)
    path = coco(tmp_path, labels, do_compression=compressed)
    read = read_integer_matrix(path, "S")
    np.testing.assert_array_equal(read, pytest.importorskip("scipy.io").loadmat(path)["S"])
    assert read.dtype == np.int32


@pytest.mark.parametrize(
    ("labels", "expected"), [(np.array([[0.5]]), "whole numbers"), (np.array([[1j]]), "not a real matrix")]
)
def test_matlab_matrix_of_other_numbers_is_refused(tmp_path: Path, labels: np.ndarray, expected: str):
    with pytest.raises(DataError, match=expected):
        read_integer_matrix(coco(tmp_path, labels), "S")


def test_matlab_file_without_the_variable_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="holds no matrix 'T'"):
        read_integer_matrix(coco(tmp_path, np.ones((2, 2), np.uint8)), "T")


def test_damaged_matlab_file_gives_a_matrix_or_one_line(tmp_path: Path):
    path = coco(tmp_path, np.arange(35, dtype=np.uint16).reshape(5, 7), do_compression=True)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(content) + 1)])
        try:
            assert read_integer_matrix(path, "S").ndim == 2
            continue
        except DataError as exc:
            message = str(exc)
        assert str(path) in message
        assert "\n" not in message


def test_matlab_hdf5_file_is_refused_with_what_to_do(tmp_path: Path):
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(64))
    with pytest.raises(DataError, match="-v7"):
        read_integer_matrix(path, "S")

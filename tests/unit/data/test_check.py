"""check, fingerprint, colours and contact sheet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from object_files import annotation, image, write_coco
from PIL import Image

from edgekd.data.check import check_dataset, class_shares
from edgekd.data.colors import overlay, palette
from edgekd.data.contact_sheet import write_contact_sheet
from edgekd.data.fingerprint import END_BYTES, fingerprint
from edgekd.data.formats import coco
from edgekd.data.formats.folder import Options, open_dataset
from edgekd.data.paired import PairedDataset
from edgekd.errors import DataError, WorkspaceError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with four images of three classes: `a` and `b` good, `c` truncated, `d` with label 37."""
    masks = {
        "a": np.array([[0, 0, 1], [1, 1, 255]], np.uint8),
        "b": np.full((4, 2), 255, np.uint8),
        "c": np.zeros((2, 3), np.uint8),
        "d": np.full((2, 3), 37, np.uint8),
    }
    folder = tmp_path / "set"
    (folder / "images/train").mkdir(parents=True)
    (folder / "masks/train").mkdir(parents=True)
    (folder / "classes.txt").write_text("background\nroad\ncar\n")
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / f"masks/train/{name}.png")
        Image.fromarray(np.full((*mask.shape, 3), 100, np.uint8)).save(folder / f"images/train/{name}.png")
    truncated = folder / "images/train/c.png"
    truncated.write_bytes(truncated.read_bytes()[:50])
    return folder


def train_of(root: Path) -> PairedDataset:
    return open_dataset(Options(str(root)), "train")


def test_every_bad_file_is_listed_and_the_rest_is_counted(root: Path):
    report = check_dataset(train_of(root), "train")
    assert report.num_images == 4
    assert [str(root / "images/train/c.png") in report.errors[0], "label 37 on 6 pixels" in report.errors[1]] == [
        True
    ] * 2
    assert len(report.errors) == 2
    assert report.pixel_counts == (2, 3, 0)
    assert report.image_counts == (1, 1, 0)
    assert report.class_fractions == (0.4, 0.6, 0.0)
    assert report.ignored_fraction == 9 / 14
    assert (report.min_size, report.max_size) == ((2, 2), (4, 3))


def test_absent_class_and_unlabelled_image_are_warned_of(root: Path):
    warnings = check_dataset(train_of(root), "train").warnings
    assert warnings == (
        "1 of 2 images of split 'train' have no labelled pixel, the first is b.png",
        "1 of 3 classes never occur in split 'train': car",
    )


def test_report_as_text_has_a_row_per_class_and_every_finding(root: Path):
    lines = check_dataset(train_of(root), "train").text().splitlines()
    assert lines[0] == "split train: 4 images, 2 bad; height x width 2x2 to 4x3; 64.3% of the pixels are ignored"
    assert [line.split() for line in lines[1:5]] == [
        ["class", "pixels", "images"],
        ["0", "background", "40.00%", "1"],
        ["1", "road", "60.00%", "1"],
        ["2", "car", "0.00%", "0"],
    ]
    assert (
        len({line.rindex(word) + len(word) for line, word in zip(lines[1:5], ("images", "1", "1", "0"), strict=True)})
        == 1
    )
    assert [line.split(":")[0].strip() for line in lines[5:]] == ["warning", "warning", "error", "error"]


def test_progress_counts_every_image_in_order(root: Path):
    seen: list[tuple[int, int]] = []
    check_dataset(train_of(root), "train", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_split_without_a_readable_image_reports_errors_and_zeros(root: Path):
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"")
    report = check_dataset(train_of(root), "train")
    assert report.num_bad == 4
    assert len(report.errors) == 1  # one cause, with the number of files
    assert report.errors[0].endswith(
        "a.png: not an image, or damaged at its start; replace the file or remove it (3 more like this)"
    )
    assert [(one.code, one.count, one.first) for one in report.findings] == [("unreadable", 4, "a.png")]
    assert report.class_fractions == (0.0, 0.0, 0.0)
    assert (report.min_size, report.max_size, report.ignored_fraction) == ((0, 0), (0, 0), 0.0)


def test_shares_are_of_images_of_one_size_whatever_size_their_files_have(root: Path) -> None:
    for name in "bcd":
        (root / f"masks/train/{name}.png").unlink()
        (root / f"images/train/{name}.png").unlink()
    Image.fromarray(np.full((30, 40), 2, np.uint8)).save(root / "masks/train/e.png")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "images/train/e.png")
    seen: list[tuple[int, int]] = []
    shares = class_shares(open_dataset(Options(root=root), "train"), "train", lambda *done: seen.append(done))
    assert shares == pytest.approx([2 / 11, 3 / 11, 6 / 11])  # 2, 3 and 1 ignored of six pixels; then all of 1200
    assert seen == [(1, 2), (2, 2)]


def test_shares_of_a_split_that_cannot_be_read_or_has_no_label_are_refused(root: Path) -> None:
    dataset = open_dataset(Options(root=root), "train")
    with pytest.raises(DataError, match=r"images/train/c\.png"):
        class_shares(dataset, "train")
    for name in "acd":
        (root / f"masks/train/{name}.png").unlink()
        (root / f"images/train/{name}.png").unlink()
    with pytest.raises(DataError, match="split 'train' has no labelled pixel in its 1 images; see `edgekd data check`"):
        class_shares(open_dataset(Options(root=root), "train"), "train")


def test_fingerprint_sees_content_names_number_of_classes_and_split(root: Path):
    before = fingerprint(train_of(root), "train")
    assert before == fingerprint(train_of(root), "train")
    assert before != fingerprint(train_of(root), "val")
    (root / "classes.txt").write_text("background\nroad\nbus\n")
    assert before == fingerprint(train_of(root), "train")  # a class may be called otherwise
    (root / "classes.txt").write_text("background\nroad\ncar\nbus\n")
    classes = fingerprint(train_of(root), "train")
    Image.new("L", (3, 2), 1).save(root / "masks/train/a.png")
    content = fingerprint(train_of(root), "train")
    for folder in ("images", "masks"):
        (root / folder / "train/a.png").rename(root / folder / "train/z.png")
    assert len({before, classes, content, fingerprint(train_of(root), "train")}) == 4


@pytest.mark.parametrize("size", [10, END_BYTES, END_BYTES + 10, 3 * END_BYTES])
def test_fingerprint_sees_the_first_and_the_last_byte_of_files_of_any_size(root: Path, size: int):
    path = root / "images/train/a.png"
    found = set()
    for place in (None, 0, size - 1):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        found.add(fingerprint(train_of(root), "train"))
    assert len(found) == 3


@pytest.mark.parametrize("suffix", ["bmp", "tif", "pgm"])
def test_fingerprint_sees_the_middle_of_files_without_a_checksum(root: Path, suffix: str):
    mask = np.zeros((600, 800), np.uint8)
    (root / "masks/train/a.png").unlink()
    found = set()
    for label in (0, 1):
        mask[300] = label
        Image.fromarray(mask).save(root / f"masks/train/a.{suffix}")
        found.add(fingerprint(train_of(root), "train"))
    assert len(found) == 2


def test_fingerprint_sees_an_object_that_moves_to_the_next_image(tmp_path: Path):
    found = set()
    for owner in (5, 6):
        images = [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 4} for n in (5, 6)]
        for n in (5, 6):
            image(tmp_path / f"train/{n}.png")
        write_coco(tmp_path, [annotation(image_id=owner)], images=images)
        found.add(fingerprint(coco.open_objects(coco.Options(str(tmp_path)), "train", False), "train"))
    assert len(found) == 2


def test_a_fingerprint_is_remembered_until_a_file_changes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [file for index in range(len(train_of(root))) for file in train_of(root).files(index)]
    fresh = fingerprint(train_of(root), "train")
    assert not (tmp_path / "cache").exists()  # the files are new
    for file in files:
        os.utime(file, (1e9, 1e9))
    assert fingerprint(train_of(root), "train") == fresh
    assert len(list((tmp_path / "cache/edgekd/fingerprints").iterdir())) == 1
    with monkeypatch.context() as patched:
        patched.setattr("zlib.crc32", lambda *_: pytest.fail("read again"))
        assert fingerprint(train_of(root), "train") == fresh
    content = bytearray(files[0].read_bytes())
    content[-1] ^= 1
    files[0].write_bytes(content)
    assert fingerprint(train_of(root), "train") != fresh


def test_fingerprint_of_a_vanished_file_names_it(root: Path):
    dataset = train_of(root)
    (root / "masks/train/b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: cannot be read"):
        fingerprint(dataset, "train")


def test_palette_colours_are_distinct_and_do_not_change_with_the_number_of_classes():
    colors = palette(255)
    assert colors.shape == (255, 3)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 255
    np.testing.assert_array_equal(palette(7), colors[:7])
    gaps = np.abs(colors[:20, None].astype(int) - colors[None, :20]).sum(axis=-1)
    assert gaps[~np.eye(20, dtype=bool)].min() >= 60


def test_palette_cannot_be_changed_from_outside():
    palette(3)[:] = 0
    assert palette(3).any()


@pytest.mark.parametrize("count", [0, 256])
def test_palette_refuses_impossible_counts(count: int):
    with pytest.raises(ValueError, match=r"1\.\.255"):
        palette(count)


def test_overlay_blends_classes_and_leaves_ignored_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    colors = np.array([[200, 0, 100], [0, 0, 0]], np.uint8)
    blended = overlay(image, np.array([[0, 1, 255]], np.uint8), colors, alpha=0.25)
    assert blended.tolist() == [[[125, 75, 100], [75, 75, 75], [100, 100, 100]]]


def test_contact_sheet_shows_readable_samples_and_is_the_same_for_a_seed(root: Path, tmp_path: Path):
    first, again = tmp_path / "1.png", tmp_path / "2.png"
    assert sorted(write_contact_sheet(train_of(root), first)) == ["a", "b"]
    write_contact_sheet(train_of(root), again)
    assert first.read_bytes() == again.read_bytes()
    pixels = np.array(Image.open(first)).reshape(-1, 3)
    for color in palette(3):  # the legend's swatches
        assert (pixels == color).all(axis=1).any()


def test_contact_sheet_of_a_wholly_damaged_split_is_refused(root: Path, tmp_path: Path):
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image of the split can be read"):
        write_contact_sheet(train_of(root), tmp_path / "sheet.png")


def test_contact_sheet_makes_its_folder_and_refuses_a_file_in_its_place(root: Path, tmp_path: Path):
    write_contact_sheet(train_of(root), tmp_path / "new/folder/sheet.png")
    assert (tmp_path / "new/folder/sheet.png").is_file()
    with pytest.raises(WorkspaceError, match="is not a folder"):
        write_contact_sheet(train_of(root), root / "classes.txt" / "sheet.png")


@pytest.mark.data
def test_contact_sheet_of_camvid_has_twelve_pictures(shared_data: Path, tmp_path: Path):
    if not (shared_data / "camvid").is_dir():
        pytest.skip("no camvid in the shared data")
    dataset = open_dataset(Options(str(shared_data / "camvid")), "val")
    assert len(set(write_contact_sheet(dataset, tmp_path / "sheet.png"))) == 12

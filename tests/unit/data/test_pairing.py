from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from edgekd.data.pairing import BY_UNICODE, pairs_by_name
from edgekd.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def paired(
    root: Path, images: str, masks: str, image_ending: str = "", mask_ending: str = ""
) -> dict[str, tuple[str, str]]:
    pairing = pairs_by_name(root / images, root / masks, image_ending, mask_ending, has_endings=True)
    return {
        one.name: (one.image.relative_to(root).as_posix(), one.mask.relative_to(root).as_posix())
        for one in pairing.pairs
    }


def refused(root: Path, images: str = "i", masks: str = "m", has_endings: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        pairs_by_name(root / images, root / masks, has_endings=has_endings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_may_be_called_like_a_mask(tmp_path: Path) -> None:
    touched(tmp_path, "d/street.jpg", "d/street_mask.png", "d/face_mask.jpg", "d/face_mask_mask.png")
    assert paired(tmp_path, "d", "d", mask_ending="_mask") == {
        "street": ("d/street.jpg", "d/street_mask.png"),
        "face_mask": ("d/face_mask.jpg", "d/face_mask_mask.png"),
    }


def test_a_name_and_the_same_name_with_the_ending_may_both_be_images(tmp_path: Path) -> None:
    touched(tmp_path, "d/a.jpg", "d/a_mask.png", "d/a_mask.jpg", "d/a_mask_mask.png")
    assert paired(tmp_path, "d", "d", mask_ending="_mask") == {
        "a": ("d/a.jpg", "d/a_mask.png"),
        "a_mask": ("d/a_mask.jpg", "d/a_mask_mask.png"),
    }


def test_both_kinds_may_have_an_ending(tmp_path: Path) -> None:
    touched(tmp_path, "d/a_img.png", "d/a_lab.png", "d/s/b_img.png", "d/s/b_lab.png", "d/readme.png")
    assert paired(tmp_path, "d", "d", "_img", "_lab") == {
        "a": ("d/a_img.png", "d/a_lab.png"),
        "s/b": ("d/s/b_img.png", "d/s/b_lab.png"),
    }


def test_an_images_ending_may_hold_the_masks(tmp_path: Path) -> None:
    touched(tmp_path, "d/a_raw.png", "d/a.png")
    assert paired(tmp_path, "d", "d", image_ending="_raw") == {"a": ("d/a_raw.png", "d/a.png")}


def test_masks_in_a_folder_inside_the_images_are_no_images(tmp_path: Path) -> None:
    touched(tmp_path, "d/a.png", "d/s/b.png", "d/masks/a.png", "d/masks/s/b.png")
    assert paired(tmp_path, "d", "d/masks") == {
        "a": ("d/a.png", "d/masks/a.png"),
        "s/b": ("d/s/b.png", "d/masks/s/b.png"),
    }
    assert list(paired(tmp_path, "d/masks", "d")) == ["a", "s/b"]


def test_suffixes_in_capitals_are_read(tmp_path: Path) -> None:
    touched(tmp_path, "i/A.JPG", "m/A.PNG")
    assert paired(tmp_path, "i", "m") == {"A": ("i/A.JPG", "m/A.PNG")}


def test_a_suffix_inside_a_masks_name_is_an_ending(tmp_path: Path) -> None:
    touched(tmp_path, "i/a.jpg", "m/a.jpg.png")
    assert paired(tmp_path, "i", "m", mask_ending=".jpg") == {"a": ("i/a.jpg", "m/a.jpg.png")}
    assert "set data.options.mask_ending: '.jpg'" in refused(tmp_path)


@pytest.mark.parametrize(("image", "mask"), [(NFC, NFD), (NFD, NFC)])
def test_names_that_look_alike_are_paired_and_counted(tmp_path: Path, image: str, mask: str) -> None:
    touched(tmp_path, f"i/{image}.png", f"m/{mask}.png", "i/b.png", "m/b.png")
    pairing = pairs_by_name(tmp_path / "i", tmp_path / "m")
    assert [(one.image.stem, one.mask.stem) for one in pairing.pairs] == [("b", "b"), (image, mask)]
    assert pairing.repairs == {BY_UNICODE: 1}
    assert "Unicode" in BY_UNICODE


def test_files_in_both_forms_are_paired_with_their_own(tmp_path: Path) -> None:
    touched(tmp_path, *(f"{folder}/{name}.png" for folder in "im" for name in (NFC, NFD)))
    pairing = pairs_by_name(tmp_path / "i", tmp_path / "m")
    assert {(one.image.stem, one.mask.stem) for one in pairing.pairs} == {(NFC, NFC), (NFD, NFD)}
    assert pairing.repairs == {}


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("0001.jpg", "0001_mask.png", "set data.options.mask_ending: '_mask' if '0001_mask' is its partner"),
        ("0001_img.jpg", "0001.png", "set data.options.image_ending: '_img' if '0001' is its partner"),
        ("1.jpg", "1-labels.png", "mask_ending: '-labels'"),
        ("mask_1.jpg", "1.png", "'1' has another beginning: rename the files"),
        ("IMG_1.jpg", "img_1.png", "'img_1' and 'IMG_1' differ in upper and lower case"),
        ("a/1.jpg", "b/1.png", "'b/1' and 'a/1' lie in different subfolders"),
        ("1.jpg", "2.npy", "holds .npy arrays, which are not read: save each as PNG"),
        ("1.jpg", "s/1.npy", "holds .npy arrays"),
        ("1.jpg", "1.mat", "holds 1.mat, which is no image file"),
    ],
)
def test_a_file_without_a_partner_gets_a_hint_at_what_is_there(
    tmp_path: Path, image: str, mask: str, expected: str
) -> None:
    touched(tmp_path, f"i/{image}", f"m/{mask}")
    said = refused(tmp_path)
    assert expected in said
    assert said.startswith("1 of 1 images have no mask")


def test_a_mask_of_image_1_is_no_mask_of_image_12(tmp_path: Path) -> None:
    touched(tmp_path, "i/1.jpg", "m/12.png")
    assert "ending" not in refused(tmp_path)


def test_a_set_ending_is_part_of_the_one_to_set(tmp_path: Path) -> None:
    touched(tmp_path, "i/a.jpg", "m/a_color_mask.png")
    with pytest.raises(DataError, match="set data.options.mask_ending: '_color_mask'"):
        pairs_by_name(tmp_path / "i", tmp_path / "m", "", "_mask", has_endings=True)


def test_formats_without_the_options_do_not_name_them(tmp_path: Path) -> None:
    touched(tmp_path, "i/a.jpg", "m/a_mask.png")
    assert "'a_mask' has another ending: rename the files" in refused(tmp_path, has_endings=False)


def test_images_of_other_files_are_named(tmp_path: Path) -> None:
    touched(tmp_path, "i/a.heic", "m/a.png")
    assert "holds a.heic, which is no image file" in refused(tmp_path)

"""Layers of class maps: lossless masks, errors that shrinking does not lose, won and lost pixels, the median picture."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_rows import network

from edgekd.data.colors import palette
from edgekd.report.layers import Picture, Tile, errors_address, median_picture, photo_address
from edgekd.report.pictures import boundary_errors, legend, read_pictures, won_and_lost


def pixels(address: str) -> np.ndarray:
    """Return the RGBA of a data address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))


def archive(truth: np.ndarray, **results: np.ndarray) -> dict[str, np.ndarray]:
    image = np.full((*truth.shape, 3), 128, np.uint8)
    return {"0/name": np.array("x"), "0/image": image, "0/truth": truth, **{f"0/{k}": v for k, v in results.items()}}


def test_noise_is_drawn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert photo_address(noise).startswith("data:image/jpeg;base64,")


def test_boundary_errors_are_the_wrong_pixels_of_the_band_and_their_share_of_it() -> None:
    truth = np.zeros((1, 10), np.uint8)
    truth[:, 5:] = 1
    predicted = truth.copy()
    predicted[0, 5] = 0  # in the band
    predicted[0, 0] = 1  # outside it
    wrong, share = boundary_errors(truth, predicted, radius=2)
    assert np.flatnonzero(wrong).tolist() == [5]
    assert share == pytest.approx(1 / 4)


def test_a_picture_of_one_class_has_no_share_of_boundary_errors() -> None:
    truth = np.zeros((4, 4), np.uint8)
    assert boundary_errors(truth, truth + 1)[1] is None


def test_a_mask_has_the_exact_colour_of_every_pixel_and_ignored_ones_are_transparent() -> None:
    truth = np.array([[0, 1, 1], [255, 0, 1]], np.uint8)
    (picture,) = read_pictures(archive(truth, student=truth), [network("student", 0.9)], ["a", "b"])
    mask = pixels(picture.tiles[1].mask)
    np.testing.assert_array_equal(mask[..., :3][truth != 255], palette(2)[truth[truth != 255]])
    np.testing.assert_array_equal(mask[..., 3], np.where(truth == 255, 0, 255))


def test_errors_are_the_wrong_labelled_pixels() -> None:
    truth, found = np.array([[0, 1, 255, 1]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    (picture,) = read_pictures(archive(truth, student=found), [network("student", 0.9)], ["a", "b"])
    tile = picture.tiles[2]
    assert pixels(tile.errors)[0, :, 3].tolist() == [0, 255, 0, 0]
    assert tile.score == pytest.approx(2 / 3)
    assert tile.caption.startswith("wrong: 33.3 % of the pixels")


def test_won_and_lost_are_shares_of_the_labelled_pixels() -> None:
    wrong, base = np.array([[True, False, False, True]]), np.array([[False, True, True, True]])
    assert won_and_lost(wrong, base, np.array([[True, True, True, True]])) == (0.5, 0.25)


def test_each_network_is_compared_with_each_other_one() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    results = {"student": np.array([[1, 1, 1, 1]], np.uint8), "teacher": np.array([[0, 0, 1, 0]], np.uint8)}
    rows = [network("teacher", 0.9), network("student", 0.9)]
    (picture,) = read_pictures(archive(truth, **results), rows, ["a", "b"])
    assert picture.tiles[2].differences == {"student": "won 50.0 %, lost 25.0 % of the pixels"}
    assert picture.tiles[3].differences == {"teacher": "won 25.0 %, lost 50.0 % of the pixels"}


def test_a_single_wrong_pixel_of_a_large_picture_still_shows() -> None:
    wrong = np.zeros((3001, 5001), bool)
    wrong[3000, 5000] = True
    shape = pixels(errors_address(wrong))
    assert max(shape.shape[:2]) <= 2048
    assert np.argwhere(shape[..., 3]).tolist() == [[shape.shape[0] - 1, shape.shape[1] - 1]]


def test_a_row_without_a_class_map_has_no_tile() -> None:
    blank = np.zeros((4, 4), np.uint8)
    rows = [network("teacher", 0.9), network("student", 0.9)]
    (picture,) = read_pictures(archive(blank, student=blank), rows, ["only"])
    assert [tile.title for tile in picture.tiles] == ["Image", "Truth", "student"]


@pytest.mark.parametrize(("scores", "expected"), [([0.9, 0.1, 0.5], 0.5), ([0.9, 0.1, 0.5, 0.6], 0.5), ([0.3], 0.3)])
def test_the_median_picture_is_the_middle_one_or_the_worse_of_two(scores: list[float], expected: float) -> None:
    pictures = [Picture(str(x), "", 1, 1, (Tile("student", "", "", "", x),)) for x in scores]
    chosen = median_picture(pictures, "student")
    assert chosen is not None
    assert chosen.score("student") == expected
    assert median_picture(pictures, "teacher") is None


def test_the_legend_has_the_colours_that_the_masks_use() -> None:
    red, green, blue = palette(2)[1]
    assert legend(["a", "b"])[1] == ("b", f"#{red:02x}{green:02x}{blue:02x}")

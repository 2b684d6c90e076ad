"""Boundary errors in pictures: the band, what counts as wrong, and that no error is lost when a picture shrinks."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_rows import network

from edgekd.data.colors import palette
from edgekd.report.pictures import boundary_errors, error_color, legend, read_pictures, tile


def test_noise_is_drawn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert tile("noise", "", "", noise).address.startswith("data:image/jpeg;base64,")


def test_errors_are_the_wrong_pixels_of_the_band_and_their_share_of_it() -> None:
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


def _tile_pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_a_large_picture_is_shrunk_and_a_single_wrong_pixel_still_shows_in_the_error_colour() -> None:
    truth = np.zeros((1000, 2000), np.uint8)
    truth[:, 1000:] = 1
    predicted = truth.copy()
    predicted[500, 1000] = 0
    archive = {
        "0/name": np.array("wide"), "0/image": np.full((1000, 2000, 3), 128, np.uint8), "0/truth": truth,
        "0/student": predicted,
    }  # fmt: skip
    (picture,) = read_pictures(archive, [network("student", 0.9)], ["left", "right"])
    tile = picture.tiles[2]
    assert max(tile.width, tile.height) <= 760
    pixels = _tile_pixels(tile.address).astype(int)
    assert (np.abs(pixels - error_color(2)).sum(axis=2) < 60).any()
    assert tile.caption.startswith("0.0 % of the boundary band wrong; 0.0 % of all labelled pixels")


def test_a_row_without_a_class_map_has_no_tile() -> None:
    archive = {
        "0/name": np.array("x"), "0/image": np.zeros((4, 4, 3), np.uint8), "0/truth": np.zeros((4, 4), np.uint8),
        "0/student": np.zeros((4, 4), np.uint8),
    }  # fmt: skip
    rows = [network("teacher", 0.9), network("student", 0.9)]
    (picture,) = read_pictures(archive, rows, ["only"])
    assert [tile.title for tile in picture.tiles] == ["Image", "Truth", "Baseline student"]


def test_the_legend_has_the_colours_that_the_overlays_use() -> None:
    red, green, blue = palette(2)[1]
    assert legend(["a", "b"])[1] == ("b", f"#{red:02x}{green:02x}{blue:02x}")


@pytest.mark.parametrize("num_classes", [1, 11, 19, 59, 150, 255])
def test_the_error_colour_is_like_no_class_colour(num_classes: int) -> None:
    distance = np.linalg.norm(palette(num_classes).astype(int) - error_color(num_classes), axis=1)
    assert distance.min() > 50

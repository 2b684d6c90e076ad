"""Resizing and normalisation against Pillow, torch and arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.board.preprocess import prepare
from edgekd.board.resize import resize_image, resize_nearest, resize_plane, taps
from edgekd.board.specs import Preprocess
from edgekd.errors import ImageError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
# torch 2.15 interpolates (1, 1, H, 1) with antialiasing as if the height were constant.
TORCH_SIZES = st.tuples(st.integers(2, 40), st.integers(2, 40))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng([height, width, channels])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@settings(deadline=None)
@given(old=SIZES, new=SIZES)
def test_resized_image_is_pillows_within_one_grey_level(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(*old)
    expected = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize_image(image, new).astype(int) - expected).max() <= 1


@settings(deadline=None)
@given(old=TORCH_SIZES, new=TORCH_SIZES)
def test_resized_plane_is_torchs_antialiased_interpolation(old: tuple[int, int], new: tuple[int, int]) -> None:
    plane = np.random.default_rng([*old]).normal(size=old).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], new, mode="bilinear", align_corners=False, antialias=True
    )
    np.testing.assert_allclose(resize_plane(plane, new), expected[0, 0].numpy(), atol=1e-4)


@settings(deadline=None)
@given(old=SIZES, more=SIZES)
def test_enlarged_plane_is_torchs_plain_interpolation(old: tuple[int, int], more: tuple[int, int]) -> None:
    new = (old[0] + more[0], old[1] + more[1])
    plane = np.random.default_rng([*old]).normal(size=old).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(plane)[None, None], new, mode="bilinear")
    np.testing.assert_allclose(resize_plane(plane, new), expected[0, 0].numpy(), atol=1e-4)


@settings(deadline=None)
@given(old=SIZES, new=SIZES)
def test_nearest_is_pillows_where_a_centre_does_not_fall_on_an_edge(old: tuple[int, int], new: tuple[int, int]) -> None:
    class_map = noise(*old, 1)[:, :, 0]
    expected = np.asarray(Image.fromarray(class_map).resize(new[::-1], Image.Resampling.NEAREST))
    # Pillow adds up the position step by step, so that on an edge its rounding decides.
    inside = [(2 * np.arange(n) + 1) * o % (2 * n) != 0 for o, n in zip(old, new, strict=True)]
    both = np.ix_(*inside)
    np.testing.assert_array_equal(resize_nearest(class_map, new)[both], expected[both])


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    row = np.array([[7, 8, 9]], np.uint8)
    assert resize_nearest(row, (1, 2)).tolist() == [[7, 9]]  # centres at 0.75 and 2.25
    assert resize_nearest(row, (2, 6)).tolist() == [[7, 7, 8, 8, 9, 9]] * 2


def test_halving_weighs_four_pixels_by_hand() -> None:
    # Centre 2 of output pixel 1, support 2: distances 1.5, 0.5, 0.5, 1.5 of 2 -> weights 1/4, 3/4, 3/4, 1/4, sum 2.
    image = np.array([10, 20, 30, 50, 90, 100], np.uint8).reshape(1, 6, 1)
    middle = (20 + 3 * 30 + 3 * 50 + 90) / 8
    assert resize_image(image, (1, 3))[0, 1, 0] == round(middle)


def test_an_axis_that_keeps_its_length_has_one_tap_of_weight_one() -> None:
    assert taps(7, 7).source.tolist() == [list(range(7))]
    assert taps(7, 7).weights.tolist() == [[1.0] * 7]


def test_constant_images_stay_constant_at_any_size() -> None:
    image = np.full((13, 17, 3), 255, np.uint8)
    assert (resize_image(image, (7, 40)) == 255).all()


def test_image_of_the_right_size_is_not_copied() -> None:
    image = noise(8, 6)
    assert resize_image(image, (8, 6)) is image
    assert np.shares_memory(prepare(image, Preprocess((8, 6), layout="NHWC", dtype="uint8")), image)


@pytest.mark.parametrize("size", [(8, 6), (4, 9)])
def test_float_input_is_the_pillow_image_normalised_by_the_formula(size: tuple[int, int]) -> None:
    image = noise(8, 6)
    preprocess = Preprocess(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = resize_image(image, size).astype(np.float64)
    expected = ((pixels / 255 - preprocess.mean) / preprocess.std).transpose(2, 0, 1)[None]

    planar = prepare(image, preprocess)
    interleaved = prepare(image, replace(preprocess, layout="NHWC"))

    assert planar.dtype == interleaved.dtype == np.float32
    assert planar.flags.c_contiguous
    assert interleaved.flags.c_contiguous
    np.testing.assert_allclose(planar, expected, atol=1e-6)
    np.testing.assert_allclose(interleaved, expected.transpose(0, 2, 3, 1), atol=1e-6)


def test_uint8_inputs_carry_the_pixels_themselves() -> None:
    image = noise(2, 3)
    planar = prepare(image, Preprocess((2, 3), dtype="uint8"))
    assert planar.flags.c_contiguous
    np.testing.assert_array_equal(planar, image.transpose(2, 0, 1)[None])
    np.testing.assert_array_equal(prepare(image, Preprocess((2, 3), layout="NHWC", dtype="uint8")), image[None])


def test_float_and_uint8_networks_see_the_same_picture() -> None:
    image = noise(9, 14)
    as_float = prepare(image, Preprocess((5, 8)))
    as_pixels = prepare(image, Preprocess((5, 8), dtype="uint8"))
    np.testing.assert_allclose(as_float * 255, as_pixels, atol=1e-4)


def test_bgr_reverses_the_channels_and_mean_follows_the_order_of_the_network() -> None:
    image = np.array([[[0, 51, 255]]], np.uint8)
    prepared = prepare(image, Preprocess((1, 1), mean=(0.5, 0.0, 0.0), color_order="BGR"))
    np.testing.assert_allclose(prepared.ravel(), [0.5, 0.2, 0.0], atol=1e-6)


def test_a_view_that_is_not_contiguous_is_prepared_like_its_copy() -> None:
    view = noise(20, 20)[::2, ::-1]
    preprocess = Preprocess((6, 20))
    np.testing.assert_array_equal(prepare(view, preprocess), prepare(view.copy(), preprocess))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), "shape (4, 4); repeat the grey channel"),
        (np.zeros((4, 4, 4), np.uint8), "shape (4, 4, 4); drop the alpha"),
        (np.zeros((3, 8, 8), np.uint8), "put the channel axis last"),
        (np.zeros((1, 4, 4, 3), np.uint8), "without a batch axis"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.float32), "dtype float32; scale it to 0..255"),
        ([[1, 2, 3]], "got list; convert it"),
    ],
)
def test_what_is_not_an_rgb_image_is_refused_with_advice(image: object, said: str) -> None:
    with pytest.raises(ImageError) as refused:
        prepare(image, Preprocess((4, 4)))  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert "expected an array (height, width, 3) uint8" in str(refused.value)

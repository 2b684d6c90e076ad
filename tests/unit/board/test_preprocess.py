"""Resizing and normalisation against Pillow, torch and arithmetic by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekd.board.filters import Filter, bilinear, blocks
from edgekd.board.image_resize import ImageResize
from edgekd.board.preprocess import Preparation, prepare
from edgekd.board.resize import resize_nearest
from edgekd.board.specs import Preprocess
from edgekd.errors import ImageError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng([height, width, channels])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def resized(image: np.ndarray, size: tuple[int, int], with_products: bool = True) -> np.ndarray:
    """Return an image (H, W, 3) uint8 at another size."""
    resize = ImageResize((image.shape[0], image.shape[1]), size, with_products=with_products)
    return resize(image).transpose(1, 2, 0).astype(np.uint8)


@given(old=SIZES, new=SIZES)
def test_resized_image_is_pillows_within_one_grey_level(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(*old)
    expected = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resized(image, new).astype(int) - expected).max() <= 1


@given(old=SIZES, new=SIZES)
def test_products_and_sums_of_taps_give_the_same_bytes(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(*old)
    np.testing.assert_array_equal(resized(image, new, True), resized(image, new, False))


@pytest.mark.parametrize("with_products", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "digest"),
    [
        ((360, 480), (192, 256), "21b8ef1290ff55d6"),
        ((360, 480), (384, 512), "41d2f847719c35df"),
        ((97, 131), (64, 200), "c1d5a0123bb00dce"),
        ((200, 300), (100, 75), "eaec468d06eb8105"),
    ],
)
def test_resized_noise_has_the_bytes_of_edgekd_0_34(
    old: tuple[int, int], new: tuple[int, int], digest: str, with_products: bool
) -> None:
    image = np.random.default_rng([*old]).integers(0, 256, (*old, 3), dtype=np.uint8)
    found = np.ascontiguousarray(resized(image, new, with_products))
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@given(length=st.integers(2, 40), new_length=st.integers(2, 40))
def test_filter_is_torchs_antialiased_interpolation(length: int, new_length: int) -> None:
    # Each column is the answer to a single one among zeros. Of two rows: torch 2.15 ignores the height of (1, 1, H, 1).
    ones = torch.eye(length).repeat_interleave(2, dim=1).reshape(length, 1, length, 2)
    expected = torch.nn.functional.interpolate(
        ones, (new_length, 2), mode="bilinear", align_corners=False, antialias=True
    )[:, 0, :, 0]
    np.testing.assert_allclose(matrix_of(bilinear(length, new_length)), expected.numpy().T, atol=1e-5)


@given(lengths=st.tuples(*[st.integers(1, 30)] * 3))
def test_two_filters_in_a_row_are_the_product_of_their_matrices(lengths: tuple[int, int, int]) -> None:
    first, second = bilinear(*lengths[:2]), bilinear(*lengths[1:])
    np.testing.assert_allclose(matrix_of(first.then(second)), matrix_of(second) @ matrix_of(first), atol=1e-12)


@given(length=st.integers(1, 60), new_length=st.integers(1, 60), others=st.integers(1, 500))
def test_blocks_are_the_filter(length: int, new_length: int, others: int) -> None:
    filter_ = bilinear(length, new_length)
    made = blocks(filter_, others, lanes=16)
    found = np.zeros((made.new_padded, made.padded))
    for number, weights in enumerate(made.weights):
        start = made.offset + number * made.step
        found[number * made.size : (number + 1) * made.size, start : start + made.window] = weights
    inside = found[:new_length, made.before : made.before + length]
    np.testing.assert_allclose(inside, matrix_of(filter_), atol=1e-6)
    assert np.isclose(found.sum(), new_length, atol=1e-4)  # the padding has no weight


def matrix_of(filter_: Filter) -> np.ndarray:
    """Return the matrix (new, old) of a filter."""
    matrix = np.zeros((len(filter_), filter_.length))
    for row, (first, weights) in enumerate(zip(filter_.first, filter_.weights, strict=True)):
        matrix[row, first : first + filter_.taps] += weights
    return matrix


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
    image = np.array([10, 20, 30, 50, 90, 100], np.uint8).reshape(1, 6, 1).repeat(3, axis=2)
    middle = (20 + 3 * 30 + 3 * 50 + 90) / 8
    assert resized(image, (1, 3))[0, 1].tolist() == [round(middle)] * 3


def test_an_axis_that_keeps_its_length_stays_as_it_is() -> None:
    assert bilinear(7, 7).is_identity
    np.testing.assert_array_equal(matrix_of(bilinear(7, 7)), np.eye(7))


def test_constant_images_stay_constant_at_any_size() -> None:
    image = np.full((13, 17, 3), 255, np.uint8)
    assert (resized(image, (7, 40)) == 255).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_prepare_the_same_bytes(threads: int, resize: str) -> None:
    image, preprocess = noise(300, 500), Preprocess((256, 320), resize=resize)
    expected = prepare(image, preprocess)
    preparation = Preparation((300, 500), preprocess, threads)
    preparation(noise(300, 500)[::-1])  # what an earlier image left in the buffers does not show
    np.testing.assert_array_equal(preparation(image), expected)


@pytest.mark.parametrize("size", [(8, 6), (4, 9)])
def test_float_input_is_the_pillow_image_normalised_by_the_formula(size: tuple[int, int]) -> None:
    image = noise(8, 6)
    preprocess = Preprocess(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = resized(image, size).astype(np.float64)
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


@pytest.mark.parametrize("rows", [None, (20, 90)])
def test_a_slow_gradient_has_the_bytes_of_the_sums_of_taps(rows: tuple[int, int] | None) -> None:
    # Most sums lie close to half a grey level.
    column = np.linspace(0, 255, 1080).astype(np.uint8)[:, None, None]
    image = np.ascontiguousarray(np.broadcast_to(column, (1080, 960, 3)))
    fast, slow = (ImageResize((1080, 960), (180, 160), rows, with_products=way) for way in (True, False))
    np.testing.assert_array_equal(fast(image), slow(image))


@pytest.mark.parametrize("size", [(20, 20000), (1, 200000)])
def test_more_threads_than_rows_are_not_asked_for(size: tuple[int, int]) -> None:
    image, preprocess = noise(*size), Preprocess((64, 512), resize="letterbox")
    np.testing.assert_array_equal(Preparation(size, preprocess, threads=4)(image), prepare(image, preprocess))

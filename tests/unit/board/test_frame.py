"""Letterbox and its inverse: by hand, and there and back again."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.board.detection import Selection, detections
from edgekd.board.frame import Frame, frame
from edgekd.board.masks import assemble
from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.resize import resize_nearest
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import ImageError

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def letterbox(size: tuple[int, int]) -> Preprocess:
    return Preprocess(size, layout="NHWC", dtype="uint8", resize="letterbox")


def contract(task: str, size: tuple[int, int], *outputs: TensorSpec) -> ModelSpec:
    image = TensorSpec("image", "uint8", (1, *size, 3), "image")
    return ModelSpec(task, ("a", "b"), 255, (image,), outputs, letterbox(size))


def exact(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height, width in rational arithmetic."""
    scale = min(Fraction(size[0], image[0]), Fraction(size[1], image[1]))
    height, width = (max(1, floor(side * scale + Fraction(1, 2))) for side in image)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def test_a_wide_image_has_bars_above_and_below() -> None:
    place = frame((300, 600), letterbox((64, 64)))
    assert place == Frame((300, 600), (64, 64), (32, 64), top=16, left=0)
    assert not place.is_whole


def test_of_an_odd_padding_the_larger_half_comes_last() -> None:
    place = frame((10, 3), letterbox((10, 10)))
    assert (place.left, 10 - place.left - place.size[1]) == (3, 4)


def test_a_thin_line_keeps_one_pixel() -> None:
    assert frame((1, 1000), letterbox((64, 64))).size == (1, 64)


def test_an_image_of_the_inputs_aspect_and_a_stretched_one_have_no_bars() -> None:
    assert frame((30, 60), letterbox((16, 32))).is_whole
    assert frame((30, 61), Preprocess((16, 32))) == Frame((30, 61), (16, 32), (16, 32))


@given(image=SIZES, size=SIZES)
def test_the_content_is_the_largest_that_fits_in_rational_arithmetic(
    image: tuple[int, int], size: tuple[int, int]
) -> None:
    place = frame(image, letterbox(size))
    assert (place.top, place.left, *place.size) == exact(image, size)
    assert place.top + place.size[0] <= size[0]
    assert place.left + place.size[1] <= size[1]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ImageError, match=r"'pad', expected one of stretch, letterbox"):
        prepare(np.zeros((4, 4, 3), np.uint8), Preprocess((4, 4), resize="pad"))


def test_old_contracts_without_the_key_are_stretched() -> None:
    data = contract("semantic", (8, 8)).to_dict()
    assert ModelSpec.from_dict(data).preprocess.resize == "letterbox"
    del data["preprocess"]["resize"]
    assert ModelSpec.from_dict(data).preprocess.resize == "stretch"


def test_the_picture_lies_between_black_bars() -> None:
    image = np.full((2, 4, 3), 200, np.uint8)
    prepared = prepare(image, letterbox((4, 4)))[0]
    assert prepared[:, :, 0].tolist() == [[0] * 4, [200] * 4, [200] * 4, [0] * 4]


def test_bars_are_normalised_as_black_is() -> None:
    image = np.full((2, 4, 3), 255, np.uint8)
    prepared = prepare(image, Preprocess((4, 4), mean=(0.5,) * 3, std=(0.25,) * 3, resize="letterbox"))
    np.testing.assert_allclose(prepared[0, 1], [[-2] * 4, [2] * 4, [2] * 4, [-2] * 4], atol=1e-6)


def test_a_box_by_hand() -> None:
    place = frame((100, 200), letterbox((64, 64)))  # 0.32, 16 rows of bar
    boxes = np.array([[16, 24, 32, 48], [-5, 0, 70, 64]], np.float32)
    np.testing.assert_allclose(place.boxes_on_image(boxes), [[50, 25, 100, 100], [0, 0, 200, 100]], rtol=1e-6)


@given(image=SIZES, size=SIZES, corners=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_come_back_to_the_pixel(image: tuple[int, int], size: tuple[int, int], corners: list[float]) -> None:
    place = frame(image, letterbox(size))
    boxes = np.array([corners], np.float32) * np.array([image[1], image[0]] * 2, np.float32)
    scale = np.array([place.size[1] / image[1], place.size[0] / image[0]] * 2)
    on_input = boxes * scale + [place.left, place.top, place.left, place.top]
    np.testing.assert_allclose(place.boxes_on_image(on_input), boxes, atol=2e-3)


@given(image=SIZES, more=SIZES)
def test_an_enlarged_class_map_comes_back_unchanged(image: tuple[int, int], more: tuple[int, int]) -> None:
    size = (image[0] + more[0], image[1] + more[1])
    spec = contract("semantic", size, TensorSpec("out", "uint8", (1, *size), "class_map"))
    place = frame(image, spec.preprocess)
    truth = np.random.default_rng([*image]).integers(0, 9, image, np.uint8)
    seen = np.full(size, 77, np.uint8)  # what a network says of the bars does not matter
    seen[place.rows_columns()] = resize_nearest(truth, place.size)
    np.testing.assert_array_equal(class_map({"out": seen[None]}, spec, image), truth)


def test_logits_of_a_quarter_lose_their_bars() -> None:
    """Columns 0 and 3 of the quarter lie in the bars; between the other two the classes change in the middle."""
    spec = contract("semantic", (16, 16), TensorSpec("out", "float32", (1, 2, 4, 4), "logits"))
    first = np.array([-9, 1, -1, -9], np.float32)
    logits = np.stack([np.tile(first, (4, 1)), np.zeros((4, 4), np.float32)])[None]
    got = class_map({"out": logits}, spec, (32, 16))  # twice the size, content columns 4..11
    # first is zero between its second and third cell, at input column 8: the middle of the image. Left of input
    # column 5.6 the bar's -9 is mixed in: 1 - 10 * (5.5 - x) / 4 > 0 right of 5.6 only for pixel centres x.
    assert got.shape == (32, 16)
    assert (got == got[0]).all()
    centres = 4 + (np.arange(16) + 0.5) / 2
    sure = (np.abs(centres - 8) > 0.6) & (np.abs(centres - 5.6) > 0.6)
    np.testing.assert_array_equal((got[0] == 0)[sure], ((centres > 5.6) & (centres < 8))[sure])


def test_a_detection_on_the_input_is_one_on_the_image() -> None:
    bins, size = 5, (32, 32)
    outputs = (
        TensorSpec("scores", "float32", (1, 2, 4, 4), "scores"),
        TensorSpec("boxes", "float32", (1, 4 * bins, 4, 4), "boxes"),
    )
    heads = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in outputs}
    heads["scores"] -= 20
    heads["scores"][0, 1, 1, 2] = 5  # the point (20, 12)
    for side, distance in enumerate((1, 1, 0, 2)):  # x1 12, y1 4, x2 20, y2 28
        heads["boxes"][0, side * bins + distance, 1, 2] = 60
    found = detections(heads, contract("detection", size, *outputs), (32, 64))  # half its size, 8 rows of bar
    np.testing.assert_allclose(found.boxes, [[24, 0, 40, 32]], atol=1e-4)  # y1 4 lies in the bar, y2 (28 - 8) * 2 = 40


def test_masks_are_read_between_the_bars() -> None:
    """A prototype that is positive in the lower half of the content, which starts at input row 16."""
    place = frame((16, 32), letterbox((32, 32)))  # its own size, 8 rows of bar
    prototypes = np.full((1, 8, 8), -1, np.float32)
    prototypes[0, 4:] = 1
    masks = assemble(prototypes, np.ones((1, 1), np.float32), np.array([[2, 0, 30, 12]], np.float32), place).whole()
    expected = np.zeros((1, 16, 32), bool)
    expected[0, 8:12, 2:30] = True
    np.testing.assert_array_equal(masks, expected)


def in_the_bar_and_on_the_image(how: str) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """Return what a network says of a 32x128 image on a 64x64 input, whose rows 24 to 40 show it at half its size: with score
    0.99 a box from 8 down to 24, all in the upper bar, and with 0.9 one whose x is 8 to 24 and that fills the content's rows."""
    boxes, scores = np.array([[24, 8, 56, 24], [8, 24, 24, 40]], np.float32), np.array([0.99, 0.9], np.float32)
    if how == "heads":
        bins = 3
        arrays = {"scores": np.full((1, 2, 4, 4), -20.0), "boxes": np.zeros((1, 4 * bins, 4, 4))}
        for (row, column), score, sides in zip([(0, 2), (1, 0)], scores, [(1, 0, 1, 1), (0, 0, 1, 1)], strict=True):
            arrays["scores"][0, 0, row, column] = np.log(score / (1 - score))
            for side, distance in enumerate(sides):  # of the points (40, 8) and (8, 24), in strides of 16
                arrays["boxes"][0, side * bins + distance, row, column] = 60
    elif how == "boxes":
        arrays = {"decoded_boxes": boxes.T[None], "decoded_scores": np.stack([scores, 0 * scores])[None]}
    else:
        arrays = {"found_boxes": boxes[None], "found_scores": scores[None], "found_labels": np.zeros((1, 2))}
    outputs = {name: array.astype(np.float32) for name, array in arrays.items()}
    tensors = (TensorSpec(name, "float32", array.shape, name) for name, array in outputs.items())
    return contract("detection", (64, 64), *tensors), outputs


@pytest.mark.parametrize("most", [1, 100])
@pytest.mark.parametrize("how", ["heads", "boxes", "nms"])
def test_a_box_in_the_bars_is_no_detection_and_takes_no_place(how: str, most: int) -> None:
    spec, outputs = in_the_bar_and_on_the_image(how)
    found = detections(outputs, spec, (32, 128), Selection(most=most))
    np.testing.assert_allclose(found.boxes, [[16, 0, 48, 32]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-6)


def test_a_mask_over_a_box_that_reaches_into_the_bar_keeps_its_scale() -> None:
    """Of a box from input row 0 to 40 the mask is the lower half, from row 20 on; the content begins at row 16, two rows of
    it to each of the image's: image rows (20 - 16) / 2 to (40 - 16) / 2, and columns 8 / 2 to 24 / 2."""
    outputs = {
        "found_boxes": np.array([[[8, 0, 24, 40]]], np.float32),
        "found_scores": np.array([[0.9]], np.float32),
        "found_labels": np.zeros((1, 1), np.int32),
        "found_masks": np.repeat(np.arange(28) >= 14, 28).reshape(1, 1, 28, 28).astype(np.float32),
    }
    tensors = (TensorSpec(name, str(array.dtype), array.shape, name) for name, array in outputs.items())
    found = detections(outputs, contract("instance", (64, 64), *tensors), (16, 32))
    np.testing.assert_array_equal(found.boxes, [[4, 0, 12, 12]])
    expected = np.zeros((16, 32), bool)
    expected[2:12, 4:12] = True
    assert found.masks is not None
    np.testing.assert_array_equal(found.masks[0], expected)

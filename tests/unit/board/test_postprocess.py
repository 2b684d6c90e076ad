"""Class maps at image size, against torch's interpolation and argmax."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.board.class_maps import ClassMaps
from edgekd.board.frame import Frame, frame
from edgekd.board.postprocess import Predictor, class_map
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import ImageError

# From 2: torch 2.15 interpolates (1, K, H, 1) with antialiasing as if the height were constant.
SIZES = st.tuples(st.integers(2, 30), st.integers(2, 30))


def spec_of(role: str, dtype: str, shape: tuple[int, ...], size: tuple[int, int] = (2, 2)) -> ModelSpec:
    classes = ("a", "b", "c")
    image = TensorSpec("image", "uint8", (1, *size, 3), "image")
    preprocess = Preprocess(size, layout="NHWC", dtype="uint8")
    return ModelSpec("semantic", classes, 255, (image,), (TensorSpec("out", dtype, shape, role),), preprocess)


class Brightness:
    """A session whose logits of the classes are the red, green and blue channel of its input."""

    spec = spec_of("logits", "float32", (1, 3, 2, 2))
    runtime: ClassVar[dict[str, object]] = {}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"out": inputs["image"].transpose(0, 3, 1, 2).astype(np.float32)}


def smooth_logits(classes: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Return logits with regions, so that some output pixels have agreeing sources and others have not."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, classes, 3, 3)))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].float().numpy()


def reference(logits: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return torch's class map and the margin (H, W) between the two largest resized logits."""
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double()[None], size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    best = resized.topk(2, dim=0).values
    return resized.argmax(dim=0).numpy(), (best[0] - best[1]).numpy()


@given(old=SIZES, new=SIZES, classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_class_map_is_the_argmax_of_torchs_resized_logits(
    old: tuple[int, int], new: tuple[int, int], classes: int, seed: int
) -> None:
    logits = smooth_logits(classes, old, seed)
    expected, margin = reference(logits, new)
    clear = margin > 1e-4  # closer calls are float32 rounding
    for with_products in (True, False):
        found = ClassMaps(classes, old, Frame(new, old, old), with_products=with_products)(logits)
        np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("with_products", [True, False])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_small_logits_go_to_the_input_and_from_there_to_the_image(with_products: bool, resize: str) -> None:
    # The last upsampling of a network, by torch, and then the frame of the image, by torch.
    preprocess = Preprocess((48, 64), resize=resize)
    small, place = smooth_logits(5, (12, 16), 3), frame((45, 80), preprocess)
    large = torch.nn.functional.interpolate(torch.from_numpy(small)[None], (48, 64), mode="bilinear")[0].numpy()
    rows, columns = place.rows_columns()
    expected, margin = reference(large[:, rows, columns], (45, 80))
    clear = margin > 1e-4
    found = ClassMaps(5, (12, 16), place, with_products=with_products)(small)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("with_products", [True, False])
def test_threads_and_chunks_share_the_rows_without_a_seam(with_products: bool) -> None:
    logits = smooth_logits(7, (90, 120), 1)
    place = Frame((700, 900), (360, 480), (360, 480))
    one, three = (ClassMaps(7, (90, 120), place, threads, with_products)(logits) for threads in (1, 3))
    assert (one != three).mean() < 1e-5  # blocks lie elsewhere, so that sums are rounded otherwise


def test_first_of_equals_wins_and_256_classes_are_told_apart() -> None:
    logits = np.random.default_rng(0).integers(0, 4, (7, 300, 500)).astype(np.float32)  # many ties
    size = (300, 500)
    np.testing.assert_array_equal(ClassMaps(7, size, Frame(size, size, size))(logits), logits.argmax(axis=0))
    many = np.zeros((256, 1, 2), np.float32)
    many[255, 0, 0] = many[200, 0, 1] = 1
    assert ClassMaps(256, (1, 2), Frame((1, 2), (1, 2), (1, 2)))(many).tolist() == [[255, 200]]


def test_infinite_logits_lose_or_win_and_leave_their_neighbours_alone() -> None:
    logits = np.zeros((2, 40, 40), np.float32)
    logits[1] = 1
    logits[1, :, :20] = -np.inf
    found = ClassMaps(2, (40, 40), Frame((80, 80), (40, 40), (40, 40)), with_products=True)(logits)
    assert (found[:, :38] == 0).all()
    assert (found[:, 42:] == 1).all()


def test_logits_are_resized_before_the_argmax() -> None:
    # Between 4 (left) and 0 (right), against 2.1 everywhere: doubled, class 0 scores 4, 3, 1, 0.
    logits = np.array([[[4.0, 0.0]], [[2.1, 2.1]], [[0.0, 0.0]]], np.float32)[None]
    found = class_map({"out": logits}, spec_of("logits", "float32", (1, 3, 1, 2), (1, 2)), (1, 4))
    assert found.tolist() == [[0, 0, 1, 1]]
    assert found.dtype == np.uint8


def test_half_precision_logits_are_accepted() -> None:
    logits = np.array([[[1.0]], [[3.0]], [[2.0]]], np.float16)[None]
    assert class_map({"out": logits}, spec_of("logits", "float16", (1, 3, 1, 1)), (2, 1)).tolist() == [[1], [1]]


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_class_map_output_is_resized_to_the_nearest_pixel(dtype: str) -> None:
    spec = spec_of("class_map", dtype, (1, 1, 2))
    found = class_map({"out": np.array([[[2, 1]]], dtype)}, spec, (2, 4))
    assert found.tolist() == [[2, 2, 1, 1]] * 2
    assert found.dtype == np.uint8


def test_result_does_not_share_memory_with_the_runtimes_output() -> None:
    output = np.array([[[2, 1]]], np.uint8)
    assert not np.shares_memory(class_map({"out": output}, spec_of("class_map", "uint8", (1, 1, 2)), (1, 2)), output)


def test_predictor_goes_from_image_to_class_map_at_image_size() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :2, 0], image[:, 2:, 2] = 200, 200
    assert Predictor(Brightness())(image).tolist() == [[0, 0, 2, 2]] * 4


def test_predictor_refuses_what_is_not_an_image() -> None:
    with pytest.raises(ImageError, match="drop the alpha channel"):
        Predictor(Brightness())(np.zeros((4, 4, 4), np.uint8))


def test_predictor_gives_each_caller_arrays_of_its_own_for_images_of_changing_sizes() -> None:
    predict, rng = Predictor(Brightness()), np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, size + 3, 3), dtype=np.uint8) for size in (5, 9, 5, 7, 11, 13, 9)]
    found = [predict(image) for image in images]
    for image, one in zip(images, found, strict=True):
        np.testing.assert_array_equal(one, Predictor(Brightness())(image))


@pytest.mark.parametrize("with_products", [True, False])
def test_a_class_that_is_impossible_everywhere_wins_nowhere(with_products: bool) -> None:
    # At these sizes the weights of a pixel sum to a little more than one in float32.
    logits = np.random.default_rng(0).normal(size=(4, 21, 20)).astype(np.float32)
    logits[3] = -np.inf
    found = ClassMaps(4, (21, 20), Frame((157, 17), (86, 83), (86, 83)), with_products=with_products)(logits)
    assert found.max() < 3


def test_a_class_map_of_one_row_is_made_by_one_thread() -> None:
    logits = np.random.default_rng(0).normal(size=(21, 1, 300)).astype(np.float32)
    place = Frame((1, 30000), (1, 300), (1, 300))
    np.testing.assert_array_equal(
        ClassMaps(21, (1, 300), place, threads=4)(logits), ClassMaps(21, (1, 300), place)(logits)
    )

"""Class maps at image size, against torch's interpolation and argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.board import resize
from edgekd.board.postprocess import class_map, predict
from edgekd.board.resize import argmax, resize_argmax
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


@settings(deadline=None)
@given(old=SIZES, new=SIZES, classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_class_map_is_the_argmax_of_torchs_resized_logits(
    old: tuple[int, int], new: tuple[int, int], classes: int, seed: int
) -> None:
    logits = smooth_logits(classes, old, seed)
    expected, margin = reference(logits, new)
    clear = margin > 1e-4  # closer calls are float32 rounding
    np.testing.assert_array_equal(resize_argmax(logits, new)[clear], expected[clear])


@pytest.mark.parametrize("dense_above", [-1.0, 2.0])
def test_shortcut_and_full_interpolation_agree(monkeypatch: pytest.MonkeyPatch, dense_above: float) -> None:
    monkeypatch.setattr(resize, "_DENSE_ABOVE", dense_above)
    for seed, new in enumerate([(45, 60), (25, 90), (12, 11)]):
        logits = smooth_logits(5, (30, 40), seed)
        expected, margin = reference(logits, new)
        clear = margin > 1e-4
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(resize_argmax(logits, new)[clear], expected[clear])


def test_argmax_gives_the_first_of_equals_and_runs_over_all_strips() -> None:
    logits = np.random.default_rng(0).integers(0, 4, (7, 300, 500)).astype(np.float32)  # many ties
    np.testing.assert_array_equal(argmax(logits), logits.argmax(axis=0))


def test_argmax_knows_two_hundred_and_fifty_six_classes() -> None:
    logits = np.zeros((256, 1, 2), np.float32)
    logits[255, 0, 0] = logits[200, 0, 1] = 1
    assert argmax(logits).tolist() == [[255, 200]]


def test_logits_are_resized_before_the_argmax() -> None:
    # Between 4 (left) and 0 (right), against 2.1 everywhere: doubled, class 0 scores 4, 3, 1, 0.
    logits = np.array([[[4.0, 0.0]], [[2.1, 2.1]], [[0.0, 0.0]]], np.float32)[None]
    found = class_map({"out": logits}, spec_of("logits", "float32", (1, 3, 1, 2)), (1, 4))
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


def test_predict_goes_from_image_to_class_map_at_image_size() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :2, 0], image[:, 2:, 2] = 200, 200
    assert predict(Brightness(), image).tolist() == [[0, 0, 2, 2]] * 4


def test_predict_refuses_what_is_not_an_image() -> None:
    with pytest.raises(ImageError, match="drop the alpha channel"):
        predict(Brightness(), np.zeros((4, 4, 4), np.uint8))

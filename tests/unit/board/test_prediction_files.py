"""Files of the task `predict`: what is read is what was written, and nothing else is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.board.detection import Detections
from edgekd.board.prediction_files import load_images, load_results, save_images, save_results
from edgekd.board.run_masks import tight_masks
from edgekd.errors import ArtifactError

SIZE = (5, 7)


def found(rng: np.random.Generator, count: int, has_masks: bool) -> Detections:
    masks = tight_masks(rng.random((count, *SIZE)) < 0.5) if has_masks else None
    boxes = rng.random((count, 4)).astype(np.float32)
    return Detections(boxes, rng.random(count).astype(np.float32), rng.integers(0, 9, count), masks)


def test_images_of_many_sizes_come_back_and_the_same_images_are_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 7), (3, 2), (5, 7))]
    for name in ("a.npz", "b.npz"):
        save_images(tmp_path / name, images)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for image, read in zip(images, load_images(tmp_path / "a.npz"), strict=True):
        np.testing.assert_array_equal(image, read)


def test_class_maps_come_back(tmp_path: Path) -> None:
    maps = [np.full((2, 3), 4, np.uint8), np.arange(6, dtype=np.uint8).reshape(3, 2)]
    save_results(tmp_path / "r.npz", maps)
    read = load_results(tmp_path / "r.npz", "semantic", [(2, 3), (3, 2)], 100)
    for one, other in zip(maps, read, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("has_masks", [True, False])
def test_detections_come_back_bit_by_bit(tmp_path: Path, has_masks: bool) -> None:
    rng = np.random.default_rng(1)
    results = [found(rng, count, has_masks) for count in (3, 0, 1)]
    save_results(tmp_path / "r.npz", results)
    for one, other in zip(results, load_results(tmp_path / "r.npz", "instance", [SIZE] * 3, 100), strict=True):
        for part in ("boxes", "scores", "labels"):
            assert getattr(one, part).dtype == getattr(other, part).dtype
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
        assert (one.masks is None) == (other.masks is None)
        if one.masks is not None and other.masks is not None:
            for number in range(len(one.masks)):
                np.testing.assert_array_equal(one.masks[number], other.masks[number])


def boxes(count: int) -> dict[str, np.ndarray]:
    """Return the arrays of the first image's detections."""
    return {
        "00000/boxes": np.zeros((count, 4), np.float32),
        "00000/scores": np.zeros(count, np.float32),
        "00000/labels": np.zeros(count, np.int64),
    }


RUNS = {"00000/mask_runs": np.array([30, 5], np.uint32), "00000/mask_run_counts": np.array([2], np.uint32)}


@pytest.mark.parametrize(
    ("task", "arrays", "message"),
    [
        ("semantic", {"00000": np.zeros((7, 5), np.uint8)}, r"expected uint8 \[5, 7\], got uint8 \[7, 5\]"),
        ("semantic", {"00000": np.zeros(SIZE, np.int64)}, r"expected uint8 \[5, 7\], got int64"),
        ("semantic", {"00001": np.zeros(SIZE, np.uint8)}, "00000"),
        ("semantic", {"00000": np.zeros(SIZE, np.uint8), "x": np.zeros(1)}, "got 2 arrays"),
        ("semantic", {"00000": np.zeros((1000, 1000), np.uint8)}, "larger than the results of 1 images"),
        ("semantic", {"00000": np.array([{}], object)}, "pickle"),
        ("detection", boxes(3), r"expected float32 \[2, 4\], got float32 \[3, 4\]"),
        ("detection", {**boxes(1), "00000/labels": np.zeros(2, np.int64)}, r"expected int64 \[1\]"),
        ("instance", {**boxes(1), **RUNS, "00000/mask_runs": np.array([30, 6], np.uint32)}, "not of an image of 7x5"),
        ("instance", {**boxes(1), **RUNS, "00000/mask_run_counts": np.array([3], np.uint32)}, r"expected uint32 \[3\]"),
    ],
)
def test_results_of_something_else_are_refused(
    tmp_path: Path, task: str, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez_compressed(tmp_path / "r.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=message):
        load_results(tmp_path / "r.npz", task, [SIZE], 2)


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    save_results(tmp_path / "r.npz", [np.zeros(SIZE, np.uint8)])
    whole = (tmp_path / "r.npz").read_bytes()
    (tmp_path / "r.npz").write_bytes(whole[:-30])
    with pytest.raises(ArtifactError, match="not the results of these images"):
        load_results(tmp_path / "r.npz", "semantic", [SIZE], 2)

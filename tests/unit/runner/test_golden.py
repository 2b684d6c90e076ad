"""Golden images: written, read back, compared with a session whose answers are known, and never believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.detection import Detections
from edgekd.board.parity import SAME
from edgekd.board.run_masks import tight_masks
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import BundleError
from edgekd.runner.golden import GoldenImage, check_golden, compare_results, read_array, read_golden, write_golden
from edgekd.runner.manifest import Manifest, Tolerance

SIZE = (4, 6)
SPEC = ModelSpec(
    task="semantic",
    classes=("dark", "bright"),
    ignore_index=255,
    inputs=(TensorSpec("image", "float32", (1, 3, *SIZE), "image"),),
    outputs=(TensorSpec("logits/0:weird name", "float32", (1, 2, *SIZE), "logits"),),
    preprocess=Preprocess(SIZE),
)
MANIFEST = Manifest(
    name="small", version=1, task="semantic", target="none", precision="fp32", engine="engine/none",
    tolerance=Tolerance(0.05, 0.1), golden=1,
)  # fmt: skip


class Brightness:
    """A network by hand: logits (0.5 - red, red - 0.5) times a gain, and a shift on the second."""

    def __init__(self, gain: float = 1.0, shift: float = 0.0) -> None:
        self.spec, self.runtime = SPEC, {}
        self._gain, self._shift = gain, shift

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        red = inputs["image"][:, 0]
        bright = (red - 0.5) * self._gain
        return {SPEC.outputs[0].name: np.stack([-bright, bright + self._shift], axis=1).astype(np.float32)}


def image() -> np.ndarray:
    """Left half black, right half white."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, 3:] = 255
    return pixels


def golden() -> GoldenImage:
    """The answer of `Brightness`, worked out: logits of -0.5 and 0.5, class 0 on the left, 1 on the right."""
    right = np.zeros(SIZE, np.uint8)
    right[:, 3:] = 1
    logits = np.where(np.stack([1 - right, right]), 0.5, -0.5).astype(np.float32)[None]
    return GoldenImage(image(), {SPEC.outputs[0].name: logits}, right)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_golden(tmp_path, SPEC, [golden()])
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    found, wanted = read_golden(folder, SPEC, 0), golden()
    np.testing.assert_array_equal(found.image, wanted.image)
    np.testing.assert_array_equal(found.result, wanted.result)
    np.testing.assert_array_equal(found.outputs[SPEC.outputs[0].name], wanted.outputs[SPEC.outputs[0].name])
    assert sorted(path.relative_to(folder / "golden/0").as_posix() for path in folder.rglob("*.npy")) == [
        "class_map.npy",
        "image.npy",
        "outputs/0.npy",
    ]


def test_the_same_network_passes_with_no_difference(folder: Path) -> None:
    report = check_golden(folder, MANIFEST, Brightness())
    assert (report.images, report.error, report.different, report.compared, report.reason) == (1, 0.0, 0.0, 24, "")
    assert report.text == "1 golden images: RMS error 0.0e+00, 0.00% of 24 results differ"


def test_an_error_is_in_standard_deviations_of_the_output(folder: Path) -> None:
    # Half of the values are 0.5, half -0.5: standard deviation 0.5. A gain of 1.08 moves each by 0.04.
    report = check_golden(folder, MANIFEST, Brightness(gain=1.08))
    assert report.error == pytest.approx(0.04 / 0.5, rel=1e-5)
    assert report.different == 0
    assert report.reason == "RMS error 8.0e-02 of an output's standard deviation, limit 0.05"


def test_other_results_are_counted_in_pixels_of_the_image(folder: Path) -> None:
    wide = dataclasses.replace(MANIFEST, tolerance=Tolerance(10.0, 0.1))
    report = check_golden(folder, wide, Brightness(shift=2.0))  # every pixel is bright
    assert report.different == 0.5
    assert report.reason == "50.00% of the results differ, limit 10.00%"


def test_values_that_are_not_finite_never_pass(folder: Path) -> None:
    for gain in (np.nan, np.inf):
        assert check_golden(folder, MANIFEST, Brightness(gain=gain)).reason


def test_a_bundle_without_golden_images_passes(tmp_path: Path) -> None:
    report = check_golden(tmp_path, dataclasses.replace(MANIFEST, golden=0), Brightness())
    assert (report.images, report.error, report.reason) == (0, None, "")


def objects(boxes: list[list[float]], with_masks: bool = False) -> Detections:
    """Objects of class 0 and 1 in turn, score 0.9, with masks that fill their boxes in an image of 20 x 30."""
    masks = np.zeros((len(boxes), 20, 30), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes, int).reshape(-1, 4), strict=True):
        mask[y1:y2, x1:x2] = True
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), 0.9, np.float32),
        np.arange(len(boxes)) % 2,
        tight_masks(masks) if with_masks else None,
    )


@pytest.mark.parametrize("boxes", [[], [[1, 2, 11, 12], [5, 5, 25, 15]]])
@pytest.mark.parametrize("with_masks", [False, True])
def test_objects_are_written_and_read(tmp_path: Path, boxes: list[list[float]], with_masks: bool) -> None:
    spec = dataclasses.replace(SPEC, task="instance" if with_masks else "detection")
    picture = np.zeros((20, 30, 3), np.uint8)
    write_golden(tmp_path, spec, [GoldenImage(picture, {}, objects(boxes, with_masks))])
    found = read_golden(tmp_path, spec, 0).result
    assert compare_results(objects(boxes, with_masks), found, SAME["fp32"]) == (0, 2 * len(boxes))
    np.testing.assert_array_equal(found.boxes, np.array(boxes, np.float32).reshape(-1, 4))
    if with_masks:
        np.testing.assert_array_equal(found.masks.whole(), objects(boxes, True).masks.whole())


def test_objects_without_a_counterpart_are_counted_on_both_sides() -> None:
    one, other = objects([[1, 2, 11, 12], [5, 5, 25, 15]]), objects([[1, 2, 11, 12]])
    assert compare_results(one, other, SAME["fp32"]) == (1, 3)
    assert compare_results(one, objects([]), SAME["fp32"]) == (2, 2)


def test_the_same_box_with_another_mask_is_another_object() -> None:
    one, other = objects([[0, 0, 10, 10]], True), objects([[0, 0, 10, 8]], True)
    moved = dataclasses.replace(other, boxes=one.boxes)  # mask IoU 0.8
    assert compare_results(one, moved, SAME["fp32"]) == (2, 2)
    assert compare_results(one, moved, SAME["int8"]) == (0, 2)


def _save(name: str, values: np.ndarray) -> Callable[[Path], None]:
    return lambda place: np.save(place / name, values)


LIES: dict[str, Callable[[Path], object]] = {
    "no image": lambda place: (place / "image.npy").unlink(),
    "no result": lambda place: (place / "class_map.npy").unlink(),
    "image of another type": _save("image.npy", np.zeros((4, 6, 3), np.float32)),
    "image without colours": _save("image.npy", np.zeros((4, 6), np.uint8)),
    "image without pixels": _save("image.npy", np.zeros((0, 6, 3), np.uint8)),
    "class map of another size": _save("class_map.npy", np.zeros((4, 5), np.uint8)),
    "output of another shape": _save("outputs/0.npy", np.zeros((1, 2, 4, 5), np.float32)),
    "columns first": _save("class_map.npy", np.asfortranarray(np.zeros((4, 6), np.uint8))),
    "no array": lambda place: (place / "image.npy").write_bytes(b"PK\3\4"),
    "empty": lambda place: (place / "image.npy").write_bytes(b""),
    "truncated": lambda place: (place / "image.npy").write_bytes((place / "image.npy").read_bytes()[:-1]),
    "longer": lambda place: (place / "image.npy").write_bytes((place / "image.npy").read_bytes() + b"x"),
    "a folder": lambda place: (place / "class_map.npy").unlink() or (place / "class_map.npy").mkdir(),
}


@pytest.mark.parametrize("lie", LIES)
def test_arrays_that_are_others_than_the_contract_says_are_refused(folder: Path, lie: str) -> None:
    LIES[lie](folder / "golden/0")
    with pytest.raises(BundleError) as caught:
        read_golden(folder, SPEC, 0)
    assert "\n" not in str(caught.value)


def header_only(path: Path, header: str) -> Path:
    """Write a .npy of version 1.0 that is its header alone."""
    text = header.encode() + b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 1048576, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1, 3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1.5, 1, 3), }",
        "{'descr': '|u1', 'shape': (1, 1, 3), }",
        "__import__('os').system('true')",
        "(" * 3000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1" * 60_000,
    ],
)
def test_a_header_that_lies_allocates_and_runs_nothing(tmp_path: Path, header: str) -> None:
    with pytest.raises(BundleError):
        read_array(header_only(tmp_path / "lie.npy", header), "uint8", (None, None, 3))


def test_masks_of_another_image_are_refused(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, task="instance")
    found = objects([[1, 2, 11, 12]], True)
    write_golden(tmp_path, spec, [GoldenImage(np.zeros((21, 30, 3), np.uint8), {}, found)])
    with pytest.raises(BundleError, match="expected masks of 30x21 pixels"):
        read_golden(tmp_path, spec, 0)
    _save("mask_run_counts.npy", np.array([1], np.uint32))(tmp_path / "golden/0")
    with pytest.raises(BundleError, match="expected 1 masks, one per object"):
        read_golden(tmp_path, spec, 0)

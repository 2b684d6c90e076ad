"""Golden images of a bundle: images, the engine's outputs for them, and the results, to compare with those of another machine.

    golden/<n>/image.npy                                   uint8 (H, W, 3) RGB
    golden/<n>/outputs/<i>.npy                             output i of the contract, as the engine gives it
    golden/<n>/class_map.npy                               uint8 (H, W); of a segmenter
    golden/<n>/boxes.npy, scores.npy, labels.npy           float32 (N, 4), float32 (N,), int64 (N,); of a detector
    golden/<n>/mask_runs.npy, mask_run_counts.npy          uint32, see `board/run_masks.py`; of an instance segmenter

Objects are those of the default `Selection`. Files are .npy of version 1.0 in C order. A bundle can come from anybody: every
array is held to its type, its shape and the size of its file before it is read.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.lib import format as npy

from edgekd.board.detection import Detections
from edgekd.board.parity import SAME, Alike, Comparison, is_alike, numeric_outputs
from edgekd.board.postprocess import Predictor
from edgekd.board.precision import Precision
from edgekd.board.run_masks import packed, unpacked
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.errors import BundleError
from edgekd.runner.manifest import Manifest

GOLDEN = "golden"
_PARTS = {"boxes": ("float32", (None, 4)), "scores": ("float32", (None,)), "labels": ("int64", (None,))}
_MASKS = ("mask_runs", "mask_run_counts")
_MOST_OBJECTS = 10_000
_HEADER = re.compile(
    rb"\{'descr': '([|<][a-z][0-9]{1,2})', 'fortran_order': False, 'shape': \(((?:[0-9]{1,10}, ?)*[0-9]{0,10})\), \} *\n"
)
_MASK_IOU = 0.9  # a pixel at the edge of a small object is much of it


@dataclass(frozen=True)
class GoldenImage:
    """An image (H, W, 3) uint8 RGB, the engine's outputs for it by name, and the result at the image's size.

    outputs: those that can be compared; all of the contract where the engine itself gave them.
    """

    image: np.ndarray
    outputs: Mapping[str, np.ndarray]
    result: Any


@dataclass(frozen=True)
class GoldenReport:
    """How far an engine's answers are from the golden ones.

    images: number of golden images.
    error: largest RMS difference of an output over its standard deviation; None where no output is compared as numbers.
    different: share of the pixels, or of the objects of both, whose result is another one.
    compared: number of these pixels or objects.
    reason: why they are too far apart, with figure and limit; "" when they are not.
    """

    images: int
    error: Optional[float]
    different: float
    compared: int
    reason: str

    @property
    def text(self) -> str:
        """The figures on one line."""
        error = "" if self.error is None else f"RMS error {self.error:.1e}, "
        return f"{self.images} golden images: {error}{self.different:.2%} of {self.compared} results differ"


def write_golden(folder: Path, spec: ModelSpec, images: Sequence[GoldenImage]) -> None:
    """Write golden images into the folder of a bundle; the same arrays give the same bytes."""
    for number, one in enumerate(images):
        place = folder / GOLDEN / str(number)
        (place / "outputs").mkdir(parents=True)
        _save(place / "image.npy", one.image)
        for index, tensor in enumerate(spec.outputs):
            if tensor.name in one.outputs:
                _save(place / _output(index), one.outputs[tensor.name])
        for name, values in _arrays(one.result).items():
            _save(place / f"{name}.npy", values)


def read_golden(folder: Path, spec: ModelSpec, number: int) -> GoldenImage:
    """Read one golden image of an unpacked bundle.

    Raises:
        BundleError: a file is missing, or is not the array that the contract and the image make it.
    """
    place = folder / GOLDEN / str(number)
    image = read_array(place / "image.npy", "uint8", (None, None, 3))
    outputs = {
        tensor.name: read_array(place / _output(index), tensor.dtype, tensor.shape)
        for index, tensor in enumerate(spec.outputs)
        if (place / _output(index)).exists()
    }
    size = (image.shape[0], image.shape[1])
    if min(size) < 1:
        raise BundleError(f"{place / 'image.npy'}: expected an image, got one without pixels")
    if spec.task == "semantic":
        return GoldenImage(image, outputs, read_array(place / "class_map.npy", "uint8", size))
    return GoldenImage(image, outputs, _read_objects(place, size, spec.task == "instance"))


def check_golden(folder: Path, manifest: Manifest, session: Session) -> GoldenReport:
    """Run an engine on the golden images of its bundle and compare its outputs and results.

    Args:
        folder: the unpacked bundle.
        manifest: its manifest; the tolerance is the limit.
        session: the engine, open.

    Raises:
        BundleError: the golden images are damaged; TargetError: the runtime refuses the engine.
    """
    spec, predictor = session.spec, Predictor(session)
    alike = _alike(manifest.precision)
    comparison = Comparison(alike)
    for number in range(manifest.golden):
        expected = read_golden(folder, spec, number)
        size = (expected.image.shape[0], expected.image.shape[1])
        outputs = session.infer(predictor.prepare(expected.image))
        names = [name for name in numeric_outputs(spec) if name in expected.outputs]
        comparison.add_numbers(expected.outputs, outputs, names)
        different, compared = compare_results(expected.result, predictor.finish(outputs, size), alike)
        comparison.different, comparison.compared = comparison.different + different, comparison.compared + compared
    found, limits = comparison.result(), manifest.tolerance
    reason = ""
    if found.rms_error is not None and not found.rms_error <= limits.error:
        reason = f"RMS error {found.rms_error:.1e} of an output's standard deviation, limit {limits.error:g}"
    elif not found.different <= limits.different:
        reason = f"{found.different:.2%} of the results differ, limit {limits.different:.2%}"
    return GoldenReport(manifest.golden, found.rms_error, found.different, found.compared, reason)


def compare_results(expected: Any, got: Any, alike: Alike) -> Tuple[int, int]:
    """Return how many pixels, or objects of both results, differ, and how many there are."""
    if not isinstance(expected, Detections):
        return int((expected != got).sum()), int(expected.size)
    same = is_alike(expected, got, alike)
    if expected.masks is not None and got.masks is not None:
        for one, other in np.argwhere(same).tolist():
            same[one, other] = _mask_iou(expected.masks[one], got.masks[other]) >= min(alike.iou, _MASK_IOU)
    lonely = int((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum())
    return lonely, len(expected.boxes) + len(got.boxes)


def read_array(path: Path, dtype: str, shape: Sequence[Optional[int]]) -> np.ndarray:
    """Read a .npy file of this type and shape; None stands for any length.

    Raises:
        BundleError: the file is missing, is another array, is in another order, or has more or fewer bytes.
    """
    try:
        with open(str(path), "rb") as file:
            start = file.read(10)
            match = _HEADER.fullmatch(file.read(int.from_bytes(start[8:], "little")))
            content = file.read()
    except OSError as exc:
        raise BundleError(f"{path}: cannot be read ({exc.strerror}); unpack the bundle again") from exc
    wanted = f"an array of {dtype} {['?' if one is None else one for one in shape]}"
    if not start.startswith(b"\x93NUMPY\1\0") or match is None:
        raise BundleError(f"{path}: expected {wanted} in a .npy of version 1.0 in C order, got another file")
    kind, sides = match.group(1).decode(), tuple(int(side) for side in match.group(2).split(b",") if side.strip())
    if (
        kind != np.dtype(dtype).str
        or len(sides) != len(shape)
        or any(want not in (None, got) for got, want in zip(sides, shape))  # noqa: B905 - Python 3.8
        or len(content) != math.prod(sides) * np.dtype(dtype).itemsize
    ):
        raise BundleError(f"{path}: expected {wanted}, got {kind} {list(sides)} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(sides)


def _read_objects(place: Path, size: Tuple[int, int], has_masks: bool) -> Detections:
    boxes, scores, labels = (read_array(place / f"{name}.npy", dtype, shape) for name, (dtype, shape) in _PARTS.items())
    count = len(boxes)
    if not count == len(scores) == len(labels) <= _MOST_OBJECTS:
        raise BundleError(f"{place}: expected as many scores and labels as boxes, at most {_MOST_OBJECTS}")
    if not has_masks:
        return Detections(boxes, scores, labels)
    runs, counts = (read_array(place / f"{name}.npy", "uint32", (None,)) for name in _MASKS)
    ends = np.concatenate([[0], np.cumsum(counts.astype(np.int64))])
    if len(counts) != count or ends[-1] != len(runs):
        raise BundleError(f"{place}: expected {count} masks, one per object")
    pixels = np.concatenate([[0], np.cumsum(runs.astype(np.int64))])[ends]
    if (np.diff(pixels) != size[0] * size[1]).any():
        raise BundleError(f"{place}: expected masks of {size[1]}x{size[0]} pixels")
    return Detections(boxes, scores, labels, unpacked(runs, counts, size))


def _arrays(result: Any) -> Dict[str, np.ndarray]:
    """Return the result's arrays by the name of their file."""
    if not isinstance(result, Detections):
        return {"class_map": result}
    found = {name: np.asarray(getattr(result, name), dtype) for name, (dtype, _) in _PARTS.items()}
    return found if result.masks is None else {**found, **packed(result.masks, range(len(result.masks)))}


def _alike(precision: str) -> Alike:
    try:
        return SAME["int8" if Precision(precision).is_quantized else precision]
    except (KeyError, ValueError) as exc:
        raise BundleError(f"manifest.json: precision {precision!r} is unknown to this edgekd; update it") from exc


def _mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _output(index: int) -> str:
    return f"outputs/{index}.npy"


def _save(path: Path, values: np.ndarray) -> None:
    with open(str(path), "wb") as file:
        npy.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)

"""Parity: differences between two networks with one contract on the same images, in values and in results.

Export compares ONNX with torch, `compile` an engine with its ONNX graph, `edgekd check --build` both on noise.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.boxes import box_iou
from edgekd.board.detection import Detections, detections
from edgekd.board.postprocess import class_map
from edgekd.board.specs import ModelSpec
from edgekd.errors import GateError

Arrays = Mapping[str, np.ndarray]
# Minimum spread of an output, as a fraction of its largest value: below it rounding would dominate.
MIN_SPREAD = 0.01
_TINY = 1e-12


@dataclass(frozen=True)
class Alike:
    """Two detections of one class are the same when their IoU is at least `iou` and their scores differ by at most `score`."""

    iou: float
    score: float


# By precision of the engine. An int8 detector moves every box a little and reorders those with low scores.
SAME = {"fp32": Alike(0.99, 1e-3), "fp16": Alike(0.9, 0.01), "int8": Alike(0.5, 0.1)}


@dataclass(frozen=True)
class Parity:
    """The differences between a network and its reference.

    images: number of images.
    max_error: largest difference of an output over the output's spread, the worst output; None where no output is compared
        as numbers.
    rms_error: RMS of the differences of an output over the standard deviation of its values, the worst output.
    different: fraction of the pixels that get another class, or of the detections without a counterpart.
    compared: number of these pixels or detections (of both).
    """

    images: int
    max_error: Optional[float]
    rms_error: Optional[float]
    different: float
    compared: int


@dataclass
class _Output:
    """Sums over the values of one output."""

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    worst: float = 0.0
    squared_error: float = 0.0

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        wanted, found = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, found - wanted)
        error[np.isnan(error)] = np.inf  # one of them is not finite
        wanted = wanted[np.isfinite(wanted)]
        self.count += expected.size
        if not wanted.size:
            wanted = np.zeros(1)
        self.low, self.high = min(self.low, float(wanted.min())), max(self.high, float(wanted.max()))
        self.total, self.squares = self.total + float(wanted.sum()), self.squares + float((wanted**2).sum())
        self.worst = max(self.worst, float(np.abs(error).max()))
        self.squared_error += float((error**2).sum())

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high), _TINY)

    @property
    def max_error(self) -> float:
        return self.worst / max(self.high - self.low, MIN_SPREAD * self.largest)

    @property
    def rms_error(self) -> float:
        mean = self.total / self.count
        deviation = np.sqrt(max(0.0, self.squares / self.count - mean**2))
        return float(np.sqrt(self.squared_error / self.count) / max(deviation, MIN_SPREAD * self.largest))


@dataclass
class Comparison:
    """Collects the outputs of a reference and of a network, image by image.

    alike: rule for equal detections.
    """

    alike: Alike = SAME["fp32"]
    images: int = 0
    different: int = 0
    compared: int = 0
    outputs: Dict[str, _Output] = field(default_factory=dict)

    def add_numbers(self, expected: Arrays, got: Arrays, names: List[str]) -> None:
        """Compare these outputs of one image as numbers."""
        self.images += 1
        for name in names:
            if expected[name].size:
                self.outputs.setdefault(name, _Output()).add(expected[name], got[name])

    def add_results(self, expected: Arrays, reference: ModelSpec, got: Arrays, spec: ModelSpec) -> None:
        """Compare the class maps or the detections of one image, each read through its own contract."""
        compare = _pixels if spec.task == "semantic" else self._objects
        different, compared = compare(expected, reference, got, spec)
        self.different, self.compared = self.different + different, self.compared + compared

    @property
    def largest_relative(self) -> Optional[float]:
        """The largest difference of any output over its largest value; None without one."""
        return max((one.worst / one.largest for one in self.outputs.values()), default=None)

    def result(self) -> Parity:
        """Return the parity over all images so far."""
        found = self.outputs.values()
        return Parity(
            self.images,
            max((one.max_error for one in found), default=None),
            max((one.rms_error for one in found), default=None),
            self.different / max(1, self.compared),
            self.compared,
        )

    def _objects(self, expected: Arrays, reference: ModelSpec, got: Arrays, spec: ModelSpec) -> Tuple[int, int]:
        size = spec.preprocess.size
        return unmatched(detections(expected, reference, size), detections(got, spec, size), self.alike)


def numeric_outputs(spec: ModelSpec) -> List[str]:
    """Return the outputs whose values are compared as numbers.

    Class maps are labels. Detections of equal score can swap their order, which changes every number after them.
    """
    return [
        tensor.name
        for tensor in spec.outputs
        if np.dtype(tensor.dtype).kind == "f" and not tensor.role.startswith("found_")
    ]


def check_finite(where: str, whose: str, outputs: Arrays, hint: str) -> None:
    """GateError for values that are not finite; its text begins with `where`."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise GateError(f"{where}output {name!r} of the {whose} holds values that are not finite; {hint}")


def unmatched(one: Detections, other: Detections, alike: Alike) -> Tuple[int, int]:
    """Return the number of detections without a counterpart in the other result, and the number of detections: two results
    on the same image."""
    same = is_alike(one, other, alike)
    lonely = int((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum())
    return lonely, len(one.boxes) + len(other.boxes)


def is_alike(one: Detections, other: Detections, alike: Alike) -> np.ndarray:
    """Return (N, M) bool: of one class, and alike in box and score."""
    return np.asarray(
        (box_iou(one.boxes, other.boxes) >= alike.iou)
        & (np.abs(one.scores[:, None] - other.scores[None, :]) <= alike.score)
        & (one.labels[:, None] == other.labels[None, :])
    )


def _pixels(expected: Arrays, reference: ModelSpec, got: Arrays, spec: ModelSpec) -> Tuple[int, int]:
    size = spec.preprocess.size
    same = class_map(expected, reference, size) == class_map(got, spec, size)
    return int(same.size - same.sum()), same.size

"""Scales of a placement's tensors, from the values that a float graph computes for calibration images.

The images pass one by one, and memory does not grow with their number: a method sees a tensor's smallest and largest value,
their means over the images, and, in a second pass, a histogram.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.files import write_atomic
from edgekd.errors import ArtifactError, RecipeError, did_you_mean
from edgekd.quantize.grids import Grid, Placement
from edgekd.quantize.ptq import Batch, check_calibration, check_scales
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph, read_onnx

_BINS = 2048
_PERCENTILE = 99.999  # % of the values inside the range, the default of the quantizer qdq
_SHARES = np.linspace(0.3, 1.0, 71)  # shares of the whole range that the least squared error is searched over


@dataclass(frozen=True)
class Scale:
    """The scale and the zero point of a tensor: () for one, (C,) for one per channel; float32 and integers."""

    scale: np.ndarray
    zero_point: np.ndarray


@dataclass
class Observed:
    """The values of one tensor over all images.

    low, high: the smallest and the largest value.
    mean_low, mean_high: means over the images of each image's smallest and largest value.
    counts: histogram over [low, high] in equal bins, empty where the method needs none.
    """

    low: float = np.inf
    high: float = -np.inf
    mean_low: float = 0.0
    mean_high: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def centres(self) -> np.ndarray:
        """Return the values in the middle of the histogram's bins."""
        return np.asarray(self.low + (np.arange(len(self.counts)) + 0.5) * (self.high - self.low) / len(self.counts))


def calibrate(
    model: Path, placement: Placement, calibration: Sequence[Batch], method: str = "minmax"
) -> dict[str, Scale]:
    """Return the scale of every activation and weight of a placement, by tensor.

    Args:
        model: the float ONNX file.
        placement: where the quantizer quantizes.
        calibration: network inputs by name; read twice for a method with histograms.
        method: a name in METHODS. Weights take their largest magnitude, or the least squared error with `mse`.

    Raises:
        DataError: no calibration inputs.
        RecipeError: no such method.
        ArtifactError: the file is not a readable ONNX model.
        TargetError: ONNX Runtime is not installed, or a range is not finite.
    """
    check_calibration(calibration)
    if method not in METHODS:
        raise RecipeError(
            f"ranges: expected one of {', '.join(METHODS)}, got {method!r}{did_you_mean(method, METHODS)}"
        )
    rule = METHODS[method]
    graph = Graph(read_onnx(model), model)
    observed = _observe(graph, list(placement.activations), calibration, rule in _WITH_HISTOGRAM)
    scales = {name: scale_of(*rule(observed[name], grid), grid) for name, grid in placement.activations.items()}
    for name, grid in placement.weights.items():
        scales[name] = weight_scale(graph.value(name), grid, has_least_error=method == "mse")
    check_scales({name: scale.scale for name, scale in scales.items()}, "calibration")
    return scales


def scale_of(low: Any, high: Any, grid: Grid) -> Scale:
    """Return the scale and the zero point with which a grid covers [low, high] and 0; scalars or arrays (C,).

    Source: ONNX Runtime 1.32, `quantization/quant_utils.py`, `compute_scale_zp`: in float64, rounded to float32; a range of 0 has
    scale 1.
    """
    low, high = np.minimum(np.asarray(low, np.float64), 0), np.maximum(np.asarray(high, np.float64), 0)
    first, last = grid.levels
    if grid.is_symmetric:
        reach = last if grid.reach is None else grid.reach
        scale = np.maximum(np.abs(low), np.abs(high)) / reach if grid.is_signed else high / last
    else:
        scale = (high - low) / (last - first)
    is_zero = scale < np.finfo(np.float32).tiny
    scale = np.where(is_zero, 1.0, scale)
    zero = np.zeros_like(scale) if grid.is_symmetric else np.where(is_zero, 0, np.round(first - low / scale))
    return Scale(scale.astype(np.float32), zero.astype(grid.dtype))


def weight_scale(weight: np.ndarray, grid: Grid, has_least_error: bool = False) -> Scale:
    """Return the scale of a weight: from its largest magnitude, or with the least squared error among parts of that range."""
    moved = weight.reshape(1, -1) if grid.axis is None else np.moveaxis(weight, grid.axis, 0)
    rows = moved.reshape(len(moved), -1).astype(np.float64)
    low, high = rows.min(axis=1, initial=0), rows.max(axis=1, initial=0)
    best = np.ones(len(rows))
    if has_least_error:
        least = np.full(len(rows), np.inf)
        for share in _SHARES[::-1]:
            made = scale_of(low * share, high * share, grid)
            error = ((rounded(rows, made, grid, 0) - rows) ** 2).sum(axis=1)
            best, least = np.where(error < least, share, best), np.minimum(error, least)
    found = scale_of(low * best, high * best, grid)
    return found if grid.axis is not None else Scale(found.scale.reshape(()), found.zero_point.reshape(()))


def integers(values: np.ndarray, scale: Scale, grid: Grid, axis: int | None) -> np.ndarray:
    """Return the integers that stand for values on a grid; `axis` is that of the channels of `scale`."""
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    step, zero = (np.reshape(one, shape) for one in (scale.scale, scale.zero_point.astype(np.float32)))
    # In float32, as QuantizeLinear divides; it rounds half to even, as numpy does.
    whole = np.round(values.astype(np.float32) / step.astype(np.float32)) + zero
    return np.clip(whole, *grid.levels).astype(grid.dtype)


def rounded(values: np.ndarray, scale: Scale, grid: Grid, axis: int | None) -> np.ndarray:
    """Return values rounded to a grid, float32."""
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    whole = integers(values, scale, grid, axis).astype(np.float32) - np.reshape(scale.zero_point, shape).astype(
        np.float32
    )
    return np.asarray(whole * np.reshape(scale.scale, shape))


def save_scales(scales: Mapping[str, Scale], path: Path) -> None:
    """Write scales as JSON: tensor -> scale, zero_point, type of the integers. The file holds every float32 exactly."""
    content = {
        name: {"scale": one.scale.tolist(), "zero_point": one.zero_point.tolist(), "type": one.zero_point.dtype.name}
        for name, one in scales.items()
    }
    write_atomic(path, json.dumps(content, indent=1).encode())


def load_scales(path: Path) -> dict[str, Scale]:
    """Read what `save_scales` wrote; ArtifactError when the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Scale(np.asarray(one["scale"], np.float32), np.asarray(one["zero_point"], np.dtype(one["type"])))
            for name, one in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ArtifactError(f"{path}: damaged scales: {exc}; delete {path.parent} and run again") from exc


def _observe(
    graph: Graph, tensors: list[str], calibration: Sequence[Batch], has_histogram: bool
) -> dict[str, Observed]:
    found = {name: Observed() for name in tensors}
    with TemporaryDirectory() as folder:
        run = runner(graph.model, tensors, Path(folder))
        for batch in calibration:
            for one, value in zip(found.values(), run(batch), strict=True):
                low, high = float(value.min()), float(value.max())
                one.low, one.high = min(one.low, low), max(one.high, high)
                one.mean_low += low / len(calibration)
                one.mean_high += high / len(calibration)
        # A range that is not finite has no bins; `check_scales` names the tensor.
        for batch in calibration if has_histogram else ():
            for one, value in zip(found.values(), run(batch), strict=True):
                if np.isfinite([one.low, one.high]).all():
                    counts = np.histogram(value, _BINS, (one.low, max(one.high, one.low + 1e-12)))[0]
                    one.counts = counts + (one.counts if len(one.counts) else 0)
    return found


def _minmax(seen: Observed, grid: Grid) -> tuple[float, float]:
    return seen.low, seen.high


def _mean(seen: Observed, grid: Grid) -> tuple[float, float]:
    return seen.mean_low, seen.mean_high


def _percentile(seen: Observed, grid: Grid) -> tuple[float, float]:
    if not len(seen.counts):
        return seen.low, seen.high
    share, outside = np.cumsum(seen.counts) / seen.counts.sum(), (1 - _PERCENTILE / 100) / 2
    first, last = np.searchsorted(share, [outside, 1 - outside])
    width = (seen.high - seen.low) / len(seen.counts)
    return seen.low + first * width, seen.low + (last + 1) * width


def _mse(seen: Observed, grid: Grid) -> tuple[float, float]:
    if not len(seen.counts):
        return seen.low, seen.high
    centres = seen.centres()

    def error(share: float) -> float:
        made = scale_of(seen.low * share, seen.high * share, grid)
        return float(((rounded(centres, made, grid, None) - centres) ** 2 * seen.counts).sum())

    best = min(_SHARES[::-1], key=error)
    return seen.low * best, seen.high * best


METHODS: dict[str, Callable[[Observed, Grid], tuple[float, float]]] = {
    "minmax": _minmax,
    "mean": _mean,
    "percentile": _percentile,
    "mse": _mse,
}
_WITH_HISTOGRAM = (_percentile, _mse)


def method_of(options: Any) -> str:
    """Return the method of a quantizer's options for `calibrate`; `minmax` where they name one that is not known here."""
    wanted = getattr(options, "calibration", None) or getattr(options, "range", None)
    return wanted if wanted in METHODS else "minmax"

"""Quantizer qdq_signed: explicit Q/DQ pairs as TensorRT wants them, in an ONNX file.

Signed int8 and zero point 0 everywhere; activations per tensor, weights per output channel or per tensor. Only what goes
into an operator with weights is quantized: what lies between is the compiler's to fuse, and outputs and biases stay float.
All readers of a quantized tensor read the same pair, so the skip connection of a residual block is quantized where it
starts and its addition fuses into the convolution.

Source: "Working with Quantized Types", TensorRT 10 documentation, explicit quantization and Q/DQ placement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.quantize.grids import Grid, Placement, named_graph, placement_of, symmetric_weights
from edgekd.quantize.ptq import WEIGHTED, Batch, QuantizeResult, float_nodes
from edgekd.quantize.ranges import Scale, calibrate
from edgekd.quantize.schemes import qdq

SUFFIX = ".onnx"
KEEPS_FLOAT = True
TAKES_RANGES = True


@dataclass(frozen=True)
class Options:
    """How ONNX Runtime quantizes for TensorRT."""

    calibration: Literal["minmax", "mean", "mse", "percentile", "entropy"] = option(
        "minmax",
        "Method that finds the ranges of activations. `minmax`: smallest and largest value over all images. `mean`: means of each "
        "image's smallest and largest value. `mse`: least squared error, also for weights. `percentile` and `entropy` keep all "
        "activations in memory.",
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = option(
        99.999, "Share in % of the values inside the range, for `percentile` calibration."
    )
    weights: Literal["per_channel", "per_tensor"] = option(
        "per_channel", "Weight scales: one per output channel, or one per tensor."
    )
    float_head: bool = option(
        True, "Leave the last operator with weights before each output, and the operators after it, in float."
    )
    keep_float: tuple[str, ...] = option((), "Shell-style patterns of ONNX node names to leave in float.")


def quantize(
    model: Path,
    spec: ModelSpec,
    calibration: Sequence[Batch],
    out_dir: Path,
    options: Options,
    ranges: Mapping[str, Scale] | None = None,
) -> QuantizeResult:
    """Write `model.onnx` with signed, symmetric Q/DQ pairs; arguments and errors as in `qdq.quantize`."""
    if ranges is None and options.calibration in qdq.OWN_RANGES:
        ranges = calibrate(model, grids(model, spec, options), calibration, options.calibration)
    settings = qdq.Settings(
        calibration=options.calibration,
        percentile=options.percentile,
        activation_type="int8",
        weight_bits=8,
        weights=options.weights,
        float_head=options.float_head,
        keep_float=options.keep_float,
        op_types=WEIGHTED,
        extra=_EXTRA,
    )
    result = qdq.write("qdq_signed", model, calibration, out_dir, settings, ranges)
    return QuantizeResult(result.model, {**result.details, "quantizer": "qdq_signed", "options": asdict(options)})


def grids(model: Path, spec: ModelSpec, options: Options) -> Placement:
    """Return the placement that `quantize` writes; errors as in `qdq.grids`."""
    graph = named_graph(model)
    # The scale is that of -127 to 127, as in ONNX Runtime. QuantizeLinear can write -128.
    activation = Grid(8, is_signed=True, is_symmetric=True)
    keep = float_nodes(graph, options.keep_float, options.float_head)
    is_per_channel = options.weights == "per_channel"
    return placement_of(graph, keep, lambda _: activation, symmetric_weights(8), is_per_channel)


_EXTRA: dict[str, Any] = {
    "ActivationSymmetric": True,
    "AddQDQPairToWeight": True,  # int8 weights would fold the pair away that TensorRT looks for
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
}

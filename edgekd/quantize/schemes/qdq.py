"""Quantizer qdq: ONNX Runtime's static quantization, explicit QuantizeLinear/DequantizeLinear pairs in an ONNX file.

The defaults were measured with a briefly trained CamVid student (0.4 M parameters, 256x320, 32 calibration images,
ONNX Runtime 1.32, an AVX2 CPU without VNNI; figures are the engine's mIoU over the float model's):

* uint8 activations with int8 weights: the same accuracy as int8 with int8, and 1.4x faster on x86.
* `weight_bits`: with 8-bit weights the int16 accumulators of CPUs without VNNI saturate, 91 %; with 7-bit weights
  100.5 %. 7 bits cost little elsewhere and keep the file right on every CPU.
* `float_head`: logits are closer to the float ones (relative error 1.3 % instead of 1.6 %) at the same speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.errors import TargetError
from edgekd.quantize.grids import Grid, Placement, channel_axis, named_graph, placement_of, symmetric_weights
from edgekd.quantize.ptq import (
    WEIGHTED,
    Batch,
    QuantizeResult,
    check_calibration,
    check_scales,
    float_nodes,
    quiet,
    toolchain_errors,
    with_names,
)
from edgekd.quantize.ranges import Scale, calibrate
from edgekd.rewrites.graph import QDQ, Graph, attributes, read_graph
from edgekd.targets.onnxruntime.target import import_onnxruntime

SUFFIX = ".onnx"
KEEPS_FLOAT = True
TAKES_RANGES = True
ADJUST = ("round",)  # the default of `quantize.adjust`; docs/results/quantization.md has the study
OWN_RANGES = ("mean", "mse")  # of operators with weights; ONNX Runtime takes the extremes for what lies between them


@dataclass(frozen=True)
class Options:
    """How ONNX Runtime quantizes."""

    calibration: Literal["minmax", "mean", "mse", "percentile", "entropy"] = option(
        "minmax",
        "Method that finds the ranges of activations. `minmax`: smallest and largest value over all images. `mean`: means of each "
        "image's smallest and largest value. `mse`: least squared error, also for weights. `percentile` and `entropy` keep all "
        "activations in memory.",
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = option(
        99.999, "Share in % of the values inside the range, for `percentile` calibration."
    )
    activation_type: Literal["uint8", "int8"] = option(
        "uint8", "Type of quantized activations: `uint8` with zero points, or `int8` for ARM."
    )
    weight_bits: Literal["auto", 7, 8] = option(
        "auto",
        "Bits of the weights. With 8 bits, sums saturate on x86 CPUs without VNNI. `auto`: 8 if all engines of the model run on "
        "ARM, else 7. Also 7 on x86 with VNNI: the file may be copied to a CPU without it.",
    )
    weights: Literal["per_channel", "per_tensor"] = option(
        "per_channel", "Weight scales: one per output channel, or one per tensor, as some NPUs force it."
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
    """Write `model.onnx` with symmetric weights and calibrated activations.

    Args:
        model: float ONNX file with static shapes.
        spec: its contract, which also holds for the result.
        calibration: network inputs by name, prepared as `spec` says; may be read from files again for each pass.
        out_dir: existing folder.
        options: see Options.
        ranges: scales by tensor, of activations and weights, that take the place of calibrated ones: those of QAT. A tensor that
            shares the scale of another (the output of a pool) keeps it; `details` lists such tensors.

    Raises:
        RecipeError: a `keep_float` pattern matches nothing.
        DataError: no calibration inputs.
        ArtifactError: the model is not an ONNX file.
        TargetError: onnxruntime is not installed, its quantizer fails or gives a scale that is not finite, or `ranges` has a
            tensor that the graph has not.
    """
    settings = Settings(**asdict(options), op_types=(), extra={})
    if ranges is None and options.calibration in OWN_RANGES:
        ranges = calibrate(model, grids(model, spec, options), calibration, options.calibration)
    result = write("qdq", model, calibration, out_dir, settings, ranges)
    return QuantizeResult(result.model, {"quantizer": "qdq", "options": asdict(options), **result.details})


def grids(model: Path, spec: ModelSpec, options: Options) -> Placement:
    """Return the placement of the operators with weights, for `quantize` with the same arguments.

    ONNX Runtime also quantizes the operators between them (sums, concatenations), with a scale for each output.

    Raises:
        RecipeError: a `keep_float` pattern matches nothing.
        ArtifactError: the model is not an ONNX file.
    """
    graph = named_graph(model)
    is_per_channel = options.weights == "per_channel"
    keep = float_nodes(graph, options.keep_float, options.float_head)
    keep += _grouped_with_bias(graph) if is_per_channel else []
    activation = Grid(8, is_signed=options.activation_type == "int8", is_symmetric=False)
    # ONNX Runtime's 7 bits are -64 to 64.
    weight = symmetric_weights(8) if options.weight_bits == 8 else Grid(7, True, True, largest=64)
    return placement_of(graph, keep, lambda _: activation, weight, is_per_channel)


@dataclass(frozen=True)
class Settings(Options):
    """What `write` needs besides the options: the operators to quantize (empty: all that ONNX Runtime knows) and further
    `extra_options` of `quantize_static`."""

    op_types: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def write(
    name: str,
    model: Path,
    calibration: Sequence[Batch],
    out_dir: Path,
    options: Settings,
    ranges: Mapping[str, Scale] | None = None,
) -> QuantizeResult:
    """Write `model.onnx` by ONNX Runtime's static quantization; `name` is the quantizer's, the rest is as in `quantize`."""
    runtime = _import()
    check_calibration(calibration)
    out = out_dir / f"model{SUFFIX}"
    with TemporaryDirectory() as folder, quiet():
        named, cleaned = with_names(model, Path(folder)), Path(folder) / "cleaned.onnx"
        floating = read_graph(named)
        _check_ranges(name, floating, ranges or {})
        names = [node.name for node in floating.nodes]
        with toolchain_errors(name, "ONNX Runtime's quantizer", names, out_dir):
            runtime.quant_pre_process(str(named), str(cleaned), skip_symbolic_shape=True)  # folds BN, infers shapes
        graph = read_graph(with_names(cleaned, Path(folder)))
        keep = float_nodes(graph, options.keep_float, options.float_head)
        keep += [one for one in _unsupported(graph, options) if one not in keep]
        names = [node.name for node in graph.nodes]
        if ranges:
            options = replace(options, extra={**options.extra, "TensorQuantOverrides": _overrides(graph, ranges)})
        # It works out the scale of a mask, too, and does not use it.
        with toolchain_errors(name, "ONNX Runtime's quantizer", names, out_dir), np.errstate(all="ignore"):
            _quantize_static(runtime, graph.path, out, calibration, keep, options)
    made = read_graph(out)
    check_scales({node.input[0]: made.value(node.input[1]) for node in made.nodes if node.op_type in QDQ}, name)
    integer_ops, float_ops = _count_operators(made)
    details = {
        "versions": {"onnxruntime": runtime.version, "onnx": runtime.onnx_version},
        "calibration_batches": len(calibration),
        "kept_float": keep,
        "quantized_ops": integer_ops,
        "float_ops": float_ops,
    }
    if ranges:
        details["ranges"] = _taken(made, ranges)
    return QuantizeResult(out, details)


def _check_ranges(name: str, graph: Graph, ranges: Mapping[str, Scale]) -> None:
    missing = [tensor for tensor in ranges if not graph.readers(tensor)]
    if missing:
        raise TargetError(
            f"{name}: the graph has no tensor {missing[0]!r}, for which there is a scale; use the scales of this export"
        )


def _overrides(graph: Graph, ranges: Mapping[str, Scale]) -> dict[str, list[dict[str, Any]]]:
    """Return imported scales as ONNX Runtime's `TensorQuantOverrides`: one entry per tensor, or per channel of a weight."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, one in ranges.items():
        readers = [node for node in graph.readers(name) if node.op_type in WEIGHTED]
        if not readers:
            continue
        axis = channel_axis(readers[0], name) if one.scale.ndim else None
        channels = zip(one.scale.reshape(-1), one.zero_point.reshape(-1), strict=True)
        found[name] = [{"scale": np.array(scale), "zero_point": np.array(zero)} for scale, zero in channels]
        if axis is not None:
            found[name][0]["axis"] = axis
    return found


def _taken(made: Graph, ranges: Mapping[str, Scale]) -> dict[str, Any]:
    """Return the number of quantized tensors with imported scales, and the names of those with others."""
    scales: dict[str, np.ndarray] = {}
    for node in made.nodes:
        if node.op_type in QDQ:
            # A weight is an integer initializer, or a float one in front of a pair.
            tensor = node.input[0].removesuffix("_quantized") if node.op_type == "DequantizeLinear" else node.input[0]
            scales.setdefault(tensor, made.value(node.input[1]).reshape(-1))
    quantized = [name for name in ranges if name in scales]
    other = [name for name in quantized if not np.array_equal(scales[name], ranges[name].scale.reshape(-1))]
    return {
        "imported": len(quantized) - len(other),
        "not_taken": other,
        "unknown": sorted(set(ranges) - set(quantized)),
    }


def _unsupported(graph: Graph, options: Settings) -> list[str]:
    """Return the nodes that ONNX Runtime 1.32 cannot quantize per channel: transposed convolutions in groups, with a bias.

    Their weights have a scale for each output channel of a group, their bias has one for each output channel. A bias that
    stays float (`QuantizeBias` off) takes no scale.
    """
    has_scale = options.extra.get("QuantizeBias", True) and options.weights == "per_channel"
    return _grouped_with_bias(graph) if has_scale else []


def _grouped_with_bias(graph: Graph) -> list[str]:
    return [
        node.name
        for node in graph.nodes
        if node.op_type == "ConvTranspose" and attributes(node).get("group", 1) > 1 and len(node.input) > 2
    ]


class _Reader:
    """Hands the calibration inputs to ONNX Runtime, which asks until it gets None."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


@dataclass(frozen=True)
class _Runtime:
    quantization: Any
    quant_pre_process: Any
    version: str
    onnx_version: str


def _import() -> _Runtime:
    try:
        import onnx

        onnxruntime = import_onnxruntime()
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as exc:
        raise TargetError(f"qdq needs {exc.name}, which is not installed; {install('onnxruntime')}") from exc
    return _Runtime(quantization, quant_pre_process, onnxruntime.__version__, onnx.__version__)


def _quantize_static(
    runtime: _Runtime, model: Path, out: Path, batches: Sequence[Batch], keep: list[str], options: Settings
) -> None:
    q = runtime.quantization
    methods = {"percentile": "Percentile", "entropy": "Entropy"}
    q.quantize_static(
        str(model),
        str(out),
        _Reader(batches),
        quant_format=q.QuantFormat.QDQ,
        calibrate_method=q.CalibrationMethod[methods.get(options.calibration, "MinMax")],
        activation_type=q.QuantType.QUInt8 if options.activation_type == "uint8" else q.QuantType.QInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=options.weights == "per_channel",
        reduce_range=options.weight_bits != 8,  # auto: 7, which is right on every machine
        op_types_to_quantize=list(options.op_types) or None,
        nodes_to_exclude=keep,
        extra_options={"WeightSymmetric": True, "CalibPercentile": options.percentile, **options.extra},
    )


def _count_operators(graph: Graph) -> tuple[dict[str, int], dict[str, int]]:
    """Count by type the operators that read quantized data (and weights, if they have any), and the others."""
    dequantized = {output for node in graph.nodes if node.op_type == "DequantizeLinear" for output in node.output}
    quantized: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op_type in QDQ:
            continue
        inputs = node.input[:2] if node.op_type in WEIGHTED else node.input[:1]
        (quantized if dequantized.issuperset(inputs) else floating)[node.op_type] += 1
    return dict(sorted(quantized.items())), dict(sorted(floating.items()))

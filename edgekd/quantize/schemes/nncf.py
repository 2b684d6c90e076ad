"""Quantizer nncf: NNCF's post-training quantization of the OpenVINO model, written as IR with FakeQuantize operators.

The defaults were measured with a briefly trained CamVid student (0.4 M parameters, 256x320, 32 calibration images,
OpenVINO 2026.4, NNCF 3.4, an AVX2 CPU without VNNI; figures are the engine's mIoU over the float model's):

* `bias_correction`: accurate 100.2 %, fast 98.9 %, none 98.9 %.
* `weight_bits`: with 8-bit weights the int16 accumulators of CPUs without VNNI saturate, 81 to 94 %; with 7-bit
  weights 100.2 %, at the same speed. 7 bits (NNCF's `overflow_fix`) keep the file right on every CPU.

`range` was measured on the students of the three quickstarts, trained with their recipes, 128 calibration images. RMS error of
the worst output on 60 scored images, relative to its standard deviation:

    range     quickstart   detection   instance
    minmax    0.020        0.069       0.060
    mean      0.031        0.205       0.281
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.errors import RecipeError, TargetError
from edgekd.quantize.grids import Grid, Placement, is_non_negative, named_graph, placement_of, symmetric_weights
from edgekd.quantize.ptq import (
    Batch,
    QuantizeResult,
    check_calibration,
    check_scales,
    float_nodes,
    quiet,
    toolchain_errors,
    with_names,
)
from edgekd.rewrites.graph import Graph, read_graph
from edgekd.targets.openvino.runtime import read_model, without_telemetry

if TYPE_CHECKING:
    from edgekd.quantize.read_back import ReadBack
SUFFIX = ".xml"
KEEPS_FLOAT = True
TAKES_RANGES = False  # NNCF calibrates by itself
_RANGES = {
    "minmax": "MINMAX",
    "mean": "MEAN_MINMAX",
    "quantile": "MEAN_QUANTILE",
    "histogram": "HISTOGRAM",
}  # NNCF's own default is the second
_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_NOT_COUNTED = ("Constant", "Convert", "Parameter", "Result", "FakeQuantize")


@dataclass(frozen=True)
class Options:
    """How NNCF quantizes."""

    preset: Literal["performance", "mixed"] = option(
        "performance",
        "`performance`: symmetric activations. `mixed`: activations with zero points, for nets without ReLU.",
    )
    bias_correction: Literal["accurate", "fast", "none"] = option(
        "accurate", "`accurate`: runs the net layer by layer. `fast`: works on means. `none`: leaves biases alone."
    )
    range: Literal["minmax", "mean", "quantile", "histogram"] = option(
        "minmax",
        "Range of an activation. `minmax`: from the smallest to the largest value over all calibration images. `mean`: means "
        "of each image's smallest and largest value, which cuts off rare values. `quantile`: means of each image's quantiles "
        "0.0001 and 0.9999. `histogram`: least squared error.",
    )
    transformer: bool = option(
        False,
        "NNCF's settings for transformers: quantizes fewer operators of attention, and moves outliers of activations into weights "
        "(smooth quant).",
    )
    weight_bits: Literal["auto", 7, 8] = option(
        "auto",
        "Bits of the weights. With 8 bits, sums saturate on x86 CPUs without VNNI. `auto`: 8 if all engines of the model run on "
        "ARM, else 7. Also 7 on x86 with VNNI: the file may be copied to a CPU without it.",
    )
    weights: Literal["per_channel", "per_tensor"] = option(
        "per_channel", "Weight scales: one per output channel, or one per tensor, as some NPUs force it."
    )
    float_head: bool | None = option(
        None,
        "Leave the last operator with weights before each output, and the operators after it, in float. `null`: only of "
        "detectors and instance segmenters, whose boxes and coefficients are numbers, not choices between classes.",
    )
    keep_float: tuple[str, ...] = option((), "Shell-style patterns of ONNX node names to leave in float.")


def quantize(
    model: Path, spec: ModelSpec, calibration: Sequence[Batch], out_dir: Path, options: Options
) -> QuantizeResult:
    """Write `model.xml` and `model.bin`.

    Args:
        model: float ONNX file with static shapes.
        spec: its contract, which also holds for the result.
        calibration: network inputs by name, prepared as `spec` says; may be read from files again for each pass.
        out_dir: existing folder.
        options: see Options.

    Raises:
        RecipeError: a `keep_float` pattern matches nothing.
        DataError: no calibration inputs.
        ArtifactError: the model is not an ONNX file.
        TargetError: nncf or openvino is not installed, OpenVINO refuses the model, or NNCF fails or gives a range that is not
            finite.
    """
    nncf, openvino = _import()
    check_calibration(calibration)
    float_head = _has_float_head(spec, options)
    out = out_dir / f"model{SUFFIX}"
    with TemporaryDirectory() as folder:
        named = with_names(model, Path(folder))
        onnx_graph = read_graph(named)
        keep = float_nodes(onnx_graph, options.keep_float, float_head)
        graph = read_model(named)
        ignored = _operators(graph, _names_there(onnx_graph, keep), is_asked=bool(options.keep_float or float_head))
        names = [node.name for node in onnx_graph.nodes]
        with quiet(), toolchain_errors("nncf", "NNCF", names, out_dir):
            quantized = nncf.quantize(
                graph,
                nncf.Dataset(calibration, dict),
                preset=nncf.QuantizationPreset(options.preset),
                model_type=nncf.ModelType.TRANSFORMER if options.transformer else None,
                subset_size=len(calibration),
                fast_bias_correction=options.bias_correction == "fast",
                ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
                advanced_parameters=_advanced(nncf, options),
            )
    check_scales(_ranges(quantized), "nncf")
    openvino.save_model(quantized, out, compress_to_fp16=False)
    integer, floating = _count_operators(quantized)
    details = {
        "quantizer": "nncf",
        "versions": {"nncf": nncf.__version__, "openvino": openvino.__version__},
        "options": asdict(options),
        "calibration_batches": len(calibration),
        "kept_float": keep,
        "quantized_ops": integer,
        "float_ops": floating,
    }
    return QuantizeResult(out, details)


def grids(model: Path, spec: ModelSpec, options: Options) -> Placement:
    """Return the placement of the operators with weights, for `quantize` with the same arguments.

    NNCF also quantizes sums and other operators between them. It decides from the calibration images whether an activation is
    unsigned; this decides from the graph.

    Raises:
        RecipeError: a `keep_float` pattern matches nothing.
        ArtifactError: the model is not an ONNX file.
    """
    graph = named_graph(model)
    keep = float_nodes(graph, options.keep_float, _has_float_head(spec, options))

    def activation(tensor: str) -> Grid:
        if options.preset == "mixed":
            return Grid(8, is_signed=False, is_symmetric=False)
        return Grid(8, is_signed=not is_non_negative(graph, tensor), is_symmetric=True)

    # The range of 7 bits is twice that of the weights on 255 levels: -127 to 127 halved.
    weight = symmetric_weights(8) if options.weight_bits == 8 else Grid(7, True, True, largest=64, reach=63.5)
    return placement_of(graph, keep, activation, weight, options.weights == "per_channel")


def _has_float_head(spec: ModelSpec, options: Options) -> bool:
    return spec.task != "semantic" if options.float_head is None else options.float_head


def read_back(quantized: Path, model: Path) -> ReadBack:
    """Return the quantized nodes and scales of an NNCF IR; arguments and errors as in `_nncf_ir.read_back`."""
    from edgekd.quantize.schemes import _nncf_ir  # imports onnx

    return _nncf_ir.read_back(quantized, model)


def _import() -> tuple[Any, Any]:
    try:
        with quiet(), without_telemetry():
            import nncf
            import openvino
    except ImportError as exc:
        raise TargetError(f"nncf needs {exc.name}, which is not installed; {install('openvino')}") from exc
    _log_through_logging()
    return nncf, openvino


def _log_through_logging() -> None:
    """Take away the handler with which NNCF 3.4 writes to stdout, and its level: its records then go where all others go."""
    log = logging.getLogger("nncf")
    log.setLevel(logging.NOTSET)
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.propagate = True


def _advanced(nncf: Any, options: Options) -> Any:
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE if options.weight_bits == 8 else nncf.OverflowFix.ENABLE,
        disable_bias_correction=options.bias_correction == "none",
        weights_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(
            per_channel=False if options.weights == "per_tensor" else None  # None: NNCF's own choice, per channel
        ),
        activations_range_estimator_params=getattr(
            nncf.quantization.range_estimator.RangeEstimatorParametersSet, _RANGES[options.range]
        ),
    )


def _ranges(graph: Any) -> dict[str, np.ndarray]:
    """Return the ends of the range of each FakeQuantize, by the operator whose output it quantizes."""
    ranges = {}
    for op in graph.get_ordered_ops():
        if op.get_type_name() == "FakeQuantize":
            source, *ends = (port.get_source_output().get_node() for port in op.inputs())
            known = [one.get_data().ravel() for one in ends if one.get_type_name() == "Constant"]
            ranges[source.get_friendly_name()] = np.concatenate(known) if known else np.zeros(1)
    return ranges


def _names_there(graph: Graph, nodes: list[str]) -> list[str]:
    """Return the names that OpenVINO gives some nodes: a node that gives an output of the graph has the output's name."""
    wanted = set(nodes)
    outputs = [name for node in graph.nodes if node.name in wanted for name in node.output if graph.is_output(name)]
    return [*nodes, *outputs]


def _operators(graph: Any, onnx_nodes: list[str], is_asked: bool) -> list[str]:
    """Return the OpenVINO operators that came from ONNX nodes: same name, or `<name>/<part>`.

    Where OpenVINO has merged all of them into others, that is an error when the recipe asked for them.
    """
    wanted = set(onnx_nodes)
    names = [
        op.get_friendly_name() for op in graph.get_ordered_ops() if op.get_type_name() not in ("Constant", "Result")
    ]
    found = [name for name in names if name in wanted or name.rpartition("/")[0] in wanted]
    if wanted and not found and is_asked:
        raise RecipeError(
            f"keep_float: OpenVINO has merged {', '.join(sorted(wanted))} into other operators; remove these names"
        )
    return found


def _count_operators(graph: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Return counts by type of the operators with int8 weights or fake-quantized inputs, and of the others."""
    quantized: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    for op in graph.get_ordered_ops():
        kind = op.get_type_name()
        if kind in _NOT_COUNTED or _is_int8_weight(op):
            continue
        sources = [port.get_source_output().get_node() for port in op.inputs()]
        if kind in _WEIGHTED:
            is_quantized = _is_int8_weight(sources[1])
        else:
            is_quantized = any(source.get_type_name() == "FakeQuantize" for source in sources)
        (quantized if is_quantized else floating)[kind] += 1
    return dict(sorted(quantized.items())), dict(sorted(floating.items()))


def _is_int8_weight(op: Any) -> bool:
    """Return whether this is the Multiply of `Multiply(Convert(int8 constant), scale)`."""
    sources = [port.get_source_output().get_node().get_type_name() for port in op.inputs()]
    return op.get_type_name() == "Multiply" and sources == ["Convert", "Constant"]

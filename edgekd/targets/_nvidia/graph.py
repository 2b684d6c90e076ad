"""The ONNX model for TensorRT and TensorRT-RTX: in the requested precision, with Q/DQ that they read correctly.

Needs onnx, also on a board where the engine is built from the model.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.board.installation import install
from edgekd.errors import TargetError, one_line
from edgekd.rewrites.graph import Graph, opsets, read_onnx
from edgekd.rewrites.pairs import unsigned_zero_points
from edgekd.targets import _int8
from edgekd.targets.base import CompileRequest

QUANTIZER = "qdq_signed"
_HALF_SCALES_SINCE = 19  # opset in which QuantizeLinear takes float16


def graph_for(request: CompileRequest, is_fp16_graph: bool) -> bytes:
    """Return the serialized ONNX model to parse. A float32 model leaves the weights that lie in other files there.

    Args:
        request: the model and its precision.
        is_fp16_graph: convert what is float32 to float16; inputs and outputs stay as they are.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: a float model for int8 or a quantized one for a float precision, Q/DQ that would be misread, or a model
            that is over 2 GiB after its conversion.
    """
    model = read_onnx(request.model, has_weights=False)
    is_quantized = Graph(model).is_quantized
    # A mixed model may have every layer in float.
    if request.precision != "mixed" and is_quantized != (request.precision == "int8"):
        wanted, got = ("quantized", "a float one") if request.precision == "int8" else ("float", "a quantized one")
        raise TargetError(f"{request.model}: precision {request.precision} expected a {wanted} model, got {got}")
    if is_quantized or is_fp16_graph:
        model = read_onnx(request.model)
    if is_quantized:
        _int8.check_types(Graph(model), request.model, "TensorRT")
        check_zero_points(model, request.model)
    try:
        return bytes((_half(model, is_quantized) if is_fp16_graph else model).SerializeToString())
    except TargetError:
        raise
    except Exception as exc:  # protobuf's EncodeError or ValueError, by version
        raise TargetError(
            f"{request.model}: cannot be converted to {request.precision}, expected at most 2 GiB with its weights: "
            f"{one_line(exc)}; build it in fp32"
        ) from exc


def check_zero_points(model: Any, path: Path) -> None:
    """Refuse a Q/DQ graph that TensorRT would misread.

    Its parser takes uint8 and reads it as signed with the same scale, which clips the upper half of every range (parser of
    TensorRT-RTX 1.7.1; clamping: IQuantizeLayer in the TensorRT Python API reference).

    Args:
        model: an `onnx.ModelProto`.
        path: its file, for the message.

    Raises:
        TargetError: a zero point that is not 0, or not int8; the message names the node.
    """
    for node, got in unsigned_zero_points(Graph(model)):
        raise TargetError(
            f"{path}: node {node.name!r}: expected an int8 zero point of 0, got {got}; TensorRT would misread it; "
            f"quantize with {QUANTIZER}"
        )


def _half(model: Any, is_quantized: bool) -> Any:
    """Convert a model to float16, the scales of its Q/DQ pairs included: a Cast would separate them from their operators."""
    try:
        from onnx import version_converter
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as exc:
        raise TargetError(f"onnxruntime is not installed; {install('onnxruntime')}") from exc
    if is_quantized and opsets(model)["ai.onnx"] < _HALF_SCALES_SINCE:
        model = version_converter.convert_version(model, _HALF_SCALES_SINCE)
    return convert_float_to_float16(model, keep_io_types=True)

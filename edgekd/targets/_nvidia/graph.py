"""The ONNX graph that TensorRT and TensorRT-RTX are given: of the precision asked for, and with Q/DQ that they read rightly.

Needs onnx, on the board too: an engine is built from the model there.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest, one_line

QUANTIZER = "qdq_signed"
_LINEAR = ("QuantizeLinear", "DequantizeLinear")
_HALF_SCALES_SINCE = 19  # opset in which QuantizeLinear takes float16


def graph_for(request: CompileRequest, is_fp16_graph: bool) -> bytes:
    """Return the serialized ONNX model to parse.

    Args:
        request: the model and its precision.
        is_fp16_graph: convert what is float32 to float16; inputs and outputs stay as they are.

    Raises:
        TargetError: unreadable, a float model for int8 or a quantized one for a float precision, or Q/DQ that would be
            misread.
    """
    model = _read(request.model)
    is_quantized = any(node.op_type in _LINEAR for node in model.graph.node)
    if is_quantized != (request.precision == "int8"):
        wanted, got = ("quantized", "a float one") if request.precision == "int8" else ("float", "a quantized one")
        raise TargetError(f"{request.model}: precision {request.precision} expected a {wanted} model, got {got}")
    if is_quantized:
        check_zero_points(model, request.model)
    return (_half(model, is_quantized) if is_fp16_graph else model).SerializeToString()


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
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in _LINEAR:
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)  # ONNX's default
        if zero is None or zero.dtype != np.int8 or zero.any():
            got = "one that is computed" if zero is None else f"{zero.dtype} {np.unique(zero)[:3].tolist()}"
            raise TargetError(
                f"{path}: node {node.name!r}: expected an int8 zero point of 0, got {got}; TensorRT would misread it; "
                f"quantize with {QUANTIZER}"
            )


def _read(path: Path) -> Any:
    try:
        import onnx
    except ImportError as exc:
        raise TargetError("onnx is not installed; pip install 'edgekd[onnxruntime]'") from exc
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf's DecodeError, OSError or ValidationError, depending on the damage
        raise TargetError(f"{path}: not a readable ONNX file: {one_line(exc)}") from exc
    return model


def _half(model: Any, is_quantized: bool) -> Any:
    """Return the model in float16, with the scales of its Q/DQ pairs, so that no Cast parts them from their operators."""
    try:
        from onnx import version_converter
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as exc:
        raise TargetError("onnxruntime is not installed; pip install 'edgekd[onnxruntime]'") from exc
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if is_quantized and opset < _HALF_SCALES_SINCE:
        model = version_converter.convert_version(model, _HALF_SCALES_SINCE)
    return convert_float_to_float16(model, keep_io_types=True)

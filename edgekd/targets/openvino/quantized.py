"""Quantized models as OpenVINO reads them: whether one is int8, and which weights use all 8 bits.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import numpy as np

from edgekd.errors import TargetError
from edgekd.rewrites import pairs
from edgekd.rewrites.graph import read_graph
from edgekd.targets import _int8
from edgekd.targets.base import CompileRequest
from edgekd.targets.openvino import runtime

_MOST_LEVELS = 256  # of 8 bits
_SMALL_TYPES = ("i4", "u4", "i2", "u2", "nf4", "f4e2m1", "f8e4m3", "f8e5m2", "f8e8m0")


def check_quantized(model: Any, request: CompileRequest) -> None:
    """Compare a model with the precision that is asked for.

    Args:
        model: the `openvino.Model` of the request's file.
        request: the compile job.

    Raises:
        TargetError: a float model for int8, the other way round, or a model quantized to 16 or 4 bits or to float8.
    """
    kinds = [op.get_type_name() for op in model.get_ops()]
    quantized = sum(kind in ("FakeQuantize", "FakeConvert") for kind in kinds)
    if request.precision != "mixed" and (request.precision == "int8") != (quantized > 0):
        wanted, todo = (
            ("quantized", "quantize it with nncf first") if quantized == 0 else ("float", "give the exported one")
        )
        raise TargetError(
            f"{request.model}: precision {request.precision} expected a {wanted} model, got one with {quantized} "
            f"FakeQuantize operators; {todo}"
        )
    if quantized and request.model.suffix != runtime.IR:
        _int8.check_types(read_graph(request.model), request.model, "OpenVINO")
    for op in model.get_ops() if quantized else ():
        got = _other_type(op)
        if got:
            raise TargetError(
                f"{request.model}: operator {op.get_friendly_name()!r}: precision int8 expected 8-bit integers, got {got}; "
                "edgekd does not build such engines for OpenVINO, quantize to 8 bits"
            )


def wide_weights(model: Path) -> Iterator[pairs.WideWeight]:
    """Yield the operators of an ONNX or IR file whose int8 weights exceed `pairs.SEVEN_BITS`; errors as `runtime.read_model`."""
    if model.suffix != runtime.IR:
        yield from pairs.wide_weights(read_graph(model))
        return
    for op in runtime.read_model(model).get_ordered_ops():
        if op.get_type_name() != "Constant" or op.get_element_type().get_type_name() != "i8":
            continue
        largest = int(np.abs(op.get_data().astype(np.int64)).max(initial=0))
        if largest > pairs.SEVEN_BITS:
            yield pairs.WideWeight(op.get_friendly_name(), largest, "int8", "uint8")


def _other_type(op: Any) -> str:
    """Return how an operator quantizes to something else than 8-bit integers, "" when it does not."""
    kind = op.get_type_name()
    if kind == "FakeConvert":
        return "float8"
    if kind == "FakeQuantize" and op.get_attributes()["levels"] > _MOST_LEVELS:
        return f"{op.get_attributes()['levels']} levels"
    element = op.get_element_type().get_type_name() if kind == "Constant" else ""
    return element if element in _SMALL_TYPES else ""

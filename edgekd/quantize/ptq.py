"""What a quantizer is: it turns an exported ONNX model and calibration inputs into an int8 model for one toolchain.

A quantizer is one file `quantize/schemes/<name>.py` with

    Options                                                          a frozen dataclass of `option` fields
    SUFFIX                                                           file suffix of the model it writes
    KEEPS_FLOAT                                                      whether it can leave operators in float
    quantize(model, spec, calibration, out_dir, options) -> QuantizeResult

The contract of the model stays what it was. The same calibration gives the same model.
"""

from __future__ import annotations

import fnmatch
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.detection import DECODE
from edgekd.errors import ArtifactError, DataError, RecipeError, TargetError, did_you_mean

# Network inputs by name, prepared as the contract says.
Batch = Mapping[str, np.ndarray]
# Operators with weights: where the walk back from an output ends.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizeResult:
    """The quantized model's main file and what is to be recorded of it (JSON-ready)."""

    model: Path
    details: dict[str, Any] = field(default_factory=dict)


def load_onnx(model: Path) -> Any:
    """Read an ONNX file; ArtifactError when it is not one, TargetError when onnx is not installed."""
    try:
        import onnx
    except ImportError as exc:
        raise TargetError("onnx is not installed; pip install 'edgekd[onnxruntime]'") from exc
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(model))
    except (OSError, DecodeError) as exc:
        raise ArtifactError(f"{model}: not a readable ONNX file: {' '.join(str(exc).split())}") from exc


def check_calibration(calibration: Sequence[Batch]) -> None:
    """DataError when there are no calibration inputs."""
    if not calibration:
        raise DataError("the calibration set is empty; quantizing needs at least one image")


def float_nodes(onnx_model: Any, patterns: Sequence[str], keep_head: bool) -> list[str]:
    """Return the names of the nodes to leave in float, in graph order; decoding inside the graph is always among them.

    Args:
        onnx_model: an `onnx.ModelProto` with named nodes.
        patterns: shell-style patterns of node names.
        keep_head: add, for each output, the nodes from it back to and including the last operator with weights.

    Raises:
        RecipeError: a pattern matches no node.
    """
    nodes = onnx_model.graph.node
    names = [node.name for node in nodes]
    chosen = set(_head(onnx_model)) if keep_head else set()
    chosen.update(name for name in names if name.startswith(DECODE))
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise RecipeError(f"keep_float: {pattern!r} matches no node of the graph{did_you_mean(pattern, names)}")
        chosen.update(matched)
    return [name for name in names if name in chosen]


@contextmanager
def quiet() -> Iterator[None]:
    """Send what a toolchain prints on stdout to the debug log; stdout is for results."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in filter(None, map(str.strip, printed.getvalue().splitlines())):
            logger.debug("%s", line)


def _head(onnx_model: Any) -> Iterator[str]:
    producer = {output: node for node in onnx_model.graph.node for output in node.output}
    pending = [output.name for output in onnx_model.graph.output]
    seen: set[str] = set()
    while pending:
        node = producer.get(pending.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        yield node.name
        if node.op_type not in WEIGHTED:
            pending += node.input

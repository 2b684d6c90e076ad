"""The interface of a quantizer, which turns an exported ONNX model and calibration inputs into an int8 model for one toolchain.

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
from edgekd.errors import DataError, RecipeError, did_you_mean
from edgekd.rewrites.graph import Graph

# Network inputs by name, prepared as the contract says.
Batch = Mapping[str, np.ndarray]
# Operators with weights: where the walk back from an output ends.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizeResult:
    """The quantized model's main file, facts of it for the manifest (JSON), and the calibration set as pixels.

    pixels: .npy of uint8 images (N, H, W, 3) for a toolchain that calibrates by itself, see `CompileRequest`; else None.
    """

    model: Path
    details: dict[str, Any] = field(default_factory=dict)
    pixels: Path | None = None


def check_calibration(calibration: Sequence[Batch]) -> None:
    """DataError when there are no calibration inputs."""
    if not calibration:
        raise DataError("the calibration set is empty; quantizing needs at least one image")


def float_nodes(graph: Graph, patterns: Sequence[str], keep_head: bool) -> list[str]:
    """Return the names of the nodes to leave in float, in graph order; decoding inside the graph is always among them.

    Args:
        graph: a graph with named nodes.
        patterns: shell-style patterns of node names.
        keep_head: add, for each output, the nodes from it back to and including the last operator with weights.

    Raises:
        RecipeError: a pattern matches no node.
    """
    names = [node.name for node in graph.nodes]
    chosen = set(_head(graph)) if keep_head else set()
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


def _head(graph: Graph) -> Iterator[str]:
    pending = [output.name for output in graph.outputs]
    seen: set[str] = set()
    while pending:
        node = graph.producer(pending.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        yield node.name
        if node.op_type not in WEIGHTED:
            pending += node.input

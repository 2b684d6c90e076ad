"""The interface of a quantizer, which turns an exported ONNX model and calibration inputs into an int8 model for one toolchain.

A quantizer is one file `quantize/schemes/<name>.py` with

    Options                                                          a frozen dataclass of `option` fields
    SUFFIX                                                           file suffix of the model it writes
    KEEPS_FLOAT                                                      whether it can leave operators in float
    quantize(model, spec, calibration, out_dir, options) -> QuantizeResult
    grids(model, spec, options) -> Placement                         optional: what it quantizes, see `grids.py`
    TAKES_RANGES                                                     optional: whether `quantize` has the argument `ranges`,
                                                                     scales by tensor that take the place of calibrated ones
    ADJUST                                                           optional: the quantizer's default of `quantize.adjust`, see
                                                                     `adjust.py`

The contract of the model stays what it was. The same calibration gives the same model.
"""

from __future__ import annotations

import fnmatch
import io
import logging
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.detection import DECODE
from edgekd.board.files import is_full
from edgekd.errors import DataError, EdgekdError, RecipeError, TargetError, did_you_mean, one_line
from edgekd.quantize.masks import mask_nodes
from edgekd.rewrites.graph import Graph, name_nodes, read_onnx

# Network inputs by name, prepared as the contract says.
Batch = Mapping[str, np.ndarray]
# Operators with weights: where the walk back from an output ends.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LARGE_BYTES = 1 << 30  # a model over protobuf's limit of 2 GiB needs its weights in another file
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
        raise DataError("the calibration set is empty, expected at least one image; check data.train")


def float_nodes(graph: Graph, patterns: Sequence[str], keep_head: bool) -> list[str]:
    """Return the names of the nodes to leave in float, in graph order; decoding inside the graph, and what reads masks such
    as those of attention (`masks.py`), are always among them.

    Args:
        graph: a graph with named nodes.
        patterns: shell-style patterns of node names. A toolchain that merges an operator into another calls it `<name>/<what>`,
            which stands for the operator where none has the name itself.
        keep_head: add, for each output, the nodes from it back to and including the last operator with weights.

    Raises:
        RecipeError: a pattern matches no node.
    """
    names = [node.name for node in graph.nodes]
    chosen = set(_head(graph)) if keep_head else set()
    chosen.update(name for name in names if name.startswith(DECODE))
    chosen.update(mask_nodes(graph))
    for pattern in patterns:
        merged = (name for name in names if fnmatch.fnmatch(name.rpartition("/")[0], pattern))
        matched = fnmatch.filter(names, pattern) or list(merged)
        if not matched:
            raise RecipeError(f"keep_float: {pattern!r} matches no node of the graph{did_you_mean(pattern, names)}")
        chosen.update(matched)
    return [name for name in names if name in chosen]


def with_names(model: Path, folder: Path) -> Path:
    """Return the file of a model in which every node has a name of its own: the file itself, or a copy in `folder`.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
    """
    if not name_nodes(read_onnx(model, has_weights=False)):
        return model
    import onnx

    whole = read_onnx(model)
    name_nodes(whole)
    copy = folder / "named.onnx"
    is_large = whole.ByteSize() > _LARGE_BYTES
    onnx.save(whole, copy, save_as_external_data=is_large)
    return copy


def check_scales(scales: Mapping[str, np.ndarray], quantizer: str) -> None:
    """Refuse tensors whose scale is not finite.

    Args:
        scales: scales, or the ends of ranges, by tensor.
        quantizer: its name in a recipe.

    Raises:
        TargetError: names the tensor.
    """
    for tensor, scale in scales.items():
        if not np.isfinite(scale).all():
            raise TargetError(
                f"{quantizer}: tensor {tensor!r}: expected a finite scale, got {np.asarray(scale).ravel()[:3].tolist()}; leave "
                f"the operators that compute and read it in float: quantize.options.{quantizer}.keep_float"
            )


@contextmanager
def toolchain_errors(quantizer: str, tool: str, names: Collection[str], out_dir: Path) -> Iterator[None]:
    """Turn what a toolchain raises in this block into one line, which names the node where it can be told.

    Args:
        quantizer: its name in a recipe.
        tool: the toolchain's name.
        names: the names of the graph's nodes.
        out_dir: where it writes; a full disk stays the system's own error.

    Raises:
        TargetError: for any exception that is neither edgekd's own nor the system's.
    """
    try:
        yield
    except (EdgekdError, OSError):
        raise
    except Exception as exc:  # vendors raise what they like
        if is_full(out_dir):
            raise
        node = _node_at_fault(exc, set(names))
        where, kept = (f" at node {node!r}", f"[{node!r}]") if node else ("", "[a node]")
        raise TargetError(
            f"{quantizer}: {tool} fails{where}: {type(exc).__name__}: {one_line(exc)}; leave the node in float: "
            f"quantize.options.{quantizer}.keep_float: {kept}"
        ) from exc


def _node_at_fault(exc: BaseException, names: set[str]) -> str:
    """Return the node that the innermost function of a traceback worked on, "" when none can be told."""
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    for frame in reversed(frames):
        values = list(frame.f_locals.values())
        values += [getattr(one, "node", None) for one in values if type(one).__module__.split(".")[0] != "builtins"]
        for value in values:
            name = value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "node_name", "")
            if isinstance(name, str) and name in names:
                return name
    return ""


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

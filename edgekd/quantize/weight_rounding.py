"""Rounding of weights that keeps a layer's output: the error of a weight is made up by the weights that are rounded after it.

Rounding to the nearest integer is the best choice for each weight alone and not for their sum. For the inputs x of a layer, the
squared error of an output is d H d with H = E[x x'] and d the errors of the weights. One weight after another is rounded to the
nearest, and its error is spread over the weights that are still free, by the inverse of H.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323,
algorithm 1; the objective is that of AdaRound (arXiv 2004.10568, equation 8). Deviations: the weights of largest magnitude are
rounded to the nearest, so that the scale stays the one that a toolchain derives from them; a channel keeps its nearest integers
where these have the smaller error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.quantize.grids import Grid, Placement
from edgekd.quantize.ptq import Batch
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import Run, runner
from edgekd.rewrites.graph import Graph, attributes

_POSITIONS = 256  # of each image, drawn at random: neighbouring ones hardly differ
_DAMPING = 0.01  # of the mean diagonal of H, as in the paper's code
_MOST_INPUTS = 5000  # weights of an output channel; H takes 100 MB beyond
_MOST_BYTES = 1 << 28  # of the layers' H at a time
_SEED = 0


def round_weights(
    model: onnx.ModelProto, placement: Placement, scales: Mapping[str, Scale], calibration: Sequence[Batch]
) -> list[str]:
    """Put the weights of a float graph on their grids, in place; return the names of the operators.

    Args:
        model: the graph that the placement was made for, with its weights and with named nodes.
        placement: the quantized operators. Weights that several of them read or a Constant node holds, transposed and grouped
            convolutions other than depthwise ones, and layers of more than 5000 inputs are left alone.
        scales: scale of each weight.
        calibration: network inputs by name; read once for every 256 MB of layers.

    Raises:
        TargetError: ONNX Runtime is not installed.
    """
    graph = Graph(model)
    by_name = {node.name: node for node in graph.nodes}
    weights = {one.name: one for one in model.graph.initializer}
    layers = {
        one.name: by_name[one.name]
        for one in placement.nodes
        if one.weight in weights and one.activations and _is_taken(graph, by_name[one.name])
    }
    with TemporaryDirectory() as folder:
        run = runner(model, list(dict.fromkeys(node.input[0] for node in layers.values())), Path(folder))
        for part in _parts(graph, list(layers.values())):
            for node, squares in zip(part, _squares(graph, part, run, calibration), strict=True):
                weight = node.input[1]
                made = _rounded(graph.value(weight), node, squares, scales[weight], placement.weights[weight])
                weights[weight].CopyFrom(numpy_helper.from_array(made, weight))
    return list(layers)


def _parts(graph: Graph, nodes: list[Any]) -> Iterator[list[Any]]:
    """Yield the layers in parts, in order, whose sums of squares fit into memory together."""
    part: list[Any] = []
    held = 0
    for node in nodes:
        shape = graph.shape(node.input[1]) or ()
        groups = attributes(node).get("group", 1)
        inputs = int(np.prod(shape[1:])) if node.op_type == "Conv" else max(shape)
        size = 4 * groups * inputs**2
        if part and held + size > _MOST_BYTES:
            yield part
            part, held = [], 0
        part.append(node)
        held += size
    if part:
        yield part


def _squares(graph: Graph, nodes: list[Any], run: Run, calibration: Sequence[Batch]) -> list[np.ndarray]:
    """Return the sum of x x' of each layer, (G, K, K), over positions of all images."""
    rng = np.random.default_rng(_SEED)
    tensors = list(dict.fromkeys(node.input[0] for node in nodes))
    totals: list[np.ndarray] = []
    for batch in calibration:
        values = dict(zip(tensors, run(batch, tensors), strict=True))
        inputs = (_inputs(graph, node, values[node.input[0]], rng) for node in nodes)  # (G, N, K)
        found = [one.transpose(0, 2, 1) @ one for one in inputs]
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
    return totals


def round_rows(rows: np.ndarray, squares: np.ndarray, step: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the integers of the rows of weight matrices, (G, R, K).

    Args:
        rows: weights (G, R, K): G matrices with R outputs and K inputs.
        squares: H of each matrix (G, K, K), the sum of x x'.
        step: scale of each row, (G, R, 1).
        grid: of the weights.
    """
    levels = grid.levels
    whole = rows.astype(np.float64) / step
    nearest = np.clip(np.round(whole), *levels)
    is_fixed = _sets_scale(whole, grid)
    damped = _damped(squares.astype(np.float64))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)  # H^-1 = U' U
    free, made = whole.copy(), np.empty_like(whole)
    for place in range(rows.shape[2]):
        rounded = np.clip(np.round(free[:, :, place]), *levels)
        made[:, :, place] = np.where(is_fixed[:, :, place], nearest[:, :, place], rounded)
        error = (free[:, :, place] - made[:, :, place]) / upper[:, None, place, place]
        free[:, :, place + 1 :] -= error[:, :, None] * upper[:, None, place, place + 1 :]
    is_worse = _error(made - whole, squares) > _error(nearest - whole, squares)
    return np.where(is_worse[:, :, None], nearest, made)


def _sets_scale(whole: np.ndarray, grid: Grid) -> np.ndarray:
    """Whether a weight, in steps, is one of the largest magnitude, from which a toolchain derives the scale."""
    return np.asarray(np.abs(whole) > (grid.levels[1] if grid.reach is None else grid.reach) - 1e-3)


def _error(errors: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return d H d of each row, (G, R)."""
    return np.asarray(((errors @ squares) * errors).sum(axis=2))


def _damped(squares: np.ndarray) -> np.ndarray:
    size = squares.shape[1]
    mean = np.trace(squares, axis1=1, axis2=2) / size
    return np.asarray(squares + np.maximum(mean * _DAMPING, 1e-12)[:, None, None] * np.eye(size))


def _is_taken(graph: Graph, node: Any) -> bool:
    shape, group = graph.shape(node.input[1]), attributes(node).get("group", 1)
    if shape is None or graph.only_reader(node.input[1]) is None or node.input[1] not in graph.constants:
        return False
    if node.op_type == "Conv":
        is_padded = attributes(node).get("auto_pad", "NOTSET") == "NOTSET"
        is_depthwise = group == shape[0] and shape[1] == 1
        return len(shape) == 4 and is_padded and (group == 1 or is_depthwise) and np.prod(shape[1:]) <= _MOST_INPUTS
    return node.op_type in ("Gemm", "MatMul") and len(shape) == 2 and not attributes(node).get("transA", 0)


def _inputs(graph: Graph, node: Any, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what some of a layer's outputs are computed from, (G, N, K): one group, or one for each depthwise channel."""
    if node.op_type != "Conv":
        rows = value.reshape(-1, value.shape[-1])
        return rows[rng.permutation(len(rows))[:_POSITIONS]][None]
    found = patches(graph, node, value, rng)  # (N, C, kh, kw)
    if attributes(node).get("group", 1) > 1:
        return found.reshape(*found.shape[:2], -1).transpose(1, 0, 2)
    return found.reshape(1, len(found), -1)


def patches(graph: Graph, node: Any, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the input windows (N, C, kh, kw) of some positions of a convolution's output, of its input (B, C, H, W)."""
    told = attributes(node)
    kernel = (graph.shape(node.input[1]) or ())[2:]
    pads, strides = told.get("pads", (0,) * 4), told.get("strides", (1, 1))
    dilations = told.get("dilations", (1, 1))
    padded = np.pad(value, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = [(padded.shape[2 + axis] - 1 - reach[axis]) // strides[axis] + 1 for axis in (0, 1)]
    chosen = rng.permutation(len(value) * sizes[0] * sizes[1])[:_POSITIONS]
    image, rest = np.divmod(chosen, sizes[0] * sizes[1])
    starts = np.divmod(rest, sizes[1])
    lines, columns = (
        starts[axis][:, None] * strides[axis] + np.arange(kernel[axis]) * dilations[axis] for axis in (0, 1)
    )
    return np.asarray(padded[image[:, None, None], :, lines[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2))


def _rounded(weight: np.ndarray, node: Any, squares: np.ndarray, scale: Scale, grid: Grid) -> np.ndarray:
    """Return a weight on its grid, float32; those of the largest magnitude as they are, on the grid or not."""
    is_last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes(node).get("transB", 0))
    rows = weight.T if is_last else weight.reshape(len(weight), -1)
    step = np.broadcast_to(scale.scale.astype(np.float64).reshape(-1, 1), (len(rows), 1))
    groups = len(squares)
    shape = (groups, len(rows) // groups, -1)
    whole = round_rows(rows.reshape(shape), squares, step.reshape(shape), grid).reshape(rows.shape)
    made = np.where(_sets_scale(rows / step, grid), rows, whole * step).astype(np.float32)
    return np.ascontiguousarray(made.T if is_last else made.reshape(weight.shape))

"""AdaptiveAvgPool whose bins do not divide the map, as two products with constant matrices.

torch exports it as Transpose, GatherND of every window, masks, and the sum of the masked values by hundreds of Gather and Add,
or their mean. Each bin is the mean of its rows of the mean of its columns: rows @ map @ columns, with matrices of averages.
The rewrite evaluates the exported nodes on random values, and replaces them only when they compute this product.

Source: torch.nn.AdaptiveAvgPool2d: bin i of b spans floor(i * size / b) to ceil((i + 1) * size / b).
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit
from edgekd.rewrites.graph import attributes, name_of

ERROR = ROUNDING
Bins = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, replaced = Edit(model), []
    for node in edit.nodes:
        before = edit.producer(node.input[0]) if node.op_type == "GatherND" else None
        bins = None if before is None else _bins(edit, before, node)
        if before is None or bins is None:
            continue
        region = _region(edit, before, node, bins)
        if region is not None:
            edit.replace(region, _products(edit, before.input[0], region[-1].output[0], bins))
            replaced.append(name_of(node))
    edit.apply()
    return replaced


def averages(size: int, bins: int) -> np.ndarray:
    """Return the matrix (bins, size), float32, whose product with a vector is its adaptive average pooling."""
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        start, end = i * size // bins, -((i + 1) * size // -bins)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _bins(edit: Edit, before: Any, gather: Any) -> Optional[Bins]:
    """Return the bins (down, across) of a GatherND that gathers windows of a transposed (B, C, H, W) tensor."""
    indices, shape = edit.shape(gather.input[1]), edit.shape(before.input[0])
    is_turned = before.op_type == "Transpose" and attributes(before).get("perm") == (2, 3, 0, 1)
    if not is_turned or shape is None or indices is None or len(indices) != 5 or indices[-1] != 2:
        return None
    return indices[0], indices[2]


def _region(edit: Edit, before: Any, gather: Any, bins: Bins) -> Optional[List[Any]]:
    """Return the nodes from a GatherND to the pooled map; None when they do not compute adaptive pooling."""
    batch, channels, height, width = edit.shape(before.input[0]) or (0,) * 4
    values = np.random.default_rng(0).normal(size=(batch, channels, height, width)).astype(np.float32)
    expected = averages(height, bins[0]) @ values @ averages(width, bins[1]).T
    for region in _closed(edit, gather, expected.shape):
        got = edit.evaluate([before, *region], before.input[0], values)
        if got is not None and np.abs(got - expected).max() <= ERROR * np.abs(expected).max():
            return region
    return None


def _closed(edit: Edit, first: Any, shape: Tuple[int, ...]) -> Iterator[List[Any]]:
    """Yield groups of nodes, each larger: a node and its dependents up to a tensor of a shape.

    Only that tensor of the group is read by other nodes.
    """
    region, computed, last_size = [first], set(first.output), 0
    for node in edit.nodes[edit.nodes.index(first) + 1 :]:
        if computed.isdisjoint(node.input):
            continue
        region.append(node)
        computed.update(node.output)
        inside = {name for one in region for name in one.output}
        if edit.is_read_by_others(inside - set(node.output), region):
            continue
        if edit.shape(node.output[0]) == shape:
            last_size = len(region)
            yield list(region)
        elif last_size:
            return


def _products(edit: Edit, source: str, output: str, bins: Bins) -> List[Any]:
    _, _, height, width = edit.shape(source) or (0,) * 4
    columns = edit.add_constant(f"{output}/columns", np.ascontiguousarray(averages(width, bins[1]).T))  # (W, across)
    rows = edit.add_constant(f"{output}/rows", np.ascontiguousarray(averages(height, bins[0]).T))  # (H, down)
    across, turned, down = f"{output}/across", f"{output}/turned", f"{output}/down"
    turn = {"perm": (0, 1, 3, 2)}
    return [
        edit.node("MatMul", [source, columns], across, {}),  # (B, C, H, across)
        edit.node("Transpose", [across], turned, turn),
        edit.node("MatMul", [turned, rows], down, {}),  # (B, C, across, down)
        edit.node("Transpose", [down], output, turn),
    ]

"""AdaptiveAvgPool whose bins do not divide the map: two products with constant matrices instead of gathered windows.

torch exports it as Transpose, GatherND of every window, masks, and the sum of the masked values by hundreds of Gather and Add,
or their mean. Each bin is the mean of its rows of the mean of its columns, so it is rows @ map @ columns with matrices of
averages. What the gathered nodes compute is evaluated on random values, and replaced only when it is that.

Source: torch.nn.AdaptiveAvgPool2d: bin i of b spans floor(i * size / b) to ceil((i + 1) * size / b).
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit

ERROR = ROUNDING
Bins = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, found = Edit(model), []
    for node in edit.nodes:
        before = edit.maker(node.input[0]) if node.op_type == "GatherND" else None
        bins = None if before is None else _bins(edit, before, node)
        if before is None or bins is None:
            continue
        region = _region(edit, before, node, bins)
        if region is not None:
            edit.replace(region, _products(edit, before.input[0], region[-1].output[0], bins))
            found.append(str(node.name or node.output[0]))
    edit.apply()
    return found


def averages(size: int, bins: int) -> np.ndarray:
    """Return the matrix (bins, size), float32, whose product with a vector is its adaptive average pooling."""
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        start, end = i * size // bins, -((i + 1) * size // -bins)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _bins(edit: Edit, before: Any, gather: Any) -> Optional[Bins]:
    """Return the bins (down, across) when a GatherND takes windows of a (B, C, H, W) tensor that was turned for it."""
    indices, shape = edit.shape(gather.input[1]), edit.shape(before.input[0])
    is_turned = before.op_type == "Transpose" and edit.attributes(before).get("perm") == (2, 3, 0, 1)
    if not is_turned or shape is None or indices is None or len(indices) != 5 or indices[-1] != 2:
        return None
    return indices[0], indices[2]


def _region(edit: Edit, before: Any, gather: Any, bins: Bins) -> Optional[List[Any]]:
    """Return the nodes from a GatherND to the pooled map; None when they compute something else."""
    batch, channels, height, width = edit.shape(before.input[0]) or (0,) * 4
    values = np.random.default_rng(0).normal(size=(batch, channels, height, width)).astype(np.float32)
    expected = averages(height, bins[0]) @ values @ averages(width, bins[1]).T
    for region in _closed(edit, gather, expected.shape):
        got = edit.evaluate([before, *region], before.input[0], values)
        if got is not None and np.abs(got - expected).max() <= ERROR * np.abs(expected).max():
            return region
    return None


def _closed(edit: Edit, first: Any, shape: Tuple[int, ...]) -> Iterator[List[Any]]:
    """Yield the nodes that depend on a node, as far as a tensor of a shape that alone is read by what comes after them."""
    region, made, last_size = [first], set(first.output), 0
    for node in edit.nodes[edit.nodes.index(first) + 1 :]:
        if made.isdisjoint(node.input):
            continue
        region.append(node)
        made.update(node.output)
        inside = {name for one in region for name in one.output}
        if edit.read_outside(inside - set(node.output), region):
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

"""Average pools with large windows as chains of pools of at most 7x7, which NPUs support.

Rewrites GlobalAveragePool, ReduceMean over height and width, and AveragePool whose windows neither overlap nor are padded.
The mean of windows of one size is the mean of their means: a window of 16x12 becomes pools of 4x6 and 4x2. Sides with a
prime factor above 7 cannot be split and stay as they are.

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from edgekd.rewrites.base import ROUNDING, Edit
from edgekd.rewrites.graph import attributes, axes_of

ERROR = ROUNDING
MAX_SIDE = 7  # RKNN SDK 2.3.2, operator list, RK3588: windows of pools
Window = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, replaced = Edit(model), []
    for node in edit.nodes:
        steps = _steps(edit, node)
        if steps:
            replaced.append(edit.replace([node], chain(edit, node.input[0], node.output[0], steps)))
    edit.apply()
    return replaced


def chain(edit: Edit, source: str, output: str, steps: List[Window]) -> List[Any]:
    """Return one AveragePool node per window, from a source to an output tensor."""
    names = [source, *(f"{output}/pooled{i}" for i in range(len(steps) - 1)), output]
    return [
        edit.node("AveragePool", [names[i]], names[i + 1], {"kernel_shape": step, "strides": step})
        for i, step in enumerate(steps)
    ]


def split(window: Window) -> List[Window]:
    """Split a window into windows of at most 7x7, the largest first; empty when it cannot be split."""
    rows, columns = (_factors(side) for side in window)
    if rows is None or columns is None:
        return []
    length = max(len(rows), len(columns), 1)
    return list(zip(rows + [1] * (length - len(rows)), columns + [1] * (length - len(columns))))  # noqa: B905


def _steps(edit: Edit, node: Any) -> List[Window]:
    window = _window(edit, node)
    return [] if window is None else split(window)


def _window(edit: Edit, node: Any) -> Optional[Window]:
    """Return the window that a node averages; None when the node is not one to rewrite."""
    shape, given = edit.shape(node.input[0]) if node.input else None, attributes(node)
    if shape is None or len(shape) != 4:
        return None
    whole = (shape[2], shape[3])
    if node.op_type == "GlobalAveragePool":
        return whole if max(whole) > MAX_SIDE else None
    if node.op_type == "ReduceMean":
        axes = axes_of(edit, node)
        is_spatial = axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]
        return whole if is_spatial and given.get("keepdims", 1) else None
    if node.op_type != "AveragePool" or max(given["kernel_shape"]) <= MAX_SIDE:
        return None
    is_plain = (
        given.get("strides") == given["kernel_shape"]
        and not any(given.get("pads", (0,)))
        and not given.get("ceil_mode", 0)
        and given.get("auto_pad", "NOTSET") == "NOTSET"
        and set(given.get("dilations", (1,))) == {1}
    )
    return given["kernel_shape"] if is_plain else None


def _factors(side: int) -> Optional[List[int]]:
    factors = []
    while side > 1:
        factor = next((one for one in range(MAX_SIDE, 1, -1) if side % one == 0), None)
        if factor is None:
            return None
        factors.append(factor)
        side //= factor
    return factors

"""Average pools with large windows as chains of pools of at most 7x7, which NPUs take.

Takes GlobalAveragePool, ReduceMean over height and width, and AveragePool whose windows neither overlap nor are padded.
The mean of the means of windows of one size is the mean, so a window of 16x12 is pools of 4x6 and 4x2. Sides with a prime
factor above 7 cannot be split and are left alone.

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from edgekd.rewrites.base import ROUNDING, Edit

ERROR = ROUNDING
MOST = 7  # RKNN SDK 2.3.2, operator list, RK3588: windows of pools
Window = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, found = Edit(model), []
    for node in edit.nodes:
        steps = _steps(edit, node)
        if steps:
            found.append(edit.replace([node], chain(edit, node.input[0], node.output[0], steps)))
    edit.apply()
    return found


def chain(edit: Edit, source: str, output: str, steps: List[Window]) -> List[Any]:
    """Return AveragePool nodes, one for each window, from a tensor to another."""
    names = [source, *(f"{output}/pooled{place}" for place in range(len(steps) - 1)), output]
    return [
        edit.node("AveragePool", [names[i]], names[i + 1], {"kernel_shape": step, "strides": step})
        for i, step in enumerate(steps)
    ]


def split(window: Window) -> List[Window]:
    """Return windows of at most 7x7 that make up a window, the largest first; empty when there are none."""
    rows, columns = (_factors(side) for side in window)
    if rows is None or columns is None:
        return []
    length = max(len(rows), len(columns), 1)
    return list(zip(rows + [1] * (length - len(rows)), columns + [1] * (length - len(columns))))  # noqa: B905


def _steps(edit: Edit, node: Any) -> List[Window]:
    window = _window(edit, node)
    return [] if window is None else split(window)


def _window(edit: Edit, node: Any) -> Optional[Window]:
    """Return the window that a node averages when it is one to rewrite."""
    shape, given = edit.shape(node.input[0]) if node.input else None, edit.attributes(node)
    if shape is None or len(shape) != 4:
        return None
    whole = (shape[2], shape[3])
    if node.op_type == "GlobalAveragePool":
        return whole if max(whole) > MOST else None
    if node.op_type == "ReduceMean":
        axes = given.get("axes")
        if axes is None and len(node.input) > 1 and edit.constant(node.input[1]) is not None:
            axes = tuple(edit.constant(node.input[1]))  # type: ignore[arg-type]
        is_spatial = axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]
        return whole if is_spatial and given.get("keepdims", 1) else None
    if node.op_type != "AveragePool" or max(given["kernel_shape"]) <= MOST:
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
    found = []
    while side > 1:
        factor = next((one for one in range(MOST, 1, -1) if side % one == 0), None)
        if factor is None:
            return None
        found.append(factor)
        side //= factor
    return found

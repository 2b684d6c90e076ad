"""Resize by whole factors in one form: constant scales; `nearest` with half-pixel coordinates, at most 8 a step.

Sizes become scales. torch exports `nearest` with asymmetric coordinates and floor. For whole factors that picks the same pixel
as half_pixel with round_prefer_floor: output i is input i // factor. Such a Resize by more than 8 becomes several, since
i // a // b is i // ab. Other kinds of `nearest` would pick other pixels in steps, and stay one node. `linear` with
pytorch_half_pixel equals half_pixel wherever the output is more than one pixel. Other nodes keep their coordinates. Bit-equal.

Source: ONNX operator specification, Resize-19.
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from edgekd.rewrites.base import Edit
from edgekd.rewrites.graph import attributes

ERROR = 0.0
MAX_FACTOR = 8  # RKNN SDK 2.3.2, operator list, RK3588: factors of Resize
Factor = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the Resize nodes that are not in this form; see `base.py`."""
    edit, replaced = Edit(model), []
    for node in edit.nodes:
        factor = _factor(edit, node) if node.op_type == "Resize" else None
        if factor is None:
            continue
        given = attributes(node)
        new = _normal(edit, node, given)
        steps = _steps(factor) if _is_floor_division(new) else [factor]
        if new != given or len(steps) > 1 or len(node.input) > 3:
            replaced.append(edit.replace([node], _resizes(edit, node, new, steps)))
    edit.apply()
    return replaced


def _factor(edit: Edit, node: Any) -> Optional[Factor]:
    """Return the factor (height, width) of a Resize; None when it is not whole, or other axes are resized."""
    before, after = edit.shape(node.input[0]), edit.shape(node.output[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2] or 0 in before:
        return None
    given = attributes(node)
    if "axes" in given or given.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if given.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if after[2] % before[2] or after[3] % before[3]:
        return None
    return after[2] // before[2], after[3] // before[3]


def _normal(edit: Edit, node: Any, given: Dict[str, Any]) -> Dict[str, Any]:
    new = dict(given)
    mode, coordinates = given.get("mode", "nearest"), given.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest" and (coordinates, given.get("nearest_mode", "round_prefer_floor")) == ("asymmetric", "floor"):
        new.update(coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor")
    after = edit.shape(node.output[0]) or ()
    if mode == "linear" and coordinates == "pytorch_half_pixel" and min(after[2:]) > 1:
        new["coordinate_transformation_mode"] = "half_pixel"
    return new


def _is_floor_division(given: Dict[str, Any]) -> bool:
    """Whether output i is input i // factor for every whole factor: the nearest centre, which is never a tie."""
    return (
        given.get("mode", "nearest") == "nearest"
        and given.get("coordinate_transformation_mode", "half_pixel") in ("half_pixel", "pytorch_half_pixel")
        and given.get("nearest_mode", "round_prefer_floor") in ("round_prefer_floor", "round_prefer_ceil")
    )


def _steps(factor: Factor) -> List[Factor]:
    """Split a factor into factors of at most 8; the factor alone when it cannot be split."""
    steps: List[Factor] = []
    rest = factor
    while max(rest) > MAX_FACTOR:
        step = (_largest(rest[0]), _largest(rest[1]))
        if step == (1, 1):
            return [factor]
        steps.append(step)
        rest = (rest[0] // step[0], rest[1] // step[1])
    return [*steps, rest]


def _largest(side: int) -> int:
    return next(one for one in range(MAX_FACTOR, 0, -1) if side % one == 0)


def _resizes(edit: Edit, node: Any, given: Dict[str, Any], steps: List[Factor]) -> List[Any]:
    output, source, nodes = node.output[0], node.input[0], []
    for i, (rows, columns) in enumerate(steps):
        name = output if i == len(steps) - 1 else f"{output}/resized{i}"
        scales = edit.add_constant(f"{name}/scales", np.array([1, 1, rows, columns], np.float32))
        nodes.append(edit.node("Resize", [source, "", scales], name, given))
        source = name
    return nodes

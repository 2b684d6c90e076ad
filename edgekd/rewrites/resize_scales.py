"""Resize by whole factors in one form: constant scales, and of the nearest kind with half-pixel coordinates, at most 8 a step.

Sizes become scales. `nearest` as torch exports it (asymmetric coordinates, floor) picks the same pixel as half_pixel with
round_prefer_floor when the factor is whole: output i is input i // factor. Such a one by more than 8 is done in steps, since
i // a // b is i // ab. Other kinds of `nearest` pick other pixels in steps, and stay one node. `linear` with
pytorch_half_pixel is half_pixel wherever the output is more than one pixel. Everything else keeps its coordinates. Bit-equal.

Source: ONNX operator specification, Resize-19.
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from edgekd.rewrites.base import Edit

ERROR = 0.0
MOST = 8  # RKNN SDK 2.3.2, operator list, RK3588: factors of Resize
Factor = Tuple[int, int]


def rewrite(model: Any) -> List[str]:
    """Replace the Resize nodes that are not in this form; see `base.py`."""
    edit, found = Edit(model), []
    for node in edit.nodes:
        factor = _factor(edit, node) if node.op_type == "Resize" else None
        if factor is None:
            continue
        given = edit.attributes(node)
        new = _normal(edit, node, given)
        steps = _steps(factor) if _is_floor_division(new) else [factor]
        if new != given or len(steps) > 1 or len(node.input) > 3:
            found.append(edit.replace([node], _resizes(edit, node, new, steps)))
    edit.apply()
    return found


def _factor(edit: Edit, node: Any) -> Optional[Factor]:
    """Return by how much a Resize enlarges height and width, None when not by whole factors or not only these."""
    before, after = edit.shape(node.input[0]), edit.shape(node.output[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2] or 0 in before:
        return None
    given = edit.attributes(node)
    if "axes" in given or given.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if given.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if after[2] % before[2] or after[3] % before[3]:
        return None
    return after[2] // before[2], after[3] // before[3]


def _normal(edit: Edit, node: Any, given: Dict[str, Any]) -> Dict[str, Any]:
    new = dict(given)
    mode, places = given.get("mode", "nearest"), given.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest" and (places, given.get("nearest_mode", "round_prefer_floor")) == ("asymmetric", "floor"):
        new.update(coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor")
    after = edit.shape(node.output[0]) or ()
    if mode == "linear" and places == "pytorch_half_pixel" and min(after[2:]) > 1:
        new["coordinate_transformation_mode"] = "half_pixel"
    return new


def _is_floor_division(given: Dict[str, Any]) -> bool:
    """Return whether output i is input i // factor for every whole factor: the nearest centre, which is never a tie."""
    return (
        given.get("mode", "nearest") == "nearest"
        and given.get("coordinate_transformation_mode", "half_pixel") in ("half_pixel", "pytorch_half_pixel")
        and given.get("nearest_mode", "round_prefer_floor") in ("round_prefer_floor", "round_prefer_ceil")
    )


def _steps(factor: Factor) -> List[Factor]:
    """Return factors of at most 8 whose product is the factor; the factor alone when it has no such ones."""
    found: List[Factor] = []
    rest = factor
    while max(rest) > MOST:
        step = (_largest(rest[0]), _largest(rest[1]))
        if step == (1, 1):
            return [factor]
        found.append(step)
        rest = (rest[0] // step[0], rest[1] // step[1])
    return [*found, rest]


def _largest(side: int) -> int:
    return next(one for one in range(MOST, 0, -1) if side % one == 0)


def _resizes(edit: Edit, node: Any, attributes: Dict[str, Any], steps: List[Factor]) -> List[Any]:
    output, source, nodes = node.output[0], node.input[0], []
    for place, (rows, columns) in enumerate(steps):
        name = output if place == len(steps) - 1 else f"{output}/resized{place}"
        scales = edit.add_constant(f"{name}/scales", np.array([1, 1, rows, columns], np.float32))
        nodes.append(edit.node("Resize", [source, "", scales], name, attributes))
        source = name
    return nodes

"""Max pools with windows larger than 7x7 as chains of smaller ones, which NPUs support.

The maximum over a window of k1 + k2 - 1 is the maximum over k2 of the maxima over k1 at every position. Padding stands for
minus infinity, and is divided among the pools. The last pool does the strides. Bit-equal.

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Dict, List

from edgekd.rewrites.base import Edit
from edgekd.rewrites.graph import attributes

ERROR = 0.0
MAX_SIDE = 7  # RKNN SDK 2.3.2, operator list, RK3588: windows of pools


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, replaced = Edit(model), []
    for node in edit.nodes:
        if node.op_type == "MaxPool" and _is_plain(node, given := attributes(node)):
            replaced.append(edit.replace([node], _chain(edit, node, given)))
    edit.apply()
    return replaced


def _is_plain(node: Any, given: Dict[str, Any]) -> bool:
    return (
        len(node.output) == 1
        and len(given["kernel_shape"]) == 2
        and max(given["kernel_shape"]) > MAX_SIDE
        and not given.get("ceil_mode", 0)
        and given.get("auto_pad", "NOTSET") == "NOTSET"
        and set(given.get("dilations", (1,))) == {1}
    )


def _chain(edit: Edit, node: Any, given: Dict[str, Any]) -> List[Any]:
    reach = [side - 1 for side in given["kernel_shape"]]  # values of a window after its first one
    pads = list(given.get("pads", (0, 0, 0, 0)))
    strides, output, source = given.get("strides", (1, 1)), node.output[0], node.input[0]
    nodes: List[Any] = []
    while any(reach):
        step = [min(rest, MAX_SIDE - 1) for rest in reach]
        pad = [min(rest, step[i % 2]) for i, rest in enumerate(pads)]
        reach = [rest - one for rest, one in zip(reach, step)]  # noqa: B905
        pads = [rest - one for rest, one in zip(pads, pad)]  # noqa: B905
        name = f"{output}/pooled{len(nodes)}" if any(reach) else output
        values = {
            "kernel_shape": [one + 1 for one in step],
            "pads": pad,
            "strides": (1, 1) if any(reach) else strides,
        }
        nodes.append(edit.node("MaxPool", [source], name, values))
        source = name
    return nodes

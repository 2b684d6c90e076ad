"""Finds the nodes of a graph that read masks: numbers such as -1e9, finfo.min or -inf that stand for "not this one".

A scale that covers -1e9 leaves one step for all scores beside it, so a tensor with such numbers must have none. Attention adds
them before a softmax, or writes them with Where; a pool's padding has -inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.rewrites.graph import Graph, folded

# Trained networks have no such values; masks of float16 have -65504, others -1e4 to -inf.
HUGE = 1e4
# In front of a softmax a smaller number is a mask, too: exp(-50) is 2e-22. Swin has -100.
BEFORE_SOFTMAX = 50.0
# Operators whose constants become values of the output; those of the others are bounds, exponents, weights.
_VALUES = ("Add", "Sub", "Sum", "Mul", "Where", "Concat", "Pad", "ScatterND", "ScatterElements")
_COPIES = (
    "Cast", "Expand", "Flatten", "Gather", "Identity", "Neg", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu",
    "Unsqueeze",
)  # fmt: skip
_CHOOSES = ("Attention", "Div", "Max", "Min")  # they read the constant, and their output is not a mask
_MOST_BYTES = 1 << 28  # a mask of 5000 by 5000 tokens
_SOFTMAX = ("Softmax", "LogSoftmax")


def mask_nodes(graph: Graph) -> list[str]:
    """Return the names of the nodes that read or write tensors with mask values, in graph order."""
    constants = folded(graph, _MOST_BYTES)
    masks = {name for name, value in constants.items() if _is_huge(value)}
    weak = {name for name, value in constants.items() if _is_weak(value)}
    softened = _before_softmax(graph, set(constants))
    found = []
    for node in graph.nodes:
        if set(node.output) <= set(constants):
            continue  # it is a constant itself
        inputs = set(node.input)
        is_mask = not masks.isdisjoint(
            inputs if node.op_type in (*_VALUES, *_COPIES, *_CHOOSES) else inputs - set(constants)
        )
        is_mask = is_mask or (node.op_type in _VALUES and id(node) in softened and not weak.isdisjoint(inputs))
        if not is_mask:
            continue
        found.append(node.name)
        if node.op_type in (*_VALUES, *_COPIES):
            masks.update(node.output)
    return found


def _before_softmax(graph: Graph, constants: set[str]) -> set[int]:
    """Return the ids of the nodes from which a path of sums and copies leads to a softmax."""
    leads: set[int] = set()
    for node in reversed(graph.nodes):
        readers = [one for name in node.output for one in graph.readers(name)]
        if node.op_type in (*_VALUES, *_COPIES) and any(one.op_type in _SOFTMAX or id(one) in leads for one in readers):
            leads.add(id(node))
    return leads


def _is_huge(value: np.ndarray) -> bool:
    return value.dtype.kind == "f" and value.size > 0 and not bool((np.abs(value) < HUGE).all())


def _is_weak(value: Any) -> bool:
    return value.dtype.kind == "f" and value.size > 0 and bool((value <= -BEFORE_SOFTMAX).any())

"""The torch module, and its call in a forward pass, that each operator with weights of an exported graph came from.

A module that is called several times (a detector's tower, on every level) has one operator for each call. Each of them may
have a weight of its own, folded with another batch norm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.models.base import DenseModel
from edgekd.quantize.ptq import WEIGHTED
from edgekd.rewrites.graph import Graph, module_of

_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_ROOT = "model."  # the student's name in the module that is exported
_TOLERANCE = 1e-4  # of the largest weight; folding rounds in float32


@dataclass(frozen=True)
class Operator:
    """The origin of one ONNX node.

    module: name of the torch module, a convolution or linear layer.
    call: number of the call in a forward pass, from 0.
    calls: number of calls of the module in a forward pass.
    norm: name of the batch norm folded into the weight; None for none.
    """

    module: str
    call: int
    calls: int
    norm: str | None


def torch_operators(student: DenseModel, graph: Graph) -> tuple[dict[str, Operator], dict[str, str]]:
    """Return the origin of each node with weights, and the reason for each node without one, by node name.

    The student runs once, on zeros. Each weight of the graph is compared with the module's, times the batch norm's factor.

    Args:
        student: the exported network, in the state in which it was exported.
        graph: the exported graph, with named nodes.
    """
    nodes = defaultdict(list)
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED:
            module = _module(student, graph, node)
            if module is None:
                has_weight = not set(graph.constants).isdisjoint(node.input[:2])
                reasons[node.name] = (
                    "its weight is not a module's parameter" if has_weight else "it multiplies activations"
                )
            else:
                nodes[module].append(node)
    calls = _calls(student, graph)
    found: dict[str, Operator] = {}
    for module, same in nodes.items():
        norms = calls.get(module, [])
        for call, node in enumerate(same):
            if len(norms) != len(same):
                reasons[node.name] = f"{module} is called {len(norms)} times, the graph has {len(same)} operators of it"
                continue
            fits = [norm for norm in (norms[call], None) if _is_folded(student, graph, node, module, norm)]
            if fits:
                found[node.name] = Operator(module, call, len(norms), fits[0])
            else:
                reasons[node.name] = f"its weight is not {module}'s"
    return found, reasons


def folding(student: DenseModel, norm: str | None) -> Tensor | None:
    """Return the factor (C,) with which a batch norm in eval mode multiplies channels; None without a norm."""
    if norm is None:
        return None
    layer = student.get_submodule(norm)
    assert isinstance(layer, _BatchNorm)
    assert layer.running_var is not None
    scale = torch.rsqrt(layer.running_var + layer.eps)
    return (scale if layer.weight is None else layer.weight * scale).detach()


def weight_of(module: nn.Module) -> Tensor:
    """Return a module's weight."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def channels_axis(module: nn.Module) -> int:
    """Return the axis of the output channels of a module's weight; of a transposed convolution, those of a group."""
    return 1 if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 0


def folded_shape(module: nn.Module) -> list[int]:
    """Return the shape in which a factor of the output channels multiplies a module's weight."""
    shape = [1] * weight_of(module).ndim
    shape[channels_axis(module)] = -1
    return shape


def _module(student: DenseModel, graph: Graph, node: Any) -> str | None:
    """Return the name of the module whose weight a node has: by the initializer's name, the node's module, or the values.

    The simplifier gives new names to linear layers that it rewrites.
    """
    constants = [name for name in node.input[:2] if name in set(graph.constants)]
    if not constants:
        return None
    names = [name.rpartition(".")[0] for name in constants if name.endswith(".weight")]
    for name in (*names, module_of(node)):
        inside = name.removeprefix(_ROOT)
        try:
            module = student.get_submodule(inside) if inside else None
        except AttributeError:
            continue
        if isinstance(module, _KINDS):
            return inside
    shape = graph.shape(constants[0])
    same = [
        name
        for name, module in student.named_modules()
        if isinstance(module, _KINDS)
        and sorted(weight_of(module).shape) == sorted(shape or ())
        and _is_folded(student, graph, node, name, None)
    ]
    return same[0] if len(same) == 1 else None


def _calls(student: DenseModel, graph: Graph) -> dict[str, list[str | None]]:
    """Run the student once; return for each module's calls the batch norm that read the output, None for another reader."""
    names = {module: name for name, module in student.named_modules()}
    calls: dict[str, list[str | None]] = defaultdict(list)
    made: list[tuple[Tensor, str, int]] = []  # the tensors stay alive: identity is the link

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        made.append((output, names[module], len(calls[names[module]])))
        calls[names[module]].append(None)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for tensor, name, call in reversed(made):
            if tensor is inputs[0]:
                calls[name][call] = names[module]
                break

    handles = [module.register_forward_hook(after) for module in names if isinstance(module, _KINDS)]
    handles += [module.register_forward_pre_hook(before) for module in names if isinstance(module, _BatchNorm)]
    was_training = student.training
    try:
        with torch.no_grad():
            student.eval().forward_normalized(student.mean.new_zeros(1, 3, *_size(graph)))
    finally:
        student.train(was_training)
        for handle in handles:
            handle.remove()
    return calls


def _size(graph: Graph) -> Iterator[int]:
    """Yield height and width of the image that a graph takes, (1, 3, H, W) or (1, H, W, 3)."""
    shape = graph.shape(graph.inputs[0].name)
    assert shape is not None
    yield from shape[2:] if shape[1] == 3 else shape[1:3]


def _is_folded(student: DenseModel, graph: Graph, node: Any, module: str, norm: str | None) -> bool:
    """Whether a node's weight is a module's weight times a batch norm's factor."""
    layer = student.get_submodule(module)
    expected = weight_of(layer).detach().cpu()
    factor = folding(student, norm)
    if factor is not None:
        shape = folded_shape(layer)
        if factor.numel() != expected.shape[shape.index(-1)]:
            return False
        expected = expected * factor.cpu().reshape(shape)
    weights = [name for name in node.input[:2] if name in set(graph.constants)]
    found, whole = graph.value(weights[0]), expected.numpy()
    if isinstance(layer, nn.Linear) and not (found.shape == whole.shape and _is_close(found, whole)):
        found = found.T
    return found.shape == whole.shape and _is_close(found, whole)


def _is_close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max(initial=0) <= _TOLERANCE * np.abs(expected).max(initial=1e-12))

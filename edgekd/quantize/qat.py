"""Quantization-aware training: fake quantization inside a student, placed as in its exported graph.

The student stays a `DenseModel`: weights get a parametrization, operators get forward pre-hooks that are methods of modules
in the student's tree. So losses, averaging, checkpoints and the exporter work unchanged. `finish` leaves an ordinary network
whose weights lie on their grids, and the scales by tensor of the graph.

Batch norms are frozen in eval mode, as they are when folded. A grid with one scale per output channel survives folding:
the batch norm's factor multiplies the scale, and the factor may train. A grid with one scale for the whole weight holds for
the folded weight only, and the factor is frozen.

Train in float32: bfloat16 rounds the points of a grid.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.errors import UserError
from edgekd.models.base import DenseModel
from edgekd.quantize.fake_quantizers import InputQuantizer, Quantizer, WeightQuantizer
from edgekd.quantize.grids import Grid, Placement, QuantizedNode, named_graph
from edgekd.quantize.ranges import Scale, weight_scale
from edgekd.quantize.torch_operators import Operator, channels_axis, folding, torch_operators, weight_of

log = logging.getLogger(__name__)
_CHILD = "fake_quantization"  # the student's child with the quantizers of activations
_NAMED = 5  # operators that the log names


@dataclass(frozen=True)
class FakeQuantization:
    """The fake quantization inside a student.

    student: the network that trains.
    placement: the operators that are fake-quantized: a part of the placement that was asked for.
    left_out: the reason for each operator that stays in float, by node name.
    operators: the torch module of each quantized node, by node name.
    """

    student: DenseModel
    placement: Placement
    left_out: Mapping[str, str]
    operators: Mapping[str, Operator]

    def scales(self) -> dict[str, Scale]:
        """Return the present scales of activations and weights, by tensor of the graph."""
        found: dict[str, Scale] = {}
        activations = getattr(self.student, _CHILD).tensors
        for name, quantizer in zip(self.placement.activations, activations, strict=True):
            found[name] = _scale(quantizer.scale(), quantizer.zero, self.placement.activations[name])
        for node in self.placement.nodes:
            assert node.weight is not None
            grid, operator = self.placement.weights[node.weight], self.operators[node.name]
            quantizer = _weight_quantizer(self.student, operator.module)
            scale = quantizer.scale()
            factor = folding(self.student, operator.norm)
            if grid.axis is not None and factor is not None:
                scale = scale * factor.abs().to(scale.device)
            found[node.weight] = _scale(scale, quantizer.zero, grid)
        return found

    def finish(self) -> dict[str, Scale]:
        """Remove all fake quantization from the student and leave its weights on their grids; return the scales.

        Its state dict has its plain names again. A graph that is exported from it has the same tensors.
        """
        scales = self.scales()
        for name in {operator.module for operator in self.operators.values()}:
            parametrize.remove_parametrizations(self.student.get_submodule(name), "weight", leave_parametrized=True)
        for module in self.student.modules():
            for key, hook in list(module._forward_pre_hooks.items()):
                if hook is freeze_norms or isinstance(getattr(hook, "__self__", None), InputQuantizer):
                    del module._forward_pre_hooks[key]
        for norm in {operator.norm for operator in self.operators.values() if operator.norm}:
            self.student.get_submodule(norm).requires_grad_(True)
        delattr(self.student, _CHILD)
        return scales


class _Quantizers(nn.Module):
    """The quantizers of activations in the order of the placement, and the modules whose hooks call them."""

    def __init__(self, tensors: list[Quantizer], inputs: list[InputQuantizer]) -> None:
        super().__init__()
        self.tensors, self.inputs = nn.ModuleList(tensors), nn.ModuleList(inputs)


def fake_quantized(
    student: DenseModel, onnx: Path, placement: Placement, scales: Mapping[str, Scale]
) -> FakeQuantization:
    """Put fake quantization into a student, in place.

    Args:
        student: the exported network, in the state in which it was exported.
        onnx: the exported graph.
        placement: what the target's quantizer puts on which grid: `grids` of its scheme.
        scales: first scales by tensor: `calibrate`.

    Raises:
        UserError: no operator of the placement can be fake-quantized.
        ArtifactError: the file is not a readable ONNX model.
    """
    graph = named_graph(onnx)
    origins, reasons = torch_operators(student, graph)
    reasons = {node.name: reasons[node.name] for node in placement.nodes if node.name in reasons}
    mapped = {node.name: origins[node.name] for node in placement.nodes if node.name in origins}
    reasons.update((node.name, reason) for node in placement.nodes if (reason := _refusal(placement, node, mapped)))
    chosen = {name: operator for name, operator in mapped.items() if name not in reasons}
    placed = placement.only(chosen)
    if not placed.nodes:
        raise UserError(
            f"qat: none of {len(placement.nodes)} operators can be fake-quantized, for example {_first(reasons)}; set qat.quantizer, "
            "or remove section `qat`"
        )
    if reasons:
        log.info(
            "qat: %d of %d operators stay in float, for example %s", len(reasons), len(placement.nodes), _first(reasons)
        )
    with torch.no_grad():
        _quantize_weights(student, placed, chosen, scales)
    _quantize_inputs(student, placed, chosen, scales)
    student.register_forward_pre_hook(freeze_norms)
    return FakeQuantization(student, placed, reasons, chosen)


def _first(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:_NAMED]) or "an empty placement"


def freeze_norms(student: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Keep batch norms in eval mode: a forward pre-hook of the student.

    It looks them up in each pass: a run on several devices replaces them.
    """
    for module in student.modules():
        if isinstance(module, _BatchNorm):
            module.training = False


def _refusal(placement: Placement, node: QuantizedNode, operators: Mapping[str, Operator]) -> str:
    """Return why an operator with a torch module cannot be fake-quantized; "" when it can."""
    if node.name not in operators:
        return ""
    assert node.weight is not None
    grid, operator = placement.weights[node.weight], operators[node.name]
    if not grid.is_symmetric:
        return "its weight's grid has a zero point"
    norms = {one.norm for one in operators.values() if one.module == operator.module}
    if grid.axis is None and len(norms) > 1:
        return f"{operator.module} has one scale for its weight and several batch norms"
    if len(node.activations) != 1:
        return "it reads two activations"
    return ""


def _quantize_weights(
    student: DenseModel, placement: Placement, operators: Mapping[str, Operator], scales: Mapping[str, Scale]
) -> None:
    done: set[str] = set()
    for node in placement.nodes:
        operator = operators[node.name]
        if operator.module in done:
            continue
        done.add(operator.module)
        assert node.weight is not None
        module = student.get_submodule(operator.module)
        quantizer = _for_weight(
            module, placement.weights[node.weight], scales[node.weight], folding(student, operator.norm)
        )
        parametrize.register_parametrization(module, "weight", quantizer)
        if quantizer.folding is not None and operator.norm is not None:
            norm = student.get_submodule(operator.norm)
            assert isinstance(norm, _BatchNorm)
            if norm.weight is not None:
                norm.weight.requires_grad_(False)


def _for_weight(module: nn.Module, grid: Grid, scale: Scale, factor: Tensor | None) -> WeightQuantizer:
    weight, axis = weight_of(module), channels_axis(module)
    if grid.axis is None:
        # A channel whose factor is 0 gives a constant: its weight may have any grid.
        safe = None if factor is None else torch.where(factor == 0, torch.ones_like(factor), factor)
        return WeightQuantizer(scale, grid, weight.numel(), safe, axis).to(weight.device)
    torch_grid = replace(grid, axis=axis)
    made = scale.scale
    if factor is not None:
        # The scale of a folded weight tells nothing where the factor is 0, as at the end of an untrained residual branch.
        divisor = factor.abs().cpu().numpy()
        own = weight_scale(weight.detach().cpu().numpy(), torch_grid).scale
        made = np.where(divisor > 0, made / np.where(divisor > 0, divisor, 1), own).astype(np.float32)
    count = weight.numel() // len(made)
    return WeightQuantizer(Scale(made, scale.zero_point), torch_grid, count).to(weight.device)


def _quantize_inputs(
    student: DenseModel, placement: Placement, operators: Mapping[str, Operator], scales: Mapping[str, Scale]
) -> None:
    device = student.mean.device
    tensors = {name: Quantizer(scales[name], grid).to(device) for name, grid in placement.activations.items()}
    calls: dict[str, list[Quantizer | None]] = defaultdict(list)
    for node in placement.nodes:
        operator = operators[node.name]
        calls.setdefault(operator.module, [None] * operator.calls)[operator.call] = tensors[node.activations[0]]
    inputs = {name: InputQuantizer(quantizers) for name, quantizers in calls.items()}
    student.add_module(_CHILD, _Quantizers(list(tensors.values()), list(inputs.values())))
    for name, quantizer in inputs.items():
        student.get_submodule(name).register_forward_pre_hook(quantizer.before)


def _weight_quantizer(student: DenseModel, module: str) -> WeightQuantizer:
    parametrizations = student.get_submodule(module).parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    quantizer = parametrizations.get_submodule("weight.0")
    assert isinstance(quantizer, WeightQuantizer)
    return quantizer


def _scale(scale: Tensor, zero: Tensor, grid: Grid) -> Scale:
    value = scale.detach().cpu().float().numpy()
    # A weight that a batch norm's factor 0 folds to 0 has any scale but 0.
    return Scale(np.where(value > 0, value, np.float32(1)), zero.cpu().numpy().astype(grid.dtype))

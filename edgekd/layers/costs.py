"""Cost of quantization in each layer of a network, and its cause. Needs no engine and no labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.layers.graphs import OWN, cut
from edgekd.layers.measure import Subject
from edgekd.layers.model import INPUTS, RANGE, WEIGHTS
from edgekd.quantize.errors_by_node import OutputNoise, accumulated
from edgekd.quantize.grids import Grid
from edgekd.quantize.noise import Noise
from edgekd.quantize.ptq import Batch
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import runner


@dataclass
class Clipping:
    """Energies of the rounding error of one tensor: of all values, and of those outside the range of its grid."""

    error: float = 0.0
    clipped: float = 0.0
    outside: int = 0
    values: int = 0

    def add(self, values: np.ndarray, grid: Grid, scale: Scale) -> None:
        """Add the values of the tensor on one image."""
        step, zero = scale.scale.astype(np.float64), scale.zero_point.astype(np.float64)
        low, high = ((level - zero) * step for level in grid.levels)
        exact = values.astype(np.float64)
        inside = np.clip(exact, low, high)
        self.clipped += float(((exact - inside) ** 2).sum())
        self.error += float(((exact - np.round(inside / step) * step) ** 2).sum())
        self.outside += int((np.maximum(low - exact, exact - high) > step / 2).sum())
        self.values += exact.size

    @property
    def is_cause(self) -> bool:
        """Whether clipping makes more noise than rounding: the range is too small for these values."""
        return self.clipped > self.error / 2


@dataclass(frozen=True)
class Costs:
    """Signal-to-noise ratios in dB by layer, see `errors_by_node`; empty where it is not known what is quantized.

    alone: of the network's outputs when only this layer is quantized.
    accumulated: of what the next layer reads, in the quantized graph.
    causes: what makes most of a layer's noise in its own output: RANGE, INPUTS or WEIGHTS.
    outside: by layer whose cause is RANGE: the share of the values outside the range of an input.
    """

    alone: Mapping[str, float] = field(default_factory=dict)
    accumulated: Mapping[str, float] = field(default_factory=dict)
    causes: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(
        subject: Subject,
        images: Sequence[np.ndarray],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Costs:
        """Return the costs in a network on images, uint8 RGB (H, W, 3); `progress` gets the numbers of layers done and of all.

        Raises:
            TargetError: ONNX Runtime is not installed, or the graph's opset lacks Q/DQ pairs.
        """
        if subject.graph is None:
            return Costs()
        batches = batches_of(subject, images)
        grown = accumulated(subject.model, subject.graph, subject.layered.tensors, batches)
        if subject.placement is None:
            return Costs(accumulated=grown)
        causes, outside = causes_of(subject, batches)
        groups = groups_of(subject)
        return Costs(costs_alone(subject, batches, groups, progress), grown, causes, outside)


def groups_of(subject: Subject) -> dict[str, set[str]]:
    """Return the quantized operators of each layer that has any."""
    assert subject.placement is not None
    placed = {node.name for node in subject.placement.nodes}
    found = {layer.name: placed.intersection(layer.nodes) for layer in subject.layered.layers}
    return {layer: nodes for layer, nodes in found.items() if nodes}


def costs_alone(
    subject: Subject,
    batches: Sequence[Batch],
    groups: Mapping[str, set[str]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Return the signal-to-noise ratio of the outputs in dB by layer when it alone is quantized."""
    assert subject.placement is not None
    with TemporaryDirectory(prefix="edgekd-alone-") as folder:
        scales, weights = subject.scales or {}, subject.integers
        noise = OutputNoise(subject.model, subject.placement, scales, batches, Path(folder), weights)
        found = {}
        for layer, nodes in groups.items():
            found[layer] = noise.db(nodes)
            progress(len(found), len(groups))
        return found


def causes_of(subject: Subject, batches: Sequence[Batch]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the cause of most noise in each layer's own output with exact inputs, and the share of values outside a range.

    The shares are by layer, only for the cause RANGE.
    """
    assert subject.placement is not None
    nodes = {node.name: node for node in subject.placement.nodes}
    weights = _local(subject, subject.with_weights_only(), batches)
    inputs = _local(subject, _with_activations_only(subject), batches)
    clipped = _clipped(subject, batches)
    causes, outside = {}, {}
    for layer, group in groups_of(subject).items():
        if layer not in weights:
            continue
        shares = [clipped[name] for node in group for name in nodes[node].activations if name in clipped]
        if weights[layer].noise > inputs[layer].noise:
            causes[layer] = WEIGHTS
        elif shares:
            causes[layer], outside[layer] = RANGE, max(shares)
        else:
            causes[layer] = INPUTS
    return causes, outside


def _clipped(subject: Subject, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the share of values outside the range, by activation whose clipping makes more noise than its rounding."""
    assert subject.placement is not None
    grids, scales = subject.placement.activations, subject.scales or {}
    found = {name: Clipping() for name in grids}
    with TemporaryDirectory(prefix="edgekd-clipped-") as folder:
        run = runner(subject.model, list(found), Path(folder), is_optimised=True)
        for batch in batches:
            for (name, one), values in zip(found.items(), run(batch), strict=True):
                one.add(values, grids[name], scales[name])
    return {name: one.outside / one.values for name, one in found.items() if one.is_cause}


def _with_activations_only(subject: Subject) -> Any:
    """Return the float graph with its activations quantized, and no weights."""
    assert subject.placement is not None
    nodes = tuple(replace(one, weight=None) for one in subject.placement.nodes if one.activations)
    placement = replace(subject.placement, nodes=nodes).only([one.name for one in nodes])
    return insert_qdq(subject.model, placement, subject.scales or {})


def _local(subject: Subject, quantized: Any, batches: Sequence[Batch]) -> dict[str, Noise]:
    """Return the noise of a quantized graph in the output of each layer, computed from exact inputs."""
    tensors = {layer: name for layer, (name, _) in subject.layered.tensors.items()}
    names = list(dict.fromkeys(tensors.values()))
    noises = {layer: Noise() for layer in tensors}
    with TemporaryDirectory(prefix="edgekd-causes-") as text:
        folders = [Path(text) / side for side in ("exact", "own")]
        for folder in folders:
            folder.mkdir()
        exact = runner(subject.model, names, folders[0], is_optimised=True)
        own = runner(cut(quantized, names), [name + OWN for name in names], folders[1], is_optimised=True)
        for batch in batches:
            values = dict(zip(names, exact(batch), strict=True))
            computed = dict(zip(names, own({**batch, **values}), strict=True))
            for layer, name in tensors.items():
                noises[layer].add(values[name], computed[name])
    return noises


def batches_of(subject: Subject, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Return network inputs of images."""
    return [{subject.spec.inputs[0].name: prepare(image, subject.spec.preprocess)} for image in images]

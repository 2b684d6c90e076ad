"""What quantization costs in each layer of a network, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.layers.measure import Subject
from edgekd.quantize.errors_by_node import accumulated, alone


@dataclass(frozen=True)
class Costs:
    """Signal-to-noise ratios in dB by layer, see `errors_by_node`; empty where it is not known what is quantized.

    alone: of the network's outputs when only this layer is quantized.
    accumulated: of what the next layer reads, in the quantized graph.
    """

    alone: Mapping[str, float] = field(default_factory=dict)
    accumulated: Mapping[str, float] = field(default_factory=dict)

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
        batches = [{subject.spec.inputs[0].name: prepare(image, subject.spec.preprocess)} for image in images]
        grown = accumulated(subject.model, subject.graph, subject.layered.tensors, batches)
        if subject.placement is None:
            return Costs(accumulated=grown)
        return Costs(alone(subject.model, subject.placement, subject.scales or {}, batches, progress), grown)

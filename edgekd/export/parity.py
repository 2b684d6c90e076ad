"""Parity of an ONNX file with its torch network, on real images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from edgekd.board.class_maps import resize_logits
from edgekd.board.parity import Comparison, check_finite
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.executors.local import open_reference
from edgekd.models.base import DenseModel
from edgekd.models.session import TorchSession
from edgekd.rewrites.graph import read_onnx


def measure_parity(
    model: DenseModel, trained: ModelSpec, path: Path, deployed: ModelSpec, images: list[np.ndarray]
) -> dict[str, Any]:
    """Compare torch and ONNX Runtime, without its optimisation, on uint8 RGB images (H, W, 3), each through its own contract.

    With decoding in the graph, the network's raw outputs are compared as well, unless the graph no longer has them.

    Returns:
        images: number of images; outputs_relative: the largest difference of any output, relative to its largest
        value (None if the graph has none of them); different: fraction of the pixels, at the network's size, that get
        another class, or of the detections without a counterpart (`board.parity.SAME`); compared: number of these pixels or
        detections (of both networks).

    Raises:
        GateError: either network gives a value that is not finite.
    """
    comparison, hint = Comparison(), "look at the training's curves"
    with TemporaryDirectory(prefix="edgekd-parity-") as folder, ExitStack() as stack:
        network, spec = _with_outputs(path, deployed, trained, Path(folder))
        torch_session = stack.enter_context(TorchSession(model, trained))
        onnx_session = stack.enter_context(open_reference(network, spec))
        for image in images:
            expected = torch_session.infer({"image": prepare(image, trained.preprocess)})
            got = onnx_session.infer({"image": prepare(image, deployed.preprocess)})
            check_finite("export: ", "torch network", expected, hint)
            check_finite("export: ", "ONNX network", got, hint)
            comparison.add_numbers(expected, _at_input_size(got, deployed), sorted(set(got) & set(expected)))
            comparison.add_results(expected, trained, got, deployed)
    parity = comparison.result()
    return {
        "images": parity.images,
        "outputs_relative": comparison.largest_relative,
        "different": parity.different,
        "compared": parity.compared,
    }


def _at_input_size(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> dict[str, np.ndarray]:
    """Return the outputs with logits as large as the network's input, as torch has them."""
    logits = {tensor.name for tensor in spec.all_outputs("logits")}
    size = spec.preprocess.size
    return {name: resize_logits(one[0], size)[None] if name in logits else one for name, one in outputs.items()}


def _with_outputs(path: Path, deployed: ModelSpec, trained: ModelSpec, folder: Path) -> tuple[Path, ModelSpec]:
    """Return a file that also gives the torch network's outputs, as far as its graph computes them, and its contract."""
    model = read_onnx(path)
    computed = {name for node in model.graph.node for name in node.output}
    present = {output.name for output in model.graph.output}
    more = tuple(tensor for tensor in trained.outputs if tensor.name in computed - present)
    if not more:
        return path, deployed
    for tensor in more:
        model.graph.output.append(onnx.ValueInfoProto(name=tensor.name))
    onnx.save(model, folder / path.name)
    return folder / path.name, replace(deployed, outputs=(*deployed.outputs, *more))

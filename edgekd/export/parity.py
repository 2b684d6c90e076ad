"""How far an ONNX file is from the torch network it came from, on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.models.base import DenseModel
from edgekd.models.session import TorchSession
from edgekd.targets.onnxruntime import import_onnxruntime


def measure_parity(
    model: DenseModel, trained: ModelSpec, path: Path, deployed: ModelSpec, images: list[np.ndarray]
) -> dict[str, Any]:
    """Compare torch and ONNX Runtime on uint8 RGB images (H, W, 3), each through its own contract.

    Returns:
        images: how many; logits_max_abs and logits_relative (to the largest |logit|): None when the graph ends in
        argmax; class_map_different: fraction of pixels, at the network's size, that get another class.
    """
    runtime = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = largest = 0.0
    different = total = 0
    output = deployed.outputs[0]
    with TorchSession(model, trained) as torch_session:
        for image in images:
            expected = torch_session.infer({"image": prepare(image, trained.preprocess)})
            (got,) = runtime.run([output.name], {"image": prepare(image, deployed.preprocess)})
            if output.role == "logits":
                worst = max(worst, float(np.abs(got - expected["logits"]).max()))
                largest = max(largest, float(np.abs(expected["logits"]).max()))
            size = deployed.preprocess.size
            same = class_map(expected, trained, size) == class_map({output.name: got}, deployed, size)
            different += int(same.size - same.sum())
            total += same.size
    has_logits = output.role == "logits"
    return {
        "images": len(images),
        "logits_max_abs": worst if has_logits else None,
        "logits_relative": worst / max(largest, 1e-12) if has_logits else None,
        "class_map_different": different / total,
    }

"""How far an ONNX file is from the torch network it came from, on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.detection import Detections, detections
from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.models.base import DenseModel
from edgekd.models.session import TorchSession
from edgekd.targets.onnxruntime import import_onnxruntime

# A detection is the same when one of its class is at least so alike in the other file.
SAME_IOU, SAME_SCORE = 0.99, 1e-3


def measure_parity(
    model: DenseModel, trained: ModelSpec, path: Path, deployed: ModelSpec, images: list[np.ndarray]
) -> dict[str, Any]:
    """Compare torch and ONNX Runtime on uint8 RGB images (H, W, 3), each through its own contract.

    Returns:
        images: how many; outputs_relative: the largest difference of any output tensor, relative to its largest value
        (None when the graph ends in argmax); different: fraction of the pixels, at the network's size, that get another
        class, or of the detections that have no counterpart (IoU 0.99, score within 1e-3).
    """
    runtime = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in deployed.outputs]
    differences, largest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    counts = np.zeros(2, np.int64)  # different, total
    compare = _pixels if deployed.task == "semantic" else _objects
    with TorchSession(model, trained) as torch_session:
        for image in images:
            expected = torch_session.infer({"image": prepare(image, trained.preprocess)})
            got = dict(zip(names, runtime.run(names, {"image": prepare(image, deployed.preprocess)}), strict=True))
            for name in set(names) & set(expected):
                differences[name] = max(differences[name], float(np.abs(got[name] - expected[name]).max()))
                largest[name] = max(largest[name], float(np.abs(expected[name]).max()))
            counts += compare(expected, trained, got, deployed)
    relative = [differences[name] / max(largest[name], 1e-12) for name in names if largest[name]]
    return {
        "images": len(images),
        "outputs_relative": max(relative) if relative else None,
        "different": int(counts[0]) / max(1, int(counts[1])),
    }


def _pixels(
    expected: dict[str, np.ndarray], trained: ModelSpec, got: dict[str, np.ndarray], deployed: ModelSpec
) -> tuple[int, int]:
    size = deployed.preprocess.size
    same = class_map(expected, trained, size) == class_map(got, deployed, size)
    return int(same.size - same.sum()), same.size


def _objects(
    expected: dict[str, np.ndarray], trained: ModelSpec, got: dict[str, np.ndarray], deployed: ModelSpec
) -> tuple[int, int]:
    size = deployed.preprocess.size
    return unmatched(detections(expected, trained, size), detections(got, deployed, size))


def unmatched(one: Detections, other: Detections) -> tuple[int, int]:
    """Return how many detections of two results on the same image have no counterpart in the other, and how many there
    are."""
    alike = is_alike(one, other)
    lonely = int((~alike.any(axis=1)).sum() + (~alike.any(axis=0)).sum())
    return lonely, len(one.boxes) + len(other.boxes)


def is_alike(one: Detections, other: Detections) -> np.ndarray:
    """Return (N, M) bool: of one class, IoU of at least SAME_IOU and scores within SAME_SCORE."""
    from edgekd.data.objects import box_iou

    return np.asarray(
        (box_iou(one.boxes, other.boxes) >= SAME_IOU)
        & (np.abs(one.scores[:, None] - other.scores[None, :]) <= SAME_SCORE)
        & (one.labels[:, None] == other.labels[None, :])
    )

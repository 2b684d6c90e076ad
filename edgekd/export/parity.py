"""How far an ONNX file is from the torch network it came from, on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.board.boxes import box_iou
from edgekd.board.detection import Detections, detections
from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.errors import GateError
from edgekd.models.base import DenseModel
from edgekd.models.session import TorchSession
from edgekd.rewrites.graph import read_onnx
from edgekd.targets.onnxruntime.target import import_onnxruntime

# A detection is the same when one of its class is at least so alike in the other file.
SAME_IOU, SAME_SCORE = 0.99, 1e-3


def measure_parity(
    model: DenseModel, trained: ModelSpec, path: Path, deployed: ModelSpec, images: list[np.ndarray]
) -> dict[str, Any]:
    """Compare torch and ONNX Runtime on uint8 RGB images (H, W, 3), each through its own contract.

    The network's own outputs are compared also where the graph goes on behind them (decoding), unless it has them no more.

    Returns:
        images: how many; outputs_relative: the largest difference of any of the network's outputs, relative to its largest
        value (None when the graph has none of them); different: fraction of the pixels, at the network's size, that get
        another class, or of the detections that have no counterpart (IoU 0.99, score within 1e-3); compared: how many
        pixels or detections (of both) that is of.

    Raises:
        GateError: a value that is not finite, of either.
    """
    heads = [tensor.name for tensor in trained.outputs]
    network = _with_outputs(path, heads)
    runtime = import_onnxruntime().InferenceSession(network, providers=["CPUExecutionProvider"])
    names = [output.name for output in runtime.get_outputs()]
    differences: dict[str, float] = {}
    largest: dict[str, float] = {}
    counts = np.zeros(2, np.int64)  # different, total
    compare = _pixels if deployed.task == "semantic" else _objects
    with TorchSession(model, trained) as torch_session:
        for image in images:
            expected = torch_session.infer({"image": prepare(image, trained.preprocess)})
            got = dict(zip(names, runtime.run(names, {"image": prepare(image, deployed.preprocess)}), strict=True))
            _check_finite("torch network", expected)
            _check_finite("ONNX network", got)
            for name in set(names) & set(expected):
                differences[name] = max(differences.get(name, 0.0), float(np.abs(got[name] - expected[name]).max()))
                largest[name] = max(largest.get(name, 0.0), float(np.abs(expected[name]).max()))
            counts += compare(expected, trained, got, deployed)
    different, compared = map(int, counts)
    return {
        "images": len(images),
        "outputs_relative": max((differences[n] / max(largest[n], 1e-12) for n in differences), default=None),
        "different": different / max(1, compared),
        "compared": compared,
    }


def _with_outputs(path: Path, names: list[str]) -> bytes:
    """Return the model of a file with those of the tensors `names` that it computes among its outputs."""
    model = read_onnx(path)
    computed = {name for node in model.graph.node for name in node.output}
    present = {output.name for output in model.graph.output}
    for name in names:
        if name in computed - present:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()


def _check_finite(whose: str, outputs: dict[str, np.ndarray]) -> None:
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise GateError(
                f"export: output {name!r} of the {whose} holds values that are not finite; look at the training's curves"
            )


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
    return np.asarray(
        (box_iou(one.boxes, other.boxes) >= SAME_IOU)
        & (np.abs(one.scores[:, None] - other.scores[None, :]) <= SAME_SCORE)
        & (one.labels[:, None] == other.labels[None, :])
    )

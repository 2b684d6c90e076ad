"""Quantizer vendor: hands the float model and the calibration set to a toolchain that quantizes by itself.

The pixels are handed over, not the normalised inputs: such toolchains normalise themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.board.preprocess import pixels_of
from edgekd.board.specs import ModelSpec
from edgekd.quantize.grids import Grid, Placement, named_graph, placement_of, symmetric_weights
from edgekd.quantize.ptq import Batch, QuantizeResult, check_calibration, float_nodes
from edgekd.rewrites.graph import copy_onnx

SUFFIX = ".onnx"
KEEPS_FLOAT = False
TAKES_RANGES = False  # the toolchain calibrates by itself


@dataclass(frozen=True)
class Options:
    """Nothing to choose: how it quantizes is among the options of the target."""


def quantize(
    model: Path, spec: ModelSpec, calibration: Sequence[Batch], out_dir: Path, options: Options
) -> QuantizeResult:
    """Write `model.onnx`, the float model as it is, and `calibration.npy`, uint8 pixels (N, H, W, 3).

    Args:
        model: float ONNX file.
        spec: its contract, with one image input.
        calibration: network inputs by name, prepared as `spec` says; may be read from files again for each pass.
        out_dir: existing folder.
        options: none.

    Raises:
        DataError: no calibration inputs.
        ArtifactError: the model is not an ONNX file.
        TargetError: over 2 GiB with external weights.
        ImageError: calibration inputs that the contract did not prepare.
    """
    check_calibration(calibration)
    (image,) = spec.inputs
    shape = (len(calibration), *spec.preprocess.size, 3)
    out = out_dir / f"model{SUFFIX}"
    copy_onnx(model, out)
    pixels_file = out_dir / "calibration.npy"
    pixels = np.lib.format.open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=shape)
    for place, batch in enumerate(calibration):
        pixels[place] = pixels_of(batch[image.name], spec.preprocess)[0]
    pixels.flush()
    details = {"quantizer": "vendor", "calibration_batches": len(calibration), "options": {}}
    return QuantizeResult(out, details, pixels=pixels_file)


def grids(model: Path, spec: ModelSpec, options: Options) -> Placement:
    """Return the placement that NPU toolchains usually choose: int8 activations with zero points, int8 weights per channel.

    It is an assumption: the toolchain does not say before it compiles.

    Raises:
        ArtifactError: the model is not an ONNX file.
    """
    graph = named_graph(model)
    activation = Grid(8, is_signed=True, is_symmetric=False)
    return placement_of(graph, float_nodes(graph, (), keep_head=False), lambda _: activation, symmetric_weights(8))

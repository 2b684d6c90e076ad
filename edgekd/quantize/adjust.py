"""Adjustments: changes of a float graph before it is quantized, by name. Every quantizer takes the result, also a vendor's.

A toolchain derives scales from weights and calibration images by itself. So what is in the weights and biases of the float graph
reaches all of them, and no toolchain has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from edgekd.quantize.bias_correction import correct_biases
from edgekd.quantize.equalization import equalize
from edgekd.quantize.grids import Placement
from edgekd.quantize.ptq import Batch, check_calibration
from edgekd.quantize.ranges import calibrate
from edgekd.quantize.weight_rounding import round_weights
from edgekd.rewrites.graph import name_nodes, read_onnx

EXACT = ("equalize", "equalize_relu6")  # the float network computes the same as before
_EQUALIZE = {"equalize": False, "equalize_relu6": True}
_ON_IMAGES = {"round": round_weights, "bias": correct_biases}
_MOST_IMAGES = {"round": 32, "bias": 8}  # `bias` runs them once for each operator
_LARGE_BYTES = 1 << 30  # over protobuf's 2 GiB, weights lie in another file


def adjusted(
    model: Path,
    names: Sequence[str],
    place: Callable[[Path], Placement],
    calibration: Sequence[Batch],
    folder: Path,
    method: str = "minmax",
) -> tuple[Path, dict[str, int]]:
    """Return the file of an adjusted graph, and the number of operators that each adjustment changed.

    Args:
        model: float ONNX file.
        names: adjustments in order: `equalize`, `equalize_relu6`, `round` or `bias`.
        place: returns the placement of the quantizer for a file.
        calibration: network inputs by name.
        folder: existing, for the adjusted files.
        method: of the quantizer's ranges, see `calibrate`.

    Raises:
        DataError: no calibration inputs.
        ArtifactError: the model is not an ONNX file.
        TargetError: ONNX Runtime is not installed.
    """
    changed: dict[str, int] = {}
    for number, name in enumerate(names):
        graph = read_onnx(model)
        name_nodes(graph)
        if name in _EQUALIZE:
            nodes = equalize(graph, _EQUALIZE[name])
        else:
            check_calibration(calibration)
            placement = place(model)
            some = calibration[:: -(-len(calibration) // _MOST_IMAGES[name])]
            nodes = _ON_IMAGES[name](graph, placement, calibrate(model, placement, calibration, method), some)
        changed[name] = len(nodes)
        model = folder / f"adjusted{number}.onnx"
        onnx.save(graph, model, save_as_external_data=graph.ByteSize() > _LARGE_BYTES)
    return model, changed

"""Which planted faults `edgekd layers` names, and by which comparison: python benchmarks/planted_faults.py RUN [--seeds 3].

RUN is a finished run with a quantizer that writes a Q/DQ graph and, for the last kind, an engine whose quantizer writes an IR. Each
case plants one fault in a random place. `named` says whether the first layer to blame is the broken one (a reader of the broken
tensor), and the comparison the expected one. Saturation of 8-bit weights has no planted place: only its comparison is expected.
Run it from the repository's folder, with it on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from edgekd.core.artifact import open_artifact
from edgekd.core.recipe_loading import stored_recipe
from edgekd.layers.measure import HERE, Place
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS, LayerErrors
from edgekd.layers.work import compare, training_images
from edgekd.report.stored import read_report
from tests.layer_faults import ENGINE_FAULTS, Fused, errors_of, place_of, saturated, subject_of

CASE = "{:<34} {:>4}  {:<14} {:<28} {:<14} {:<28} {}"


def main() -> None:
    """Print a table of cases, and how many are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2)
    given = parser.parse_args()
    recipe = stored_recipe(read_report(given.run).recipe, str(given.run))
    images = training_images(recipe, given.images)
    print(CASE.format("fault", "seed", "expected", "planted in", "comparison", "layer", "named"))
    with TemporaryDirectory() as folder:
        results = [*_files(given, images, Path(folder)), *_eight_bits(given, Path(folder))]
    print(f"{sum(results)} of {len(results)} named")


def _files(given: Any, images: list[np.ndarray], folder: Path) -> list[bool]:
    export = open_artifact(given.run / "export")
    model = export.file("model.onnx")
    quantized = open_artifact(given.run / "quantize/qdq-ptq").file("model.onnx")
    results = []

    def broken(fault: Callable[..., set[str]], seed: int) -> tuple[Path, set[str]]:
        net = onnx.load(quantized)
        nodes = fault(net, np.random.default_rng(seed))
        onnx.save(net, folder / "broken.onnx")
        return folder / "broken.onnx", nodes

    for seed in range(given.seeds):
        path, nodes = broken(saturated, seed)
        found = errors_of(path, model, export.spec, path, images)
        results.append(_row("range too small", seed, QUANTIZATION, nodes, found))
        for name, fault in ENGINE_FAULTS.items():
            path, nodes = broken(fault, seed)
            found = errors_of(quantized, model, export.spec, path, images)
            results.append(_row(f"{name}, engine", seed, RUNTIME, nodes, found))
            found = errors_of(quantized, model, export.spec, quantized, images, board=path)
            results.append(_row(f"{name}, board", seed, BOARD, nodes, found))
        path, _ = broken(ENGINE_FAULTS["wrong scale"], seed)
        fused = Place(place_of(path, export.spec).engine, Fused(quantized))
        found = compare("fused", subject_of(quantized, model, export.spec), {HERE: fused}, images)
        results.append(_row("gone when tapped", seed, TAPS, {""}, found))
    return results


def _eight_bits(given: Any, folder: Path) -> list[bool]:
    """8-bit weights on a CPU without VNNI: the engine saturates, its graph does not. oneDNN is limited to AVX2."""
    results = []
    cases = (("this CPU", "", QUANTIZATION), ("AVX2", "", RUNTIME), ("AVX2 on the board", "board", BOARD))
    for limit, board, expected in cases:
        environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": limit} if limit == "AVX2" else {})}
        command = [
            sys.executable,
            str(Path(__file__).with_name("planted_saturation.py")),
            str(given.run),
            str(given.images),
            *([board] if board else []),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr.splitlines()[-1])
            continue
        found = LayerErrors.from_dict(json.loads(done.stdout.splitlines()[-1]))
        results.append(_row(f"8-bit weights, {limit}", 0, expected, None, found))
    return results


def _row(fault: str, seed: int, expected: str, nodes: set[str] | None, found: LayerErrors) -> bool:
    """Print a case and return whether it is named; with None as nodes, only the comparison is known."""
    first = found.blamed[0] if found.blamed else None
    is_named = first is not None and first.comparison == expected and (nodes is None or first.layer in nodes)
    got = ("nothing", "") if first is None else (first.comparison, first.layer)
    print(
        CASE.format(fault, seed, expected, " ".join(sorted(nodes or ()))[:28], *got, "yes" if is_named else "NO"),
        flush=True,
    )
    return is_named


if __name__ == "__main__":
    main()

"""Bundles for the C++ runner, its program, and Python's results for the same images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekd.board.detection import Detections, Selection
from edgekd.board.postprocess import Predictor
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.runner.golden import GoldenImage, write_golden
from edgekd.runner.manifest import Manifest, Tolerance

Arrays = Mapping[str, np.ndarray]


class Recorded:
    """A session that gives recorded outputs."""

    def __init__(self, spec: ModelSpec, outputs: Arrays) -> None:
        self.spec, self.outputs = spec, dict(outputs)
        self.runtime: dict[str, Any] = {"threads": 2}

    def infer(self, inputs: Arrays) -> dict[str, np.ndarray]:
        return self.outputs


def write_bundle(
    folder: Path,
    spec: ModelSpec,
    engine: Path | None = None,
    golden: Sequence[GoldenImage] = (),
    precision: str = "fp32",
) -> Path:
    """Write what C++ reads of an unpacked bundle, of an OpenVINO engine or of none, and return its folder."""
    (folder / "engine").mkdir(parents=True)
    if engine is not None:
        for suffix in (".xml", ".bin"):
            shutil.copyfile(engine.with_suffix(suffix), folder / f"engine/engine{suffix}")
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    limits = Tolerance(0.05, 0.02)
    manifest = Manifest("test", 1, spec.task, "openvino", precision, "engine/engine.xml", limits, len(golden))
    (folder / "manifest.json").write_text(manifest.to_json())
    write_golden(folder, spec, golden)
    return folder


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program, in an emulator where EDGEKD_CPP_EMULATOR names one."""
    command = [*os.environ.get("EDGEKD_CPP_EMULATOR", "").split(), program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def assert_same_results(
    program: Path,
    bundle: Path,
    session: Session,
    images: Sequence[np.ndarray],
    options: Sequence[str] = (),
    min_score: float = Selection.min_score,
) -> list[Any]:
    """Assert that C++ prepares the inputs and gives the results that Python's `Predictor` gives, to the byte; return these."""
    out = bundle / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = [out / f"image{number}.npy" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        np.save(file, image)
    done = run(program, bundle, *files, "--out", out, "--min-score", str(min_score), *options)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images)
    predictor, results = Predictor(session, Selection(min_score=min_score)), []
    for number, image in enumerate(images):
        inputs = predictor.prepare(image)
        stem = out / f"image{number}"
        (expected,) = inputs.values()
        np.testing.assert_array_equal(np.load(f"{stem}.input.npy"), expected)
        result = predictor.finish(session.infer(inputs), (image.shape[0], image.shape[1]))
        _assert_same(stem, result)
        results.append(result)
    return results


def _assert_same(stem: Path, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(np.load(f"{stem}.class_map.npy"), expected)
        return
    assert isinstance(expected, Detections)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(np.load(f"{stem}.{name}.npy"), getattr(expected, name), err_msg=name)
    if expected.masks is None:
        return
    np.testing.assert_array_equal(np.load(f"{stem}.corners.npy"), expected.masks.corners)
    pixels = [part.reshape(-1) for part in expected.masks.parts] or [np.zeros(0, bool)]
    np.testing.assert_array_equal(np.load(f"{stem}.mask_pixels.npy").astype(bool), np.concatenate(pixels))


def photos(folder: Path, pattern: str, count: int) -> list[np.ndarray]:
    """Return `count` images spread over a folder; random pixels of several sizes where there are too few."""
    files = sorted(folder.rglob(pattern))
    if len(files) >= count:
        return [np.asarray(Image.open(file).convert("RGB")) for file in files[:: len(files) // count][:count]]
    rng = np.random.default_rng(5)
    sizes = [(64, 96), (60, 80), (96, 64), (200, 301), (480, 640)]
    blocks = [rng.integers(0, 256, (height // 4, width // 4, 3)) for height, width in sizes]
    made = [block.repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8) for block in blocks]
    return [np.roll(made[i % len(made)], 7 * i, axis=1) for i in range(count)]

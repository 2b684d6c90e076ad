"""Counts where the C++ runner and Python differ on the same engine and images: values of inputs, pixels, objects, mask pixels.

    python benchmarks/cpp_agreement.py build/edgekd-run IMAGES RUN/engine/openvino-int8 [ENGINE ...] --count 20

Python is `Predictor` as it comes. Objects differ when a box, a score or a label does, to the last bit. `ties` counts the pixels
where Python's own sums of taps, which define the class map, differ from what it computes here.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cpp_runner import write_bundle

from edgekd.board.class_maps import ClassMaps
from edgekd.board.detection import Detections
from edgekd.board.frame import frame
from edgekd.board.postprocess import Predictor
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from edgekd.data.images import read_image
from edgekd.data.predictions import image_files


def main() -> None:
    """Compare each engine and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="edgekd-run")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("engines", type=Path, nargs="+", help="engine artifacts of runs, of the target openvino")
    parser.add_argument("--count", type=int, default=20, help="images, spread over the folder")
    asked = parser.parse_args()
    files = image_files([asked.images])
    images = [read_image(file) for file in files[:: max(1, len(files) // asked.count)][: asked.count]]
    for path in asked.engines:
        found = _compare(asked.program, path, images)
        print(
            f"{path}: {len(images)} images:", ", ".join(f"{name} {count}" for name, count in found.items()), flush=True
        )


def _compare(program: Path, path: Path, images: list[np.ndarray]) -> dict[str, int]:
    engine = open_artifact(path)
    target = plugins.target(engine.details["target"])
    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as text:
        bundle = write_bundle(Path(text), engine, images)
        (bundle / "out").mkdir()
        names = [str(bundle / f"{number}.npy") for number in range(len(images))]
        command = [str(program), str(bundle), *names, "--out", str(bundle / "out")]
        subprocess.run(command, check=True, capture_output=True)
        with target.session(engine.file(engine.details["engine"]), engine.spec, target.options()) as session:
            predictor = Predictor(session)
            for number, image in enumerate(images):
                for name, value in _differences(predictor, image, bundle / f"out/{number}").items():
                    found[name] = found.get(name, 0) + value
    return found


def _differences(predictor: Predictor, image: np.ndarray, stem: Path) -> dict[str, int]:
    """Return how many values there are and how many differ, of one image."""
    inputs = predictor.prepare(image)
    (expected,) = inputs.values()
    counts = {"input values that differ": int((np.load(f"{stem}.input.npy") != expected).sum())}
    outputs = predictor.session.infer(inputs)
    result = predictor.finish(outputs, (image.shape[0], image.shape[1]))
    if not isinstance(result, Detections):
        different = np.load(f"{stem}.class_map.npy") != result
        ties = _ties(predictor.session.spec, outputs, result)
        return {**counts, "pixels": different.size, "pixels that differ": int(different.sum()), "ties": ties}
    boxes, scores, labels = (np.load(f"{stem}.{name}.npy") for name in ("boxes", "scores", "labels"))
    counts["objects"] = len(result.boxes)
    if len(boxes) != len(result.boxes):
        return {**counts, "objects that differ": max(len(boxes), len(result.boxes))}
    different = (boxes != result.boxes).any(axis=1) | (scores != result.scores) | (labels != result.labels)
    counts["objects that differ"] = int(different.sum())
    if result.masks is None:
        return counts
    pixels = np.concatenate([np.zeros(0, bool), *(part.reshape(-1) for part in result.masks.parts)])
    masks = np.load(f"{stem}.mask_pixels.npy").astype(bool)
    same_size = len(masks) == len(pixels)
    wrong = int((masks != pixels).sum()) if same_size else max(len(masks), len(pixels))
    return {**counts, "mask pixels": len(pixels), "mask pixels that differ": wrong}


def _ties(spec: ModelSpec, outputs: Mapping[str, np.ndarray], class_map: np.ndarray) -> int:
    """Return the pixels of a class map that differ from those by sums of taps."""
    (tensor,) = spec.all_outputs("logits")
    _, classes, height, width = tensor.shape
    place = frame((class_map.shape[0], class_map.shape[1]), spec.preprocess)
    defined = ClassMaps(classes, (height, width), place, with_products=False)(outputs[tensor.name][0])
    return int((defined != class_map).sum())


if __name__ == "__main__":
    main()

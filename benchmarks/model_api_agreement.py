"""How far OpenVINO's Model API agrees with edgekd: python benchmarks/model_api_agreement.py RUN [--images N] [--size H W].

For each OpenVINO engine of a run, on images of its validation split: the engine's own IR, whose metadata Model API reads, and the
IR of `edgekd stack --for model_api`. Class maps: share of pixels with another class. Objects: share of edgekd's detections that have
no counterpart (same class, corners within half a pixel). Model API comes by `make stack-checks`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgekd
from edgekd.board.detection import MIN_SCORE, Detections, Selection
from edgekd.core.artifact import open_artifact
from edgekd.core.recipe import Recipe
from edgekd.data.splits import open_split
from edgekd.stacks import engine_of, refusals, write
from edgekd.targets.openvino.model_api import is_read_as_it_is
from edgekd.targets.openvino.runtime import shared_core


def main() -> None:
    """Print a line for each engine and IR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, help="height and width of the images; default their own")
    given = parser.parse_args()
    sys.path.append(str(Path(sys.prefix) / ".stack-checks"))
    pictures = list(images(given.run, given.images, given.size))
    for folder in sorted((given.run / "engine").glob("openvino-*")):
        engine = engine_of(open_artifact(folder))
        with tempfile.TemporaryDirectory() as scratch:
            files = {"its own IR": engine.file} if is_read_as_it_is(engine.spec) else {}
            if not refusals(engine)["model_api"]:
                write("model_api", engine, Path(scratch))
                files["the stack's IR"] = Path(scratch) / "model.xml"
            for name, file in files.items():
                wrong, total, unit = different(folder, file, pictures)
                print(f"{folder.name:16} {name:16} {wrong} of {total} {unit} ({wrong / max(total, 1):.3%}) differ, "
                      f"{len(pictures)} images of {pictures[0].shape[:2]}")  # fmt: skip


def images(run: Path, count: int, size: list[int] | None) -> Iterator[np.ndarray]:
    """Yield images of the validation split, RGB."""
    recipe = Recipe.model_validate(edgekd.load_report(run)["recipe"])
    split = open_split(recipe, recipe.data.val)
    for index in range(min(count, len(split))):
        pixels = split.load(index).image
        if size is not None:
            pixels = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        yield pixels


def different(folder: Path, file: Path, pictures: list[np.ndarray]) -> tuple[int, int, str]:
    """Return the number of pixels, or of detections, in which Model API differs, their total, and which of the two they are."""
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model

    adapter = OpenvinoAdapter(shared_core(), str(file), device="CPU", plugin_config={"INFERENCE_PRECISION_HINT": "f32"})
    wrapper = Model.create_model(adapter)
    is_semantic = open_artifact(folder).spec.task == "semantic"
    counts = np.zeros(2, np.int64)
    with edgekd.load_engine(folder, None if is_semantic else Selection(min_score=MIN_SCORE)) as engine:
        for picture in pictures:
            ours, theirs = engine(picture), wrapper(np.ascontiguousarray(picture[..., ::-1]))
            if isinstance(ours, Detections):
                counts += (unmatched(ours, theirs), len(ours.scores))
            else:
                counts += ((theirs.resultImage != ours).sum(), ours.size)
    return int(counts[0]), int(counts[1]), "pixels" if is_semantic else "detections"


def unmatched(ours: Detections, theirs: Any) -> int:
    """Return the number of detections of more than a pixel (Model API drops the others) without a counterpart."""
    first = 0 if ours.masks is None else 1  # label of the first class
    count = 0
    for box, label in zip(ours.boxes, ours.labels, strict=True):
        apart = np.abs(theirs.bboxes - box).max(axis=1)[theirs.labels == label + first]
        count += not len(apart) or apart.min() > 0.501
    return count


if __name__ == "__main__":
    main()

"""How much of the fp32 score each quantizer of a shipped target keeps, on the scored split of finished runs.

    python benchmarks/int8_kept.py runs/quickstart runs/bccd --json kept.json

For each run and each quantizer of a shipped target: the exported network is adjusted and quantized as the run's recipe says (the
same calibration images), compiled by the target of this machine that takes the file, and run on `data.val`. The reference is the
exported graph in ONNX Runtime, fp32. A segmenter's ratio has a 95 % interval from a bootstrap over the images; mAP has none.
A quantizer that quantizes elsewhere, in a vendor's toolchain, is named and left out. Exits with 1 when a ratio is below --least.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.detection import Selection
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from edgekd.core.recipe import Recipe
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.evaluate import detection, semantic
from edgekd.evaluate.image_counts import PixelCounts
from edgekd.evaluate.image_scores import ImageScores
from edgekd.evaluate.intervals import score_change_intervals
from edgekd.evaluate.predictions import predict_split
from edgekd.executors.predictions import predict_in
from edgekd.quantize.place import options_of
from edgekd.quantize.stage import Prepared, adjusted_graph, calibration_indices
from edgekd.targets.base import CompileRequest, Target

METRICS = {
    "semantic": ("miou", "boundary_iou"),
    "detection": ("map", "map_75"),
    "instance": ("mask_map", "boundary_map", "map"),
}
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}  # what runs a quantized file here, by its suffix


def main() -> int:
    """Print a line per run, quantizer and metric; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--least", type=float, default=0.995, help="share of the fp32 score to keep")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", nargs="*", help="quantizers; all without it")
    parser.add_argument(
        "--default-adjust", action="store_true", help="today's default of quantize.adjust, not the run's"
    )
    arguments = parser.parse_args()
    found = [row for run in arguments.runs for row in of_run(run, arguments.only, arguments.default_adjust)]
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    below = [row for row in found if row["kept"] < arguments.least]
    print(f"{len(found) - len(below)} of {len(found)} keep at least {arguments.least:.1%}")
    return int(bool(below))


def of_run(run: Path, only: Sequence[str] | None, default_adjust: bool) -> Iterator[dict[str, Any]]:
    """Yield the figures of a run, a row for each quantizer and metric."""
    recipe = Recipe.model_validate(json.loads((run / "report.json").read_text())["recipe"])
    if default_adjust:
        recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"adjust": None})})
    export = open_artifact(run / "export", "onnx")
    dataset, training = open_split(recipe, recipe.data.val), open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(training), recipe.quantize.images, recipe.seed)
    calibration = Prepared(training, chosen, export.spec)
    with TemporaryDirectory() as folder:
        model = export.file("model.onnx")
        reference = scored(recipe, dataset, model, export.spec, "fp32", Path(folder))
    users: dict[str, list[str]] = {}
    for name, target in plugins.targets():
        users.setdefault(target.info.quantizer, []).append(name)
    for name, targets in sorted(users.items()):
        if only and name not in only:
            continue
        scheme = plugins.load("quantizers", name)
        if not scheme.KEEPS_FLOAT:
            print(f"{run.name} {name}: quantizes in the toolchain of {', '.join(targets)}, not measured here")
            continue
        with TemporaryDirectory() as folder:
            options = options_of(recipe.quantize, name)
            (Path(folder) / "adjusted").mkdir()
            graph, _ = adjusted_graph(recipe, export, name, options, Path(folder) / "adjusted")
            made = scheme.quantize(graph, export.spec, calibration, Path(folder), options).model
            quantized = scored(recipe, dataset, made, export.spec, "int8", Path(folder))
        for metric in METRICS[recipe.task]:
            yield shown(run.name, name, metric, reference, quantized)


Scored = tuple[dict[str, float], "ImageScores | None"]  # metrics; pixel counts or matches of each image


def scored(recipe: Recipe, dataset: DenseDataset, model: Path, spec: ModelSpec, precision: str, folder: Path) -> Scored:
    """Return the metrics of a model's engine on a split, and a segmenter's counts of each image."""
    target: Target = plugins.target(RUNTIMES[model.suffix])
    out = folder / f"{precision}-engine"
    out.mkdir()
    engine = target.build_engine(CompileRequest(model, spec, precision, out, target.options()))
    most = recipe.evaluate.max_detections
    indices = range(min(recipe.evaluate.images or len(dataset), len(dataset)))
    with target.session(engine.engine, engine.spec, target.options()) as session:
        predictions = predict_split(
            lambda images: predict_in(session, images, Selection.of_most(most)), dataset, indices
        )
        if recipe.task == "semantic":
            of_pixels = semantic.score(dataset.classes, predictions)
            assert of_pixels.image_counts is not None
            return of_pixels.metrics, PixelCounts(of_pixels.image_counts)
        of_objects = detection.score(dataset.classes, predictions, recipe.task == "instance", max_detections=most)
        return of_objects.metrics, of_objects.matches


def shown(run: str, quantizer: str, metric: str, reference: Scored, quantized: Scored) -> dict[str, Any]:
    """Print and return one figure: the share of the fp32 score that is kept."""
    before, after = reference[0][metric], quantized[0][metric]
    row: dict[str, Any] = {
        "run": run,
        "quantizer": quantizer,
        "metric": metric,
        "fp32": before,
        "int8": after,
        "kept": after / before,
    }
    interval = ""
    if reference[1] is not None and quantized[1] is not None:
        ends = score_change_intervals(reference[1], quantized[1]).get(metric)
        if ends:
            low, high = (1 + end / before for end in ends)
            row["interval"] = [low, high]
            interval = f"  [{low:.1%}, {high:.1%}]"
    print(
        f"{run:16} {quantizer:12} {metric:13} fp32 {before:.4f}  int8 {after:.4f}  {row['kept']:7.2%}{interval}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    raise SystemExit(main())

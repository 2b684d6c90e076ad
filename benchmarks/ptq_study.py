"""Compares settings of post-training quantization over several trained students; resumable.

    python benchmarks/ptq_study.py runs/camvid runs/students/* --out study/ptq
    python benchmarks/ptq_study.py --out study/ptq --table

Each run folder has an export and a report. For each student, toolchain and arm it adjusts and quantizes the exported graph on
calibration images, builds the engine, runs it in this process, and writes one JSON line to OUT.jsonl and the scores of each
image (pixel counts, or matches of objects) to OUT/: a line that is there is not computed again.

Images: the calibration set is the first part of the seeded permutation of the training split, as in the quantize stage. The
*selection* part is what follows in it. `data.val` is scored beside it and chooses nothing. The rule: an arm becomes the default
of its quantizer when the mean over students of its change on the selection part has an interval above 0, and the same holds on
`data.val`, over at least six students. Everything else stays as it is.

Intervals: 95 %, bootstrap over the images of every student, the same images for both arms (2000 resamples). The mean over
students resamples each student's images and keeps the students. They tell nothing of other networks.
SQNR: 10 log10 of the power of the float graph's outputs over that of their error, in dB, mean over images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ptq_table import BASE, METRICS, file_of, read, table

from edgekd.board.postprocess import Predictor
from edgekd.board.preprocess import prepare
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.recipe import Recipe
from edgekd.data.base import Sample
from edgekd.data.splits import open_split
from edgekd.evaluate.boundary import BoundaryCounts
from edgekd.evaluate.confusion import confusion_matrix
from edgekd.evaluate.detection import DetectionEvaluator
from edgekd.evaluate.image_counts import PixelCounts, image_counts
from edgekd.evaluate.image_scores import ImageScores, of_all
from edgekd.executors.boards import open_session
from edgekd.quantize.adjust import adjusted
from edgekd.quantize.stage import Prepared, calibration_indices
from edgekd.targets.base import CompileRequest

Settings = tuple[str, dict[str, Any], tuple[str, ...]]  # name of the arm, options, adjustments


@dataclass(frozen=True)
class Arm:
    """A quantizer's settings: its options and the adjustments before it, and the target that runs the engine."""

    quantizer: str
    name: str
    options: dict[str, Any]
    adjust: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # students whose run folder has one of these words in its name; (): all

    @property
    def target(self) -> str:
        """The signed file runs in ONNX Runtime, too, exactly; TensorRT needs a GPU."""
        return "openvino" if self.quantizer == "nncf" else "onnxruntime"


def arms() -> list[Arm]:
    """Return the arms of the study; the first of each quantizer is its default."""
    qdq: tuple[Settings, ...] = (
        (BASE, {}, ()),
        ("round", {}, ("round",)),
        ("round, bias", {}, ("round", "bias")),
        ("bias", {}, ("bias",)),
        ("equalize", {}, ("equalize",)),
        ("8-bit weights", {"weight_bits": 8}, ()),
        ("ranges mse", {"calibration": "mse"}, ()),
        ("ranges mean", {"calibration": "mean"}, ()),
        ("ranges percentile", {"calibration": "percentile"}, ()),
        ("per tensor", {"weights": "per_tensor"}, ()),
        ("per tensor, equalize", {"weights": "per_tensor"}, ("equalize",)),
        ("per tensor, equalize_relu6", {"weights": "per_tensor"}, ("equalize_relu6",)),
        ("per tensor, round", {"weights": "per_tensor"}, ("round",)),
        ("per tensor, equalize_relu6, round", {"weights": "per_tensor"}, ("equalize_relu6", "round")),
    )
    signed = tuple(one for one in qdq if one[0] in (BASE, "round", "ranges mse", "ranges mean", "per tensor"))
    nncf: tuple[Settings, ...] = (
        (BASE, {}, ()),
        ("bias correction none", {"bias_correction": "none"}, ()),
        ("bias correction fast", {"bias_correction": "fast"}, ()),
        ("round", {}, ("round",)),
        ("bias correction none, round", {"bias_correction": "none"}, ("round",)),
        ("8-bit weights", {"weight_bits": 8}, ()),
        ("ranges mean", {"range": "mean"}, ()),
        ("ranges histogram", {"range": "histogram"}, ()),
        ("mixed preset", {"preset": "mixed"}, ()),
        ("equalize", {}, ("equalize",)),
        ("per tensor", {"weights": "per_tensor"}, ()),
    )
    found = [
        Arm(quantizer, *one)
        for quantizer, given in (("qdq", qdq), ("nncf", nncf), ("qdq_signed", signed))
        for one in given
    ]
    found.append(Arm("nncf", "transformer", {"transformer": True}, (), ("segformer", "convnext")))
    return found


@dataclass(frozen=True)
class Images:
    """The images that score an engine: their names, samples, network inputs and float outputs."""

    samples: list[Sample]
    inputs: list[dict[str, np.ndarray]]
    expected: list[dict[str, np.ndarray]]


class Student:
    """A run's exported student with its images: calibration, selection and scored ones."""

    def __init__(self, run: Path, calibration: int, selection: int, scored: int) -> None:
        self.name = run.name
        self.export: Artifact = open_artifact(run / "export", "onnx")
        self.model, self.spec = self.export.file("model.onnx"), self.export.spec
        self.sha256 = hashlib.sha256(self.model.read_bytes()).hexdigest()
        self.recipe = Recipe.model_validate(json.loads((run / "report.json").read_text())["recipe"])
        self._train = open_split(self.recipe, self.recipe.data.train)
        self._val = open_split(self.recipe, self.recipe.data.val)
        order = np.random.default_rng([self.recipe.seed, 2]).permutation(len(self._train))
        self.chosen = calibration_indices(len(self._train), calibration, self.recipe.seed)
        self._parts = {
            "selection": (self._train, order[calibration : calibration + selection]),
            "val": (self._val, np.unique(np.linspace(0, len(self._val) - 1, min(scored, len(self._val))).astype(int))),
        }
        self._images: dict[str, Images] = {}

    @property
    def calibration(self) -> Prepared:
        """The inputs that ranges come from."""
        return Prepared(self._train, self.chosen, self.spec)

    def parts(self) -> Iterator[tuple[str, Images]]:
        """Yield the parts by name; their images are read once."""
        for name, (dataset, indices) in self._parts.items():
            if name not in self._images:
                samples = [dataset.load(int(index)) for index in indices]
                inputs = [{self.spec.inputs[0].name: prepare(one.image, self.spec.preprocess)} for one in samples]
                with open_session(self.export) as session:
                    expected = [{k: v.copy() for k, v in session.infer(one).items()} for one in inputs]
                self._images[name] = Images(samples, inputs, expected)
            yield name, self._images[name]


def measure(student: Student, arm: Arm, folder: Path) -> tuple[dict[str, Any], dict[str, ImageScores]]:
    """Return the line of a case, and its scores of each image by part."""
    quantizer, target = plugins.load("quantizers", arm.quantizer), plugins.target(arm.target)
    options, started = quantizer.Options(**arm.options), time.process_time()
    model, changed = adjusted(
        student.model,
        arm.adjust,
        lambda path: quantizer.grids(path, student.spec, options),
        student.calibration,
        folder,
    )
    made = quantizer.quantize(model, student.spec, student.calibration, folder, options)
    seconds = time.process_time() - started
    engine_options = replace(target.options(), **{"num_threads" if arm.target == "openvino" else "intra_op_threads": 1})
    built = target.build_engine(CompileRequest(made.model, student.spec, "int8", folder, engine_options))
    line: dict[str, Any] = {"adjusted": changed, "quantize_cpu_s": round(seconds, 2)}
    found = {}
    with target.session(built.engine, built.spec, engine_options) as session:
        for name, images in student.parts():
            line[name], found[name] = score(student, images, session)
    return line, found


def score(student: Student, images: Images, session: Any) -> tuple[dict[str, float], ImageScores]:
    """Return metric and SQNR of a session on some images, and the scores of each."""
    predictor, classes = Predictor(session, threads=1), student.spec.classes
    is_semantic = student.spec.task == "semantic"
    evaluator = None if is_semantic else DetectionEvaluator(classes, student.spec.task == "instance")
    rows, noise = [], []
    for sample, inputs, expected in zip(images.samples, images.inputs, images.expected, strict=True):
        outputs = session.infer(inputs)
        noise.append(sqnr(expected, outputs))
        found = predictor.finish(outputs, sample.image.shape[:2])
        if evaluator is not None:
            assert sample.instances is not None
            evaluator.update(sample.instances, found, sample.image.shape[:2])
            continue
        none = np.zeros(len(classes), np.int64)
        rows.append(image_counts(confusion_matrix(sample.mask, found, len(classes)), BoundaryCounts(none, none)))
    scored = PixelCounts(np.stack(rows)) if evaluator is None else evaluator.compute().matches
    assert scored is not None
    metric = METRICS[student.spec.task]
    return {metric: of_all(scored)[metric], "sqnr_db": float(np.mean(noise)), "images": len(noise)}, scored


def sqnr(expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> float:
    """Return the SQNR of all float outputs of an image in dB, each weighed by its own power."""
    parts = [
        ((got[name] - value) ** 2).mean() / max(float((value**2).mean()), 1e-12)
        for name, value in expected.items()
        if value.dtype.kind == "f"
    ]
    return float(-10 * np.log10(max(float(np.mean(parts)), 1e-12)))


def reference(student: Student) -> dict[str, Any]:
    """Return the scores of the float graph."""
    with open_session(student.export) as session:
        return {name: score(student, images, session)[0] for name, images in student.parts()}


def run(runs: Sequence[Path], out: Path, wanted: str, sizes: tuple[int, int, int]) -> None:
    """Compute every case whose line is missing."""
    lines_file, folder = out.with_suffix(".jsonl"), out
    folder.mkdir(parents=True, exist_ok=True)
    done = {(one["student"], one["sha256"], one["quantizer"], one["arm"]) for one in read(lines_file)}
    for path in runs:
        if not (path / "report.json").exists() or not (path / "export" / "model.onnx").exists():
            print(f"{path}: left out, it has no export and report yet")
            continue
        student = Student(path, *sizes)
        cases = [
            Arm("float", BASE, {}),
            *(one for one in arms() if not one.only or any(w in path.name for w in one.only)),
        ]
        for arm in cases:
            key = (student.name, student.sha256, arm.quantizer, arm.name)
            if key in done or (wanted and wanted not in f"{arm.quantizer}:{arm.name}"):
                continue
            line: dict[str, Any] = dict(zip(("student", "sha256", "quantizer", "arm"), key, strict=True))
            started = time.process_time()
            try:
                with TemporaryDirectory() as scratch:
                    found, of_images = (
                        (reference(student), dict[str, ImageScores]())
                        if arm.quantizer == "float"
                        else measure(student, arm, Path(scratch))
                    )
                line |= found
                for part, scored in of_images.items():
                    np.savez_compressed(file_of(folder, key, part), **scored.arrays())  # type: ignore[arg-type]
            except Exception as exc:  # noqa: BLE001 - one arm that a toolchain refuses is a result
                line["error"] = f"{type(exc).__name__}: {exc}"
            line |= {"calibration": len(student.chosen), "cpu_s": round(time.process_time() - started, 1)}
            with lines_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{student.name} {arm.quantizer}:{arm.name} {line.get('val', line.get('error'))}", flush=True)


def main() -> None:
    """Compute what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibration", type=int, default=32)
    parser.add_argument("--selection", type=int, default=64)
    parser.add_argument("--scored", type=int, default=101, help="Images of data.val, evenly spread.")
    parser.add_argument("--only", default="", help="Part of QUANTIZER:ARM.")
    parser.add_argument("--table", action="store_true", help="Only print the table.")
    arguments = parser.parse_args()
    if not arguments.table:
        sizes = (arguments.calibration, arguments.selection, arguments.scored)
        run(arguments.runs, arguments.out, arguments.only, sizes)
    table(arguments.out)


if __name__ == "__main__":
    main()

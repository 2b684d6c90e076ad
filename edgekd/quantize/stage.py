"""The quantize stage: one calibration for all quantizers, a seeded subset of the training split, listed by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import QAT, Recipe
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.errors import DataError, RecipeError
from edgekd.quantize.adjust import EXACT, adjusted
from edgekd.quantize.place import options_of, state_of
from edgekd.quantize.ptq import Batch
from edgekd.quantize.ranges import Scale, load_scales, method_of

SCALES = "scales.json"  # of a student that QAT trained, beside its weights


def run(job: StageJob) -> StageResult:
    """Quantize the exported model with the quantizer named by the stage's subject."""
    options = options_of(job.recipe.quantize, job.subject)
    ranges = learned_ranges(job.inputs, job.subject, options)
    return quantized(job.recipe, job.input_of("onnx"), job.subject, options, job.out_dir, ranges)


def learned_ranges(inputs: Mapping[str, Artifact], quantizer: str, options: Any) -> dict[str, Scale] | None:
    """Return the scales by tensor that QAT learned and that a quantizer takes.

    None without QAT among the inputs, or if it did not train. None also for a quantizer or options that it did not imitate, and for
    a quantizer that calibrates by itself.
    """
    wanted = {"quantizer": quantizer, "options": json.loads(json.dumps(asdict(options)))}
    takes = getattr(plugins.load("quantizers", quantizer), "TAKES_RANGES", False)
    if QAT not in inputs or not takes or inputs[QAT].details.get("imitated") != wanted:
        return None
    return load_scales(inputs[QAT].file(SCALES))


def quantized(
    recipe: Recipe,
    onnx: Artifact,
    quantizer: str,
    options: Any,
    out_dir: Path,
    ranges: Mapping[str, Scale] | None = None,
) -> StageResult:
    """Quantize an exported model into `out_dir`; return its contract and facts as the quantize stage has them.

    Args:
        recipe: with the sections `data` and `quantize`.
        onnx: the exported model.
        quantizer: name of the quantizer.
        options: its `Options`.
        out_dir: an empty folder.
        ranges: scales that QAT learned, by tensor, for a quantizer that takes them; None: it calibrates.
    """
    module = plugins.load("quantizers", quantizer)
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), recipe.quantize.images, recipe.seed)
    spec = onnx.spec
    calibration_set = Prepared(dataset, chosen, spec)
    learned = {"ranges": ranges} if ranges is not None else {}
    with TemporaryDirectory() as folder:
        model = onnx.file("model.onnx")
        adjustments: dict[str, int] = {}  # learned scales are those of the graph as it is
        if not learned:
            model, adjustments = adjusted_graph(recipe, onnx, quantizer, options, Path(folder))
        result = module.quantize(model, spec, calibration_set, out_dir, options, **learned)
    calibration = {"split": recipe.data.train, "images": [dataset.name(i) for i in chosen], "seed": recipe.seed}
    details = {name: onnx.details[name] for name in ("params", "macs")}
    details["model"] = result.model.relative_to(out_dir).as_posix()
    if result.pixels is not None:
        details["calibration_pixels"] = result.pixels.relative_to(out_dir).as_posix()
    made = {"calibration": calibration, "quantizer": result.details, "adjusted": adjustments}
    return StageResult(spec, {**details, **made})


def adjusted_graph(
    recipe: Recipe, onnx: Artifact, quantizer: str, options: Any, folder: Path, is_exact: bool = False
) -> tuple[Path, dict[str, int]]:
    """Return the float graph that is quantized, and the number of operators that each adjustment of the recipe changed.

    Args:
        recipe: with the sections `data` and `quantize`.
        onnx: the exported model.
        quantizer: name of the quantizer.
        options: its `Options`.
        folder: existing, for the adjusted graph.
        is_exact: leave out the adjustments that change the results of the float network. The cost of quantization is measured from
            the exported float network.

    Raises:
        RecipeError: there are adjustments, and the quantizer has no function `grids`.
    """
    model, names = onnx.file("model.onnx"), recipe.quantize.adjustments(quantizer)
    if is_exact:
        names = tuple(name for name in names if name in EXACT)
    if not names:
        return model, {}
    grids = getattr(plugins.load("quantizers", quantizer), "grids", None)
    if grids is None:
        raise RecipeError(
            f"quantize.adjust: the quantizer {quantizer} has no function `grids`, which adjustments need; remove `adjust`"
        )
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), recipe.quantize.images, recipe.seed)
    place = lambda path: grids(path, onnx.spec, options)  # noqa: E731
    return adjusted(model, names, place, Prepared(dataset, chosen, onnx.spec), folder, method_of(options))


def place(recipe: Recipe) -> dict[str, Any] | None:
    """Return what the model depends on besides the recipe's settings of its only quantizer; see `place.state_of`."""
    (quantizer,) = recipe.quantize.options
    return state_of(recipe.quantize, quantizer)


class Prepared(Sequence[Batch]):
    """Inputs of a network, read and prepared when they are asked for: 128 images of 1024x2048 would take 3.2 GB.

    Args:
        dataset: where the images are.
        indices: which of them.
        spec: the network's contract; its only input is the image.
    """

    def __init__(self, dataset: DenseDataset, indices: Sequence[int], spec: ModelSpec) -> None:
        self._dataset, self._indices, self._spec = dataset, indices, spec

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> Batch: ...
    @overload
    def __getitem__(self, place: slice) -> Prepared: ...
    def __getitem__(self, place: int | slice) -> Batch | Prepared:
        if isinstance(place, slice):
            return Prepared(self._dataset, self._indices[place], self._spec)
        image = self._dataset.load(self._indices[place]).image
        return {self._spec.inputs[0].name: prepare(image, self._spec.preprocess)}


def calibration_indices(available: int, wanted: int, seed: int) -> list[int]:
    """Return the sorted indices of `wanted` (at most `available`) images drawn without replacement."""
    rng = np.random.default_rng([seed, 2])
    return sorted(int(i) for i in rng.permutation(available)[: min(wanted, available)])


def selection_indices(available: int, calibration: int, wanted: int, seed: int) -> list[int]:
    """Return the sorted indices of the `wanted` selection images: those behind the calibration images in the same draw.

    Args:
        available: images of the training split.
        calibration: calibration images, `quantize.images`.
        wanted: selection images at most, `quantize.budget.images`.
        seed: the recipe's.

    Raises:
        DataError: calibration uses every training image.
    """
    drawn = np.random.default_rng([seed, 2]).permutation(available)
    chosen = sorted(int(i) for i in drawn[calibration : calibration + wanted])
    if not chosen:
        raise DataError(
            f"quantize.budget needs training images that calibration does not use: expected more than {calibration} training images, "
            f"got {available}; lower quantize.images"
        )
    return chosen

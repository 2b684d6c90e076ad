"""The quantize stage: one calibration for all quantizers, a seeded subset of the training split, listed by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.errors import RecipeError
from edgekd.quantize.adjust import adjusted
from edgekd.quantize.place import options_of, state_of
from edgekd.quantize.ptq import Batch


def run(job: StageJob) -> StageResult:
    """Quantize the exported model with the quantizer named by the stage's subject."""
    recipe, onnx = job.recipe, job.inputs["export"]
    settings = recipe.quantize
    module = plugins.load("quantizers", job.subject)
    options = options_of(settings, job.subject)
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), settings.images, recipe.seed)
    spec = onnx.spec
    calibration_set = Prepared(dataset, chosen, spec)
    with TemporaryDirectory() as folder:
        model, adjustments = _adjusted(job, calibration_set, options, Path(folder))
        result = module.quantize(model, spec, calibration_set, job.out_dir, options)
    calibration = {"split": recipe.data.train, "images": [dataset.name(i) for i in chosen], "seed": recipe.seed}
    details = {name: onnx.details[name] for name in ("params", "macs")}
    details["model"] = result.model.relative_to(job.out_dir).as_posix()
    if result.pixels is not None:
        details["calibration_pixels"] = result.pixels.relative_to(job.out_dir).as_posix()
    made = {"calibration": calibration, "quantizer": result.details, "adjusted": adjustments}
    return StageResult(spec, {**details, **made})


def _adjusted(job: StageJob, calibration: Sequence[Batch], options: Any, folder: Path) -> tuple[Path, dict[str, int]]:
    """Return the graph to quantize and the number of operators that each adjustment of the recipe changed."""
    onnx, names = job.inputs["export"], job.recipe.quantize.adjust
    if not names:
        return onnx.file("model.onnx"), {}
    grids = getattr(plugins.load("quantizers", job.subject), "grids", None)
    if grids is None:
        raise RecipeError(
            f"quantize.adjust: the quantizer {job.subject} does not say what it quantizes (function grids); leave adjust out"
        )
    return adjusted(onnx.file("model.onnx"), names, lambda model: grids(model, onnx.spec, options), calibration, folder)


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

"""The quantize stage: one calibration for all quantizers, a seeded subset of the training split, listed by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.recipe import QAT
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.quantize.ptq import Batch
from edgekd.quantize.ranges import load_scales

SCALES = "scales.json"  # of a student that QAT trained, beside its weights


def run(job: StageJob) -> StageResult:
    """Quantize the exported model with the quantizer named by the stage's subject."""
    recipe, onnx = job.recipe, job.input_of("onnx")
    settings = recipe.quantize
    module = plugins.load("quantizers", job.subject)
    options = settings.typed_options(job.subject)
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), settings.images, recipe.seed)
    spec = onnx.spec
    calibration_set = Prepared(dataset, chosen, spec)
    arguments = (onnx.file("model.onnx"), spec, calibration_set, job.out_dir, options)
    if QAT in job.inputs and getattr(module, "TAKES_RANGES", False):
        result = module.quantize(*arguments, ranges=load_scales(job.inputs[QAT].file(SCALES)))
    else:
        result = module.quantize(*arguments)
    calibration = {"split": recipe.data.train, "images": [dataset.name(i) for i in chosen], "seed": recipe.seed}
    details = {name: onnx.details[name] for name in ("params", "macs")}
    details["model"] = result.model.relative_to(job.out_dir).as_posix()
    if result.pixels is not None:
        details["calibration_pixels"] = result.pixels.relative_to(job.out_dir).as_posix()
    return StageResult(spec, {**details, "calibration": calibration, "quantizer": result.details})


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

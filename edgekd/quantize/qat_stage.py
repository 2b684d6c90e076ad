"""The stages of section `qat`: quantization-aware training of the deployed student, and its control.

Both train the same student the same steps with the same losses, seed, batches and learning rate, and both keep the statistics
of their batch norms. They differ in the quantizers, and with one scale for a whole weight in the batch norms' factors, which QAT
freezes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L

from edgekd.core import plugins
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.ranks import is_first_process
from edgekd.core.stage import StageJob
from edgekd.data.splits import open_split
from edgekd.distill.stage import guidance_of
from edgekd.models.artifact import network_from_artifact
from edgekd.models.base import DenseModel
from edgekd.quantize.place import options_of
from edgekd.quantize.qat import fake_quantized, freeze_norms
from edgekd.quantize.ranges import calibrate, method_of, save_scales
from edgekd.quantize.stage import SCALES, Prepared, calibration_indices
from edgekd.train.stage import Guidance, train_model, write_checkpoint


def train_qat(job: StageJob) -> StageResult:
    """Train the student with fake quantization, and write weights that lie on the grid and the scales of every tensor.

    Where the deployed student's engines hold the budget, the student keeps its weights.

    Raises:
        GateError: the teacher's score is below `teacher.floor`; or the watchdog stopped the training.
        UserError: the quantizer cannot say where it quantizes, or the training ran out of memory.
    """
    if (kept := _within_budget(job)) is not None:
        return kept
    recipe, (name,) = job.recipe, job.recipe.quantize.options
    quantizer = plugins.load("quantizers", name)
    options = options_of(recipe.quantize, name)
    exported = job.input_of("onnx")
    onnx, spec = exported.file("model.onnx"), exported.spec
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), recipe.quantize.images, recipe.seed)
    placement = quantizer.grids(onnx, spec, options)
    scales = calibrate(onnx, placement, Prepared(dataset, chosen, spec), method_of(options))
    model = _student(job)
    quantized = fake_quantized(model, onnx, placement, scales)
    guidance = _guidance(job)
    training = _trained(job, model, guidance)
    learned = quantized.finish()
    if is_first_process():
        save_scales(learned, job.out_dir / SCALES)
    result = _written(job, model, training, guidance)
    result.details.update(
        imitated={"quantizer": name, "options": asdict(options)},
        quantized_operators=len(quantized.placement.nodes),
        left_out=dict(quantized.left_out),
    )
    return result


def train_control(job: StageJob) -> StageResult:
    """Train the student as `train_qat` does, without quantizers; errors as there."""
    if (kept := _within_budget(job)) is not None:
        return kept
    model = _student(job)
    model.register_forward_pre_hook(freeze_norms)
    guidance = _guidance(job)
    return _written(job, model, _trained(job, model, guidance), guidance)


def _within_budget(job: StageJob) -> StageResult | None:
    """Write the student as it is where the budget is held; None where it is missed, or nobody asked."""
    budget = next((one for one in job.inputs.values() if one.kind == "budget"), None)
    if budget is None or not budget.details["is_met"]:
        return None
    result = _written(job, network_from_artifact(_source(job)), {}, None)
    result.details.update(why_not_trained=budget.details["text"])
    return result


def _source(job: StageJob) -> Artifact:
    """Return the checkpoint of the deployed student."""
    return next(job.inputs[name] for name in ("distilled", "student") if name in job.inputs)


def _student(job: StageJob) -> DenseModel:
    return network_from_artifact(_source(job)).train()


def _guidance(job: StageJob) -> Guidance | None:
    recipe = job.recipe
    assert recipe.qat is not None
    if not recipe.qat.methods:
        return None
    return guidance_of(job, recipe.distill.model_copy(update={"methods": recipe.qat.methods}))


def _trained(job: StageJob, model: DenseModel, guidance: Guidance | None) -> dict[str, Any]:
    assert job.recipe.qat is not None
    L.seed_everything(
        job.recipe.seed, workers=False, verbose=False
    )  # adapters of methods draw the same for both students
    return train_model(job, model, job.recipe.qat.train, "qat", guidance)


def _written(job: StageJob, model: DenseModel, training: dict[str, Any], guidance: Guidance | None) -> StageResult:
    source = _source(job)
    return write_checkpoint(
        job, model, training, {"network": source.details["network"], "source": source.manifest["stage"]}, guidance
    )

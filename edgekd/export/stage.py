"""The export stage: the student's ONNX graph, and its parity with torch on real images."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Export
from edgekd.core.stage import StageJob
from edgekd.data.splits import open_split
from edgekd.errors import GateError
from edgekd.export.onnx_graph import MODEL, deployed_spec, export_onnx
from edgekd.export.parity import measure_parity
from edgekd.models.artifact import network_from_artifact

log = logging.getLogger(__name__)


def run(job: StageJob) -> StageResult:
    """Export the trained student and measure its parity with torch on real images.

    Raises:
        GateError: outputs or results differ by more than the recipe's tolerance.
    """
    source = job.inputs[job.subject]
    settings = job.recipe.export
    model = network_from_artifact(source)
    # A class may have been renamed since the training, which does not run again for it.
    trained = replace(source.spec, classes=tuple(job.inputs["data"].details["classes"]))
    spec = deployed_spec(trained, model, settings)
    path = job.out_dir / MODEL
    spec, details = export_onnx(model, spec, settings, path)
    dataset = open_split(job.recipe, job.recipe.data.val)
    images = [dataset.load(i).image for i in range(min(settings.parity_images, len(dataset)))]
    parity = measure_parity(model, trained, path, spec, images)
    check_parity(parity, spec.task, settings)
    keep = {name: source.details[name] for name in ("params", "macs", "network")}
    return StageResult(spec, {**keep, **details, "parity": parity, "source": job.subject})


def check_parity(parity: dict[str, Any], task: str, settings: Export) -> None:
    """Compare the result of `measure_parity` with the recipe's limits.

    Raises:
        GateError: outputs or results differ by more than the recipe's tolerance.
    """
    if parity["outputs_relative"] is not None and parity["outputs_relative"] > settings.logits_tolerance:
        raise GateError(
            f"export: an ONNX output differs from torch by {parity['outputs_relative']:.2e} of its largest value, "
            f"limit export.logits_tolerance = {settings.logits_tolerance:g}, on {parity['images']} images"
        )
    what, limit = "detections have no counterpart", "detections_tolerance"
    if task == "semantic":
        what, limit = "pixels get another class than", "class_map_tolerance"
    if parity["compared"] == 0:
        log.warning(
            "export: torch and ONNX agree on the network's outputs, but it detects nothing on %d images, so that what "
            "becomes of detections was not compared; raise export.parity_images", parity["images"],
        )  # fmt: skip
    if parity["different"] > getattr(settings, limit):
        raise GateError(
            f"export: {parity['different']:.2e} of the {what} in torch, "
            f"limit export.{limit} = {getattr(settings, limit):g}, on {parity['images']} images"
        )

"""The stages that train on labels alone, and `train_network`, which distillation also uses.

The plain and the distilled student get the same seed: the same initial weights, the same batches in the same order, and the same
number of steps. Initial weights are drawn before anything else uses the random generator.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from edgekd.core.artifact import SCRATCH, StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.ranks import is_first_process
from edgekd.core.recipe import Network, Train
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.check import class_shares
from edgekd.data.loader import CachedOutputs
from edgekd.data.splits import open_split
from edgekd.models.artifact import WEIGHTS, network_from_recipe
from edgekd.models.base import DenseModel
from edgekd.models.build import check_input_size, count
from edgekd.models.session import torch_spec
from edgekd.models.trial import try_network
from edgekd.models.weights import save_state
from edgekd.train.loop import FitJob, fit
from edgekd.train.losses.semantic import balanced
from edgekd.train.module import Distiller
from edgekd.train.refusals import check_trainable, training_errors

log = logging.getLogger(__name__)


def train_teacher(job: StageJob) -> StageResult:
    """Train the teacher on the labels, or take its checkpoint unchanged."""
    recipe, classes = job.recipe, job.inputs["data"].details["classes"]
    try_network(recipe.teacher, recipe.task, len(classes), "teacher", recipe.data.augment.crop or recipe.data.size)
    return train_network(job, job.recipe.teacher, "teacher")


def train_student(job: StageJob) -> StageResult:
    """Train the student on the labels alone."""
    return train_network(job, job.recipe.student, "student")


@dataclass(frozen=True)
class Guidance:
    """The distillation that a student trains with, beside the labels.

    methods: the configuration of each method by name, for the manifest (JSON).
    watchdog_ratio: the training stops when the weighted terms exceed this times the task loss.
    build: makes the distiller and opens the teacher cache. It runs after the student has its initial weights, since
        adapters draw from the same random generator.
    """

    methods: dict[str, object]
    watchdog_ratio: float
    build: Callable[[DenseModel, DenseDataset], tuple[Distiller, CachedOutputs | None]]


def train_network(job: StageJob, network: Network, section: str, guidance: Guidance | None = None) -> StageResult:
    """Train a network of the recipe, or take its checkpoint, and write its weights.

    Args:
        job: the stage's job.
        network: the network's section of the recipe.
        section: the name of that section, for errors.
        guidance: the distillation; None trains on the labels alone.

    Raises:
        RecipeError: the network cannot be built or trained.
        UserError: the training ran out of memory, or one of its processes was killed.
        GateError: the watchdog stopped the training.
    """
    recipe, classes = job.recipe, job.inputs["data"].details["classes"]
    L.seed_everything(recipe.seed, workers=False, verbose=False)  # user networks may draw from numpy or random
    model = network_from_recipe(network, recipe.task, len(classes), section)
    check_input_size(model, recipe.data.size)
    check_trainable(model, network, section)
    training = train_model(job, model, network.train, section, guidance) if network.train is not None else {}
    origin = {
        "network": network.model_dump(mode="json", include={"family", "variant", "options"}),
        "initial_weights": str(network.checkpoint.name) if network.checkpoint else None,
    }
    return write_checkpoint(job, model, training, origin, guidance)


def train_model(
    job: StageJob, model: DenseModel, budget: Train, section: str, guidance: Guidance | None = None
) -> dict[str, Any]:
    """Train a network in place; arguments and errors as in `train_network`, the facts of the run as `fit` returns them."""
    with training_errors(section, budget, job.recipe.trainer):
        return _fit(job, model, budget, guidance)


def write_checkpoint(
    job: StageJob,
    model: DenseModel,
    training: dict[str, Any],
    origin: dict[str, Any],
    guidance: Guidance | None = None,
) -> StageResult:
    """Write a network's weights, and the losses of its training, by the first process.

    Args:
        job: the stage's job.
        model: the network, with its final weights.
        training: facts of the training that `train_model` returns; {} for a network that was not trained.
        origin: what it was built from, for the manifest: `network`, `initial_weights`.
        guidance: the distillation, None for a training on labels alone.
    """
    if not is_first_process():
        return StageResult()
    recipe, classes = job.recipe, tuple(job.inputs["data"].details["classes"])
    if training:
        record = training.pop("record")
        _write_record(record, job.out_dir / "steps.csv")
        training["curve"] = _curve(record)
    save_state(model, job.out_dir / WEIGHTS)
    params, macs = count(model, recipe.data.size)
    details = {
        **origin,
        "methods": guidance.methods if guidance else {},
        "seed": recipe.seed,
        "params": params,
        "macs": macs,
        "training": training,
    }
    return StageResult(torch_spec(model, recipe.task, classes, recipe.data.size, recipe.data.resize), details)


def _fit(job: StageJob, model: DenseModel, budget: Train, guidance: Guidance | None) -> dict[str, Any]:
    """Train a network on the recipe's training split and return the facts of `fit`."""
    recipe = job.recipe
    check_input_size(model, recipe.data.augment.crop or recipe.data.size)
    dataset = open_split(recipe, recipe.data.train)
    distiller, teacher_cache = guidance.build(model, dataset) if guidance else (None, None)
    return fit(
        FitJob(
            title=job.subject,
            student=model,
            distiller=distiller,
            dataset=dataset,
            data=recipe.data,
            budget=budget,
            trainer=recipe.trainer,
            seed=recipe.seed,
            watchdog_ratio=guidance.watchdog_ratio if guidance else float("inf"),
            scratch=job.out_dir / SCRATCH,
            task=recipe.task,
            teacher_cache=teacher_cache,
            validation=open_split(recipe, recipe.data.val) if budget.validate_every else None,
            class_weights=_class_weights(dataset, recipe.data.train, budget.class_balance),
            project=recipe.name,
        )
    )


def _class_weights(dataset: DenseDataset, split: str, balance: float) -> torch.Tensor | None:
    """Return the class weights of the task loss, None for balance 0. It reads every mask of the split; DataError."""
    if balance == 0:
        return None
    title = f"counting the classes of split {split!r}, for class_balance"
    log.info("%s", title)
    with progress_bar(title) as progress:
        weights = balanced(class_shares(dataset, split, progress), balance)
    named = sorted((w, name) for name, w in zip(dataset.classes, weights.tolist(), strict=True) if w > 0)
    log.info("class weights from %.2f (%s) to %.2f (%s)", *named[0], *named[-1])
    return weights


def _write_record(record: list[dict[str, float]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(record[0]))
        writer.writeheader()
        writer.writerows(record)


def _curve(record: list[dict[str, float]], points: int = 150) -> list[list[float]]:
    """Return about `points` pairs [step, mean task loss since the previous one], for the report."""
    width = max(1, len(record) // points)
    curve = []
    for end in range(width, len(record) + 1, width):
        window = record[end - width : end]
        curve.append([window[-1]["step"], round(sum(row["task"] for row in window) / width, 5)])
    return curve

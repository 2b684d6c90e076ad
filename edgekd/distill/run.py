"""The training stages: teacher, plain student (the baseline) and distilled student.

Baseline and distilled student get the same seed, hence the same initial weights and the same batches in the same
order, and the same number of steps. Initial weights are drawn before anything else uses the random generator.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from edgekd.core import plugins
from edgekd.core.artifact import SCRATCH, StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.ranks import is_first_process
from edgekd.core.recipe import Distill, Method, Network, Recipe, Train
from edgekd.core.recipe_loading import plugin_options
from edgekd.core.stage import StageJob
from edgekd.core.tasks import check_floor
from edgekd.data.base import DenseDataset
from edgekd.data.check import class_shares
from edgekd.data.loader import FixedViews
from edgekd.data.open import open_split
from edgekd.distill.answers import TeacherAnswers, filled, key_of
from edgekd.distill.base import pyramid_of
from edgekd.distill.fit import FitJob, fit, own_device
from edgekd.distill.losses.semantic import balanced
from edgekd.distill.module import Distiller, FrozenTeacher
from edgekd.errors import RecipeError
from edgekd.models.artifact import WEIGHTS, network_from_artifact, network_from_recipe
from edgekd.models.base import DenseModel, ReadyDetector
from edgekd.models.build import check_input_size, count
from edgekd.models.session import torch_spec
from edgekd.models.weights import save_state

log = logging.getLogger(__name__)


def train_teacher(job: StageJob) -> StageResult:
    """Train the teacher on the labels, or take its checkpoint as it is."""
    return _train(job, job.recipe.teacher, "teacher", None)


def train_student(job: StageJob) -> StageResult:
    """Train the student on the labels alone."""
    return _train(job, job.recipe.student, "student", None)


def distill_student(job: StageJob) -> StageResult:
    """Train the student with the methods of the recipe.

    Raises:
        GateError: the teacher's score is below `teacher.floor`; or the watchdog stopped the run.
    """
    if job.recipe.teacher.floor > 0:
        check_floor(job.recipe.task, job.inputs["evaluate/teacher"].details["metrics"], job.recipe.teacher.floor)
    teacher = network_from_artifact(job.inputs["teacher"])
    return _train(job, job.recipe.student, "student", (teacher, job.recipe.distill))


def _train(job: StageJob, network: Network, where: str, distill: tuple[DenseModel, Distill] | None) -> StageResult:
    recipe, classes = job.recipe, tuple(job.inputs["data"].details["classes"])
    L.seed_everything(recipe.seed, workers=False, verbose=False)  # networks of one's own may draw by numpy or random
    model = network_from_recipe(network, recipe.task, len(classes), where)
    check_input_size(model, recipe.data.size)
    if network.train is not None and isinstance(model, ReadyDetector):
        raise RecipeError(
            f"{where}.train: networks of family {network.family!r} are not trained here; leave it out and give "
            f"{where}.checkpoint, a file with trained weights"
        )
    if network.train is not None:
        model.check_trains()
    training = {} if network.train is None else _fit(job, model, network.train, distill)
    if not is_first_process():  # it has helped; the first one writes the artifact
        return StageResult()
    if training:
        record = training.pop("record")
        _write_record(record, job.out_dir / "steps.csv")
        training["curve"] = _curve(record)
    save_state(model, job.out_dir / WEIGHTS)
    params, macs = count(model, recipe.data.size)
    details = {
        "network": network.model_dump(mode="json", include={"family", "variant", "options"}),
        "initial_weights": str(network.checkpoint.name) if network.checkpoint else None,
        "methods": distill[1].model_dump(mode="json")["methods"] if distill else {},
        "seed": recipe.seed,
        "params": params,
        "macs": macs,
        "training": training,
    }
    return StageResult(torch_spec(model, recipe.task, classes, recipe.data.size, recipe.data.resize), details)


def _fit(job: StageJob, model: DenseModel, budget: Train, distill: tuple[DenseModel, Distill] | None) -> dict[str, Any]:
    """Train a network in place on the recipe's training split and return what `fit` says of it."""
    recipe, num_classes = job.recipe, len(job.inputs["data"].details["classes"])
    check_input_size(model, recipe.data.augment.crop or recipe.data.size)
    dataset = open_split(recipe, recipe.data.train)
    distiller = _distiller(distill, model, num_classes, recipe)
    return fit(
        FitJob(
            title=job.part,
            student=model,
            distiller=distiller,
            dataset=dataset,
            data=recipe.data,
            budget=budget,
            trainer=recipe.trainer,
            seed=recipe.seed,
            watchdog_ratio=distill[1].watchdog_ratio if distill else float("inf"),
            scratch=job.out_dir / SCRATCH,
            task=recipe.task,
            answers=_answers(job, distiller, dataset),
            validation=open_split(recipe, recipe.data.val) if budget.validate_every else None,
            class_weights=_class_weights(dataset, recipe.data.train, budget.class_balance),
        )
    )


def _class_weights(dataset: DenseDataset, split: str, balance: float) -> torch.Tensor | None:
    """Return the weights of the task loss by the classes' shares in the training split, which is read for it; DataError."""
    if balance == 0:
        return None
    title = f"counting the classes of split {split!r}, for class_balance"
    log.info("%s", title)
    with progress_bar(title) as progress:
        weights = balanced(class_shares(dataset, split, progress), balance)
    named = sorted((w, name) for name, w in zip(dataset.classes, weights.tolist(), strict=True) if w > 0)
    log.info("a pixel counts from %.2f (%s) to %.2f (%s)", *named[0], *named[-1])
    return weights


def build_methods(
    distill: Distill, teacher: DenseModel, student: DenseModel, num_classes: int, task: str
) -> dict[str, tuple[Method, nn.Module]]:
    """Return the config and the module of every method of the recipe; RecipeError when one does not fit."""
    methods = {}
    for name, config in distill.methods.items():
        options = plugin_options("methods", name, config.options, f"distill.methods.{name}.options")
        module = plugins.load("methods", name)
        if task not in module.TASKS:
            able = [other for other in plugins.names("methods") if task in plugins.load("methods", other).TASKS]
            raise RecipeError(f"distill.methods.{name}: not for task {task!r}; use {', '.join(able)}")
        pyramids = (pyramid_of(network, num_classes, task) for network in (teacher, student))
        methods[name] = (config, module.Method(options, *pyramids))
    return methods


def _distiller(
    distill: tuple[DenseModel, Distill] | None, student: DenseModel, num_classes: int, recipe: Recipe
) -> Distiller | None:
    if distill is None:
        return None
    teacher, section = distill
    # Adapters are drawn here: the student's weights already are.
    methods = build_methods(section, teacher, student, num_classes, recipe.task)
    return Distiller(FrozenTeacher(teacher, recipe.trainer.compile_teacher), methods)


def _answers(job: StageJob, distiller: Distiller | None, dataset: DenseDataset) -> TeacherAnswers | None:
    data, trainer = job.recipe.data, job.recipe.trainer
    if distiller is None or trainer.teacher_cache is None:
        return None
    folder = trainer.teacher_cache / key_of(job.inputs["teacher"], job.inputs["data"], data)
    return filled(folder, distiller.teacher, FixedViews(dataset, data, job.recipe.task), own_device(trainer))


def _write_record(record: list[dict[str, float]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(record[0]))
        writer.writeheader()
        writer.writerows(record)


def _curve(record: list[dict[str, float]], points: int = 150) -> list[list[float]]:
    """Return [step, mean task loss since the point before] at about `points` steps, for the report."""
    width = max(1, len(record) // points)
    curve = []
    for end in range(width, len(record) + 1, width):
        window = record[end - width : end]
        curve.append([window[-1]["step"], round(sum(row["task"] for row in window) / width, 5)])
    return curve

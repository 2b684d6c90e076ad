"""The distillation stages: `plan` records the maps that the methods compare, `run` trains the distilled student."""

from __future__ import annotations

from dataclasses import asdict

from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Distill
from edgekd.core.stage import StageJob
from edgekd.core.task_metrics import check_floor
from edgekd.data.base import DenseDataset
from edgekd.data.loader import FixedViews
from edgekd.distill.plan import build_methods, check_arms, plan
from edgekd.distill.teacher import FrozenTeacher
from edgekd.distill.teacher_cache import TeacherCache, cache_key, fill_cache
from edgekd.models.artifact import network_from_artifact, untrained_network
from edgekd.models.base import DenseModel
from edgekd.train.module import Distiller
from edgekd.train.place import training_device
from edgekd.train.refusals import check_trainable
from edgekd.train.stage import Guidance, train_network


def run(job: StageJob) -> StageResult:
    """Train the student with the methods of the recipe.

    Raises:
        GateError: the teacher's score is below `teacher.floor`; or the watchdog stopped the run.
    """
    return train_network(job, job.recipe.student, "student", guidance_of(job, job.recipe.distill))


def guidance_of(job: StageJob, distill: Distill) -> Guidance:
    """Return the distillation of a stage that reads the artifacts `teacher`, and `evaluate/teacher` where the teacher has a floor.

    Raises:
        GateError: the teacher's score is below `teacher.floor`.
    """
    if job.recipe.teacher.floor > 0:
        check_floor(job.recipe.task, job.inputs["evaluate/teacher"].details["metrics"], job.recipe.teacher.floor)
    recipe, teacher = job.recipe, network_from_artifact(job.inputs["teacher"])
    num_classes = len(job.inputs["data"].details["classes"])

    def build(student: DenseModel, dataset: DenseDataset) -> tuple[Distiller, TeacherCache | None]:
        methods = build_methods(distill, teacher, student, num_classes, recipe.task)
        distiller = Distiller(FrozenTeacher(teacher, recipe.trainer.compile_teacher), methods)
        return distiller, _teacher_cache(job, distiller, dataset)

    return Guidance(distill.model_dump(mode="json")["methods"], distill.watchdog_ratio, build)


def run_plan(job: StageJob) -> StageResult:
    """Record the maps that the methods compare. A method that does not fit fails here, before any training."""
    recipe = job.recipe
    if recipe.qat is not None:
        check_arms(recipe, {"qat": recipe.qat.methods})
        classes = len(job.inputs["data"].details["classes"])
        student = untrained_network(recipe.student, recipe.task, classes, "student")
        check_trainable(student, recipe.student.model_copy(update={"train": recipe.qat.train}), "qat")
    return StageResult(details=asdict(plan(job.recipe)))


def _teacher_cache(job: StageJob, distiller: Distiller, dataset: DenseDataset) -> TeacherCache | None:
    data, trainer = job.recipe.data, job.recipe.trainer
    if trainer.teacher_cache is None:
        return None
    folder = trainer.teacher_cache / cache_key(job.inputs["teacher"], job.inputs["data"], data)
    views = FixedViews(dataset, data, job.recipe.task)
    return fill_cache(folder, distiller.teacher, views, training_device(trainer))

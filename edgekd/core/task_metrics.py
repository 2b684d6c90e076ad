"""The three tasks, each with its primary and secondary metric; `evaluate/definitions.py` defines the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.errors import GateError


@dataclass(frozen=True)
class Task:
    """Primary metric (ranks networks; unit of `teacher.floor`), secondary metric, and their titles.

    more: two further metrics, for a study's table and figure.
    per_class: name of the score of a single class.
    """

    metric: str
    title: str
    second: str
    second_title: str
    more: tuple[str, str]
    per_class: str


TASKS = {
    "semantic": Task(
        "miou", "mIoU", "boundary_iou", "boundary IoU", ("spurious_components", "missing_components"), "IoU"
    ),
    "detection": Task("map", "mAP", "map_75", "AP75", ("map_50", "map_small"), "AP"),
    "instance": Task("mask_map", "mask mAP", "boundary_map", "boundary AP", ("map", "mask_map_75"), "mask AP"),
}


def metric_title(name: str) -> str:
    """Return the title of a primary or secondary metric; the name itself for another one."""
    second = {task.second: task.second_title for task in TASKS.values()}
    return (second | {task.metric: task.title for task in TASKS.values()}).get(name, name)


def check_floor(task: str, metrics: Mapping[str, float], floor: float) -> None:
    """Check a teacher's metrics (fractions) against `teacher.floor`; GateError if the primary metric is below it."""
    score, title = metrics[TASKS[task].metric], TASKS[task].title
    if score < floor:
        raise GateError(
            f"the teacher's {title} is {score:.3f}, below teacher.floor = {floor:.3f}; a weak teacher does not help: "
            "train it longer, or lower the floor knowingly"
        )

"""The dense tasks, and the two metrics that each is judged by first; `evaluate/definitions.py` says what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.errors import GateError


@dataclass(frozen=True)
class Task:
    """Names of the metric that ranks networks (`teacher.floor` is meant in it) and of the one shown beside it, with titles.

    more: two further metrics, for the table and the picture of a study.
    per_class: what a network's score on a single class is called.
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


def check_floor(task: str, metrics: Mapping[str, float], floor: float) -> None:
    """Check a teacher's metrics (fractions) against `teacher.floor`; GateError when the task's first one is below."""
    score, title = metrics[TASKS[task].metric], TASKS[task].title
    if score < floor:
        raise GateError(
            f"the teacher's {title} is {score:.3f}, below teacher.floor = {floor:.3f}; a weak teacher does not help: "
            "train it longer, or lower the floor knowingly"
        )

"""The dense tasks, and the two metrics that each is judged by first; `evaluate/definitions.py` says what they are."""

from __future__ import annotations

from dataclasses import dataclass


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

"""The dense tasks, and the two metrics that each is judged by first; `evaluate/definitions.py` says what they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Names of the metric that ranks networks (`teacher.floor` is meant in it) and of the one shown beside it, with titles.

    per_class: what a network's score on a single class is called.
    """

    metric: str
    title: str
    second: str
    second_title: str
    per_class: str


TASKS = {
    "semantic": Task("miou", "mIoU", "boundary_iou", "boundary IoU", "IoU"),
    "detection": Task("map", "mAP", "map_75", "AP75", "AP"),
    "instance": Task("mask_map", "mask mAP", "boundary_map", "boundary AP", "mask AP"),
}

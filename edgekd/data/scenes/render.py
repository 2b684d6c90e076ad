"""One scene as a sample: image, mask, and the countable objects."""

from __future__ import annotations

import numpy as np

from edgekd.board.run_masks import tight_masks
from edgekd.data.base import Instances, Sample
from edgekd.data.scenes import THINGS
from edgekd.data.scenes.camera import photograph
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.layout import compose


def render_scene(name: str, height: int, width: int, key: tuple[int, ...]) -> Sample:
    """Render the scene of `key`; equal arguments give equal bytes on every machine."""
    dice = Dice(*key)
    canvas = compose(height, width, dice)
    ids = canvas.visible_ids()
    classes = np.array(canvas.classes, np.uint8)
    image = photograph(canvas.colors(), dice)
    return Sample(name, image, classes[ids], instances_from_ids(ids, canvas.classes))


def instances_from_ids(ids: np.ndarray, classes: list[int]) -> Instances:
    """Return the visible pixels of each countable object that has any, from back to front."""
    area = np.bincount(ids.ravel(), minlength=len(classes))
    shown = [number for number, label in enumerate(classes) if label in THINGS and area[number]]
    masks = ids[None] == np.array(shown, np.uint8)[:, None, None]  # (N, H, W)
    boxes = np.array([_tight_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    return Instances(tight_masks(masks), boxes, np.array([classes[number] for number in shown], np.int64))


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

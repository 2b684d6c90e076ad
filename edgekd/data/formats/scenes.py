"""Format `scenes`: rendered street scenes, nothing to download; see `edgekd/data/scenes`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX, Sample
from edgekd.data.scenes import CLASSES, THINGS
from edgekd.data.scenes.render import render_scene
from edgekd.errors import DataError, did_you_mean

TASKS = ("semantic", "detection", "instance")

SPLITS = ("train", "val", "test")
MIN_SIDE = 64  # below it a wire would be thinner than one pixel
MAX_SIDE = 4096


@dataclass(frozen=True)
class Options:
    """Which scenes to render. A scene depends only on seed, split and its own index, not on the number of scenes."""

    height: int = option(96, "Image height in pixels, 64 to 4096. The scene scales with it.")
    width: int = option(128, "Image width in pixels, 64 to 4096.")
    train: int = option(2000, "Number of scenes in split `train`.")
    val: int = option(200, "Number of scenes in split `val`.")
    test: int = option(200, "Number of scenes in split `test`.")
    seed: int = option(0, "Seed of the scenes, 0 or more.")


class ScenesDataset:
    """One split, with the classes of the masks or of the objects. Every `load` renders its scene.

    Samples carry instances of buildings, signs, balls and rings: the pixels that are visible in the mask, back to
    front, with tight boxes `x1, y1, x2, y2` in pixels where x2 and y2 are exclusive (x2 - x1 is the width).
    """

    def __init__(self, options: Options, split: str, has_objects: bool = False) -> None:
        self._options, self._split, self._has_objects = options, split, has_objects
        self.classes = tuple(CLASSES[label] for label in THINGS) if has_objects else CLASSES

    def __len__(self) -> int:
        return int(getattr(self._options, self._split))

    def name(self, index: int) -> str:
        """Return `split/index`, five digits."""
        return f"{self._split}/{index:05d}"

    def files(self, index: int) -> tuple[Path, ...]:
        """Return nothing: scenes are rendered."""
        return ()

    def load(self, index: int) -> Sample:
        """Render one scene; IndexError when it is not in 0..len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of split {self._split!r}, which has {len(self)}")
        key = (self._options.seed, SPLITS.index(self._split), index)
        sample = render_scene(self.name(index), self._options.height, self._options.width, key)
        if not self._has_objects:
            return sample
        assert sample.instances is not None
        labels = np.searchsorted(THINGS, sample.instances.labels)
        return replace(
            sample, mask=np.full_like(sample.mask, IGNORE_INDEX), instances=replace(sample.instances, labels=labels)
        )


def open_objects(options: Options, split: str, has_masks: bool) -> ScenesDataset:
    """Return one split of rendered scenes with the classes that have objects; errors as in `open_dataset`."""
    open_dataset(options, split)
    return ScenesDataset(options, split, has_objects=True)


def open_dataset(options: Options, split: str) -> ScenesDataset:
    """Return one split of rendered scenes.

    Raises:
        DataError: a split that does not exist or is empty, a size out of range, a negative seed.
    """
    if split not in SPLITS:
        raise DataError(f"scenes has no split {split!r}{did_you_mean(split, SPLITS)}")
    for key in ("height", "width"):
        side = getattr(options, key)
        if not MIN_SIDE <= side <= MAX_SIDE:
            raise DataError(f"data.options.{key} is {side}, expected {MIN_SIDE}..{MAX_SIDE} pixels; 96 x 128 is usual")
    if options.seed < 0:
        raise DataError(f"data.options.seed is {options.seed}, expected 0 or more")
    if getattr(options, split) < 1:
        count = getattr(options, split)
        raise DataError(f"data.options.{split} is {count}, expected at least 1 scene; raise it or use another split")
    return ScenesDataset(options, split)

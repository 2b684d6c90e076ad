"""Texture tiles, made once per canvas size: int16 brightness offsets around 0, roughly -64..64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgekd.data.scenes.dice import Dice

MARGIN = 64  # a tile is that much larger than the canvas, so that a window of canvas size can start at 0..MARGIN
_SEED = 20240131  # any constant; changing it changes every scene
MASONRY = ("plaster", "brick", "block", "plank")
LOOSE = ("plaster", "grass", "gravel")


@dataclass(frozen=True)
class Material:
    """A colour (R, G, B), 0..255, whose brightness a tile changes by `tile * gain / 64`."""

    color: tuple[int, int, int]
    tile: str = "plain"
    gain: int = 0

    def mixed(self, color: tuple[int, int, int], share: int) -> Material:
        """Return this material with `share` 64ths of another colour mixed in."""
        return Material(mix(self.color, color, share), self.tile, self.gain)


def mix(color: tuple[int, int, int], other: tuple[int, int, int], share: int) -> tuple[int, int, int]:
    """Return `color` with `share` 64ths replaced by `other`."""
    red, green, blue = ((a * (64 - share) + b * share) // 64 for a, b in zip(color, other, strict=True))
    return red, green, blue


@lru_cache(maxsize=4)
def tiles(height: int, width: int) -> dict[str, np.ndarray]:
    """Return name -> (height + MARGIN, width + MARGIN) int16 for a canvas of that size in subpixels."""
    shape = (height + MARGIN, width + MARGIN)
    unit = max(1, height // 96)  # subpixels in one 96th of the height
    dice = Dice(_SEED)
    fine = dice.array(-64, 64, shape)
    small, medium = _smooth_noise(dice, shape, 2 * unit), _smooth_noise(dice, shape, 5 * unit)
    coarse = _smooth_noise(dice, shape, 16 * unit)
    result = {
        "plain": np.zeros(shape, np.int32),
        "plaster": (medium * 2 + small + fine) // 4,
        "grass": (small * 3 + medium * 2 + fine) // 5,
        "gravel": (fine * 2 + small * 3) // 5,
        "cloud": (coarse * 3 + medium) // 3,
        "brick": _courses(dice, shape, 4 * unit, 9 * unit, unit) + fine // 6,
        "block": _courses(dice, shape, 8 * unit, 14 * unit, unit) + small // 6,
        "plank": _courses(dice, shape, 5 * unit, 48 * unit, unit) + medium // 6,
    }
    return {name: tile.astype(np.int16) for name, tile in result.items()}


@lru_cache(maxsize=4)
def sensor_noise(height: int, width: int) -> np.ndarray:
    """Return (height + MARGIN, width + MARGIN) int16, bell-shaped around 0 with a standard deviation of about 64."""
    throws = Dice(_SEED, 1).array(-55, 55, (4, height + MARGIN, width + MARGIN))
    return throws.sum(axis=0).astype(np.int16)  # sd of one throw: sqrt((111**2 - 1) / 12) = 32


def _smooth_noise(dice: Dice, shape: tuple[int, int], period: int) -> np.ndarray:
    """Return noise in -64..64, bilinear between random values `period` subpixels apart."""
    rows, columns = (side // period + 2 for side in shape)
    lattice = dice.array(-64, 64, (rows, columns))
    lattice = _stretched(lattice, period, shape[0])
    return _stretched(lattice.T, period, shape[1]).T


def _stretched(values: np.ndarray, period: int, size: int) -> np.ndarray:
    place = np.arange(size)
    first, rest = place // period, (place % period)[:, None]
    return (values[first] * (period - rest) + values[first + 1] * rest) // period


def _courses(dice: Dice, shape: tuple[int, int], height: int, length: int, joint: int) -> np.ndarray:
    """Return bricks of `height` x `length` with darker joints, every other course shifted by half a brick."""
    row = np.arange(shape[0])[:, None]
    column = np.arange(shape[1])[None, :] + (row // height % 2) * (length // 2)
    tone = dice.array(-26, 26, (shape[0] // height + 1, shape[1] // length + 2))
    bricks = tone[row // height, column // length]
    return np.where((row % height < joint) | (column % length < joint), -58, bricks)

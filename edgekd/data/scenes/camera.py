"""From painted colours to the image a camera gives: light, colour cast, blur, noise. Integers only."""

from __future__ import annotations

import numpy as np

from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.textures import MARGIN, sensor_noise


def photograph(colors: np.ndarray, dice: Dice) -> np.ndarray:
    """Return the (H, W, 3) uint8 RGB image of `colors` (3, H, W) int32, four times the brightness 0..255."""
    height, width = colors.shape[1:]
    image = colors * _light(height, width, dice) >> 6
    gain = np.array([dice.between(236, 276) for _ in range(3)], np.int32)[:, None, None]
    image = image * gain >> 8  # (3, H, W), 16 steps per grey level
    for _ in range(dice.pick((0, 0, 0, 0, 1, 1))):
        image = _blurred(image)
    amplitude = dice.pick((1, 2, 3, 4, 6))  # standard deviation in grey levels
    noise = sensor_noise(height, width)
    for channel in image:
        y, x = dice.between(0, MARGIN), dice.between(0, MARGIN)
        channel += noise[y : y + height, x : x + width].astype(np.int32) * amplitude >> 2
    image = np.clip(image + 8 >> 4, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))  # (H, W, 3)


def _light(height: int, width: int, dice: Dice) -> np.ndarray:
    """Return (H, W) int32, the brightness in 256ths: an exposure and a gradient across the image."""
    exposure, across, down = dice.between(196, 284), dice.between(-56, 56), dice.between(-36, 36)
    x, y = np.arange(width, dtype=np.int32) * 2 - width, np.arange(height, dtype=np.int32) * 2 - height
    return exposure + (across * x // width)[None, :] + (down * y // height)[:, None]


def _blurred(image: np.ndarray) -> np.ndarray:
    """Return the image under a binomial 3 x 3 kernel; the edge is repeated."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:] + 8 >> 4

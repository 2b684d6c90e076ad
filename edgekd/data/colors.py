"""Colours of classes, and masks drawn over images. numpy only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgekd.data.base import IGNORE_INDEX

# sRGB -> CIE XYZ, IEC 61966-2-1, rows divided by the D65 white point.
_XYZ_FROM_RGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(axis=1, keepdims=True)
# The first colours are chosen by eye: distinct when blended, and calm enough for a report.
_FIRST_COLORS = (
    (66, 119, 200),
    (245, 130, 49),
    (60, 180, 75),
    (214, 39, 72),
    (140, 70, 190),
    (250, 215, 50),
    (70, 205, 225),
    (140, 90, 50),
    (245, 140, 200),
    (0, 110, 105),
    (185, 225, 80),
    (40, 45, 130),
    (205, 185, 255),
    (125, 10, 50),
    (130, 130, 30),
    (150, 160, 170),
)


def palette(num_classes: int) -> np.ndarray:
    """Return (K, 3) uint8 RGB colours: 16 chosen by hand, then each as far as possible from all before it in CIE L*a*b*.

    The first k colours are the same for every K: adding classes at the end changes no colour.

    Raises:
        ValueError: `num_classes` is not in 1..255.
    """
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise ValueError(f"num_classes must be in 1..{IGNORE_INDEX}, got {num_classes}")
    return _separated_colors()[:num_classes].copy()


def overlay(image: np.ndarray, mask: np.ndarray, colors: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Return the image with the mask's colours blended over it; ignored pixels (255) stay as they are.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class indices, 255 = ignored.
        colors: (K, 3) uint8, see `palette`.
        alpha: weight of the colour, in [0, 1].
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    weight = np.float32(alpha) * (mask != IGNORE_INDEX).astype(np.float32)[..., None]  # (H, W, 1)
    return np.rint(image * (1 - weight) + table[mask] * weight).astype(np.uint8)


@lru_cache(maxsize=1)
def _separated_colors() -> np.ndarray:
    levels = np.linspace(0, 255, 12).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab_from_rgb(candidates)
    usable = (lab[:, 0] > 25) & (lab[:, 0] < 92)  # neither near black nor near white: both hide on pictures
    candidates, lab = candidates[usable], lab[usable]
    chosen = [np.array(color, float) for color in _FIRST_COLORS]
    distance = np.min([np.linalg.norm(lab - color, axis=1) for color in _lab_from_rgb(np.array(chosen))], axis=0)
    while len(chosen) < IGNORE_INDEX:
        farthest = int(distance.argmax())
        chosen.append(candidates[farthest])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=1))
    return np.array(chosen, np.uint8)


def _lab_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (N, 3) of sRGB colours (N, 3) in 0..255."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ_FROM_RGB.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)

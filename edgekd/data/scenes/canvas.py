"""The canvas: colour and object identity at twice the image's resolution, painted back to front."""

from __future__ import annotations

import numpy as np

from edgekd.data.scenes.shapes import Stencil
from edgekd.data.scenes.textures import MARGIN, Material, tiles

SUPERSAMPLING = 2
BASE_HEIGHT = 192  # the scene is laid out on that many units, whatever the canvas measures


class Canvas:
    """Colours `rgb` (3, 2H, 2W) int16 and object numbers `ids` (2H, 2W) uint8, later objects in front.

    Attributes:
        classes: class index per object number; numbers grow towards the viewer.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = SUPERSAMPLING * height, SUPERSAMPLING * width
        self.rgb = np.zeros((3, self.height, self.width), np.int16)
        self.ids = np.zeros((self.height, self.width), np.uint8)
        self.classes: list[int] = []
        self._tiles = tiles(self.height, self.width)

    def scaled(self, units: int) -> int:
        """Return a length of layout units (192 per image height) in subpixels."""
        return units * self.height // BASE_HEIGHT

    def new_object(self, label: int) -> int:
        """Return the number of a new object of class `label`, in front of all before it."""
        self.classes.append(label)
        assert len(self.classes) <= 255  # scenes have a few dozen objects; ids are uint8
        return len(self.classes) - 1

    def paint(self, stencil: Stencil, material: Material, offset: tuple[int, int], number: int) -> None:
        """Cover the stencil with a material, its texture starting at `offset` (0..MARGIN), as object `number`."""
        clipped = self._clip(stencil)
        if clipped is None:
            return
        rows, columns, mask = clipped
        color = np.array(material.color, np.int16)[:, None, None]
        if material.gain:
            dy, dx = offset[0] % MARGIN, offset[1] % MARGIN
            tile = self._tiles[material.tile][dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
            color = color + (tile * np.int16(material.gain) >> 6)
        if stencil.is_solid:
            self.rgb[:, rows, columns] = color
            self.ids[rows, columns] = number
        else:
            np.copyto(self.rgb[:, rows, columns], color, where=mask)
            np.copyto(self.ids[rows, columns], np.uint8(number), where=mask)

    def shade(self, stencil: Stencil, brightness: int, only: int | None = None) -> None:
        """Multiply the colours in the stencil by `brightness` / 64, on object number `only` if given."""
        clipped = self._clip(stencil)
        if clipped is None:
            return
        rows, columns, mask = clipped
        if only is not None:
            mask = mask & (self.ids[rows, columns] == only)
        area = self.rgb[:, rows, columns]
        if stencil.is_solid and only is None:
            area[...] = area * np.int16(brightness) >> 6
        else:
            np.copyto(area, area * np.int16(brightness) >> 6, where=mask)

    def visible_ids(self) -> np.ndarray:
        """Return the (H, W) uint8 object number per image pixel: most of its 4 subpixels, the nearer one of a tie.

        Ties go to the front so that a structure two subpixels thin never breaks.
        """
        a, b = self.ids[0::2, 0::2], self.ids[0::2, 1::2]
        c, d = self.ids[1::2, 0::2], self.ids[1::2, 1::2]
        low_ab, high_ab, low_cd, high_cd = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)
        least, most = np.minimum(low_ab, low_cd), np.maximum(high_ab, high_cd)
        inner, other = np.maximum(low_ab, low_cd), np.minimum(high_ab, high_cd)
        second, third = np.minimum(inner, other), np.maximum(inner, other)
        # Of the sorted four: the middle two agree, or the lower two alone agree, or the front one has it.
        return np.where(second == third, second, np.where((least == second) & (third != most), least, most))

    def colors(self) -> np.ndarray:
        """Return the (3, H, W) int32 sum of each pixel's four subpixels, so 0..1020 and a little beyond."""
        rows = self.rgb[:, 0::2] + self.rgb[:, 1::2]  # (3, H, 2W)
        return (rows[:, :, 0::2] + rows[:, :, 1::2]).astype(np.int32)

    def _clip(self, stencil: Stencil) -> tuple[slice, slice, np.ndarray] | None:
        height, width = stencil.mask.shape
        y0, x0 = max(0, stencil.top), max(0, stencil.left)
        y1, x1 = min(self.height, stencil.top + height), min(self.width, stencil.left + width)
        if y0 >= y1 or x0 >= x1:
            return None
        mask = stencil.mask[y0 - stencil.top : y1 - stencil.top, x0 - stencil.left : x1 - stencil.left]
        return slice(y0, y1), slice(x0, x1), mask
